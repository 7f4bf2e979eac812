"""Who a caller is, and whether it may do what it asks.

The decision function is one: `Access.check`. It allows everything to whoever was let in by the socket's mode and the
connection's authentication; finer rules replace it here, and nowhere else.
"""

from typing import Any

from pyvirtd.core.access.identity import Identity

__all__ = ["Access", "Identity"]


class Access:
    """Decides on permissions such as "domain:start" for an object (None: the connection)."""

    def check(self, identity: Identity, permission: str, obj: Any) -> bool:
        """Whether the caller has the permission."""
        return True
