"""The CPU of a guest about to run and running: what its definition comes to on this host, and what QEMU made of it.

x86 only: for other architectures QEMU does not tell what a model contains.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu import cpu
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.cpu_compare import ClientCpu, compare
from pyvirtd.drivers.qemu.cpu_compare import HostCpu as Compared
from pyvirtd.drivers.qemu.cpu_features import FEATURES, NOT_CONFIGURABLE, from_qemu, in_order, to_qemu, vendor_name
from pyvirtd.drivers.qemu.cpu_models import libvirt_features, x86_models
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.model.cpu import (
    Cpu,
    CpuCheck,
    CpuFallback,
    CpuFeature,
    CpuMatch,
    CpuMode,
    CpuModel,
    FeaturePolicy,
)
from pyvirtd.model.domain import DomainDef, DomainType

log = logging.getLogger(__name__)

FIRST_CPU = "/machine/unattached/device[0]"  # where QEMU 7.2 puts it before anything else
_GIVEN = (FeaturePolicy.REQUIRE, FeaturePolicy.FORCE)


def expand(found: Cpu, caps: QemuCapabilities, virt_type: str) -> None:
    """Say by model and features what a definition leaves to the host. Does nothing where that is not known."""
    side = caps.accelerator(virt_type)
    if caps.arch not in cpu.X86 or side is None or side.host_cpu is None:
        return
    at_least = found.mode is CpuMode.CUSTOM and found.match is CpuMatch.MINIMUM
    if found.mode is CpuMode.HOST_MODEL or at_least:
        _take_host_model(found, caps, virt_type, keep_vendor=not at_least)
    if found.mode is not CpuMode.CUSTOM or found.model is None:
        return
    for feature in found.feature:
        if feature.policy is FeaturePolicy.OPTIONAL:
            given = to_qemu(feature.name) in side.host_cpu.features
            feature.policy = FeaturePolicy.REQUIRE if given else FeaturePolicy.DISABLE
    model = x86_models(caps.cpu_definitions).get(found.model.name or "")
    named = {feature.name for feature in found.feature}
    if model is not None:
        found.feature += [CpuFeature(name=name, policy=FeaturePolicy.DISABLE) for name in in_order(model.gone - named)]


def _take_host_model(found: Cpu, caps: QemuCapabilities, virt_type: str, *, keep_vendor: bool) -> None:
    described = cpu.describe_guest(caps, virt_type, migratable=True)
    if described is None or described.model is None:
        return
    found.mode, found.match = CpuMode.CUSTOM, CpuMatch.EXACT
    found.model = CpuModel(fallback=CpuFallback.ALLOW, name=described.model)
    if keep_vendor:
        found.vendor = described.vendor
    own = {feature.name: feature for feature in found.feature}
    known = [one for one in described.features if one.name not in own]
    found.feature = [CpuFeature(name=one.name, policy=FeaturePolicy(one.policy)) for one in known] + found.feature


def settle(live: DomainDef, caps: QemuCapabilities) -> None:
    """Before QEMU starts: check what is to be checked against the host, and leave nothing open.

    Raises CpuIncompatible.
    """
    wanted = live.cpu
    if wanted is None or (wanted.mode in (None, CpuMode.CUSTOM) and wanted.model is None):
        return
    if wanted.check is CpuCheck.PARTIAL:
        _check_host(wanted, live, caps)
    if caps.arch in cpu.X86:
        wanted.feature = [feature for feature in wanted.feature if feature.name not in NOT_CONFIGURABLE]
    expand(wanted, caps, live.type)
    if wanted.model is not None:
        wanted.model.fallback = CpuFallback.FORBID


def _check_host(wanted: Cpu, live: DomainDef, caps: QemuCapabilities) -> None:
    side = caps.accelerator(live.type)
    if caps.arch not in cpu.X86 or side is None or side.host_cpu is None:
        return
    if live.type is not DomainType.QEMU:  # libvirtd starts them where QEMU has less than the model, and so do we
        return
    host = Compared(libvirt_features(side.host_cpu.features), vendor_name(side.host_cpu.vendor or ""))
    compare(ClientCpu(None, wanted), host, caps.arch, caps.cpu_definitions, fail=True)


async def note(dom: QemuDomain) -> None:
    """After QEMU started, its vcpus stopped: put into the live definition what the guest really gets.

    Raises OperationFailed where the definition asks for exactly that and QEMU gives something else.
    """
    guest, live = dom.running, dom.live_def
    wanted = live.cpu
    if wanted is None or wanted.mode is not CpuMode.CUSTOM or wanted.model is None or guest.caps.arch not in cpu.X86:
        return
    model = x86_models(guest.caps.cpu_definitions).get(wanted.model.name or "")
    if model is None:
        return
    try:
        words, missing = await asyncio.gather(
            *(
                guest.monitor.execute("qom-get", {"path": FIRST_CPU, "property": name})
                for name in ("feature-words", "unavailable-features")
            )
        )
    except VirtError as exc:
        log.warning("domain %s: QEMU does not tell what its CPU is: %s", dom.name, exc)
        return
    own = {feature.name: feature for feature in wanted.feature}
    expected = set(model.features) | {name for name, feature in own.items() if feature.policy in _GIVEN}
    off = {name for name, feature in own.items() if feature.policy not in _GIVEN}
    expected -= off
    refused = {name for one in missing if (name := from_qemu(one))}
    given = _enabled(words) | (_in_msrs(expected) - refused)
    if wanted.check is CpuCheck.FULL:
        check_full(expected, given)
        return
    before = wanted.copy()
    if _update(wanted, expected ^ given | refused - given - off, given):
        guest.own_cpu = before
    wanted.check = CpuCheck.FULL


def _update(wanted: Cpu, changed: set[str], given: set[str]) -> bool:
    """Name every difference; whether there was one."""
    own = {feature.name: feature for feature in wanted.feature}
    for name in in_order(changed):
        policy = FeaturePolicy.REQUIRE if name in given else FeaturePolicy.DISABLE
        if name in own:
            own[name].policy = policy
        else:
            wanted.feature.append(CpuFeature(name=name, policy=policy))
    return bool(changed)


def check_full(expected: set[str], given: set[str]) -> None:
    """Raises OperationFailed that names what there is too much, and too little."""
    parts = [
        f"{word} features: {','.join(in_order(names))}"
        for word, names in (("extra", given - expected), ("missing", expected - given))
        if names
    ]
    if parts:
        raise OperationFailed(f"guest CPU doesn't match specification: {', '.join(parts)}", domain=ErrorDomain.CPU)


def _enabled(words: Iterable[dict[str, Any]]) -> set[str]:
    """Features that CPUID shows, from the words of QEMU's property feature-words."""
    registers: dict[tuple[int, int, str], int] = {
        (word["cpuid-input-eax"], word.get("cpuid-input-ecx", 0), str(word["cpuid-register"]).lower()): word["features"]
        for word in words
    }
    return {
        name
        for name, place in FEATURES.items()
        if registers.get((place.leaf, place.subleaf, place.register), 0) >> place.bit & 1
    }


def _in_msrs(names: set[str]) -> set[str]:
    return {name for name in names if FEATURES[name].register == "msr"}
