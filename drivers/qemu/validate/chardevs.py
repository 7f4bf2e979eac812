"""Rules of character devices: the host's end of each kind, then serial ports, consoles, channels, smart cards."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.refuse import qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import InvalidArg
from pyvirtd.model.address import Address, CcidAddress, CcwAddress, IsaAddress, PciAddress, SpaprVioAddress, UsbAddress
from pyvirtd.model.chardev import (
    Channel,
    CharBackend,
    ChardevType,
    Console,
    ConsoleTargetType,
    GuestfwdTarget,
    Redirdev,
    Serial,
    SerialTarget,
    SerialTargetModel,
    SerialTargetType,
    SmartcardMode,
    TcpSource,
    UnixSource,
    VirtioTarget,
)
from pyvirtd.model.graphics import SpiceGraphics

SMARTCARD_CERTIFICATES = 3
SPICE_AGENT = "com.redhat.spice.0"
_MODELS = {
    SerialTargetType.ISA: (SerialTargetModel.ISA_SERIAL,),
    SerialTargetType.USB: (SerialTargetModel.USB_SERIAL,),
    SerialTargetType.PCI: (SerialTargetModel.PCI_SERIAL,),
    SerialTargetType.SPAPR_VIO: (SerialTargetModel.SPAPR_VTY,),
    SerialTargetType.SYSTEM: (SerialTargetModel.PL011, SerialTargetModel.M16550A),
    SerialTargetType.SCLP: (SerialTargetModel.SCLPCONSOLE, SerialTargetModel.SCLPLMCONSOLE),
    SerialTargetType.ISA_DEBUG: (SerialTargetModel.ISA_DEBUGCON,),
}
_ADDRESSES: dict[SerialTargetType, tuple[type[Address], str]] = {
    SerialTargetType.ISA: (IsaAddress, "isa"),
    SerialTargetType.USB: (UsbAddress, "usb"),
    SerialTargetType.PCI: (PciAddress, "pci"),
    SerialTargetType.SPAPR_VIO: (SpaprVioAddress, "spapr-vio"),
    SerialTargetType.ISA_DEBUG: (IsaAddress, "isa"),
}
_CONSOLE_DEVICES = {ConsoleTargetType.SCLP: "sclpconsole", ConsoleTargetType.SCLPLM: "sclplmconsole"}
_NEED_SPICE = (ChardevType.SPICEVMC, ChardevType.SPICEPORT)


def check_chardevs(scope: Scope) -> None:
    """All of them."""
    devices = scope.devices
    for serial in devices.serial:
        _check_serial(scope, serial)
    for number, console in enumerate(devices.console):
        _check_console(scope, console, number)
    for channel in devices.channel:
        _check_channel(scope, channel)
    if devices.parallel and (scope.board.pseries or scope.board.s390):
        raise qemu_unsupported("parallel ports are not supported")
    for device in (*devices.serial, *devices.parallel, *devices.redirdev):
        check_backend(scope, device, spicevmc=isinstance(device, Redirdev))
    for console in devices.console:
        if console.target is not None and console.target.type is not ConsoleTargetType.SERIAL:
            check_backend(scope, console, spicevmc=False)
    for channel in devices.channel:
        check_backend(scope, channel, spicevmc=not isinstance(channel.target, GuestfwdTarget))
        if channel.type is ChardevType.SPICEVMC and isinstance(channel.target, VirtioTarget):
            if channel.target.name not in (None, SPICE_AGENT):
                raise qemu_unsupported(f"Unsupported spicevmc target name '{channel.target.name}'")
    _check_smartcards(scope)


def check_backend(scope: Scope, device: CharBackend, *, spicevmc: bool = True) -> None:
    """What QEMU and the rest of the definition make of a source."""
    if device.type is ChardevType.SPICEVMC and not spicevmc:
        raise unsupported("spicevmc device type only supports virtio")
    spice = any(isinstance(graphics, SpiceGraphics) for graphics in scope.devices.graphics)
    if device.type in _NEED_SPICE and not spice:
        raise qemu_unsupported(f"chardev '{device.type}' not supported without spice graphics")
    for source in device.source:
        reconnect = source.reconnect if isinstance(source, TcpSource | UnixSource) else None
        if reconnect is not None and reconnect.enabled and reconnect.timeout == 0:
            raise InvalidArg("chardev reconnect source timeout cannot be '0'", domain=ErrorDomain.QEMU)


def _check_serial(scope: Scope, serial: Serial) -> None:
    target, board = serial.target or SerialTarget(), scope.board
    kind, model = target.type, target.model
    if kind is not None and model is not None and model not in _MODELS[kind]:
        wanted = next(kind for kind, models in _MODELS.items() if model in models)
        raise qemu_unsupported(f"Target model '{model}' requires target type '{wanted}'")
    if kind is SerialTargetType.ISA_DEBUG and not board.x86:
        raise unsupported("isa-debug serial type only valid on x86 architecture")
    if kind in _ADDRESSES and serial.info.address is not None:
        wanted_address, word = _ADDRESSES[kind]
        if not isinstance(serial.info.address, wanted_address) and not isinstance(serial.info.address, CcwAddress):
            raise qemu_unsupported(f"Target type '{kind}' requires address type '{word}'")
    wrong = (
        (kind is SerialTargetType.SPAPR_VIO and not board.pseries)
        or (kind is SerialTargetType.SCLP and not board.s390)
        or (model is SerialTargetModel.PL011 and not board.arm_virt)
        or (model is SerialTargetModel.M16550A and not board.riscv_virt)
    )
    if wrong:
        raise qemu_unsupported(
            f"Serial device with target type '{kind}' and target model '{model}' not compatible with guest"
            " architecture or machine type"
        )


def _check_console(scope: Scope, console: Console, number: int) -> None:
    kind = console.target.type if console.target is not None else None
    match kind:
        case ConsoleTargetType.SERIAL if number:
            raise unsupported("Only the first console can be a serial port")
        case ConsoleTargetType.SCLP | ConsoleTargetType.SCLPLM:
            if not scope.caps.has_device(_CONSOLE_DEVICES[kind]):
                raise qemu_unsupported(f"{_CONSOLE_DEVICES[kind]} is not supported in this QEMU binary")
        case ConsoleTargetType.XEN | ConsoleTargetType.UML | ConsoleTargetType.LXC | ConsoleTargetType.OPENVZ:
            raise qemu_unsupported(f"unsupported console target type {kind}")
        case _:
            pass


def _check_channel(scope: Scope, channel: Channel) -> None:
    target = channel.target
    if isinstance(target, GuestfwdTarget):
        if target.address is None:
            raise xml("guestfwd channel does not define a target address")
        if ":" in target.address:
            raise unsupported("guestfwd channel only supports IPv4 addresses")


def _check_smartcards(scope: Scope) -> None:
    cards = scope.devices.smartcard
    for card in cards:
        if card.mode is SmartcardMode.HOST_CERTIFICATES and len(card.certificate) != SMARTCARD_CERTIFICATES:
            raise xml("host-certificates mode needs exactly three certificates")
        if card.mode is SmartcardMode.PASSTHROUGH:
            check_backend(scope, card)
        if not isinstance(card.info.address, CcidAddress):
            raise unsupported("Controllers must use the 'ccid' address type")
    if len(cards) > 1 or any(
        isinstance(a := card.info.address, CcidAddress) and (a.controller or a.slot) for card in cards
    ):
        raise qemu_unsupported("this QEMU binary lacks multiple smartcard support")
