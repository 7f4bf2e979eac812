"""A user's session daemon as units of the user's own systemd."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.domains import bare_domain
from tests.support.host import ROOT
from tests.support.systemd import PROGRAM, Machine

USER = "alice"
IDLE_S = 2
VIRSH = ("virsh", "-q", "-c", "qemu:///session")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with a user whose manager runs and listens for the session daemon, which ends soon when idle."""
    if reason := Machine.missing():
        pytest.skip(reason)
    with Machine() as made:
        made.install()
        soon = f"[Service]\nExecStart=\nExecStart={PROGRAM} --timeout={IDLE_S}\n"
        made.write("/etc/systemd/user/pyvirtd.service.d/soon.conf", soon)
        made.add_user(USER, "secret")
        made.ok("loginctl", "enable-linger", USER)
        eventually(lambda: made.run(*manager("is-system-running", "--wait")).stdout.strip() == "running")
        made.ok(*manager("start", "pyvirtd.socket"))
        yield made


def manager(*words: str) -> list[str]:
    """A command for the user's manager."""
    return ["systemctl", "--user", "--machine", f"{USER}@", *words]


def state(machine: Machine, unit: str = "pyvirtd.service") -> str:
    return machine.run(*manager("is-active", unit)).stdout.strip()


def virsh(machine: Machine, *words: str) -> str:
    return machine.ok(*machine.as_user(USER, *VIRSH, *words))


def eventually(condition: Callable[[], bool], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_units_are_without_fault(machine: Machine) -> None:
    units = sorted(path.name for path in (ROOT / "systemd/user").iterdir())
    assert len(units) == 3
    done = machine.run(*machine.as_user(USER, "systemd-analyze", "--user", "verify", "--man=no", *units))
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_first_client_starts_the_daemon_and_it_ends_when_idle(machine: Machine) -> None:
    assert state(machine) == "inactive"
    assert virsh(machine, "uri") == "qemu:///session"
    assert state(machine) == "active"
    process = machine.ok(*manager("show", "-P", "MainPID", "pyvirtd.service"))
    assert machine.ok("stat", "-c", "%U", f"/proc/{process}") == USER
    eventually(lambda: state(machine) == "inactive")
    assert machine.ok(*manager("show", "-P", "Result", "pyvirtd.service")) == "success"
    assert state(machine, "pyvirtd.socket") == "active"
    assert virsh(machine, "list", "--all") == ""


def test_nobody_else_reaches_the_sockets(machine: Machine) -> None:
    virsh(machine, "uri")
    modes = machine.ok("sh", "-c", "stat -c '%U %a' /run/user/*/libvirt /run/user/*/libvirt/libvirt*-sock")
    assert modes.splitlines() == [f"{USER} 700", f"{USER} 600", f"{USER} 600"]


def test_virt_admin_reaches_the_daemon(machine: Machine) -> None:
    virsh(machine, "uri")
    assert "libvirtd" in machine.ok(*machine.as_user(USER, "virt-admin", "-c", "libvirtd:///session", "srv-list"))


@pytest.mark.guest
def test_a_guest_keeps_the_daemon_and_outlives_its_restart(machine: Machine) -> None:
    machine.write("/tmp/g.xml", bare_domain("g"))
    virsh(machine, "create", "/tmp/g.xml")
    time.sleep(IDLE_S + 1)
    assert state(machine) == "active"
    process = machine.ok("pgrep", "qemu-system")
    machine.ok(*manager("restart", "pyvirtd.service"))
    assert virsh(machine, "domstate", "g") == "running"
    assert machine.ok("pgrep", "qemu-system") == process
    virsh(machine, "destroy", "g")
    eventually(lambda: state(machine) == "inactive")
