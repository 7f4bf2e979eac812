"""Resource control of the processor: shares of caches and of memory bandwidth, and counting their use.

A group is a directory of the resctrl file system: `tasks` are its threads, `schemata` its shares; a group in
`mon_groups` only counts. https://docs.kernel.org/arch/x86/resctrl.html

Everything here blocks: for a thread.
"""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.host_topology import CacheBank
from pyvirtd.errors import ConfigUnsupported, OperationTimeout, VirtError, from_os_error

ROOT = Path("/sys/fs/resctrl")
MEMORY = "MB"  # the resource of memory bandwidth, in percent
MONITORS = "mon_groups"
LOCK_S, LOCK_POLL_S = 10.0, 0.05

Schemata: TypeAlias = dict[str, dict[int, int]]  # resource -> cache or node -> mask of the cache's ways, or percent


class CacheShare(NamedTuple):
    """A part of one cache. `kind`: both, code or data."""

    level: int
    id: int
    kind: str
    size: int  # bytes

    @property
    def resource(self) -> str:
        """The kernel's name of what is shared."""
        return f"L{self.level}{'' if self.kind == 'both' else self.kind.upper()}"


class Count(NamedTuple):
    """What a group uses of one cache, or has moved through one memory controller."""

    id: int
    value: int


class Resctrl:
    """The file system, below a root of its own in tests."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root

    @property
    def usable(self) -> bool:
        """The processor can, and the file system is mounted."""
        return (self.root / "info").is_dir()

    # --- groups ------------------------------------------------------------------------------------------------

    def make(
        self, name: str, caches: Iterable[CacheShare], memory: Mapping[int, int], banks: Iterable[CacheBank]
    ) -> None:
        """A group with shares of its own. Raises VirtError; then there is none."""
        with self._locked():
            text = format_schemata(self._shares(caches, memory, list(banks)))
            path = self.root / name
            try:
                self.make_directory(path)
                self.write(path / "schemata", text)
            except OSError as exc:
                self.remove(name)
                raise from_os_error(exc, f"Cannot create resctrl group '{path}'", domain=From.RESCTRL) from exc

    def make_monitor(self, group: str, name: str) -> None:
        """A group that counts; `group` is whose threads it takes, "" for the default one. Raises VirtError."""
        path = self.root / group / MONITORS / name
        try:
            self.make_directory(path)
        except OSError as exc:
            raise from_os_error(exc, f"Cannot create resctrl monitor '{path}'", domain=From.RESCTRL) from exc

    def add(self, path: str, tid: int) -> None:
        """Put a thread into a group. Raises VirtError; one that ended needs none."""
        try:
            self.write(self.root / path / "tasks", f"{tid}\n")
        except ProcessLookupError:
            return
        except OSError as exc:
            raise from_os_error(exc, f"Cannot put thread {tid} into '{self.root / path}'", domain=From.RESCTRL) from exc

    def remove(self, path: str) -> None:
        """Remove a group; its threads fall back to the one above. Of one that is gone nothing is left to do."""
        with suppress(FileNotFoundError):
            self.remove_directory(self.root / path)

    def remove_left(self, prefix: str) -> None:
        """Remove all groups whose names begin like that. Raises OSError."""
        for folder in (self.root / MONITORS, self.root):
            with suppress(FileNotFoundError):
                for entry in list(os.scandir(folder)):
                    if entry.name.startswith(prefix):
                        self.remove_directory(folder / entry.name)

    def counts(self, path: str, name: str) -> list[Count]:
        """What a group's file of that name says of each cache or node; nothing where the kernel does not count it."""
        found = []
        with suppress(OSError):
            for folder in sorted((self.root / path / "mon_data").iterdir()):
                number = folder.name.rpartition("_")[2]
                with suppress(OSError, ValueError):
                    found.append(Count(int(number), int((folder / name).read_text())))
        return found

    def can_count(self, name: str) -> bool:
        """The processor counts that."""
        with suppress(OSError):
            return name in (self.root / "info/L3_MON/mon_features").read_text().split()
        return False

    # --- shares ------------------------------------------------------------------------------------------------

    def _shares(self, caches: Iterable[CacheShare], memory: Mapping[int, int], banks: list[CacheBank]) -> Schemata:
        """All shares of a new group: those that are wanted, and the default group's for the rest."""
        shares = self._schemata("")
        others = [shares, *(self._schemata(name) for name in self._names())]
        wanted: Schemata = {name: dict(rest) for name, rest in shares.items()}
        given: set[tuple[str, int]] = set()
        for share in caches:
            full, least = self._full(share), self._number(share.resource, "min_cbm_bits")
            if (share.resource, share.id) in given:
                raise _unsupported(
                    f"Colliding cache allocations for cache level '{share.level}' id '{share.id}', type '{share.kind}'"
                )
            given.add((share.resource, share.id))
            taken = 0
            for other in others:
                taken |= other.get(share.resource, {}).get(share.id, 0)
            bits = _bits(share, _size(share, banks) // full.bit_count(), least)
            wanted[share.resource][share.id] = _fit(share, full & ~taken, bits)
        for node, percent in memory.items():
            self._check_bandwidth(node, percent, shares, others[1:])
            wanted[MEMORY][node] = percent
        return wanted

    def _full(self, share: CacheShare) -> int:
        """All ways of a cache. Raises ConfigUnsupported where the host does not share it like that."""
        try:
            full = int((self.root / "info" / share.resource / "cbm_mask").read_text(), 16)
        except (OSError, ValueError):
            full = 0
        if not full or share.id not in self._schemata("").get(share.resource, {}):
            raise _unsupported(
                f"Cache level {share.level} id {share.id} does not support tuning for scope type '{share.kind}'"
            )
        return full

    def _check_bandwidth(self, node: int, percent: int, shares: Schemata, others: list[Schemata]) -> None:
        if node not in shares.get(MEMORY, {}):
            raise _unsupported(f"Memory Bandwidth allocation of node {node} is not supported by this host")
        step, least = self._number(MEMORY, "bandwidth_gran"), self._number(MEMORY, "min_bandwidth")
        if percent % step:
            raise _unsupported(f"Memory Bandwidth allocation of size {percent} is not divisible by granularity {step}")
        if percent < least:
            raise _unsupported(
                f"Memory Bandwidth allocation of size {percent} is smaller than the minimum allowed allocation {least}"
            )
        # A group that has all is one without a share of its own.
        used = sum(one for other in others if (one := other.get(MEMORY, {}).get(node, 100)) < 100)
        if used + percent > 100:
            raise _unsupported(
                f"Not enough room for allocation of {percent}% bandwidth on node {node}, "
                f"available bandwidth {100 - used}%"
            )

    def _number(self, resource: str, name: str) -> int:
        with suppress(OSError, ValueError):
            return max(1, int((self.root / "info" / resource / name).read_text()))
        return 1

    def _names(self) -> list[str]:
        """The groups beside the default one."""
        with suppress(OSError):
            return sorted(entry.name for entry in os.scandir(self.root) if (Path(entry.path) / "schemata").is_file())
        return []

    def _schemata(self, name: str) -> Schemata:
        with suppress(OSError):
            return parse_schemata((self.root / name / "schemata").read_text())
        return {}

    # --- files -------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else chooses shares meanwhile: resctrl's own convention. Raises OperationTimeout, SystemError_."""
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise from_os_error(exc, "Cannot open resctrl", domain=From.RESCTRL) from exc
        try:
            deadline = time.monotonic() + LOCK_S
            while not _lock(fd):
                if time.monotonic() > deadline:
                    raise OperationTimeout(f"'{self.root}' is locked by another program", domain=From.RESCTRL)
                time.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(fd)

    def make_directory(self, path: Path) -> None:
        """Have the kernel make a group. Raises OSError."""
        os.mkdir(path)

    def remove_directory(self, path: Path) -> None:
        """Have the kernel remove a group with its files. Raises OSError."""
        os.rmdir(path)

    def write(self, path: Path, text: str) -> None:
        """Tell the kernel, in one call. Raises OSError."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


HOST = Resctrl()


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def parse_schemata(text: str) -> Schemata:
    """A group's shares: "L3:0=f;1=ff" and "MB:0=50;1=100", a resource a line."""
    found: Schemata = {}
    for line in text.splitlines():
        name, colon, rest = line.strip().partition(":")
        if colon:
            pairs = [part.partition("=") for part in rest.split(";")]
            base = 10 if name == MEMORY else 16
            found[name] = {int(number): int(value, base) for number, _, value in pairs}
    return found


def format_schemata(shares: Schemata) -> str:
    """What `parse_schemata` reads."""
    lines = []
    for name, rest in shares.items():
        form = "d" if name == MEMORY else "x"
        lines.append(f"{name}:" + ";".join(f"{number}={value:{form}}" for number, value in rest.items()))
    return "".join(f"{line}\n" for line in lines)


def _size(share: CacheShare, banks: list[CacheBank]) -> int:
    for bank in banks:
        if (bank.id, bank.level) == (share.id, share.level):
            return bank.size_kib << 10
    raise _unsupported(f"Cache level {share.level} id {share.id} is not known to this host")


def _bits(share: CacheShare, step: int, least: int) -> int:
    """How many ways a share takes; a way has `step` bytes. Raises ConfigUnsupported."""
    if share.size % step:
        raise _unsupported(f"Cache allocation of size {share.size} is not divisible by granularity {step}")
    if share.size // step < least:
        raise _unsupported(
            f"Cache allocation of size {share.size} is smaller than the minimum allowed allocation {step * least}"
        )
    return share.size // step


def _fit(share: CacheShare, free: int, bits: int) -> int:
    """The smallest gap of free ways beside each other that is large enough; of its ways the lowest."""
    gaps: list[tuple[int, int]] = []  # size, first way
    for way in range(free.bit_length()):
        if free >> way & 1:
            if gaps and sum(gaps[-1]) == way:
                gaps[-1] = (gaps[-1][0] + 1, gaps[-1][1])
            else:
                gaps.append((1, way))
    fits = sorted(gap for gap in gaps if gap[0] >= bits)
    if not fits:
        raise _unsupported(
            f"Not enough room for allocation of {share.size} bytes for level {share.level} cache {share.id} "
            f"scope type '{share.kind}'"
        )
    return (1 << bits) - 1 << fits[0][1]


def _unsupported(text: str) -> VirtError:
    return ConfigUnsupported(text, domain=From.RESCTRL)
