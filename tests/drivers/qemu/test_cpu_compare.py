"""Comparing CPUs with a host and joining those of several hosts."""

import asyncio
from typing import Any, cast

import pytest

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.constants.host import CPUCompareResult
from pyvirtd.drivers.qemu.capabilities import CpuDefinition
from pyvirtd.drivers.qemu.capabilities.domain import Choice
from pyvirtd.drivers.qemu.cpu_calls import CpuCalls
from pyvirtd.drivers.qemu.cpu_compare import HostCpu, baseline, compare, other_baseline, read
from pyvirtd.drivers.qemu.cpu_models import x86_models
from pyvirtd.errors import (
    ConfigUnsupported,
    CpuIncompatible,
    InternalError,
    NoSupport,
    OperationFailed,
    OperationUnsupported,
    VirtError,
    XmlDetail,
    XmlError,
)
from pyvirtd.model.capabilities import VirtType
from tests.drivers.qemu.capabilities_data import MACHINES, make_capabilities
from tests.support.host import SessionHost

BASE = frozenset({"fpu", "sse", "sse2", "lm", "nx", "syscall"})
DEFINITIONS = (
    CpuDefinition("kvm64", BASE | {"vme"}, "GenuineIntel", 15, 6, 1),
    CpuDefinition("Nehalem", BASE | {"popcnt", "sse4.2", "vme"}, "GenuineIntel", 6, 26, 3),
    CpuDefinition("EPYC", BASE | {"aes", "popcnt", "svm", "monitor", "topoext"}, "AuthenticAMD", 23, 1, 2),
)
HOST = HostCpu(BASE | {"aes", "popcnt"}, "AMD")


def ask(xml: str, *, fail: bool = True, host: HostCpu = HOST) -> CPUCompareResult:
    return compare(read(xml), host, "x86_64", DEFINITIONS, fail=fail)


def guest(model: str, inside: str = "", match: str = "exact") -> str:
    return f"<cpu match='{match}'><model>{model}</model>{inside}</cpu>"


def host_cpu(model: str, inside: str = "", arch: str = "x86_64") -> str:
    return f"<cpu><arch>{arch}</arch><model>{model}</model>{inside}</cpu>"


def join(*texts: str, expand: bool = False, migratable: bool = False) -> str:
    given = [read(text, host=True) for text in texts]
    return baseline(given, DEFINITIONS, expand=expand, migratable=migratable)


@pytest.mark.parametrize(
    ("xml", "result"),
    [
        (guest("kvm64"), CPUCompareResult.SUPERSET),
        (guest("kvm64", match="minimum"), CPUCompareResult.SUPERSET),
        (guest("kvm64", "<feature name='aes'/><feature name='popcnt'/>"), CPUCompareResult.IDENTICAL),
        (host_cpu("kvm64", "<feature name='aes'/><feature name='popcnt'/>"), CPUCompareResult.IDENTICAL),
        (guest("kvm64", "<feature policy='optional' name='svm'/>"), CPUCompareResult.SUPERSET),
        (guest("kvm64", "<feature policy='force' name='svm'/>"), CPUCompareResult.SUPERSET),
        (guest("Nehalem"), CPUCompareResult.INCOMPATIBLE),
        (guest("Nehalem", "<feature policy='disable' name='sse4.2'/>"), CPUCompareResult.SUPERSET),
        (guest("Nehalem", "<feature policy='forbid' name='sse4.2'/>"), CPUCompareResult.INCOMPATIBLE),
        (guest("kvm64", "<vendor>AMD</vendor>"), CPUCompareResult.SUPERSET),
        ("<cpu mode='host-model'/>", CPUCompareResult.SUPERSET),
        ("<cpu/>", CPUCompareResult.SUPERSET),
    ],
)
def test_a_host_and_a_cpu(xml: str, result: CPUCompareResult) -> None:
    assert ask(xml, fail=False) is result


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (guest("EPYC"), "Host CPU does not provide required features: vme, svm"),
        (guest("kvm64", "<feature policy='require' name='svm'/>"), "does not provide required features: svm"),
        (guest("kvm64", "<feature policy='forbid' name='aes'/>"), "Host CPU provides forbidden features: aes"),
        (guest("kvm64", match="strict"), "does not strictly match guest CPU: Extra features: popcnt, aes"),
        (guest("kvm64", "<vendor>Intel</vendor>"), "host CPU vendor does not match required CPU vendor Intel"),
        (host_cpu("POWER9", arch="ppc64"), "CPU arch ppc64 does not match host arch"),
    ],
)
def test_why_a_cpu_does_not_fit(xml: str, reason: str) -> None:
    assert ask(xml, fail=False) is CPUCompareResult.INCOMPATIBLE
    with pytest.raises(CpuIncompatible, match=reason) as caught:
        ask(xml)
    assert caught.value.domain == ErrorDomain.CPU


