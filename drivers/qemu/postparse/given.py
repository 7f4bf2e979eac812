"""What a definition must say by itself, before defaults hide what was left out: `check_given`."""

import re

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.given_chardevs import given_chardevs
from pyvirtd.drivers.qemu.postparse.given_disks import given_disks
from pyvirtd.drivers.qemu.postparse.processor import numa_cells
from pyvirtd.drivers.qemu.postparse.refuse import NoSource, NoTarget, detail, internal, unsupported, xml
from pyvirtd.drivers.qemu.postparse.virtio import check_virtio_options
from pyvirtd.errors import XmlError
from pyvirtd.model.chardev import Redirdev
from pyvirtd.model.devices import Filesystem, FilesystemSource, FilesystemType, MemoryModel, MemoryTarget
from pyvirtd.model.disk import Disk
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import VideoModel, VideoModelType
from pyvirtd.model.hostdev import (
    Hostdev,
    HostdevMode,
    HostdevType,
    MdevSource,
    ScsiHostdevSource,
    ScsiProtocol,
    UsbHostdevSource,
    VhostScsiSource,
)
from pyvirtd.model.net import Interface, InterfaceType, NetDriverName
from pyvirtd.model.seclabel import SeclabelType


def given_memory_devices(definition: DomainDef) -> None:
    """What a memory device must say by itself."""
    for device in definition.devices.memory:
        target = device.target
        if target is None:
            raise xml("missing <target> element for <memory> device")
        if target.size_kib is None:
            raise XmlError("missing element or attribute './size'", domain=ErrorDomain.XML)
        if device.model in (MemoryModel.NVDIMM, MemoryModel.VIRTIO_PMEM):
            if device.source is None or not device.source.path:
                raise detail(f"path is required for model '{device.model}'")
        if device.model is MemoryModel.VIRTIO_MEM:
            _given_blocks(target)


def _given_blocks(target: MemoryTarget) -> None:
    size, block, wanted = target.size_kib or 0, target.block_kib or 0, target.requested_kib or 0
    if not block or block & (block - 1):
        raise detail("block size must be a power of two")
    if wanted > size:
        raise detail(f"requested size must be smaller than or equal to @size ({size}KiB)")
    if wanted % block:
        raise detail("requested size must be an integer multiple of block size")


def given_backing(definition: DomainDef) -> None:
    """Huge pages that contradict each other."""
    pages = definition.memory_backing.hugepages if definition.memory_backing else None
    if pages is None:
        return
    alone = not numa_cells(definition)
    masters = [page.size_kib for page in pages.page if page.nodeset is None or (alone and page.nodeset == {0})]
    if any(page.size_kib == 0 for page in pages.page):
        raise detail("hugepage size can't be zero")
    if len(masters) > 1:
        raise detail(f"two master hugepages detected: {masters[1]} and {masters[0]}")
    for place, page in enumerate(pages.page):
        for other in pages.page[:place]:
            if page.nodeset and other.nodeset and page.nodeset & other.nodeset:
                raise detail(f"nodeset attribute of hugepages of sizes {page.size_kib} and {other.size_kib} intersect")
    cells = numa_cells(definition)
    for page in pages.page:
        wrong = [node for node in page.nodeset or () if node >= max(cells, 1)]
        if wrong:
            raise detail(f"hugepages: node {min(wrong)} not found")


QXL_SIZES = ("vgamem", "ram", "vram64")


def given_videos(definition: DomainDef) -> None:
    """Settings that only one kind of card has, before defaults fill them in."""
    for video in definition.devices.video:
        model = video.model or VideoModel()
        for name in QXL_SIZES:
            if getattr(model, name) and model.type is not VideoModelType.QXL:
                raise unsupported(f"{name} attribute only supported for video type qxl")


def given_filesystems(definition: DomainDef) -> None:
    """Which folder, and what the guest calls it."""
    for filesystem in definition.devices.filesystem:
        source = filesystem.source or FilesystemSource()
        if filesystem.type is FilesystemType.VOLUME and not (source.pool and source.volume):
            raise xml("'pool' and 'volume' must be specified together for 'pool' type source")
        where = source.dir or source.dev or source.file or source.name or source.socket
        if where is None and filesystem.type not in (FilesystemType.RAM, FilesystemType.VOLUME):
            raise NoSource(f"missing source information for device {filesystem.target or '(null)'}")
        if filesystem.target is None and source.socket is None:
            raise NoTarget(f"missing target information for device {where or '(null)'}")


_WWPN = re.compile(r"naa\.[0-9a-fA-F]{16}")


_MODELS = {HostdevType.MDEV: "vfio", HostdevType.SCSI_HOST: "virtio"}


def given_hostdevs(definition: DomainDef) -> None:
    """What a host device must say by itself."""
    for hostdev in definition.devices.hostdev:
        _given_source(hostdev)
        for kind, value in (("sgio", hostdev.sgio), ("rawio", hostdev.rawio)):
            if value is not None and hostdev.type is not HostdevType.SCSI:
                raise xml(f"{kind} is only supported for scsi host device")
        models = _MODELS.get(hostdev.type)
        if hostdev.model is not None and models is None:
            raise xml(f"'model' attribute in <hostdev> is only supported when type='{hostdev.type}'")
        if hostdev.model is not None and models is not None and not hostdev.model.startswith(models):
            raise XmlError(
                f"Invalid value for attribute 'model' in element 'hostdev': '{hostdev.model}'.", domain=ErrorDomain.XML
            )


