"""Descriptors that clients lend to images: pure, and read by a real guest."""

import asyncio
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from pyvirtd.api.rpc import Files
from pyvirtd.api.types import Caller
from pyvirtd.config import QemuConfig
from pyvirtd.core.security import Credentials, labels_of
from pyvirtd.drivers.qemu import descriptors
from pyvirtd.drivers.qemu.chains import detect_chains
from pyvirtd.drivers.qemu.descriptors import Descriptors, borrow
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import BadCall, InvalidArg
from pyvirtd.model.storage import FileSource
from pyvirtd.util.process import Identity
from tests.drivers.qemu.stats_support import off
from tests.drivers.qemu.test_chains import create
from tests.drivers.qemu.tune_support import FakeDriver
from tests.guest import Guest
from tests.support.descriptors import until_closed
from tests.support.domains import bare_domain, tiny_domain
from tests.support.host import SystemHost

DISK = (
    "<disk type='file'><driver name='qemu' type='{}'/><source file='{}' fdgroup='mine'/>"
    "<target dev='vda' bus='virtio'/></disk>"
)
SECRET = "/var/lib/libvirt/closed/disk"
# Lends the image to the domain named by the first argument, as often as there are modes.
LEND = """
import os
dom = conn.lookupByName(sys.argv[1])
fds = [os.open(sys.argv[2], mode) for mode in (os.O_RDONLY, os.O_RDWR)]
dom.FDAssociate("mine", fds, libvirt.VIR_DOMAIN_FD_ASSOCIATE_SECLABEL_RESTORE)
"""


class FakeCaller:
    """A client that goes when it is told to."""

    def __init__(self) -> None:
        self.closers: list[Callable[[], None]] = []

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.closers.append(callback)
        return lambda: self.closers.remove(callback)

    def go(self) -> None:
        for callback in list(self.closers):
            callback()


def lend(dom: QemuDomain, path: Path, caller: FakeCaller, name: str = "mine") -> int:
    fd = os.open(path, os.O_RDWR)
    Descriptors(FakeDriver().as_driver).domain_fd_associate(dom, name, 0, Files([fd]), cast("Caller", caller))
    return fd


def is_open(fd: int) -> bool:
    until_closed()
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return create(tmp_path / "image", "raw")


@pytest.fixture
def dom(image: Path) -> Iterator[QemuDomain]:
    made = off(devices=DISK.format("raw", image))
    yield made
    made.forgotten()


def test_descriptors_stay_open_until_their_client_goes(dom: QemuDomain, image: Path) -> None:
    caller, other = FakeCaller(), FakeCaller()
    fd, more = lend(dom, image, caller), lend(dom, image, other, "more")
    caller.go()
    assert not is_open(fd)
    assert is_open(more)
    assert list(dom.lent) == ["more"]


def test_a_group_is_replaced_and_is_then_the_newer_clients(dom: QemuDomain, image: Path) -> None:
    older, newer = FakeCaller(), FakeCaller()
    lend(dom, image, older)
    lend(dom, image, newer)
    assert older.closers == []
    older.go()
    assert list(dom.lent) == ["mine"]
    newer.go()
    assert not dom.lent


def test_a_domain_that_is_forgotten_holds_nothing(dom: QemuDomain, image: Path) -> None:
    caller = FakeCaller()
    fd = lend(dom, image, caller)
    dom.forgotten()
    assert not is_open(fd)
    assert caller.closers == []


def test_no_descriptors_are_refused(dom: QemuDomain) -> None:
    with pytest.raises(BadCall, match="nfds"):
        Descriptors(FakeDriver().as_driver).domain_fd_associate(dom, "mine", 0, Files(), cast("Any", FakeCaller()))


def test_a_start_has_duplicates_without_the_locks_of_the_last_guest(dom: QemuDomain, image: Path) -> None:
    fd = lend(dom, image, FakeCaller())
    lock = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 100, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    with ExitStack() as ours, image.open("r+b") as other:
        (copy,) = asyncio.run(borrow(dom, dom.config, ours))["mine"]
        assert copy != fd
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, lock)  # raises while somebody else has it
    assert is_open(fd)
    assert not is_open(copy)


