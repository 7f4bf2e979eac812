"""Network interfaces.

https://libvirt.org/formatdomain.html#network-interfaces
"""

from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import uuid4

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import XmlDetail, XmlError
from pyvirtd.model.address import Device, DeviceInfo, OrigStates, PciNumbers, VirtioOptions
from pyvirtd.model.refusals import Refusal, argument, detail, unsupported, wrong
from pyvirtd.model.storage import Reconnect, UnixType
from pyvirtd.model.words import ConnectMode
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import LIVE, STATUS, Element, View, again, attr, child, children, group, parent_says, text, via
from pyvirtd.xml.types import (
    I32,
    I64,
    U8,
    U24,
    U32,
    U64,
    Codec,
    Hex16,
    IpAddress,
    Mac,
    OnOff,
    Uuid,
    YesNo,
    YesOrNot,
    parse_ip,
)


class InterfaceType(StrEnum):
    USER = "user"
    ETHERNET = "ethernet"
    VHOSTUSER = "vhostuser"
    SERVER = "server"
    CLIENT = "client"
    MCAST = "mcast"
    NETWORK = "network"
    BRIDGE = "bridge"
    INTERNAL = "internal"
    DIRECT = "direct"
    HOSTDEV = "hostdev"
    UDP = "udp"
    VDPA = "vdpa"
    NULL = "null"
    VDS = "vds"


class MacType(StrEnum):
    GENERATED = "generated"
    STATIC = "static"


class MacTableManager(StrEnum):
    KERNEL = "kernel"
    LIBVIRT = "libvirt"


class DirectMode(StrEnum):
    VEPA = "vepa"
    PRIVATE = "private"
    BRIDGE = "bridge"
    PASSTHROUGH = "passthrough"


