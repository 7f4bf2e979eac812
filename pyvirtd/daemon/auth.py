"""How a client proves who it is: the schemes, and the rules that are the same for all of them.

A client has one scheme (`Client.auth`), from its socket. Until it is let in, only procedures declared `before_auth`
pass. The steps of a scheme are procedures in a module of their own (auth_polkit, ...): a class derived from
SessionPart that is listed in `DaemonDriver.parts`. Each step begins with `step_of`, which refuses who is in already or
has another scheme; the last one ends with `Client.let_in(identity)`, to which it adds what it found out, and any
failure is raised as one of the Auth... errors: the client stays outside and may try again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from pyvirtd.api.types import Caller
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.daemon.client import Client
from pyvirtd.errors import AuthFailed


class AuthType(IntEnum):
    """protocol: remote_auth_type."""

    NONE = 0
    SASL = 1
    POLKIT = 2


def needs_no_step(client: Client) -> bool:
    """Whether a client is let in as it connects: nothing is asked, or polkit would have to ask about root.

    Administrators are root or the daemon's own user; nobody else becomes one.
    """
    ours = client.identity.uid in (0, os.geteuid())
    return ours if client.admin else client.auth == "none" or (client.auth == "polkit" and ours)


def remaining(client: Client) -> AuthType:
    """What a client has to do before it is let in, for auth_list."""
    return AuthType.NONE if client.authenticated else AuthType[client.auth.upper()]


@contextmanager
def step_of(caller: Caller, scheme: AuthType) -> Iterator[Client]:
    """The client, for one step of a scheme; no second one runs beside it. Raises AuthFailed where it is not due."""
    assert isinstance(caller, Client)
    if remaining(caller) is not scheme or caller.authenticating:
        raise AuthFailed("authentication failed", domain=From.RPC)
    caller.authenticating = True
    try:
        yield caller
    finally:
        caller.authenticating = False
