"""CPU models: which names libvirt has, what this QEMU means by them, and which model describes a CPU best.

What a model contains comes from QEMU itself (`QemuCapabilities.cpu_definitions`); only names are written down here.
Comparing and joining CPUs of several hosts (cpu-compare, cpu-baseline) is not here yet.
"""

from collections.abc import Iterable, Set
from functools import lru_cache
from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.capabilities.emulators import ARCHITECTURES
from pyvirtd.drivers.qemu.capabilities.model import CpuDefinition, CpuModel, HostCpu, QemuCapabilities
from pyvirtd.drivers.qemu.cpu_features import HostCpuid, from_qemu, in_order, vendor_name
from pyvirtd.errors import InvalidArg, NoSupport
from pyvirtd.model.capabilities import CpuFeaturePolicy, NamedCpu

X86 = ("i686", "x86_64")
PPC = ("ppc64", "ppc64le")
# Architectures whose models libvirt has no list of: any name that QEMU knows will do.
ANY_MODEL = ("armv6l", "armv7l", "armv7b", "aarch64", "s390", "s390x", "loongarch64")

# Models that libvirt 9.0 knows, in its order. A definition with another name would not load there.
X86_MODELS = (
    "486", "pentium", "pentium2", "pentium3", "pentiumpro", "coreduo", "n270", "core2duo", "qemu32", "kvm32",
    "cpu64-rhel5", "cpu64-rhel6", "qemu64", "kvm64", "Conroe", "Penryn", "Nehalem", "Nehalem-IBRS", "Westmere",
    "Westmere-IBRS", "SandyBridge", "SandyBridge-IBRS", "IvyBridge", "IvyBridge-IBRS", "Haswell-noTSX",
    "Haswell-noTSX-IBRS", "Haswell", "Haswell-IBRS", "Broadwell-noTSX", "Broadwell-noTSX-IBRS", "Broadwell",
    "Broadwell-IBRS", "Skylake-Client", "Skylake-Client-IBRS", "Skylake-Client-noTSX-IBRS", "Skylake-Server",
    "Skylake-Server-IBRS", "Skylake-Server-noTSX-IBRS", "Cascadelake-Server", "Cascadelake-Server-noTSX",
    "Icelake-Client", "Icelake-Client-noTSX", "Icelake-Server", "Icelake-Server-noTSX", "Cooperlake", "Snowridge",
    "athlon", "phenom", "Opteron_G1", "Opteron_G2", "Opteron_G3", "Opteron_G4", "Opteron_G5", "EPYC", "EPYC-IBPB",
    "EPYC-Rome", "EPYC-Milan", "Dhyana",
)  # fmt: skip
PPC_MODELS = ("POWER6", "POWER7", "POWER8", "POWER9", "POWER10", "POWERPC_e5500", "POWERPC_e6500")
# Models that are nobody's: a host of any maker may be described by them, whatever QEMU lets them say to the guest.
GENERIC = frozenset(
    {"486", "pentium", "pentium2", "pentium3", "pentiumpro", "qemu32", "kvm32", "qemu64", "kvm64"}
    | {"cpu64-rhel5", "cpu64-rhel6"}
)


def model_names(arch: str) -> tuple[str, ...] | None:
    """All names libvirt has for an architecture (empty: any will do); None where it has no CPU models at all."""
    if arch in X86:
        return X86_MODELS
    if arch in PPC:
        return PPC_MODELS
    return () if arch in ANY_MODEL else None


def client_model_names(arch: str) -> list[str]:
    """The answer of ConnectGetCPUModelNames. Raises InvalidArg or NoSupport with libvirt's words."""
    if arch not in ARCHITECTURES:
        raise InvalidArg(f"cannot find architecture {arch}", domain=ErrorDomain.QEMU)
    names = model_names(arch)
    if names is None:
        raise NoSupport(f"'{arch}' architecture is not supported by CPU driver", domain=ErrorDomain.CPU)
    return list(names)


