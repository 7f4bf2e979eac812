"""Names of features and models, and which model describes a CPU."""

import pytest

from pyvirtd.drivers.qemu import cpu, cpu_features
from pyvirtd.drivers.qemu.cpu import CpuSignature, best_match
from pyvirtd.errors import InvalidArg, NoSupport
from tests.drivers.qemu.capabilities_data import BASE, DEFINITIONS, HOST, TCG, make_capabilities

AMD = CpuSignature("AuthenticAMD", 23, 1)


@pytest.mark.parametrize(
    ("qemu", "libvirt"),
    [
        ("pclmulqdq", "pclmuldq"), ("cmp-legacy", "cmp_legacy"), ("fxsr-opt", "fxsr_opt"), ("sse4.1", "sse4.1"),
        ("avx512-4vnniw", "avx512-4vnniw"), ("kvm-asyncpf", None), ("model", None),
    ],
)  # fmt: skip
def test_qemus_names(qemu: str, libvirt: str | None) -> None:
    assert cpu_features.from_qemu(qemu) == libvirt
    if libvirt:
        assert cpu_features.to_qemu(libvirt) == qemu


@pytest.mark.parametrize(
    ("linux", "libvirt"),
    [
        ("sse4_1", "sse4.1"),
        ("tsc_deadline_timer", "tsc-deadline"),
        ("constant_tsc", None),
        ("nonstop_tsc", "invtsc"),
        ("fpu", "fpu"),
    ],
)
def test_linux_names(linux: str, libvirt: str | None) -> None:
    assert cpu_features.from_linux(linux) == libvirt


def test_order_is_that_of_the_registers() -> None:
    assert cpu_features.in_order(["lm", "aes", "unheard-of", "vme", "rdctl-no", "arat"]) == [
        "vme",
        "aes",
        "arat",
        "lm",
        "rdctl-no",
    ]


def test_places_of_well_known_features() -> None:
    places = cpu_features.FEATURES
    assert places["sse2"] == (1, 0, "edx", 26)
    assert places["avx512vl"] == (7, 0, "ebx", 31)
    assert places["lm"] == (0x80000001, 0, "edx", 29)
    assert len({tuple(place) for place in places.values()}) == len(places)


def test_cpuinfo_of_a_processor() -> None:
    text = (
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n"
        "stepping\t: 1\nmicrocode\t: 0x1000065\nflags\t\t: fpu sse4_1 made_up\n"
        "address sizes\t: 48 bits physical, 48 bits virtual\n"
        "\nprocessor\t: 1\nflags\t: nothing\n"
    )
    found = cpu_features.parse_cpuinfo(text)
    assert found == (frozenset({"fpu", "sse4.1"}), "AuthenticAMD", 25, 1, 1, 0x1000065, 48)


def test_cpuinfo_of_another_architecture_is_empty() -> None:
    assert cpu_features.parse_cpuinfo("processor\t: 0\nBogoMIPS\t: 50.0\n").features == frozenset()


def test_own_family_and_model_win() -> None:
    found = best_match(DEFINITIONS, BASE, AMD, may_disable=True)
    assert found.model == "EPYC"
    assert [f.name for f in found.features if f.policy == "disable"] == ["vme", "aes", "svm", "monitor"]


def test_host_is_never_described_by_taking_away() -> None:
    found = best_match(DEFINITIONS, BASE | {"aes"}, AMD, may_disable=False)
    assert found.model == "qemu64"
    assert [(f.name, f.policy) for f in found.features] == [("aes", "require")]


def test_model_of_another_maker_is_not_taken() -> None:
    assert best_match(DEFINITIONS, BASE | {"popcnt"}, AMD, may_disable=True).model == "EPYC"
    intel = CpuSignature("GenuineIntel", 6, 26)
    assert best_match(DEFINITIONS, BASE | {"popcnt"}, intel, may_disable=True).model == "Nehalem"


def test_cpu_without_any_model_is_its_features() -> None:
    found = best_match((), {"sse"}, AMD, may_disable=True)
    assert (found.model, found.vendor, [f.name for f in found.features]) == (None, "AMD", ["sse"])


def test_features_a_migration_cannot_carry_can_be_left_out() -> None:
    caps = make_capabilities()
    whole, portable = cpu.describe_guest(caps, "qemu"), cpu.describe_guest(caps, "qemu", migratable=True)
    assert whole is not None
    assert portable is not None
    assert {f.name for f in whole.features} - {f.name for f in portable.features} == HOST.unmigratable


def test_other_architectures_have_no_host_model() -> None:
    assert cpu.describe_guest(make_capabilities(arch="aarch64"), "qemu") is None


def test_usable_names_are_those_libvirt_knows() -> None:
    caps = make_capabilities()
    assert [m.name for m in cpu.usable_names(caps, "qemu", "x86_64")] == ["qemu64", "EPYC"]
    assert [m.name for m in cpu.usable_names(caps, "qemu", "aarch64")] == [m.name for m in TCG.cpu_models]
    assert cpu.usable_names(caps, "qemu", "riscv64") == []


def test_generic_models_have_no_maker() -> None:
    caps = make_capabilities()
    assert cpu.vendor_of(caps, "qemu64", "x86_64") is None
    assert cpu.vendor_of(caps, "EPYC", "x86_64") == "AMD"
    assert cpu.vendor_of(caps, "POWER9", "ppc64") == "IBM"


def test_model_names_for_clients() -> None:
    assert cpu.client_model_names("i686")[:2] == ["486", "pentium"]
    assert cpu.client_model_names("aarch64") == []
    with pytest.raises(InvalidArg, match="cannot find architecture arm"):
        cpu.client_model_names("arm")
    with pytest.raises(NoSupport, match="'mips' architecture is not supported by CPU driver"):
        cpu.client_model_names("mips")
