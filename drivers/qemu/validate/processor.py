"""Rules of virtual processors: how many, which, their model, their NUMA nodes, I/O threads, and how they are tuned."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.refuse import detail, internal, qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.drivers.qemu.validate.shares import check_shares
from pyvirtd.errors import XmlError
from pyvirtd.model.cpu import CacheMode, Cpu, CpuMode, MaxPhysAddrMode, NumaCell, NumaMode, Placement
from pyvirtd.model.devices import IommuDriver, IommuModel
from pyvirtd.model.domain import DomainDef

XAPIC_CPUS = 255
SHARES = (2, 262144)
PERIOD = (1000, 1000000)
QUOTA_MIN, QUOTA_MAX = 1000, 17592186044415


def check_vcpus(scope: Scope) -> None:
    """Numbers of processors."""
    definition = scope.definition
    count, topology = definition.vcpu.count, definition.cpu.topology if definition.cpu else None
    machine = scope.caps.machine(scope.board.machine, definition.type)
    if machine is not None and machine.max_cpus and count > machine.max_cpus:
        raise qemu_unsupported(f"Maximum CPUs greater than specified machine type limit {machine.max_cpus}")
    if topology is not None:
        if topology.sockets * topology.dies * topology.cores * topology.threads != count:
            raise qemu_unsupported("CPU topology doesn't match maximum vcpu count")
    if scope.board.x86 and count > XAPIC_CPUS:
        _check_many(scope)
    _check_states(definition)


def _check_many(scope: Scope) -> None:
    if not scope.board.q35:
        raise qemu_unsupported(f"more than {XAPIC_CPUS} vCPUs are only supported on q35-based machine types")
    iommu = scope.devices.iommu
    driver = (iommu.driver if iommu is not None else None) or IommuDriver()
    extended = {IommuModel.INTEL: driver.eim, IommuModel.AMD: driver.xtsup}
    if iommu is None or not extended.get(iommu.model):
        raise qemu_unsupported(
            f"more than {XAPIC_CPUS} vCPUs require extended interrupt mode enabled on the iommu device"
        )


def _check_states(definition: DomainDef) -> None:
    count, orders = definition.vcpu.count, set[int]()
    for state in definition.vcpus:
        if state.id >= count:
            raise xml(f"vcpu id '{state.id}' is out of range of maximum vcpu count")
        if state.order:
            if state.order in orders:
                raise xml(f"vcpu '{state.id}' used multiple times in the order")
            orders.add(state.order)
    if definition.vcpu.current == 0:
        raise qemu_unsupported("vcpu 0 can't be offline")
    if not definition.vcpus:
        return
    first = next((state for state in definition.vcpus if state.id == 0), None)
    if first is None or not first.enabled:
        raise qemu_unsupported("vcpu 0 can't be offline")
    if first.hotpluggable:
        raise qemu_unsupported("vcpu0 can't be hotpluggable")
    if first.order and first.order != 1:
        raise qemu_unsupported("vcpu0 must be enabled first")


def check_cpu(scope: Scope) -> None:
    """What -cpu can say."""
    cpu = scope.definition.cpu
    if cpu is None:
        return
    if cpu.mode is CpuMode.MAXIMUM and not any(m.name == "max" for m in scope.caps.cpu_models(scope.definition.type)):
        raise qemu_unsupported("maximum CPU is not supported by QEMU binary")
    if cpu.model is not None and cpu.model.vendor_id and "," in cpu.model.vendor_id:
        raise XmlError("vendor id is invalid", domain=ErrorDomain.CPU)
    _check_cache(cpu)
    limit = cpu.maxphysaddr
    if limit is not None:
        if limit.mode is MaxPhysAddrMode.EMULATE and not limit.bits:
            raise qemu_unsupported("if using CPU maximum physical address mode='emulate', bits= must be specified too")
        if limit.mode is MaxPhysAddrMode.PASSTHROUGH and limit.bits:
            raise qemu_unsupported(
                "CPU maximum physical address bits number specification cannot be used with mode='passthrough'"
            )


def _check_cache(cpu: Cpu) -> None:
    cache = cpu.cache
    if cache is None:
        return
    if cache.mode is CacheMode.EMULATE:
        if cache.level != 3:
            raise qemu_unsupported(f"CPU cache mode '{cache.mode}' can only be used with level='3'")
    elif cache.mode is CacheMode.PASSTHROUGH:
        if cpu.mode not in (CpuMode.HOST_PASSTHROUGH, CpuMode.MAXIMUM):
            raise qemu_unsupported(
                f"CPU cache mode '{cache.mode}' can only be used with '{CpuMode.HOST_PASSTHROUGH}' / "
                f"'{CpuMode.MAXIMUM}' CPUs"
            )
        if cache.level is not None:
            raise qemu_unsupported(f"unsupported CPU cache level for mode '{cache.mode}'")
    elif cache.level is not None:
        raise qemu_unsupported(f"unsupported CPU cache level for mode '{cache.mode}'")


# NUMA


def check_numa(scope: Scope) -> None:
    """The guest's nodes, and what they are bound to on the host."""
    definition = scope.definition
    numa = definition.cpu.numa if definition.cpu else None
    cells = numa.cell if numa else []
    if numa is not None and not cells:
        raise xml("NUMA topology defined without NUMA cells")
    _check_cells(definition, cells)
    if numa is not None:
        _check_interconnects(definition)
    _check_numatune(definition, cells)


