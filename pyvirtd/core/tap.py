"""Network devices of the host that a guest's interfaces end in: tap, macvtap, and vhost.

A tap device lives as long as a descriptor of it is open: the daemon's until QEMU has its own, then QEMU's. A macvtap
device stays until it is deleted. What is not a coroutine here may wait for the kernel's network lock: for a thread.
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core import netdev
from pyvirtd.errors import ConfigUnsupported, InternalError, SystemError_, VirtError, from_os_error
from pyvirtd.model.net import DirectMode, DirectSource, Interface, InterfaceType, NetDriverName
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import CommandTimeout, Launch, run

T = TypeVar("T")

TUN = "/dev/net/tun"
VHOST = "/dev/vhost-net"
BRIDGE_HELPERS = ("/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper")
FD_SIZE = 4
SCRIPT_S = 60.0
HELPER_S = 30.0
NAMES_TRIED = 10_000
# linux/if_tun.h
TUNSETIFF, TUNGETIFF = 0x400454CA, 0x800454D2
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR, IFF_TUN_EXCL = 0x2, 0x100, 0x1000, 0x4000, 0x8000
# The host's end of a guest's cable: such an address is never the lowest, which a bridge takes as its own.
HOST_MAC_START = 0xFE
MACVTAP_WORDS = {mode: "passthru" if mode is DirectMode.PASSTHROUGH else str(mode) for mode in DirectMode}


class Names:
    """Free names of host devices, "vnet0" and on; each is used once in the daemon's life, as libvirt does."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._last = -1

    def reserve(self, name: str) -> None:
        """A guest that runs already has this one."""
        digits = name.removeprefix(self.prefix)
        if name.startswith(self.prefix) and digits.isdecimal():
            self._last = max(self._last, int(digits))

    def make(self, wanted: str, attempt: Callable[[str], T], taken: int) -> tuple[str, T]:
        """Make a device under the wanted name or, without one, under the next that nobody else's device has.

        `taken` is the errno of the attempt's SystemError_ that says so. Raises what the attempt raises.
        """
        if wanted:
            return wanted, attempt(wanted)
        for _ in range(NAMES_TRIED):
            self._last += 1
            name = f"{self.prefix}{self._last}"
            try:
                return name, attempt(name)
            except SystemError_ as exc:
                if exc.int1 != taken:
                    raise
        raise InternalError(f"no free device name like '{self.prefix}0'")


VNET, MACVTAP = Names("vnet"), Names("macvtap")


@dataclass(slots=True)
class HostInterface:
    """The host's end of an interface: its device's name, and a descriptor for each queue. close() is the owner's."""

    name: str
    taps: list[int] = field(default_factory=list)
    vhosts: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Close our descriptors; QEMU has its own, or the tap goes away."""
        _close_all(self.taps)
        _close_all(self.vhosts)


async def open_interface(
    net: Interface, *, bridge: str = "", kvm: bool = False, privileged: bool = True, helper: str | None = None
) -> HostInterface:
    """Make the device for an interface of type ethernet, bridge, network or direct, up and running.

    `bridge`: the one to join, which for a network only the caller knows. `kvm`: the guest can use vhost. A session's
    bridges are joined by QEMU's `helper`. Raises VirtError, and then nothing is left. The name belongs into the live
    definition's <target dev=…>.
    """
    if bridge and not privileged:
        return await open_by_helper(bridge, helper)
    made = await in_thread(_open, net, bridge, kvm)
    if net.type is InterfaceType.ETHERNET and net.script:
        try:
            await run_script(net.script, made.name)
        except BaseException:
            made.close()
            raise
    return made


async def close_interface(net: Interface) -> None:
    """Undo what outlives QEMU's descriptors: a macvtap device, an ethernet's down script. Raises VirtError."""
    name = net.target.dev if net.target is not None else None
    if not name:
        return
    if net.type is InterfaceType.DIRECT:
        await in_thread(netdev.delete_link, name)
    elif net.type is InterfaceType.ETHERNET and net.downscript:
        await run_script(net.downscript, name)


def reserve_names(net: Interface) -> None:
    """Note the device of a guest that is found running."""
    if net.target is not None and net.target.dev:
        VNET.reserve(net.target.dev)
        MACVTAP.reserve(net.target.dev)


def tap_node(net: Interface) -> str:
    """The device node whose opening makes the interface's tap."""
    return (net.backend.tap if net.backend is not None else None) or TUN


def vhost_node(net: Interface) -> str:
    """The device node of the kernel's own virtio-net."""
    return (net.backend.vhost if net.backend is not None else None) or VHOST


def host_mac(mac: str) -> str:
    """The address of the host's end. Raises ConfigUnsupported for a guest's address that is one already."""
    if int(mac[:2], 16) == HOST_MAC_START:
        raise ConfigUnsupported(
            f"Unable to use MAC address starting with reserved value 0xFE - '{mac}' - ", domain=From.NONE
        )
    return f"{HOST_MAC_START:02x}{mac[2:]}"


