"""The service under the real systemd: activation, restart with a guest running on, scopes, the watchdog."""

import signal
import time
from collections.abc import Iterator

import pytest

from tests.support.domains import bare_domain
from tests.support.host import ROOT
from tests.support.systemd import Machine

SOCKETS = ("pyvirtd.socket", "pyvirtd-ro.socket", "pyvirtd-admin.socket")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A systemd with the project's units, its sockets listening."""
    if reason := Machine.missing():
        pytest.skip(reason)
    with Machine() as made:
        made.install()
        made.ok("systemctl", "start", *SOCKETS)
        yield made


@pytest.fixture
def running(machine: Machine) -> Iterator[int]:
    """A guest that runs; its process, as the machine numbers it."""
    machine.write("/root/g1.xml", bare_domain("g1"))
    machine.ok("virsh", "create", "/root/g1.xml")
    yield int(machine.ok("cat", "/run/libvirt/qemu/g1.pid"))
    machine.run("virsh", "destroy", "g1")


def state(machine: Machine) -> str:
    return machine.run("systemctl", "is-active", "pyvirtd.service").stdout.strip()


def test_units_are_without_fault(machine: Machine) -> None:
    units = sorted(path.name for path in (ROOT / "systemd").glob("pyvirtd*.s[eo][rc]*"))
    assert len(units) == 6
    done = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.stderr, done.returncode) == ("", 0)  # the status alone says nothing of unknown keys


def test_first_client_starts_the_daemon_by_its_sockets(machine: Machine) -> None:
    machine.ok("systemctl", "stop", "pyvirtd.service")
    assert state(machine) == "inactive"
    assert machine.ok("virsh", "-r", "-c", "qemu:///system", "uri") == "qemu:///system"
    assert state(machine) == "active"
    assert "admin" in machine.ok("virt-admin", "srv-list")
    assert "libvirt-sock-ro" in machine.ok("ls", "/run/libvirt")


@pytest.mark.guest
def test_guest_is_a_machine_in_a_scope_of_its_own(machine: Machine, running: int) -> None:
    groups = machine.ok("cat", f"/proc/{running}/cgroup")
    assert r"0::/machine.slice/machine-qemu\x2d1\x2dg1.scope/libvirt/emulator" in groups
    assert "libvirt-qemu" in machine.ok("machinectl", "list", "--no-legend")
    assert machine.ok("cat", f"/proc/{running}/oom_score_adj") == "0"  # unlike the daemon's, where systemd may set it


@pytest.mark.guest
def test_a_guests_scope_ends_with_it(machine: Machine) -> None:
    machine.write("/root/brief.xml", bare_domain("brief"))
    for _ in range(8):
        machine.ok("virsh", "create", "/root/brief.xml")
        machine.ok("virsh", "destroy", "brief")
    for _ in range(50):
        scopes = machine.ok("systemctl", "list-units", "--no-legend", "machine-*brief.scope")
        if not scopes and "brief" not in machine.ok("machinectl", "list", "--no-legend"):
            return
        time.sleep(0.1)
    raise AssertionError(scopes)


@pytest.mark.guest
def test_restart_and_stop_of_the_service_touch_no_guest(machine: Machine, running: int) -> None:
    machine.ok("systemctl", "restart", "pyvirtd.service")
    assert machine.ok("virsh", "domstate", "g1") == "running"
    assert int(machine.ok("cat", "/run/libvirt/qemu/g1.pid")) == running
    machine.ok("systemctl", "stop", "pyvirtd.service")
    machine.ok("kill", "-0", str(running))
    assert "g1" in machine.ok("virsh", "list", "--name")  # whose client starts it again


def test_reload_is_a_signal(machine: Machine) -> None:
    machine.ok("virsh", "uri")
    before = machine.ok("systemctl", "show", "-P", "MainPID", "pyvirtd.service")
    machine.ok("systemctl", "reload", "pyvirtd.service")
    assert machine.ok("systemctl", "show", "-P", "MainPID", "pyvirtd.service") == before
    assert machine.ok("virsh", "uri") == "qemu:///system"


def test_loop_that_hangs_is_ended_and_started_again(machine: Machine) -> None:
    machine.write("/run/systemd/system/pyvirtd.service.d/soon.conf", "[Service]\nWatchdogSec=2\n")
    machine.ok("systemctl", "daemon-reload")
    machine.ok("systemctl", "restart", "pyvirtd.service")
    time.sleep(3)  # longer than the watchdog waits: it is fed
    before = machine.ok("systemctl", "show", "-P", "MainPID", "pyvirtd.service")
    assert state(machine) == "active"
    machine.ok("kill", f"-{int(signal.SIGSTOP)}", before)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        now = machine.ok("systemctl", "show", "-P", "MainPID", "pyvirtd.service")
        if now not in (before, "0") and state(machine) == "active":
            break
        time.sleep(0.2)
    assert machine.ok("virsh", "uri") == "qemu:///system"
    assert "Watchdog timeout" in machine.ok("journalctl", "-u", "pyvirtd", "--no-pager")
