"""The guest's memory: size, where it is kept, NUMA nodes, DIMMs."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.address import put_address
from pyvirtd.drivers.qemu.command.backends import Wanted, backend, guest_nodes
from pyvirtd.drivers.qemu.command.context import Builder, Props
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.cpu import (
    AllocationMode,
    CacheAssociativity,
    CachePolicy,
    LatencyType,
    NumaLatency,
)
from pyvirtd.model.devices import MemoryDevice, MemoryDeviceSource, MemoryModel, MemoryTarget
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.types import format_bitmap

KIB_PER_MIB = 1024
PSERIES_ALIGN_KIB = 256 * 1024
MODULE_ALIGN_KIB = 2 * 1024


def _round(kib: int, align: int) -> int:
    return -(-kib // align) * align


def align_memory(build: Builder) -> None:
    """Sizes that the machine can have; the live definition shows them."""
    definition, pseries = build.definition, build.board.ppc64
    align = PSERIES_ALIGN_KIB if pseries else KIB_PER_MIB
    module = PSERIES_ALIGN_KIB if pseries else KIB_PER_MIB if build.board.s390 else MODULE_ALIGN_KIB
    initial = definition.memory.kib - plugged_kib(definition)
    for device in definition.devices.memory:
        target = device.target
        if target is not None and target.size_kib and not (pseries and device.model is MemoryModel.NVDIMM):
            target.size_kib = _round(target.size_kib, module)
    cells = guest_nodes(build)
    for cell in cells:
        cell.memory_kib = _round(cell.memory_kib or 0, align)
    initial = sum(cell.memory_kib or 0 for cell in cells) if cells else _round(initial, align)
    definition.memory.kib = initial + plugged_kib(definition)
    if definition.max_memory is not None:
        definition.max_memory.kib = _round(definition.max_memory.kib, align)


def plugged_kib(definition: DomainDef) -> int:
    """Memory in devices."""
    return sum((device.target.size_kib or 0) if device.target else 0 for device in definition.devices.memory)


def initial_kib(build: Builder) -> int:
    """Memory at start, without DIMMs."""
    return build.definition.memory.kib - plugged_kib(build.definition)


def default_memory_backend(build: Builder) -> str | None:
    """The object that holds all memory of a guest without NUMA; None where the nodes have objects of their own."""
    if guest_nodes(build):
        return None
    machine = build.caps.machine(build.board.machine, build.definition.type)
    return machine.default_ram_id if machine else None


def build_memory(build: Builder) -> None:
    """-m, and the object behind it"""
    kib = initial_kib(build)
    maximum = build.definition.max_memory
    if maximum is not None:
        build.command.add("-m", f"size={kib}k,slots={maximum.slots},maxmem={maximum.kib}k")
    else:
        build.command.add("-m", str(kib // KIB_PER_MIB))
    name = default_memory_backend(build)
    if name is not None:
        build.object(backend(build, Wanted(name, kib, board=True)))


def build_numa(build: Builder) -> None:
    """Nodes, distances and the memory attributes table"""
    cells = guest_nodes(build)
    for cell in cells:
        build.object(backend(build, Wanted(f"ram-node{cell.id}", cell.memory_kib or 0, cell.id)))
    initiators = _initiators(build)
    for cell in cells:
        words = ["node", f"nodeid={cell.id}"]
        if cell.cpus:
            words += [f"cpus={part}" for part in format_bitmap(cell.cpus).split(",")]
        if initiators:
            words.append(f"initiator={initiators[cell.id or 0]}")
        words.append(f"memdev=ram-node{cell.id}")
        build.command.add("-numa", ",".join(words))
    for cell in cells:
        for sibling in cell.distances:
            build.command.add("-numa", f"dist,src={cell.id},dst={sibling.id},val={sibling.value}")
    _hmat(build)


def _initiators(build: Builder) -> dict[int, int]:
    """With a memory attributes table each node names the nearest node with processors."""
    cpu = build.definition.cpu
    if cpu is None or cpu.numa is None:
        return {}
    cells = cpu.numa.cell
    if not cpu.numa.interconnects and not any(cell.cache for cell in cells):
        return {}
    first = next((cell.id or 0 for cell in cells if cell.cpus), 0)
    return {cell.id or 0: (cell.id or 0) if cell.cpus else first for cell in cells}


_POLICIES = {
    CachePolicy.NONE: "none",
    CachePolicy.WRITEBACK: "write-back",
    CachePolicy.WRITETHROUGH: "write-through",
}
_ASSOCIATIVITIES = {
    CacheAssociativity.NONE: "none",
    CacheAssociativity.DIRECT: "direct",
    CacheAssociativity.FULL: "complex",
}
_LEVELS = ("memory", "first-level", "second-level", "third-level")
_DATA = {LatencyType.ACCESS: "access", LatencyType.READ: "read", LatencyType.WRITE: "write"}


def _hmat(build: Builder) -> None:
    cpu = build.definition.cpu
    if cpu is None or cpu.numa is None:
        return
    for entry in cpu.numa.interconnects:
        words = [
            "hmat-lb",
            f"initiator={entry.initiator}",
            f"target={entry.target}",
            f"hierarchy={_LEVELS[entry.cache or 0]}",
        ]
        if isinstance(entry, NumaLatency):
            words += [f"data-type={_DATA[entry.type]}-latency", f"latency={entry.value}"]
        else:
            words += [f"data-type={_DATA[entry.type]}-bandwidth", f"bandwidth={entry.value_kib}K"]
        build.command.add("-numa", ",".join(words))
    for cell in cpu.numa.cell:
        for cache in cell.cache:
            build.command.add(
                "-numa",
                f"hmat-cache,node-id={cell.id},size={cache.size_kib}K,level={cache.level},"
                f"associativity={_ASSOCIATIVITIES[cache.associativity]},policy={_POLICIES[cache.policy]},"
                f"line={cache.line_bytes}",
            )


def build_memory_devices(build: Builder) -> None:
    """DIMMs and other memory that is a device"""
    for device in build.definition.devices.memory:
        build.object(_device_backend(build, device))
        build.device(_device(build, device))


def _device_backend(build: Builder, device: MemoryDevice) -> Props:
    source, target, model = device.source or MemoryDeviceSource(), device.target or MemoryTarget(), device.model
    wanted = Wanted(
        f"mem{device.info.alias}",
        target.size_kib or 0,
        target.node,
        access=device.access,
        discard=device.discard,
        page_kib=source.pagesize_kib,
        host_nodes=source.nodemask,
        path=source.path if model in (MemoryModel.NVDIMM, MemoryModel.VIRTIO_PMEM) else None,
        align_kib=source.alignsize_kib,
        pmem=source.pmem,
        nonvolatile=model is MemoryModel.NVDIMM and not source.pmem,
        lazy=model is MemoryModel.VIRTIO_MEM,
        name=device.info.alias,
    )
    return backend(build, wanted)


_DEVICES = {
    MemoryModel.DIMM: "pc-dimm",
    MemoryModel.NVDIMM: "nvdimm",
    MemoryModel.VIRTIO_PMEM: "virtio-pmem-pci",
    MemoryModel.VIRTIO_MEM: "virtio-mem-pci",
}


def _device(build: Builder, device: MemoryDevice) -> Props:
    target = device.target
    if device.model not in _DEVICES:
        raise ConfigUnsupported(f"memory device model '{device.model}' is not supported", domain=ErrorDomain.QEMU)
    props = Props(driver=_DEVICES[device.model])
    if target is not None:
        props.put("node", target.node)
        if target.label is not None and target.label.size_kib:
            props.put("label-size", target.label.size_kib * 1024)
        if device.model is MemoryModel.VIRTIO_MEM:
            props.put("block-size", (target.block_kib or 0) * 1024)
            props.put("requested-size", (target.requested_kib or 0) * 1024)
            allocation = build.definition.memory_backing.allocation if build.definition.memory_backing else None
            if allocation is not None and allocation.mode is AllocationMode.IMMEDIATE:
                props.put("prealloc", True)
    if device.uuid is not None and build.board.ppc64:
        props.put("uuid", device.uuid)
    if target is not None and target.readonly:
        props.put("unarmed", True)
    props.put("memdev", f"mem{device.info.alias}").put("id", device.info.alias)
    put_address(build, props, device.info)
    return props
