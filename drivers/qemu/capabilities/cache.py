"""Capabilities of emulators, probed when first asked for, kept in memory and on disk until their ground changes.

What they rest on is `Identity`. One probe at a time per binary; who asks meanwhile waits for the same answer. A failed
probe is remembered too, until the binary changes or `RETRY_AFTER_S` passed.
"""

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.capabilities.model import QemuCapabilities
from pyvirtd.errors import VirtError, from_os_error

log = logging.getLogger(__name__)

FORMAT = 5  # of the files; another number makes them void
RETRY_AFTER_S = 60.0
LOOK_EVERY_S = 0.05  # at the host's facts, which all binaries share
PROBES_AT_ONCE = 2
# where distributions put QEMU's loadable modules; the first that exists counts
MODULE_DIRS = (
    f"/usr/lib/{os.uname().machine}-linux-gnu/qemu",
    "/usr/lib64/qemu-kvm",
    "/usr/lib64/qemu",
    "/usr/lib/qemu",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """All that a probe's answer depends on: the answer is good as long as this stays the same."""

    path: str
    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int
    modules_mtime_ns: int
    kernel: str
    kvm: str
    microcode: str
    format: int = FORMAT


class _Facts(NamedTuple):
    """The host's share of an identity, in its order."""

    modules_mtime_ns: int
    kernel: str
    kvm: str
    microcode: str


class _Stamp(NamedTuple):
    """An identity but for the path and the format; the file's share first, in its order."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int
    facts: _Facts


class _Entry(NamedTuple):
    stamp: _Stamp
    result: QemuCapabilities | VirtError
    at: float  # time.monotonic()

    def is_good(self, stamp: _Stamp) -> bool:
        if self.stamp != stamp:
            return False
        return not isinstance(self.result, VirtError) or time.monotonic() - self.at < RETRY_AFTER_S


class CapabilitiesCache:
    """Capabilities by binary. Give it to everyone who needs them; `close()` when the driver stops.

    `directory` is where the files are (None: memory only), `probe` asks a binary.
    """

    def __init__(self, directory: Path | None, probe: Callable[[str], Awaitable[QemuCapabilities]]) -> None:
        self.directory = directory
        self._probe = probe
        self._entries: dict[str, _Entry] = {}
        self._running: dict[str, asyncio.Task[QemuCapabilities]] = {}
        self._slots = asyncio.Semaphore(PROBES_AT_ONCE)
        self._host = _HostFacts()

    async def get(self, binary: str) -> QemuCapabilities:
        """The capabilities of that path. Raises ProbeFailed, or SystemError_ if the path cannot be run.

        The caller has made sure that the path may be run at all: `emulators.allowed`.
        """
        stamp = self._stamp(binary)
        if (entry := self._entries.get(binary)) is not None and entry.is_good(stamp):
            if isinstance(entry.result, VirtError):
                raise entry.result.with_traceback(None)
            return entry.result
        task = self._running.get(binary)
        if task is None:
            task = asyncio.create_task(self._fill(binary, stamp), name=f"probe {binary}")
            self._running[binary] = task
            task.add_done_callback(lambda done: self._ended(binary, done))
        # one asker that goes away must not take the answer from the others
        return await asyncio.shield(task)

    def cached(self, binary: str) -> QemuCapabilities | None:
        """What is already in memory and still good; never waits."""
        entry = self._entries.get(binary)
        if entry is None or isinstance(entry.result, VirtError):
            return None
        with contextlib.suppress(VirtError):
            return entry.result if entry.is_good(self._stamp(binary)) else None
        return None

    async def close(self) -> None:
        """Stop the probes under way; their children are gone when this returns."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stamp(self, binary: str) -> _Stamp:
        try:
            status = os.stat(binary)
        except OSError as exc:
            raise from_os_error(exc, f"Cannot check QEMU binary {binary}", domain=ErrorDomain.QEMU) from exc
        facts = self._host.facts()
        return _Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, facts)

    async def _fill(self, binary: str, stamp: _Stamp) -> QemuCapabilities:
        _check_executable(binary)
        identity = Identity(binary, *stamp[:4], *stamp.facts)
        caps = await asyncio.to_thread(self._load, identity)
        if caps is None:
            async with self._slots:
                started = time.monotonic()
                caps = await self._probe(binary)
                log.debug("probed %s in %.3f s", binary, time.monotonic() - started)
            await asyncio.to_thread(self._save, identity, caps)
        self._entries[binary] = _Entry(stamp, caps, time.monotonic())
        return caps

    def _ended(self, binary: str, task: asyncio.Task[QemuCapabilities]) -> None:
        del self._running[binary]
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, VirtError):
            log.warning("Failed to probe capabilities for %s: %s", binary, error)
            with contextlib.suppress(VirtError):
                self._entries[binary] = _Entry(self._stamp(binary), error, time.monotonic())

    def _file(self, binary: str) -> Path | None:
        return self.directory and self.directory / f"{hashlib.sha256(binary.encode()).hexdigest()}.json"

    def _load(self, identity: Identity) -> QemuCapabilities | None:
        """What the file holds, if it is about this identity; a missing, old or broken file is no answer."""
        file = self._file(identity.path)
        if file is None:
            return None
        try:
            data: dict[str, Any] = json.loads(file.read_bytes())
            return QemuCapabilities.from_json(data["capabilities"]) if data["identity"] == asdict(identity) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            log.info("Cannot use %s: %r", file, exc)
            return None

    def _save(self, identity: Identity, caps: QemuCapabilities) -> None:
        """Written beside and renamed: a reader sees a whole file. It need not survive a crash of the host."""
        file = self._file(identity.path)
        if file is None:
            return
        text = json.dumps({"identity": asdict(identity), "capabilities": caps.to_json()}, separators=(",", ":"))
        beside = file.with_suffix(f".{os.getpid()}.new")
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.write_text(text)
            beside.rename(file)
        except OSError as exc:
            log.warning("Cannot keep capabilities in %s: %s", file, exc)


