"""Defaults of character devices: targets of serial ports, the first console that mirrors a serial port, ports."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Protocol

from pyvirtd.drivers.qemu.postparse.refuse import internal
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.address import CcidAddress, DeviceInfo, IsaAddress, PciAddress, SpaprVioAddress, UsbAddress
from pyvirtd.model.chardev import (
    AnyCharSource,
    Channel,
    ChannelNameSource,
    ChardevType,
    Console,
    ConsoleTarget,
    ConsoleTargetType,
    EgdBackend,
    ParallelTarget,
    Redirdev,
    Serial,
    SerialTarget,
    SerialTargetModel,
    SerialTargetType,
    SocketProtocol,
    Tpm,
    TpmEmulator,
    TpmModel,
    TpmVersion,
    UnixSource,
    VirtioTarget,
)
from pyvirtd.model.devices import Devices
from pyvirtd.paths import QemuPaths

_VIRTIO_SERIAL_CONSOLES = (ConsoleTargetType.VIRTIO,)
_MODEL_OF_TYPE = {
    SerialTargetType.ISA: SerialTargetModel.ISA_SERIAL,
    SerialTargetType.USB: SerialTargetModel.USB_SERIAL,
    SerialTargetType.PCI: SerialTargetModel.PCI_SERIAL,
    SerialTargetType.SPAPR_VIO: SerialTargetModel.SPAPR_VTY,
    SerialTargetType.SCLP: SerialTargetModel.SCLPCONSOLE,
    SerialTargetType.ISA_DEBUG: SerialTargetModel.ISA_DEBUGCON,
}
# Serial ports that firmware and kernels use as their console.
_CONSOLE_PORTS = (SerialTargetType.ISA, SerialTargetType.SPAPR_VIO, SerialTargetType.SYSTEM, SerialTargetType.SCLP)


def on_virtio_serial(devices: Devices) -> Iterator[Console | Channel]:
    """Consoles and channels that are ports of a virtio-serial controller."""
    for channel in devices.channel:
        if isinstance(channel.target, VirtioTarget):
            yield channel
    for console in devices.console:
        if console.target is not None and console.target.type is ConsoleTargetType.VIRTIO:
            yield console


def mirrors_serial(devices: Devices, console: Console) -> bool:
    """The first console, where it only stands for the first serial port."""
    if not devices.console or console is not devices.console[0] or not devices.serial:
        return False
    return console.target is None or console.target.type in (None, ConsoleTargetType.SERIAL)


def add_console_twin(scope: Scope) -> None:
    """The first console and the first serial port are one device, written twice."""
    devices = scope.devices
    for number, console in enumerate(devices.console):
        console.target = console.target or ConsoleTarget()
        console.target.type = console.target.type or ConsoleTargetType.SERIAL
        console.target.port = number
    first = devices.console[0] if devices.console else None
    if first is not None and first.target is not None and first.target.type is ConsoleTargetType.SERIAL:
        if not devices.serial:
            devices.serial.append(_serial_of(first))
    elif devices.serial:
        target = devices.serial[0].target
        if target is None or target.type is None or target.type in _CONSOLE_PORTS:
            devices.console.insert(0, Console(target=ConsoleTarget(type=ConsoleTargetType.SERIAL, port=0)))


def _serial_of(console: Console) -> Serial:
    source = [item.copy() for item in console.source]
    log = console.log.copy() if console.log else None
    return Serial(type=console.type, source=source, protocol=console.protocol, log=log, info=console.info.copy())


def copy_to_console(scope: Scope) -> None:
    """After addresses are known: the twin shows what the serial port has."""
    devices = scope.devices
    if not devices.console or not mirrors_serial(devices, devices.console[0]):
        return
    serial, old = devices.serial[0], devices.console[0]
    twin = _console_of(serial)
    twin.target = ConsoleTarget(type=ConsoleTargetType.SERIAL, port=0)
    twin.tty = old.tty
    devices.console[0] = twin


def _console_of(serial: Serial) -> Console:
    source = [item.copy() for item in serial.source]
    info = serial.info.copy()
    return Console(
        type=serial.type, source=source, protocol=serial.protocol, log=serial.log.copy() if serial.log else None,
        info=DeviceInfo(address=info.address, alias=info.alias),
    )  # fmt: skip


def complete_chardevs(scope: Scope, paths: QemuPaths | None) -> None:
    """All character devices of a definition."""
    devices = scope.devices
    add_console_twin(scope)
    for serial in devices.serial:
        complete_serial(scope, serial)
    _number_ports(devices)
    for chardev in (*devices.serial, *devices.parallel, *devices.console, *devices.channel):
        complete_backend(chardev)
    for channel in devices.channel:
        _drop_own_path(channel, paths)
    for redirdev in devices.redirdev:
        complete_redirdev(redirdev)
    for slot, card in enumerate(devices.smartcard):
        complete_backend(card)
        if card.info.address is None:
            card.info.address = CcidAddress(slot=slot)
    for rng in devices.rng:
        if isinstance(rng.backend, EgdBackend):
            complete_backend(rng.backend)


def complete_serial(scope: Scope, serial: Serial) -> None:
    """Which kind of port, and which model of it."""
    target = serial.target = serial.target or SerialTarget()
    board = scope.board
    if target.type is SerialTargetType.ISA and not board.x86:
        if board.arm_virt or board.pseries or board.s390_ccw or board.riscv_virt:
            target.type = None  # what older versions wrote for "the board's own"
    if target.type is None:
        target.type = _default_type(scope) if board.x86 else _type_by_address(serial) or _default_type(scope)
    if target.model is None and target.type is not None:
        target.model = _default_model(scope, target.type)


def _type_by_address(serial: Serial) -> SerialTargetType | None:
    address = serial.info.address
    for kind, found in (
        (UsbAddress, SerialTargetType.USB),
        (PciAddress, SerialTargetType.PCI),
        (SpaprVioAddress, SerialTargetType.SPAPR_VIO),
        (IsaAddress, SerialTargetType.ISA),
    ):
        if isinstance(address, kind):
            return found
    return None


def _default_type(scope: Scope) -> SerialTargetType | None:
    board = scope.board
    if board.x86:
        return SerialTargetType.ISA
    if board.pseries:
        return SerialTargetType.SPAPR_VIO
    if board.arm_virt or board.riscv_virt:
        return SerialTargetType.SYSTEM
    return SerialTargetType.SCLP if board.s390 else None


def _default_model(scope: Scope, kind: SerialTargetType) -> SerialTargetModel | None:
    if kind is SerialTargetType.SYSTEM:
        if scope.board.arm_virt:
            return SerialTargetModel.PL011
        return SerialTargetModel.M16550A if scope.board.riscv_virt else None
    return _MODEL_OF_TYPE[kind]


def _number_ports(devices: Devices) -> None:
    """A port without a number gets the one after the highest."""
    for serial in devices.serial:
        serial.target = serial.target or SerialTarget()
    for parallel in devices.parallel:
        parallel.target = parallel.target or ParallelTarget()
    for group in (devices.serial, devices.parallel):
        targets = [device.target for device in group if device.target is not None]
        highest = max((target.port for target in targets if target.port is not None), default=-1)
        for target in targets:
            if target.port is None:
                highest += 1
                target.port = highest


class HasBackend(Protocol):
    """A device with a character device behind it."""

    source: list[AnyCharSource]
    protocol: SocketProtocol | None

    @property
    def type(self) -> ChardevType | None: ...


def complete_backend(chardev: HasBackend) -> None:
    """The host's side: the protocol of TCP; sources without anything left out."""
    if chardev.type is not ChardevType.TCP:
        chardev.protocol = None
    elif chardev.protocol is None:
        chardev.protocol = SocketProtocol.RAW
    if chardev.type in (ChardevType.NULL, ChardevType.VC, ChardevType.STDIO, ChardevType.SPICEVMC):
        chardev.source = []


