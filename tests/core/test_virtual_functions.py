"""Settings of virtual functions as bytes, and what the kernel of this host, which has none, makes of them."""

import errno
import struct
from pathlib import Path

import pytest

from pyvirtd.core import netdev, netlink, virtual_functions
from pyvirtd.core.netlink import attribute, nested
from pyvirtd.core.virtual_functions import Function, PortRequest, Settings
from pyvirtd.errors import InternalError, SystemError_

MAC = bytes.fromhex("525400010203")
ALIAS = attribute(20, b"alias\0")  # IFLA_IFALIAS: another attribute of the same device


def info(number: int, mac: bytes, vlan: int) -> bytes:
    """One function as the kernel tells of it, with an attribute that nobody asks for."""
    parts = attribute(1, struct.pack("=I32s", number, mac)), attribute(2, struct.pack("=III", number, vlan, 3))
    return nested(1, *parts, attribute(4, struct.pack("=II", number, 1)))


def test_request_sets_address_and_vlan_of_one_function() -> None:
    body = virtual_functions.settings_request(7, 2, Settings(MAC, 42))
    assert body[:16] == struct.pack("=BxHiII", 0, 0, 7, 0, 0)
    mac = struct.pack("=HHI", 40, 1, 2) + MAC + bytes(26)  # struct ifla_vf_mac
    vlan = struct.pack("=HHIII", 16, 2, 2, 42, 0)  # struct ifla_vf_vlan
    inner = struct.pack("=HH", 4 + len(mac + vlan), 1 | 0x8000) + mac + vlan
    assert body[16:] == struct.pack("=HH", 4 + len(inner), 22 | 0x8000) + inner


def test_settings_are_found_by_the_functions_number() -> None:
    link = ALIAS + nested(22, info(0, bytes(6), 0), info(1, MAC, 42))
    assert virtual_functions.settings_in(link, 1) == Settings(MAC, 42, 3)
    assert virtual_functions.settings_in(link, 2) is None
    assert virtual_functions.settings_in(link[:-20], 1) is None  # cut off
    assert virtual_functions.settings_in(ALIAS, 0) is None


def test_port_request_names_profile_and_ids() -> None:
    body = virtual_functions.port_request(7, 2, PortRequest.ASSOCIATE, "blue", b"i" * 16, b"h" * 16)
    ports = dict(netlink.attributes(dict(netlink.attributes(body[16:]))[24]))
    assert dict(netlink.attributes(ports[1])) == {
        1: struct.pack("=I", 2),
        2: b"blue\0",
        4: b"i" * 16,
        5: b"h" * 16,
        6: b"\2",
    }


def test_response_is_that_of_the_functions_port() -> None:
    def port(number: int, response: int) -> bytes:
        return nested(1, attribute(1, struct.pack("=I", number)), attribute(7, struct.pack("=H", response)))

    link = ALIAS + nested(24, port(0, 0x101), port(1, 0x100))
    assert virtual_functions.response_in(link, 1) == virtual_functions.PortResponse.SUCCESS
    assert virtual_functions.response_in(link, 3) is None


def test_card_that_takes_no_address_back_gets_one_that_it_takes() -> None:
    asked: list[bytes] = []

    def ask(kind: int, body: bytes, flags: int) -> list[tuple[int, bytes]]:
        asked.append(body)
        if len(asked) == 1:
            raise OSError(errno.EINVAL, "")
        return []

    virtual_functions.write(Function("lo", 2), Settings(bytes(6), 0), ask)
    index = netdev.index_of("lo")
    assert asked[1] == virtual_functions.settings_request(index, 2, Settings(b"\2" + bytes(5), 0))


def test_kernel_reads_the_requests() -> None:
    """It knows the device, and says that it can do no such thing: bytes that make no sense would be EINVAL."""
    index = netdev.index_of("lo")
    (found,) = netlink.ask(18, virtual_functions.link_request(index), netlink.NLM_F_ACK)
    assert found[0] == 16
    assert dict(netlink.attributes(found[1][16:]))[3] == b"lo\0"  # IFLA_IFNAME
    with pytest.raises(
        SystemError_, match=r"52:54:00:01:02:03/42 for ifname lo vf 0: Operation not (supported|permitted)"
    ):
        virtual_functions.write(Function("lo", 0), Settings(MAC, 42))
    with pytest.raises(SystemError_, match=r"associate port 0 of 'lo': Operation not (supported|permitted)"):
        virtual_functions.connect_port(Function("lo", 0), PortRequest.ASSOCIATE, "p", bytes(16), bytes(16))


def test_device_without_functions_tells_none() -> None:
    with pytest.raises(InternalError, match="'lo' tells nothing of its virtual function 0"):
        virtual_functions.read(Function("lo", 0))
    with pytest.raises(SystemError_, match="nosuch"):
        virtual_functions.read(Function("nosuch", 0))


def card(folder: Path, *links: str) -> Path:
    """A card with these network devices and one function, which is returned."""
    parent, device = folder / "card", folder / "function"
    device.mkdir()
    for place, link in enumerate(reversed(links)):
        (parent / "net" / link).mkdir(parents=True)
        (parent / "net" / link / "dev_port").write_text(f"{place}\n")
    parent.mkdir(exist_ok=True)
    (device / "physfn").symlink_to(parent)
    (parent / "virtfn3").symlink_to(device)
    return device


def test_function_is_found_by_its_card(tmp_path: Path) -> None:
    device = card(tmp_path, "b", "a")
    assert virtual_functions.is_function(device)
    assert not virtual_functions.is_function(tmp_path / "card")
    assert virtual_functions.find(device) == Function("a", 3)


def test_card_without_network_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="The PF device for VF function has no network device name"):
        virtual_functions.find(card(tmp_path))
