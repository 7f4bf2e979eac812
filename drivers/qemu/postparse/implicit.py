"""Devices that every guest of a board has, whether or not its definition names them."""

from dataclasses import dataclass

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.disk_buses import CONTROLLERS
from pyvirtd.drivers.qemu.postparse.board import Kind
from pyvirtd.drivers.qemu.postparse.controllers import ICH9_COMPANIONS, ensure, fill, find
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import XmlError
from pyvirtd.model.address import DeviceInfo, DriveAddress
from pyvirtd.model.devices import (
    Controller,
    Devices,
    Memballoon,
    MemballoonModel,
    Panic,
    PanicModel,
)
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.graphics import Input, InputBus, InputType, SpiceGraphics, VncGraphics
from pyvirtd.model.hostdev import HostdevType
from pyvirtd.model.sound import Audio, AudioType


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a board gets. `root`: the model of PCI bus 0."""

    usb: bool = True
    usb_model: Model | None = None
    sata: bool = False
    root: Model | None = None
    memballoon: bool = True
    usb_input: bool = False
    panic: PanicModel | None = None


def defaults_of(scope: Scope) -> Defaults:
    """The table of boards."""
    board, caps = scope.board, scope.caps
    match board.kind:
        case Kind.ISAPC:
            return Defaults(usb=False)
        case Kind.I440FX:
            return Defaults(root=Model.PCI_ROOT)
        case Kind.Q35:
            model = Model.QEMU_XHCI if caps.has_device("qemu-xhci") else Model.ICH9_EHCI1
            return Defaults(usb_model=model, sata=True, root=Model.PCIE_ROOT)
        case Kind.ARM_VIRT:
            return Defaults(usb=False, root=Model.PCIE_ROOT, memballoon=False)
        case Kind.RISCV_VIRT:
            return Defaults(usb=False, root=Model.PCIE_ROOT)
        case Kind.PSERIES:
            return Defaults(root=Model.PCI_ROOT, usb_input=True, panic=PanicModel.PSERIES)
        case Kind.S390_CCW:
            root = Model.PCI_ROOT if caps.has_device("zpci") else None
            return Defaults(usb=False, root=root, panic=PanicModel.S390)
        case _:
            return _other(scope)


def _other(scope: Scope) -> Defaults:
    board = scope.board
    if board.arm:
        root = Model.PCI_ROOT if board.machine == "versatilepb" else None
        return Defaults(usb=False, root=root, memballoon=False)
    if board.riscv or board.s390:
        return Defaults(usb=False)
    if board.arch in ("ppc", "ppcemb", "ppc64", "ppc64le"):
        return Defaults(root=Model.PCI_ROOT, usb_input=board.ppc64)
    if board.arch in ("alpha", "mips", "mipsel", "mips64", "mips64el", "sh4", "sh4eb", "sparc64"):
        return Defaults(root=Model.PCI_ROOT)
    return Defaults()


def add_default_devices(scope: Scope) -> None:
    """Before single devices are completed."""
    devices, wanted = scope.devices, defaults_of(scope)
    if wanted.usb and find(devices, Type.USB, 0) is None:
        _add_usb(devices, wanted.usb_model)
    if wanted.sata:
        ensure(devices, Type.SATA, 0)
    if wanted.root is not None:
        _add_root(devices, wanted.root)
    if wanted.memballoon and devices.memballoon is None:
        devices.memballoon = Memballoon(model=MemballoonModel.VIRTIO)
    if wanted.usb_input and devices.graphics:
        _ensure_input(devices, InputType.KEYBOARD, InputBus.USB)
        if not any(one.type is InputType.TABLET and one.bus is InputBus.USB for one in devices.input):
            _ensure_input(devices, InputType.MOUSE, InputBus.USB)
    if scope.board.x86:
        _ensure_input(devices, InputType.MOUSE, InputBus.PS2)
        _ensure_input(devices, InputType.KEYBOARD, InputBus.PS2)
    if wanted.panic is not None and not any(panic.model in (None, wanted.panic) for panic in devices.panic):
        devices.panic.append(Panic(model=wanted.panic))
    if not devices.audio and (kind := _default_audio(devices)) is not None:
        devices.audio.append(Audio(id=1, type=kind))


def _add_usb(devices: Devices, model: Model | None) -> None:
    ensure(devices, Type.USB, 0, model)
    if model is Model.ICH9_EHCI1:
        for number, companion in enumerate(ICH9_COMPANIONS):
            info = DeviceInfo(master=2 * number)
            devices.controller.append(Controller(type=Type.USB, index=0, model=companion, info=info))


def _add_root(devices: Devices, model: Model) -> None:
    found = find(devices, Type.PCI, 0)
    if found is None:
        ensure(devices, Type.PCI, 0, model)
    elif found.model is not model:
        raise XmlError(
            f"The PCI controller with index='0' must be model='{model}' for this machine type, "
            f"but model='{found.model or '(null)'}' was found instead",
            domain=ErrorDomain.QEMU,
        )


def _ensure_input(devices: Devices, kind: InputType, bus: InputBus) -> None:
    if not any(one.type is kind and one.bus is bus for one in devices.input):
        devices.input.append(Input(type=kind, bus=bus))


def _default_audio(devices: Devices) -> AudioType | None:
    """Sound goes where the screen is shown; nowhere for VNC. Other displays choose for themselves."""
    if any(isinstance(graphics, SpiceGraphics) for graphics in devices.graphics):
        return AudioType.SPICE
    silent = not devices.graphics or any(isinstance(graphics, VncGraphics) for graphics in devices.graphics)
    return AudioType.NONE if silent else None


def add_implicit_controllers(scope: Scope) -> None:
    """Controllers that drives, serial ports of virtio, smart cards and SCSI host devices are attached to."""
    devices = scope.devices
    for bus, kind in CONTROLLERS.items():
        drives = [disk.info.address for disk in devices.disk if disk.target.bus is bus]
        numbers = [address.controller for address in drives if isinstance(address, DriveAddress)]
        fill(devices, kind, numbers)
    hosts = [hostdev.info.address for hostdev in devices.hostdev if hostdev.type is HostdevType.SCSI]
    fill(devices, Type.SCSI, [address.controller for address in hosts if isinstance(address, DriveAddress)])
    _add_virtio_serial(devices)
    fill(devices, Type.CCID, [_ccid_number(card.info.address) for card in devices.smartcard])


def _ccid_number(address: object) -> int:
    return getattr(address, "controller", 0)


def _add_virtio_serial(devices: Devices) -> None:
    from pyvirtd.drivers.qemu.postparse.chardevs import on_virtio_serial

    for chardev in on_virtio_serial(devices):
        ensure(devices, Type.VIRTIO_SERIAL, getattr(chardev.info.address, "controller", 0))
