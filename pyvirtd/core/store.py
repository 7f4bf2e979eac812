"""Definitions on disk, where and as libvirt keeps them: NAME.xml, a link in autostart/, durable before a reply."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyvirtd.errors import VirtError, from_os_error
from pyvirtd.paths import FamilyPaths
from pyvirtd.util.files import (
    atomic_write,
    durable_symlink,
    durable_unlink,
    in_thread,
    read_text,
    sweep_temporaries,
)

log = logging.getLogger(__name__)

HEADER = """<!--
This file belongs to the virtualization daemon, which writes it anew at each change: edits here are lost.
To change it: virsh {command} {name}
-->

"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of definitions found at start."""

    name: str
    text: str
    autostart: bool
    autostart_once: bool = False
    written_ns: int = 0  # when the file was written


class Definitions:
    """The definitions of one family of objects. `command` is virsh's for editing one."""

    def __init__(self, paths: FamilyPaths, command: str) -> None:
        self.paths = paths
        self._command = command

    async def sweep(self) -> None:
        """Remove what the writes of a daemon that is gone have left; never while somebody may write."""
        for leftover in await in_thread(sweep_temporaries, self.paths.config):
            log.info("removed %s, left by a write that never ended", self.paths.config / leftover)

    async def load(self) -> list[Stored]:
        """The files that can be read; one that cannot is logged and left alone."""
        return await in_thread(self._read_all)

    async def read(self, name: str) -> Stored | None:
        """The file of one definition, None where there is none that can be read."""
        return await in_thread(self._read, self.paths.config_file(name))

    def complain(self, name: str, error: VirtError) -> None:
        """Say that a file is of no use; it is left as it is."""
        log.error("%s is left alone: %s", self.paths.config_file(name), error)

    def _read_all(self) -> list[Stored]:
        found = (self._read(path) for path in sorted(self.paths.config.glob("*.xml")))
        return [stored for stored in found if stored is not None]

    def _read(self, path: Path) -> Stored | None:
        try:
            written_ns, text = path.stat().st_mtime_ns, read_text(path)
        except FileNotFoundError:  # removed since it was listed
            return None
        except OSError as exc:
            log.error("%s is left alone: %s", path, exc.strerror or exc)
            return None
        once = self.paths.autostart_once_link(path.stem).is_symlink()
        autostart = self.paths.autostart_link(path.stem).is_symlink()
        return Stored(path.stem, text, autostart, once, written_ns)

    async def save(self, name: str, xml: str) -> None:
        """Write a definition; on return it outlasts a crash. Raises VirtError."""
        path = self.paths.config_file(name)
        try:
            await atomic_write(path, HEADER.format(command=self._command, name=_in_comment(name)) + xml, 0o600)
        except OSError as exc:
            raise from_os_error(exc, f"cannot write '{path}'") from exc

    async def remove(self, name: str) -> None:
        """Remove a definition and its autostart links, the links first: they never stand alone."""
        try:
            await durable_unlink(self.paths.autostart_link(name), missing_ok=True)
            await durable_unlink(self.paths.autostart_once_link(name), missing_ok=True)
            await durable_unlink(self.paths.config_file(name), missing_ok=True)
        except OSError as exc:
            raise from_os_error(exc, f"cannot remove config for '{name}'") from exc

    async def set_autostart(self, name: str, *, on: bool, once: bool = False) -> None:
        """Make or remove the autostart link; `once`: that for the next autostart only."""
        link = self.paths.autostart_once_link(name) if once else self.paths.autostart_link(name)
        try:
            if on:
                await in_thread(link.parent.mkdir, mode=0o755, parents=True, exist_ok=True)
                await durable_symlink(self.paths.config_file(name), link, replace=True)
            else:
                await durable_unlink(link, missing_ok=True)
        except OSError as exc:
            raise from_os_error(exc, f"Failed to change autostart of '{name}'") from exc

    async def rename(self, old: str, new: str, xml: str, *, autostart: bool, autostart_once: bool = False) -> None:
        """Move a definition to a new name: the new file stands before the old one goes, and goes if that stays."""
        try:
            await self.save(new, xml)
            if autostart:
                await self.set_autostart(new, on=True)
            if autostart_once:
                await self.set_autostart(new, on=True, once=True)
            await self.remove(old)
        except VirtError:
            if await in_thread(self.paths.config_file(old).exists):
                with suppress(VirtError):
                    await self.remove(new)
            raise


def _in_comment(name: str) -> str:
    """The name as an XML comment may hold it."""
    return name.replace("--", "-\u200b-")


class NameLocks:
    """One holder at a time for each key; keys come and go.

    They keep two writes of one file from overtaking each other. Who needs a job of the domain too takes that first,
    everywhere: whoever holds a name waits for no job.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[asyncio.Lock, int]] = {}  # with the number of holders and waiters

    @asynccontextmanager
    async def hold(self, *keys: str) -> AsyncIterator[None]:
        """Hold all keys; taken in one order, so two holders never wait for each other."""
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                await stack.enter_async_context(self._one(key))
            yield

    @asynccontextmanager
    async def _one(self, key: str) -> AsyncIterator[None]:
        lock, users = self._held.get(key, (asyncio.Lock(), 0))
        self._held[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._held.pop(key)
            if users > 1:
                self._held[key] = lock, users - 1
