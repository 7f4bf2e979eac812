"""What the host's firmware says, shown to guests: firmware tables of our own before a real daemon and QEMU."""

from collections.abc import Iterator

import pytest

from tests.core.test_smbios import structure
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

BIOS = structure(
    0, bytes([1, 2, 0, 0xE8, 3, 0xFF]) + bytes(8) + bytes([0, 0, 4, 5, 0xFF, 0xFF]), "Acme, Inc", "1.2", "01/02/2003"
)
SYSTEM = structure(1, bytes([1, 2, 3, 4]) + bytes(range(16)) + bytes([6, 0, 5]), "Acme", "Anvil", "3", "s-1", "Tools")
BOARD = structure(2, bytes([1, 2, 3, 4, 5, 0, 6, 0, 0, 10]), "Boarder", "B1", "9", "bs", "at", "loc")
CHASSIS = structure(3, bytes([1, 3, 2, 3, 4]) + bytes(4) + bytes(8) + bytes(1), "Chas", "7", "cs", "ca")
OEM = structure(11, b"\x02", "one", "two")
END = structure(127, b"")
TABLES = "/sys/firmware/dmi/tables"
HOST_MODE = "<os><smbios mode='host'/>"
EXPECTED = [
    "type=0,vendor=Acme,, Inc,version=1.2,date=01/02/2003,release=4.5",
    "type=1,manufacturer=Acme,product=Anvil,version=3,serial=s-1,sku=Not Specified,family=Tools",
    "type=2,manufacturer=Boarder,product=B1,version=9,serial=bs,asset=at,location=loc",
    "type=3,manufacturer=Chas,version=7,serial=cs,asset=ca,sku=Not Specified",
    "type=11,value=one,value=two",
]


@pytest.fixture
def guest_of_host(host: SystemHost) -> Iterator[str]:
    """A domain that is to see what its host's firmware says, and says something else itself."""
    own = "<sysinfo type='smbios'><bios><entry name='vendor'>own</entry></bios></sysinfo>"
    host.define(bare_domain("shown", extra=own).replace("<os>", HOST_MODE))
    yield "shown"
    host.ok("undefine shown")


def restart_with(host: SystemHost, tables: bytes) -> None:
    """The daemon's host has this firmware from now on."""
    host.write("/var/lib/libvirt/DMI", tables)
    made = host.run(
        ["sh", "-ec", f"mount -t tmpfs none /sys/firmware; mkdir -p {TABLES}; cp /var/lib/libvirt/DMI {TABLES}"]
    )
    assert made.returncode == 0, made.stderr
    host.restart()


def test_guest_sees_what_the_hosts_firmware_says(host: SystemHost, guest_of_host: str) -> None:
    restart_with(host, BIOS + SYSTEM + BOARD + CHASSIS + OEM + END)
    try:
        host.ok(f"start {guest_of_host} --paused")
        pid = host.path(f"/run/libvirt/qemu/{guest_of_host}.pid").read_text()
        argv = host.run(["cat", f"/proc/{pid}/cmdline"]).stdout.split("\0")
        assert [argv[place + 1] for place, word in enumerate(argv) if word == "-smbios"] == EXPECTED
        host.ok(f"destroy {guest_of_host}")
        assert f"-smbios {EXPECTED[2]}" in host.ok(f"domxml-to-native qemu-argv --domain {guest_of_host}")
        host.run(["umount", "/sys/firmware"])
        restart_with(host, BIOS + BOARD + BOARD + END)
        words = "qemu does not support more than one entry to Type 2 in SMBIOS table"
        assert words in host.virsh(f"start {guest_of_host}").stderr
    finally:
        host.run(["umount", "/sys/firmware"])
        host.restart()


def test_host_that_says_nothing_is_named(host: SystemHost, guest_of_host: str) -> None:
    restart_with(host, END)
    try:
        assert "Host SMBIOS information is not available" in host.virsh(f"start {guest_of_host}").stderr
    finally:
        host.run(["umount", "/sys/firmware"])
        host.restart()