def _check_cells(definition: DomainDef, cells: list[NumaCell]) -> None:
    taken: dict[int, int] = {}
    for cell in cells:
        for number in cell.cpus or ():
            if number in taken:
                raise unsupported(f"NUMA cells {cell.id} and {taken[number]} have overlapping vCPU ids")
            taken[number] = cell.id or 0
        seen = set()
        for cache in cell.cache:
            if cache.level == 0:
                raise xml(f"Invalid 'level' attribute in cache element for NUMA node {cell.id}")
            if cache.level in seen:
                raise xml(f"Cache level '{cache.level}' already defined")
            if cache.size_kib is None:
                raise XmlError("missing element or attribute './size/@value'", domain=ErrorDomain.XML)
            seen.add(cache.level)
        for sibling in cell.distances:
            near = sibling.id == cell.id
            if not 10 <= sibling.value <= 255 or near != (sibling.value == 10):
                raise xml(
                    f"'value {sibling.value}' is invalid for 'sibling id {sibling.id}' under NUMA 'cell id {cell.id}'"
                )
    if taken and max(taken) >= definition.vcpu.count:
        if len(taken) > definition.vcpu.count:
            raise internal("Number of CPUs in <numa> exceeds the <vcpu> count")
        raise internal("CPU IDs in <numa> exceed the <vcpu> count")


def _check_interconnects(definition: DomainDef) -> None:
    numa = definition.cpu.numa if definition.cpu else None
    if numa is None:
        return
    seen = set()
    for entry in numa.interconnects:
        for word, number in (("initiator", entry.initiator), ("target", entry.target)):
            if number >= len(numa.cell):
                raise xml(f"'{word}' refers to a non-existent NUMA node")
        if entry.cache and not any(cache.level == entry.cache for cache in numa.cell[entry.target].cache):
            raise xml("'cache' refers to a non-existent NUMA node cache")
        key = (type(entry), entry.initiator, entry.target, entry.cache, entry.type)
        if key in seen:
            raise xml("Duplicate info for NUMA latencies")
        seen.add(key)


def _check_numatune(definition: DomainDef, cells: list[NumaCell]) -> None:
    tune = definition.numatune
    if tune is None:
        return
    memory = tune.memory
    if memory is not None:
        if memory.nodeset is None and memory.placement is not Placement.AUTO:
            raise unsupported("nodeset for NUMA memory tuning must be set if 'placement' is 'static'")
        if memory.nodeset is not None and not memory.nodeset:
            raise unsupported("Invalid value of 'nodeset': 0,^0")
    if tune.memnode and not cells:
        raise xml("Element 'memnode' is invalid without any guest NUMA cells")
    numbers = set()
    for node in tune.memnode:
        if node.cellid >= len(cells):
            raise xml("Argument 'cellid' in memnode element must correspond to existing guest's NUMA cell")
        if node.cellid in numbers:
            raise xml(f"Multiple memnode elements with cellid {node.cellid}")
        numbers.add(node.cellid)
        if memory is not None and memory.placement is Placement.AUTO:
            raise unsupported("Per-node binding is not compatible with automatic NUMA placement.")
        if memory is not None and memory.mode is NumaMode.RESTRICTIVE and node.mode is not NumaMode.RESTRICTIVE:
            raise xml("'restrictive' mode is required in memnode element when mode is 'restrictive' in memory element")


