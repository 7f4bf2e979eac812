"""Unix sockets that listen before the program that serves them runs: whoever connects need not wait for it."""

import os
import socket
from pathlib import Path

from pyvirtd.errors import from_os_error
from pyvirtd.util.files import Owner


def listen_socket(path: Path, owner: Owner | None, *, mode: int = 0o700, failed: str = "") -> socket.socket:
    """A listening socket of this mode and owner, in the place of an older one. Raises SystemError_ with `failed`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        old = os.umask(~mode & 0o777)
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        if owner is not None:
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
        sock.listen(1)
    except OSError as exc:
        sock.close()
        raise from_os_error(exc, failed or f"cannot listen on '{path}'") from exc
    return sock
