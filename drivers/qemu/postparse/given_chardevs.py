"""What character devices must say by themselves."""

from pyvirtd.drivers.qemu.postparse.refuse import internal, unsupported
from pyvirtd.model.chardev import (
    ChannelNameSource,
    CharBackend,
    ChardevType,
    EgdBackend,
    GuestfwdTarget,
    Redirdev,
    Smartcard,
    SmartcardMode,
    SocketMode,
    TcpSource,
    UdpSource,
    UnixSource,
)
from pyvirtd.model.domain import DomainDef


def given_chardevs(definition: DomainDef) -> None:
    """What a character device must say by itself; channels may leave their socket's place to us."""
    devices = definition.devices
    for device in (*devices.serial, *devices.parallel, *devices.console, *devices.redirdev):
        given_backend(device)
    for channel in devices.channel:
        own_place = channel.type is ChardevType.UNIX and not isinstance(channel.target, GuestfwdTarget)
        if not own_place or any(isinstance(source, UnixSource) and source.reconnect for source in channel.source):
            given_backend(channel, path=not own_place)
    for card in devices.smartcard:
        if card.mode is SmartcardMode.PASSTHROUGH:
            given_backend(card)
    for rng in devices.rng:
        if isinstance(rng.backend, EgdBackend):
            given_backend(rng.backend)


def given_backend(device: CharBackend, *, path: bool = True) -> None:
    """The parts of a source that its type cannot do without."""
    source = device.source[0] if device.source else None
    match device.type:
        case ChardevType.DEV | ChardevType.FILE | ChardevType.PIPE | ChardevType.UNIX:
            if path and not getattr(source, "path", None):
                raise internal("Missing source path attribute for char device")
        case ChardevType.TCP:
            if not isinstance(source, TcpSource) or not source.host:
                raise internal("Missing source host attribute for char device")
            if not source.service:
                raise internal("Missing source service attribute for char device")
        case ChardevType.UDP:
            there = [s for s in device.source if isinstance(s, UdpSource) and s.mode is not SocketMode.BIND]
            if not there or not there[0].service:
                raise internal("Missing source service attribute for char device")
        case ChardevType.SPICEPORT | ChardevType.DBUS:
            if not isinstance(source, ChannelNameSource) or not source.channel:
                if not isinstance(device, Redirdev | Smartcard | EgdBackend) or device.type is ChardevType.SPICEPORT:
                    raise unsupported("Missing source channel attribute for char device")
        case _:
            pass
    if (
        isinstance(source, TcpSource | UnixSource)
        and source.reconnect is not None
        and source.reconnect.enabled is not None
    ):
        if source.mode is SocketMode.BIND:
            raise internal("chardev reconnect is possible only for connect mode")
