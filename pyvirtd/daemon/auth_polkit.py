"""Authentication by polkit: the one who asks is the process at the other end of a unix socket."""

import asyncio

from pyvirtd.api.session import SessionPart
from pyvirtd.api.types import Caller
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.access.actions import MANAGE, MONITOR
from pyvirtd.core.access.polkit import Verdict
from pyvirtd.daemon.auth import AuthType, step_of
from pyvirtd.errors import AuthCancelled, AuthFailed, AuthUnavailable, VirtError


class PolkitSession(SessionPart):
    """The steps of the scheme: there is one. Somebody may be asked for a password while it waits."""

    def __init__(self, driver: object) -> None: ...

    async def auth_polkit(self, caller: Caller) -> int:
        with step_of(caller, AuthType.POLKIT) as client:
            action = MONITOR if client.read_only_socket else MANAGE
            task = asyncio.current_task()
            assert task is not None
            stay = client.on_close(lambda: _end(task))  # nobody is left who wants to know
            try:
                verdict = await client.server.polkit.check(
                    client.identity, action, pidfd=client.transport.peer_pidfd, interactive=True
                )
            finally:
                stay()
            if not verdict.authorized:
                raise _refusal(verdict, action)
            client.let_in()
        return 1


def _end(task: "asyncio.Task[object]") -> None:
    task.cancel()


def _refusal(verdict: Verdict, action: str) -> VirtError:
    """Why polkit did not say yes."""
    if verdict.dismissed:
        return AuthCancelled("user cancelled authentication process", domain=From.POLKIT)
    if verdict.challenge:
        return AuthUnavailable(f"no polkit agent available to authenticate action '{action}'", domain=From.POLKIT)
    return AuthFailed("access denied by policy", domain=From.POLKIT)