@pytest.mark.parametrize(
    ("xml", "kind", "message"),
    [
        (guest("unheard-of"), InternalError, "Unknown CPU model unheard-of"),
        (guest("kvm64", "<feature name='unheard-of'/>"), InternalError, "Unknown CPU feature unheard-of"),
        (guest("unheard-of", "<feature name='unheard-of'/>"), InternalError, "Unknown CPU model"),
        (guest("unheard-of", "<feature policy='force' name='unheard-of'/>"), InternalError, "Unknown CPU feature"),
        (
            guest("kvm64", "<feature policy='forbid' name='first'/><feature name='second'/>"),
            InternalError,
            "Unknown CPU feature second",
        ),
        ("<domain/>", XmlError, "XML does not contain expected 'cpu' element"),
        ("junk", XmlDetail, "CPU_definition"),
        ("<cpu><arch>x86_64</arch></cpu>", XmlError, "Missing CPU model name"),
        ("<cpu><arch>unheard-of</arch><model>x</model></cpu>", ConfigUnsupported, "Unknown architecture"),
        ("<cpu mode='host-model'><arch>x86_64</arch></cpu>", ConfigUnsupported, "only allowed for guest CPU"),
    ],
)
def test_what_is_no_cpu(xml: str, kind: type[VirtError], message: str) -> None:
    with pytest.raises(kind, match=message):
        ask(xml)


def test_a_host_must_name_its_architecture() -> None:
    with pytest.raises(XmlError, match="Missing CPU architecture"):
        read("<cpu><model>kvm64</model></cpu>", host=True)


def test_one_cpu_is_its_own_baseline() -> None:
    assert join(host_cpu("Nehalem", "<vendor>Intel</vendor>")) == (
        "<cpu mode='custom' match='exact'>\n  <model fallback='forbid'>Nehalem</model>\n"
        "  <vendor>Intel</vendor>\n</cpu>\n"
    )


def test_two_cpus_share_what_both_have() -> None:
    assert join(host_cpu("Nehalem", "<feature name='aes'/>"), host_cpu("EPYC")) == (
        "<cpu mode='custom' match='exact'>\n  <model fallback='allow'>kvm64</model>\n"
        "  <feature policy='require' name='popcnt'/>\n  <feature policy='require' name='aes'/>\n</cpu>\n"
    )


def test_each_cpu_is_checked_before_the_next_its_model_first() -> None:
    strange = "<feature name='unheard-of'/>"
    with pytest.raises(InternalError, match="Unknown CPU model"):
        join(host_cpu("unheard-of", strange))
    with pytest.raises(InternalError, match="Unknown CPU feature"):
        join(host_cpu("kvm64", strange), host_cpu("unheard-of"))
    with pytest.raises(OperationFailed, match="Unknown CPU vendor"):
        join(host_cpu("kvm64", "<vendor>Acme</vendor>"), host_cpu("unheard-of"))


def test_a_baseline_has_no_features_that_nobody_can_set() -> None:
    given = host_cpu("kvm64", "<feature name='cmt'/><feature name='osxsave'/><feature name='cvt16'/>")
    assert [line.split("'")[3] for line in join(given).splitlines() if "feature" in line] == ["cvt16"]
    for_hypervisor = baseline([read(given, host=True)], DEFINITIONS, usable={"kvm64"})
    assert "feature" not in for_hypervisor


def test_what_newer_qemus_left_out_is_always_said() -> None:
    assert "<feature policy='disable' name='monitor'/>" in join(host_cpu("EPYC"))


def test_expanding_names_every_feature() -> None:
    found = join(host_cpu("kvm64"), expand=True)
    assert [line.split("'")[3] for line in found.splitlines() if "feature" in line] == sorted(BASE)


