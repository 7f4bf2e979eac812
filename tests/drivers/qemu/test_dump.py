"""Dumps of guests: what is written, what becomes of the guest, and what is left when one fails."""

import asyncio
import gzip
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.dump import _new_file
from pyvirtd.errors import SystemError_, VirtError
from tests.guest import Guest
from tests.guest.build import READY
from tests.support.domains import bare_domain, tiny_domain
from tests.support.host import SessionHost

PANIC = "o /b 0x505 1"  # a write to the port of the isa-pvpanic device
BARK = "o /b 0x443 0xf"  # the ib700 counts from 0 seconds
OPENED_S = 0.2
BOOT_S = 2.0  # until the kernel is in memory
PARTS = "<panic model='isa'/><watchdog model='ib700' action='dump'/>"


@pytest.fixture(scope="module")
def dumping() -> Iterator[SessionHost]:
    with SessionHost() as host:
        configure(host, f'auto_dump_path = "{host.folder}/data"\n')
        yield host.start()


@pytest.fixture(scope="module")
def booted(dumping: SessionHost, guest: Guest) -> str:
    """A guest with more in its memory than fits into a pipe."""
    dumping.define(tiny_domain(dumping.adopt(guest), "booted"))
    with dumping.terminal("start booted --console") as console:
        console.expect(READY, timeout=60)
    return "booted"


def configure(host: SessionHost, lines: str) -> None:
    script = f"mkdir -p {host.folder}/config/libvirt; cat >{host.folder}/config/libvirt/qemu.conf"
    assert host.run(["sh", "-c", script], text=lines).returncode == 0


@pytest.fixture
def target(dumping: SessionHost) -> Path:
    """Where to dump to; nothing is there."""
    path = dumping.folder / "data" / "dump"
    path.unlink(missing_ok=True)
    return path


@contextmanager
def run(host: SessionHost, name: str, *, crash: str = "destroy") -> Iterator[str]:
    host.define(bare_domain(name, machine="pc", devices=PARTS, extra=f"<on_crash>{crash}</on_crash>"))
    host.ok(f"start {name}")
    try:
        yield name
    finally:
        host.virsh(f"destroy {name}")
        host.ok(f"undefine {name}")


@pytest.fixture
def guest_name(dumping: SessionHost) -> Iterator[str]:
    with run(dumping, "dumped") as name:
        yield name


@contextmanager
def full_pipe(host: SessionHost, path: Path) -> Iterator[None]:
    """A pipe at `path` that somebody has open and does not read: whoever writes to it waits."""
    assert host.run(["mkfifo", str(path)]).returncode == 0
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield
    finally:
        os.close(fd)
        path.unlink()


def state(host: SessionHost, name: str) -> str:
    return " ".join(host.ok(f"domstate {name} --reason").split())


def wait_for(host: SessionHost, name: str, wanted: str) -> None:
    deadline = time.monotonic() + 15
    while (found := state(host, name)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def begin(host: SessionHost, command: str) -> "subprocess.Popen[str]":
    return host.popen(["virsh", "-q", *command.split()])


@pytest.mark.guest
@pytest.mark.parametrize(
    ("options", "head"),
    [
        ("--memory-only", b"\x7fELF"),
        ("--memory-only --format kdump-zlib", b"makedumpfile"),
        ("--memory-only --bypass-cache", b"\x7fELF"),
        ("--live --memory-only", b"\x7fELF"),
    ],
)
def test_memory_alone(dumping: SessionHost, guest_name: str, target: Path, options: str, head: bytes) -> None:
    dumping.ok(f"dump {guest_name} {target} {options}")
    assert target.read_bytes().startswith(head)
    assert target.stat().st_mode & 0o777 == 0o600
    assert state(dumping, guest_name) == "running (unpaused)"


@pytest.mark.guest
@pytest.mark.parametrize("options", ["", "--live", "--bypass-cache", "--reset"])
def test_the_whole_state(dumping: SessionHost, guest_name: str, target: Path, options: str) -> None:
    dumping.ok(f"dump {guest_name} {target} {options}")
    assert target.read_bytes().startswith(b"QEVM")
    assert state(dumping, guest_name) == "running (unpaused)"
    assert "Operation:        Dump" in dumping.ok(f"domjobinfo {guest_name} --completed")


@pytest.mark.guest
def test_a_guest_that_was_paused_stays_so(dumping: SessionHost, guest_name: str, target: Path) -> None:
    dumping.ok(f"suspend {guest_name}")
    dumping.ok(f"dump {guest_name} {target} --memory-only")
    assert state(dumping, guest_name) == "paused (user)"


@pytest.mark.guest
def test_a_crash_ends_the_guest(dumping: SessionHost, guest_name: str, target: Path) -> None:
    seen = dumping.popen(["virsh", "-q", "event", guest_name, "lifecycle", "--loop", "--timeout", "2"])
    time.sleep(OPENED_S)
    dumping.ok(f"dump {guest_name} {target} --crash --memory-only")
    assert state(dumping, guest_name) == "shut off (crashed)"
    events = [line.split(": ", 1)[1] for line in seen.communicate()[0].splitlines() if "lifecycle" in line]
    assert events == ["Suspended Paused", "Stopped Crashed"]


@pytest.mark.guest
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("/nonexistent/dump", "Failed to create file '/nonexistent/dump': No such file or directory"),
        ("/dev/full", "No space left on device"),
        ("/dev/full --memory-only", "No space left on device"),
        ("/dev/null --memory-only --format win-dmp", "memory-only dump failed: win-dump"),
        ("/dev/null --memory-only --format kdump-lzo", "unsupported dumpformat 'kdump-lzo' for this QEMU binary"),
        ("/dev/null --live --crash", "'VIR_DUMP_CRASH' and 'VIR_DUMP_LIVE' are mutually exclusive"),
    ],
)
def test_after_a_failure_the_guest_goes_on(dumping: SessionHost, guest_name: str, options: str, error: str) -> None:
    done = dumping.virsh(f"dump {guest_name} {options}")
    assert done.returncode == 1
    assert error in done.stderr
    assert state(dumping, guest_name).startswith("running")
    assert Path("/dev/full").is_char_device()


