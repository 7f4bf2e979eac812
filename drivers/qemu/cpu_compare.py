"""Comparing a client's CPU with a host's, and the CPU that several hosts have in common: no I/O, no QEMU.

Rules: https://libvirt.org/formatdomain.html#cpu-model-and-topology, and what libvirtd 9.0 answers.
"""

from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.constants.host import CPUCompareResult
from pyvirtd.drivers.qemu import cpu
from pyvirtd.drivers.qemu.capabilities.emulators import ARCHITECTURES
from pyvirtd.drivers.qemu.capabilities.model import CpuDefinition
from pyvirtd.drivers.qemu.cpu_features import FEATURES, NEVER_GIVEN, NOT_CONFIGURABLE, in_order, vendor_letters
from pyvirtd.drivers.qemu.cpu_models import X86_MODELS, CpuSignature, X86Model, x86_models
from pyvirtd.errors import (
    ConfigUnsupported,
    CpuIncompatible,
    InternalError,
    NoSupport,
    OperationFailed,
    VirtError,
    XmlError,
)
from pyvirtd.model.capabilities import CpuFeaturePolicy, NamedCpu
from pyvirtd.model.cpu import Cpu, CpuMatch, CpuMode, FeaturePolicy
from pyvirtd.xml.document import Node, parse_document, text_of

CPU = ErrorDomain.CPU
# What a guest loses when it moves: features that libvirt marks so.
UNMIGRATABLE = frozenset({"invtsc", "xsaves"})
_GIVEN = (FeaturePolicy.FORCE, FeaturePolicy.REQUIRE)


@dataclass(frozen=True, slots=True)
class ClientCpu:
    """A CPU that a client sent. With an architecture it describes a host, without one it is a guest's."""

    arch: str | None
    cpu: Cpu

    @property
    def model(self) -> str | None:
        return self.cpu.model.name if self.cpu.model is not None else None

    def names(self, *policies: FeaturePolicy) -> set[str]:
        """Its features with one of these policies; all features of a host are required."""
        return {one.name for one in self.cpu.feature if one.policy in policies}


class HostCpu(NamedTuple):
    """What a client's CPU is compared with: libvirt's names of all features, and libvirt's word for the maker."""

    features: frozenset[str]
    vendor: str | None


def read(text: str, *, host: bool = False) -> ClientCpu:
    """A client's <cpu>. `host`: it must describe a host. Raises XmlDetail, XmlError or ConfigUnsupported."""
    node = check_root(text)
    found = node.find("arch")
    arch = text_of(found) if found is not None else None
    if not host and arch is None:
        return ClientCpu(None, Cpu.parse(node))
    if node.get("mode") is not None:
        raise ConfigUnsupported("Attribute mode is only allowed for guest CPU", domain=CPU)
    if arch is None:
        raise XmlError("Missing CPU architecture", domain=CPU)
    if arch not in ARCHITECTURES:
        raise ConfigUnsupported(f"Unknown architecture {arch}", domain=CPU)
    model = node.find("model")
    if model is None or not text_of(model):
        raise XmlError("Missing CPU model name", domain=CPU)
    for element, name in [(node, "match"), (node, "check"), *((one, "policy") for one in node.iterfind("feature"))]:
        if element.get(name) is not None:  # a host has no wishes
            del element.attrib[name]
    return ClientCpu(arch, Cpu.parse(node))


def check_root(text: str) -> Node:
    """The document's root, a <cpu>. Raises XmlDetail or XmlError."""
    node = parse_document(text, domain=CPU, what="CPU_definition")
    if node.tag != "cpu":
        raise XmlError("XML does not contain expected 'cpu' element", domain=CPU)
    return node


def compatible_archs(one: str, other: str) -> bool:
    """The architectures are of one family."""
    return one == other or any(one in family and other in family for family in (cpu.X86, cpu.PPC))


