"""Authentication by polkit: the one who asks is the process at the other end of a unix socket."""

from pyvirtd.api.session import SessionPart
from pyvirtd.api.types import Caller
from pyvirtd.daemon.auth import AuthType, step_of
from pyvirtd.errors import AuthFailed


class PolkitSession(SessionPart):
    """The steps of the scheme: there is one."""

    def __init__(self, driver: object) -> None: ...

    def auth_polkit(self, caller: Caller) -> int:
        with step_of(caller, AuthType.POLKIT) as client:
            uid = client.identity.uid
            raise AuthFailed(f"only root may connect: polkit rules are not consulted yet (uid {uid})")
