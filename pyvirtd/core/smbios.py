"""The firmware's tables about the machine (SMBIOS), decoded to the words that <sysinfo type='smbios'> shows.

`decode` is pure; `read` takes the tables from sysfs (root only), else the few strings the kernel shows to everyone.
The words are those of dmidecode, which is what libvirt shows.
https://www.dmtf.org/standards/smbios (DSP0134; section numbers below are its 3.6)
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyvirtd.model.capabilities import SysInfo, SysInfoSection

NOT_SPECIFIED = "Not Specified"
BAD_INDEX = "<BAD INDEX>"
OUT_OF_SPEC = "<OUT OF SPEC>"
TABLES_MAX = 16 * 1024 * 1024


class Structure(NamedTuple):
    """One structure: its formatted part, header included so that offsets are the specification's, and its strings."""

    kind: int
    data: bytes
    strings: tuple[str, ...]

    def text(self, offset: int) -> str | None:
        """The string whose number stands at `offset`; None where the structure ends before it."""
        if offset >= len(self.data):
            return None
        number = self.data[offset]
        if number == 0:
            return NOT_SPECIFIED
        return self.strings[number - 1].strip() if number <= len(self.strings) else BAD_INDEX

    def number(self, offset: int, form: str) -> int | None:
        """A little-endian number (struct's letter) at `offset`; None where the structure ends before it."""
        if offset + struct.calcsize(form) > len(self.data):
            return None
        value: int = struct.unpack_from("<" + form, self.data, offset)[0]
        return value


Entries = list[tuple[str, str | None]]


def read(root: Path = Path("/")) -> SysInfo | None:
    """What this machine's firmware says; None if it has no such tables. Blocks."""
    try:
        with (root / "sys/firmware/dmi/tables/DMI").open("rb") as tables:
            return decode(tables.read(TABLES_MAX))
    except OSError:
        return _from_kernel(root / "sys/class/dmi/id")


def decode(tables: bytes) -> SysInfo | None:
    """The structures that libvirt shows, in its order; None if there is none of them."""
    found = list(structures(tables))
    sections = []
    for name, kind, entries in _SECTIONS:
        sections += [section for s in found if s.kind == kind and (section := _section(name, entries(s)))]
    return SysInfo(tuple(sections)) if sections else None


def structures(tables: bytes) -> Iterator[Structure]:
    """Walk the table (6.1); a structure that runs over the end stops the walk."""
    position = 0
    while position + 4 <= len(tables):
        kind, length = tables[position], tables[position + 1]
        if length < 4 or position + length > len(tables):
            return
        end = tables.find(b"\0\0", position + length)
        if end < 0:
            return
        strings = tables[position + length : end].split(b"\0") if end > position + length else []
        yield Structure(kind, tables[position : position + length], tuple(s.decode("latin-1") for s in strings))
        if kind == 127:
            return
        position = end + 2


def _section(name: str, entries: Entries) -> SysInfoSection | None:
    kept = tuple((key, value) for key, value in entries if value is not None)
    return SysInfoSection(name, kept) if kept else None


def _bios(s: Structure) -> Entries:  # 7.1
    major, minor = s.number(0x14, "B"), s.number(0x15, "B")
    release = None if None in (major, minor) or 0xFF in (major, minor) else f"{major}.{minor}"
    return [("vendor", s.text(4)), ("version", s.text(5)), ("date", s.text(8)), ("release", release)]


def _system(s: Structure) -> Entries:  # 7.2
    return [
        ("manufacturer", s.text(4)),
        ("product", s.text(5)),
        ("version", s.text(6)),
        ("serial", s.text(7)),
        ("uuid", _uuid(s.data[8:24])),
        ("sku", s.text(0x19)),
        ("family", s.text(0x1A)),
    ]


def _uuid(raw: bytes) -> str | None:
    if len(raw) < 16:
        return None
    if raw == b"\xff" * 16:
        return "Not Present"
    if raw == bytes(16):
        return "Not Settable"
    # 7.2.1: the first three fields are little-endian
    a, b, c = struct.unpack_from("<IHH", raw)
    return f"{a:08x}-{b:04x}-{c:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"


def _base_board(s: Structure) -> Entries:  # 7.3
    return [
        ("manufacturer", s.text(4)),
        ("product", s.text(5)),
        ("version", s.text(6)),
        ("serial", s.text(7)),
        ("asset", s.text(8)),
        ("location", s.text(0xA)),
    ]


