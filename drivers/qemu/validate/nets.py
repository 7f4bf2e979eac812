"""Rules of network interfaces: what each type may have, and what only virtio knows."""

import re

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.net import is_virtio
from pyvirtd.drivers.qemu.postparse.refuse import internal, qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ConfigUnsupported, InvalidArg, XmlDetail, XmlError
from pyvirtd.model.net import (
    AddressFamily,
    BackendType,
    Bandwidth,
    HostdevNetSource,
    Interface,
    InterfaceType,
    TeamingType,
    VhostUserSource,
    Virtualport,
    VirtualportType,
)
from pyvirtd.model.words import ConnectMode

_MTU = (InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.ETHERNET, InterfaceType.VHOSTUSER)
_COALESCE = (InterfaceType.NETWORK, InterfaceType.BRIDGE)
_ISOLATED = (InterfaceType.NETWORK, InterfaceType.BRIDGE)
_VIRTUALPORT = (InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.DIRECT, InterfaceType.HOSTDEV)
_WITHOUT_SOURCE = (InterfaceType.USER, InterfaceType.ETHERNET, InterfaceType.NULL)
_MODEL_CHARS = re.compile(r"[a-zA-Z0-9_.-]*")
_FLOOR = (InterfaceType.NETWORK,)
VLAN_MAX = 4095
_REQUIRED_PARAMETERS = {
    VirtualportType.QBG: ("managerid", "typeid", "typeidversion"),
    VirtualportType.QBH: ("profileid",),
    VirtualportType.MIDONET: ("interfaceid",),
}


def check_interfaces(scope: Scope) -> None:
    """Every interface."""
    for net in scope.devices.interface:
        _check_parts(net)
        _check_type(scope, net)
        _check_virtio(net)
        _check_teaming(scope, net)


def _check_parts(net: Interface) -> None:
    """What no hypervisor takes."""
    kind = net.type
    if net.source is None and kind is InterfaceType.HOSTDEV:
        raise xml("missing source address type")
    if net.source is None and kind not in _WITHOUT_SOURCE:
        raise xml(f"interface type='{kind}' requires a 'source' element")
    passt = net.backend is not None and net.backend.type is BackendType.PASST
    if passt and kind is not InterfaceType.USER:
        raise unsupported("The 'passt' backend can only be used with interface type='user'")
    if isinstance(net.source, HostdevNetSource) and net.source.address is None and net.source.vendor is None:
        raise xml("missing source address type")
    mac = net.mac.address if net.mac is not None else None
    if mac is not None and int(mac.split(":")[0], 16) & 1:
        raise xml(f"expected unicast mac address, found multicast '{mac}'")
    if net.model is not None and not _MODEL_CHARS.fullmatch(net.model):
        raise InvalidArg("Model name contains invalid characters", domain=ErrorDomain.DOMAIN)
    for tag in net.vlan.tag_ if net.vlan is not None else ():
        if tag.id > VLAN_MAX:
            raise XmlError(f"vlan tag id {tag.id} too large (maximum {VLAN_MAX})", domain=ErrorDomain.NONE)
    if net.bandwidth is not None:
        check_bandwidth(net.bandwidth)


def check_bandwidth(bandwidth: Bandwidth) -> None:
    """A rate says at least how much on average."""
    for rate in (bandwidth.inbound, bandwidth.outbound):
        if rate is not None and not rate.average and not rate.floor:
            raise XmlDetail("Missing mandatory average or floor attributes", domain=ErrorDomain.NONE)
        if rate is not None and not rate.average and (rate.peak or rate.burst):
            raise XmlError("'peak' and 'burst' require 'average' attribute", domain=ErrorDomain.NONE)
    if bandwidth.outbound is not None and bandwidth.outbound.floor:
        raise ConfigUnsupported("'floor' attribute allowed only in <inbound> element", domain=ErrorDomain.NONE)


