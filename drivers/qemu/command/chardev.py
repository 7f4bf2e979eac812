"""Character devices: the host's side (-chardev) and the guest's (-device)."""

from pathlib import Path

from pyvirtd.drivers.qemu.command.address import ccid_bus, put_address, serial_bus
from pyvirtd.drivers.qemu.command.context import Builder, Json, Props, escape
from pyvirtd.drivers.qemu.postparse.chardevs import mirrors_serial
from pyvirtd.model.address import PciAddress, VirtioSerialAddress
from pyvirtd.model.chardev import (
    AnyCharSource,
    Channel,
    ChannelNameSource,
    ChardevType,
    CharLog,
    Console,
    ConsoleTargetType,
    FileCharSource,
    GuestfwdTarget,
    Parallel,
    PathSource,
    PtySource,
    Redirdev,
    Serial,
    SerialTargetModel,
    Smartcard,
    SmartcardMode,
    SocketMode,
    SocketProtocol,
    TcpSource,
    UdpSource,
    UnixSource,
    VdagentSource,
    VirtioTarget,
)
from pyvirtd.model.domain import DomainDef

NSS_DATABASE = "/etc/pki/nssdb"
VDAGENT = "vdagent"
DEFAULT_TLS = "/etc/pki/qemu"


class Backend:
    """What all devices with a character device behind them have in common."""

    def __init__(
        self, kind: ChardevType, source: list[AnyCharSource], protocol: SocketProtocol | None, log: CharLog | None
    ) -> None:
        self.kind, self.source, self.protocol, self.log = kind, source, protocol, log


def build_backend(build: Builder, alias: str, backend: Backend, name: str = "") -> str:
    """-chardev for a device; gives the chardev's id. `name`: what a SPICE channel is called."""
    chardev = f"char{alias}"
    words = _backend_words(build, alias, chardev, backend, name)
    if backend.log is not None and backend.log.file is not None:
        fd = build.context.logs.get(alias)
        path = escape(backend.log.file or "") if fd is None else build.command.add_fd(fd, f"{alias}-log")
        words.append(f"logfile={path}")
        words.append(f"logappend={'on' if backend.log.append or fd is not None else 'off'}")
    build.command.add("-chardev", ",".join(words))
    return chardev


def _backend_words(build: Builder, alias: str, chardev: str, backend: Backend, name: str) -> list[str]:
    first = backend.source[0] if backend.source else None
    head = f"id={chardev}"
    match backend.kind:
        case ChardevType.NULL | ChardevType.VC | ChardevType.PTY | ChardevType.STDIO:
            return [str(backend.kind), head]
        case ChardevType.DEV:
            word = "parallel" if alias.startswith("parallel") else "serial"
            return [word, head, f"path={escape(_path(first))}"]
        case ChardevType.PIPE:
            return ["pipe", head, f"path={escape(_path(first))}"]
        case ChardevType.FILE:
            return ["file", head, *_file(build, alias, first)]
        case ChardevType.UDP:
            return _udp(head, backend.source)
        case ChardevType.TCP:
            return _tcp(build, chardev, first, backend.protocol)
        case ChardevType.UNIX:
            return _unix(build, alias, head, first)
        case ChardevType.SPICEVMC:
            return ["spicevmc", head, f"name={name}"]
        case ChardevType.SPICEPORT:
            return ["spiceport", head, f"name={_channel_name(first)}"]
        case ChardevType.DBUS:
            return ["dbus", head, f"name={_channel_name(first)}"]
        case ChardevType.QEMU_VDAGENT:
            return _vdagent(head, first)
        case _:
            return [str(backend.kind), head]


def _file(build: Builder, alias: str, source: AnyCharSource | None) -> list[str]:
    fd = build.context.files.get(alias)
    if fd is not None:  # opened, and emptied where that was asked for
        return [f"path={build.command.add_fd(fd, f'{alias}-source')}", "append=on"]
    words = [f"path={escape(_path(source))}"]
    if isinstance(source, FileCharSource) and source.append is not None:
        words.append(f"append={'on' if source.append else 'off'}")
    return words


def _path(source: AnyCharSource | None) -> str:
    return (source.path or "") if isinstance(source, PathSource | FileCharSource | PtySource) else ""


def _channel_name(source: AnyCharSource | None) -> str:
    return (source.channel or "") if isinstance(source, ChannelNameSource) else ""


