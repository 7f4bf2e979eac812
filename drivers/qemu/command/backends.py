"""Objects that hold guest memory: where it is kept, who shares it, on which nodes of the host it lies."""

import os
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.context import Builder, Json, Props
from pyvirtd.errors import ConfigUnsupported, InternalError
from pyvirtd.model.cpu import AllocationMode, MemoryBacking, MemorySource, NumaCell, NumaMode, Numatune
from pyvirtd.model.words import MemoryAccess
from pyvirtd.paths import QemuPaths

SYSTEM_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_POLICIES = {NumaMode.STRICT: "bind", NumaMode.PREFERRED: "preferred", NumaMode.INTERLEAVE: "interleave"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one object is for. `node`: the guest's; `board`: memory of the board itself; `path`: a file that is the
    memory, as non-volatile memory has; `nonvolatile`: such memory that must be written now; `lazy`: most of it may
    never be used."""

    id: str
    kib: int
    node: int | None = None
    access: MemoryAccess | None = None
    discard: bool | None = None
    page_kib: int | None = None
    host_nodes: Set[int] | None = None
    path: str | None = None
    align_kib: int | None = None
    pmem: bool = False
    nonvolatile: bool = False
    board: bool = False
    lazy: bool = False
    name: str | None = None  # of the file for its memory, where that is not the object's id


def guest_nodes(build: Builder) -> list[NumaCell]:
    """The guest's NUMA nodes."""
    cpu = build.definition.cpu
    return cpu.numa.cell if cpu is not None and cpu.numa is not None else []


def backing_of(build: Builder) -> MemoryBacking:
    return build.definition.memory_backing or MemoryBacking()


def backend(build: Builder, wanted: Wanted) -> Props:
    """The object's properties. Raises where the host cannot do what is asked for."""
    backing = backing_of(build)
    cell = next((cell for cell in guest_nodes(build) if cell.id == wanted.node), NumaCell())
    access = wanted.access or cell.mem_access or backing.access
    discard = next((word for word in (wanted.discard, cell.discard, backing.discard or None) if word is not None), None)
    huge = None if wanted.path is not None else huge_page_kib(build, wanted)
    props = Props()
    if wanted.path is None and backing.source is MemorySource.MEMFD:
        _memfd(props, wanted, huge)
        discard = None
    elif wanted.path is not None or huge is not None or access is not None or backing.source is MemorySource.FILE:
        _file(build, props, wanted, huge)
    else:
        props.merge({"qom-type": "memory-backend-ram", "id": wanted.id})
        access = discard = None
    if wanted.path is None:
        props.put("discard-data", discard)
    if access is not None:
        props["share"] = access is MemoryAccess.SHARED
    if wanted.board and props["qom-type"] != "memory-backend-ram":
        # memory of the board had no path of its own before; a migration from such a guest must find its blocks
        props["x-use-canonical-path-for-ramblock-id"] = False
    _put_allocation(build, props, wanted, huge)
    props["size"] = wanted.kib * 1024
    if wanted.align_kib:
        props["align"] = wanted.align_kib * 1024
    if wanted.pmem:
        props["pmem"] = True
    _put_host_nodes(build, props, wanted)
    return props


def _memfd(props: Props, wanted: Wanted, huge: int | None) -> None:
    props.merge({"qom-type": "memory-backend-memfd", "id": wanted.id})
    if huge is not None:
        props.put("hugetlb", True).put("hugetlbsize", huge * 1024 or None)


def _file(build: Builder, props: Props, wanted: Wanted, huge: int | None) -> None:
    props.merge({"qom-type": "memory-backend-file", "id": wanted.id})
    if wanted.path is not None:
        props["mem-path"] = wanted.path
    elif huge is not None:
        directory = huge_page_mount(build, huge) / "libvirt/qemu" / _short_name(build)
        build.command.memory_dirs.append(str(directory))
        props["mem-path"] = str(directory)
    else:
        props["mem-path"] = memory_path(build, wanted.name or wanted.id)


def _short_name(build: Builder) -> str:
    return build.context.directory.name.removeprefix("domain-")


def memory_base(config: QemuConfig, paths: QemuPaths) -> Path:
    """The directory that holds each guest's own for its memory."""
    return Path(config.memory_backing_dir) / "libvirt/qemu" if config.memory_backing_dir else paths.ram


def memory_path(build: Builder, name: str) -> str:
    """The file that holds an object's memory."""
    base = memory_base(build.config, build.context.paths)
    directory = base / _short_name(build)
    build.command.memory_dirs.append(str(directory))
    return str(directory / name)


def _put_allocation(build: Builder, props: Props, wanted: Wanted, huge: int | None) -> None:
    """Huge pages and non-volatile memory are taken at once, for running out of them later would be fatal."""
    if wanted.lazy:
        props["reserve"] = False
        return
    allocation = backing_of(build).allocation
    at_once = allocation is not None and allocation.mode is AllocationMode.IMMEDIATE
    if at_once or huge is not None or wanted.nonvolatile:
        props["prealloc"] = True
    if allocation is not None:
        props.put("prealloc-threads", allocation.threads or None)


# Huge pages


def huge_page_kib(build: Builder, wanted: Wanted) -> int | None:
    """The size of huge pages for an object; 0 stands for the host's default, None for ordinary pages."""
    if wanted.page_kib:
        return None if wanted.page_kib == SYSTEM_PAGE_KIB else wanted.page_kib
    pages = backing_of(build).hugepages
    if pages is None:
        return None
    if not pages.page:
        return 0
    size = None
    for page in pages.page:
        if page.nodeset is None:
            size = size or page.size_kib
        elif (wanted.node or 0) in page.nodeset:
            size = page.size_kib
            break
    return None if size == SYSTEM_PAGE_KIB else size


def huge_page_mount(build: Builder, kib: int) -> Path:
    """Where huge pages of that size are mounted (0: any size)."""
    for size, path in build.context.host.huge_pages:
        if kib in (0, size):
            return Path(path)
    if not build.context.host.huge_pages:
        raise InternalError(
            "hugetlbfs filesystem is not mounted or disabled by administrator config", domain=ErrorDomain.QEMU
        )
    raise InternalError(f"Unable to find any usable hugetlbfs mount for {kib} KiB", domain=ErrorDomain.QEMU)


# Nodes of the host


def _put_host_nodes(build: Builder, props: Props, wanted: Wanted) -> None:
    mode, nodes = _binding(build.definition.numatune, wanted)
    if wanted.host_nodes:
        nodes = wanted.host_nodes
    if not nodes:
        return
    check_host_nodes(build, nodes)
    if mode in _POLICIES:
        numbers: list[Json] = [*sorted(nodes)]
        props.put("host-nodes", numbers).put("policy", _POLICIES[mode])


def _binding(tune: Numatune | None, wanted: Wanted) -> tuple[NumaMode, Set[int] | None]:
    """The mode and the nodes that the definition binds a node's memory to."""
    for node in tune.memnode if tune is not None else ():
        if wanted.node is not None and node.cellid == wanted.node:
            return node.mode or NumaMode.STRICT, node.nodeset
    if tune is not None and tune.memory is not None:
        return tune.memory.mode or NumaMode.STRICT, tune.memory.nodeset
    return NumaMode.STRICT, None


def check_host_nodes(build: Builder, nodes: Iterable[int]) -> None:
    """Raises ConfigUnsupported for a node that the host does not have."""
    for node in sorted(nodes):
        if node not in build.context.host.nodes:
            raise ConfigUnsupported(f"NUMA node {node} is unavailable", domain=ErrorDomain.NONE)