class _HostFacts:
    """Looks at the host no more often than `LOOK_EVERY_S`: many binaries asked about at once share one look."""

    def __init__(self) -> None:
        names = os.uname()
        self._kernel = f"{names.release} {names.version}"
        self._microcode = ""
        self._facts = _Facts(0, "", "", "")
        self._looked_at = self._microcode_at = -1e9

    def facts(self) -> _Facts:
        now = time.monotonic()
        if now - self._looked_at > LOOK_EVERY_S:
            if now - self._microcode_at > RETRY_AFTER_S:
                self._microcode = _read_microcode()
                self._microcode_at = now
            facts = _Facts(_modules_mtime_ns(), self._kernel, _kvm_access(), self._microcode)
            # the same object as long as nothing changed: comparing is cheap then
            self._facts = self._facts if facts == self._facts else facts
            self._looked_at = now
        return self._facts


def _check_executable(binary: str) -> None:
    reason: OSError | None = None
    if os.path.isdir(binary):
        reason = IsADirectoryError(errno.EISDIR, "")
    elif not os.access(binary, os.X_OK):
        reason = PermissionError(errno.EACCES, "")
    if reason is not None:
        raise from_os_error(reason, f"QEMU binary {binary} is not executable", domain=ErrorDomain.QEMU)


def _modules_mtime_ns() -> int:
    for directory in MODULE_DIRS:
        with contextlib.suppress(OSError):
            return os.stat(directory).st_mtime_ns
    return 0


def _kvm_access() -> str:
    """Who may open /dev/kvm; the empty string where it is missing."""
    try:
        status = os.stat("/dev/kvm")
    except OSError:
        return ""
    return f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {os.access('/dev/kvm', os.R_OK | os.W_OK)}"


def _read_microcode() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("microcode"):
                    return line.partition(":")[2].strip()
                if not line.strip():
                    break
    except OSError as exc:
        log.debug("cannot read the microcode version: %s", exc)
    return ""