def _udp(head: str, sources: list[AnyCharSource]) -> list[str]:
    ends = [source for source in sources if isinstance(source, UdpSource)]
    there = next((end for end in ends if end.mode is SocketMode.CONNECT), UdpSource())
    here = next((end for end in ends if end.mode is SocketMode.BIND), UdpSource())
    return [
        "udp", head, f"host={there.host or ''}", f"port={there.service or 0}", f"localaddr={here.host or ''}",
        f"localport={here.service or 0}",
    ]  # fmt: skip


def _tcp(build: Builder, chardev: str, source: AnyCharSource | None, protocol: SocketProtocol | None) -> list[str]:
    assert isinstance(source, TcpSource)
    words = ["socket", f"id={chardev}", f"host={source.host or ''}", f"port={source.service or 0}"]
    if protocol is SocketProtocol.TELNET:
        words.append("telnet=on")
    if source.mode is SocketMode.BIND:
        words += ["server=on", "wait=off"]
    words += _reconnect(source)
    if build.config.chardev_tls if source.tls is None else source.tls:
        words.append(f"tls-creds={_tls_credentials(build, chardev, server=source.mode is SocketMode.BIND)}")
    return words


def _tls_credentials(build: Builder, chardev: str, *, server: bool) -> str:
    """The object with this end's certificate."""
    config, name = build.config, f"obj{chardev}_tls0"
    directory = config.chardev_tls_x509_cert_dir or config.default_tls_x509_cert_dir or DEFAULT_TLS
    verify = config.tls_verify(config.chardev_tls_x509_verify, default=True)
    props = Props({"qom-type": "tls-creds-x509", "id": name, "dir": directory})
    build.object(props.put("endpoint", "server" if server else "client").put("verify-peer", verify or not server))
    return name


def _reconnect(source: TcpSource | UnixSource) -> list[str]:
    if source.reconnect is None or source.mode is SocketMode.BIND:
        return []
    if source.reconnect.enabled and source.reconnect.timeout is not None:
        return [f"reconnect={source.reconnect.timeout}"]
    return ["reconnect=0"] if source.reconnect.enabled is False else []


def _unix(build: Builder, alias: str, head: str, source: AnyCharSource | None) -> list[str]:
    assert isinstance(source, UnixSource)
    listens = source.mode is not SocketMode.CONNECT
    fd = build.context.chardevs.get(alias)
    words = ["socket", head, f"fd={fd}" if fd is not None and listens else f"path={escape(source.path or '')}"]
    if listens:
        words += ["server=on", "wait=off"]
    return words + _reconnect(source)


def _vdagent(head: str, source: AnyCharSource | None) -> list[str]:
    words = ["qemu-vdagent", head, f"name={VDAGENT}"]
    if isinstance(source, VdagentSource):
        if source.clipboard is not None:
            words.append(f"clipboard={'on' if source.clipboard else 'off'}")
        if source.mouse is not None:
            words.append(f"mouse={'on' if source.mouse == 'client' else 'off'}")
    return words


def complete_channel_paths(live: DomainDef, directory: Path) -> None:
    """Sockets of channels whose place is ours to choose."""
    for channel in live.devices.channel:
        if channel.type is not ChardevType.UNIX or not isinstance(channel.target, VirtioTarget):
            continue
        if not channel.source:
            channel.source = [UnixSource(mode=SocketMode.BIND)]
        source = channel.source[0]
        if isinstance(source, UnixSource) and not source.path:
            source.mode = source.mode or SocketMode.BIND
            source.path = str(directory / (channel.target.name or channel.info.alias or "channel"))


def build_chardevs(build: Builder) -> None:
    """Serial and parallel ports, channels, consoles."""
    devices = build.definition.devices
    for serial in devices.serial:
        _build_serial(build, serial)
    for parallel in devices.parallel:
        alias = parallel.info.alias or ""
        chardev = build_backend(build, alias, _of(parallel))
        build.device(Props(driver="isa-parallel", chardev=chardev, id=alias))
    for channel in devices.channel:
        _build_channel(build, channel)
    for console in devices.console:
        if not mirrors_serial(devices, console):
            _build_console(build, console)


def _of(device: Serial | Parallel | Channel | Console | Redirdev) -> Backend:
    return Backend(device.type, device.source, device.protocol, device.log)


_SERIAL_DRIVERS = {
    SerialTargetModel.ISA_SERIAL: "isa-serial",
    SerialTargetModel.USB_SERIAL: "usb-serial",
    SerialTargetModel.PCI_SERIAL: "pci-serial",
    SerialTargetModel.SPAPR_VTY: "spapr-vty",
    SerialTargetModel.SCLPCONSOLE: "sclpconsole",
    SerialTargetModel.SCLPLMCONSOLE: "sclplmconsole",
    SerialTargetModel.ISA_DEBUGCON: "isa-debugcon",
}


