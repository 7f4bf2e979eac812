"""Somebody at a terminal, in a session of the real logind: polkit's password prompt."""

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.support.systemd import Machine
from tests.support.terminal import Terminal

USER, PASSWORD = "alice", "secret"
LIST = "virsh -c qemu:///system list --all --name; echo status=$?\n"
ASKED = "AUTHENTICATING FOR org.libvirt.unix.manage.*[^$]*Password: "
TRIES = 5  # virsh asks again that often


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with an administrator; the daemon's sockets listen."""
    if reason := Machine.missing():
        pytest.skip(reason)
    for program in ("pkttyagent", "login", "loginctl"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    with Machine() as made:
        made.install()
        made.write("/etc/libvirt/libvirtd.conf", 'auth_unix_rw = "polkit"\n')
        made.add_user(USER, PASSWORD, "--groups=sudo")
        made.ok("systemctl", "start", "pyvirtd.socket", "pyvirtd-ro.socket")
        yield made


@pytest.fixture
def terminal(machine: Machine) -> Iterator[Terminal]:
    with machine.login(USER, PASSWORD) as made:
        yield made


def answer(terminal: Terminal, text: str) -> None:
    """Type at the password prompt, once it is there."""
    terminal.expect(ASKED)
    terminal.send_secret(text)


def status(terminal: Terminal) -> tuple[int, str]:
    """How the command ended, and what it said last."""
    said = terminal.expect(r"status=\d+")
    return int(said.rpartition("=")[2]), said


def test_the_right_password_lets_in(terminal: Terminal) -> None:
    terminal.send(LIST)
    answer(terminal, f"{PASSWORD}\n")
    code, said = status(terminal)
    assert "AUTHENTICATION COMPLETE" in said
    assert code == 0


def test_a_wrong_password_is_asked_for_again_and_fails_in_the_end(terminal: Terminal) -> None:
    terminal.send(LIST)
    for _ in range(TRIES):
        answer(terminal, "wrong\n")
    code, said = status(terminal)
    assert "error: authentication failed: access denied by policy" in said
    assert code == 1


def test_who_corrects_the_password_is_let_in(terminal: Terminal) -> None:
    terminal.send(LIST)
    answer(terminal, "wrong\n")
    answer(terminal, f"{PASSWORD}\n")
    assert status(terminal)[0] == 0


def test_an_agent_that_leaves_before_the_answer_is_none(terminal: Terminal) -> None:
    terminal.send(LIST)
    answer(terminal, "\x04")  # end of file, for which the agent gives up
    code, said = status(terminal)
    words = "no polkit agent available to authenticate action 'org.libvirt.unix.manage'"
    assert f"error: authentication unavailable: {words}" in said
    assert code == 1


def test_who_watches_is_not_asked(terminal: Terminal) -> None:
    terminal.send(LIST.replace("virsh", "virsh -r"))
    code, said = status(terminal)
    assert "AUTHENTICATING" not in said
    assert code == 0


def test_one_answer_is_for_all_that_the_client_does(terminal: Terminal) -> None:
    terminal.send("virsh -c qemu:///system\n")
    answer(terminal, f"{PASSWORD}\n")
    said = ""
    for command in ("hostname", "list --all", "connect qemu:///system", "list --all"):
        said += terminal.expect("virsh # ")
        terminal.send(f"{command}\n")
    said += terminal.expect("virsh # ")
    terminal.send("quit\n")
    assert "AUTHENTICATING" not in said
    assert "error" not in said
    assert len(re.findall("Id +Name +State", said)) == 2
