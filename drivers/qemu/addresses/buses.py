"""Addresses that are simple counters: virtio-serial ports, CCW device numbers, spapr-vio registers, DIMM slots."""

from collections.abc import Iterator

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.addresses.order import walk
from pyvirtd.drivers.qemu.postparse.chardevs import on_virtio_serial
from pyvirtd.drivers.qemu.postparse.controllers import VIRTIO_SCSI, ensure, of_type
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ConfigUnsupported, InternalError, XmlError
from pyvirtd.model.address import (
    CcwAddress,
    Device,
    DimmAddress,
    SpaprVioAddress,
    VirtioMmioAddress,
    VirtioSerialAddress,
)
from pyvirtd.model.chardev import Channel, Console, SerialTargetType, TpmModel
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.devices import Devices, MemballoonModel, MemoryModel
from pyvirtd.model.disk import DiskBus
from pyvirtd.model.graphics import InputBus, VideoModelType
from pyvirtd.model.hostdev import HostdevModel, HostdevType

DOMAIN = ErrorDomain.DOMAIN
VIRTIO_SERIAL_PORTS = 31
CCW_CSSID = 0xFE  # the channel subsystem of virtual devices
CCW_MAX_DEVNO = 0xFFFF
# First register of each kind of pseries device, and the distance to the next.
SPAPR_NET, SPAPR_SCSI, SPAPR_NVRAM, SPAPR_TPM, SPAPR_SERIAL = 0x1000, 0x2000, 0x3000, 0x4000, 0x30000000
SPAPR_STEP = 0x1000
_VIRTIO_BALLOON = (
    MemballoonModel.VIRTIO,
    MemballoonModel.VIRTIO_TRANSITIONAL,
    MemballoonModel.VIRTIO_NON_TRANSITIONAL,
)


def assign_virtio_serial(scope: Scope) -> None:
    """A port for each channel; port 0 is left to consoles."""
    devices = scope.devices
    sizes = {c.index or 0: c.ports or VIRTIO_SERIAL_PORTS for c in of_type(devices, Type.VIRTIO_SERIAL)}
    taken: set[tuple[int, int]] = set()
    for chardev in on_virtio_serial(devices):
        address = chardev.info.address
        if isinstance(address, VirtioSerialAddress) and (address.port or isinstance(chardev, Console)):
            port = address.port or 0
            place = (address.controller, port)
            if port >= sizes.get(address.controller, VIRTIO_SERIAL_PORTS):
                raise XmlError(
                    f"virtio serial controller {address.controller} does not have port {port}",
                    domain=DOMAIN,
                )
            if place in taken:
                raise XmlError(
                    f"virtio serial port {port} on controller {address.controller} is already occupied",
                    domain=DOMAIN,
                )
            taken.add(place)
    for chardev in on_virtio_serial(devices):
        address = chardev.info.address
        wanted = sorted(sizes)
        if isinstance(address, VirtioSerialAddress):
            if address.port or isinstance(chardev, Console):
                continue
            wanted = [address.controller]
        elif not isinstance(chardev, Channel):
            continue
        place = _free_port(wanted, sizes, taken) or _new_controller(devices, sizes)
        taken.add(place)
        chardev.info.address = VirtioSerialAddress(controller=place[0], bus=0, port=place[1])


def _new_controller(devices: Devices, sizes: dict[int, int]) -> tuple[int, int]:
    """The first port of one more controller."""
    number = max(sizes, default=-1) + 1
    ensure(devices, Type.VIRTIO_SERIAL, number)
    sizes[number] = VIRTIO_SERIAL_PORTS
    return number, 1


def _free_port(controllers: list[int], sizes: dict[int, int], taken: set[tuple[int, int]]) -> tuple[int, int] | None:
    for number in controllers:
        for port in range(1, sizes.get(number, VIRTIO_SERIAL_PORTS)):
            if (number, port) not in taken:
                return number, port
    return None


def virtio_devices(devices: Devices) -> Iterator[Device]:
    """Devices that sit wherever a board has virtio, in the order in which they choose."""
    for disk in devices.disk:
        if disk.target.bus is DiskBus.VIRTIO:
            yield disk
    for net in devices.interface:
        if net.model in ("virtio", "virtio-transitional", "virtio-non-transitional"):
            yield net
    for hostdev in devices.hostdev:
        if hostdev.type is HostdevType.SCSI_HOST:
            yield hostdev
    yield from devices.filesystem
    for controller in devices.controller:
        if controller.type is Type.VIRTIO_SERIAL or (controller.type is Type.SCSI and controller.model in VIRTIO_SCSI):
            yield controller
    for one in devices.input:
        if one.bus is InputBus.VIRTIO:
            yield one
    for video in devices.video:
        if video.model and video.model.type is VideoModelType.VIRTIO:
            yield video
    if devices.memballoon is not None and devices.memballoon.model in _VIRTIO_BALLOON:
        yield devices.memballoon
    yield from devices.rng
    if devices.vsock is not None:
        yield devices.vsock


