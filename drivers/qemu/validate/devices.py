"""Rules of the remaining devices: watchdog, balloon, panic, shared memory, IOMMU, vsock, leases, NVRAM, TPM."""

from pyvirtd.drivers.qemu.postparse.refuse import internal, qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.drivers.qemu.validate.chardevs import check_backend
from pyvirtd.model.address import IsaAddress, PciAddress
from pyvirtd.model.chardev import EgdBackend, Tpm, TpmEmulator, TpmExternal, TpmModel, TpmPassthrough, TpmVersion
from pyvirtd.model.devices import (
    Iommu,
    IommuDriver,
    IommuModel,
    MemballoonModel,
    PanicModel,
    Shmem,
    ShmemModel,
    WatchdogModel,
)
from pyvirtd.model.features import IoapicDriver

VSOCK_CID_MIN = 3
_PANICS = {PanicModel.ISA: "pvpanic"}
_TPM_DEVICES = {TpmModel.CRB: "tpm-crb", TpmModel.SPAPR: "tpm-spapr", TpmModel.SPAPR_PROXY: "spapr-tpm-proxy"}


def check_devices(scope: Scope) -> None:
    """All of them."""
    devices = scope.devices
    _check_watchdogs(scope)
    _check_memballoon(scope)
    _check_panics(scope)
    for shmem in devices.shmem:
        _check_shmem(scope, shmem)
    if devices.iommu is not None:
        _check_iommu(scope, devices.iommu)
    if devices.vsock is not None and devices.vsock.cid is not None:
        if devices.vsock.cid.address is not None and devices.vsock.cid.address < VSOCK_CID_MIN:
            raise unsupported(f"guest CIDs must be >= {VSOCK_CID_MIN}")
    for lease in devices.lease:
        if not lease.key:
            raise xml("Missing 'key' element for lease")
    if devices.nvram is not None and not scope.board.pseries:
        raise qemu_unsupported("nvram device is only supported for PPC64")
    _check_tpms(scope)
    for rng in devices.rng:
        if isinstance(rng.backend, EgdBackend):
            check_backend(scope, rng.backend)


def _check_watchdogs(scope: Scope) -> None:
    watchdogs, board = scope.devices.watchdog, scope.board
    if len(watchdogs) > 1:
        raise internal("only a single watchdog device is supported")
    for watchdog in watchdogs:
        model, address = watchdog.model, watchdog.info.address
        match model:
            case WatchdogModel.I6300ESB if address is not None and not isinstance(address, PciAddress):
                raise qemu_unsupported(f"{model} model of watchdog can go only on PCI bus")
            case WatchdogModel.IB700 if address is not None:
                raise qemu_unsupported(f"{model} model of watchdog does not support configuring the address")
            case WatchdogModel.ITCO:
                if address is not None:
                    raise qemu_unsupported(
                        f"{model} model of watchdog is part of the machine and cannot have any address set."
                    )
                if not board.q35:
                    raise qemu_unsupported(f"{model} model of watchdog is only part of q35 machine")
            case WatchdogModel.DIAG288:
                if address is not None:
                    raise qemu_unsupported(f"{model} model of watchdog is virtual and cannot go on any bus.")
                if not board.s390:
                    raise qemu_unsupported(f"{model} model of watchdog is allowed for s390 and s390x only")
            case _:
                pass


def _check_memballoon(scope: Scope) -> None:
    balloon = scope.devices.memballoon
    if balloon is not None and balloon.model is MemballoonModel.XEN:
        raise qemu_unsupported("Memory balloon device type 'xen' is not supported by this version of qemu")


def _check_panics(scope: Scope) -> None:
    board, seen = scope.board, set[object]()
    for panic in scope.devices.panic:
        if panic.model in seen:
            raise xml(f"Multiple panic devices with model '{panic.model}'")
        seen.add(panic.model)
    for panic in scope.devices.panic:
        model, address = panic.model, panic.info.address
        if model is PanicModel.S390 and not board.s390:
            raise qemu_unsupported("only S390 guests support panic device of model 's390'")
        if model is PanicModel.PSERIES and not board.pseries:
            raise qemu_unsupported("only pSeries guests support panic device of model 'pseries'")
        if model is PanicModel.HYPERV and not board.x86:
            raise qemu_unsupported("only i686 and x86_64 guests support panic device of model 'hyperv'")
        if model is PanicModel.ISA:
            if not scope.caps.has_device("pvpanic"):
                raise qemu_unsupported("the QEMU binary does not support the ISA panic device")
            if address is not None and not isinstance(address, IsaAddress):
                raise qemu_unsupported("panic is supported only with ISA address type")
        elif address is not None:
            raise qemu_unsupported(f"setting the panic device address is not supported for model '{model}'")


