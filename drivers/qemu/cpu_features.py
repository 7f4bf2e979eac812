"""x86 CPU features: libvirt's names, where CPUID or an MSR shows them, and what QEMU and Linux call them.

The order of `FEATURES` is the order libvirt lists features in. Bits are those of the Intel SDM (vol. 2A, CPUID) and
AMD's manual (vol. 3, appendix E).
"""

import os
import re
import struct
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple


class Place(NamedTuple):
    """Where a feature's bit is: a CPUID leaf and register, or an MSR (register "msr", `leaf` its number)."""

    leaf: int
    subleaf: int
    register: str
    bit: int


def _bits(leaf: int, subleaf: int, register: str, words: str) -> dict[str, Place]:
    """Names in the order of their bits; ".N" jumps to bit N."""
    found: dict[str, Place] = {}
    bit = 0
    for word in words.split():
        if word[0] == "." and word[1:].isdigit():
            bit = int(word[1:])
        else:
            found[word] = Place(leaf, subleaf, register, bit)
            bit += 1
    return found


FEATURES: dict[str, Place] = {
    **_bits(0x1, 0, "edx", """fpu vme de pse tsc msr pae mce cx8 apic .11 sep mtrr pge mca cmov pat pse36 pn clflush
        .21 ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"""),
    **_bits(0x1, 0, "ecx", """pni pclmuldq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid .12 fma cx16 xtpr pdcm
        .17 pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor"""),
    **_bits(0x6, 0, "eax", ".2 arat"),
    **_bits(0x7, 0, "ebx", """fsgsbase tsc_adjust sgx bmi1 hle avx2 .7 smep bmi2 erms invpcid rtm cmt .14 mpx .16
        avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni
        avx512bw avx512vl"""),
    **_bits(0x7, 0, "ecx", """.1 avx512vbmi umip pku ospke waitpkg avx512vbmi2 .8 gfni vaes vpclmulqdq
        avx512vnni avx512bitalg .14 avx512-vpopcntdq .16 la57 .22 rdpid .24 bus-lock-detect cldemote .27 movdiri
        movdir64b .30 sgxlc pks"""),
    **_bits(0x7, 0, "edx", """.2 avx512-4vnniw avx512-4fmaps fsrm .8 avx512-vp2intersect .10 md-clear .14 serialize
        .16 tsx-ldtrk .18 pconfig arch-lbr .22 amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp .29
        arch-capabilities core-capability ssbd"""),
    **_bits(0x7, 1, "eax", ".4 avx-vnni avx512-bf16"),
    **_bits(0xD, 1, "eax", "xsaveopt xsavec xgetbv1 xsaves .4 xfd"),
    **_bits(0xF, 1, "edx", ".1 mbm_total mbm_local"),
    **_bits(0x12, 0, "eax", "sgx1 sgx2"),
    **_bits(0x12, 0, "ebx", "sgx-exinfo"),
    **_bits(0x12, 1, "eax", ".1 sgx-debug sgx-mode64 .4 sgx-provisionkey sgx-tokenkey .7 sgx-kss"),
    **_bits(0x14, 0, "ecx", ".31 intel-pt-lip"),
    **_bits(0x80000001, 0, "edx", ".11 syscall .20 nx .22 mmxext .25 fxsr_opt pdpe1gb rdtscp .29 lm 3dnowext 3dnow"),
    **_bits(0x80000001, 0, "ecx", """lahf_lm cmp_legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw
        ibs xop skinit wdt .15 lwp fma4 tce cvt16 nodeid_msr .21 tbm topoext perfctr_core perfctr_nb"""),
    **_bits(0x80000007, 0, "edx", ".8 invtsc"),
    **_bits(0x80000008, 0, "ebx", """clzero .2 xsaveerptr .9 wbnoinvd .12 ibpb .14 ibrs amd-stibp .24 amd-ssbd virt-ssbd
        amd-no-ssb"""),
    **_bits(0x8000000A, 0, "edx", """npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists .10
        pause-filter .12 pfthreshold avic .15 v-vmsave-vmload vgif .28 svme-addr-chk"""),
    **_bits(0x10A, 0, "msr", """rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl
        taa-no"""),
    **_bits(0xCF, 0, "msr", ".5 split-lock-detect"),
}  # fmt: skip

_ORDER = {name: number for number, name in enumerate(FEATURES)}

# What a guest sees of these follows from others, or from the host's kernel; QEMU has no such names.
NOT_CONFIGURABLE = frozenset({"osxsave", "ospke", "cmt", "mbm_total", "mbm_local"})
# QEMU has no such names either, so it never gives them and nothing has to be said to turn them off.
NEVER_GIVEN = frozenset({"pconfig", "cvt16"})
# Where the spelling differs by more than "-", "_" and ".".
_QEMU_ALIASES = {"pclmulqdq": "pclmuldq", "i64": "lm", "xd": "nx", "ffxsr": "fxsr_opt"}
_TO_QEMU = {"pclmuldq": "pclmulqdq"}
_LINUX_ALIASES = {
    "pclmulqdq": "pclmuldq", "tsc_deadline_timer": "tsc-deadline", "cqm": "cmt", "cqm_mbm_total": "mbm_total",
    "cqm_mbm_local": "mbm_local", "avx512_4vnniw": "avx512-4vnniw", "avx512_4fmaps": "avx512-4fmaps",
    "avx512_bf16": "avx512-bf16", "avx512_bitalg": "avx512bitalg", "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni", "flush_l1d": "", "intel_pt": "intel-pt", "md_clear": "md-clear",
    "nrip_save": "nrip-save", "pausefilter": "pause-filter", "sgx_lc": "sgxlc", "svm_lock": "svm-lock",
    "tsc_scale": "tsc-scale", "vmcb_clean": "vmcb-clean", "v_vmsave_vmload": "v-vmsave-vmload", "constant_tsc": "",
    "nonstop_tsc": "invtsc", "ibs": "ibs", "cr8_legacy": "cr8legacy",
}  # fmt: skip
_MAKERS = {"AMD": "AuthenticAMD", "Intel": "GenuineIntel", "Hygon": "HygonGenuine"}


