"""Looking into a guest's memory: QEMU writes it to a file of its own, which is read back and removed."""

import os
import tempfile
from typing import TYPE_CHECKING

from pyvirtd.api.limits import DOMAIN_MEMORY_PEEK_BUFFER_MAX
from pyvirtd.constants.domain import DomainMemoryFlags
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import BadCall, InternalError, InvalidArg, from_os_error
from pyvirtd.util.files import Owner, in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

BOTH = DomainMemoryFlags.VIRTUAL | DomainMemoryFlags.PHYSICAL


async def peek_memory(driver: "QemuDriver", dom: QemuDomain, offset: int, size: int, flags: int) -> bytes:
    """`size` bytes of the guest's physical memory, or of its first vcpu's virtual memory, from `offset`."""
    if size > DOMAIN_MEMORY_PEEK_BUFFER_MAX:
        raise InternalError("size > maximum buffer size", domain=From.RPC)
    if flags == BOTH:
        raise BadCall("Flags 'VIR_MEMORY_VIRTUAL' and 'VIR_MEMORY_PHYSICAL' are mutually exclusive")
    if not flags:
        raise InvalidArg("flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL")
    async with dom.jobs.hold(Job.QUERY, "DomainMemoryPeek"):
        guest = dom.running
        owner = driver.credentials.owner if driver.host.privileged else None
        try:
            fd, path = await in_thread(_file_for_qemu, str(guest.directory), owner)
        except OSError as exc:
            raise from_os_error(exc, f"cannot create a file in '{guest.directory}'", domain=From.QEMU) from exc
        try:
            command = "memsave" if flags & DomainMemoryFlags.VIRTUAL else "pmemsave"
            await guest.monitor.execute(command, {"val": offset, "size": size, "filename": path})
            data = await in_thread(os.pread, fd, size, 0)
        finally:
            os.close(fd)
            await in_thread(_remove, path)
    if len(data) != size:
        raise InternalError(f"failed to read temporary file created with template {path}", domain=From.QEMU)
    return data


def _file_for_qemu(directory: str, owner: Owner | None) -> tuple[int, str]:
    """An empty file that QEMU may write. It is read through the descriptor: QEMU could put another in its place."""
    fd, path = tempfile.mkstemp(prefix="mem.", dir=directory)
    if owner is not None:
        os.fchown(fd, owner.uid, owner.gid)
    return fd, path


def _remove(path: str) -> None:
    os.unlink(path)
