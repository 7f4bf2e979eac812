"""Names of features and models, and which model describes a CPU."""

import pytest

from pyvirtd.drivers.qemu import cpu, cpu_features
from pyvirtd.drivers.qemu.capabilities import CpuDefinition
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


ANYBODY = CpuSignature("", 0, 0)
# Features that libvirt and QEMU count alike, for models made up of any of them.
PLAIN = [name for name in cpu_features.FEATURES if name not in ("vme", "lahf_lm", *cpu_features.NOT_CONFIGURABLE)]
CPU = frozenset(PLAIN[:60])


def model_with(name: str, required: int, disabled: int) -> CpuDefinition:
    """A model that lacks so many features of `CPU`, and has so many that `CPU` lacks."""
    return CpuDefinition(name, frozenset([*PLAIN[required:60], *PLAIN[60 : 60 + disabled]]), "GenuineIntel", 6, 1, 1)


# What libvirtd 9.0 took of an earlier and a later model, each with the features to require and to disable.
CHOICES = [
    ((2, 0), (0, 1), "earlier"), ((3, 0), (0, 1), "later"), ((28, 0), (26, 1), "earlier"), ((0, 1), (2, 0), "later"),
    ((3, 0), (0, 2), "earlier"), ((4, 0), (0, 2), "later"), ((15, 0), (9, 3), "earlier"), ((48, 0), (31, 7), "earlier"),
    ((1, 1), (0, 2), "later"), ((10, 1), (9, 2), "later"), ((11, 1), (9, 2), "later"), ((10, 1), (10, 2), "earlier"),
    ((3, 2), (4, 1), "later"), ((3, 2), (5, 1), "earlier"), ((9, 1), (5, 3), "earlier"), ((29, 3), (33, 1), "later"),
    ((3, 2), (0, 3), "earlier"), ((4, 2), (0, 3), "later"), ((38, 2), (34, 4), "earlier"), ((0, 4), (4, 2), "later"),
    ((29, 3), (28, 4), "later"), ((4, 4), (0, 5), "earlier"), ((5, 4), (0, 5), "later"), ((40, 6), (45, 4), "later"),
    ((5, 6), (0, 7), "earlier"), ((6, 6), (0, 7), "later"), ((18, 7), (17, 8), "later"), ((24, 3), (5, 10), "earlier"),
    ((17, 9), (16, 10), "later"), ((21, 6), (1, 11), "earlier"), ((31, 4), (31, 4), "later"),
]  # fmt: skip


@pytest.mark.parametrize(("earlier", "later", "taken"), CHOICES)
def test_model_nearest_to_a_cpu(earlier: tuple[int, int], later: tuple[int, int], taken: str) -> None:
    definitions = (model_with("qemu64", *earlier), model_with("kvm64", *later))
    found = best_match(definitions, CPU, ANYBODY, may_disable=True)
    assert found.model == {"earlier": "qemu64", "later": "kvm64"}[taken]


# The differences of qemu32, kvm32 and Nehalem from a CPU of which the clients named two models.
@pytest.mark.parametrize(
    ("differences", "given", "taken"),
    [
        (((50, 0), (40, 0), (3, 0)), {"qemu32", "kvm32"}, "Nehalem"),  # nothing to lose: the nearest of all
        (((50, 0), (40, 0), (3, 1)), {"qemu32", "kvm64"}, "qemu32"),
        (((50, 0), (40, 0), (3, 1)), {"qemu32", "kvm32"}, "kvm32"),  # not a newer one than is needed
        (((40, 0), (50, 0), (3, 1)), {"kvm32", "kvm64"}, "qemu32"),  # nor one that is not the nearest
        (((50, 0), (40, 1), (3, 2)), {"kvm32", "kvm64"}, "Nehalem"),  # one feature less is not less
        (((50, 0), (40, 1), (3, 3)), {"kvm32", "kvm64"}, "kvm32"),
        (((50, 0), (40, 1), (3, 3)), {"qemu32", "kvm32"}, "qemu32"),
    ],
)
def test_models_that_clients_named_keep_newer_ones_away(
    differences: tuple[tuple[int, int], ...], given: set[str], taken: str
) -> None:
    names = ("qemu32", "kvm32", "Nehalem")
    definitions = tuple(model_with(name, *both) for name, both in zip(names, differences, strict=True))
    assert best_match(definitions, CPU, ANYBODY, may_disable=True, given=given).model == taken


def test_the_one_model_that_clients_named_is_taken() -> None:
    definitions = (model_with("qemu64", 40, 9), model_with("kvm64", 0, 0))
    assert best_match(definitions, CPU, ANYBODY, may_disable=True, given={"qemu64"}).model == "qemu64"


def test_blocked_features_are_disabled_unless_only_the_cpu_has_them() -> None:
    definitions = (CpuDefinition("kvm64", BASE, "GenuineIntel", 15, 6, 1),)
    blocked = {"kvm64": {"nx", "svm", "topoext"}}
    found = best_match(definitions, BASE | {"topoext"}, ANYBODY, may_disable=True, blocked=blocked)
    assert [(f.name, f.policy) for f in found.features if f.name != "vme"] == [
        ("topoext", "require"),
        ("nx", "disable"),
        ("svm", "disable"),
    ]


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
