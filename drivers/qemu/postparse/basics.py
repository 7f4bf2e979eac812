"""Defaults of the guest as a whole: identity, emulator, machine, memory, processors, firmware features, boot."""

import uuid

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.capabilities import emulators
from pyvirtd.drivers.qemu.postparse.processor import numa_cells
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ConfigUnsupported, XmlError
from pyvirtd.model.cpu import IothreadId, NumaMode, Numatune, NumatuneMemory, Placement
from pyvirtd.model.devices import MemoryModel
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.features import Features, Gic, GicVersion, HypervMode
from pyvirtd.model.os import BootDevice, FirmwareFeature, FirmwareFeatureName, FwcfgSysinfo, LoaderType, Nvram, OsBoot
from pyvirtd.model.seclabel import SeclabelType
from pyvirtd.paths import QemuPaths

DOMAIN, QEMU = ErrorDomain.DOMAIN, ErrorDomain.QEMU
PSERIES_MEMORY_ALIGN_KIB = 256 * 1024  # a DIMM of the pseries machine is made of blocks of that size


def choose_emulator(definition: DomainDef, host_arch: str) -> str:
    """Fill in the architecture and the emulator's path, and give the path. Raises where the host has none."""
    kind = definition.os.type
    if kind.name is None:
        kind.name = "hvm"
    if kind.name != "hvm":
        if kind.name == "exe":
            raise XmlError("init binary must be specified", domain=DOMAIN)
        emulator = definition.devices.emulator or emulators.default_emulator(kind.arch or host_arch)
        raise ConfigUnsupported(f"Emulator '{emulator}' does not support os type '{kind.name}'", domain=QEMU)
    if kind.arch is None:
        kind.arch = host_arch
    devices = definition.devices
    if devices.emulator is None:
        devices.emulator = emulators.default_emulator(kind.arch)
        if devices.emulator is None:
            raise ConfigUnsupported(f"No emulator found for arch '{kind.arch}'", domain=QEMU)
    return devices.emulator


def complete_identity(scope: Scope) -> None:
    """Name, UUID, and that the emulator can run this kind of guest at all."""
    definition = scope.definition
    check_name(definition.name)
    if definition.uuid is None:
        definition.uuid = str(uuid.uuid4())
    check_emulator(scope)


def check_name(name: str) -> None:
    """Names become file names. Raises XmlError."""
    if "/" in name:
        raise XmlError(f"name {name} cannot contain '/'", domain=DOMAIN)


def check_emulator(scope: Scope) -> None:
    """Raises ConfigUnsupported where the emulator has another architecture or not the accelerator."""
    definition, caps = scope.definition, scope.caps
    emulator, arch = definition.devices.emulator, definition.os.type.arch or ""
    if not emulators.serves(caps.arch, arch):
        raise ConfigUnsupported(f"Emulator '{emulator}' does not support arch '{arch}'", domain=QEMU)
    if str(definition.type) not in caps.virt_types():
        raise ConfigUnsupported(f"Emulator '{emulator}' does not support virt type '{definition.type}'", domain=QEMU)


def complete_machine(scope: Scope) -> None:
    """The machine's full name; the board follows from it."""
    kind = scope.definition.os.type
    name = kind.machine or scope.caps.default_machine(scope.definition.type) or ""
    kind.machine = scope.caps.canonical_machine(name)
    scope.refresh()


def complete_boot(scope: Scope) -> None:
    """Boot from the hard disk where nothing says otherwise."""
    definition = scope.definition
    menu = definition.os.bootmenu
    if menu is not None and not menu.enable:
        menu.timeout = None
    ordered = any(device.info.boot and device.info.boot.order for device in definition.devices.all())
    if not definition.os.boot and not ordered:
        definition.os.boot.append(OsBoot(dev=BootDevice.HD))


def complete_memory(scope: Scope) -> None:
    """Total and current memory. With NUMA cells their sum counts; memory devices come on top."""
    definition = scope.definition
    cells = definition.cpu.numa.cell if definition.cpu and definition.cpu.numa else []
    in_cells = sum(cell.memory_kib or 0 for cell in cells)
    plugged = sum(target.size_kib or 0 for device in definition.devices.memory if (target := device.target))
    if in_cells and (scope.new or not definition.memory.kib):
        definition.memory.kib = in_cells + plugged
    if not definition.memory.kib:
        raise XmlError("Memory size must be specified via <memory> or in the <numa> configuration", domain=DOMAIN)
    total, current = definition.memory.kib, definition.current_memory_kib
    if not current or current > total:
        definition.current_memory_kib = total


def complete_limits(scope: Scope) -> None:
    """Limits of 0, and page sizes of a node that is the whole guest."""
    definition = scope.definition
    if definition.memtune is not None:
        definition.memtune.min_guarantee_kib = definition.memtune.min_guarantee_kib or None
    pages = definition.memory_backing.hugepages if definition.memory_backing is not None else None
    for page in pages.page if pages is not None and not numa_cells(definition) else ():
        page.nodeset = None
    for info in definition.sysinfo:
        for entry in info.entry if isinstance(info, FwcfgSysinfo) else ():
            entry.value = None if entry.file else entry.value


