"""Network interfaces."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.address import put_address, put_virtio, virtio_driver
from pyvirtd.drivers.qemu.command.boot import BootOrder
from pyvirtd.drivers.qemu.command.context import Builder, NetBackend, Props, escape
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.address import PciAddress, VirtioMmioAddress
from pyvirtd.model.net import (
    AddressFamily,
    BackendType,
    Interface,
    InterfaceDriver,
    InterfaceType,
    NetDriverName,
    SocketSource,
    TxMode,
    UserSource,
    VdpaSource,
    VhostUserSource,
)
from pyvirtd.model.words import ConnectMode

SHOWN_TAP = 3  # a descriptor in a command line that is only shown
VIRTIO_MODELS = ("virtio", "virtio-transitional", "virtio-non-transitional")
TAP_TYPES = (InterfaceType.ETHERNET, InterfaceType.BRIDGE, InterfaceType.NETWORK, InterfaceType.DIRECT)
# -device names of models that are not called like their device.
_DEVICES = {"spapr-vlan": "spapr-vlan", "usb-net": "usb-net"}


def is_virtio(net: Interface) -> bool:
    return net.model in VIRTIO_MODELS


def uses_tap(net: Interface) -> bool:
    """The interface needs a tap (or macvtap) device of the host."""
    return net.type in TAP_TYPES


def build_interfaces(build: Builder, order: BootOrder) -> None:
    """-netdev and -device of every interface but assigned devices"""
    for net in build.definition.devices.interface:
        if net.type is InterfaceType.HOSTDEV:
            continue
        _check(net)
        build.command.add("-netdev", netdev_props(build, net).text())
        if net.model is not None and _is_builtin(build, net):
            words = f"nic,macaddr={net.mac.address if net.mac else ''},netdev=host{net.info.alias},model={net.model}"
            build.command.add("-net", f"{words},id={net.info.alias}")
        elif net.model is not None:
            build.device(net_props(build, net, order))


def _check(net: Interface) -> None:
    """What a type of interface cannot have. Raises ConfigUnsupported."""
    tap = uses_tap(net)
    several = is_virtio(net) and net.driver is not None and (net.driver.queues or 0) > 1
    custom = net.backend is not None and net.backend.tap is not None
    if several and not tap and net.type not in (InterfaceType.VHOSTUSER, InterfaceType.VDPA):
        what = "multiqueue is"
    elif custom and not tap:
        what = "custom tap device path is"
    else:
        return
    place = f"interface {net.mac.address if net.mac else ''}"
    raise ConfigUnsupported(
        f"{place} - {what} not supported for network interfaces of type {net.type}", domain=ErrorDomain.QEMU
    )


def _is_builtin(build: Builder, net: Interface) -> bool:
    """Boards of ARM have cards of their own, which QEMU connects by another option."""
    return build.board.arm and not isinstance(net.info.address, PciAddress | VirtioMmioAddress)


def netdev_props(build: Builder, net: Interface) -> Props:
    """The host's side."""
    alias = f"host{net.info.alias}"
    backend = build.context.nets.get(net.info.alias or "") or NetBackend()
    match net.type:
        case InterfaceType.USER if net.backend is not None and net.backend.type is BackendType.PASST:
            return _passt(build, net).put("id", alias)
        case InterfaceType.USER:
            return _user(net).put("id", alias)
        case _ if uses_tap(net):
            return _tap(build, net, backend).put("id", alias)
        case InterfaceType.VHOSTUSER:
            return _vhost_user(build, net).put("id", alias)
        case InterfaceType.SERVER | InterfaceType.CLIENT | InterfaceType.MCAST | InterfaceType.UDP:
            return _socket(net).put("id", alias)
        case InterfaceType.VDPA if isinstance(net.source, VdpaSource):
            fd = build.context.files.get(net.info.alias or "")
            path = net.source.dev or "" if fd is None else build.command.add_fd(fd, f"{net.info.alias}-vdpa")
            return Props(type="vhost-vdpa", vhostdev=path).put("id", alias)
        case _:
            raise ConfigUnsupported(f"interface type '{net.type}' is not supported", domain=ErrorDomain.QEMU)


def _user(net: Interface) -> Props:
    props = Props(type="user")
    for ip in net.ip:
        if ip.address is None:
            continue
        if ip.family is AddressFamily.IPV6 or ":" in ip.address:
            props.put("ipv6-prefix", ip.address).put("ipv6-prefixlen", ip.prefix)
        else:
            props.put("net", f"{ip.address}/{ip.prefix}" if ip.prefix else ip.address)
    return props


def _passt(build: Builder, net: Interface) -> Props:
    """A stream of packets to the helper's socket."""
    context = build.context
    path = context.paths.passt_file(context.domain_id, context.name, net.info.alias or "", "socket")
    return Props(type="stream", addr={"type": "unix", "path": str(path)}, server=False)


