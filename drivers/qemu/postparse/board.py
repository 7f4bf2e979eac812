"""What kind of machine a definition asks for: the few facts of a board that defaults and addresses depend on."""

from dataclasses import dataclass
from enum import StrEnum

from pyvirtd.model.domain import DomainDef

X86 = frozenset({"i686", "x86_64"})
PPC64 = frozenset({"ppc64", "ppc64le"})
PPC = frozenset({"ppc", "ppcemb"}) | PPC64
ARM = frozenset({"armv6l", "armv7l", "armv7b", "aarch64"})
RISCV = frozenset({"riscv32", "riscv64"})
S390 = frozenset({"s390", "s390x"})
# Big-endian 32-bit ARM and friends that libvirt knows as names only.
_I440FX_PREFIXES = ("pc-0.", "pc-1.", "pc-i440", "pc-i440fx", "rhel")
_BUILTIN_IDE = frozenset({"malta", "sun4u", "g3beige"})
# Boards of these architectures that have a PCI bus which QEMU calls differently from "pci.0".
_PCI_ARCHITECTURES = frozenset(
    {"ppc", "ppcemb", "ppc64", "ppc64le", "alpha", "mips", "mipsel", "mips64", "mips64el", "sparc64", "sh4", "sh4eb"}
)


class Kind(StrEnum):
    """Boards that have rules of their own."""

    I440FX = "i440fx"
    Q35 = "q35"
    ISAPC = "isapc"
    ARM_VIRT = "arm virt"
    RISCV_VIRT = "riscv virt"
    PSERIES = "pseries"
    S390_CCW = "s390-ccw"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Board:
    """The architecture, the machine name as it stands in the definition, and its kind."""

    arch: str
    machine: str
    kind: Kind

    @classmethod
    def of(cls, definition: DomainDef) -> "Board":
        """The board of a definition whose architecture is known."""
        arch, machine = definition.os.type.arch or "", definition.os.type.machine or ""
        return cls(arch, machine, _kind(arch, machine))

    @property
    def x86(self) -> bool:
        return self.arch in X86

    @property
    def arm(self) -> bool:
        return self.arch in ARM

    @property
    def s390(self) -> bool:
        return self.arch in S390

    @property
    def ppc64(self) -> bool:
        return self.arch in PPC64

    @property
    def riscv(self) -> bool:
        return self.arch in RISCV

    @property
    def q35(self) -> bool:
        return self.kind is Kind.Q35

    @property
    def i440fx(self) -> bool:
        return self.kind is Kind.I440FX

    @property
    def pseries(self) -> bool:
        return self.kind is Kind.PSERIES

    @property
    def arm_virt(self) -> bool:
        return self.kind is Kind.ARM_VIRT

    @property
    def riscv_virt(self) -> bool:
        return self.kind is Kind.RISCV_VIRT

    @property
    def s390_ccw(self) -> bool:
        return self.kind is Kind.S390_CCW

    @property
    def pcie(self) -> bool:
        """Bus 0 is a PCI Express root."""
        return self.kind in (Kind.Q35, Kind.ARM_VIRT, Kind.RISCV_VIRT)

    @property
    def many_pci_buses(self) -> bool:
        """QEMU numbers its PCI buses; on other boards the only one has no number."""
        return self.arch in X86 | PPC | S390 or self.arm_virt or self.riscv_virt

    @property
    def builtin_ide(self) -> bool:
        """The first IDE controller is part of the board."""
        return self.i440fx or self.machine in _BUILTIN_IDE

    @property
    def virtio_mmio(self) -> bool:
        """Virtio devices may sit on the board's own slots."""
        return self.arm_virt or self.riscv_virt or (self.arm and self.machine.startswith("vexpress-"))


def _kind(arch: str, machine: str) -> Kind:
    if arch in X86:
        if machine == "q35" or machine.startswith("pc-q35"):
            return Kind.Q35
        if machine == "pc" or machine.startswith(_I440FX_PREFIXES):
            return Kind.I440FX
        return Kind.ISAPC if machine == "isapc" else Kind.OTHER
    virt = machine == "virt" or machine.startswith("virt-")
    if arch in ARM and virt:
        return Kind.ARM_VIRT
    if arch in RISCV and virt:
        return Kind.RISCV_VIRT
    if arch in PPC64 and (machine == "pseries" or machine.startswith("pseries-")):
        return Kind.PSERIES
    if arch in S390 and machine.startswith("s390-ccw"):
        return Kind.S390_CCW
    return Kind.OTHER