def compare(
    wanted: ClientCpu, host: HostCpu, arch: str, definitions: tuple[CpuDefinition, ...], *, fail: bool
) -> CPUCompareResult:
    """How an x86 host relates to a CPU. With `fail` one that does not fit raises CpuIncompatible with the reason.

    Raises InternalError for a model or a feature that nobody knows.
    """
    reason = ""
    if wanted.arch is not None and not compatible_archs(wanted.arch, arch):
        reason = f"CPU arch {wanted.arch} does not match host arch"
    elif wanted.cpu.mode not in (None, CpuMode.CUSTOM) or (wanted.model is None and wanted.arch is None):
        return CPUCompareResult.SUPERSET
    elif wanted.cpu.vendor is not None and wanted.cpu.vendor != host.vendor:
        reason = f"host CPU vendor does not match required CPU vendor {wanted.cpu.vendor}"
    else:
        required = _required(wanted, definitions)
        taken = wanted.names(FeaturePolicy.FORCE, FeaturePolicy.DISABLE, FeaturePolicy.FORBID, FeaturePolicy.OPTIONAL)
        forbidden = wanted.names(FeaturePolicy.FORBID) & host.features
        extra = host.features - required - taken
        if forbidden:
            reason = f"Host CPU provides forbidden features: {_listed(forbidden)}"
        elif required - host.features:
            reason = f"Host CPU does not provide required features: {_listed(required - host.features)}"
        elif not extra:
            return CPUCompareResult.IDENTICAL
        elif wanted.cpu.match is not CpuMatch.STRICT:
            return CPUCompareResult.SUPERSET
        else:
            reason = f"Host CPU does not strictly match guest CPU: Extra features: {_listed(extra)}"
    if fail:
        raise CpuIncompatible(reason, domain=CPU)
    return CPUCompareResult.INCOMPATIBLE


def _required(wanted: ClientCpu, definitions: tuple[CpuDefinition, ...]) -> set[str]:
    """What the host must have itself. A feature that is forbidden stays one of the model's, as in libvirtd 9.0."""
    _check_features(wanted, FeaturePolicy.FORCE)
    model = _model(wanted, definitions)
    for policy in FeaturePolicy:
        _check_features(wanted, policy)
    loose = wanted.names(FeaturePolicy.FORCE, FeaturePolicy.OPTIONAL, FeaturePolicy.DISABLE)
    return (set(model.features) - loose) | wanted.names(FeaturePolicy.REQUIRE)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(in_order(names))


def _check_features(wanted: ClientCpu, *policies: FeaturePolicy) -> None:
    for feature in wanted.cpu.feature:
        if feature.name not in FEATURES and feature.policy in policies:
            raise InternalError(f"Unknown CPU feature {feature.name}", domain=CPU)


def _model(wanted: ClientCpu, definitions: tuple[CpuDefinition, ...]) -> X86Model:
    found = x86_models(definitions).get(wanted.model or "")
    if found is None:
        raise InternalError(f"Unknown CPU model {wanted.model}", domain=CPU)
    return found


# The CPU that several have in common


def baseline(
    given: Sequence[ClientCpu],
    definitions: tuple[CpuDefinition, ...],
    *,
    usable: Container[str] | None = None,
    blocked: Mapping[str, Set[str]] | None = None,
    migratable: bool = False,
    expand: bool = False,
) -> str:
    """The <cpu> of an x86 guest that runs on each of the given CPUs, as XML.

    usable: the models it may name, by default all. blocked: by model what a hypervisor cannot give of it. migratable:
    without what keeps a guest from moving. expand: every feature of the model is named. Raises OperationFailed for
    CPUs without anything in common, InternalError for a model or a feature that nobody knows.
    """
    models: list[X86Model] = []
    vendor = None
    for one in given:
        model = _model(one, definitions)
        _check_features(one, *(policy for policy in FeaturePolicy if policy is not FeaturePolicy.OPTIONAL))
        vendor = _joined_vendor(vendor, one, model if models else None)
        models.append(model)
    common = frozenset.intersection(*(_features(one, model) for one, model in zip(given, models, strict=True)))
    common -= NOT_CONFIGURABLE if usable is None else NOT_CONFIGURABLE | NEVER_GIVEN
    if not common:
        raise OperationFailed("CPUs are incompatible", domain=CPU)
    named = {model.name for model in models}
    found = cpu.best_match(
        definitions,
        common,
        CpuSignature(vendor_letters(vendor) or "", 0, 0),
        may_disable=True,
        given=named,
        usable=usable if usable is not None else X86_MODELS,
        blocked=blocked or {},
    )
    best = x86_models(definitions).get(found.model or "")
    if best is None:
        raise OperationFailed("CPUs are incompatible", domain=CPU)
    if migratable:  # what the model itself has stays
        found = found._replace(features=tuple(one for one in found.features if one.name not in UNMIGRATABLE))
    if expand:
        found = _expanded(found, best)
    everyone = all(one.cpu.vendor is not None for one in given)
    sure = usable is not None or {best.name} == named
    return print_guest(found._replace(vendor=vendor if everyone else None), "forbid" if sure else "allow")


