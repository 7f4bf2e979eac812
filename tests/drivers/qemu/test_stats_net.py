"""Counters of host devices, and whose they are."""

import pytest

from pyvirtd.drivers.qemu.stats_net import Counters, find_interface, guest_view, interface_counters, parse_counters
from pyvirtd.errors import InternalError, InvalidArg
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import LIVE
from tests.drivers.qemu.stats_support import definition

TEXT = """\
Inter-|   Receive                        |  Transmit
 face |bytes packets errs drop fifo ...  |bytes packets errs drop fifo ...
    lo:  100       2    0    0    0 0 0 0   100       2    0    0    0 0 0 0
 vnet0: 1290       9    1    2    0 0 0 0  1166      13    3    4    0 0 0 0
"""
TAP = "<interface type='bridge'><mac address='52:54:00:11:22:34'/><source bridge='b'/><target dev='vnet0'/></interface>"
USER = "<interface type='user'><mac address='52:54:00:11:22:33'/></interface>"


def live(devices: str) -> DomainDef:
    """A running guest's definition: names of host devices are of one run."""
    text = definition().format().replace("<devices>", f"<devices>{devices}")
    return DomainDef.parse(text, LIVE)


def test_the_kernels_table_is_read() -> None:
    found = parse_counters(TEXT)
    assert found["vnet0"] == Counters(1290, 9, 1, 2, 1166, 13, 3, 4)
    assert set(found) == {"lo", "vnet0"}


def test_what_a_tap_receives_is_what_the_guest_sent() -> None:
    interface = find_interface(live(TAP), "vnet0")
    assert guest_view(interface, parse_counters(TEXT)["vnet0"]) == Counters(1166, 13, 3, 4, 1290, 9, 1, 2)


def test_the_counters_of_a_macvtap_are_the_guests_own() -> None:
    devices = "<interface type='direct'><source dev='eth0' mode='bridge'/><target dev='macvtap0'/></interface>"
    interface = find_interface(live(devices), "macvtap0")
    assert guest_view(interface, Counters(1, 2, 3, 4, 5, 6, 7, 8)) == Counters(1, 2, 3, 4, 5, 6, 7, 8)


def test_an_interface_is_found_by_device_or_address_in_any_spelling() -> None:
    both = live(USER + TAP)
    assert find_interface(both, "vnet0") is both.devices.interface[1]
    assert find_interface(both, "52:54:0:11:22:33") is both.devices.interface[0]


@pytest.mark.parametrize("name", ["", "vnet1", "52:54:00:00:00:00"])
def test_an_unknown_interface_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArg, match=f"invalid argument: '{name}' is not a known interface"):
        find_interface(live(USER + TAP), name)


def test_an_interface_inside_qemu_has_no_counters() -> None:
    with pytest.raises(InternalError, match="Interface name not provided"):
        interface_counters(definition(devices=USER).devices.interface[0])
