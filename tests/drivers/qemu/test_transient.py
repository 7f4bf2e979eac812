"""Disks whose changes are forgotten: an overlay takes them, and goes when the guest ends however that comes about."""

import asyncio
import json
import os
import re
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu import transient
from pyvirtd.drivers.qemu.qemu_img import qemu_img
from pyvirtd.util.files import Owner
from tests.drivers.qemu.definitions import completed, document
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

DISK = (
    "<disk type='file'><driver name='qemu' type='{}'/>{}<target dev='vda' bus='virtio'/><transient{}/></disk>"
    "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>"
)
IMAGES = "/var/lib/libvirt/images"
WRITE = 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 0x61 0 4k"'


@pytest.fixture
def image(host: SystemHost) -> Path:
    return host.write(f"{IMAGES}/base.img", b"b" * (1 << 20))


def define(
    host: SystemHost, name: str = "brief", *, kind: str = "raw", share: str = "", image: str = "base.img"
) -> Path:
    """A domain with such a disk; where its overlay is to be."""
    host.define(bare_domain(name, devices=DISK.format(kind, f"<source file='{IMAGES}/{image}'/>", share)))
    return host.path(f"{IMAGES}/{image}.TRANSIENT-{name}")


def write(host: SystemHost, name: str = "brief") -> None:
    host.ok(["qemu-monitor-command", "--hmp", name, WRITE])


@pytest.mark.guest
def test_what_a_guest_writes_is_forgotten_when_it_ends(host: SystemHost, image: Path) -> None:
    overlay = define(host)
    host.ok("start brief --paused")
    assert overlay.exists()
    live = re.sub(r"\s+", " ", host.ok("dumpxml brief"))
    assert f"<source file='{IMAGES}/base.img.TRANSIENT-brief' index='2'/>" in live
    below = (
        f"<backingStore type='file' index='3'> <format type='raw'/> <source file='{IMAGES}/base.img'/> <backingStore/>"
    )
    assert below in live
    write(host)
    assert f"{IMAGES}/base.img.TRANSIENT" not in host.ok("dumpxml brief --inactive")
    host.kill()
    host.start()
    host.ok("destroy brief")
    assert not overlay.exists()
    assert image.read_bytes() == b"b" * (1 << 20)
    host.ok("undefine brief")


@pytest.mark.guest
def test_overlay_of_a_guest_that_ended_unseen_is_removed(host: SystemHost, image: Path) -> None:
    overlay = define(host)
    host.ok("start brief --paused")
    host.kill()
    host.run(["sh", "-c", "kill -9 $(cat /run/libvirt/qemu/brief.pid)"])
    host.start()
    assert host.ok("domstate brief") == "shut off"
    assert not overlay.exists()
    host.ok("undefine brief")


@pytest.mark.guest
def test_guests_share_an_image_below_their_overlays(host: SystemHost, image: Path) -> None:
    qcow2 = image.with_name("base.qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, qcow2], check=True)
    overlays = [define(host, name, kind="qcow2", share=" shareBacking='yes'", image=qcow2.name) for name in ("a", "b")]
    for name in ("a", "b"):
        host.ok(f"start {name} --paused")
        write(host, name)
    info = subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", overlays[0]], capture_output=True, text=True, check=True
    )
    assert json.loads(info.stdout)["virtual-size"] == 1 << 20
    for name in ("a", "b"):
        host.ok(f"destroy {name}")
        host.ok(f"undefine {name}")
    assert not any(overlay.exists() for overlay in overlays)


@pytest.mark.guest
def test_a_guest_with_such_a_disk_is_not_saved(host: SystemHost, image: Path) -> None:
    define(host)
    host.ok("start brief --paused")
    for command in ("save brief /var/lib/libvirt/brief.save", "managedsave brief"):
        assert "migration with transient disk is not supported" in host.virsh(command).stderr
    assert host.ok("domstate brief") == "paused"
    host.ok("destroy brief")
    host.ok("undefine brief")


def test_overlay_of_somebody_else_is_left_alone(host: SystemHost, image: Path) -> None:
    overlay = define(host)
    overlay.write_text("mine")
    said = host.virsh("start brief").stderr
    assert f"Overlay file '{IMAGES}/base.img.TRANSIENT-brief' for transient disk 'vda' already exists" in said
    assert overlay.read_text() == "mine"
    overlay.unlink()
    host.ok("undefine brief")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_nothing_is_written_through_a_link_put_in_the_overlays_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    image, victim, overlay = tmp_path / "a.img", tmp_path / "victim", tmp_path / "a.img.TRANSIENT-g"
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, image, "1M"], check=True)
    victim.write_text("mine")

    async def replaced(*words: str, error: str, pass_fds: tuple[int, ...] = ()) -> None:
        overlay.rename(tmp_path / "made")
        overlay.symlink_to(victim)
        await qemu_img(*words, error=error, pass_fds=pass_fds)

    monkeypatch.setattr(transient, "qemu_img", replaced)
    disk = f"<disk type='file'><driver type='{kind}'/><source file='{image}'/><target dev='vda'/><transient/></disk>"
    live = completed(document(devices=disk))

    async def lay_over() -> None:
        async with AsyncExitStack() as undo:
            await transient.lay_over(live, Owner(7, 8), undo)
            undo.pop_all()

    asyncio.run(lay_over())
    assert (victim.read_text(), victim.stat().st_uid) == ("mine", 0)
    assert (tmp_path / "made").stat().st_uid == 7
    assert (tmp_path / "made").read_bytes()[:4] == b"QFI\xfb"


def test_failed_start_leaves_no_overlay(host: SystemHost, image: Path) -> None:
    overlay = define(host, kind="qcow2")
    assert "cannot make overlay" in host.virsh("start brief").stderr  # it is no qcow2
    assert not overlay.exists()
    host.ok("undefine brief")


def test_disk_on_a_server_cannot_be_transient(host: SystemHost) -> None:
    source = "<source protocol='nbd' name='x'><host name='h'/></source>"
    host.define(bare_domain("brief", devices=DISK.format("raw", source, "").replace("'file'", "'network'", 1)))
    assert "transient disk 'vda' is supported only with a file" in host.virsh("start brief").stderr
    host.ok("undefine brief")