def in_order(names: Iterable[str]) -> list[str]:
    """Known features in libvirt's order."""
    return sorted((n for n in names if n in _ORDER), key=_ORDER.__getitem__)


@cache
def from_qemu(name: str) -> str | None:
    """libvirt's name of a QEMU property; None for what libvirt does not treat as a feature ("kvm-asyncpf")."""
    name = _QEMU_ALIASES.get(name, name)
    return _spelled(name)


def to_qemu(name: str) -> str:
    """The property of QEMU's CPU for a feature; a name that libvirt does not know stays."""
    return _TO_QEMU.get(name) or name.replace("_", "-")


@cache
def from_linux(flag: str) -> str | None:
    """libvirt's name of a flag in /proc/cpuinfo."""
    return _spelled(_LINUX_ALIASES.get(flag, flag))


def _spelled(name: str) -> str | None:
    for form in (name, name.replace("-", "_"), name.replace("_", "-"), name.replace("_", ".")):
        if form in FEATURES:
            return form
    return None


class HostCpuid(NamedTuple):
    """What the first CPU of the host is."""

    features: frozenset[str]
    vendor: str  # the twelve letters of leaf 0
    family: int
    model: int
    stepping: int
    microcode: int | None
    physical_bits: int | None


def read_host(cpuid_device: str = "/dev/cpu/0/cpuid", cpuinfo: str = "/proc/cpuinfo") -> HostCpuid:
    """Features by CPUID itself where the kernel offers it (root, x86), else by /proc/cpuinfo. Blocks for a moment."""
    with open(cpuinfo, encoding="ascii", errors="replace") as file:
        found = parse_cpuinfo(file.read(65536))
    try:
        device = os.open(cpuid_device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return found
    try:
        return found._replace(features=frozenset(read_cpuid(device)))
    except OSError:
        return found
    finally:
        os.close(device)


def read_cpuid(device: int) -> list[str]:
    """Features of the CPU behind an open /dev/cpu/N/cpuid: 16 bytes (eax to edx) at leaf + subleaf << 32."""
    registers: dict[tuple[int, int], dict[str, int]] = {}

    def leaf(number: int, subleaf: int = 0) -> dict[str, int]:
        key = (number, subleaf)
        if key not in registers:
            words = struct.unpack("<4I", os.pread(device, 16, number | subleaf << 32))
            registers[key] = dict(zip(("eax", "ebx", "ecx", "edx"), words, strict=True))
        return registers[key]

    highest = {0: leaf(0)["eax"], 0x80000000: leaf(0x80000000)["eax"]}
    found = []
    for name, place in FEATURES.items():
        if place.register == "msr" or place.leaf > highest[place.leaf & 0x80000000]:
            continue  # a leaf that the CPU lacks answers with another one's bits
        if leaf(place.leaf, place.subleaf)[place.register] >> place.bit & 1:
            found.append(name)
    return found


def parse_cpuinfo(text: str) -> HostCpuid:
    """The first processor of /proc/cpuinfo; zeros and an empty vendor on machines other than x86."""
    first = text.split("\n\n", 1)[0]
    fields = dict(re.findall(r"^([^:\t]+?)\s*:[ \t]*(.*)$", first, re.MULTILINE))
    flags = fields.get("flags", "").split()
    microcode = fields.get("microcode")
    bits = re.match(r"(\d+) bits physical", fields.get("address sizes", ""))
    features = {name for flag in flags if (name := from_linux(flag))}
    if "xsave" in features:  # Linux turns it on and does not tell
        features.add("osxsave")
    return HostCpuid(
        features=frozenset(features),
        vendor=fields.get("vendor_id", ""),
        family=int(fields.get("cpu family", 0)),
        model=int(fields.get("model", 0)),
        stepping=int(fields.get("stepping", 0)),
        microcode=int(microcode, 0) if microcode else None,
        physical_bits=int(bits[1]) if bits else None,
    )


def vendor_name(letters: str) -> str | None:
    """libvirt's word for the twelve letters of CPUID ("AMD")."""
    return next((word for word, known in _MAKERS.items() if known == letters), None)


def vendor_letters(name: str | None) -> str | None:
    """The twelve letters of CPUID for libvirt's word; None for a maker that is not known."""
    return _MAKERS.get(name) if name is not None else None


def read_sev_guests(cpuid_device: str = "/dev/cpu/0/cpuid") -> tuple[int, int]:
    """How many guests with SEV and with SEV-ES may run at once (CPUID Fn8000_001F); zeros where it is not told."""
    try:
        device = os.open(cpuid_device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0, 0
    try:
        if struct.unpack("<4I", os.pread(device, 16, 0x80000000))[0] < 0x8000001F:
            return 0, 0
        _, _, most, first_plain = struct.unpack("<4I", os.pread(device, 16, 0x8000001F))
    except OSError:
        return 0, 0
    finally:
        os.close(device)
    return (most - first_plain + 1, first_plain - 1) if first_plain else (0, 0)
