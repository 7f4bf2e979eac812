"""Any failure as the error a client gets."""

import logging

from pyvirtd.errors import InternalError, VirtError, from_os_error

log = logging.getLogger(__name__)


def client_error(exc: Exception, what: str, *, name: str = "") -> VirtError:
    """The client's error for a failed `what`. One that is no VirtError is our fault: the log gets all of it, the
    client its class and the `name` of what failed."""
    if isinstance(exc, VirtError):
        return exc
    log.error("%s failed", what, exc_info=exc)
    if isinstance(exc, OSError):
        return from_os_error(exc, name or what)
    return InternalError(f"{name or what} failed: {type(exc).__name__}")
