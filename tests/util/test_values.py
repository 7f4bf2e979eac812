"""CPU sets, MAC addresses, UUIDs, PCI addresses and times, as Debian's libvirtd 9.0 was seen to take them."""

import re
import uuid

import pytest

from pyvirtd.errors import InvalidArg
from pyvirtd.util import values
from pyvirtd.util.values import PciAddress


@pytest.mark.parametrize(
    ("text", "cpus", "shown"),
    [
        ("0-3,^2", {0, 1, 3}, "0-1,3"),
        ("0-3,^5", {0, 1, 2, 3}, "0-3"),
        ("0-0", {0}, "0"),
        ("0, 1", {0, 1}, "0-1"),
        (" 0-2 ", {0, 1, 2}, "0-2"),
        ("1,1", {1}, "1"),
        ("1,2,3,7", {1, 2, 3, 7}, "1-3,7"),
        ("0-1,2-3", {0, 1, 2, 3}, "0-3"),
        ("01", {1}, "1"),
        ("7,1,3", {1, 3, 7}, "1,3,7"),
        ("16383", {16383}, "16383"),
        ("0,^0", set(), ""),
        ("^0", set(), ""),
        ("^2,2", {2}, "2"),
    ],
)
def test_cpu_set_is_read_and_shown(text: str, cpus: set[int], shown: str) -> None:
    assert values.parse_cpus(text) == cpus
    assert values.format_cpus(cpus) == shown


@pytest.mark.parametrize(
    "text", ["0-3,,1", "3-1", "a", "0-", "0-a", "16384", "^16384", "", ",", "0-4294967295", "-1", "0-3,^1-2", "^", "٣"]
)
def test_bad_cpu_set_is_refused(text: str) -> None:
    with pytest.raises(InvalidArg, match=f"^invalid argument: Failed to parse bitmap '{re.escape(text)}'$"):
        values.parse_cpus(text)


@pytest.mark.parametrize(
    ("cpus", "data"),
    [(set(), b""), ({0}, b"\x01"), ({0, 7}, b"\x81"), ({8}, b"\x00\x01"), ({1, 15, 16}, b"\x02\x80\x01")],
)
def test_cpu_map_travels_both_ways(cpus: set[int], data: bytes) -> None:
    assert values.cpus_to_map(cpus) == data
    assert values.cpus_from_map(data) == cpus


def test_cpu_map_of_given_length_is_cut_and_filled() -> None:
    assert values.cpus_to_map({0, 9, 30}, 3) == b"\x01\x02\x00"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("52:54:00:aa:bb:cc", "52:54:00:aa:bb:cc"),
        ("52:54:0:a:B:C", "52:54:00:0a:0b:0c"),
        ("52:54:00:aa:bb:c1 ", "52:54:00:aa:bb:c1"),
    ],
)
def test_mac_is_read_and_shown(text: str, shown: str) -> None:
    assert values.format_mac(values.parse_mac(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "52-54-00-aa-bb-cd",
        "525400aabbcc",
        "52:54:00:aa:bb:cc:dd",
        "52:54:00:aa:bb",
        " 52:54:00:aa:bb:c1",
        "052:54:0:a:b:c",
        "",
    ],
)
def test_bad_mac_is_refused(text: str) -> None:
    with pytest.raises(InvalidArg, match=f"^invalid argument: unable to parse mac address '{text}'$"):
        values.parse_mac(text)


def test_generated_macs_differ_and_begin_with_the_prefix() -> None:
    made = {values.generate_mac() for _ in range(20)}
    assert len(made) == 20
    assert {mac[:3] for mac in made} == {b"\x52\x54\x00"}
    assert {len(mac) for mac in made} == {6}


UUID = "8a0a5c9e-9a3c-4f39-8b1b-1a86f3c21c57"


@pytest.mark.parametrize(
    "text",
    [
        UUID,
        UUID.upper(),
        UUID.replace("-", ""),
        f" {UUID}",
        f"{UUID} ",
        f"-{UUID}",
        UUID.replace("-", "--", 1),
        UUID.replace("-", " "),
    ],
)
def test_uuid_is_read_and_shown(text: str) -> None:
    assert str(uuid.UUID(bytes=values.parse_uuid(text))) == UUID


@pytest.mark.parametrize("text", [UUID[:-1], f"{UUID}x", f"{UUID}-", f"{UUID}0", "", "8-" + UUID[1:], "g" + UUID[1:]])
def test_bad_uuid_is_refused(text: str) -> None:
    with pytest.raises(InvalidArg):
        values.parse_uuid(text)


@pytest.mark.parametrize("text", ["0000:00:1f.2", "ffff:01:1f.1", "10000:00:01.0"])
def test_pci_address_is_read_and_shown(text: str) -> None:
    assert str(PciAddress.parse(text)) == text


@pytest.mark.parametrize("text", ["", "00:1f.2", "0000:00:20.0", "0000:00:1f.8", "0000:100:00.0", "0000:00:1f"])
def test_bad_pci_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArg):
        PciAddress.parse(text)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (PciAddress(0, 256, 1, 0), "Invalid PCI address bus='0x100', must be <= 0xFF"),
        (PciAddress(0, 0, 0x20, 0), "Invalid PCI address slot='0x20', must be <= 0x1F"),
        (PciAddress(0, 0, 1, 8), "Invalid PCI address function=0x8, must be <= 7"),
    ],
)
def test_pci_address_out_of_range_is_told(address: PciAddress, error: str) -> None:
    with pytest.raises(InvalidArg) as caught:
        address.check()
    assert caught.value.detail == error


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "1970-01-01 00:00:00.000+0000"), (1795404001.9996, "2026-11-23 03:20:02.000+0000")],
)
def test_log_time_is_in_utc(seconds: float, shown: str) -> None:
    assert values.log_time(seconds) == shown


def test_log_time_is_now_by_default() -> None:
    assert values.log_time()[:2] == "20"