def test_the_loop_runs_while_a_server_unlocks_a_lent_file(
    dom: QemuDomain, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend(dom, image, FakeCaller())
    gate = threading.Event()
    monkeypatch.setattr(descriptors, "_unlock", lambda _fds: gate.wait(5))

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.01, gate.set)
        with ExitStack() as ours:
            await borrow(dom, dom.config, ours)
        assert gate.is_set()

    asyncio.run(main())


def test_a_group_that_nobody_lent_is_missed(dom: QemuDomain) -> None:
    with pytest.raises(InvalidArg, match="file descriptor group 'mine' was not associated with the domain"):
        asyncio.run(borrow(dom, dom.config, ExitStack()))


def test_the_chain_is_read_from_the_descriptor(tmp_path: Path, image: Path) -> None:
    top = create(tmp_path / "top", "qcow2", "image", "raw")
    live = off(devices=DISK.format("qcow2", tmp_path / "only-a-name")).config.copy()
    with top.open("rb") as file:
        file.seek(1 << 16)  # others may have read from it
        detect_chains(live, Identity(os.getuid(), os.getgid()), {"mine": [file.fileno()]})
    store = live.devices.disk[0].backing_store
    assert store is not None
    assert isinstance(store.source, FileSource)
    assert store.source.file == str(image)


def test_a_file_that_is_only_a_name_is_given_to_nobody(dom: QemuDomain) -> None:
    credentials = Credentials(Identity(7, 8), privileged=True)
    assert labels_of(dom.config, credentials, QemuConfig()) == []


# --- a real QEMU ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed(host: SystemHost) -> Path:
    """An image in a folder that the guest's user may not enter."""
    path = host.write(SECRET, b"a lent image".ljust(1 << 16, b"\0"))
    path.chmod(0o600)
    path.parent.chmod(0o700)
    return path


@pytest.mark.guest
def test_a_guest_reads_and_writes_what_it_could_not_open(host: SystemHost, guest: Guest, closed: Path) -> None:
    host.define(tiny_domain(host.adopt(guest), devices=DISK.format("raw", SECRET)))
    host.python(LEND + "dom.create()", "tiny", SECRET)
    try:
        with host.terminal("console tiny") as console:
            console.expect("tiny# ")
            assert console.command("head -c 12 /dev/vda") == "a lent image"
            console.command("echo written | dd of=/dev/vda bs=512 seek=1 conv=fsync 2>/dev/null")
        assert closed.read_bytes()[512:519] == b"written"
        assert closed.stat().st_uid == 0
        assert "block info is not supported for FD passed disk image" in host.virsh("domblkinfo tiny vda").stderr
    finally:
        host.ok("destroy tiny")
    said = host.virsh("start tiny").stderr  # the client has gone, and what it lent
    assert "file descriptor group 'mine' was not associated with the domain" in said
    host.ok("undefine tiny")


def test_descriptors_reach_no_other_guest(host: SystemHost, closed: Path) -> None:
    host.define(bare_domain("lent", devices=DISK.format("raw", SECRET)))
    host.define(bare_domain("next"))
    code = LEND + "for name in 'lent', 'next': conn.lookupByName(name).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)"
    host.python(code, "lent", SECRET)
    try:
        assert _held(host, "lent") == 3  # both of the set, and the one QEMU works with
        assert _held(host, "next") == 0
        deadline = time.monotonic() + 5
        while _open_by(host.pid, closed):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for name in ("lent", "next"):
            host.ok(f"destroy {name}")
            host.ok(f"undefine {name}")


def test_a_domain_starts_again_while_its_client_stays(host: SystemHost, closed: Path) -> None:
    host.define(bare_domain("lent", devices=DISK.format("raw", SECRET)))
    code = LEND + "for _ in range(2): dom.create(); dom.destroy()"
    host.python(code, "lent", SECRET)
    host.ok("undefine lent")


def _held(host: SystemHost, name: str) -> int:
    return _open_by(int(host.path(f"/run/libvirt/qemu/{name}.pid").read_text()), host.path(SECRET))


def _open_by(pid: int, path: Path) -> int:
    wanted = path.stat()
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            status = link.stat()
        except OSError:
            continue
        found += (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino)
    return found