def assign_ccw(scope: Scope) -> None:
    """A device number for each device on the channel subsystem."""
    devices = scope.devices
    taken: set[tuple[int, int, int]] = set()
    wanting: list[Device] = []
    ccw = list(virtio_devices(devices))
    ccw += [h for h in devices.hostdev if h.type is HostdevType.MDEV and h.model is HostdevModel.VFIO_CCW]
    known = {id(device) for device in ccw}
    for device in (device for device in walk(devices) if id(device) in known):
        address = device.info.address
        if isinstance(address, CcwAddress) and address.devno is not None:
            place = (address.cssid or 0, address.ssid or 0, address.devno)
            if place in taken:
                text = f"{place[0]:x}.{place[1]:x}.{place[2]:04x}"
                raise XmlError(f"The CCW devno '{text}' is in use already", domain=ErrorDomain.DOMAIN)
            taken.add(place)
        elif address is None or isinstance(address, CcwAddress):
            wanting.append(device)
    number = 0
    for device in wanting:
        while (CCW_CSSID, 0, number) in taken:
            number += 1
        if number > CCW_MAX_DEVNO:
            raise ConfigUnsupported("There are no more free CCW devnos.", domain=ErrorDomain.DOMAIN)
        taken.add((CCW_CSSID, 0, number))
        device.info.address = CcwAddress(cssid=CCW_CSSID, ssid=0, devno=number)


def assign_virtio_mmio(scope: Scope) -> None:
    """Boards without PCI, and guests that already use the board's slots."""
    devices = list(virtio_devices(scope.devices))
    used = any(isinstance(device.info.address, VirtioMmioAddress) for device in devices)
    if scope.board.pcie and not used:
        return
    for device in (*devices, *of_type(scope.devices, Type.SCSI)):
        if device.info.address is None:
            device.info.address = VirtioMmioAddress()


def assign_spapr_vio(scope: Scope) -> None:
    """Registers of the pseries machine's own devices."""
    devices, taken = scope.devices, set[int]()
    wanting: list[tuple[Device, int]] = []
    for device, first in _spapr_devices(devices):
        address = device.info.address
        if isinstance(address, SpaprVioAddress) and address.reg is not None:
            if address.reg > 0xFFFFFFFF:
                raise ConfigUnsupported(
                    f"spapr-vio reg='0x{address.reg}' exceeds maximum possible value (0xffffffff)",
                    domain=ErrorDomain.QEMU,
                )
            if address.reg in taken:
                raise XmlError(f"spapr-vio address {address.reg:#x} already in use", domain=ErrorDomain.QEMU)
            taken.add(address.reg)
        elif address is None or isinstance(address, SpaprVioAddress):
            wanting.append((device, first))
    for device, first in wanting:
        register = first
        while register in taken:
            register += SPAPR_STEP
        taken.add(register)
        device.info.address = SpaprVioAddress(reg=register)


def _spapr_devices(devices: Devices) -> Iterator[tuple[Device, int]]:
    for net in devices.interface:
        if net.model == "spapr-vlan" or isinstance(net.info.address, SpaprVioAddress):
            yield net, SPAPR_NET
    for controller in of_type(devices, Type.SCSI):
        if controller.model is Model.IBMVSCSI or isinstance(controller.info.address, SpaprVioAddress):
            yield controller, SPAPR_SCSI
    for serial in devices.serial:
        if serial.target and serial.target.type is SerialTargetType.SPAPR_VIO:
            yield serial, SPAPR_SERIAL
    if devices.nvram is not None:
        yield devices.nvram, SPAPR_NVRAM
    for tpm in devices.tpm:
        if tpm.model is TpmModel.SPAPR:
            yield tpm, SPAPR_TPM


def assign_dimms(scope: Scope) -> None:
    """Slots of memory devices."""
    devices = [d for d in scope.devices.memory if d.model in (MemoryModel.DIMM, MemoryModel.NVDIMM)]
    maximum = scope.definition.max_memory
    taken = {a.slot for d in devices if isinstance(a := d.info.address, DimmAddress) and a.slot is not None}
    for device in devices:
        address = device.info.address
        if not isinstance(address, DimmAddress):
            address = device.info.address = DimmAddress()
        if address.slot is None:
            address.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
            if maximum is not None and address.slot >= maximum.slots:
                raise InternalError("failed to find an empty memory slot", domain=ErrorDomain.QEMU)
            taken.add(address.slot)