def align_memory_devices(scope: Scope) -> None:
    """Sizes that the pseries machine can plug, and names for its non-volatile memory."""
    for device in scope.devices.memory:
        if device.source is not None:
            device.source.alignsize_kib = device.source.alignsize_kib or None
        if device.model is MemoryModel.NVDIMM and device.uuid is None and scope.board.pseries:
            device.uuid = str(uuid.uuid4())
    if not (scope.board.ppc64 and scope.new):
        return
    for device in scope.devices.memory:
        if device.target is None or device.target.size_kib is None:
            continue
        align = PSERIES_MEMORY_ALIGN_KIB
        if device.model is MemoryModel.NVDIMM:
            label = (device.target.label.size_kib if device.target.label else 0) or 0
            device.target.size_kib = (device.target.size_kib - label) // align * align + label
        else:
            device.target.size_kib = -(-device.target.size_kib // align) * align


def complete_vcpus(scope: Scope) -> None:
    """Placement, and that no more are on than there are."""
    definition = scope.definition
    vcpu, tune = definition.vcpu, definition.numatune
    memory = tune.memory if tune is not None else None
    if memory is not None and memory.placement is Placement.AUTO:
        memory.nodeset = None
        if vcpu.cpuset is None and not _pinned(definition):
            vcpu.placement = Placement.AUTO
    vcpu.placement = vcpu.placement or Placement.STATIC
    if vcpu.placement is Placement.AUTO:
        vcpu.cpuset = None
        tune = definition.numatune = tune or Numatune()
        if tune.memory is None:
            tune.memory = NumatuneMemory(mode=NumaMode.STRICT, placement=Placement.AUTO)
    if vcpu.current is not None and vcpu.current > vcpu.count:
        raise ConfigUnsupported("maximum vCPU count must not be less than current vCPU count", domain=DOMAIN)
    if vcpu.current == vcpu.count:
        vcpu.current = None


def _pinned(definition: DomainDef) -> bool:
    """Threads of the guest are bound to CPUs of the host by hand."""
    tune = definition.cputune
    return tune is not None and bool(tune.vcpupin or tune.iothreadpin or tune.emulatorpin)


def complete_iothreads(scope: Scope) -> None:
    """As many numbers as there are threads, once one is given."""
    definition = scope.definition
    given = [thread.id for thread in definition.iothreadids]
    definition.iothreads = definition.iothreads or None
    if not given:
        return
    count = max(definition.iothreads or 0, len(given))
    definition.iothreads = count
    free = (number for number in range(1, count + len(given) + 1) if number not in given)
    definition.iothreadids += [IothreadId(id=next(free)) for _ in range(count - len(given))]


def complete_features(scope: Scope) -> None:
    """States of features that are only named, and the interrupt controller of ARM's virt machine."""
    definition = scope.definition
    if definition.features is not None:
        _complete_states(definition.features)
    if not scope.board.arm_virt:
        return
    features = definition.features = definition.features or Features()
    if features.gic is None:
        features.gic = Gic()
    if features.gic.version is None:
        features.gic.version = _gic_version(scope)


def _complete_states(features: Features) -> None:
    for switch in (features.pmu, features.pvspinlock, features.vmcoreinfo, features.vmport, features.smm):
        if switch is not None and switch.state is None:
            switch.state = True
    if features.hyperv is not None and features.hyperv.mode is None:
        features.hyperv.mode = HypervMode.CUSTOM


def complete_firmware(scope: Scope, paths: QemuPaths | None) -> None:
    """The kind of loader, where the firmware keeps its variables, what its features imply."""
    os, name = scope.definition.os, scope.definition.name
    enrolled = next((f for f in os.firmware if f.name is FirmwareFeatureName.ENROLLED_KEYS and f.enabled), None)
    if enrolled is not None and not any(f.name is FirmwareFeatureName.SECURE_BOOT for f in os.firmware):
        os.firmware.append(FirmwareFeature(enabled=True, name=FirmwareFeatureName.SECURE_BOOT))
    loader = os.loader
    if loader is None or os.firmware_type is not None:
        return
    if loader.path and loader.type is None:
        loader.type = LoaderType.ROM
    if loader.type is LoaderType.PFLASH and loader.path and loader.readonly and not loader.stateless:
        nvram = os.nvram = os.nvram or Nvram()
        if not nvram.placed:
            nvram.format_ = nvram.format_ or loader.format_
            nvram.path = str(paths.nvram_file(name, os.nvram_format)) if paths is not None else None


def complete_labels(scope: Scope) -> None:
    """A label without a model is for the host's first security driver, and this host confines by owner only."""
    for label in scope.definition.seclabel:
        if label.model is None:
            label.type, label.model, label.relabel = SeclabelType.NONE, "none", None


def _gic_version(scope: Scope) -> GicVersion:
    """The newest that KVM has; under TCG version 2, which every guest knows."""
    if scope.kvm:
        kernel = {gic.version for gic in scope.caps.gic if gic.kernel}
        return GicVersion.V3 if 3 in kernel else GicVersion.V2
    return GicVersion.V2
