"""Defaults: what a definition says after it was completed. The tables are answers of libvirtd 9.0 with QEMU 7.2."""

import pytest

from pyvirtd.errors import XmlError
from pyvirtd.model.disk import DiskBus, SnapshotLocation
from pyvirtd.model.graphics import VideoModelType
from tests.drivers.qemu.definitions import completed, document, summary

DISK = "<disk type='file'><source file='/x'/><target dev='{}'/></disk>"


@pytest.mark.parametrize(
    ("arch", "machine", "expected"),
    [
        ("x86_64", "pc", ["controller usb 0 piix3-uhci: pci 0x0000 0x00 0x01 0x2", "controller pci 0 pci-root"]),
        ("aarch64", "", ["controller pci 0 pcie-root"]),
        ("ppc64", "", ["controller usb 0 qemu-xhci: pci 0x0000 0x00 0x01 0x0", "controller pci 0 pci-root"]),
        ("riscv64", "", ["controller pci 0 pcie-root"]),
        ("s390x", "", []),
    ],
)
def test_boards_bring_their_own_controllers(arch: str, machine: str, expected: list[str]) -> None:
    found = summary(completed(document(arch=arch, machine=machine)), "controller")
    assert [line for line in found if "pcie-root-port" not in line] == expected


@pytest.mark.parametrize(
    ("arch", "net", "video", "scsi"),
    [
        ("x86_64", "rtl8139", VideoModelType.CIRRUS, "lsilogic"),
        ("aarch64", "virtio", VideoModelType.VIRTIO, "virtio-scsi"),
        ("ppc64", "rtl8139", VideoModelType.VGA, "ibmvscsi"),
        ("s390x", "virtio", VideoModelType.VIRTIO, "virtio-scsi"),
        ("riscv64", "virtio", VideoModelType.VIRTIO, "virtio-scsi"),
    ],
)
def test_models_follow_the_board(arch: str, net: str, video: VideoModelType, scsi: str) -> None:
    devices = completed(
        document("<interface type='user'/><graphics type='vnc'/><controller type='scsi'/>", arch=arch)
    ).devices
    assert devices.interface[0].model == net
    assert devices.video[0].model is not None
    assert devices.video[0].model.type is video
    assert [c.model for c in devices.controller if c.type == "scsi"] == [scsi]


@pytest.mark.parametrize(
    ("target", "bus", "place"),
    [
        ("hda", DiskBus.IDE, "drive 0 0 0 0"),
        ("hdd", DiskBus.IDE, "drive 0 1 0 1"),
        ("sda", DiskBus.SCSI, "drive 0 0 0 0"),
        ("sdh", DiskBus.SCSI, "drive 1 0 0 0"),
        ("sdaa", DiskBus.SCSI, "drive 3 0 0 5"),
    ],
)
def test_target_names_stand_for_bus_and_place(target: str, bus: DiskBus, place: str) -> None:
    definition = completed(document(DISK.format(target), machine="pc"))
    assert definition.devices.disk[0].target.bus is bus
    assert summary(definition, "disk") == [f"disk file: {place}"]


def test_controllers_are_added_up_to_the_number_that_a_drive_names() -> None:
    address = "<address type='drive' controller='2' bus='0' target='0' unit='0'/>"
    definition = completed(document(DISK.format("sda").replace("</disk>", f"{address}</disk>"), machine="pc"))
    assert [c.index for c in definition.devices.controller if c.type == "scsi"] == [0, 1, 2]


def test_an_absurd_controller_number_adds_no_masses() -> None:
    address = "<address type='drive' controller='4294967295' bus='0' target='0' unit='0'/>"
    definition = completed(document(DISK.format("sda").replace("</disk>", f"{address}</disk>"), machine="pc"))
    assert len(definition.devices.controller) < 300


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ("", ("65536", "65536", "16384", None)),
        ("ram='65537' vram='3000'", ("131072", "4096", "16384", None)),
        ("vram64='70000'", ("65536", "65536", "16384", "131072")),
        ("ram='4294967295' vram='4294967295'", ("65536", "65536", "16384", None)),
    ],
)
def test_sizes_of_a_qxl_card_are_powers_of_two_that_fit(sizes: str, expected: tuple[str | None, ...]) -> None:
    video = f"<video><model type='qxl' {sizes}/></video>"
    model = completed(document(f"<graphics type='vnc'/>{video}")).devices.video[0].model
    assert model is not None
    found = (model.ram, model.vram, model.vgamem, model.vram64)
    assert tuple(None if size is None else str(size) for size in found) == expected


def test_memory_of_a_pseries_guest_comes_in_blocks() -> None:
    top = "<maxMemory slots='4' unit='GiB'>4</maxMemory>"
    dimm = "<memory model='dimm'><target><size unit='MiB'>300</size></target></memory>"
    numa = "<cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'/></numa></cpu>"
    text = document(dimm, arch="ppc64", top=top).replace("<devices>", f"{numa}<devices>")
    target = completed(text).devices.memory[0].target
    assert target is not None
    assert target.size_kib == 512 * 1024


def test_a_cdrom_is_read_only_and_needs_no_medium() -> None:
    disk = completed(document("<disk type='file' device='cdrom' snapshot='no'><target dev='sda' bus='sata'/></disk>"))
    (drive,) = disk.devices.disk
    assert drive.readonly
    assert drive.source is None
    assert drive.snapshot is not SnapshotLocation.NO


def test_companions_take_the_number_of_their_usb_controller() -> None:
    names = ("ehci1", "uhci1", "uhci2", "uhci3")
    devices = "".join(f"<controller type='usb' model='ich9-{name}'/>" for name in names)
    found = [c for c in completed(document(devices, machine="pc")).devices.controller if c.type == "usb"]
    assert [(c.index, c.info.master) for c in found] == [(0, None), (0, 0), (0, 2), (0, 4)]


@pytest.mark.parametrize(
    ("machine", "model"), [("q35", "pci-root"), ("pc", "pcie-root")]
)  # fmt: skip
def test_the_wrong_root_bus_is_refused(machine: str, model: str) -> None:
    with pytest.raises(XmlError, match="must be model="):
        completed(document(f"<controller type='pci' index='0' model='{model}'/>", machine=machine))
