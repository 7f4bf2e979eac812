"""Sockets that QEMU serves and files that it writes for character devices, opened by us and inherited by it.

A socket that listens before QEMU runs can be connected to at once; files are reached although QEMU's user may not enter
their directories, and stay their owner's.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from pyvirtd.drivers.qemu.command.chardev import complete_channel_paths
from pyvirtd.drivers.qemu.command.context import Context
from pyvirtd.drivers.qemu.postparse.chardevs import mirrors_serial
from pyvirtd.drivers.qemu.prepare import listens
from pyvirtd.drivers.qemu.sockets import listen_socket
from pyvirtd.errors import from_os_error
from pyvirtd.model.chardev import CharBackend, ChardevType, EgdBackend, FileCharSource, SmartcardMode, UnixSource
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import Owner, in_thread
from pyvirtd.util.walk import open_path

SOCKET_MODE = 0o775


class Named(NamedTuple):
    """A character device and the alias it goes by."""

    alias: str
    backend: CharBackend


async def open_chardevs(live: DomainDef, ours: ExitStack, context: Context, owner: Owner | None) -> None:
    """Open what the guest's character devices need into the context; `ours` closes it. Raises SystemError_."""
    complete_channel_paths(live, context.paths.channel_dir(context.domain_id, live.name))
    for alias, backend in named_backends(live):
        source = backend.source[0] if backend.source else None
        if backend.type is ChardevType.UNIX and isinstance(source, UnixSource) and listens(source) and source.path:
            sock = await in_thread(_listen, Path(source.path), owner)
            ours.callback(sock.close)
            context.chardevs[alias] = sock.fileno()
        elif backend.type is ChardevType.FILE and isinstance(source, FileCharSource) and source.path:
            fd = await in_thread(open_output, source.path, owner, truncate=source.append is False)
            ours.callback(os.close, fd)
            context.files[alias] = fd
        if backend.log is not None and backend.log.file:
            fd = await in_thread(open_output, backend.log.file, owner, truncate=backend.log.append is False)
            ours.callback(os.close, fd)
            context.logs[alias] = fd


def named_backends(live: DomainDef) -> Iterator[Named]:
    """Every device with a character device of its own."""
    devices = live.devices
    for chardev in (*devices.serial, *devices.parallel, *devices.channel):
        yield Named(chardev.info.alias or "", chardev)
    for redirdev in devices.redirdev:
        yield Named(redirdev.info.alias or "", redirdev)
    for console in devices.console:
        if not mirrors_serial(devices, console):
            yield Named(console.info.alias or "", console)
    for card in devices.smartcard:
        if card.mode is SmartcardMode.PASSTHROUGH:
            yield Named(card.info.alias or "", card)
    for rng in devices.rng:
        if isinstance(rng.backend, EgdBackend):
            yield Named(rng.info.alias or "", rng.backend)


def _listen(path: Path, owner: Owner | None) -> socket.socket:
    return listen_socket(path, owner, mode=SOCKET_MODE, failed=f"Unable to bind to UNIX socket path '{path}'")


def open_output(path: str, owner: Owner | None, *, truncate: bool) -> int:
    """A file to append to, made where it is missing; no link of the guest's user is followed. Raises SystemError_."""
    try:
        found = open_path(path, owner.uid if owner is not None else 0, create=True)
        try:
            extra = os.O_TRUNC if truncate and stat.S_ISREG(os.fstat(found).st_mode) else 0
            # A pipe without a reader must not hold up the start.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
            fd = os.open(f"/proc/self/fd/{found}", flags | extra)
        finally:
            os.close(found)
    except OSError as exc:
        raise from_os_error(exc, f"Unable to open file: {path}") from exc
    os.set_blocking(fd, True)
    return fd
