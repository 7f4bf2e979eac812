"""Who a caller is, and whether it may do what it asks.

The decision function is one: `Access.check`. It allows everything to whoever was let in by the socket's mode and the
connection's authentication; finer rules replace it here, and nowhere else.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Identity:
    """The peer of a connection, from the kernel."""

    pid: int
    uid: int
    gid: int


class Access:
    """Decides on permissions such as "domain:start" for an object (None: the connection)."""

    def check(self, identity: Identity, permission: str, obj: Any) -> bool:
        """Whether the caller has the permission."""
        return True