def _tap(build: Builder, net: Interface, backend: NetBackend) -> Props:
    props = Props(type="tap")
    if not backend.taps:
        if not build.context.standalone:
            raise ConfigUnsupported(f"interface {net.info.alias} has no tap device", domain=ErrorDomain.QEMU)
        props.put("fd", str(SHOWN_TAP))
    elif len(backend.taps) == 1:
        props.put("fd", str(backend.taps[0]))
    else:
        props.put("fds", ":".join(map(str, backend.taps)))
    if net.tune is not None and net.tune.sndbuf is not None:
        props.put("sndbuf", net.tune.sndbuf)
    if backend.vhosts:
        props.put("vhost", True)
        if len(backend.vhosts) == 1:
            props.put("vhostfd", str(backend.vhosts[0]))
        else:
            props.put("vhostfds", ":".join(map(str, backend.vhosts)))
    return props


def _vhost_user(build: Builder, net: Interface) -> Props:
    """A chardev of its own comes before the netdev."""
    source = net.source
    assert isinstance(source, VhostUserSource)
    words = f"socket,id=char{net.info.alias},path={escape(source.path or '')}"
    if source.mode is ConnectMode.SERVER:
        words += ",server=on"
    elif source.reconnect is not None and source.reconnect.enabled and source.reconnect.timeout is not None:
        words += f",reconnect={source.reconnect.timeout}"
    build.command.add("-chardev", words)
    props = Props(type="vhost-user", chardev=f"char{net.info.alias}")
    if net.driver is not None and net.driver.queues and net.driver.queues > 1:
        props.put("queues", net.driver.queues)
    return props


def _socket(net: Interface) -> Props:
    source = net.source if isinstance(net.source, SocketSource) else SocketSource()
    place = f"{source.address or ''}:{source.port or 0}"
    props = Props(type="socket")
    match net.type:
        case InterfaceType.CLIENT:
            return props.put("connect", place)
        case InterfaceType.SERVER:
            return props.put("listen", place)
        case InterfaceType.MCAST:
            return props.put("mcast", place)
        case _:
            local = source.local
            props.put("udp", place)
            return props.put("localaddr", f"{local.address or ''}:{local.port or 0}" if local else None)


def net_props(build: Builder, net: Interface, order: BootOrder) -> Props:
    """The guest's side."""
    model = net.model or ""
    props = Props(
        driver=virtio_driver(build, "virtio-net", net, model) if is_virtio(net) else _DEVICES.get(model, model)
    )
    if is_virtio(net):
        _put_virtio(build, props, net)
    props.put("netdev", f"host{net.info.alias}").put("id", net.info.alias)
    props.put("mac", net.mac.address if net.mac else None)
    if net.mtu and is_virtio(net):
        props.put("host_mtu", net.mtu)
    props.put("bootindex", order(net))
    put_address(build, props, net.info)
    return props


def _put_virtio(build: Builder, props: Props, net: Interface) -> None:
    driver = net.driver or InterfaceDriver()
    put_virtio(props, driver.virtio)
    if driver.txmode is not None:
        props.put("tx", "bh" if driver.txmode is TxMode.IOTHREAD else "timer")
    props.put("ioeventfd", driver.ioeventfd).put("event_idx", driver.event_idx)
    if driver.host is not None:
        host = driver.host
        props.put("csum", host.csum).put("gso", host.gso).put("host_tso4", host.tso4).put("host_tso6", host.tso6)
        props.put("host_ecn", host.ecn).put("host_ufo", host.ufo).put("mrg_rxbuf", host.mrg_rxbuf)
    if driver.guest is not None:
        guest = driver.guest
        props.put("guest_csum", guest.csum).put("guest_tso4", guest.tso4).put("guest_tso6", guest.tso6)
        props.put("guest_ecn", guest.ecn).put("guest_ufo", guest.ufo)
    queues = queue_count(net)
    if queues > 1:
        props.put("mq", True)
        if props["driver"] != "virtio-net-ccw":
            props.put("vectors", 2 * queues + 2)
    props.put("rx_queue_size", driver.rx_queue_size or None).put("tx_queue_size", driver.tx_queue_size or None)
    props.put("rss", driver.rss).put("hash", driver.rss_hash_report)


def queue_count(net: Interface) -> int:
    """Pairs of queues; several need vhost, or a backend that serves them itself."""
    driver = net.driver
    if driver is None or not driver.queues or not is_virtio(net):
        return 1
    if driver.name is NetDriverName.QEMU and net.type is not InterfaceType.VHOSTUSER:
        return driver.queues
    return driver.queues


def as_ethernet(net: Interface) -> Interface:
    """What is shown of an interface without its host side: its model, MAC address and script."""
    return Interface(
        type=InterfaceType.ETHERNET,
        mac=net.mac.copy() if net.mac else None,
        model=net.model,
        script=net.script,
    )


__all__ = ["UserSource", "build_interfaces"]
