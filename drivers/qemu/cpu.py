"""CPU models: which names libvirt has, what this QEMU means by them, and which model describes a CPU best.

What a model contains is `cpu_models`; comparing and joining CPUs of several hosts is `cpu_compare`.
"""

from collections.abc import Container, Iterable, Mapping, Set
from types import MappingProxyType
from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.capabilities.emulators import ARCHITECTURES
from pyvirtd.drivers.qemu.capabilities.model import CpuDefinition, CpuModel, HostCpu, QemuCapabilities
from pyvirtd.drivers.qemu.cpu_features import HostCpuid, in_order, vendor_name
from pyvirtd.drivers.qemu.cpu_models import (
    GENERIC,
    X86_MODELS,
    CpuSignature,
    X86Model,
    libvirt_features,
    x86_models,
)
from pyvirtd.errors import InvalidArg, NoSupport
from pyvirtd.model.capabilities import CpuFeaturePolicy, NamedCpu

X86 = ("i686", "x86_64")
PPC = ("ppc64", "ppc64le")
# Architectures whose models libvirt has no list of: any name that QEMU knows will do.
ANY_MODEL = ("armv6l", "armv7l", "armv7b", "aarch64", "s390", "s390x", "loongarch64")

PPC_MODELS = ("POWER6", "POWER7", "POWER8", "POWER9", "POWER10", "POWERPC_e5500", "POWERPC_e6500")


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


def blocked_features(caps: QemuCapabilities, virt_type: str) -> dict[str, frozenset[str]]:
    """What of each model the accelerator cannot give on this host, by libvirt's names."""
    return {m.name: libvirt_features(frozenset(m.blockers)) for m in caps.cpu_models(virt_type) if m.blockers}


def power_vendor(name: str) -> str:
    """The maker of a POWER model."""
    return "Freescale" if name.startswith("POWERPC_e") else "IBM"


def vendor_of(caps: QemuCapabilities, name: str, arch: str) -> str | None:
    """The maker of a model; None for generic models and for architectures without makers."""
    if arch in PPC:
        return power_vendor(name)
    if name in GENERIC or (definition := caps.cpu_definition(name)) is None:
        return None
    return vendor_name(definition.vendor)


def describe_host(caps: QemuCapabilities | None, host: HostCpuid) -> NamedCpu:
    """The host's own CPU: the largest model that it contains wholly, and the features it has beyond it."""
    signature = CpuSignature(host.vendor, host.family, host.model, host.stepping)
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
    blocked = blocked_features(caps, virt_type)
    return best_match(caps.cpu_definitions, libvirt_features(names), _signature(cpu), may_disable=True, blocked=blocked)


def _signature(cpu: HostCpu) -> CpuSignature:
    numbers = cpu.numbers
    return CpuSignature(cpu.vendor or "", numbers.get("family", 0), numbers.get("model", 0), numbers.get("stepping"))


class _Match(NamedTuple):
    """A CPU put as a model and the differences from it."""

    model: X86Model
    place: int  # of the model, in libvirt's order
    required: frozenset[str]
    disabled: frozenset[str]

    @property
    def losses(self) -> int:
        """How much the model has to lose: libvirtd 9.0 counts disabled features by twos, as its choices show."""
        return (len(self.disabled) + 1) // 2

    @property
    def differences(self) -> int:
        """The weight of the differences: each counts once, and each two disabled ones one more than the two before."""
        return len(self.required) + len(self.disabled) + self.losses * (self.losses + 1) // 2


def best_match(
    definitions: tuple[CpuDefinition, ...],
    features: Set[str],
    signature: CpuSignature,
    *,
    may_disable: bool,
    given: Set[str] = frozenset(),
    usable: Container[str] = X86_MODELS,
    blocked: Mapping[str, Set[str]] = MappingProxyType({}),
) -> NamedCpu:
    """The model nearest to a CPU, never one of another maker; the CPU of a signature without a maker is anybody's.

    A model of the CPU's own family and model number wins, then the one with the smallest differences. `given`: the
    models that clients named this CPU by. A single one wins over all others; of several, one that has less to lose
    than the nearest keeps away all newer models. Without a model at all the CPU is only its features. `blocked`:
    features of each model that the hypervisor cannot give.
    """
    vendor = vendor_name(signature.vendor)
    matches = [
        _match(model, features, blocked.get(model.name, frozenset()), may_disable=may_disable)
        for model in x86_models(definitions).values()
        if model.name in usable and _allowed(model, signature, may_disable=may_disable)
    ]
    if not may_disable:
        matches = [one for one in matches if not one.disabled]
    if not matches:
        return NamedCpu(None, vendor, _policies(in_order(features), "require"))
    best = _nearest(matches, signature, given)
    for own in reversed([one for one in matches if one.model.name in given]):
        if own.losses < best.losses:
            best = _nearest([one for one in matches if one.place <= own.place], signature, given)
    # what newer QEMUs left out of the model is said last
    gone = best.model.gone & best.disabled
    taken = in_order(best.disabled - gone) + in_order(gone)
    return NamedCpu(
        best.model.name, vendor, _policies(in_order(best.required), "require") + _policies(taken, "disable")
    )


def _allowed(model: X86Model, signature: CpuSignature, *, may_disable: bool) -> bool:
    if signature.vendor and model.vendor and model.letters != signature.vendor:
        return False
    return model.for_guests if may_disable else model.for_hosts


def _match(model: X86Model, features: Set[str], blocked: Set[str], *, may_disable: bool) -> _Match:
    """Blocked features are disabled, but for those that only the CPU has, not the model."""
    disabled = ((model.features | blocked) - features) | (model.features & blocked)
    if may_disable:
        disabled |= model.gone - features
    return _Match(model, X86_MODELS.index(model.name), frozenset(features - model.features), disabled)


def _nearest(matches: Iterable[_Match], signature: CpuSignature, given: Set[str]) -> _Match:
    """Of two that are equally near the later in libvirt's order."""

    def rank(one: _Match) -> tuple[bool, bool, int, int, int]:
        return {one.model.name} == given, one.model.is_of(signature), -one.differences, -one.losses, one.place

    return max(matches, key=rank)


def _policies(names: Iterable[str], policy: str) -> tuple[CpuFeaturePolicy, ...]:
    return tuple(CpuFeaturePolicy(name, policy) for name in names)