def _build_serial(build: Builder, serial: Serial) -> None:
    alias = serial.info.alias or ""
    chardev = build_backend(build, alias, _of(serial))
    model = serial.target.model if serial.target else None
    driver = _SERIAL_DRIVERS.get(model) if model else None
    if driver is None:
        build.command.add("-serial", f"chardev:{chardev}")  # a port of the board
        return
    props = Props(driver=driver, chardev=chardev, id=alias)
    if driver == "isa-serial" and serial.target is not None:
        props.put("index", serial.target.port)
    put_address(build, props, serial.info)
    build.device(props)


def _build_channel(build: Builder, channel: Channel) -> None:
    alias, target = channel.info.alias or "", channel.target
    chardev = build_backend(build, alias, _of(channel), VDAGENT)
    if isinstance(target, GuestfwdTarget):
        forward: list[Json] = [{"str": f"tcp:{target.address}:{target.port}-chardev:{chardev}"}]
        build.command.add("-netdev", Props(type="user", guestfwd=forward, id=alias).text())
        return
    if not isinstance(target, VirtioTarget):
        return
    props = Props(driver="virtserialport")
    _put_port(build, props, channel.info.address)
    props.put("chardev", chardev).put("id", alias)
    name = target.name
    if name is None and channel.type is ChardevType.SPICEVMC:
        name = "com.redhat.spice.0"
    build.device(props.put("name", name))


def _put_port(build: Builder, props: Props, address: object) -> None:
    if isinstance(address, VirtioSerialAddress):
        props.put("bus", serial_bus(build, address)).put("nr", address.port)


def _build_console(build: Builder, console: Console) -> None:
    alias = console.info.alias or ""
    kind = console.target.type if console.target else None
    drivers = {
        ConsoleTargetType.VIRTIO: "virtconsole",
        ConsoleTargetType.SCLP: "sclpconsole",
        ConsoleTargetType.SCLPLM: "sclplmconsole",
    }
    driver = drivers.get(kind) if kind else None
    if driver is None:
        return
    chardev = build_backend(build, alias, _of(console))
    props = Props(driver=driver)
    if kind is ConsoleTargetType.VIRTIO:
        _put_port(build, props, console.info.address)
    build.device(props.put("chardev", chardev).put("id", alias))


def build_smartcards(build: Builder) -> None:
    """Smart cards"""
    for card in build.definition.devices.smartcard:
        build.device(_smartcard(build, card))


def _smartcard(build: Builder, card: Smartcard) -> Props:
    alias = card.info.alias or ""
    if card.mode is SmartcardMode.PASSTHROUGH:
        backend = Backend(card.type or ChardevType.SPICEVMC, card.source, card.protocol, card.log)
        chardev = build_backend(build, alias, backend, "smartcard")
        props = Props(driver="ccid-card-passthru", chardev=chardev)
    elif card.mode is SmartcardMode.HOST:
        props = Props(driver="ccid-card-emulated", backend="nss-emulated")
    else:
        props = Props(driver="ccid-card-emulated", backend="certificates")
        for number, certificate in enumerate(card.certificate, 1):
            props.put(f"cert{number}", certificate)
        props.put("db", card.database or NSS_DATABASE)
    return props.put("id", alias).put("bus", ccid_bus(build, card.info.address))


def build_redirdevs(build: Builder) -> None:
    """USB redirection"""
    rules = build.definition.devices.redirfilter
    words = []
    for rule in rules.usbdev if rules else ():
        numbers = [rule.class_, rule.vendor, rule.product]
        shown = [("-1" if n is None else f"0x{n:02X}" if i == 0 else f"0x{n:04X}") for i, n in enumerate(numbers)]
        words.append(":".join([*shown, _version(rule.version), "1" if rule.allow else "0"]))
    for redirdev in build.definition.devices.redirdev:
        alias = redirdev.info.alias or ""
        chardev = build_backend(build, alias, _of(redirdev), "usbredir")
        props = Props(driver="usb-redir", chardev=chardev, id=alias)
        if words:
            props.put("filter", "|".join(words))
        if redirdev.info.boot is not None:
            props.put("bootindex", redirdev.info.boot.order)
        put_address(build, props, redirdev.info)
        build.device(props)


def _version(text: str | None) -> str:
    """ "1.10" is 0x0110: binary coded decimal."""
    if text is None:
        return "-1"
    major, _, minor = text.partition(".")
    return f"0x{int(major):02d}{int((minor or '0').ljust(2, '0')):02d}"


__all__ = ["PciAddress", "build_backend", "build_chardevs"]