def _drop_own_path(channel: Channel, paths: QemuPaths | None) -> None:
    """A socket path that we chose in an earlier run is chosen again at start."""
    if channel.type is not ChardevType.UNIX or not isinstance(channel.target, VirtioTarget):
        return
    sources = [source for source in channel.source if isinstance(source, UnixSource)]
    if sources and sources[0].path and paths is not None and _is_own_path(sources[0].path, channel, paths):
        sources[0].path = None
        if sources[0].reconnect is not None and sources[0].reconnect.enabled is not None:
            raise internal("chardev reconnect is possible only for connect mode")
    if sources and not sources[0].path and sources[0].reconnect is None:
        channel.source = []


def _is_own_path(path: str, channel: Channel, paths: QemuPaths) -> bool:
    """…/channel/target/DOMAIN.NAME of old releases or …/channel/target/domain-…/NAME."""
    assert isinstance(channel.target, VirtioTarget)
    base, name = PurePath(paths.channel_target), channel.target.name
    given = PurePath(path)
    if given.parent == base:
        return given.name.endswith(f".{name}")
    return given.parent.parent == base and given.parent.name.startswith("domain-") and given.name == name


def complete_redirdev(redirdev: Redirdev) -> None:
    """D-Bus redirection has a channel of its own name."""
    complete_backend(redirdev)
    if redirdev.type is ChardevType.DBUS and not redirdev.source:
        redirdev.source = [ChannelNameSource(channel="org.qemu.usbredir")]


def complete_tpm(scope: Scope, tpm: Tpm) -> None:
    """The model that the board's firmware knows, and the version that the model speaks."""
    if tpm.model is None:
        tpm.model = TpmModel.SPAPR if scope.board.pseries else TpmModel.TIS
    if isinstance(tpm.backend, TpmEmulator) and tpm.backend.version is None:
        tpm.backend.version = TpmVersion.V1_2 if tpm.model is TpmModel.TIS and scope.board.x86 else TpmVersion.V2_0