def _check_shmem(scope: Scope, shmem: Shmem) -> None:
    model = shmem.model
    if shmem.name in (".", ".."):
        raise unsupported(f"shmem name cannot be equal to '{shmem.name}'")
    if "/" in (shmem.name or ""):
        raise unsupported("shmem name cannot include '/' character")
    if shmem.msi is not None and shmem.server is None:
        raise xml("msi option is only supported with a server")
    if not scope.caps.has_device(str(model)):
        raise qemu_unsupported(f"{model} device is not supported with this QEMU binary")
    if model is ShmemModel.IVSHMEM_PLAIN and shmem.server is not None:
        raise qemu_unsupported(f"shmem model '{model}' is supported only with server option disabled")
    if model is ShmemModel.IVSHMEM_DOORBELL and shmem.server is None:
        raise qemu_unsupported(f"shmem model '{model}' is supported only with server option enabled")


# IOMMU

# What <driver> may say of models that have not all of it.
_IOMMU_ATTRIBUTES = {
    IommuModel.AMD: {"intremap", "iotlb", "passthrough", "xtsup"},
    IommuModel.VIRTIO: {"granule"},
    IommuModel.SMMUV3: set[str](),
}


def _check_iommu(scope: Scope, iommu: Iommu) -> None:
    model, board, features = iommu.model, scope.board, scope.definition.features
    driver, address = iommu.driver or IommuDriver(), iommu.info.address
    given = {name for name, value in driver.values() if value is not None}
    if model in _IOMMU_ATTRIBUTES and given - _IOMMU_ATTRIBUTES[model]:
        raise xml(f"iommu model '{model}' doesn't support additional attributes")
    if model not in (IommuModel.VIRTIO, IommuModel.AMD) and address is not None:
        raise xml(f"iommu model '{model}' can't have address")
    if model in (IommuModel.INTEL, IommuModel.AMD):
        split = features is not None and features.ioapic is IoapicDriver.QEMU
        if driver.intremap and not split:
            raise unsupported("IOMMU interrupt remapping requires split I/O APIC (ioapic driver='qemu')")
        if driver.eim and not driver.intremap:
            raise unsupported("IOMMU eim requires interrupt remapping to be enabled")
        if not board.q35:
            raise qemu_unsupported(f"IOMMU device: '{model}' is only supported with Q35 machines")
        if not scope.caps.has_device(f"{model}-iommu"):
            raise qemu_unsupported(f"IOMMU device: '{model}' is not supported with this QEMU binary")
    elif model is IommuModel.SMMUV3:
        if not board.arm_virt:
            raise qemu_unsupported(f"IOMMU device: '{model}' is only supported with ARM Virt machines")
    else:
        if address is not None and not isinstance(address, PciAddress):
            raise qemu_unsupported(f"IOMMU device: '{model}' needs a PCI address")
        if not (board.q35 or board.arm_virt):
            raise qemu_unsupported(f"IOMMU device: '{model}' is only supported with Q35 and ARM Virt machines")
        if features is None or not features.acpi:
            raise qemu_unsupported(f"IOMMU device: '{model}' requires ACPI")


# TPM


def _check_tpms(scope: Scope) -> None:
    tpms = scope.devices.tpm
    for tpm in tpms:
        if tpm.backend is None:
            raise xml("missing TPM device backend")
        if isinstance(tpm.backend, TpmExternal) and tpm.backend.source is None:
            raise xml("missing external TPM backend type")
        if isinstance(tpm.backend, TpmEmulator):
            _check_banks(tpm.backend)
    if sum(1 for tpm in tpms if tpm.model is not TpmModel.SPAPR_PROXY) > 1:
        raise qemu_unsupported("only a single TPM non-proxy device is supported")
    if sum(1 for tpm in tpms if tpm.model is TpmModel.SPAPR_PROXY) > 1:
        raise qemu_unsupported("only a single TPM Proxy device is supported")
    for tpm in tpms:
        _check_tpm(scope, tpm)


def _check_banks(backend: TpmEmulator) -> None:
    if backend.active_pcr_banks is not None and backend.version is TpmVersion.V1_2:
        raise xml("<active_pcr_banks/> requires TPM version '2.0'")


def _check_tpm(scope: Scope, tpm: Tpm) -> None:
    caps, model, backend = scope.caps, tpm.model, tpm.backend
    assert backend is not None
    kind = str(backend.case[0])
    version = backend.version
    if version is TpmVersion.V1_2 and model in (TpmModel.CRB, TpmModel.SPAPR):
        raise qemu_unsupported(f"Unsupported interface '{model}' for TPM 1.2")
    if model is TpmModel.SPAPR_PROXY and scope.board.pseries and not isinstance(backend, TpmPassthrough):
        raise qemu_unsupported(f"TPM Proxy model {model} requires 'Passthrough' backend")
    name = "emulator" if isinstance(backend, TpmExternal) else kind
    if name not in caps.tpm_types:
        raise qemu_unsupported(f"The QEMU executable {caps.binary} does not support TPM backend type {kind}")
    if str(model) not in caps.tpm_models and not (model is TpmModel.SPAPR_PROXY and caps.has_device(str(model))):
        raise qemu_unsupported(f"The QEMU executable {caps.binary} does not support TPM model {model}")
