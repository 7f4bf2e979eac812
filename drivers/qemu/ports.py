"""Network ports for graphics: handed out from qemu.conf's ranges, never one that is in use on the host."""

import errno
import socket
from collections.abc import Iterator

from pyvirtd.config import QemuConfig
from pyvirtd.errors import InternalError
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import AddressListen, NetworkListen, SpiceGraphics, VncGraphics


class PortRange:
    """Ports first..last; `taken` holds what this daemon handed out."""

    def __init__(self, what: str, first: int, last: int) -> None:
        self._what = what
        self._range = range(first, last + 1)
        self.taken: set[int] = set()

    def take(self) -> int:
        """A free port. Raises InternalError when none is left."""
        for port in self._range:
            if port not in self.taken and _is_free(port):
                self.taken.add(port)
                return port
        raise InternalError(f"Unable to find an unused port in range '{self._what}'")


class GraphicsPorts:
    """The ports of all running guests."""

    def __init__(self, config: QemuConfig) -> None:
        self._config = config
        low, high = config.remote_display_port_min, config.remote_display_port_max
        self.display = PortRange(f"display ({low}-{high})", low, high)
        low, high = config.remote_websocket_port_min, config.remote_websocket_port_max
        self.websocket = PortRange(f"webSocket ({low}-{high})", low, high)

    def assign(self, live: DomainDef) -> None:
        """Fill in the ports and addresses that a starting guest leaves to us."""
        for graphics in live.devices.graphics:
            if isinstance(graphics, VncGraphics | SpiceGraphics):
                address = self._config.vnc_listen if isinstance(graphics, VncGraphics) else self._config.spice_listen
                for listen in graphics.listen:
                    if isinstance(listen, AddressListen) and listen.address is None:
                        listen.address = address
                        listen.origin.from_config = True
            if isinstance(graphics, VncGraphics):
                if graphics.autoport and _over_network(graphics):
                    graphics.port = self.display.take()
                if graphics.websocket == -1:
                    graphics.websocket = self.websocket.take()
            elif isinstance(graphics, SpiceGraphics) and graphics.autoport and _over_network(graphics):
                self._assign_spice(graphics)

    def _assign_spice(self, graphics: SpiceGraphics) -> None:
        graphics.port = self.display.take()
        if any(str(channel.mode) == "secure" for channel in graphics.channel):
            graphics.tls_port = self.display.take()

    def adopt(self, live: DomainDef) -> None:
        """Note the ports of a guest that an earlier daemon started."""
        self.display.taken |= set(_display_ports(live))
        self.websocket.taken |= set(_websocket_ports(live))

    def release(self, live: DomainDef) -> None:
        """Give a guest's ports back."""
        self.display.taken -= set(_display_ports(live))
        self.websocket.taken -= set(_websocket_ports(live))


def _over_network(graphics: VncGraphics | SpiceGraphics) -> bool:
    return not graphics.listen or any(isinstance(item, AddressListen | NetworkListen) for item in graphics.listen)


def _display_ports(live: DomainDef) -> Iterator[int]:
    for graphics in live.devices.graphics:
        if isinstance(graphics, VncGraphics | SpiceGraphics) and graphics.autoport:
            for port in (graphics.port, getattr(graphics, "tls_port", None)):
                if port and port > 0:
                    yield port


def _websocket_ports(live: DomainDef) -> Iterator[int]:
    for graphics in live.devices.graphics:
        if isinstance(graphics, VncGraphics) and graphics.websocket and graphics.websocket > 0:
            yield graphics.websocket


def _is_free(port: int) -> bool:
    """Whether nobody listens on the port, on any address of either family."""
    for family in (socket.AF_INET6, socket.AF_INET):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(("", port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return False
    return True