def usable_names(caps: QemuCapabilities, virt_type: str, arch: str) -> list[CpuModel]:
    """The models of an emulator that a definition may name, in QEMU's order."""
    names = model_names(arch)
    models = caps.cpu_models(virt_type)
    if names is None:
        return []
    if not names:
        return list(models)
    return list({m.name: m for m in models if m.name in names}.values())


def vendor_of(caps: QemuCapabilities, name: str, arch: str) -> str | None:
    """The maker of a model; None for generic models and for architectures without makers."""
    if arch in PPC:
        return "Freescale" if name.startswith("POWERPC_e") else "IBM"
    if name in GENERIC or (definition := caps.cpu_definition(name)) is None:
        return None
    return vendor_name(definition.vendor)


@lru_cache(maxsize=512)
def libvirt_features(qemu_names: frozenset[str]) -> frozenset[str]:
    """Features by libvirt's names; what libvirt has no name for is left out."""
    return frozenset(name for n in qemu_names if (name := from_qemu(n)))


class CpuSignature(NamedTuple):
    """What a CPU says it is: CPUID leaf 1, and its maker's twelve letters."""

    vendor: str
    family: int
    model: int


def describe_host(caps: QemuCapabilities | None, host: HostCpuid) -> NamedCpu:
    """The host's own CPU: the largest model that it contains wholly, and the features it has beyond it."""
    signature = CpuSignature(host.vendor, host.family, host.model)
    return best_match(caps.cpu_definitions if caps else (), host.features, signature, may_disable=False)


def describe_guest(caps: QemuCapabilities, virt_type: str, *, migratable: bool = False) -> NamedCpu | None:
    """What "host-model" stands for: a model and its differences from all that the accelerator gives.

    None where QEMU does not tell (no KVM and no expansion of "max", other architectures than x86).
    """
    side = caps.accelerator(virt_type)
    if side is None or side.host_cpu is None or caps.arch not in X86:
        return None
    cpu = side.host_cpu
    names = cpu.features - cpu.unmigratable if migratable else cpu.features
    return best_match(caps.cpu_definitions, libvirt_features(names), _signature(cpu), may_disable=True)


def _signature(cpu: HostCpu) -> CpuSignature:
    return CpuSignature(cpu.vendor or "", cpu.numbers.get("family", 0), cpu.numbers.get("model", 0))


class _Rank(NamedTuple):
    """How near a model is; the greatest wins."""

    same_processor: bool
    differences: int  # negative: fewer is greater
    disabled: int  # negative too
    place: int  # in libvirt's order


def best_match(
    definitions: Iterable[CpuDefinition], features: Set[str], signature: CpuSignature, *, may_disable: bool
) -> NamedCpu:
    """The model nearest to a CPU, never one of another maker.

    A model of the CPU's own family and model number wins over all others, then the one with the fewest differences,
    then the one with the fewest features to disable. Without a model at all the CPU is only its features.
    """
    ranked = {
        rank: definition
        for definition in definitions
        if (rank := _rank(definition, features, signature, may_disable=may_disable))
    }
    vendor = vendor_name(signature.vendor)
    if not ranked:
        return NamedCpu(None, vendor, _policies(in_order(features), "require"))
    best = ranked[max(ranked)]
    contained = libvirt_features(best.features)
    added = _policies(in_order(features - contained), "require")
    return NamedCpu(best.name, vendor, added + _policies(in_order(contained - features), "disable"))


def _rank(definition: CpuDefinition, features: Set[str], signature: CpuSignature, *, may_disable: bool) -> _Rank | None:
    """None for a model that will not do at all."""
    generic = definition.name in GENERIC
    if definition.name not in X86_MODELS or not (generic or definition.vendor == signature.vendor):
        return None
    contained = libvirt_features(definition.features)
    disabled = len(contained - features)
    if disabled and not may_disable:
        return None
    same = not generic and (definition.family, definition.model) == (signature.family, signature.model)
    return _Rank(same, -len(contained ^ features), -disabled, X86_MODELS.index(definition.name))


def _policies(names: Iterable[str], policy: str) -> tuple[CpuFeaturePolicy, ...]:
    return tuple(CpuFeaturePolicy(name, policy) for name in names)
