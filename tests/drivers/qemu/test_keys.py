"""Keys: from every set that clients use to QEMU's numbers."""

import asyncio

import pytest

from pyvirtd.constants.domain import KeycodeSet
from pyvirtd.drivers.qemu.keymaps import to_qnum
from pyvirtd.drivers.qemu.keys import Keys, qnums
from pyvirtd.errors import BadCall, InternalError, OperationFailed, OperationInvalid
from tests.drivers.qemu.stats_support import off, running
from tests.drivers.qemu.tune_support import FakeDriver

# The key A, the right control key (e0 before its scan code), and Home, in each set.
KNOWN = {
    KeycodeSet.LINUX: (30, 97, 102),
    KeycodeSet.XT: (0x1E, 0xE01D, 0xE047),
    KeycodeSet.ATSET1: (0x1E, 0xE01D, 0xE047),
    KeycodeSet.ATSET2: (0x1C, 0xE014, 0xE06C),
    KeycodeSet.ATSET3: (0x1C, 0x58, 0x6E),
    KeycodeSet.OSX: (0, 0x3E, 0x73),
    KeycodeSet.XT_KBD: (0x1E, 0x11D, 0x147),
    KeycodeSet.USB: (4, 0xE4, 0x4A),
    KeycodeSet.WIN32: (0x41, 0xA3, 0x24),
    KeycodeSet.QNUM: (0x1E, 0x9D, 0xC7),
}


@pytest.mark.parametrize("keys", KNOWN, ids=lambda keys: keys.name)
def test_a_key_of_every_set_is_the_same_key(keys: KeycodeSet) -> None:
    assert qnums(keys, list(KNOWN[keys])) == [0x1E, 0x9D, 0xC7]


def test_every_set_is_covered() -> None:
    assert set(KNOWN) == set(KeycodeSet)


def test_a_number_without_a_pc_key_is_known_and_silent() -> None:
    assert qnums(KeycodeSet.LINUX, [0x1F1, 170]) == [0, 0]


def test_no_number_is_beyond_what_qemu_takes() -> None:
    for keys in set(KeycodeSet) - {KeycodeSet.QNUM}:
        assert all(0 <= number <= 0xFF for number in to_qnum(keys).values())


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(InternalError, match="cannot translate keycode 9999 of linux codeset to qnum keycode"):
        qnums(KeycodeSet.LINUX, [30, 9999])


def test_an_unknown_set_and_no_keys_are_refused() -> None:
    with pytest.raises(BadCall, match="Unsupported codeset '10'"):
        qnums(10, [1])
    with pytest.raises(BadCall, match="nkeycodes in virDomainSendKey must be greater than zero"):
        qnums(KeycodeSet.LINUX, [])


def test_qemu_is_told_the_keys_together_and_how_long() -> None:
    dom = off()
    monitor = running(dom, {"send-key": {}})
    asyncio.run(Keys(FakeDriver().as_driver).domain_send_key(dom, KeycodeSet.LINUX, 50, [29, 56, 111], 0))
    keys = [{"type": "number", "data": number} for number in (0x1D, 0x38, 0xD3)]
    assert monitor.told["send-key"] == {"keys": keys, "hold-time": 50}


def test_a_number_above_sixteen_bits_is_refused_by_its_place() -> None:
    dom = off()
    running(dom, {"send-key": {}})
    with pytest.raises(OperationFailed, match="keycode 1 is invalid: 0x11170"):
        asyncio.run(Keys(FakeDriver().as_driver).domain_send_key(dom, KeycodeSet.QNUM, 0, [1, 70000], 0))


def test_a_domain_that_is_off_has_no_keyboard() -> None:
    with pytest.raises(OperationInvalid, match="domain is not running"):
        asyncio.run(Keys(FakeDriver().as_driver).domain_inject_nmi(off(), 0))