def _given_source(hostdev: Hostdev) -> None:
    source = hostdev.source
    if source is None:
        raise xml("Missing <source> element in hostdev device")
    if hostdev.mode is HostdevMode.CAPABILITIES:
        return
    if hostdev.type in (HostdevType.STORAGE, HostdevType.MISC, HostdevType.NET):
        raise unsupported(f"unknown host device source address type '{hostdev.type}'")
    match source:
        case UsbHostdevSource():
            if source.vendor is None and source.product is not None:
                raise internal("missing vendor")
            if source.product is None and source.vendor is not None:
                raise internal("missing product")
        case ScsiHostdevSource(protocol=ScsiProtocol.ISCSI):
            if not source.name:
                raise xml("missing iSCSI hostdev source path name")
            if len(source.host) != 1:
                raise xml("only one source host address may be specified for the iSCSI hostdev")
        case ScsiHostdevSource():
            if source.address is None:
                raise xml("'address' must be specified for scsi hostdev source")
            if not source.adapter:
                raise xml("'adapter' name must be specified for scsi hostdev source")
        case VhostScsiSource():
            _given_vhost(source)
        case MdevSource(address=None):
            raise unsupported("Missing <address> element")
        case _:
            pass


def _given_vhost(source: VhostScsiSource) -> None:
    if source.protocol is None:
        raise xml("Missing scsi_host subsystem protocol")
    if source.wwpn is None:
        raise xml("missing vhost-scsi hostdev source wwpn")
    if not _WWPN.fullmatch(source.wwpn):
        raise xml("malformed 'wwpn' value")


def given_labels(definition: DomainDef) -> None:
    """Which label, under which model."""
    for label in definition.seclabel:
        if label.model is None and label.type not in (SeclabelType.NONE, SeclabelType.DYNAMIC):
            raise xml("missing security model in domain seclabel")
        if label.type is SeclabelType.STATIC and label.label is None:
            raise xml("security label is missing")
        if label.type is SeclabelType.DYNAMIC and label.relabel is False:
            raise unsupported("dynamic label type must use resource relabeling")
        if label.type is SeclabelType.NONE and label.relabel:
            raise unsupported("resource relabeling is not compatible with 'none' label type")


def given_interfaces(definition: DomainDef) -> None:
    """Settings of drivers that defaults leave out where they cannot apply."""
    for net in definition.devices.interface:
        driver = net.driver
        if driver is None:
            continue
        if net.type is InterfaceType.HOSTDEV and driver.name in (NetDriverName.QEMU, NetDriverName.VHOST):
            raise XmlError(
                f"Invalid value for attribute 'name' in element 'driver': '{driver.name}'.", domain=ErrorDomain.XML
            )
        if net.model is not None and not net.model.startswith("virtio"):
            check_virtio_options(driver.virtio)


def given_boot(definition: DomainDef) -> None:
    """A place in the boot order means nothing to a device that nothing boots from."""
    for device in definition.devices.all():
        if not isinstance(device, Disk | Interface | Hostdev | Redirdev | Filesystem):
            device.info.boot = None


def given_numbers(definition: DomainDef) -> None:
    """Numbers that may be left out but may not be 0, or may not be negative."""
    devices = definition.devices
    topology = definition.cpu.topology if definition.cpu is not None else None
    zeros: list[tuple[str, str, int | None]] = [("acpi", "index", device.info.acpi_index) for device in devices.all()]
    zeros += [("audio", "id", audio.id) for audio in devices.audio]
    if devices.vsock is not None and devices.vsock.cid is not None:
        zeros.append(("cid", "address", devices.vsock.cid.address))
    if topology is not None:
        zeros += [("topology", name, getattr(topology, name)) for name in ("sockets", "dies", "cores", "threads")]
    if definition.cputune is not None:
        zeros += [("iothreadpin", "iothread", pin.iothread) for pin in definition.cputune.iothreadpin]
    for element, name, number in zeros:
        if number == 0:
            raise XmlError(
                f"Invalid value for attribute '{name}' in element '{element}': Zero is not permitted",
                domain=ErrorDomain.XML,
            )
    signed: list[tuple[str, str, int | None]] = []
    for thread in definition.iothreadids:
        signed += [(("iothread"), name, getattr(thread, name)) for name in ("thread_pool_min", "thread_pool_max")]
    for element, name, number in signed:
        if number is not None and number < 0:
            raise XmlError(
                f"Invalid value for attribute '{name}' in element '{element}': '{number}'. Expected non-negative value",
                domain=ErrorDomain.XML,
            )
    if definition.vcpu.count == 0:
        raise internal("CPU IDs in <numa> exceed the <vcpu> count")


def check_given(definition: DomainDef) -> None:
    """Everything, in the order in which libvirt reads a definition."""
    given_backing(definition)
    given_disks(definition)
    given_filesystems(definition)
    given_chardevs(definition)
    given_videos(definition)
    given_hostdevs(definition)
    given_memory_devices(definition)
    given_numbers(definition)
    given_boot(definition)
    given_labels(definition)
    given_interfaces(definition)
