"""Character devices: serial, parallel, console, channel, and what else has a character device behind it.

https://libvirt.org/formatdomain.html#consoles-serial-parallel-channel-devices
"""

from enum import StrEnum
from typing import ClassVar, Self

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import InternalError, VirtError, XmlError
from pyvirtd.model.address import Device, DeviceInfo, VirtioDriver
from pyvirtd.model.refusals import internal, unsupported, wrong
from pyvirtd.model.seclabel import DeviceSeclabel
from pyvirtd.model.storage import Reconnect, UnixType
from pyvirtd.model.words import VirtioModel
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import LIVE, Element, View, attr, child, children, content, flag, group, text, via
from pyvirtd.xml.types import I32, U32, AbsolutePath, OnOff, Positive32, Uuid, YesNo


class ChardevType(StrEnum):
    NULL = "null"
    VC = "vc"
    PTY = "pty"
    DEV = "dev"
    FILE = "file"
    PIPE = "pipe"
    STDIO = "stdio"
    UDP = "udp"
    TCP = "tcp"
    UNIX = "unix"
    SPICEVMC = "spicevmc"
    SPICEPORT = "spiceport"
    NMDM = "nmdm"
    QEMU_VDAGENT = "qemu-vdagent"
    DBUS = "dbus"


class SocketMode(StrEnum):
    BIND = "bind"
    CONNECT = "connect"


class SocketProtocol(StrEnum):
    RAW = "raw"
    TELNET = "telnet"
    TELNETS = "telnets"
    TLS = "tls"


class MouseMode(StrEnum):
    SERVER = "server"
    CLIENT = "client"


class SourceBase(Element, tag="source"):
    """Base of the sources; `seclabel` comes last."""

    seclabel: list[DeviceSeclabel] = children()


class PtySource(SourceBase, case="pty"):
    """The pty's path is known while the guest runs."""

    path: str | None = attr(view=LIVE)
    seclabel: list[DeviceSeclabel] = children()


class PathSource(SourceBase, case=("dev", "pipe")):
    path: str | None = attr()
    seclabel: list[DeviceSeclabel] = children()


class FileCharSource(SourceBase, case="file"):
    path: str | None = attr()
    append: OnOff | None = attr()
    seclabel: list[DeviceSeclabel] = children()


class TcpSource(SourceBase, case="tcp"):
    mode: SocketMode | None = attr()
    host: str | None = attr()
    service: str | None = attr()
    tls: YesNo | None = attr()
    reconnect: Reconnect | None = child()
    seclabel: list[DeviceSeclabel] = children()


class UdpSource(SourceBase, case="udp"):
    mode: SocketMode | None = attr()
    host: str | None = attr()
    service: str | None = attr()
    seclabel: list[DeviceSeclabel] = children()


class UnixSource(SourceBase, case="unix"):
    mode: SocketMode | None = attr()
    path: str | None = attr()
    reconnect: Reconnect | None = child()
    seclabel: list[DeviceSeclabel] = children()

    def printed(self, view: View) -> Self:
        """Until a path is chosen there is nothing to tell."""
        return self if self.path is not None else type(self)()


class ChannelNameSource(SourceBase, case=("spiceport", "dbus")):
    channel: str | None = attr()
    seclabel: list[DeviceSeclabel] = children()


class NmdmSource(SourceBase, case="nmdm"):
    master: str | None = attr()
    slave: str | None = attr()
    seclabel: list[DeviceSeclabel] = children()


class VdagentSource(SourceBase, case="qemu-vdagent"):
    clipboard: YesNo | None = via("clipboard", "copypaste", required=True)
    mouse: MouseMode | None = via("mouse", "mode", required=True)
    seclabel: list[DeviceSeclabel] = children()


AnyCharSource = (
    PtySource
    | PathSource
    | FileCharSource
    | TcpSource
    | UdpSource
    | UnixSource
    | ChannelNameSource
    | NmdmSource
    | VdagentSource
)


class CharLog(Element, tag="log"):
    file: str | None = attr()
    append: OnOff | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        if self.file is None:
            self.append = None