def _features(one: ClientCpu, model: X86Model) -> frozenset[str]:
    return (model.features | one.names(*_GIVEN)) - one.names(FeaturePolicy.DISABLE, FeaturePolicy.FORBID)


def _joined_vendor(found: str | None, one: ClientCpu, model: X86Model | None) -> str | None:
    """The maker of all CPUs so far. `model`: of any but the first, which has a maker only if the client says so."""
    if model is None:
        return _known_vendor(one.cpu.vendor)
    if model.vendor is not None:
        _check_vendor(one, model.name, model.vendor)
    named = one.cpu.vendor or model.vendor
    if found is not None and named not in (None, found):
        raise OperationFailed("CPU vendors do not match", domain=CPU)
    return found or _known_vendor(named)


def _check_vendor(one: ClientCpu, model: str, vendor: str) -> None:
    if one.cpu.vendor not in (None, vendor):
        raise OperationFailed(f"CPU vendor {vendor} of model {model} differs from vendor {one.cpu.vendor}", domain=CPU)


def _known_vendor(name: str | None) -> str | None:
    if name is not None and vendor_letters(name) is None:
        raise OperationFailed(f"Unknown CPU vendor {name}", domain=CPU)
    return name


def _expanded(found: NamedCpu, model: X86Model) -> NamedCpu:
    """Every feature by name, in alphabetical order; those that are said to be off stay off."""
    states = dict.fromkeys(model.features, "require") | {one.name: one.policy for one in found.features}
    return found._replace(features=tuple(CpuFeaturePolicy(name, states[name]) for name in sorted(states)))


def print_guest(found: NamedCpu, fallback: str) -> str:
    """A guest's <cpu> as libvirt prints it."""
    lines = ["<cpu mode='custom' match='exact'>", f"  <model fallback='{fallback}'>{found.model}</model>"]
    if found.vendor is not None:
        lines.append(f"  <vendor>{found.vendor}</vendor>")
    lines += [f"  <feature policy='{one.policy}' name='{one.name}'/>" for one in found.features]
    return "\n".join([*lines, "</cpu>", ""])


def other_baseline(given: Sequence[ClientCpu], arch: str) -> str:
    """The same for architectures whose models are names only.

    Raises NoSupport for those without any, OperationFailed for POWER hosts of different models.
    """
    if arch in cpu.PPC:
        return _power_baseline(given)
    if arch.startswith("arm") or arch == "aarch64":
        return print_guest(NamedCpu(given[0].model, None, ()), "allow")
    raise no_baseline(arch)


def no_baseline(arch: str) -> VirtError:
    """The refusal for an architecture without comparable models."""
    if cpu.model_names(arch) is None:
        return NoSupport(f"'{arch}' architecture is not supported by CPU driver", domain=CPU)
    return NoSupport(f"cannot compute baseline CPU of {arch} architecture", domain=CPU)


def _power_baseline(given: Sequence[ClientCpu]) -> str:
    name = given[0].model
    if name not in cpu.PPC_MODELS:
        raise InternalError(f"Unknown CPU model {name}", domain=CPU)
    for one in given:
        if one.model != name:
            raise OperationFailed("CPUs are incompatible", domain=CPU)
        if one.cpu.vendor is not None and one.cpu.vendor not in ("IBM", "Freescale"):
            raise OperationFailed(f"Unknown CPU vendor {one.cpu.vendor}", domain=CPU)
        _check_vendor(one, name, cpu.power_vendor(name))
    return print_guest(NamedCpu(name, None, ()), "forbid")
