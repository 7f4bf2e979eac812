"""What one QEMU binary can do, as typed values, and their JSON form for the cache on disk.

Nothing here asks QEMU or the file system: `probe` fills these in, `cache` keeps them, command-line code reads them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from pyvirtd.model.capabilities import VirtType


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine type, as query-machines tells it. `alias` is the short name that stands for it ("pc")."""

    name: str
    alias: str | None = None
    max_cpus: int = 1
    is_default: bool = False
    deprecated: bool = False
    default_cpu_type: str | None = None
    default_ram_id: str | None = None

    @property
    def default_cpu(self) -> str | None:
        """The CPU model's name without the architecture's suffix ("qemu64")."""
        return cpu_name_of_type(self.default_cpu_type) if self.default_cpu_type else None


@dataclass(frozen=True, slots=True)
class CpuModel:
    """One CPU model under one accelerator. `usable` is None where QEMU does not say (not x86 or s390x)."""

    name: str
    type: str = ""
    alias_of: str | None = None
    usable: bool | None = None
    blockers: tuple[str, ...] = ()
    deprecated: bool = False


@dataclass(frozen=True, slots=True)
class HostCpu:
    """The best CPU an accelerator gives (QEMU's "host" or "max"), expanded. Features have QEMU's names."""

    name: str
    features: frozenset[str] = frozenset()
    unmigratable: frozenset[str] = frozenset()
    numbers: dict[str, int] = field(default_factory=dict)
    strings: dict[str, str] = field(default_factory=dict)
    hyperv: frozenset[str] = frozenset()  # enlightenments this host can give, by libvirt's names

    @property
    def vendor(self) -> str | None:
        """The twelve letters of CPUID leaf 0 ("GenuineIntel")."""
        return self.strings.get("vendor")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What depends on the accelerator a guest runs under."""

    machines: tuple[Machine, ...] = ()
    cpu_models: tuple[CpuModel, ...] = ()
    host_cpu: HostCpu | None = None


@dataclass(frozen=True, slots=True)
class CpuDefinition:
    """What a named model means to this QEMU: its features (QEMU's names), vendor, family and model."""

    name: str
    features: frozenset[str]
    vendor: str = ""
    family: int = 0
    model: int = 0
    stepping: int = 0


@dataclass(frozen=True, slots=True)
class SevCapability:
    """AMD SEV of the host as QEMU tells it (query-sev-capabilities)."""

    pdh: str
    cert_chain: str
    cpu0_id: str | None
    cbitpos: int
    reduced_phys_bits: int


@dataclass(frozen=True, slots=True)
class SgxCapability:
    """Intel SGX of the host as QEMU tells it (query-sgx-capabilities)."""

    flc: bool
    sgx1: bool
    sgx2: bool
    section_size_kib: int


@dataclass(frozen=True, slots=True)
class GicVersion:
    """One interrupt controller version KVM or the emulation offers (query-gic-capabilities)."""

    version: int
    kernel: bool
    emulated: bool


@dataclass(frozen=True, slots=True)
class QemuCapabilities:
    """Everything pyvirtd knows about one QEMU binary. Asked, never changed.

    `types` are QOM type names, `properties` those of the devices and machines that were asked about, `schema` the
    paths of `schema.paths`, `options` "name" and "name.parameter" of the command line.
    """

    binary: str
    version: int
    package: str
    arch: str
    tcg: Accelerator | None
    kvm: Accelerator | None
    types: frozenset[str] = frozenset()
    properties: dict[str, frozenset[str]] = field(default_factory=dict)
    schema: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()
    cpu_definitions: tuple[CpuDefinition, ...] = ()
    tpm_models: tuple[str, ...] = ()
    tpm_types: tuple[str, ...] = ()
    gic: tuple[GicVersion, ...] = ()
    sev: SevCapability | None = None
    sgx: SgxCapability | None = None

    # Accelerators and machines

    @property
    def kvm_usable(self) -> bool:
        """QEMU itself started under KVM when it was probed; a /dev/kvm that fails does not count."""
        return self.kvm is not None

    def virt_types(self) -> tuple[VirtType, ...]:
        """The domain types this binary runs, the one a definition gets by default first."""
        types = []
        if self.kvm is not None:
            types.append(VirtType.KVM)
        if self.tcg is not None:
            types.append(VirtType.QEMU)
        return tuple(types)

    def accelerator(self, virt_type: str) -> Accelerator | None:
        """The side for a domain type ("kvm", "qemu"); None if this binary does not run it."""
        if virt_type == VirtType.KVM:
            return self.kvm
        return self.tcg if virt_type == VirtType.QEMU else None

    def machines(self, virt_type: str | None = None) -> tuple[Machine, ...]:
        """All machine types, in QEMU's order; by default those of the first accelerator."""
        side = self.accelerator(virt_type) if virt_type else self.tcg or self.kvm
        return side.machines if side else ()

    def machine(self, name: str, virt_type: str | None = None) -> Machine | None:
        """The machine type with that name or alias."""
        return next((m for m in self.machines(virt_type) if name in (m.name, m.alias)), None)

    def canonical_machine(self, name: str) -> str:
        """The full name behind an alias; an unknown name stays as it is."""
        found = self.machine(name)
        return found.name if found else name

    def default_machine(self, virt_type: str | None = None) -> str | None:
        """The machine a definition without one gets: QEMU's default, else libvirt's, else the first that QEMU lists."""
        machines = self.machines(virt_type)
        preferred = PREFERRED_MACHINE.get(self.arch)
        names = [m.name for m in machines if m.is_default] + [m.name for m in machines if m.name == preferred]
        return names[0] if names else machines[0].name if machines else None

    # Devices, commands and options

    def has_device(self, name: str) -> bool:
        """A device or object type with that QOM name exists."""
        return name in self.types

    def has_property(self, type_name: str, name: str) -> bool:
        """The device, object or machine type ("pc-q35-7.2-machine") has that property; False if not asked about."""
        return name in self.properties.get(type_name, ())

    def supports(self, path: str) -> bool:
        """The QMP schema has the path: "device_add!json-cli", "blockdev-add/driver=nvme", "query-migrate->ram"."""
        return path in self.schema

    def has_option(self, name: str) -> bool:
        """The command line knows the option ("sandbox") or its parameter ("sandbox.elevateprivileges")."""
        return name in self.options

    # CPU models

    def cpu_models(self, virt_type: str) -> tuple[CpuModel, ...]:
        side = self.accelerator(virt_type)
        return side.cpu_models if side else ()

    def cpu_definition(self, name: str) -> CpuDefinition | None:
        return next((d for d in self.cpu_definitions if d.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries; `from_json` gives the same value back."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "tcg": _accelerator_json(self.tcg),
            "kvm": _accelerator_json(self.kvm),
            "types": sorted(self.types),
            "properties": {name: sorted(names) for name, names in sorted(self.properties.items())},
            "schema": sorted(self.schema),
            "options": sorted(self.options),
            "cpu_definitions": [_slots(d) | {"features": sorted(d.features)} for d in self.cpu_definitions],
            "gic": [_slots(g) for g in self.gic],
            "sev": _slots(self.sev) if self.sev else None,
            "sgx": _slots(self.sgx) if self.sgx else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError on anything `to_json` did not write."""
        definitions = (d | {"features": frozenset(d["features"])} for d in data["cpu_definitions"])
        return cls(
            **{name: _tupled(data[name]) for name in _PLAIN},
            tcg=_accelerator(data["tcg"]),
            kvm=_accelerator(data["kvm"]),
            types=frozenset(data["types"]),
            properties={name: frozenset(names) for name, names in data["properties"].items()},
            schema=frozenset(data["schema"]),
            options=frozenset(data["options"]),
            cpu_definitions=tuple(CpuDefinition(**d) for d in definitions),
            gic=tuple(GicVersion(**g) for g in data["gic"]),
            sev=SevCapability(**data["sev"]) if data["sev"] else None,
            sgx=SgxCapability(**data["sgx"]) if data["sgx"] else None,
        )


# Where QEMU has no default machine, libvirt has one of its own.
PREFERRED_MACHINE = {
    "armv6l": "integratorcp",
    "armv7l": "integratorcp",
    "aarch64": "integratorcp",
    "riscv32": "spike",
    "riscv64": "spike",
}
_HOST_SETS = ("features", "unmigratable", "hyperv")
_PLAIN = ("binary", "version", "package", "arch", "tpm_models", "tpm_types")


def cpu_name_of_type(type_name: str) -> str:
    """ "qemu64-x86_64-cpu" names the model "qemu64"; a type without QEMU's suffix is its own name."""
    stem = type_name.removesuffix("-cpu")
    if stem == type_name:
        return type_name
    return stem.rsplit("-", 1)[0]


def _slots(value: object) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}  # type: ignore[attr-defined]


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _rows(values: Iterable[object]) -> list[list[Any]]:
    return [list(_slots(v).values()) for v in values]


def _accelerator_json(side: Accelerator | None) -> dict[str, Any] | None:
    if side is None:
        return None
    host = side.host_cpu
    return {
        "machines": _rows(side.machines),
        "cpu_models": _rows(side.cpu_models),
        "host_cpu": host and _slots(host) | {name: sorted(getattr(host, name)) for name in _HOST_SETS},
    }


def _accelerator(data: dict[str, Any] | None) -> Accelerator | None:
    if data is None:
        return None
    host = data["host_cpu"]
    if host is not None:
        sets = {name: frozenset(host[name]) for name in _HOST_SETS}
        host = HostCpu(**host | sets)
    return Accelerator(
        machines=tuple(Machine(*row) for row in data["machines"]),
        cpu_models=tuple(CpuModel(*map(_tupled, row)) for row in data["cpu_models"]),
        host_cpu=host,
    )
