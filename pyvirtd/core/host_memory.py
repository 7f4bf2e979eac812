"""Memory of the host: totals, NUMA cells, huge page pools, page sharing (KSM). Parsers are pure, readers read one file.

https://docs.kernel.org/admin-guide/mm/hugetlbpage.html, https://docs.kernel.org/admin-guide/mm/ksm.html
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from pyvirtd.api.types import TypedParam, param_uint, param_ullong
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.host_topology import node_numbers, read_small
from pyvirtd.core.params import checked
from pyvirtd.errors import OperationFailed, OperationUnsupported, from_os_error

WHOLE_HOST = -1
_TOTAL = re.compile(r"MemTotal:\s+(\d+)").search
_FREE = re.compile(r"MemFree:\s+(\d+)").search


class Memory(NamedTuple):
    total_kib: int
    free_kib: int


class Pages(NamedTuple):
    """One pool: pages of `size_kib`, how many there are and how many of them are free."""

    size_kib: int
    total: int
    free: int


def parse_meminfo(text: str) -> dict[str, int]:
    """Fields of /proc/meminfo or a node's meminfo ("Node 0 MemTotal: 5 kB") in KiB."""
    return {name: int(value) for name, value in re.findall(r"^(?:Node \d+ )?(\S+):\s+(\d+)", text, re.MULTILINE)}


def node_memory(node: int, root: Path = Path("/")) -> Memory | None:
    """Total and free of one NUMA node; None if it does not exist."""
    try:
        text = read_small(f"{root}/sys/devices/system/node/node{node}/meminfo")
    except OSError:
        return None
    total, free = _TOTAL(text), _FREE(text)
    return Memory(int(total[1]) if total else 0, int(free[1]) if free else 0)


def host_memory(root: Path = Path("/")) -> Memory:
    """The sum of all NUMA nodes, which is what libvirt shows as the host's memory, else the kernel's own total."""
    nodes = [memory for node in node_numbers(root) if (memory := node_memory(node, root))]
    if nodes:
        return Memory(sum(m.total_kib for m in nodes), sum(m.free_kib for m in nodes))
    page_kib = page_size_kib()
    return Memory(os.sysconf("SC_PHYS_PAGES") * page_kib, os.sysconf("SC_AVPHYS_PAGES") * page_kib)


def page_size_kib() -> int:
    """The size of an ordinary page."""
    return os.sysconf("SC_PAGE_SIZE") // 1024


def _pools(node: int, root: Path) -> str:
    if node == WHOLE_HOST:
        return f"{root}/sys/kernel/mm/hugepages"
    return f"{root}/sys/devices/system/node/node{node}/hugepages"


def huge_page_sizes(node: int = WHOLE_HOST, root: Path = Path("/")) -> list[int]:
    """Sizes in KiB of the pools of a node or of the host, the smallest first."""
    try:
        names = os.listdir(_pools(node, root))
    except OSError:
        return []
    return sorted(int(name[10:-2]) for name in names if name.startswith("hugepages-"))


def huge_pages(node: int, size_kib: int, root: Path = Path("/")) -> Pages:
    """One pool. Raises OperationFailed if the node has no pages of that size."""
    directory = f"{_pools(node, root)}/hugepages-{size_kib}kB"
    try:
        total = int(read_small(f"{directory}/nr_hugepages"))
        return Pages(size_kib, total, int(read_small(f"{directory}/free_hugepages")))
    except FileNotFoundError as exc:
        where = "" if node == WHOLE_HOST else f" on node {node}"
        raise OperationFailed(f"page size {size_kib} is not available{where}") from exc


def all_pages(node: int, memory: Memory, root: Path = Path("/")) -> list[Pages]:
    """All pools of a node, ordinary pages first: these are what memory the huge ones leave."""
    huge = [huge_pages(node, size, root) for size in huge_page_sizes(node, root)]
    ordinary = memory.total_kib - sum(pool.size_kib * pool.total for pool in huge)
    size = page_size_kib()
    return [Pages(size, max(ordinary, 0) // size, memory.free_kib // size), *huge]


def free_pages(node: int, size_kib: int, root: Path = Path("/")) -> int:
    """Free pages of that size. Raises OperationFailed if there is no such size."""
    if size_kib != page_size_kib():
        return huge_pages(node, size_kib, root).free
    memory = host_memory(root) if node == WHOLE_HOST else node_memory(node, root)
    return memory.free_kib // size_kib if memory else 0


def set_huge_pages(node: int, size_kib: int, count: int, *, add: bool, root: Path = Path("/")) -> None:
    """Make the pool `count` pages large, or larger by `count`. Raises OperationFailed if the kernel gives fewer."""
    if size_kib == page_size_kib():
        raise OperationUnsupported("system pages pool can't be modified")
    before = huge_pages(node, size_kib, root).total
    wanted = before + count if add else count
    if wanted == before:
        return
    path = Path(_pools(node, root), f"hugepages-{size_kib}kB", "nr_hugepages")
    try:
        path.write_text(str(wanted))
    except OSError as exc:
        raise from_os_error(exc, f"Unable to write to {path}") from exc
    after = huge_pages(node, size_kib, root).total
    if wanted > before and after < wanted:
        raise OperationFailed(f"Unable to allocate {wanted - before} pages. Allocated only {max(after - before, 0)}")


# Page sharing. name -> (file under /sys/kernel/mm/ksm, type)
_KSM = {
    "shm_pages_to_scan": ("pages_to_scan", Kind.UINT),
    "shm_sleep_millisecs": ("sleep_millisecs", Kind.UINT),
    "shm_pages_shared": ("pages_shared", Kind.ULLONG),
    "shm_pages_sharing": ("pages_sharing", Kind.ULLONG),
    "shm_pages_unshared": ("pages_unshared", Kind.ULLONG),
    "shm_pages_volatile": ("pages_volatile", Kind.ULLONG),
    "shm_full_scans": ("full_scans", Kind.ULLONG),
    "shm_merge_across_nodes": ("merge_across_nodes", Kind.UINT),
}
_KSM_WRITABLE = ("shm_pages_to_scan", "shm_sleep_millisecs", "shm_merge_across_nodes")


def ksm_parameters(root: Path = Path("/")) -> list[TypedParam]:
    """The parameters this kernel has."""
    found = []
    for name, (file, kind) in _KSM.items():
        try:
            value = int(read_small(f"{root}/sys/kernel/mm/ksm/{file}"))
        except FileNotFoundError:
            continue
        found.append(param_uint(name, value) if kind is Kind.UINT else param_ullong(name, value))
    return found


def set_ksm_parameters(params: list[TypedParam], root: Path = Path("/")) -> None:
    """Write all or none: every name is checked before the first is written."""
    wanted = checked(params, dict.fromkeys(_KSM_WRITABLE, Kind.UINT))
    for name in wanted:
        if not (root / "sys/kernel/mm/ksm" / _KSM[name][0]).exists():
            raise OperationUnsupported(f"Parameter '{name}' is not supported by this kernel")
    for name, value in wanted.items():
        try:
            (root / "sys/kernel/mm/ksm" / _KSM[name][0]).write_text(str(value))
        except OSError as exc:
            raise from_os_error(exc, f"failed to set {name}") from exc