class CharBackend(Element):
    """The host's side of a character device: what <serial>, <redirdev>, an EGD <backend>, … have in common.

    A udp device may have two sources, the one to bind first. A protocol belongs to tcp only.
    """

    type: ChardevType = attr(ChardevType.PTY, bad="unknown type presented to host for character device: {}")
    source: list[AnyCharSource] = children(switch="^type")
    protocol: SocketProtocol | None = via("protocol", "type", bad="Unknown protocol '{}'")
    log: CharLog | None = child()

    def parsed(self, node: Node, view: View) -> None:
        super().parsed(node, view)
        if len(node.findall("protocol")) > 1:
            raise XmlError("only one protocol element is allowed for character device", domain=ErrorDomain.DOMAIN)
        if self.type != ChardevType.UDP and len(node.findall("source")) > 1:
            raise XmlError("only one source element is allowed for character device", domain=ErrorDomain.DOMAIN)
        for source in self.source:
            if isinstance(source, TcpSource | UdpSource | UnixSource) and source.mode is None:
                source.mode = SocketMode.CONNECT
        if self.type == ChardevType.UDP:
            self._settle_udp()
        if self.type != ChardevType.TCP:
            self.protocol = None
        elif self.protocol is None:
            self.protocol = SocketProtocol.RAW

    def _settle_udp(self) -> None:
        if len(self.source) > 2:
            raise XmlError("only two source elements are allowed for character device", domain=ErrorDomain.DOMAIN)
        udp = [source for source in self.source if isinstance(source, UdpSource)]
        bind = [source for source in udp if source.mode == SocketMode.BIND]
        self.source = [*bind[:1], *[source for source in udp if source not in bind][:1]]

    @property
    def path(self) -> str | None:
        """The source's path, for types that have one."""
        return next((found for source in self.source if (found := getattr(source, "path", None))), None)


class Chardev(CharBackend, Device):
    """Base of serial, parallel, console and channel."""


class SerialTargetType(StrEnum):
    ISA = "isa-serial"
    USB = "usb-serial"
    PCI = "pci-serial"
    SPAPR_VIO = "spapr-vio-serial"
    SYSTEM = "system-serial"
    SCLP = "sclp-serial"
    ISA_DEBUG = "isa-debug"


class SerialTargetModel(StrEnum):
    ISA_SERIAL = "isa-serial"
    USB_SERIAL = "usb-serial"
    PCI_SERIAL = "pci-serial"
    SPAPR_VTY = "spapr-vty"
    PL011 = "pl011"
    SCLPCONSOLE = "sclpconsole"
    SCLPLMCONSOLE = "sclplmconsole"
    M16550A = "16550a"
    ISA_DEBUGCON = "isa-debugcon"


class ConsoleTargetType(StrEnum):
    SERIAL = "serial"
    XEN = "xen"
    UML = "uml"
    VIRTIO = "virtio"
    LXC = "lxc"
    OPENVZ = "openvz"
    SCLP = "sclp"
    SCLPLM = "sclplm"


class ChannelState(StrEnum):
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


def _bad_port(word: str) -> VirtError:
    return XmlError(f"Invalid port number: {word}", domain=ErrorDomain.DOMAIN)


class SerialTarget(Element, tag="target"):
    type: SerialTargetType | None = attr(bad="unknown target type '{}' specified for character device")
    port: I32 | None = attr(bad=_bad_port)
    model: SerialTargetModel | None = via(
        "model", "name", bad="unknown target model '{}' specified for character device"
    )


class Serial(Chardev, tag="serial"):
    target: SerialTarget | None = child()
    info: DeviceInfo = group()


class ParallelTarget(Element, tag="target"):
    port: I32 | None = attr(bad=_bad_port)


class Parallel(Chardev, tag="parallel"):
    target: ParallelTarget | None = child()
    info: DeviceInfo = group()


class ConsoleTarget(Element, tag="target"):
    type: ConsoleTargetType | None = attr(bad="unknown target type '{}' specified for character device")
    port: I32 | None = attr(bad=_bad_port)


