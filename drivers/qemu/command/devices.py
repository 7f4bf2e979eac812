"""The remaining devices: file systems, random numbers, watchdog, balloon, TPM, panic, shared memory, vsock, IOMMU."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.address import on_off, put_address, put_virtio, virtio_driver
from pyvirtd.drivers.qemu.command.chardev import Backend, build_backend
from pyvirtd.drivers.qemu.command.context import Builder, Props, escape
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.chardev import (
    BuiltinBackend,
    EgdBackend,
    RandomBackend,
    Rng,
    TpmEmulator,
    TpmExternal,
    TpmModel,
    TpmPassthrough,
)
from pyvirtd.model.devices import (
    Filesystem,
    FilesystemDriverType,
    IommuModel,
    MemballoonModel,
    PanicModel,
    Shmem,
    ShmemModel,
    ShmemRole,
    WatchdogAction,
    WatchdogModel,
)

QEMU = ErrorDomain.QEMU
_WATCHDOG_ACTIONS = {WatchdogAction.DUMP: "pause"}


def build_filesystems(build: Builder) -> None:
    """Folders of the host"""
    for filesystem in build.definition.devices.filesystem:
        kind = filesystem.driver.type if filesystem.driver else None
        if kind is FilesystemDriverType.VIRTIOFS:
            _virtiofs(build, filesystem)
        else:
            _ninep(build, filesystem)


def _ninep(build: Builder, filesystem: Filesystem) -> None:
    driver, alias = filesystem.driver, filesystem.info.alias
    handle = driver is not None and driver.type is FilesystemDriverType.HANDLE
    words = ["handle"] if handle else ["local", f"security_model={_security_model(filesystem)}"]
    if filesystem.multidevs is not None:
        words.append(f"multidevs={filesystem.multidevs}")
    if filesystem.fmode:
        words.append(f"fmode={filesystem.fmode:04o}")
    if filesystem.dmode:
        words.append(f"dmode={filesystem.dmode:04o}")
    if driver is not None and driver.wrpolicy == "immediate":
        words.append("writeout=immediate")
    source = filesystem.source.dir if filesystem.source else None
    words += [f"id=fsdev-{alias}", f"path={escape(source or '')}"]
    if filesystem.readonly:
        words.append("readonly" if build.context.standalone else "readonly=on")
    build.command.add("-fsdev", ",".join(words))
    props = Props(driver=virtio_driver(build, "virtio-9p", filesystem, filesystem.model))
    put_virtio(props, driver.virtio if driver else None)
    props.put("id", alias).put("fsdev", f"fsdev-{alias}").put("mount_tag", filesystem.target)
    put_address(build, props, filesystem.info)
    build.device(props)


def _security_model(filesystem: Filesystem) -> str:
    return "none" if filesystem.accessmode == "squash" else str(filesystem.accessmode or "passthrough")


def _virtiofs(build: Builder, filesystem: Filesystem) -> None:
    driver, alias = filesystem.driver, filesystem.info.alias
    socket = filesystem.source.socket if filesystem.source else None
    path = socket or str(build.context.directory / f"{alias}-fs.sock")
    build.command.add("-chardev", f"socket,id=chr-vu-{alias},path={escape(path)}")
    props = Props(driver=virtio_driver(build, "vhost-user-fs", filesystem, filesystem.model))
    put_virtio(props, driver.virtio if driver else None)
    props.put("id", alias).put("chardev", f"chr-vu-{alias}")
    props.put("queue-size", (driver.queue if driver else None) or None).put("tag", filesystem.target)
    if filesystem.info.boot is not None:
        props.put("bootindex", filesystem.info.boot.order)
    put_address(build, props, filesystem.info)
    build.device(props)


def build_rngs(build: Builder) -> None:
    """Sources of random numbers"""
    for rng in build.definition.devices.rng:
        _rng(build, rng)


def _rng(build: Builder, rng: Rng) -> None:
    alias = rng.info.alias or ""
    match rng.backend:
        case RandomBackend(path=path):
            build.object(Props({"qom-type": "rng-random", "id": f"obj{alias}", "filename": path or "/dev/random"}))
        case BuiltinBackend():
            build.object(Props({"qom-type": "rng-builtin", "id": f"obj{alias}"}))
        case EgdBackend() as backend:
            chardev = build_backend(build, alias, Backend(backend.type, backend.source, backend.protocol, backend.log))
            build.object(Props({"qom-type": "rng-egd", "id": f"obj{alias}", "chardev": chardev}))
        case _:
            raise ConfigUnsupported("rng device without a backend", domain=QEMU)
    props = Props(driver=virtio_driver(build, "virtio-rng", rng, rng.model))
    put_virtio(props, rng.driver.virtio if rng.driver else None)
    props.put("rng", f"obj{alias}").put("id", alias)
    if rng.rate is not None and rng.rate.bytes:
        props.put("max-bytes", rng.rate.bytes).put("period", rng.rate.period or 1000)
    put_address(build, props, rng.info)
    build.device(props)


def build_watchdogs(build: Builder) -> None:
    """Watchdogs, and what they do"""
    watchdogs = build.definition.devices.watchdog
    for watchdog in watchdogs:
        if watchdog.model is WatchdogModel.ITCO:  # a part of the board, without effect until it may reset
            build.command.add("-global", "ICH9-LPC.noreboot=off")
            continue
        props = Props(driver=str(watchdog.model), id=watchdog.info.alias)
        put_address(build, props, watchdog.info)
        build.device(props)
    if watchdogs:
        build.command.add("-watchdog-action", _WATCHDOG_ACTIONS.get(watchdogs[0].action, str(watchdogs[0].action)))


def build_memballoon(build: Builder) -> None:
    """The balloon"""
    balloon = build.definition.devices.balloon
    if balloon is None:
        return
    model = None if balloon.model is MemballoonModel.VIRTIO else balloon.model
    props = Props(driver=virtio_driver(build, "virtio-balloon", balloon, model))
    put_virtio(props, balloon.driver.virtio if balloon.driver else None)
    props.put("id", balloon.info.alias).put("deflate-on-oom", balloon.autodeflate)
    props.put("free-page-reporting", balloon.free_page_reporting)
    put_address(build, props, balloon.info)
    build.device(props)


def build_tpms(build: Builder) -> None:
    """TPMs"""
    for tpm in build.definition.devices.tpm:
        alias = tpm.info.alias
        if tpm.model is TpmModel.SPAPR_PROXY:
            path = tpm.backend.device if isinstance(tpm.backend, TpmPassthrough) else None
            build.device(Props({"driver": "spapr-tpm-proxy", "id": alias}).put("host-path", path or "/dev/tpmrm0"))
            continue
        if isinstance(tpm.backend, TpmEmulator):
            # the socket of the emulator is passed when it runs; shown without one
            build.command.add("-chardev", "null,id=chrtpm" if build.context.standalone else _tpm_socket(build))
            build.command.add("-tpmdev", f"emulator,id=tpm-{alias},chardev=chrtpm")
        elif isinstance(tpm.backend, TpmExternal):
            path = (tpm.backend.source.path if tpm.backend.source else None) or ""
            build.command.add("-chardev", f"socket,id=chrtpm,path={escape(path)}")
            build.command.add("-tpmdev", f"emulator,id=tpm-{alias},chardev=chrtpm")
        elif isinstance(tpm.backend, TpmPassthrough):
            path = tpm.backend.device or "/dev/tpm0"
            build.command.add("-tpmdev", f"passthrough,id=tpm-{alias},path={escape(path)},cancel-path=/dev/null")
        on_board = tpm.model is TpmModel.TIS and build.board.arm
        props = Props(driver="tpm-tis-device" if on_board else str(tpm.model), tpmdev=f"tpm-{alias}", id=alias)
        put_address(build, props, tpm.info)
        build.device(props)


def _tpm_socket(build: Builder) -> str:
    name = build.context.directory.name.removeprefix("domain-")
    return f"socket,id=chrtpm,path={escape(str(build.context.paths.run / 'swtpm' / f'{name}-swtpm.sock'))}"


def build_panics(build: Builder) -> None:
    """Devices through which a guest tells that it crashed"""
    for panic in build.definition.devices.panic:
        if panic.model is PanicModel.ISA:
            iobase = getattr(panic.info.address, "iobase", None)
            build.device(Props(driver="pvpanic").put("ioport", iobase))


def build_nvram(build: Builder) -> None:
    """Where the pseries firmware keeps its settings"""
    nvram = build.definition.devices.nvram
    if nvram is not None and build.board.pseries:
        register = getattr(nvram.info.address, "reg", None)
        build.command.add("-global", f"spapr-nvram.reg=0x{register or 0:x}")


def build_shmems(build: Builder) -> None:
    """Memory shared with other guests"""
    for shmem in build.definition.devices.shmem:
        _shmem(build, shmem)


def _shmem(build: Builder, shmem: Shmem) -> None:
    alias = shmem.info.alias
    if shmem.model is ShmemModel.IVSHMEM_PLAIN:
        path = f"/dev/shm/{shmem.name}"  # noqa: S108 - the name that guests and host programs share
        size = (shmem.size_mib or 4) * 1024 * 1024
        backend = Props({"qom-type": "memory-backend-file", "id": f"shmmem-{alias}", "mem-path": path})
        build.object(backend.put("share", True).put("size", size))
        props = Props(driver="ivshmem-plain", id=alias).put("memdev", f"shmmem-{alias}")
    elif shmem.model is ShmemModel.IVSHMEM_DOORBELL:
        path = (shmem.server.path if shmem.server else None) or f"/var/lib/libvirt/shmem-{shmem.name}-sock"
        build.command.add("-chardev", f"socket,id=char{alias},path={escape(path)}")
        props = Props(driver="ivshmem-doorbell", id=alias).put("chardev", f"char{alias}")
        if shmem.msi is not None:
            props.put("vectors", shmem.msi.vectors or None).put("ioeventfd", shmem.msi.ioeventfd)
    else:
        raise ConfigUnsupported("ivshmem device is not supported with this QEMU binary", domain=QEMU)
    if shmem.role is not None and shmem.model is not None:
        props.put("master", on_off(shmem.role is ShmemRole.MASTER))
    put_address(build, props, shmem.info)
    build.device(props)


def build_vsock(build: Builder) -> None:
    """Sockets between guest and host"""
    vsock = build.definition.devices.vsock
    if vsock is None:
        return
    props = Props(driver=virtio_driver(build, "vhost-vsock", vsock, vsock.model))
    put_virtio(props, vsock.driver.virtio if vsock.driver else None)
    cid = (vsock.cid.address if vsock.cid else None) or 0
    props.put("id", vsock.info.alias).put("guest-cid", cid).put("vhostfd", str(build.context.vhost_vsock_fd))
    put_address(build, props, vsock.info)
    build.device(props)


def build_iommu(build: Builder) -> None:
    """The IOMMU, which must be there before the devices behind it"""
    iommu = build.definition.devices.iommu
    if iommu is None or iommu.model is IommuModel.SMMUV3:
        return
    if iommu.model is IommuModel.VIRTIO:
        props = Props(driver="virtio-iommu", id=iommu.info.alias)
        put_address(build, props, iommu.info)
        build.device(props)
        return
    props, driver = Props(driver=f"{iommu.model}-iommu", id=iommu.info.alias), iommu.driver
    if driver is not None:
        props.put("intremap", on_off(driver.intremap)).put("caching-mode", driver.caching_mode)
        props.put("dma-translation", driver.dma_translation).put("pt", driver.passthrough)
        props.put("eim", on_off(driver.eim)).put("device-iotlb", driver.iotlb).put("aw-bits", driver.aw_bits or None)
    build.device(props)
