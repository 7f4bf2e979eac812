"""Addresses: who gets which place. The tables are answers of libvirtd 9.0 with QEMU 7.2."""

import pytest

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu import postparse
from pyvirtd.drivers.qemu.addresses.order import walk
from pyvirtd.drivers.qemu.addresses.pci_needs import Needs
from pyvirtd.errors import InternalError, VirtError, XmlError
from pyvirtd.model.address import Device
from pyvirtd.model.devices import Devices
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.plan import flatten
from tests.drivers.qemu.definitions import completed, document, emulator, summary

VIRTIO_DISK = "<disk type='file'><source file='/{0}'/><target dev='{0}' bus='virtio'/></disk>"
CHANNEL = "<channel type='pty'><target type='virtio' name='c'/>{}</channel>"

FAMILIES = [
    (slot.field.attribute, slot.shape.classes[0], slot.shape.many)
    for slot in flatten(Devices)[0]
    if slot.shape.classes and issubclass(slot.shape.classes[0], Device)
]


@pytest.mark.parametrize(("field", "family", "many"), FAMILIES, ids=[field for field, *_ in FAMILIES])
def test_no_family_of_devices_is_forgotten(field: str, family: type[Device], *, many: bool) -> None:
    device, devices = family(), Devices()
    setattr(devices, field, [device] if many else device)
    assert [*walk(devices)] == [device]
    definition = DomainDef.parse(document())
    scope = postparse.Scope(definition, emulator("x86_64"), QemuConfig(), privileged=True, host_arch="x86_64", new=True)
    Needs(scope).of(device)  # an AssertionError where nobody thought of it


def test_on_a_conventional_board_devices_fill_the_slots_of_bus_0() -> None:
    devices = VIRTIO_DISK.format("vda") + "<interface type='user'/><sound model='ac97'/>"
    assert summary(completed(document(devices, machine="pc")), "disk", "interface", "sound", "memballoon") == [
        "disk file: pci 0x0000 0x00 0x04 0x0",
        "interface user: pci 0x0000 0x00 0x02 0x0",
        "sound ac97: pci 0x0000 0x00 0x03 0x0",
        "memballoon virtio: pci 0x0000 0x00 0x05 0x0",
    ]


def test_on_a_pci_express_board_each_modern_device_has_a_root_port_and_one_is_free() -> None:
    definition = completed(document(VIRTIO_DISK.format("vda")))
    ports = [line for line in summary(definition, "controller") if "pcie-root-port" in line]
    used = {line.split()[4] for line in summary(definition, "disk", "memballoon") if "pci " in line}
    assert used == {"0x02", "0x03"}
    assert len(ports) == 4  # xhci, disk, balloon, and one to plug a device into
    assert ports[0].endswith("0x01 0x0 on")
    assert ports[1].endswith("0x01 0x1")


def test_conventional_devices_of_a_pci_express_board_sit_behind_a_bridge() -> None:
    definition = completed(document("<interface type='user'><model type='rtl8139'/></interface>"))
    (net,) = summary(definition, "interface")
    bus = int(net.split()[4], 16)
    (bridge,) = [line for line in summary(definition, "controller") if line.startswith(f"controller pci {bus} ")]
    assert bridge.split()[3].rstrip(":") == "pcie-to-pci-bridge"


def test_given_places_stay_and_others_go_around_them() -> None:
    place = "<address type='pci' domain='0' bus='0' slot='3' function='0'/>"
    devices = f"<interface type='user'>{place}</interface><interface type='user'/><interface type='user'/>"
    assert summary(completed(document(devices, machine="pc")), "interface") == [
        "interface user: pci 0x0000 0x00 0x03 0x0",
        "interface user: pci 0x0000 0x00 0x02 0x0",
        "interface user: pci 0x0000 0x00 0x04 0x0",
    ]


def test_two_devices_in_one_place_are_refused() -> None:
    place = "<interface type='user'><address type='pci' bus='0' slot='3'/></interface>"
    with pytest.raises(XmlError, match="PCI Address"):
        completed(document(place * 2, machine="pc"))


def test_more_devices_than_slots_are_refused() -> None:
    with pytest.raises(VirtError, match="No more available PCI slots"):
        completed(document("<interface type='user'/>" * 4000))


def test_the_boards_own_ide_controller_stays_where_it_is() -> None:
    place = "<address type='pci' bus='0' slot='9'/>"
    with pytest.raises(InternalError, match="Primary IDE controller must have PCI address"):
        completed(document(f"<controller type='ide' index='0'>{place}</controller>", machine="pc"))


def test_virtio_serial_ports_are_counted_from_1_on_each_controller() -> None:
    definition = completed(document(CHANNEL.format("") * 32))
    places = [line.partition("virtio-serial ")[2] for line in summary(definition, "channel")]
    assert places == [*(f"0 0 {port}" for port in range(1, 31)), "1 0 1", "1 0 2"]


def test_a_virtio_serial_port_is_given_once() -> None:
    place = "<address type='virtio-serial' controller='0' bus='0' port='3'/>"
    with pytest.raises(XmlError, match="already occupied"):
        completed(document(CHANNEL.format(place) * 2))


def test_channel_devices_are_numbered_past_those_given() -> None:
    given = "<address type='ccw' cssid='0xfe' ssid='0' devno='0'/>"
    devices = VIRTIO_DISK.format("vda").replace("</disk>", f"{given}</disk>") + VIRTIO_DISK.format("vdb")
    assert summary(completed(document(devices, arch="s390x")), "disk") == [
        "disk file: ccw 0xfe 0x0 0x0000",
        "disk file: ccw 0xfe 0x0 0x0001",
    ]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ("cssid='0xff' ssid='0' devno='0'", "Invalid specification for virtio ccw address"),
        ("cssid='0xfe' ssid='4' devno='0'", "Invalid specification for virtio ccw address"),
        ("cssid='0xfe' ssid='0' devno='0x10000'", "Invalid specification for virtio ccw address"),
        ("cssid='0xfe' devno='0'", "Invalid partial specification for virtio ccw address"),
    ],
)
def test_impossible_channel_numbers_are_refused(numbers: str, message: str) -> None:
    given = f"<address type='ccw' {numbers}/>"
    with pytest.raises(InternalError, match=message):
        completed(document(VIRTIO_DISK.format("vda").replace("</disk>", f"{given}</disk>"), arch="s390x"))


def test_pseries_devices_have_registers() -> None:
    serials = "<serial type='pty'><target port='0'/></serial><serial type='pty'><target port='1'/></serial>"
    lines = summary(completed(document(f"{serials}<controller type='scsi'/>", arch="ppc64")), "serial", "controller")
    assert "serial pty: spapr-vio 0x30000000" in lines
    assert "serial pty: spapr-vio 0x30001000" in lines
    assert "controller scsi 0 ibmvscsi: spapr-vio 0x00002000" in lines


def test_usb_devices_are_given_ports() -> None:
    devices = "<input type='tablet' bus='usb'/><input type='keyboard' bus='usb'/>"
    found = [line for line in summary(completed(document(devices, machine="pc")), "input") if "usb" in line]
    assert [line.rpartition(": ")[2] for line in found] == ["usb 0 1", "usb 0 2"]