class Console(Chardev, tag="console"):
    """`tty` is the source's path, repeated for older clients while the guest runs."""

    type: ChardevType = attr(ChardevType.PTY, bad="unknown type presented to host for character device: {}")
    tty: str | None = attr(view=LIVE)
    source: list[AnyCharSource] = children(switch="^type")
    protocol: SocketProtocol | None = via("protocol", "type", bad="Unknown protocol '{}'")
    log: CharLog | None = child()
    target: ConsoleTarget | None = child()
    info: DeviceInfo = group()

    def printed(self, view: View) -> Self:
        twin = self.shallow()
        twin.tty = self.path if self.type == ChardevType.PTY else None
        return twin


class GuestfwdTarget(Element, tag="target", by="type", case="guestfwd"):
    address: str | None = attr()
    port: U32 | None = attr(required=True)


class VirtioTarget(Element, tag="target", by="type", case="virtio"):
    name: str | None = attr()
    state: ChannelState | None = attr(view=LIVE)


class XenTarget(Element, tag="target", by="type", case="xen"):
    name: str | None = attr()
    state: ChannelState | None = attr(view=LIVE)


class Channel(Chardev, tag="channel"):
    target: GuestfwdTarget | VirtioTarget | XenTarget | None = child(
        required=unsupported("unknown target type '(null)' specified for character device"),
        bad="unknown target type '{}' specified for character device",
    )
    info: DeviceInfo = group()

    def parsed(self, node: Node, view: View) -> None:
        super().parsed(node, view)
        if self.target is None:
            raise XmlError("target type must be specified for channel device", domain=ErrorDomain.DOMAIN)


class SmartcardMode(StrEnum):
    HOST = "host"
    HOST_CERTIFICATES = "host-certificates"
    PASSTHROUGH = "passthrough"


class Smartcard(CharBackend, Device, tag="smartcard"):
    """Only mode passthrough has a character device."""

    mode: SmartcardMode = attr(SmartcardMode.HOST, required=True)
    type: ChardevType = attr(
        ChardevType.PTY,
        bad="unknown type presented to host for character device: {}",
        show=lambda card: card.mode == SmartcardMode.PASSTHROUGH,
    )
    certificate: list[str] = children()
    database: AbsolutePath | None = text(bad=wrong("expecting absolute path: {}"))
    source: list[AnyCharSource] = children(switch="^type")
    protocol: SocketProtocol | None = via("protocol", "type", bad="Unknown protocol '{}'")
    log: CharLog | None = child()
    info: DeviceInfo = group()


class RedirdevBus(StrEnum):
    USB = "usb"


class Redirdev(CharBackend, Device, tag="redirdev", unfolded=True):
    bus: RedirdevBus = attr(RedirdevBus.USB, bad="unknown redirdev bus '{}'")
    type: ChardevType = attr(ChardevType.PTY, bad="unknown redirdev character device type '{}'")
    source: list[AnyCharSource] = children(switch="^type")
    protocol: SocketProtocol | None = via("protocol", "type", bad="Unknown protocol '{}'")
    log: CharLog | None = child()
    info: DeviceInfo = group()

    def parsed(self, node: Node, view: View) -> None:
        if node.get("type") is None:
            raise InternalError("missing type in redirdev", domain=ErrorDomain.DOMAIN)
        super().parsed(node, view)


class RngRate(Element, tag="rate"):
    bytes: U32 | None = attr(bad=wrong("invalid RNG rate bytes value"))
    period: U32 | None = attr(omit=0, bad=wrong("invalid RNG rate period value"))

    def parsed(self, node: Node, view: View) -> None:
        if not self.bytes:
            self.bytes = self.period = None


class RandomBackend(Element, tag="backend", by="model", case="random"):
    path: str | None = content()

    def parsed(self, node: Node, view: View) -> None:
        self.path = self.path or "/dev/random"


class BuiltinBackend(Element, tag="backend", by="model", case="builtin"):
    pass


