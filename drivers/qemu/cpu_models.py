"""x86 CPU models as libvirt's clients know them: what QEMU means by each name, and where libvirt 9.0 means otherwise.

What a model contains comes from QEMU itself (`CpuDefinition`). Written down here are only names, their order, and the
differences: features that one of the two counts to a model and the other does not.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from pyvirtd.drivers.qemu.capabilities.model import CpuDefinition
from pyvirtd.drivers.qemu.cpu_features import from_qemu, vendor_name

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
# Models that are nobody's: a host of any maker may be described by them, whatever QEMU lets them say to the guest.
GENERIC = frozenset(
    {"486", "pentium", "pentium2", "pentium3", "pentiumpro", "qemu32", "kvm32", "qemu64", "kvm64"}
    | {"cpu64-rhel5", "cpu64-rhel6"}
)

# Features that QEMU counts to these models and libvirt does not.
_LESS = {
    "apic": "pentium pentium2 pentium3",
    "acpi": "coreduo n270 core2duo",
    "ss": "coreduo n270 core2duo",
    "lahf_lm": "n270 core2duo qemu64 phenom",
    "movbe": "n270",
    "cx16": "core2duo phenom",
    "arat": "Westmere* SandyBridge* IvyBridge* Haswell* Broadwell*",
    "pclmuldq": "Westmere*",
    "xsaveopt": "SandyBridge* IvyBridge* Haswell* Broadwell*",
    "abm": "Haswell* Broadwell* phenom",
    "f16c": "Haswell* Broadwell*",
    "rdrand": "Haswell* Broadwell*",
    "clflushopt": "Skylake-Server",
    "pku": "Skylake-Server* Cascadelake-Server*",
    "arch-capabilities": "Cascadelake-Server-noTSX",
    "ibrs-all": "Cascadelake-Server-noTSX",
    "mds-no": "Cascadelake-Server-noTSX",
    "rdctl-no": "Cascadelake-Server-noTSX",
    "skip-l1dfl-vmentry": "Cascadelake-Server-noTSX",
    "monitor": "Snowridge EPYC-Rome EPYC-Milan",
    "mpx": "Snowridge",
    "mca": "athlon",
    "npt": "phenom Opteron_G4 Opteron_G5 EPYC EPYC-IBPB Dhyana",
    "nrip-save": "Opteron_G4 Opteron_G5 EPYC EPYC-IBPB Dhyana",
    "pdpe1gb": "phenom",
    "popcnt": "phenom",
    "rdtscp": "phenom",
    "sse4a": "phenom",
    "topoext": "EPYC* Dhyana",
    "xsaves": "EPYC-Rome",
}
# Features that libvirt counts to these models and QEMU 7.2 does not.
_MORE = {
    "mpx": "Skylake-* Cascadelake-* Icelake-*",
    "rdtscp": "Opteron_G2",
    # QEMU shows no model with it under TCG, so nothing is asked
    "vme": "486 pentium pentium2 pentium3 coreduo n270 core2duo IvyBridge* Skylake-* Cascadelake-* Icelake-* Cooperlake"
    " Snowridge athlon EPYC* Dhyana",
}
# Features that newer QEMUs took from these models: they are named in a description, whether they are there or not.
_GONE = {"monitor": "Opteron_G3 EPYC EPYC-IBPB Dhyana", "intel-pt": "Icelake-*"}
# Models that QEMU no longer has or never had, by another one and the differences from it.
_DERIVED: dict[str, tuple[str, str, str]] = {
    "pentiumpro": ("qemu32", "", "pni"),
    "cpu64-rhel5": ("kvm64", "", "cx16"),
    "cpu64-rhel6": ("kvm64", "lahf_lm", ""),
    "Icelake-Client": (
        "Icelake-Server",
        "",
        "avx512bw avx512cd avx512dq avx512f avx512vl clflushopt clwb la57 pdpe1gb",
    ),
    "Icelake-Client-noTSX": ("Icelake-Client", "", "hle rtm"),
}
# Names that a host or a host-model is not described by.
_NOT_FOR_HOSTS = frozenset({"cpu64-rhel5", "cpu64-rhel6"})
_NOT_FOR_GUESTS = "cpu64-rhel5 cpu64-rhel6 Cascadelake-*-noTSX Icelake-*-noTSX Skylake-*-noTSX-IBRS"
# Processors of each microarchitecture beside the one that QEMU tells (Intel SDM vol. 4, table 2-1).
_ALSO = {
    "Conroe": (22,),
    "Penryn": (29,),
    "Nehalem*": (30, 31, 46),
    "Westmere": (47, 37),
    "SandyBridge*": (45,),
    "IvyBridge*": (62,),
    "Haswell*": (63, 69, 70),
    "Broadwell*": (71, 79, 86),
    "Skylake-Client*": (78, 142, 158),
}
# Server processors with one model number are told apart by their steppings.
_STEPPINGS = {"Skylake-Server*": range(5), "Cascadelake-Server*": range(5, 8), "Cooperlake": range(10, 12)}


class CpuSignature(NamedTuple):
    """What a CPU says it is: CPUID leaf 1, and its maker's twelve letters."""

    vendor: str
    family: int
    model: int
    stepping: int | None = None