@pytest.mark.guest
@pytest.mark.parametrize("options", ["", "--memory-only"])
def test_another_client_sees_and_ends_a_dump(dumping: SessionHost, booted: str, target: Path, options: str) -> None:
    with full_pipe(dumping, target):
        client = begin(dumping, f"dump {booted} {target} {options}")
        wait_for(dumping, booted, "paused (dumping)")
        assert "Operation:        Dump" in dumping.ok(f"domjobinfo {booted}")
        dumping.ok(f"domjobabort {booted}")
        assert "operation aborted: job 'domain core dump' canceled by client" in client.communicate()[0]
        assert state(dumping, booted) == "running (unpaused)"


@pytest.mark.guest
@pytest.mark.parametrize("options", ["", "--memory-only"])
def test_a_daemon_that_dies_in_a_dump_leaves_a_guest_that_goes_on(
    dumping: SessionHost, booted: str, target: Path, options: str
) -> None:
    with full_pipe(dumping, target):
        client = begin(dumping, f"dump {booted} {target} {options}")
        wait_for(dumping, booted, "paused (dumping)")
        dumping.kill(signal.SIGKILL)
        client.communicate()
        dumping.start()
    wait_for(dumping, booted, "running (unpaused)")


@pytest.mark.guest
@pytest.mark.parametrize("options", ["", "--memory-only"])
def test_a_guest_that_ends_ends_its_dump(dumping: SessionHost, booted: str, target: Path, options: str) -> None:
    with full_pipe(dumping, target):
        client = begin(dumping, f"dump {booted} {target} {options}")
        wait_for(dumping, booted, "paused (dumping)")
        dumping.ok(f"destroy {booted}")
        assert "operation failed: domain is not running" in client.communicate()[0]
        assert state(dumping, booted) == "shut off (destroyed)"
    dumping.ok(f"start {booted}")
    time.sleep(BOOT_S)


@pytest.mark.guest
def test_the_state_is_compressed_as_configured() -> None:
    with SessionHost() as host:
        configure(host, 'dump_image_format = "gzip"\n')
        host.start()
        with run(host, "packed") as name:
            host.ok(f"dump {name} {host.folder}/data/packed")
            with gzip.open(host.folder / "data" / "packed") as file:
                assert file.read(4) == b"QEVM"


@pytest.mark.guest
@pytest.mark.parametrize(("action", "after"), [("destroy", "shut off (crashed)"), ("restart", "running (crashed)")])
def test_a_panic_leaves_a_dump(dumping: SessionHost, action: str, after: str) -> None:
    with run(dumping, "panicking", crash=f"coredump-{action}") as name:
        dumping.ok(["qemu-monitor-command", name, "--hmp", PANIC])
        wait_for(dumping, name, after)
        (file,) = dumping.folder.glob("data/*-panicking-*")
        assert file.read_bytes().startswith(b"\x7fELF")
        file.unlink()


@pytest.mark.guest
def test_a_watchdog_leaves_a_dump_and_the_guest_goes_on(dumping: SessionHost, guest_name: str) -> None:
    dumping.ok(["qemu-monitor-command", guest_name, "--hmp", BARK])
    wait_for(dumping, guest_name, "running (unpaused)")
    (file,) = dumping.folder.glob("data/*-dumped-*")
    assert file.read_bytes().startswith(b"\x7fELF")
    file.unlink()


def test_a_failed_dump_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "dump"

    async def work() -> None:
        async with _new_file(str(path)) as file:
            os.write(file, b"half")
            raise OSError(28, "")

    with pytest.raises(SystemError_, match="No space left on device"):
        asyncio.run(work())
    assert not path.exists()


def test_another_file_of_the_name_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "dump"

    async def work() -> None:
        async with _new_file(str(path)):
            path.rename(tmp_path / "moved")
            path.write_text("another's")
            raise VirtError("no")

    with pytest.raises(VirtError):
        asyncio.run(work())
    assert path.read_text() == "another's"


def test_a_pipe_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    async def work() -> None:
        async with _new_file(str(tmp_path / "pipe")):
            pass

    with pytest.raises(SystemError_, match="No such device or address"):
        asyncio.run(work())