class EgdBackend(CharBackend, tag="backend", by="model", case="egd", unfolded=True):
    """Random bytes from a character device."""

    type: ChardevType = attr(
        ChardevType.PTY, required=wrong("missing EGD backend type"), bad="unknown backend type '{}' for egd"
    )
    source: list[AnyCharSource] = children(switch="^type")
    protocol: SocketProtocol | None = via("protocol", "type", bad="Unknown protocol '{}'")
    log: CharLog | None = child()


class Rng(Device, tag="rng"):
    model: VirtioModel = attr(
        VirtioModel.VIRTIO, required=wrong("missing RNG device model"), bad="unknown RNG model '{}'"
    )
    rate: RngRate | None = child()
    backend: RandomBackend | BuiltinBackend | EgdBackend | None = child(
        required=wrong("missing RNG device backend model"), bad="unknown RNG backend model '{}'"
    )
    driver: VirtioDriver | None = child()
    info: DeviceInfo = group()

    def parsed(self, node: Node, view: View) -> None:
        if len(node.findall("backend")) != 1:
            raise XmlError("only one RNG backend is supported", domain=ErrorDomain.DOMAIN)


class TpmModel(StrEnum):
    TIS = "tpm-tis"
    CRB = "tpm-crb"
    SPAPR = "tpm-spapr"
    SPAPR_PROXY = "spapr-tpm-proxy"


class TpmVersion(StrEnum):
    V1_2 = "1.2"
    V2_0 = "2.0"


class TpmPassthrough(Element, tag="backend", by="type", case="passthrough"):
    version: ClassVar[TpmVersion | None] = None  # the host's device says it
    device: str | None = via("device", "path")

    def parsed(self, node: Node, view: View) -> None:
        self.device = self.device or "/dev/tpm0"


class PcrBanks(Element, tag="active_pcr_banks"):
    sha1: bool = flag()
    sha256: bool = flag()
    sha384: bool = flag()
    sha512: bool = flag()


class TpmStateType(StrEnum):
    FILE = "file"
    DIR = "dir"


class TpmStateSource(Element, tag="source"):
    """Where the emulator keeps its state."""

    type: TpmStateType | None = attr(required=True)
    path: AbsolutePath | None = attr(required=True)


class ProfileRemoval(StrEnum):
    CHECK = "check"
    FIPS_HOST = "fips-host"


class TpmProfile(Element, tag="profile"):
    """What of the TPM 2.0 standard the emulator offers."""

    source: str | None = attr()
    remove_disabled: ProfileRemoval | None = attr(name="removeDisabled")
    name: str | None = attr()


class TpmEmulator(Element, tag="backend", by="type", case="emulator"):
    version: TpmVersion | None = attr()
    persistent_state: YesNo | None = attr(bad=internal("Invalid persistent_state value, either 'yes' or 'no'"))
    debug: Positive32 | None = attr()
    encryption: Uuid | None = via("encryption", "secret", bad=internal("Unable to parse secret uuid '{}'"))
    active_pcr_banks: PcrBanks | None = child()
    source: TpmStateSource | None = child()
    profile: TpmProfile | None = child()


class TpmExternalSource(Element, tag="source"):
    type: UnixType | None = attr(
        required=wrong("missing external TPM backend type"), bad="unknown backend type '{}' for external TPM"
    )
    mode: SocketMode = attr(SocketMode.CONNECT)
    path: str | None = attr(required=wrong("missing socket path for external TPM device"))


class TpmExternal(Element, tag="backend", by="type", case="external"):
    version: TpmVersion | None = attr()
    source: TpmExternalSource | None = child()


class Tpm(Device, tag="tpm"):
    model: TpmModel | None = attr()
    backend: TpmPassthrough | TpmEmulator | TpmExternal | None = child()
    info: DeviceInfo = group()

    def parsed(self, node: Node, view: View) -> None:
        if len(node.findall("backend")) > 1:
            raise XmlError("only one TPM backend is supported", domain=ErrorDomain.DOMAIN)
