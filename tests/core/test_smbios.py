"""Firmware tables built by hand, decoded to libvirt's words."""

import struct
from pathlib import Path

import pytest

from pyvirtd.core import smbios
from pyvirtd.model.capabilities import SysInfoSection

XEON = bytes.fromhex("57060500 fffb8b0f")


def structure(kind: int, body: bytes, *strings: str) -> bytes:
    text = b"".join(s.encode() + b"\0" for s in strings) or b"\0"
    return struct.pack("<BBH", kind, 4 + len(body), kind) + body + text + b"\0"


def processor(family: int, *, maker: str = "Intel(R) Corporation", version: str = "Xeon") -> bytes:
    body = bytes([1, 3, family, 2]) + XEON + bytes([3, 0x8B]) + struct.pack("<HHHB", 100, 4000, 2500, 0x41)
    body += bytes([1]) + struct.pack("<HHH", 0, 0, 0) + bytes([4, 5, 6])
    return structure(4, body, "CPU0", maker, version, "S1", "A1", "P1")


def memory(size: int, *, extended: int = 0, speed: int = 2667) -> bytes:
    body = struct.pack(
        "<HHHHHBBBBBHHBBBBBIH", 1, 0xFFFE, 72, 64, size, 9, 0, 1, 2, 0x1A, 0x80, speed, 3, 4, 0, 5, 1, extended, 0
    )
    return structure(17, body, "DIMM 0", "BANK 0", "Samsung", "SN1", "PN1")


def entries(table: bytes) -> dict[str, str]:
    found = smbios.decode(table)
    assert found is not None
    return dict(found.sections[0].entries)


def test_document_as_libvirt_writes_it() -> None:
    bios = bytes([1, 2, 0, 0xE8, 3, 0xFF]) + bytes(8) + bytes([0, 0, 4, 6, 0xFF, 0xFF])
    system = bytes([1, 2, 0, 3]) + bytes(range(16)) + bytes([6, 4, 0])
    tables = structure(1, system, "QEMU  ", "PC <Q35> & more", "SER", "SKU1")
    tables += structure(0, bios, "SeaBIOS", "1.16", "04/01/2014") + structure(11, b"\x01", "one", "two")
    found = smbios.decode(tables + structure(127, b""))
    assert found is not None
    assert (
        found.format()
        == """\
<sysinfo type='smbios'>
  <bios>
    <entry name='vendor'>SeaBIOS</entry>
    <entry name='version'>1.16</entry>
    <entry name='date'>04/01/2014</entry>
    <entry name='release'>4.6</entry>
  </bios>
  <system>
    <entry name='manufacturer'>QEMU</entry>
    <entry name='product'>PC &lt;Q35&gt; &amp; more</entry>
    <entry name='version'>Not Specified</entry>
    <entry name='serial'>SER</entry>
    <entry name='uuid'>03020100-0504-0706-0809-0a0b0c0d0e0f</entry>
    <entry name='sku'>SKU1</entry>
    <entry name='family'>Not Specified</entry>
  </system>
  <oemStrings>
    <entry>one</entry>
  </oemStrings>
</sysinfo>
"""
    )


@pytest.mark.parametrize(
    ("family", "maker", "version", "signature"),
    [
        (0xB3, "Intel(R) Corporation", "Xeon", "Type 0, Family 6, Model 85, Stepping 7"),
        (0x6B, "AMD", "EPYC", "Family 6, Model 5, Stepping 7"),
        (0x01, "Intel", "Intel(R) Core(TM)2 Duo", "Type 0, Family 6, Model 85, Stepping 7"),
        (0x01, "QEMU", "pc-q35", None),
    ],
)
def test_signature_depends_on_the_family(family: int, maker: str, version: str, signature: str | None) -> None:
    assert entries(processor(family, maker=maker, version=version)).get("signature") == signature


def test_processor_words() -> None:
    found = entries(processor(0xC6))
    assert found["family"] == "Core i7"
    assert found["type"] == "Central Processor"
    assert found["external_clock"] == "100 MHz"
    assert found["status"] == "Populated, Enabled"


@pytest.mark.parametrize(
    ("size", "extended", "shown"),
    [
        (0x4000, 0, "16 GB"),
        (0x7FFF, 0x8400, "33 GB"),
        (0xFFFF, 0, "Unknown"),
        (0x8200, 0, "512 kB"),
        (1025, 0, "1025 MB"),
    ],
)
def test_memory_sizes(size: int, extended: int, shown: str) -> None:
    assert entries(memory(size, extended=extended))["size"] == shown


def test_empty_slot_is_left_out() -> None:
    assert smbios.decode(memory(0)) is None


def test_number_of_a_string_that_is_not_there() -> None:
    assert entries(structure(2, bytes([1, 9, 0, 0, 0, 0, 0]), "ASUS"))["product"] == "<BAD INDEX>"


def test_short_structure_has_the_entries_it_holds() -> None:
    assert list(entries(structure(1, bytes([1, 0, 0, 0]), "A"))) == ["manufacturer", "product", "version", "serial"]


@pytest.mark.parametrize("cut", range(1, 40))
def test_truncated_tables_do_not_fail(cut: int) -> None:
    smbios.decode(processor(0xB3)[:-cut])


def test_without_the_tables_the_kernels_strings_are_used(tmp_path: Path) -> None:
    directory = tmp_path / "sys/class/dmi/id"
    directory.mkdir(parents=True)
    (directory / "bios_vendor").write_text("SeaBIOS\n")
    found = smbios.read(tmp_path)
    assert found is not None
    assert found.sections == (SysInfoSection("bios", (("vendor", "SeaBIOS"),)),)


def test_machine_without_firmware_tables(tmp_path: Path) -> None:
    assert smbios.read(tmp_path) is None
