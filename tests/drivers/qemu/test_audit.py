"""What starts and ends of real guests leave in the log with audit_logging = 1."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SystemHost

AUDITING = "audit_level = 1\naudit_logging = 1\nlog_level = 2\n"
DEVICES = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"


@pytest.fixture
def audited() -> Iterator[SystemHost]:
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost() as host:
        host.write("/etc/libvirt/libvirtd.conf", AUDITING)
        yield host.start()


@pytest.fixture
def grouped() -> Iterator[SystemHost]:
    """With control groups."""
    if reason := SystemHost.missing() or SystemHost.missing_cgroups():
        pytest.skip(reason)
    if not Path("/sys/fs/cgroup/devices").is_dir():
        pytest.skip("the devices controller of version 1 is not mounted")
    with SystemHost(cgroups=True) as host:
        host.write("/etc/libvirt/libvirtd.conf", AUDITING)
        yield host.start()


def audit_lines(host: SystemHost) -> list[str]:
    """The records in the log, without the guest's UUID."""
    return [re.sub(r" uuid=\S+", "", line) for line in re.findall(r"success=(?:yes|no) virt=.*", host.log())]


def test_starts_and_ends_are_in_the_log(audited: SystemHost) -> None:
    audited.define(bare_domain("audited", devices=DEVICES))
    audited.ok("start audited")
    pid = int(audited.path("/run/libvirt/qemu/audited.pid").read_text())
    audited.ok("destroy audited")
    label, *given, start, stop = [line for line in audit_lines(audited) if " resrc=cgroup " not in line]
    assert re.fullmatch(r'success=yes virt=qemu vm="audited" vm-ctx=\+\d+:\+\d+ img-ctx=\+\d+:\+\d+ model=dac', label)
    head = 'success=yes virt=qemu resrc={} reason=start vm="audited" {}'
    assert given == [
        head.format("rng", 'old-rng="?" new-rng="/dev/urandom"'),
        head.format("mem", "old-mem=0 new-mem=65536"),
        head.format("vcpu", "old-vcpu=0 new-vcpu=1"),
    ]
    assert start == f'success=yes virt=qemu op=start reason=booted vm="audited" vm-pid={pid}'
    assert stop == 'success=yes virt=qemu op=stop reason=destroyed vm="audited" vm-pid=0'


def test_devices_that_a_group_grants_are_in_the_log(grouped: SystemHost) -> None:
    grouped.define(bare_domain("audited", devices=DEVICES))
    grouped.ok("start audited")
    grouped.ok("destroy audited")
    told = [line for line in audit_lines(grouped) if " resrc=cgroup " in line]
    assert re.search(r'reason=deny vm="audited" cgroup="/sys/fs/cgroup/devices/\S+/" class=all$', told[0])
    granted = [line.partition(" class=")[2] for line in told if " reason=allow " in line]
    assert 'path path="/dev/urandom" rdev=01:09 acl=rw' in granted
    assert "major category=pty maj=88 acl=rw" in granted


def test_ends_and_starts_have_their_reasons(audited: SystemHost) -> None:
    audited.define(bare_domain("audited"))
    audited.ok("start audited")
    audited.ok("managedsave audited")
    audited.ok("start audited")
    audited.run(["sh", "-c", "kill -9 $(cat /run/libvirt/qemu/audited.pid)"])
    deadline = time.monotonic() + 10
    while "op=stop reason=failed" not in audited.log():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    told = [re.sub(r"vm-pid=.*", "", line) for line in audit_lines(audited) if " op=" in line]
    who = 'vm="audited" '
    assert told == [
        f"success=yes virt=qemu op=start reason=booted {who}",
        f"success=yes virt=qemu op=stop reason=saved {who}",
        f"success=yes virt=qemu op=start reason=restored {who}",
        f"success=yes virt=qemu op=stop reason=failed {who}",
    ]


def test_a_start_that_fails_is_in_the_log(audited: SystemHost) -> None:
    devices = "<disk type='file'><source file='/nowhere/a'/><target dev='vda' bus='virtio'/></disk>"
    assert audited.virsh(["create", str(audited.client_file("b.xml", bare_domain("b", devices=devices)))]).returncode
    *_, last = audit_lines(audited)
    assert last == 'success=no virt=qemu op=start reason=booted vm="b" vm-pid=0'


TAP = "<interface type='ethernet'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>"


def test_what_a_running_guest_gets_and_gives_back_is_in_the_log(audited: SystemHost) -> None:
    audited.define(bare_domain("audited", devices="<memballoon model='virtio'/>", extra="<iothreads>1</iothreads>"))
    audited.ok("start audited")
    before = len(audit_lines(audited))
    for command in ("iothreadadd audited 5", "iothreaddel audited 5", "setmem audited 32768"):
        audited.ok(command)
    audited.virsh("iothreadadd audited 1")
    head = 'success=yes virt=qemu resrc={0} reason=update vm="audited" old-{0}={1} new-{0}={2}'
    changes = [("iothread", 1, 2), ("iothread", 2, 1), ("mem", 65536, 32768)]
    assert audit_lines(audited)[before:] == [head.format(*change) for change in changes]


def test_a_tap_that_is_opened_is_in_the_log(audited: SystemHost) -> None:
    audited.define(bare_domain("audited", devices=TAP))
    audited.ok("start audited")
    where = 'net=52:54:00:11:22:33 path="/dev/net/tun" rdev=0A:C8'
    line = f'success=yes virt=qemu resrc=net reason=open vm="audited" {where}'
    assert line in audit_lines(audited)
    taken = TAP.replace("<mac", "<target dev='taken'/><mac")
    audited.run(["ip", "link", "add", "taken", "type", "bridge"])
    audited.define(bare_domain("unlucky", devices=taken))
    assert audited.virsh("start unlucky").returncode
    assert line.replace("=yes", "=no").replace("audited", "unlucky") in audit_lines(audited)
