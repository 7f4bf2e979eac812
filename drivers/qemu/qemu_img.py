"""qemu-img, which makes and converts images: a child process with a deadline."""

from collections.abc import Collection

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.helpers.base import find_program
from pyvirtd.errors import InternalError, from_os_error
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import Launch, run

TIME_S = 60.0


async def qemu_img(*words: str, error: str, pass_fds: Collection[int] = ()) -> None:
    """Run qemu-img; `error`: what could not be done, to which its own words are added. Raises VirtError.

    `pass_fds`: files that it is to write, named /proc/self/fd/NUMBER, where others could put a link in a name's place.
    """
    try:
        program = await in_thread(find_program, "qemu-img")
        result = await run([program, *words], timeout=TIME_S, launch=Launch(pass_fds=pass_fds))
    except OSError as exc:
        raise from_os_error(exc, f"{error}: cannot run qemu-img", domain=From.QEMU) from exc
    if result.returncode:
        said = result.stderr.decode("utf-8", "replace").strip()
        raise InternalError(f"{error}: {said}", domain=From.QEMU)
