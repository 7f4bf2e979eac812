"""Devices of the host: found, or refused by name."""

import os
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyvirtd.drivers.qemu import host_devices
from pyvirtd.drivers.qemu.host_devices import find_host_devices, wants_host_devices
from pyvirtd.errors import VirtError
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import LIVE

DOMAIN = "<domain type='qemu'><name>x</name><memory>1</memory><os><type>hvm</type></os><devices>{}</devices></domain>"
USB = "<hostdev mode='subsystem' type='usb'><source{}>{}</source></hostdev>"
IDS = "<vendor id='0x1234'/><product id='0xbeef'/>"
PLACE = "<address bus='1' device='2'/>"


@pytest.fixture(autouse=True)
def sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without any device."""
    monkeypatch.setattr(host_devices, "SYS", tmp_path / "sys")
    monkeypatch.setattr(host_devices, "DRI", tmp_path / "dri")
    monkeypatch.setattr(host_devices, "VFIO", tmp_path / "vfio")
    monkeypatch.setattr(host_devices, "VHOST_VSOCK", str(tmp_path / "vsock"))
    return tmp_path / "sys"


def find(devices: str) -> DomainDef:
    live = DomainDef.parse(DOMAIN.format(devices))
    assert wants_host_devices(live)
    with ExitStack() as ours:
        find_host_devices(live, ours, cast("Any", None))
    return live


def refused(devices: str) -> str:
    with pytest.raises(VirtError) as failed:
        find(devices)
    return failed.value.detail


def add_usb(sys: Path, name: str, place: tuple[int, int], ids: str) -> None:
    folder = sys / "bus/usb/devices" / name
    folder.mkdir(parents=True)
    vendor, product = ids.split(":")
    for word, text in (("busnum", place[0]), ("devnum", place[1]), ("idVendor", vendor), ("idProduct", product)):
        (folder / word).write_text(f"{text}\n")


def test_ordinary_guest_has_nothing_looked_up() -> None:
    assert not wants_host_devices(DomainDef.parse(DOMAIN.format("<graphics type='vnc'/><interface type='user'/>")))


def test_usb_device_is_found_by_what_it_is_or_where(sys: Path) -> None:
    assert refused(USB.format("", IDS)).startswith(f"cannot open directory '{sys}/bus/usb/devices'")
    add_usb(sys, "1-1", (1, 2), "1234:beef")
    add_usb(sys, "1-0:1.0", (1, 1), "zz:zz")
    assert "<address bus='1' device='2'/>" in find(USB.format("", IDS)).format(LIVE)
    find(USB.format("", PLACE))
    assert refused(USB.format("", "<address bus='1' device='3'/>")) == "Did not find USB device bus:1 device:3"
    assert refused(USB.format("", IDS.replace("beef", "dead"))) == "Did not find USB device 1234:dead"
    add_usb(sys, "1-2", (1, 7), "1234:beef")
    assert "Multiple USB devices for 1234:beef" in refused(USB.format("", IDS))


def test_optional_usb_device_that_is_absent_is_left_out(sys: Path) -> None:
    add_usb(sys, "1-1", (1, 2), "1234:beef")
    live = find(USB.format(" startupPolicy='optional'", IDS.replace("beef", "dead")))
    assert live.devices.hostdev == []


def test_target_of_the_kernel_is_reached_by_a_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "vhost-scsi"
    monkeypatch.setattr(host_devices, "VHOST_SCSI", str(node))
    target = (
        "<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.5001405e6bcc3a55'/></hostdev>"
    )
    assert refused(target) == f"vhost-scsi device file '{node}' cannot be found"
    node.touch(0o400)
    live = DomainDef.parse(DOMAIN.format(target))
    live.devices.hostdev[0].info.alias = "hostdev0"
    context = cast("Any", SimpleNamespace(files={}))
    with ExitStack() as ours:
        find_host_devices(live, ours, context)
        assert os.path.samestat(os.fstat(context.files["hostdev0"]), node.stat())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(context.files["hostdev0"])


def test_display_that_draws_needs_a_render_node() -> None:
    spice = "<graphics type='spice'><listen type='none'/><gl enable='yes'/></graphics>"
    assert refused(spice).startswith(f"cannot open directory '{host_devices.DRI}'")
    host_devices.DRI.mkdir()
    assert refused(spice) == "No DRM render nodes available"
    (host_devices.DRI / "renderD128").touch()
    assert f"rendernode='{host_devices.DRI}/renderD128'" in find(spice).format(LIVE)
    assert "is not accessible" in refused(spice.replace("enable", "rendernode='/nowhere' enable"))


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ("<interface type='vdpa'><source dev='/nowhere'/></interface>", "Unable to open '/nowhere' for vdpa device"),
        ("<vsock model='virtio'><cid auto='yes'/></vsock>", "unable to open vhost-vsock device"),
        (
            "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source>"
            "<address uuid='53764d0e-85a0-42b4-af5c-2046b460b1dc'/></source></hostdev>",
            "Mediated host device assignment requires VFIO support",
        ),
        (
            "<hostdev mode='subsystem' type='scsi' managed='yes'><source><adapter name='scsi_host0'/>"
            "<address bus='0' target='0' unit='0'/></source></hostdev>",
            "SCSI host device doesn't support managed mode",
        ),
    ],
)
def test_what_the_host_lacks_is_named(devices: str, words: str) -> None:
    assert refused(devices).startswith(words)