def _check_type(scope: Scope, net: Interface) -> None:
    kind, mac = net.type, net.mac.address if net.mac is not None else None
    if net.virtualport is not None:
        _check_virtualport(net, net.virtualport)
    if net.target is not None and net.target.managed is False and kind is not InterfaceType.ETHERNET:
        raise unsupported(f"unmanaged target dev is not supported on interfaces of type '{kind}'")
    if net.bandwidth is not None and net.bandwidth.class_id:
        raise XmlDetail("classID attribute not supported on <bandwidth> in this usage context", domain=ErrorDomain.NONE)
    if net.bandwidth is not None and net.bandwidth.inbound and net.bandwidth.inbound.floor and kind not in _FLOOR:
        raise ConfigUnsupported("floor attribute is not supported for this config", domain=ErrorDomain.NONE)
    if net.isolated and kind not in _ISOLATED:
        raise unsupported(
            f"interface {mac} - <port isolated='yes'/> is not supported for network interfaces with type='{kind}'"
        )
    if kind is InterfaceType.VHOSTUSER:
        _check_vhost_user(net)
    if net.mtu and kind not in _MTU:
        raise qemu_unsupported(f"setting MTU on interface type {kind} is not supported yet")
    if net.coalesce is not None and kind not in _COALESCE:
        raise qemu_unsupported(f"coalesce settings on interface type {kind} are not supported")
    if (net.ip or net.route) and kind is not InterfaceType.USER:
        raise qemu_unsupported(
            "Invalid attempt to set network interface guest-side IP route and/or address info, not supported by QEMU"
        )
    if kind is InterfaceType.USER:
        _check_user(net)


def _check_virtualport(net: Interface, port: Virtualport) -> None:
    if net.type not in _VIRTUALPORT:
        raise unsupported(f"<virtualport> element unsupported for <interface type='{net.type}'>")
    for name in _REQUIRED_PARAMETERS.get(port.type, ()) if port.type is not None else ():
        if port.parameters is None or getattr(port.parameters, name) is None:
            raise XmlError(f"missing {name} in <virtualport type='{port.type}'>", domain=ErrorDomain.NET)


def _check_vhost_user(net: Interface) -> None:
    source = net.source
    if not is_virtio(net):
        raise internal(
            "Wrong or no <model> 'type' attribute specified with <interface type='vhostuser'/>. vhostuser requires the "
            "virtio-net* frontend"
        )
    if isinstance(source, VhostUserSource) and source.mode is ConnectMode.SERVER and source.reconnect is not None:
        raise unsupported("'reconnect' attribute unsupported 'server' mode for <interface type='vhostuser'>")


def _check_user(net: Interface) -> None:
    families = [ip.family for ip in net.ip]
    for family, word in ((AddressFamily.IPV4, "IPv4"), (AddressFamily.IPV6, "IPv6")):
        if families.count(family) > 1:
            raise qemu_unsupported(f"Only one {word} address per interface is allowed")
    if net.route:
        raise qemu_unsupported("Invalid attempt to set network interface route info, not supported by QEMU")


def _check_virtio(net: Interface) -> None:
    driver = net.driver
    if driver is None:
        return
    if not is_virtio(net):
        return
    for name in ("rx_queue_size", "tx_queue_size"):
        size = getattr(driver, name)
        if size and size & (size - 1):
            raise qemu_unsupported(f"{name} has to be a power of two")


def _check_teaming(scope: Scope, net: Interface) -> None:
    teaming = net.teaming
    if teaming is None:
        return
    if teaming.type is TeamingType.PERSISTENT and teaming.persistent is not None:
        raise unsupported("teaming persistent attribute not allowed if teaming type is 'persistent'")
    if teaming.type is TeamingType.TRANSIENT and not teaming.persistent:
        raise unsupported("missing required persistent attribute in teaming element")
    if teaming.type is TeamingType.TRANSIENT:
        if net.type not in (InterfaceType.HOSTDEV, InterfaceType.NETWORK):
            raise qemu_unsupported(f"virtio-net teaming transient interface must be type='hostdev', not '{net.type}'")
    elif not is_virtio(net):
        raise qemu_unsupported(
            f"virtio-net teaming persistent interface must be <model type='virtio'/>, not '{net.model}'"
        )