def _open(net: Interface, bridge: str, kvm: bool) -> HostInterface:
    mac = net.mac.address if net.mac is not None else None
    assert mac is not None, "a definition that starts has all its addresses"
    virtio = (net.model or "").startswith("virtio")
    queues = (net.driver.queues if net.driver is not None else None) or 1
    with ExitStack() as undo:
        if net.type is InterfaceType.DIRECT:
            made = _open_direct(net, mac, queues, vnet_header=virtio)
            undo.callback(_quietly_delete, made.name)
        else:
            made = _open_tap(net, mac, bridge, queues, vnet_header=virtio)
        undo.callback(made.close)
        if virtio:
            made.vhosts = open_vhosts(net, queues, kvm=kvm)
        undo.pop_all()
    return made


def _open_tap(net: Interface, mac: str, bridge: str, queues: int, *, vnet_header: bool) -> HostInterface:
    wanted = (net.target.dev if net.target is not None else None) or ""
    device = tap_node(net)
    managed = net.target is None or net.target.managed is not False
    if net.type is InterfaceType.ETHERNET and not managed:
        if not netdev.exists(wanted):
            raise InternalError("target managed='no' but specified dev doesn't exist", domain=From.QEMU)
        return HostInterface(wanted, open_tap(wanted, queues, vnet_header=vnet_header, exists=True, device=device))
    made = create_tap(wanted, queues, vnet_header=vnet_header, device=device)
    try:
        netdev.set_mac(made.name, host_mac(mac))
        if bridge:
            netdev.set_mtu(made.name, netdev.get_mtu(bridge))
            netdev.join_bridge(made.name, bridge)
            if net.isolated:
                netdev.isolate_port(made.name)
        if net.mtu:
            netdev.set_mtu(made.name, net.mtu)
        netdev.set_up(made.name, up=True)
    except BaseException:
        made.close()
        raise
    return made


def _open_direct(net: Interface, mac: str, queues: int, *, vnet_header: bool) -> HostInterface:
    source = net.source
    if not isinstance(source, DirectSource) or not source.dev:
        raise ConfigUnsupported("an interface of type 'direct' needs a device of the host", domain=From.QEMU)
    wanted = (net.target.dev if net.target is not None else None) or ""
    mode = source.mode or DirectMode.VEPA
    return create_macvtap(wanted, source.dev, mode, mac, queues, vnet_header=vnet_header, mtu=net.mtu)


# --- tap ------------------------------------------------------------------------------------------------------


def create_tap(name: str, queues: int = 1, *, vnet_header: bool, device: str = TUN) -> HostInterface:
    """A new tap device; without a name the next free one. Raises SystemError_."""

    def attempt(candidate: str) -> list[int]:
        return open_tap(candidate, queues, vnet_header=vnet_header, device=device)

    found, fds = VNET.make(name, attempt, errno.EBUSY)
    return HostInterface(found, fds)


def open_tap(name: str, queues: int, *, vnet_header: bool, exists: bool = False, device: str = TUN) -> list[int]:
    """A descriptor for each queue of a tap device, which comes to be by this unless it exists. Raises SystemError_."""
    fds: list[int] = []
    try:
        for index in range(queues):
            fds.append(_open_node(device, f"Unable to open {device}, is tun module loaded?"))
            extra = 0 if exists or index else IFF_TUN_EXCL
            _attach(fds[-1], name, queues, vnet_header, extra, f"Unable to create tap device {name}")
    except BaseException:
        _close_all(fds)
        raise
    return fds


