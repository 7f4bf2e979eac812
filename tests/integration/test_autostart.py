"""What starts with the daemon: marked for every boot of the host, or for the next one only."""

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyvirtd.api.types import DomainRef
from tests.daemon.harness import Answered, RawClient
from tests.support.domains import bare_domain
from tests.support.host import SessionHost

UUID = "00000000-0000-4000-8000-0000000000a1"
LINK = "config/libvirt/qemu/autostart/once.xml.once"
MARK = "run/libvirt/qemu/run/autostarted"

pytestmark = pytest.mark.guest


@pytest.fixture
def defined(session: SessionHost) -> Iterator[SessionHost]:
    session.define(bare_domain("once", extra=f"<uuid>{UUID}</uuid>"))
    yield session
    session.virsh("destroy once")
    session.ok("undefine once")


def call(host: SessionHost, name: str, *values: Any) -> Any:
    """A call that Debian's virsh does not know yet."""

    async def work() -> Any:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(host.socket))
        client = RawClient(sock)
        try:
            await client.open(host.uri)
            dom = DomainRef("once", bytes.fromhex(UUID.replace("-", "")), -1)
            return await client.call(name, dom, *values)
        finally:
            await client.close()

    return asyncio.run(work())


def boot_again(host: SessionHost) -> None:
    """End the daemon and start it as after the host's next boot."""
    host.stop()
    host.path(MARK).unlink()
    host.start()


def running(host: SessionHost, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if host.ok("domstate once") == "running":
            return True
        time.sleep(0.05)
    return False


def test_once_starts_at_the_next_boot_and_never_again(defined: SessionHost) -> None:
    assert call(defined, "domain_get_autostart_once") == 0
    call(defined, "domain_set_autostart_once", 1)
    assert call(defined, "domain_get_autostart_once") == 1
    assert defined.path(LINK).is_symlink()
    assert defined.ok("list --all --autostart") == ""
    defined.restart()  # no boot
    assert call(defined, "domain_get_autostart_once") == 1
    assert not running(defined, 0.5)
    boot_again(defined)
    assert running(defined, 10)
    assert call(defined, "domain_get_autostart_once") == 0
    assert not defined.path(LINK).is_symlink()
    defined.ok("destroy once")
    boot_again(defined)
    assert not running(defined, 0.5)


def test_once_is_taken_back_and_goes_with_the_definition(session: SessionHost) -> None:
    session.define(bare_domain("once", extra=f"<uuid>{UUID}</uuid>"))
    call(session, "domain_set_autostart_once", 1)
    call(session, "domain_set_autostart_once", 0)
    assert not session.path(LINK).is_symlink()
    call(session, "domain_set_autostart_once", 1)
    session.ok("domrename once other")
    assert session.path(LINK.replace("once.xml", "other.xml")).is_symlink()
    session.ok("undefine other")
    assert list(session.path(LINK).parent.iterdir()) == []


def test_a_transient_domain_has_no_next_boot(session: SessionHost) -> None:
    session.ok(["create", str(session.client_file("transient.xml", bare_domain("once", extra=f"<uuid>{UUID}</uuid>")))])
    with pytest.raises(Answered, match="cannot set autostart for transient domain"):
        call(session, "domain_set_autostart_once", 1)
    session.ok("destroy once")
