"""Authentication by SASL: init names the mechanisms, start and step carry the exchange of the one the client chose.

Over plain TCP the mechanism must agree on a security layer of `tcp_min_ssf` bits, and every byte after the reply to
the last step goes through it. Under TLS and on a unix socket no layer is needed.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from pyvirtd.api.limits import AUTH_SASL_DATA_MAX
from pyvirtd.api.session import AuthSASLStartReply, AuthSASLStepReply, SessionPart
from pyvirtd.api.types import Caller
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.daemon.auth import AuthType, step_of
from pyvirtd.daemon.client import Client
from pyvirtd.daemon.sasl_library import SSF_MAX, Outcome, SaslConnection, SaslError, SaslThread
from pyvirtd.daemon.transport import Endpoints, TcpTransport
from pyvirtd.errors import AuthFailed
from pyvirtd.util.wildcards import matches

log = logging.getLogger(__name__)

STEP_S = 60.0  # for one step of a mechanism, which may ask a directory
FAILURES_MAX = 3  # of one connection, which then ends

ResultT = TypeVar("ResultT")


class _Circumstances(NamedTuple):
    """What an exchange depends on beside its mechanism. `strength`: of the protection below, in bits."""

    endpoints: Endpoints | None
    secure: bool
    strength: int
    certificate: str
    min_ssf: int


@dataclass
class _Attempts:
    """Of one client: the exchange that is under way, and how many failed."""

    connection: SaslConnection | None = None
    failures: int = 0


class SaslSession(SessionPart):
    """The steps of the scheme."""

    def __init__(self, driver: object) -> None:
        self._thread = SaslThread()
        self._attempts: WeakKeyDictionary[Client, _Attempts] = WeakKeyDictionary()

    async def auth_sasl_init(self, caller: Caller) -> str:
        with step_of(caller, AuthType.SASL) as client:
            if client not in self._attempts:
                self._attempts[client] = _Attempts()
                client.on_close(lambda: self._forget(client))
            attempts = self._attempts[client]
            if attempts.connection is not None:
                raise self._failed(client, "an exchange is under way")
            transport, name = client.transport, client.identity.x509_dname
            min_ssf = client.server.config.tcp_min_ssf
            around = _Circumstances(transport.endpoints(), transport.secure, transport.strength, name, min_ssf)
            attempts.connection, names = await self._step(client, _begin, around)
            return names

    async def auth_sasl_start(self, mech: str, nil: int, data: bytes, caller: Caller) -> AuthSASLStartReply:
        with step_of(caller, AuthType.SASL) as client:
            connection = self._under_way(client)
            outcome = await self._step(client, connection.start, mech, None if nil else data)
            return AuthSASLStartReply(*self._answer(client, connection, outcome))

    async def auth_sasl_step(self, nil: int, data: bytes, caller: Caller) -> AuthSASLStepReply:
        with step_of(caller, AuthType.SASL) as client:
            connection = self._under_way(client)
            outcome = await self._step(client, connection.step, None if nil else data)
            return AuthSASLStepReply(*self._answer(client, connection, outcome))

    def _forget(self, client: Client) -> None:
        self._attempts.pop(client, None)

    def _under_way(self, client: Client) -> SaslConnection:
        attempts = self._attempts.get(client)
        if attempts is None or attempts.connection is None:
            raise AuthFailed("authentication failed", domain=From.RPC)
        return attempts.connection

    async def _step(self, client: Client, function: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Run a step in the library's thread; meanwhile nothing more is read from the client. Raises AuthFailed."""
        client.hold()
        try:
            async with asyncio.timeout(STEP_S):
                return await self._thread.run(function, *arguments)
        except SaslError as exc:
            raise self._failed(client, str(exc)) from exc
        except TimeoutError as exc:
            raise self._failed(client, f"no answer within {STEP_S:g} s") from exc
        finally:
            client.go_on()

    def _failed(self, client: Client, why: str, *, last: bool = False) -> AuthFailed:
        """The client's error after an exchange that failed, and the `last` one; why is for the log alone."""
        log.warning("conn=%d SASL authentication failed: %s", client.number, why)
        attempts = self._attempts.get(client, _Attempts())  # none of a client that is gone
        attempts.connection = None
        attempts.failures += 1
        if last or attempts.failures >= FAILURES_MAX:
            asyncio.get_running_loop().call_soon(client.transport.close_when_sent)
        return AuthFailed("authentication failed", domain=From.RPC)

    def _answer(self, client: Client, connection: SaslConnection, outcome: Outcome) -> tuple[int, int, bytes]:
        """The reply's fields; the client is in when the exchange is complete. Raises AuthFailed."""
        data = outcome.data
        if data is not None and len(data) > AUTH_SASL_DATA_MAX:
            raise self._failed(client, f"the mechanism wants to send {len(data)} bytes")
        if outcome.complete:
            self._let_in(client, connection)
        return int(outcome.complete), int(data is None), data or b""

    def _let_in(self, client: Client, connection: SaslConnection) -> None:
        config, transport = client.server.config, client.transport
        try:
            name, ssf = connection.user_name, connection.ssf
        except SaslError as exc:
            raise self._failed(client, str(exc)) from exc
        allowed = config.sasl_allowed_username_list
        if allowed is not None and not matches(name, allowed):
            raise self._failed(client, f"sasl_allowed_username_list does not name '{name}'")
        if not transport.secure:
            if ssf < config.tcp_min_ssf:
                raise self._failed(client, f"the security layer has {ssf} bits, {config.tcp_min_ssf} are needed")
            if not client.quiet:  # what came in the clear must not count as the user's
                raise self._failed(client, "more was sent before the security layer was there", last=True)
            assert isinstance(transport, TcpTransport)
            transport.protect_after_next(connection)
        self._forget(client)
        log.info("conn=%d is '%s' by SASL", client.number, name)
        client.let_in(replace(client.identity, sasl_user_name=name))


def _begin(around: _Circumstances) -> tuple[SaslConnection, str]:
    """A new exchange and the mechanisms to choose from. Raises SaslError."""
    connection = SaslConnection(around.endpoints)
    if around.secure:
        connection.require(min_ssf=0, max_ssf=0, plaintext=True)
        if around.strength:
            connection.protected_outside(around.strength)
        if around.certificate:
            connection.known_outside(around.certificate)
    else:
        connection.require(min_ssf=around.min_ssf, max_ssf=SSF_MAX, plaintext=False)
    return connection, connection.mechanisms()
