"""The guest's disks: the devices that its block nodes are attached to."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.address import on_off, put_address, put_scsi_address, put_virtio, virtio_driver
from pyvirtd.drivers.qemu.command.block import build_disk_nodes, top_node, write_cache
from pyvirtd.drivers.qemu.command.boot import BootOrder
from pyvirtd.drivers.qemu.command.context import Builder, Props
from pyvirtd.drivers.qemu.postparse.controllers import find
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.address import DriveAddress
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.disk import Disk, DiskBus, DiskDevice, ErrorPolicy, GeometryTrans
from pyvirtd.model.storage import BlockSource, FileSource, StorageFormat, VhostUserSource

_ERRORS = {
    ErrorPolicy.STOP: ("stop", "stop"),
    ErrorPolicy.REPORT: ("report", "report"),
    ErrorPolicy.IGNORE: ("ignore", "ignore"),
    ErrorPolicy.ENOSPACE: ("enospc", None),
}


def build_disks(build: Builder, order: BootOrder) -> None:
    """All disks; floppies before that get their controller."""
    for disk in build.definition.devices.disk:
        if disk.target.bus is DiskBus.SD:
            _build_sd(build, disk)
            continue
        if isinstance(disk.source, VhostUserSource):
            _build_vhost_user(build, disk, order)
            continue
        if build.context.standalone and disk.transient is not None and disk.transient.share_backing:
            continue  # libvirt plugs it in when the guest is there
        build_disk_nodes(build, disk)
        build.device(disk_props(build, disk, order))


def _build_sd(build: Builder, disk: Disk) -> None:
    """The board itself has the slot, so there is no device to attach a node to."""
    source = disk.source
    path = source.file if isinstance(source, FileSource) else source.dev if isinstance(source, BlockSource) else ""
    if isinstance(source, FileSource) and source.fdgroup:
        path = build.lent_path(source.fdgroup, disk.info.alias or "sd")
    kind = (disk.driver.type if disk.driver else None) or StorageFormat.RAW
    index = [d for d in build.definition.devices.disk if d.target.bus is DiskBus.SD].index(disk)
    words = [f"file={(path or '').replace(',', ',,')}", f"format={kind}", "if=sd", f"index={index}"]
    if disk.readonly:
        words.append("readonly=on")
    build.command.add("-drive", ",".join(words))


def _build_vhost_user(build: Builder, disk: Disk, order: BootOrder) -> None:
    source = disk.source
    assert isinstance(source, VhostUserSource)
    chardev = f"chr-vu-{disk.info.alias}"
    words = f"socket,id={chardev},path={(source.path or '').replace(',', ',,')}"
    if source.reconnect is not None and source.reconnect.enabled and source.reconnect.timeout is not None:
        words += f",reconnect={source.reconnect.timeout}"
    build.command.add("-chardev", words)
    props = Props(driver=virtio_driver(build, "vhost-user-blk", disk, disk.model))
    _put_ring(props, disk)
    put_address(build, props, disk.info)
    props.put("chardev", chardev).put("id", disk.info.alias).put("bootindex", order(disk))
    build.device(props)


def disk_props(build: Builder, disk: Disk, order: BootOrder) -> Props:
    """The device of one disk."""
    match disk.target.bus:
        case DiskBus.VIRTIO:
            props = _virtio(build, disk)
        case DiskBus.SCSI:
            props = _scsi(build, disk)
        case DiskBus.IDE | DiskBus.SATA:
            props = _ide(build, disk)
        case DiskBus.USB:
            props = Props(driver="usb-storage")
            put_address(build, props, disk.info)
        case DiskBus.FDC:
            props = Props(driver="floppy")
            if isinstance(disk.info.address, DriveAddress):
                props.put("unit", disk.info.address.unit)
        case bus:
            raise ConfigUnsupported(f"unsupported disk bus '{bus}' with device setup", domain=ErrorDomain.QEMU)
    if disk.shareable and disk.target.bus is not DiskBus.FDC:
        props.put("share-rw", True)
    props.put("drive", top_node(disk)).put("id", disk.info.alias)
    if disk.target.bus is not DiskBus.FDC:
        props.put("bootindex", order(disk))
    if disk.blockio is not None:
        props.put("logical_block_size", disk.blockio.logical_block_size or None)
        props.put("physical_block_size", disk.blockio.physical_block_size or None)
    _put_identity(props, disk)
    if disk.target.bus is DiskBus.USB:
        props.put("removable", bool(disk.target.removable))
    _put_geometry(props, disk)
    if disk.target.bus is not DiskBus.FDC:
        props.put("write-cache", write_cache(disk))
    _put_errors(props, disk)
    return props


def _virtio(build: Builder, disk: Disk) -> Props:
    props = Props(driver=virtio_driver(build, "virtio-blk", disk, disk.model))
    if disk.device is DiskDevice.LUN:
        props.put("scsi", True)
    if disk.driver is not None and disk.driver.iothread:
        props.put("iothread", f"iothread{disk.driver.iothread}")
    _put_ring(props, disk)
    put_address(build, props, disk.info)
    return props


def _put_ring(props: Props, disk: Disk) -> None:
    driver = disk.driver
    if driver is None:
        return
    put_virtio(props, driver.virtio)
    props.put("ioeventfd", driver.ioeventfd).put("event_idx", driver.event_idx)
    props.put("num-queues", driver.queues).put("queue-size", driver.queue_size)


def _scsi(build: Builder, disk: Disk) -> Props:
    address = disk.info.address
    assert isinstance(address, DriveAddress)
    kinds = {DiskDevice.CDROM: "scsi-cd", DiskDevice.LUN: "scsi-block"}
    props = Props(driver=kinds.get(disk.device, "scsi-hd"))
    put_scsi_address(build, props, address)
    if disk.device is not DiskDevice.LUN:
        props.put("device_id", disk.serial if disk.serial else f"drive-{disk.info.alias}")
    return props


def _ide(build: Builder, disk: Disk) -> Props:
    address = disk.info.address
    assert isinstance(address, DriveAddress)
    props = Props(driver="ide-cd" if disk.device is DiskDevice.CDROM else "ide-hd")
    kind = Type.IDE if disk.target.bus is DiskBus.IDE else Type.SATA
    controller = find(build.definition.devices, kind, address.controller)
    alias = (controller.info.alias if controller else None) or f"{kind}{address.controller}"
    if address.controller == 0 and (build.board.q35 if kind is Type.SATA else build.board.builtin_ide):
        alias = "ide"  # the board's own keeps QEMU's name
    if kind is Type.IDE:
        return props.put("bus", f"{alias}.{address.bus}").put("unit", address.unit)
    return props.put("bus", f"{alias}.{address.unit}")


def _put_identity(props: Props, disk: Disk) -> None:
    if disk.wwn is not None:
        props.put("wwn", int(disk.wwn, 16))
    if disk.target.rotation_rate:
        props.put("rotation_rate", disk.target.rotation_rate)
    props.put("dpofua", disk.target.dpofua)
    props.put("vendor", disk.vendor).put("product", disk.product)
    if disk.serial is not None and disk.device is not DiskDevice.LUN:
        props.put("serial", escape_spaces(disk.serial))


def escape_spaces(serial: str) -> str:
    """A serial number as guests have always seen it from libvirt: with a backslash before each space."""
    return serial.replace("\\", "\\\\").replace(" ", "\\ ")


def _put_geometry(props: Props, disk: Disk) -> None:
    geometry = disk.geometry
    if geometry is None or not geometry.cyls:
        return
    props.put("cyls", geometry.cyls).put("heads", geometry.heads).put("secs", geometry.secs)
    if geometry.trans is not None and disk.target.bus is DiskBus.IDE:
        props.put("bios-chs-trans", str(GeometryTrans(geometry.trans)))


def _put_errors(props: Props, disk: Disk) -> None:
    driver = disk.driver
    if driver is None:
        return
    write, read = _ERRORS[driver.error_policy] if driver.error_policy else (None, None)
    if driver.rerror_policy is not None:
        read = _ERRORS[driver.rerror_policy][1]
    props.put("werror", write).put("rerror", read)


def build_floppy_controller(build: Builder, order: BootOrder) -> None:
    """Floppies: the board's controller is told which to boot from; newer q35 boards have none and get one."""
    drives = [disk for disk in build.definition.devices.disk if disk.target.bus is DiskBus.FDC]
    words = Props(driver="isa-fdc")
    for disk in drives:
        number, address = order(disk), disk.info.address
        if number is not None and isinstance(address, DriveAddress):
            words.put(f"bootindex{'B' if address.unit else 'A'}", number)
    if not drives:
        return
    if needs_floppy_controller(build):
        build.device(words)
        return
    for name, value in words.items():
        if name != "driver":
            build.command.add("-global", f"isa-fdc.{name}={value}")


def needs_floppy_controller(build: Builder) -> bool:
    """q35 boards have none of their own since QEMU 2.4."""
    machine = build.board.machine
    if not build.board.q35:
        return False
    return machine not in ("pc-q35-1.4", "pc-q35-1.5", "pc-q35-1.6", "pc-q35-1.7", *(f"pc-q35-2.{n}" for n in range(4)))


__all__ = ["build_disks", "build_floppy_controller", "on_off"]
