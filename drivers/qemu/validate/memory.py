"""Rules of memory: its devices, what it is kept in, its limits."""

from pyvirtd.drivers.qemu.postparse.processor import numa_cells
from pyvirtd.drivers.qemu.postparse.refuse import detail, qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.address import Address, DimmAddress
from pyvirtd.model.cpu import MemoryBacking, MemorySource
from pyvirtd.model.devices import MemoryDevice, MemoryModel
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.words import MemoryAccess

NVDIMM_LABEL_MIN_KIB = 128


def check_memory(scope: Scope) -> None:
    """Sizes, and every memory device."""
    definition = scope.definition
    maximum, cells = definition.max_memory, numa_cells(definition)
    if maximum is not None:
        if maximum.kib < definition.memory.kib:
            raise xml("maximum memory size must be equal or greater than the actual memory size")
        if not cells and not scope.board.ppc64:
            raise qemu_unsupported("At least one numa node has to be configured when enabling memory hotplug")
    slots: set[int] = set()
    for device in scope.devices.memory:
        _check_device(scope, device, cells)
        address = device.info.address
        if isinstance(address, DimmAddress) and address.slot is not None and maximum is not None:
            if address.slot in slots:
                raise qemu_unsupported(
                    f"memory device slot '{address.slot}' is already being used by another memory device"
                )
            slots.add(address.slot)
            if address.slot >= maximum.slots:
                raise qemu_unsupported(f"memory device slot '{address.slot}' exceeds slots count '{maximum.slots}'")
    _check_backing(scope)
    _check_limits(definition)


def _check_device(scope: Scope, device: MemoryDevice, cells: int) -> None:
    target, board = device.target, scope.board
    assert target is not None
    if device.model is MemoryModel.SGX_EPC:
        raise qemu_unsupported("sgx epc isn't supported by this QEMU binary")
    if board.s390 and device.model in (MemoryModel.DIMM, MemoryModel.NVDIMM):
        raise qemu_unsupported("memory hotplug isn't supported by this QEMU binary")
    if scope.definition.max_memory is None:
        raise qemu_unsupported("cannot use/hotplug a memory device when domain 'maxMemory' is not defined")
    match device.model:
        case MemoryModel.NVDIMM:
            _check_nvdimm(scope, device)
        case MemoryModel.VIRTIO_PMEM:
            if target.node is not None:
                raise unsupported("virtio-pmem does not support NUMA nodes")
            if device.access is not MemoryAccess.SHARED:
                raise unsupported("shared access mode required for virtio-pmem device")
        case _:
            pass
    wants_node = device.model is not MemoryModel.VIRTIO_PMEM and cells and target.node is None
    if wants_node:
        raise qemu_unsupported("target NUMA node needs to be specified for memory device")
    if target.node is not None and cells and target.node >= cells:
        raise detail(
            f"can't add memory backend for guest node '{target.node}' as the guest has only '{cells}' NUMA nodes "
            "configured"
        )
    address: Address | None = device.info.address
    if device.model in (MemoryModel.DIMM, MemoryModel.NVDIMM) and not isinstance(address, DimmAddress):
        raise qemu_unsupported("only 'dimm' addresses are supported for the pc-dimm device")


def _check_nvdimm(scope: Scope, device: MemoryDevice) -> None:
    target = device.target
    assert target is not None
    label = target.label.size_kib if target.label is not None else None
    if label is not None and label < NVDIMM_LABEL_MIN_KIB:
        raise xml(f"nvdimm label must be at least {NVDIMM_LABEL_MIN_KIB}KiB")
    if label is not None and label >= (target.size_kib or 0):
        raise xml("label size must be smaller than NVDIMM size")
    if device.discard:
        raise unsupported("discard is not supported for nvdimms")
    if scope.board.ppc64 and label is None:
        raise unsupported("label size is required for NVDIMM device")


def _check_backing(scope: Scope) -> None:
    backing = scope.definition.memory_backing or MemoryBacking()
    if backing.hugepages is not None and backing.source is MemorySource.ANONYMOUS:
        raise qemu_unsupported("hugepages are not allowed with anonymous memory source")


def _check_limits(definition: DomainDef) -> None:
    tune = definition.memtune
    if tune is not None and tune.min_guarantee_kib:
        raise qemu_unsupported("Parameter 'min_guarantee' not supported by QEMU.")
    blkio = definition.blkiotune
    paths = [device.path for device in blkio.device] if blkio is not None else []
    for path in paths:
        if paths.count(path) > 1:
            raise unsupported(f"duplicate blkio device path '{path}'")


def shares_memory(definition: DomainDef) -> bool:
    """Other processes may map the guest's memory, as vhost-user devices must."""
    backing = definition.memory_backing or MemoryBacking()
    if definition.cpu is not None and definition.cpu.numa is not None and definition.cpu.numa.cell:
        return all((cell.mem_access or backing.access) is MemoryAccess.SHARED for cell in definition.cpu.numa.cell)
    return backing.access is MemoryAccess.SHARED
