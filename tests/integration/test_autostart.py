"""What starts with the daemon: marked for every boot of the host, or for the next one only."""

import ctypes
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.harness import Answered
from tests.support.domains import bare_domain
from tests.support.host import SessionHost
from tests.support.wire import call_domain

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
    return call_domain(host, "once", name, *values)


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


def cached_pages(path: Path) -> int:
    """How much of a file is in the page cache: mincore(2)."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        pages = -(-len(view) // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * pages)()
        address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(view)))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(address, ctypes.c_size_t(len(view)), found) == 0, os.strerror(ctypes.get_errno())
        del address
        return sum(page & 1 for page in found)


@pytest.mark.parametrize("bypass", [0, 1])
def test_a_saved_guest_starts_past_the_page_cache_where_wanted(defined: SessionHost, bypass: int) -> None:
    defined.write("config/libvirt/qemu.conf", f"auto_start_bypass_cache = {bypass}\n")
    defined.ok("autostart once")
    defined.ok("start once")
    defined.ok("managedsave once")
    image = defined.path("config/libvirt/qemu/save/once.save")
    kept = defined.path("kept.save")  # the image's second name: the start removes the first
    kept.unlink(missing_ok=True)
    kept.hardlink_to(image)
    with kept.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert cached_pages(kept) == 0
    boot_again(defined)
    assert running(defined, 10)
    assert defined.ok("domstate once --reason") == "running (restored)"
    pages = kept.stat().st_size // mmap.PAGESIZE
    # The head of the image is read by the daemon itself, and the kernel reads some way ahead.
    cached = cached_pages(kept)
    assert cached < pages * 0.5 if bypass else cached > pages * 0.9, f"{cached} of {pages}"
    defined.path("config/libvirt/qemu.conf").unlink()
    kept.unlink()