def _chassis(s: Structure) -> Entries:  # 7.4; the SKU stands behind a list of elements of variable size
    count, size = s.number(0x13, "B") or 0, s.number(0x14, "B") or 0
    return [
        ("manufacturer", s.text(4)),
        ("version", s.text(6)),
        ("serial", s.text(7)),
        ("asset", s.text(8)),
        ("sku", s.text(0x15 + count * size)),
    ]


def _processor(s: Structure) -> Entries:  # 7.5
    family = s.number(6, "B")
    if family == 0xFE:
        family = s.number(0x28, "H")
    status = s.number(0x18, "B") or 0
    state = _CPU_STATES.get(status & 7, OUT_OF_SPEC)
    return [
        ("socket_destination", s.text(4)),
        ("type", _CPU_TYPES.get(s.number(5, "B") or 0, OUT_OF_SPEC)),
        ("family", _CPU_FAMILIES.get(family or 0, OUT_OF_SPEC)),
        ("manufacturer", s.text(7)),
        ("signature", _signature(s, family or 0)),
        ("version", s.text(0x10)),
        ("external_clock", _unit(s.number(0x12, "H"), "MHz")),
        ("max_speed", _unit(s.number(0x14, "H"), "MHz")),
        ("status", f"Populated, {state}" if status & 0x40 else "Unpopulated"),
        ("serial_number", s.text(0x20)),
        ("part_number", s.text(0x22)),
    ]


def _signature(s: Structure, family: int) -> str | None:
    """The processor's identification (7.5.3) in the form its family uses; None for families without one."""
    eax = s.number(8, "I")
    if eax is None:
        return None
    maker, version = s.text(7) or "", s.text(0x10) or ""
    if family in _ARM:
        return (
            f"Implementor 0x{eax >> 24:02x}, Variant 0x{eax >> 20 & 0xF:x}, Architecture {eax >> 16 & 0xF}, "
            f"Part 0x{eax >> 4 & 0xFFF:03x}, Revision {eax & 0xF}"
        )
    known_word = version.startswith(("AMD Athlon(TM)", "AMD Opteron(tm)", "Dual-Core AMD Opteron(tm)"))
    if family in _AMD or (family in (1, 2) and known_word):
        # the extended fields count only behind a full base family (CPUID Fn0000_0001 in AMD's manual)
        extended = eax >> 8 & 0xF == 0xF
        amd_family = (eax >> 8 & 0xF) + (eax >> 20 & 0xFF if extended else 0)
        model = (eax >> 4 & 0xF) + (eax >> 12 & 0xF0 if extended else 0)
        return f"Family {amd_family}, Model {model}, Stepping {eax & 0xF}"
    known_word = maker.startswith("Intel") and version.startswith(("Pentium III MMX", "Intel(R) Core(TM)2"))
    if family in _INTEL or (family in (1, 2) and known_word):
        model = (eax >> 12 & 0xF0) + (eax >> 4 & 0xF)
        family_number = (eax >> 20 & 0xFF) + (eax >> 8 & 0xF)
        return f"Type {eax >> 12 & 3}, Family {family_number}, Model {model}, Stepping {eax & 0xF}"
    return None


def _memory(s: Structure) -> Entries:  # 7.18
    code = s.number(0xC, "H")
    if code is None or code == 0:
        return []  # an empty slot
    speed = s.number(0x15, "H")
    if speed == 0xFFFF:
        speed = s.number(0x54, "I")
    return [
        ("size", _memory_size(code, s.number(0x1C, "I"))),
        ("form_factor", _FORM_FACTORS.get(s.number(0xE, "B") or 0, OUT_OF_SPEC)),
        ("locator", s.text(0x10)),
        ("bank_locator", s.text(0x11)),
        ("type", _MEMORY_TYPES.get(s.number(0x12, "B") or 0, OUT_OF_SPEC)),
        ("type_detail", _memory_detail(s.number(0x13, "H") or 0)),
        ("speed", _unit(speed, "MT/s") if s.number(0x15, "H") is not None else None),
        ("manufacturer", s.text(0x17)),
        ("serial_number", s.text(0x18)),
        ("part_number", s.text(0x1A)),
    ]


def _memory_size(code: int, extended: int | None) -> str:
    if code == 0xFFFF:
        return "Unknown"
    if code == 0x7FFF and extended is not None:
        return _scaled((extended & 0x7FFFFFFF) * 1024)
    return _scaled(code & 0x7FFF) if code & 0x8000 else _scaled(code * 1024)


