"""Definitions completed and checked for emulators that do not exist: what pure tests of defaults and rules share."""

import re

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.capabilities import Accelerator, Machine, QemuCapabilities
from pyvirtd.drivers.qemu.postparse import choose_emulator, complete
from pyvirtd.drivers.qemu.validate import validate
from pyvirtd.model.domain import DomainDef
from tests.drivers.qemu.capabilities_data import MODELS, TCG, make_capabilities

# What QEMU 7.2's emulators have of the devices that defaults ask for.
_COMMON = {
    "virtio-blk-pci",
    "virtio-net-pci",
    "virtio-gpu-pci",
    "virtio-scsi-pci",
    "qemu-xhci",
    "nec-usb-xhci",
    "usb-storage",
}
_PC = {
    "piix3-usb-uhci",
    "ich9-ahci",
    "lsi53c895a",
    "rtl8139",
    "e1000",
    "VGA",
    "cirrus-vga",
    "qxl",
    "i8042",
    "virtio-keyboard-pci",
    "pcie-pci-bridge",
}
TYPES = {
    "x86_64": _COMMON | _PC,
    "aarch64": _COMMON,
    "ppc64": _COMMON | {"pci-ohci", "spapr-vscsi", "rtl8139", "e1000", "VGA", "lsi53c895a"},
    "s390x": {"virtio-blk-ccw", "virtio-net-ccw", "virtio-scsi-ccw", "virtio-gpu-ccw", "sclpconsole"},
    "riscv64": _COMMON,
}
MACHINE_NAMES = {"aarch64": "virt-7.2", "ppc64": "pseries-7.2", "s390x": "s390-ccw-virtio-7.2", "riscv64": "virt"}
ALIASES = {"aarch64": "virt", "ppc64": "pseries", "s390x": "s390-ccw-virtio"}


def emulator(arch: str) -> QemuCapabilities:
    """An emulator of that architecture under TCG."""
    if arch == "x86_64":
        return make_capabilities(tcg=TCG, types=frozenset(TYPES[arch]), options=frozenset({"spice", "sandbox"}))
    machine = Machine(MACHINE_NAMES[arch], alias=ALIASES.get(arch), max_cpus=64, is_default=True)
    return make_capabilities(
        f"/usr/bin/qemu-system-{arch}",
        arch=arch,
        tcg=Accelerator((machine,), MODELS, None),
        types=frozenset(TYPES[arch]),
    )


def document(devices: str = "", *, arch: str = "x86_64", machine: str = "q35", top: str = "", os: str = "") -> str:
    """A domain's text; `top` goes before <os>."""
    name = MACHINE_NAMES.get(arch, machine)
    return (
        f"<domain type='qemu'><name>g</name><memory unit='MiB'>64</memory>{top}"
        f"<os><type arch='{arch}' machine='{name}'>hvm</type>{os}</os>"
        f"<devices><emulator>/usr/bin/qemu-system-{arch}</emulator>{devices}</devices></domain>"
    )


def completed(text: str, *, new: bool = True) -> DomainDef:
    """The definition with all defaults and addresses."""
    definition = DomainDef.parse(text)
    choose_emulator(definition, "x86_64")
    caps = emulator(definition.os.type.arch or "x86_64")
    complete(definition, caps, QemuConfig(), privileged=True, host_arch="x86_64", new=new)
    return definition


def checked(text: str) -> DomainDef:
    """The complete definition, which must keep all rules."""
    definition = completed(text)
    caps = emulator(definition.os.type.arch or "x86_64")
    validate(definition, caps, QemuConfig(), privileged=True, host_arch="x86_64")
    return definition


def summary(definition: DomainDef, *tags: str) -> list[str]:
    """Each device of these kinds as "tag type model: address", in printing order."""
    found = []
    text = definition.devices.format()
    for tag in tags:
        for match in re.finditer(rf"^  <{tag}\b([^>]*?)(/>|>.*?^  </{tag}>)", text, re.DOTALL | re.MULTILINE):
            words = re.findall(r" (?:type|index|model)='([^']*)'", match[1])
            place = re.search(r"<address type='([^']*)'([^>]*)/>", match[2])
            where = " ".join(re.findall(r"='([^']*)'", place[2])) if place else ""
            found.append(" ".join([tag, *words]) + (f": {place[1]} {where}".rstrip() if place else ""))
    return found