class X86Model(NamedTuple):
    """A named model. `vendor` is libvirt's word, None for a model that is nobody's."""

    name: str
    features: frozenset[str]
    gone: frozenset[str]
    vendor: str | None
    letters: str
    family: int
    models: tuple[int, ...]
    steppings: range | None
    for_hosts: bool
    for_guests: bool

    def is_of(self, signature: CpuSignature) -> bool:
        """Such a processor is what the model is named after."""
        if self.vendor is None or (self.letters, self.family) != (signature.vendor, signature.family):
            return False
        if self.steppings is not None and signature.stepping is not None and signature.stepping not in self.steppings:
            return False
        return signature.model in self.models


@lru_cache(maxsize=512)
def libvirt_features(qemu_names: frozenset[str]) -> frozenset[str]:
    """Features by libvirt's names; what libvirt has no name for is left out."""
    return frozenset(name for n in qemu_names if (name := from_qemu(n)))


@lru_cache(maxsize=8)
def x86_models(definitions: tuple[CpuDefinition, ...]) -> dict[str, X86Model]:
    """The models that clients may name, in libvirt's order, as far as this QEMU tells what they are."""
    by_name = {one.name: one for one in definitions}
    found: dict[str, X86Model] = {}
    for name in X86_MODELS:
        base, more, less = name, "", ""
        missing: list[tuple[str, str]] = []
        while base not in by_name and base in _DERIVED:
            base, more, less = _DERIVED[base]
            missing.append((more, less))
        if base not in by_name:
            continue
        model = _model(base, by_name[base])
        for more, less in reversed(missing):
            model = model._replace(features=(model.features | set(more.split())) - set(less.split()))
        found[name] = model._replace(
            name=name,
            vendor=None if name in GENERIC else vendor_name(model.letters),
            for_hosts=name not in _NOT_FOR_HOSTS,
            for_guests=not _fits(name, _NOT_FOR_GUESTS),
        )
    return found


def _model(name: str, definition: CpuDefinition) -> X86Model:
    gone = frozenset(_named(_GONE, name))
    features = libvirt_features(definition.features) - {"vme"} - gone - frozenset(_named(_LESS, name))
    return X86Model(
        name=name,
        features=features | frozenset(_named(_MORE, name)),
        gone=gone,
        vendor=None if name in GENERIC else vendor_name(definition.vendor),
        letters=definition.vendor,
        family=definition.family,
        models=(definition.model, *next((more for pattern, more in _ALSO.items() if fnmatchcase(name, pattern)), ())),
        steppings=next((steps for pattern, steps in _STEPPINGS.items() if fnmatchcase(name, pattern)), None),
        for_hosts=True,
        for_guests=True,
    )


def _named(table: dict[str, str], name: str) -> Iterable[str]:
    return (feature for feature, patterns in table.items() if _fits(name, patterns))


def _fits(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns.split())