def test_a_baseline_that_may_move_lacks_what_keeps_it() -> None:
    given = host_cpu("kvm64", "<feature name='invtsc'/>")
    assert "invtsc" in join(given)
    assert "invtsc" not in join(given, migratable=True)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((host_cpu("kvm64"), host_cpu("EPYC", "<vendor>Intel</vendor>")), "CPU vendor AMD of model EPYC differs from"),
        ((host_cpu("kvm64", "<vendor>Intel</vendor>"), host_cpu("EPYC")), "CPU vendors do not match"),
        ((host_cpu("kvm64", "<vendor>Acme</vendor>"),), "Unknown CPU vendor Acme"),
        ((host_cpu("kvm64"), host_cpu("kvm64", "<vendor>Acme</vendor>")), "Unknown CPU vendor Acme"),
        ((host_cpu("kvm64"), host_cpu("EPYC"), host_cpu("kvm64", "<vendor>Acme</vendor>")), "CPU vendors do not match"),
    ],
)
def test_makers_must_agree(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(OperationFailed, match=message):
        join(*texts)


def test_other_architectures() -> None:
    power = [read(host_cpu(name, arch="ppc64"), host=True) for name in ("POWER9", "POWER8")]
    assert "<model fallback='forbid'>POWER9</model>" in other_baseline(power[:1], "ppc64")
    with pytest.raises(OperationFailed, match="CPUs are incompatible"):
        other_baseline(power, "ppc64")
    with pytest.raises(OperationFailed, match="CPUs are incompatible"):
        other_baseline([power[0], read(host_cpu("unheard-of", "<vendor>Acme</vendor>", "ppc64"), host=True)], "ppc64")
    with pytest.raises(OperationFailed, match="CPU vendor IBM of model POWER9 differs from vendor Freescale"):
        other_baseline([read(host_cpu("POWER9", "<vendor>Freescale</vendor>", "ppc64"), host=True)], "ppc64")
    with pytest.raises(InternalError, match="Unknown CPU model cortex-a57"):
        other_baseline([read(host_cpu("cortex-a57", arch="ppc64"), host=True)], "ppc64")
    arm = [read(host_cpu("cortex-a57", arch="aarch64"), host=True)]
    assert "<model fallback='allow'>cortex-a57</model>" in other_baseline(arm, "aarch64")
    with pytest.raises(NoSupport, match="cannot compute baseline CPU of s390x architecture"):
        other_baseline(arm, "s390x")
    with pytest.raises(NoSupport, match="'riscv64' architecture is not supported by CPU driver"):
        other_baseline(arm, "riscv64")


def test_a_hypervisor_of_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = CpuCalls(cast("Any", None))

    async def choose(*_: object) -> Choice:
        return Choice(make_capabilities(arch="ppc"), "ppc", MACHINES[0], VirtType.QEMU)

    monkeypatch.setattr(calls, "_choose", choose)
    with pytest.raises(OperationUnsupported, match="baseline hypervisor CPU is not supported for arch ppc"):
        asyncio.run(calls.connect_baseline_hypervisor_cpu(None, "ppc", None, "qemu", [guest("kvm64")], 0))


def test_models_that_qemu_lacks_are_known_by_their_differences() -> None:
    models = x86_models(DEFINITIONS)
    assert models["cpu64-rhel6"].features == models["kvm64"].features | {"lahf_lm"}
    assert "topoext" not in models["EPYC"].features
    assert "vme" in models["EPYC"].features
    assert "vme" not in models["kvm64"].features
    assert not models["cpu64-rhel6"].for_guests


@pytest.mark.guest
def test_virsh_asks_the_hypervisor(session: SessionHost) -> None:
    wanted, host = session.write("/cpu.xml", guest("kvm64")), session.write("/host.xml", host_cpu("kvm64"))
    assert "superset" in session.ok(f"hypervisor-cpu-compare {wanted} --virttype qemu")
    assert ">kvm64</model>" in session.ok(f"hypervisor-cpu-baseline {wanted} --virttype qemu")
    assert ">kvm64</model>" in session.ok(f"cpu-baseline {host}")
    assert session.ok("cpu-models x86_64").split()[:2] == ["486", "pentium"]
    session.write("/cpu.xml", guest("kvm64", "<bogus/>"))
    assert "failed to validate against schema" in session.virsh(f"cpu-compare {wanted} --validate").stderr
