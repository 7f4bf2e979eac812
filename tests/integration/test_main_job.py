"""The main job end to end: unmodified virsh runs a real guest, and the daemon may die in the middle of it."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.guest import Guest
from tests.support.domains import tiny_domain
from tests.support.host import Host, SessionHost, SystemHost

pytestmark = pytest.mark.guest
NAME = "tiny"


@pytest.fixture(scope="module", params=[SystemHost, SessionHost], ids=["system", "session"])
def machine(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A daemon of either mode."""
    kind: type[Host] = request.param
    if kind is SystemHost and (reason := SystemHost.missing()):
        pytest.skip(reason)
    with kind() as host:
        yield host.start()


@pytest.fixture(scope="module")
def running(machine: Host, guest: Guest) -> Host:
    """The tiny guest, booted to its shell; every test leaves it running."""
    machine.define(tiny_domain(machine.adopt(guest), NAME, devices="<interface type='user'/>"))
    machine.ok(f"start {NAME}")
    with machine.terminal(f"console {NAME}") as console:
        console.expect("tiny guest ready", 60)
        console.expect("tiny# ", 10)
    return machine


def eventually(condition: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def typed(host: Host, command: str) -> str:
    """The answer of the guest's shell to a command typed on its console."""
    with host.terminal(f"console {NAME} --force") as console:
        console.prompt()
        return console.command(command)


def stable_xml(host: Host) -> list[str]:
    """The live XML's lines, without the state of the agent's channel, which is the guest's, and in no order: libvirt
    itself sorts the controllers anew when it reads them back."""
    return sorted(re.sub(r" state='(?:dis)?connected'", "", host.ok(f"dumpxml {NAME}")).splitlines())


def test_shell_on_the_console_answers(running: Host) -> None:
    assert typed(running, "echo $((6 * 7))") == "42"


def test_guest_is_listed_as_running(running: Host) -> None:
    assert running.ok("list").split()[1:] == [NAME, "running"]


def test_dominfo_tells_what_was_defined(running: Host) -> None:
    info = dict(line.split(":", 1) for line in running.ok(f"dominfo {NAME}").splitlines())
    assert info["Max memory"].strip() == f"{128 * 1024} KiB"
    assert info["Persistent"].strip() == "yes"


def test_live_xml_names_the_console_path(running: Host) -> None:
    xml = running.ok(f"dumpxml {NAME}")
    assert "<alias name='serial0'/>" in xml
    assert "<source path='/dev/pts/" in xml


def test_statistics_show_work_done(running: Host) -> None:
    lines = running.ok(f"domstats --state --cpu-total {NAME}").splitlines()[1:]
    stats = dict(line.strip().split("=", 1) for line in lines)
    assert stats["state.state"] == "1"
    assert int(stats["cpu.time"]) > 0


def test_guest_agent_answers(running: Host) -> None:
    eventually(lambda: running.virsh(["qemu-agent-command", NAME, '{"execute":"guest-ping"}']).returncode == 0)
    answer = running.ok(["qemu-agent-command", NAME, '{"execute":"guest-get-osinfo"}'])
    assert json.loads(answer)["return"]["id"] == "tiny"


def test_suspended_guest_is_paused_until_resumed(running: Host) -> None:
    running.ok(f"suspend {NAME}")
    assert running.ok(f"domstate --reason {NAME}") == "paused (user)"
    running.ok(f"resume {NAME}")
    assert running.ok(f"domstate --reason {NAME}") == "running (unpaused)"
    assert typed(running, "echo back") == "back"


def test_event_reaches_another_client(running: Host) -> None:
    watcher = running.popen(["virsh", "event", "--event", "lifecycle", "--loop", "--timestamp", "--timeout", "6"])
    time.sleep(1)
    running.ok(f"suspend {NAME}")
    running.ok(f"resume {NAME}")
    output = watcher.communicate(timeout=30)[0]
    assert f"event 'lifecycle' for domain '{NAME}': Suspended Paused" in output
    assert f"event 'lifecycle' for domain '{NAME}': Resumed Unpaused" in output


def test_guest_outlives_a_killed_daemon(running: Host) -> None:
    typed(running, "echo here >/tmp/mark")
    before = running.ok(f"domid {NAME}"), stable_xml(running)
    running.restart(9)
    assert (running.ok(f"domid {NAME}"), stable_xml(running)) == before
    assert typed(running, "cat /tmp/mark") == "here"


def test_guest_that_died_with_the_daemon_is_shut_off(machine: Host, running: Host, guest: Guest) -> None:
    machine.define(tiny_domain(machine.adopt(guest), "other"))
    machine.ok("start other --paused")
    pid = int(machine.path(qemu_pid_file(machine, "other")).read_text())
    machine.kill()
    machine.run(["kill", "-9", str(pid)])
    eventually(lambda: machine.run(["test", "-e", f"/proc/{pid}"]).returncode != 0)
    machine.start()
    assert machine.ok("domstate other") == "shut off"
    assert running.ok(f"domstate {NAME}") == "running"
    machine.ok("undefine other")


def qemu_pid_file(host: Host, name: str) -> str:
    return f"/run/libvirt/qemu/{name}.pid" if isinstance(host, SystemHost) else f"/run/libvirt/qemu/run/{name}.pid"


def test_reboot_boots_again(running: Host) -> None:
    """It runs on for whoever watches: only the reboot itself is told."""
    watcher = running.popen(["virsh", "-q", "event", "--all", "--loop"])
    with running.terminal(f"console {NAME} --force") as console:
        console.expect("Escape character")
        running.ok(f"reboot {NAME} --mode acpi")
        console.expect("tiny guest ready", 60)
        console.expect("tiny# ", 10)
    assert running.ok(f"domstate {NAME}") == "running"
    watcher.send_signal(signal.SIGINT)
    told = watcher.communicate(timeout=10)[0]
    assert "event 'reboot'" in told
    assert "event 'lifecycle'" not in told


def test_reboot_goes_on_when_the_daemon_is_away(running: Host) -> None:
    pid = int(running.path(qemu_pid_file(running, NAME)).read_text())
    running.ok(f"reboot {NAME} --mode acpi")
    running.kill()
    time.sleep(4)  # the guest powers off: its QEMU stands and waits for the daemon
    running.start()
    with running.terminal(f"console {NAME} --force") as console:
        console.expect("tiny guest ready", 60)
        console.expect("tiny# ", 10)
    assert running.ok(f"domstate {NAME}") == "running"
    assert int(running.path(qemu_pid_file(running, NAME)).read_text()) == pid


def test_shutdown_ends_the_guest_and_undefine_forgets_it(running: Host) -> None:
    running.ok(f"shutdown {NAME} --mode acpi")
    eventually(lambda: running.ok(f"domstate --reason {NAME}") == "shut off (shutdown)")
    running.ok(f"undefine {NAME}")
    assert running.ok("list --all") == ""