def _open_node(path: str, failed: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise from_os_error(exc, failed) from exc


def _attach(fd: int, name: str, queues: int, vnet_header: bool, extra: int, failed: str) -> None:
    """Make a descriptor one queue of a device."""
    flags = IFF_TAP | IFF_NO_PI | extra
    flags |= IFF_VNET_HDR if vnet_header else 0
    flags |= IFF_MULTI_QUEUE if queues > 1 else 0
    try:
        fcntl.ioctl(fd, TUNSETIFF, netdev.request(name, struct.pack("=H", flags)))
    except OSError as exc:
        raise from_os_error(exc, failed) from exc


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def tap_name(fd: int) -> str:
    """The device behind a tap or macvtap descriptor."""
    answer = fcntl.ioctl(fd, TUNGETIFF, bytes(netdev.REQUEST_SIZE))
    return answer[: netdev.NAME_MAX + 1].split(b"\0")[0].decode("ascii", "replace")


# --- macvtap --------------------------------------------------------------------------------------------------


def create_macvtap(
    name: str, lower: str, mode: DirectMode, mac: str, queues: int = 1, *, vnet_header: bool, mtu: int | None = None
) -> HostInterface:
    """A new macvtap device on top of a device of the host, up; without a name the next free one. Raises VirtError."""
    made = HostInterface(_add_macvtap(name, lower, netdev.index_of(lower), mode, mac))
    try:
        if mtu:
            netdev.set_mtu(made.name, mtu)
        netdev.set_up(made.name, up=True)
        made.taps = _open_macvtap(made.name, queues, vnet_header=vnet_header)
    except BaseException:
        _quietly_delete(made.name)
        raise
    return made


def _add_macvtap(name: str, lower: str, lower_index: int, mode: DirectMode, mac: str) -> str:
    def attempt(candidate: str) -> None:
        try:
            word = MACVTAP_WORDS[mode]
            netdev.add_link(candidate, kind="macvtap", link=lower_index, macvtap_mode=word, address=mac)
        except SystemError_ as exc:
            reason = os.strerror(exc.int1)
            text = f"error creating macvtap interface {candidate}@{lower} ({mac}): {reason}"
            raise SystemError_(text, int1=exc.int1) from exc

    found, _ = MACVTAP.make(name, attempt, errno.EEXIST)
    return found


def _open_macvtap(name: str, queues: int, *, vnet_header: bool) -> list[int]:
    path = f"/dev/tap{netdev.index_of(name)}"
    failed = f"cannot open macvtap tap device {path}"
    fds: list[int] = []
    try:
        for _ in range(queues):
            fds.append(_open_node(path, failed))
            # Another network namespace may have had the number first.
            if tap_name(fds[-1]) != name:
                raise InternalError(f"'{path}' does not belong to the macvtap device {name}")
            _attach(fds[-1], name, queues, vnet_header, 0, failed)
    except BaseException:
        _close_all(fds)
        raise
    return fds


def _quietly_delete(name: str) -> None:
    with contextlib.suppress(VirtError):
        netdev.delete_link(name)


# --- vhost ----------------------------------------------------------------------------------------------------


def open_vhosts(net: Interface, queues: int, *, kvm: bool) -> list[int]:
    """A vhost descriptor for each queue; none where it is not wanted or not there. Raises ConfigUnsupported."""
    driver = net.driver.name if net.driver is not None else None
    if not kvm or driver is NetDriverName.QEMU:
        return []
    path = vhost_node(net)
    fds: list[int] = []
    try:
        for _ in range(queues):
            fds.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        _close_all(fds)
        if driver is NetDriverName.VHOST:
            raise ConfigUnsupported(
                "vhost-net was requested for an interface, but is unavailable", domain=From.QEMU
            ) from None
        return []
    return fds


# --- programs -------------------------------------------------------------------------------------------------


async def run_script(path: str, name: str) -> None:
    """An ethernet interface's script, with the device's name. Raises InternalError."""
    try:
        result = await run([path, name], timeout=SCRIPT_S)
    except OSError as exc:
        raise from_os_error(exc, f"cannot execute binary {path}") from exc
    except CommandTimeout as exc:
        raise InternalError(f"Child process ({path} {name}) {exc.detail}") from exc
    if result.returncode:
        words = result.stderr.decode("utf-8", "replace")
        raise InternalError(f"Child process ({path} {name}) unexpected exit status {result.returncode}: {words}")


async def open_by_helper(bridge: str, helper: str | None = None) -> HostInterface:
    """A tap on a bridge for a daemon that may not make one, by QEMU's set-uid helper. Raises InternalError."""
    path = helper or next((path for path in BRIDGE_HELPERS if os.access(path, os.X_OK)), BRIDGE_HELPERS[0])
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, its:
        argv = [path, "--use-vnet", f"--br={bridge}", f"--fd={its.fileno()}"]
        failed = f"{' '.join(argv)}: failed to communicate with bridge helper"
        try:
            result = await run(argv, timeout=HELPER_S, launch=Launch(pass_fds=[its.fileno()]))
        except (OSError, CommandTimeout) as exc:
            raise InternalError(f"{failed}: {exc}", domain=From.QEMU) from exc
        its.close()
        fd = _received_fd(ours)
    if fd is None:
        words = result.stderr.decode("utf-8", "replace").strip()
        raise InternalError(f"{failed}: Transport endpoint is not connected\nstderr={words}", domain=From.QEMU)
    os.set_blocking(fd, False)
    return HostInterface(tap_name(fd), [fd])


def _received_fd(sock: socket.socket) -> int | None:
    """The descriptor that the helper has sent, if any: it has ended, so there is nothing to wait for."""
    sock.setblocking(False)
    room = socket.CMSG_SPACE(FD_SIZE)
    try:
        _, parts, _, _ = sock.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return None
    for level, kind, data in parts:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return int(struct.unpack_from("@i", data)[0])
    return None
