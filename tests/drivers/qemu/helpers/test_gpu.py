"""Cards that vhost-user-gpu draws: found by its descriptor, started before QEMU, ended with it."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.helpers import gpu
from pyvirtd.errors import OperationFailed
from pyvirtd.model.graphics import Acceleration
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

PROGRAM = "/usr/lib/qemu/vhost-user-gpu"
CARD = "<video><driver name='vhostuser'/><model type='virtio' heads='1'>{}</model></video>"
DEVICES = "<graphics type='vnc'/>" + CARD
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"

needs_program = pytest.mark.skipif(not shutil.which(PROGRAM), reason="qemu-system-gui is not installed")


def program(folder: Path, name: str, answer: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return str(path)


def choose(monkeypatch: pytest.MonkeyPatch, found: list[str], wanted: Acceleration) -> str:
    monkeypatch.setattr(gpu, "programs", lambda kind: found)
    return asyncio.run(gpu._choose(wanted))[0]


def test_first_program_that_can_what_is_wanted_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ASK_S", 0.5)
    odd = [program(tmp_path, name, text) for name, text in (("a", "exit 1"), ("b", "echo []"), ("c", "sleep 9"))]
    plain = program(tmp_path, "plain", """echo '{"type": "gpu"}'""")
    virgl = program(tmp_path, "virgl", """echo '{"type": "gpu", "features": ["virgl", "render-node"]}'""")
    found = [*odd, str(tmp_path / "absent"), plain, virgl]
    assert choose(monkeypatch, found, Acceleration()) == plain
    assert choose(monkeypatch, found, Acceleration(accel3d=True)) == virgl
    assert choose(monkeypatch, found, Acceleration(rendernode="/dev/dri/renderD128")) == virgl
    with pytest.raises(OperationFailed, match="Unable to find a satisfying vhost-user-gpu"):
        choose(monkeypatch, [plain], Acceleration(accel3d=True))


@pytest.fixture
def kvm_host() -> Iterator[SystemHost]:
    """A host with KVM, which QEMU needs for such devices; its node may be root's alone."""
    if missing := SystemHost.missing():
        pytest.skip(missing)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no access to /dev/kvm")
    with SystemHost(kvm=True) as host:
        host.write("/etc/libvirt/qemu.conf", 'user = "root"\ngroup = "root"\n')
        yield host.start()


@needs_program
def test_program_draws_beside_qemu_and_ends_with_it(kvm_host: SystemHost) -> None:
    host = kvm_host
    host.define(bare_domain("drawn", devices=DEVICES.format(""), extra=SHARED).replace("'qemu'", "'kvm'"))
    host.ok("start drawn --paused")
    pid_file = f"/run/libvirt/qemu/{host.ok('domid drawn')}-drawn-video0-vhost-user-gpu.pid"
    pid = host.path(pid_file).read_text().strip()
    argv = host.run(["sh", "-c", "tr '\\0' ' ' </proc/$(cat /run/libvirt/qemu/drawn.pid)/cmdline"]).stdout
    assert "socket,id=chr-vu-video0,fd=" in argv
    assert '"driver":"vhost-user-vga","id":"video0","max_outputs":1,"chardev":"chr-vu-video0"' in argv
    host.restart(9)
    assert host.run(["kill", "-0", pid]).returncode == 0
    host.ok("destroy drawn")
    assert not host.path(pid_file).exists()
    assert host.run(["kill", "-0", pid]).returncode


@needs_program
def test_guest_without_kvm_is_told_that_it_needs_it(host: SystemHost) -> None:
    host.define(bare_domain("slow", devices=DEVICES.format(""), extra=SHARED))
    assert "requires kvm" in host.virsh("start slow").stderr
    assert host.run(["sh", "-c", "ls /run/libvirt/qemu | grep slow"]).stdout == ""
    host.ok("undefine slow")


@needs_program
@pytest.mark.skipif(Path("/dev/dri").exists(), reason="the host has a graphics card")
def test_host_without_graphics_card_cannot_draw_in_three_dimensions(host: SystemHost) -> None:
    host.define(bare_domain("deep", devices=DEVICES.format("<acceleration accel3d='yes'/>"), extra=SHARED))
    assert "cannot open directory '/dev/dri'" in host.virsh("start deep").stderr
    assert host.run(["sh", "-c", "ls /run/libvirt/qemu | grep deep"]).stdout == ""
    host.ok("undefine deep")


def test_host_without_vhost_scsi_is_named(host: SystemHost) -> None:
    target = (
        "<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.5001405e6bcc3a55'/></hostdev>"
    )
    host.define(bare_domain("target", devices=target))
    assert "vhost-scsi device file '/dev/vhost-scsi' cannot be found" in host.virsh("start target").stderr
    host.ok("undefine target")
