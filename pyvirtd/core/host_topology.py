"""CPUs, NUMA cells and caches of the host, read from sysfs. Reading scans directories: call it from a thread.

`root` is "/" but for tests. What can change while the daemon runs (CPUs going off line) is found by reading again.
https://docs.kernel.org/admin-guide/cputopology.html
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Cpu(NamedTuple):
    """One CPU of a cell. Without topology in sysfs (an unusual kernel) only the number is known."""

    id: int
    socket: int | None
    die: int | None
    core: int | None
    siblings: str | None  # as a list of CPUs, "0,4"


class Cell(NamedTuple):
    """One NUMA node: its CPUs that are on line and the distance to each node, itself included."""

    id: int
    cpus: tuple[Cpu, ...]
    distances: tuple[tuple[int, int], ...]


class CacheBank(NamedTuple):
    """A last-level cache: `kind` in libvirt's words (both, code, data), CPUs as a list ("0-3")."""

    id: int
    level: int
    kind: str
    size_kib: int
    cpus: str


class Topology(NamedTuple):
    """The host's CPUs. `nodes * sockets * cores * threads` is all CPUs, or all stand as cores of one socket."""

    present: frozenset[int]
    online: frozenset[int]
    cells: tuple[Cell, ...]
    caches: tuple[CacheBank, ...]
    nodes: int
    sockets: int
    cores: int
    threads: int


LOWEST_CACHE_SHOWN = 3
_CACHE_KINDS = {"Unified": "both", "Instruction": "code", "Data": "data"}


def read_small(path: Path | str) -> str:
    """A file of sysfs, in one system call of reading: the kernel makes it when asked, at most a page of it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536).decode()
    finally:
        os.close(fd)


def parse_list(text: str) -> frozenset[int]:
    """The kernel's list format: "0-2,5" is {0, 1, 2, 5}."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def format_list(numbers: Iterable[int]) -> str:
    """The shortest list that `parse_list` reads back."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def read_topology(root: Path = Path("/")) -> Topology:
    """All of it. A host without NUMA directories counts as one cell that has every CPU."""
    cpu_dir, node_dir = root / "sys/devices/system/cpu", root / "sys/devices/system/node"
    online = parse_list(_text(cpu_dir / "online"))
    present = parse_list(_text(cpu_dir / "present")) or online
    cpus = {number: _read_cpu(cpu_dir / f"cpu{number}", number) for number in sorted(online)}
    cells = tuple(_read_cell(node_dir / f"node{n}", n, cpus) for n in node_numbers(root))
    if not cells:
        cells = (Cell(0, tuple(cpus.values()), ()),)
    shape = _shape(cells, len(present))
    return Topology(present, online, cells, _read_caches(cpu_dir, cpus), *shape)


def node_numbers(root: Path = Path("/")) -> list[int]:
    """The NUMA nodes that sysfs shows, in order; none on a kernel without NUMA."""
    return sorted(parse_list(_text(f"{root}/sys/devices/system/node/online")))


def online_text(root: Path = Path("/")) -> str:
    """One small read that changes when a CPU comes or goes."""
    return _text(f"{root}/sys/devices/system/cpu/online")


def _shape(cells: tuple[Cell, ...], present: int) -> tuple[int, int, int, int]:
    """(nodes, sockets, cores, threads) as libvirt counts: the largest of each, if their product is all CPUs.

    Where it is not (unequal sockets, CPUs off line), every CPU is a core of one socket in one node.
    """
    nodes = [cell for cell in cells if cell.cpus]
    sockets = max((len({c.socket for c in cell.cpus}) for cell in nodes), default=1)
    cores = threads = 1
    for cell in nodes:
        for socket in {c.socket for c in cell.cpus}:
            cores = max(cores, len({c.core for c in cell.cpus if c.socket == socket}))
        threads = max(threads, *(len(parse_list(c.siblings or "0")) for c in cell.cpus))
    if len(cells) * sockets * cores * threads != present:
        return 1, 1, max(present, 1), 1
    return len(cells), sockets, cores, threads


def _read_cell(directory: Path, number: int, cpus: dict[int, Cpu]) -> Cell:
    here = sorted(parse_list(_text(directory / "cpulist")))
    values = [int(word) for word in _text(directory / "distance").split()]
    others = node_numbers(directory.parents[4])
    distances = tuple(zip(others, values, strict=False))
    return Cell(number, tuple(cpus[n] for n in here if n in cpus), distances)


def _read_cpu(directory: Path, number: int) -> Cpu:
    topology = directory / "topology"
    core = _number(topology / "core_id")
    if core is None:
        return Cpu(number, None, None, None, None)
    siblings = format_list(parse_list(_text(topology / "thread_siblings_list") or str(number)))
    # a package of -1 is what some ARM and virtual hosts say for "none"
    socket = max(_number(topology / "physical_package_id") or 0, 0)
    return Cpu(number, socket, max(_number(topology / "die_id") or 0, 0), core, siblings)


def _read_caches(cpu_dir: Path, cpus: Iterable[int]) -> tuple[CacheBank, ...]:
    banks = set()
    for number in cpus:
        for directory in (cpu_dir / f"cpu{number}" / "cache").glob("index*"):
            level, bank = _number(directory / "level"), _number(directory / "id")
            if level is None or bank is None or level < LOWEST_CACHE_SHOWN:
                continue
            size = _text(directory / "size").strip()
            kib = int(size[:-1]) * {"K": 1, "M": 1024, "G": 1024 * 1024}[size[-1]] if size else 0
            shared = format_list(parse_list(_text(directory / "shared_cpu_list")))
            kind = _CACHE_KINDS.get(_text(directory / "type").strip(), "both")
            banks.add(CacheBank(bank, level, kind, kib, shared))
    return tuple(sorted(banks, key=lambda b: (b.level, b.kind, b.id)))


def _text(path: Path | str) -> str:
    try:
        return read_small(path)
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text else None
