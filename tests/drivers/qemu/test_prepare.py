"""What a start decides and the live definition shows."""

from pathlib import Path

import pytest

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.chardev_files import named_backends
from pyvirtd.drivers.qemu.postparse import assign_aliases
from pyvirtd.drivers.qemu.prepare import fill_in
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import Paths
from pyvirtd.xml.element import LIVE

DOMAIN = "<domain type='qemu'><name>x</name><memory>1</memory><os><type>hvm</type></os><devices>{}</devices></domain>"


def filled(devices: str, config: QemuConfig | None = None) -> str:
    live = DomainDef.parse(DOMAIN.format(devices))
    fill_in(live, config or QemuConfig(), Paths.system(Path("/root")).qemu, 7)
    return live.format(LIVE)


DISK = "<disk type='file' device='disk'>{}<source file='/a'/><target dev='vda' bus='virtio'/>{}</disk>"


@pytest.mark.parametrize(
    ("driver", "flags", "cache"),
    [
        ("", "<shareable/>", "cache='none'"),
        ("<driver name='qemu' cache='writeback'/>", "<shareable/>", "cache='writeback'"),
        ("", "<readonly/><shareable/>", ""),
        ("", "", ""),
    ],
)
def test_host_does_not_cache_a_disk_that_several_guests_write_to(driver: str, flags: str, cache: str) -> None:
    assert cache in filled(DISK.format(driver, flags)) if cache else "cache=" not in filled(DISK.format(driver, flags))


@pytest.mark.parametrize(("config", "word"), [(QemuConfig(), "no"), (QemuConfig(chardev_tls=True), "yes")])
def test_socket_says_whether_it_is_encrypted(config: QemuConfig, word: str) -> None:
    xml = filled("<serial type='tcp'><source mode='bind' host='::1' service='1'/></serial>", config)
    assert f"service='1' tls='{word}'" in xml


def test_displays_without_a_place_get_one_in_the_guests_directory() -> None:
    socket = "/root/var/lib/libvirt/qemu/domain-7-x/vnc.sock"
    xml = filled("<graphics type='vnc'><listen type='socket'/></graphics>")
    assert f"<graphics type='vnc' socket='{socket}'>" in xml
    assert socket in filled("<graphics type='vnc'/>", QemuConfig(vnc_auto_unix_socket=True))
    assert "/root/run/libvirt/qemu/dbus/7-x-dbus.sock" in filled("<graphics type='dbus'/>")
    assert "dbus.sock" not in filled("<graphics type='dbus' p2p='yes'/>")


def test_console_that_is_a_serial_port_is_opened_once() -> None:
    devices = "<serial type='unix'/><console type='unix'/><console type='pty'><target type='virtio'/></console>"
    live = DomainDef.parse(DOMAIN.format(devices))
    live.devices.console[0].target = None
    assign_aliases(live)
    assert [found.alias for found in named_backends(live)] == ["serial0", "console1"]