# I/O threads and tuning


def check_iothreads(definition: DomainDef) -> None:
    """Numbers and pool sizes."""
    seen = set()
    for thread in definition.iothreadids:
        if thread.id in seen:
            raise xml(f"duplicate iothread id '{thread.id}' found")
        seen.add(thread.id)
    pools = [(thread.thread_pool_min, thread.thread_pool_max) for thread in definition.iothreadids]
    if definition.defaultiothread is not None:
        pools.append((definition.defaultiothread.thread_pool_min, definition.defaultiothread.thread_pool_max))
    for low, high in pools:
        if high is not None and high == 0:
            raise unsupported("thread_pool_max must be a positive integer")
        if low is not None and high is not None and low > high:
            raise unsupported("thread_pool_min must be smaller or equal to thread_pool_max")


def thread_ids(definition: DomainDef) -> set[int]:
    """The numbers of all I/O threads."""
    if definition.iothreadids:
        return {thread.id for thread in definition.iothreadids}
    return set(range(1, (definition.iothreads or 0) + 1))


def check_cputune(scope: Scope) -> None:
    """Shares, periods, quotas, pinning, scheduling."""
    definition, tune = scope.definition, scope.definition.cputune
    if tune is None:
        return
    if tune.shares and not SHARES[0] <= tune.shares <= SHARES[1]:
        raise unsupported(f"Value of cputune 'shares' must be in range [{SHARES[0]}, {SHARES[1]}]")
    for name in ("period", "global_period", "emulator_period", "iothread_period"):
        value = getattr(tune, name)
        if value and not PERIOD[0] <= value <= PERIOD[1]:
            raise unsupported(f"Value of cputune '{name}' must be in range [{PERIOD[0]}, {PERIOD[1]}]")
    for name in ("quota", "global_quota", "emulator_quota", "iothread_quota"):
        value = getattr(tune, name)
        if value and value > 0 and not QUOTA_MIN <= value <= QUOTA_MAX:
            raise unsupported(f"Value of cputune '{name}' must be in range [{QUOTA_MIN}, {QUOTA_MAX}]")
    _check_pins(definition)
    _check_schedules(definition)
    check_shares(tune, definition.vcpu.count)
    if (tune.cachetune or tune.memorytune) and not scope.kvm:
        raise qemu_unsupported("cachetune is only supported for KVM domains")


def _check_pins(definition: DomainDef) -> None:
    tune = definition.cputune
    assert tune is not None
    for cpuset in (*(pin.cpuset for pin in tune.vcpupin), *(pin.cpuset for pin in tune.iothreadpin)):
        if cpuset is not None and not cpuset:
            raise unsupported("Invalid value of 'cpuset': 0,^0")
    vcpus, threads = [pin.vcpu for pin in tune.vcpupin], [pin.iothread for pin in tune.iothreadpin]
    for number in vcpus:
        if vcpus.count(number) > 1:
            raise internal(f"duplicate vcpupin for vcpu '{number}'")
    for number in threads:
        if number not in thread_ids(definition):
            raise unsupported(f"Cannot find 'iothread' : {number}")
        if threads.count(number) > 1:
            raise internal(f"duplicate iothreadpin for same iothread '{number}'")


def _check_schedules(definition: DomainDef) -> None:
    tune = definition.cputune
    assert tune is not None
    seen: set[int] = set()
    for vcpus in tune.vcpusched:
        for number in vcpus.vcpus or ():
            if number >= definition.vcpu.count:
                raise unsupported(f"vCPU '{number}' is not present in domain definition")
            if number in seen:
                raise detail("vcpusched attributes 'vcpus' must not overlap")
            seen.add(number)
    seen = set()
    for threads in tune.iothreadsched:
        for number in threads.iothreads or ():
            if number not in thread_ids(definition):
                raise unsupported(f"Cannot find 'iothread' : {number}")
            if number in seen:
                raise detail("iothreadsched attributes 'iothreads' must not overlap")
            seen.add(number)
