"""A guest saved under one daemon goes on under the other: pyvirtd and Debian's libvirtd, both ways."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import Guest
from tests.support.domains import tiny_domain
from tests.support.host import LIBVIRTD, HostError, SystemHost

pytestmark = pytest.mark.guest
NAME = "tiny"
IMAGE = "/var/lib/libvirt/saved.img"


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[SystemHost]:
    if reason := SystemHost.missing():
        pytest.skip(reason)
    if not Path(LIBVIRTD).exists():
        pytest.skip("libvirtd is not installed")
    with SystemHost("libvirtd") as made:
        try:
            yield made.start()
        except HostError as error:
            pytest.skip(f"libvirtd does not start here: {error}")


def carry(source: SystemHost, target: SystemHost) -> None:
    """Save under one daemon, restore the same image under the other."""
    source.ok(f"save {NAME} {IMAGE}")
    shutil.copy(source.path(IMAGE), target.path(IMAGE))
    target.ok(f"restore {IMAGE}")
    assert target.ok(f"domstate {NAME} --reason") == "running (restored)"


def typed(host: SystemHost, command: str) -> str:
    with host.terminal(f"console {NAME} --force") as console:
        console.prompt()
        return console.command(command)


def test_memory_survives_the_way_there_and_back(libvirtd: SystemHost, host: SystemHost, guest: Guest) -> None:
    definition = tiny_domain(libvirtd.adopt(guest), NAME)
    host.adopt(guest)
    libvirtd.define(definition)
    libvirtd.ok(f"start {NAME}")
    with libvirtd.terminal(f"console {NAME}") as console:
        console.expect("tiny# ", 60)
        console.command("echo from-libvirtd > /tmp/mark")
    carry(libvirtd, host)
    assert typed(host, "cat /tmp/mark; echo and-pyvirtd >> /tmp/mark") == "from-libvirtd"
    document = host.ok(f"dumpxml {NAME} --security-info")
    assert "<model fallback='forbid'>qemu64</model>" in document
    carry(host, libvirtd)
    assert typed(libvirtd, "cat /tmp/mark").split() == ["from-libvirtd", "and-pyvirtd"]


def test_a_compressed_managed_image_is_taken_up(libvirtd: SystemHost, host: SystemHost, guest: Guest) -> None:
    """The guest of the test before, or a new one, as a domain that either daemon has defined."""
    if not shutil.which("lzop"):
        pytest.skip("lzop is not installed")
    definition = tiny_domain(libvirtd.adopt(guest), NAME, extra="<uuid>10101010-1010-4010-8010-101010101010</uuid>")
    host.adopt(guest)
    for one in (libvirtd, host):
        one.virsh(f"destroy {NAME}")
        one.virsh(f"undefine {NAME}")
        one.define(definition)
    host.ok(f"start {NAME}")
    with host.terminal(f"console {NAME}") as console:
        console.expect("tiny# ", 60)
        console.command("echo from-pyvirtd > /tmp/mark")
    managed = f"/var/lib/libvirt/qemu/save/{NAME}.save"
    host.python(
        "conn.lookupByName(sys.argv[1]).saveParams({'file': sys.argv[2], 'image_format': 'lzop'})", NAME, managed
    )
    shutil.copy(host.path(managed), libvirtd.path(managed))
    config = libvirtd.path("/etc/libvirt/qemu.conf")
    config.write_text((config.read_text() if config.exists() else "") + 'save_image_format = "gzip"\n')
    libvirtd.restart()  # it looks for managed images when it starts
    libvirtd.ok(f"start {NAME}")
    assert libvirtd.ok(f"domstate {NAME} --reason") == "running (restored)"
    assert typed(libvirtd, "cat /tmp/mark") == "from-pyvirtd"
    libvirtd.ok(f"managedsave {NAME}")
    shutil.copy(libvirtd.path(managed), host.path(managed))
    assert host.path(managed).read_bytes()[28] == 1  # gzip
    host.ok(f"start {NAME}")
    assert typed(host, "cat /tmp/mark") == "from-pyvirtd"
