"""Listening sockets: made here, or received from the service manager. Accepting is server.py's.

A passed socket is known by its name (sd_listen_fds_with_names(3)): the name of the unit that libvirt's clients and
administrators know, or of ours.
"""

import grp
import logging
import os
import socket
import stat
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import systemd.daemon as service

from pyvirtd.errors import InternalError, from_os_error
from pyvirtd.paths import Paths

log = logging.getLogger(__name__)

UNITS = ("libvirtd", "pyvirtd")


class Wire(Enum):
    """What a socket's bytes go through."""

    UNIX = "unix"
    TCP = "tcp"
    TLS = "tls"


# What a passed socket's name says after the unit's.
ROLES = {"": Wire.UNIX, "ro": Wire.UNIX, "admin": Wire.UNIX, "tcp": Wire.TCP, "tls": Wire.TLS}


@dataclass(frozen=True, eq=False)
class Listener:
    """A listening socket and what its clients get. `path`: to be removed at the end."""

    sock: socket.socket
    wire: Wire = Wire.UNIX
    read_only: bool = False
    admin: bool = False
    path: Path | None = None


def unix_listener(
    path: Path, mode: int, group: str | None, backlog: int, *, read_only: bool = False, admin: bool = False
) -> Listener:
    """Listen on a unix socket at `path`; one that a daemon left behind is replaced. Raises VirtError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path)
        old = os.umask(0o777)  # nobody connects before mode and group are right
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        if group:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(mode)
        sock.listen(backlog)
    except KeyError:
        sock.close()
        path.unlink(missing_ok=True)
        raise InternalError(f"unix_sock_group: there is no group '{group}'") from None
    except OSError as exc:
        sock.close()
        raise from_os_error(exc, f"cannot listen on {path}") from exc
    return Listener(sock, read_only=read_only, admin=admin, path=path)


def network_listeners(wire: Wire, address: str | None, port: str, backlog: int) -> list[Listener]:
    """Listen on every address that a name or None (all) stands for; asks name services. Raises VirtError."""
    where = f"{address or '*'}:{port}"
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise InternalError(f"Unable to resolve address '{address or ''}' service '{port}': {exc.strerror}") from exc
    made: list[Listener] = []
    failed: OSError | None = None
    for family, kind, protocol, _, place in found:
        try:
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        except OSError as exc:  # a host without IPv6
            failed = exc
            continue
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(place)
            sock.listen(backlog)
        except OSError as exc:
            sock.close()
            if made and family == socket.AF_INET6:
                log.info("not listening on %s: %s", place[0], exc.strerror)
                continue
            for other in made:
                other.sock.close()
            raise from_os_error(exc, f"Unable to bind to {where}") from exc
        made.append(Listener(sock, wire))
    if not made:
        assert failed is not None
        raise from_os_error(failed, f"Unable to listen on {where}") from failed
    return made


def passed_listeners(paths: Paths, tls_port: str) -> list[Listener]:
    """The sockets that the service manager passed; the variables that tell of them are gone afterwards.

    A socket without a name of ours is known by where it listens. Raises VirtError for one that is nobody's.
    """
    return [
        _passed(socket.socket(fileno=fd), name, paths, tls_port)
        for fd, name in service.listen_fds_with_names(unset_environment=True).items()
    ]


def _passed(sock: socket.socket, name: str, paths: Paths, tls_port: str) -> Listener:
    sock.setblocking(False)
    place = sock.getsockname()
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise InternalError(f"the service manager passed '{name}', which is no listening stream socket")
    role: str | None
    unit, _, role = name.removesuffix(".socket").partition("-")
    if unit not in UNITS or role not in ROLES:
        role = _role_by_place(place, paths, tls_port)
    if role not in ROLES:
        raise InternalError(f"the service manager passed '{name}' on {place}, which is no socket of ours")
    wire = ROLES[role]
    if (sock.family == socket.AF_UNIX) is not (wire is Wire.UNIX):
        raise InternalError(f"the service manager passed '{name}' on {place}, a socket of another family")
    return Listener(sock, wire, read_only=role == "ro", admin=role == "admin")


def _role_by_place(place: object, paths: Paths, tls_port: str) -> str | None:
    """The role of a socket by its address; None where it is none of ours."""
    if isinstance(place, tuple):
        return "tls" if _port_number(tls_port) == place[1] else "tcp"
    known = {str(paths.socket_rw): "", str(paths.socket_ro): "ro", str(paths.socket_admin): "admin"}
    return known.get(str(place))


def _port_number(port: str) -> int | None:
    if port.isdecimal():
        return int(port)
    try:
        return socket.getservbyname(port, "tcp")
    except OSError:
        return None


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises InternalError for one that is in use, and OSError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full
            raise InternalError(f"another daemon serves {path}") from None
        pid = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        raise InternalError(f"another daemon serves {path} (pid {pid})")