class AddressFamily(StrEnum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class VirtualportType(StrEnum):
    NONE = "none"
    QBG = "802.1Qbg"
    QBH = "802.1Qbh"
    OPENVSWITCH = "openvswitch"
    MIDONET = "midonet"


class LinkState(StrEnum):
    UP = "up"
    DOWN = "down"


class NetDriverName(StrEnum):
    QEMU = "qemu"
    VHOST = "vhost"
    KVM = "kvm"
    VFIO = "vfio"
    XEN = "xen"


class TxMode(StrEnum):
    IOTHREAD = "iothread"
    TIMER = "timer"


class NativeVlanMode(StrEnum):
    TAGGED = "tagged"
    UNTAGGED = "untagged"


class TeamingType(StrEnum):
    PERSISTENT = "persistent"
    TRANSIENT = "transient"


class InterfaceMac(Element, tag="mac"):
    address: Mac | None = attr(bad=wrong("unable to parse mac address '{}'"))
    type: MacType | None = attr()
    check: YesNo | None = attr()


def _route_of(node: Node) -> str:
    """Whose route it is, in libvirt's messages."""
    parent = node.getparent()
    names = {"source": "interface host IP", "hostdev": "Domain hostdev device"}
    return names.get(str(parent.tag), "guest interface") if parent is not None else "guest interface"


def _family(word: str) -> AddressFamily | None:
    return AddressFamily(word) if word in ("ipv4", "ipv6") else None


LenientFamily = Annotated[AddressFamily | None, Codec("address family", _family, str)]


PREFIX_MAX = {AddressFamily.IPV4: 32, AddressFamily.IPV6: 128}


class Ip(Element, tag="ip"):
    """An address; its family follows from it."""

    address: IpAddress | None = attr(bad=wrong("Invalid address '{}' in <ip>"))
    family: LenientFamily | None = attr()
    prefix: U32 | None = attr(omit=0, bad=wrong("Invalid prefix value '{}' in <ip>"))
    peer: IpAddress | None = attr(bad=argument("Invalid peer '{}' in <ip>", ErrorDomain.DOMAIN))

    def parsed(self, node: Node, view: View) -> None:
        if self.address is None:
            raise XmlError("Missing required address in <ip>", domain=ErrorDomain.DOMAIN)
        self.family = AddressFamily.IPV6 if ":" in self.address else AddressFamily.IPV4
        if (self.prefix or 0) > PREFIX_MAX[self.family]:
            raise XmlError(f"Invalid prefix value '{self.prefix}' in <ip>", domain=ErrorDomain.DOMAIN)


class Route(Element, tag="route"):
    family: AddressFamily | None = attr()
    address: str | None = attr()
    netmask: str | None = attr()
    prefix: U32 | None = attr()
    gateway: str | None = attr()
    metric: U32 | None = attr(omit=0)

    def parsed(self, node: Node, view: View) -> None:
        for name, what in (("address", "network"), ("netmask", "netmask"), ("gateway", "gateway")):
            value = getattr(self, name)
            if value is None:
                continue
            try:
                setattr(self, name, parse_ip(value))
            except ValueError:
                raise XmlError(
                    f"{_route_of(node)}: Bad {what} address '{value}' in route definition", domain=ErrorDomain.NETWORK
                ) from None


class UsbId(Element):
    """A USB vendor or product."""

    id: Hex16 | None = attr(required=True)


class HostPciAddress(PciNumbers, tag="address", case="pci", by="type"):
    """A PCI device of the host."""


class HostUsbAddress(Element, tag="address", case=("usb", ""), by="type"):
    """A USB device of the host."""

    bus: U32 | None = attr(required=True)
    device: U32 | None = attr(required=True)


class NetworkSource(Element, tag="source", case="network"):
    network: str | None = attr(required=True)
    portgroup: str | None = attr()
    portid: Uuid | None = attr(view=LIVE)
    bridge: str | None = attr(view=LIVE)
    mac_table_manager: MacTableManager | None = attr(name="macTableManager", view=LIVE)


class BridgeSource(Element, tag="source", case="bridge"):
    network: str | None = attr(view=LIVE)
    portgroup: str | None = attr(view=LIVE)
    portid: Uuid | None = attr(view=LIVE)
    bridge: str | None = attr(required=True)
    mac_table_manager: MacTableManager | None = attr(name="macTableManager", view=LIVE)


class DirectSource(Element, tag="source", case="direct"):
    network: str | None = attr(view=LIVE)
    portgroup: str | None = attr(view=LIVE)
    portid: Uuid | None = attr(view=LIVE)
    dev: str | None = attr(required=True)
    mode: DirectMode = attr(DirectMode.VEPA)


class EthernetSource(Element, tag="source", case="ethernet"):
    ip: list[Ip] = children()
    route: list[Route] = children()


class UserSource(Element, tag="source", case="user"):
    dev: str | None = attr()


class VhostUserSource(Element, tag="source", case="vhostuser"):
    type: UnixType | None = attr(required=True, bad="Type='{}' unsupported for <interface type='vhostuser'>")
    path: str | None = attr(required=True)
    mode: ConnectMode | None = attr(required=True)
    reconnect: Reconnect | None = child()


class InternalSource(Element, tag="source", case="internal"):
    name: str | None = attr(required=True)


class SocketLocal(Element, tag="local"):
    address: str | None = attr(required=True)
    port: I32 | None = attr(required=True)


_of_udp = parent_says("type", "udp")


class SocketSource(Element, tag="source", case=("server", "client", "mcast", "udp")):
    address: str | None = attr()
    port: I32 | None = attr(required=True)
    local: SocketLocal | None = child(when=_of_udp)

    def parsed(self, node: Node, view: View) -> None:
        parent = node.getparent()
        if self.address is None and parent is not None and parent.get("type") != "server":
            raise XmlError("Missing required attribute 'address' in element 'source'", domain=ErrorDomain.XML)
        if self.local is None and node.getparent() is not None and _of_udp(node):
            raise XmlError("'<local>' element missing for 'udp' socket interface", domain=ErrorDomain.DOMAIN)


class HostdevNetSource(Element, tag="source", case="hostdev"):
    missing: YesOrNot = attr(False, view=LIVE, omit=False)
    vendor: UsbId | None = child(name="vendor")
    product: UsbId | None = child(name="product")
    address: HostPciAddress | HostUsbAddress | None = child(bad="unknown host device source address type '{}'")
    origstates: OrigStates | None = child(view=STATUS)

    def parsed(self, node: Node, view: View) -> None:
        address = node.find("address")
        if self.vendor is None and (address is None or address.get("type") is None):
            raise XmlError("missing source address type", domain=ErrorDomain.DOMAIN)


class VdpaSource(Element, tag="source", case="vdpa"):
    dev: str | None = attr(required=True)


class VdsSource(Element, tag="source", case="vds"):
    switchid: Uuid | None = attr(required=True)
    portid: I64 | None = attr(required=True)
    portgroupid: str | None = attr(required=True)
    connectionid: I64 | None = attr(required=True)


def _bad_parameter(name: str) -> Refusal:
    return wrong(f"cannot parse value of {name} parameter", ErrorDomain.NONE)


class VirtualportParameters(Element, tag="parameters"):
    managerid: U8 | None = attr(bad=_bad_parameter("managerid"))
    typeid: U24 | None = attr(bad=_bad_parameter("typeid"))
    typeidversion: U8 | None = attr(bad=_bad_parameter("typeidversion"))
    instanceid: Uuid | None = attr(bad=wrong("cannot parse instanceid parameter as a uuid", ErrorDomain.NONE))
    interfaceid: Uuid | None = attr(bad=wrong("cannot parse interfaceid parameter as a uuid", ErrorDomain.NONE))
    profileid: str | None = attr()


# Parameters that a type has; these types refuse the others.
_PARAMETERS = {
    VirtualportType.QBG: ("managerid", "typeid", "typeidversion", "instanceid"),
    VirtualportType.QBH: ("profileid",),
    VirtualportType.OPENVSWITCH: ("interfaceid", "profileid"),
}


class Virtualport(Element, tag="virtualport"):
    type: VirtualportType | None = attr(bad=unsupported("unknown virtualport type {}", ErrorDomain.NONE))
    parameters: VirtualportParameters | None = child()

    def parsed(self, node: Node, view: View) -> None:
        """Ids that the switch needs are made up when they are not given."""
        if view & LIVE:
            return
        allowed = _PARAMETERS.get(self.type) if self.type is not None else None
        for name in ("managerid", "typeid", "typeidversion", "instanceid", "profileid", "interfaceid"):
            given = self.parameters is not None and getattr(self.parameters, name) is not None
            if allowed is not None and given and name not in allowed:
                raise XmlError(f"extra {name} unsupported in <virtualport type='{self.type}'>", domain=ErrorDomain.NET)
        wants_instance = self.type in (None, VirtualportType.QBG)
        wants_interface = self.type in (None, VirtualportType.OPENVSWITCH)
        if wants_instance or wants_interface:
            self.parameters = self.parameters or VirtualportParameters()
            if wants_instance and self.parameters.instanceid is None:
                self.parameters.instanceid = str(uuid4())
            if wants_interface and self.parameters.interfaceid is None:
                self.parameters.interfaceid = str(uuid4())


def _bad_rate(name: str) -> Refusal:
    return unsupported(f"could not convert bandwidth {name} value '{{}}'", ErrorDomain.NONE)


class BandwidthRate(Element):
    average: U64 | None = attr(omit=0, bad=_bad_rate("average"))
    peak: U64 | None = attr(omit=0, bad=_bad_rate("peak"))
    floor: U64 | None = attr(omit=0, bad=_bad_rate("floor"))
    burst: U64 | None = attr(omit=0, bad=_bad_rate("burst"))


class Bandwidth(Element, tag="bandwidth"):
    class_id: U32 | None = attr(name="classID", omit=0)
    inbound: BandwidthRate | None = child(name="inbound")
    outbound: BandwidthRate | None = child(name="outbound")

    def parsed(self, node: Node, view: View) -> None:
        for name in ("inbound", "outbound"):
            if len(node.findall(name)) > 1:
                raise XmlDetail(f"Only one child <{name}> element allowed", domain=ErrorDomain.NONE)


class VlanTag(Element, tag="tag"):
    id: U32 = attr(0, required=True)
    native_mode: NativeVlanMode | None = attr(name="nativeMode")


class Vlan(Element, tag="vlan"):
    trunk: YesNo | None = attr(
        omit=False, bad=wrong("invalid \"trunk='{}'\" in <vlan> - must be yes or no", ErrorDomain.NONE)
    )
    tag_: list[VlanTag] = children()

    def parsed(self, node: Node, view: View) -> None:
        if len(self.tag_) > 1:
            if self.trunk is False:
                raise XmlError("invalid \"trunk='no'\" in <vlan> - trunk='yes' is required for more than one vlan tag")
            self.trunk = True


GENERATED_PREFIXES = ("vnet", "macvtap", "macvlan")  # devices that the daemon names, for one run


def _is_own_name(name: object) -> bool:
    return not str(name).startswith(GENERATED_PREFIXES)


class InterfaceTarget(Element, tag="target"):
    dev: str | None = attr(view=LIVE, keep=_is_own_name)
    managed: YesNo | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        if self.dev is None:
            self.managed = None


class InterfaceGuest(Element, tag="guest"):
    dev: str | None = attr()
    actual: str | None = attr()


class HostOffload(Element, tag="host"):
    csum: OnOff | None = attr()
    gso: OnOff | None = attr()
    tso4: OnOff | None = attr()
    tso6: OnOff | None = attr()
    ecn: OnOff | None = attr()
    ufo: OnOff | None = attr()
    mrg_rxbuf: OnOff | None = attr()


class GuestOffload(Element, tag="guest"):
    csum: OnOff | None = attr()
    tso4: OnOff | None = attr()
    tso6: OnOff | None = attr()
    ecn: OnOff | None = attr()
    ufo: OnOff | None = attr()


class InterfaceDriver(Element, tag="driver"):
    name: NetDriverName | None = attr()
    txmode: TxMode | None = attr()
    ioeventfd: OnOff | None = attr()
    event_idx: OnOff | None = attr()
    queues: U32 | None = attr()
    rx_queue_size: U32 | None = attr()
    tx_queue_size: U32 | None = attr()
    rss: OnOff | None = attr()
    rss_hash_report: OnOff | None = attr()
    model: str | None = attr(when=parent_says("type", "hostdev"))
    iommufd: YesNo | None = attr(when=parent_says("type", "hostdev"))
    virtio: VirtioOptions = group()
    host: HostOffload | None = child()
    guest: GuestOffload | None = child()


class BackendType(StrEnum):
    PASST = "passt"


class InterfaceBackend(Element, tag="backend"):
    type: BackendType | None = attr(ignore=("default",))
    tap: str | None = attr()
    vhost: str | None = attr()
    log_file: str | None = attr(name="logFile")
    hostname: str | None = attr()
    fqdn: str | None = attr()


class PortRange(Element, tag="range"):
    start: U32 | None = attr(required=True)
    end: U32 | None = attr()
    to: U32 | None = attr()
    exclude: YesNo | None = attr()


class PortForwardProto(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class PortForward(Element, tag="portForward"):
    proto: PortForwardProto | None = attr(required=True)
    address: str | None = attr()
    dev: str | None = attr()
    range: list[PortRange] = children()


class FilterParameter(Element, tag="parameter"):
    name: str | None = attr()
    value: str | None = attr()


class Filterref(Element, tag="filterref"):
    filter: str | None = attr()
    parameter: list[FilterParameter] = children()

    def parsed(self, node: Node, view: View) -> None:
        self.parameter = [one for one in self.parameter if self.filter and one.name and one.value is not None]


class CoalesceFrames(Element, tag="rx"):
    frames_max: U32 | None = via("frames", "max", omit=0, bad=detail("cannot parse value '{}' for coalesce parameter"))


class Coalesce(Element, tag="coalesce"):
    rx: CoalesceFrames | None = child()


class InterfaceTune(Element, tag="tune"):
    sndbuf: U32 | None = text(bad=wrong("sndbuf must be a positive integer"))


class Teaming(Element, tag="teaming"):
    type: TeamingType | None = attr(required=True, bad="unknown teaming type '{}'")
    persistent: str | None = attr()


class ActualBridgeSource(Element, tag="source", case=("network", "bridge")):
    bridge: str | None = attr()
    mac_table_manager: MacTableManager | None = attr(name="macTableManager")


class ActualDirectSource(Element, tag="source", case="direct"):
    dev: str | None = attr()
    mode: DirectMode | None = attr()


class Actual(Element, tag="actual"):
    """What an interface of type network became for one run."""

    type: InterfaceType = attr(InterfaceType.NETWORK)
    managed: YesOrNot = attr(False, omit=False)
    trust_guest_rx_filters: YesNo | None = attr(name="trustGuestRxFilters")
    driver: "InterfaceDriver | None" = child()
    source: ActualBridgeSource | ActualDirectSource | HostdevNetSource | None = child(switch="^type")
    vlan: Vlan | None = child()
    virtualport: Virtualport | None = child()
    bandwidth: Bandwidth | None = child()
    isolated: YesNo | None = via("port", "isolated")


def _has_driver(node: Node) -> bool:
    """Only virtio cards and passed-through ones have settings of a driver."""
    model = node.find("model")
    word = model.get("type", "") if model is not None else ""
    return node.get("type") == "hostdev" or word.startswith("virtio") or model is None


class Interface(Device, tag="interface"):
    type: InterfaceType = attr(InterfaceType.USER)
    managed: YesOrNot = attr(False, omit=False)
    trust_guest_rx_filters: YesNo | None = attr(name="trustGuestRxFilters")
    mac: InterfaceMac | None = child()
    hostdev_driver: Any = again("driver", show=lambda iface: iface.type == InterfaceType.HOSTDEV)
    source: (
        NetworkSource
        | BridgeSource
        | DirectSource
        | EthernetSource
        | UserSource
        | VhostUserSource
        | InternalSource
        | SocketSource
        | HostdevNetSource
        | VdpaSource
        | VdsSource
        | None
    ) = child(switch="^type")
    actual: Actual | None = child(view=STATUS)
    vlan: Vlan | None = child()
    virtualport: Virtualport | None = child()
    bandwidth: Bandwidth | None = child()
    isolated: YesNo | None = via("port", "isolated")
    ip: list[Ip] = children()
    route: list[Route] = children()
    port_forward: list[PortForward] = children()
    script: str | None = via("script", "path")
    downscript: str | None = via("downscript", "path")
    backenddomain: str | None = via("backenddomain", "name")
    target: InterfaceTarget | None = child()
    guest: InterfaceGuest | None = child()
    model: str | None = via("model", "type")
    driver: InterfaceDriver | None = child(when=_has_driver, show=lambda iface: iface.type != InterfaceType.HOSTDEV)
    backend: InterfaceBackend | None = child()
    filterref: Filterref | None = child()
    tune: InterfaceTune | None = child()
    teaming: Teaming | None = child()
    link: LinkState | None = via("link", "state", bad="unknown interface link state '{}'")
    mtu: U32 | None = via("mtu", "size", omit=0, bad=wrong("malformed mtu size"))
    coalesce: Coalesce | None = child()
    info: DeviceInfo = group()

    def printed(self, view: View) -> Self:
        """Clients see what an interface of type network has become; the state file has both."""
        actual = self.actual
        if actual is None or not view & LIVE or view & STATUS:
            return self
        twin = self.shallow()
        twin.type = actual.type
        twin.source = _merged(self.source, actual)
        twin.trust_guest_rx_filters = actual.trust_guest_rx_filters
        if actual.driver is not None:
            twin.driver = actual.driver
        twin.vlan = actual.vlan or self.vlan
        twin.virtualport = actual.virtualport
        twin.bandwidth = actual.bandwidth or self.bandwidth
        twin.isolated = actual.isolated if actual.isolated is not None else self.isolated
        return twin


def _merged(source: object, actual: Actual) -> NetworkSource | BridgeSource | DirectSource | HostdevNetSource | None:
    """The source that clients see: the network's with the actual one's attributes."""
    own = source if isinstance(source, NetworkSource) else NetworkSource()
    names = {"network": own.network, "portgroup": own.portgroup, "portid": own.portid}
    found = actual.source
    if isinstance(found, HostdevNetSource):
        return found
    if isinstance(found, ActualDirectSource):
        return DirectSource(**names, dev=found.dev, mode=found.mode or DirectMode.VEPA)
    bridge = found.bridge if found is not None else None
    manager = found.mac_table_manager if found is not None else None
    kind = NetworkSource if actual.type == InterfaceType.NETWORK else BridgeSource
    return kind(**names, bridge=bridge, mac_table_manager=manager)