def _scaled(kib: int) -> str:
    """The largest unit that keeps the number whole."""
    for unit in ("kB", "MB", "GB", "TB"):
        if kib == 0 or kib % 1024:
            return f"{kib} {unit}"
        kib //= 1024
    return f"{kib} PB"


def _memory_detail(bits: int) -> str:
    if bits & 0xFFFE == 0:
        return "None"
    return " ".join(name for bit, name in enumerate(_MEMORY_DETAILS, 1) if bits & 1 << bit)


def _unit(value: int | None, unit: str) -> str | None:
    if value is None:
        return "Unknown" if unit == "MT/s" else None
    return f"{value} {unit}" if value else "Unknown"


def _oem_strings(s: Structure) -> Entries:  # 7.12
    return [("", text.strip()) for text in s.strings[: s.number(4, "B") or 0]]


def _from_kernel(directory: Path) -> SysInfo | None:
    """The strings that the kernel shows without privileges."""
    sections = []
    for name, files in _KERNEL_FILES.items():
        entries: Entries = [(key, _file(directory / file)) for key, file in files.items()]
        if section := _section(name, entries):
            sections.append(section)
    return SysInfo(tuple(sections)) if sections else None


def _file(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


_SECTIONS = (
    ("bios", 0, _bios),
    ("system", 1, _system),
    ("baseBoard", 2, _base_board),
    ("chassis", 3, _chassis),
    ("processor", 4, _processor),
    ("memory_device", 17, _memory),
    ("oemStrings", 11, _oem_strings),
)
_KERNEL_FILES = {
    "bios": {"vendor": "bios_vendor", "version": "bios_version", "date": "bios_date", "release": "bios_release"},
    "system": {
        "manufacturer": "sys_vendor", "product": "product_name", "version": "product_version",
        "serial": "product_serial", "uuid": "product_uuid", "sku": "product_sku", "family": "product_family",
    },
    "baseBoard": {
        "manufacturer": "board_vendor", "product": "board_name", "version": "board_version", "serial": "board_serial",
        "asset": "board_asset_tag",
    },
    "chassis": {
        "manufacturer": "chassis_vendor", "version": "chassis_version", "serial": "chassis_serial",
        "asset": "chassis_asset_tag",
    },
}  # fmt: skip

# Names of the specification as dmidecode shortens them.
_CPU_TYPES = dict(
    enumerate(("Other", "Unknown", "Central Processor", "Math Processor", "DSP Processor", "Video Processor"), 1)
)
_CPU_STATES = {0: "Unknown", 1: "Enabled", 2: "Disabled By User", 3: "Disabled By BIOS", 4: "Idle", 7: "Other"}


def _named(first: int, *names: str) -> dict[int, str]:
    return dict(enumerate(names, first))


_INTEL_FAMILIES = {
    5: "80386", 6: "80486",
    **_named(0xB, "Pentium", "Pentium Pro", "Pentium II", "Pentium MMX", "Celeron", "Pentium II Xeon", "Pentium III"),
    **_named(0x12, "M1", "M2", "Celeron M", "Pentium 4 HT"),
    **_named(0x28, "Core Duo", "Core Duo Mobile", "Core Solo Mobile", "Atom", "Core M", "Core m3", "Core m5"),
    0x2F: "Core m7",
    **_named(0xA1, *(f"{n}-Core Xeon {k}" for n, k in (
        ("Quad", "3200"), ("Dual", "3000"), ("Quad", "5300"), ("Dual", "5100"), ("Dual", "5000"), ("Dual", "LV"),
        ("Dual", "ULV"), ("Dual", "7100"), ("Quad", "5400"))), "Quad-Core Xeon", "Dual-Core Xeon 5200"),
    **_named(0xAC, "Dual-Core Xeon 7200", "Quad-Core Xeon 7300", "Quad-Core Xeon 7400", "Multi-Core Xeon 7400"),
    **_named(0xB0, "Pentium III Xeon", "Pentium III Speedstep", "Pentium 4", "Xeon"),
    0xB5: "Xeon MP",
    **_named(0xB9, "Pentium M", "Celeron D", "Pentium D", "Pentium EE", "Core Solo", "Core 2", "Core 2 Duo"),
    0xC0: "Core 2 Solo",
    **_named(0xC1, "Core 2 Extreme", "Core 2 Quad", "Core 2 Extreme Mobile", "Core 2 Duo Mobile", "Core 2 Solo Mobile"),
    **_named(0xC6, "Core i7", "Dual-Core Celeron"), **_named(0xCD, "Core i5", "Core i3", "Core i9"),
    **_named(0xD2, "C7-M", "C7-D", "C7", "Eden", "Multi-Core Xeon", "Dual-Core Xeon 3xxx", "Quad-Core Xeon 3xxx"),
    0xD9: "Nano",
    **_named(0xDA, "Dual-Core Xeon 5xxx", "Quad-Core Xeon 5xxx"),
    **_named(0xDD, "Dual-Core Xeon 7xxx", "Quad-Core Xeon 7xxx", "Multi-Core Xeon 7xxx", "Multi-Core Xeon 3400"),
}  # fmt: skip
_AMD_FAMILIES = {
    **_named(0x18, "Duron", "K5", "K6", "K6-2", "K6-3", "Athlon"), 0x1F: "K6-2+",
    **_named(0x38, "Turion II Ultra Dual-Core Mobile M", "Turion II Dual-Core Mobile M", "Athlon II Dual-Core M"),
    **_named(0x3B, "Opteron 6100", "Opteron 4100", "Opteron 6200", "Opteron 4200", "FX"),
    **_named(0x46, "C-Series", "E-Series", "A-Series", "G-Series", "Z-Series", "R-Series"),
    **_named(0x4C, "Opteron 4300", "Opteron 6300", "Opteron 3300", "FirePro"),
    **_named(0x66, "Athlon X4", "Opteron X1000", "Opteron X2000", "Opteron A-Series", "Opteron X3000", "Zen"),
    **_named(0x83, "Athlon 64", "Opteron", "Sempron", "Turion 64", "Dual-Core Opteron", "Athlon 64 X2", "Turion 64 X2"),
    **_named(0x8A, "Quad-Core Opteron", "Third-Generation Opteron", "Phenom FX", "Phenom X4", "Phenom X2", "Athlon X2"),
    **_named(0xB6, "Athlon XP", "Athlon MP"),
    **_named(0xE4, "Opteron 3000", "Sempron II", "Embedded Opteron Quad-Core", "Phenom Triple-Core"),
    **_named(0xE8, "Turion Ultra Dual-Core Mobile", "Turion Dual-Core Mobile", "Athlon Dual-Core", "Sempron SI"),
    **_named(0xEC, "Phenom II", "Athlon II", "Six-Core Opteron", "Sempron M"),
}  # fmt: skip
_ARM_FAMILIES = {0x100: "ARMv7", 0x101: "ARMv8", 0x118: "ARM", 0x119: "StrongARM"}
_CPU_FAMILIES = {1: "Other", 2: "Unknown", **_INTEL_FAMILIES, **_AMD_FAMILIES, **_ARM_FAMILIES}
_INTEL, _AMD, _ARM = frozenset(_INTEL_FAMILIES), frozenset(_AMD_FAMILIES), frozenset(_ARM_FAMILIES)
_FORM_FACTORS = _named(
    1, "Other", "Unknown", "SIMM", "SIP", "Chip", "DIP", "ZIP", "Proprietary Card", "DIMM", "TSOP", "Row Of Chips",
    "RIMM", "SODIMM", "SRIMM", "FB-DIMM", "Die",
)  # fmt: skip
_MEMORY_TYPES = {
    **_named(1, "Other", "Unknown", "DRAM", "EDRAM", "VRAM", "SRAM", "RAM", "ROM", "Flash", "EEPROM"),
    **_named(0xB, "FEPROM", "EPROM"),
    **_named(0xD, "CDRAM", "3DRAM", "SDRAM", "SGRAM", "RDRAM", "DDR", "DDR2", "DDR2 FB-DIMM"),
    **_named(0x18, "DDR3", "FBD2", "DDR4", "LPDDR", "LPDDR2", "LPDDR3", "LPDDR4", "Logical non-volatile device"),
    **_named(0x20, "HBM", "HBM2", "DDR5", "LPDDR5"),
}  # fmt: skip
_MEMORY_DETAILS = (
    "Other", "Unknown", "Fast-paged", "Static Column", "Pseudo-static", "RAMBus", "Synchronous", "CMOS", "EDO",
    "Window DRAM", "Cache DRAM", "Non-Volatile", "Registered (Buffered)", "Unbuffered (Unregistered)", "LRDIMM",
)  # fmt: skip
