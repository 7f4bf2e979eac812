"""Descriptors that clients lend to a domain's images, by name: <source file=... fdgroup='NAME'/>.

A client that can open an image hands it over, and QEMU reads it without a path; they are kept while the connection
that they came by lives, and each start gets duplicates of its own. What an open descriptor may do was decided when it
was opened, so there is no owner to change and none to give back: SECLABEL_RESTORE and SECLABEL_WRITABLE are about the
labels of SELinux and AppArmor. https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
"""

import fcntl
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from pyvirtd.api.domain_device import DevicePart
from pyvirtd.api.rpc import Files, accepts
from pyvirtd.api.types import Caller
from pyvirtd.constants.domain import DomainFDAssociateFlags as Associate
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.command.context import not_lent
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import BadCall, OperationTimeout
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import AnySource, FileSource, data_source
from pyvirtd.util.threads import close_fds, in_own_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

UNLOCK_S = 15.0

Groups = Mapping[str, Sequence[int]]  # by the name of the group, in the order they were given


class Descriptors(DevicePart[QemuDomain]):
    """Descriptors lent to domains."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(Associate.SECLABEL_RESTORE | Associate.SECLABEL_WRITABLE, function="qemuDomainFDAssociate")
    def domain_fd_associate(self, dom: QemuDomain, name: str, flags: int, files: Files, caller: Caller) -> None:
        """Lend a domain descriptors until the caller goes; a group of that name is replaced."""
        if not files:
            raise BadCall("nfds in virDomainFDAssociate must not be zero")
        dom.drop_group(name)
        group = tuple(files.take())

        def gone() -> None:
            if dom.lent.get(name, (None, None))[0] is group:
                dom.drop_group(name)

        dom.lent[name] = group, caller.on_close(gone)


async def borrow(dom: QemuDomain, live: DomainDef, ours: ExitStack) -> Groups:
    """Duplicates of what the images of a domain that starts count on; `ours` closes them. Raises VirtError.

    The locks that the last guest's QEMU left on them are gone.
    """
    groups: dict[str, tuple[int, ...]] = {}
    for source in _sources(live):
        name = source.fdgroup
        if not name or name in groups:
            continue
        if name not in dom.lent:
            raise not_lent(name)
        groups[name] = tuple(_duplicate(fd, ours) for fd in dom.lent[name][0])
    for name, copies in groups.items():
        try:
            await in_own_thread(UNLOCK_S, _unlock, copies)
        except TimeoutError:
            error = f"file descriptors of group '{name}' were not unlocked within {UNLOCK_S:g} seconds"
            raise OperationTimeout(error, domain=From.QEMU) from None
    return groups


def _duplicate(fd: int, ours: ExitStack) -> int:
    """A descriptor of the same open file."""
    copy = os.dup(fd)
    ours.callback(close_fds, [copy])
    return copy


def _unlock(fds: Sequence[int]) -> None:
    """Drop the open files' own locks. A server of files is asked, and takes its time."""
    for fd in fds:
        with suppress(OSError):  # not a file: nothing was locked
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("@hhqqi0q", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))


def _sources(live: DomainDef) -> Iterator[FileSource]:
    """All images that may be descriptors: layers of disks, files that hold their data, variables of the firmware."""
    found: list[AnySource | None] = [live.os.nvram.source] if live.os.nvram is not None else []
    for disk in live.devices.disk:
        found.append(disk.source)
        store = disk.backing_store
        while store is not None:
            found.append(store.source)
            store = store.backing_store
    for source in found:
        for one in (source, data_source(source)):
            if isinstance(one, FileSource):
                yield one
