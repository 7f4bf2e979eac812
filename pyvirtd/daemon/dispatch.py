"""From a packet to a driver's method and back: the gates, in order, and the one place that makes error replies.

header -> authenticated? -> decode -> connection open? -> read-only class -> implemented? -> flags -> access ->
objects -> method -> list filter -> encode. A handler that is a plain function runs here and now; an `async` one gets a
task that outlives its client, because half a change is worse than a late reply.
"""

import logging
import time
from typing import TYPE_CHECKING, Any

from pyvirtd.api.rpc import PROCEDURES, VERSION, Files, Procedure, Shape, WithFiles, check_flags
from pyvirtd.api.types import Caller, Consent, Stream
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.driver import Handler
from pyvirtd.daemon.call_log import changes, log_call
from pyvirtd.daemon.faults import client_error
from pyvirtd.daemon.permissions import Petition
from pyvirtd.daemon.streams import ClientStream
from pyvirtd.errors import InternalError, NoSupport, OperationDenied, RpcError, VirtError
from pyvirtd.util.threads import close_fds
from pyvirtd.wire.packet import FDS_MAX, FRAME_MAX, HEADER, Packet, PacketType, Status
from pyvirtd.wire.xdr import XdrError

if TYPE_CHECKING:
    from pyvirtd.daemon.client import Client

log = logging.getLogger(__name__)

CALLS = frozenset((int(PacketType.CALL), int(PacketType.CALL_WITH_FDS)))
OK = int(Status.OK)
NO_FILES: list[int] = []
REPLY_MAX = FRAME_MAX - HEADER.size - 4  # bytes of a result; the last word is the count of descriptors


class _Call:
    """One call on its way: what the gates found out."""

    __slots__ = (
        "arguments",
        "client",
        "consent",
        "files",
        "handler",
        "packet",
        "procedure",
        "since",
        "stream",
        "values",
        "wanted",
    )

    def __init__(self, client: "Client", packet: Packet, procedure: Procedure, files: list[int] | None) -> None:
        self.client = client
        self.packet = packet
        self.procedure = procedure
        self.files = Files(files) if files else None
        self.stream: ClientStream | None = None
        self.consent = Consent()
        self.since = time.monotonic()
        self.handler: Handler | None = None
        self.values: list[Any] = []  # from the wire
        self.arguments: list[Any] = []  # of the method
        self.wanted = 0  # the count argument of a shaped result

    def close_files(self) -> None:
        """Close the descriptors that the method did not take."""
        if self.files:
            close_fds(self.files.take())


def call(client: "Client", packet: Packet, fds: list[int] | None) -> None:
    """Answer one call, now or from a task. Never raises."""
    try:
        procedure, handler = _checked(client, packet, fds)
    except VirtError as exc:
        close_fds(fds or ())
        client.reply_error(packet, exc)
        return
    state = _Call(client, packet, procedure, fds)
    try:
        handler = _prepare(state, handler)
        if client.rules is not None and not (petition := _petition(state, handler)).settled():
            work = _run_by_rules(state, handler, petition)
        else:
            state.arguments = _arguments(state)
            if not handler.is_async:
                _reply(state, handler.method(*state.arguments))
                return
            work = _run(state, handler)
    except Exception as exc:
        _fail(state, exc)
        return
    client.in_flight += 1
    client.server.host.tasks.start(work, procedure.name)


async def _run(state: _Call, handler: Handler) -> None:
    try:
        _reply(state, await handler.method(*state.arguments))
    except Exception as exc:
        _fail(state, exc)
    finally:
        state.close_files()
        state.client.call_done()


async def _run_by_rules(state: _Call, handler: Handler, petition: Petition) -> None:
    """Run a call once the rules allow it, and give the client of its result what they allow."""
    try:
        await petition.plead()
        while not (now := _petition(state, handler)).same_as(petition):  # the world went on while we waited
            petition = now
            await petition.plead()
        if state.client.gone:
            return
        state.consent = petition
        state.arguments = _arguments(state)
        try:
            result = handler.method(*state.arguments)
            if handler.is_async:
                result = await result
        except VirtError as exc:
            raise await petition.failure(exc) from exc
        _reply(state, await petition.result(result))
    except Exception as exc:
        _fail(state, exc)
    finally:
        state.close_files()
        state.client.call_done()


def _checked(client: "Client", packet: Packet, fds: list[int] | None) -> tuple[Procedure, Handler | None]:
    """The procedure that the header names, and who answers it. Raises RpcError for a header that is no call of ours."""
    key = packet.program, packet.procedure
    handler = client.handlers.get(key)
    if packet.version != VERSION or (handler is None and packet.program not in client.server.programs(client)):
        raise RpcError(f"Cannot find program {packet.program} version {packet.version}")
    if packet.type not in CALLS:
        raise RpcError(f"Unexpected message type {packet.type}")
    if packet.status != OK:
        raise RpcError(f"Unexpected message status {packet.status}")
    if fds is None:
        raise RpcError("fewer descriptors came than the call announced")
    procedure = handler.procedure if handler is not None else PROCEDURES.get(key)
    if procedure is None:
        raise RpcError(f"unknown procedure: {packet.procedure}")
    if not client.authenticated and not procedure.before_auth:
        raise RpcError("authentication required")
    return procedure, handler


def _prepare(state: _Call, handler: Handler | None) -> Handler:
    """Decode the arguments and pass every gate; the handler that answers."""
    client, procedure = state.client, state.procedure
    try:
        values = list(procedure.args.decode(state.packet.payload))
    except XdrError as exc:
        raise RpcError(f"Unable to decode message payload: {exc.detail}") from exc
    if handler is None and client.driver is None:
        raise InternalError("hypervisor connection not open", domain=From.RPC)
    if procedure.wanted_index >= 0:
        state.wanted = values.pop(procedure.wanted_index)
        _check_wanted(procedure, state.wanted)
    if client.read_only:
        _check_read_only(procedure, values)
    if handler is None:
        raise not_supported(procedure)
    state.handler = handler
    if procedure.flags_index >= 0 and values[procedure.flags_index]:
        check_flags(values[procedure.flags_index], handler.accepted_flags, handler.function)
    state.values = values
    return handler


def _resolved(state: _Call) -> tuple[list[Any], list[VirtError]]:
    """The arguments with live objects in place of references, and the errors of those that there are not."""
    client, values = state.client, list(state.values)
    missing: list[VirtError] = []
    for index in state.procedure.ref_params:
        ref = values[index]
        if ref is not None:
            driver = client.resolvers.get(type(ref))
            if driver is None:
                raise not_supported(state.procedure)
            try:
                values[index] = driver.resolve(ref)
            except VirtError as exc:
                missing.append(exc)
    return values, missing


def _petition(state: _Call, handler: Handler) -> Petition:
    return Petition(state.client, handler, *_resolved(state))


def _arguments(state: _Call) -> list[Any]:
    """What the method is called with. Raises the error of an object that there is not."""
    values, missing = _resolved(state) if state.procedure.ref_params else (state.values, None)
    if missing:
        raise missing[0]
    return _with_injected(state, values) if state.procedure.injects else values


def not_supported(procedure: Procedure) -> NoSupport:
    """The error of a procedure that no driver of the connection implements."""
    return NoSupport(f"vir{procedure.api}", domain=procedure.error_domain)


def _check_wanted(procedure: Procedure, wanted: int) -> None:
    shaped = procedure.shaped
    if shaped is None or shaped.shape is Shape.LISTED:  # a yes or no
        return
    name = procedure.args_hints[procedure.wanted_index][0]
    if wanted < 0:
        raise RpcError(f"{name} must be non-negative")
    if wanted > shaped.limit:
        raise RpcError(f"{name} > {shaped.limit}")


def _check_read_only(procedure: Procedure, values: list[Any]) -> None:
    if not procedure.read_only:
        raise OperationDenied(f"read only access prevents vir{procedure.api}", domain=procedure.error_domain)
    denied = procedure.ro_deny
    if denied is not None and denied.applies(dict(zip(procedure.wire_params, values, strict=True))):
        text = f"read only access prevents vir{procedure.api}"
        if denied.permission.endswith(":read_secure"):
            text = f"vir{procedure.api} with secure flag"
        raise OperationDenied(text, domain=procedure.error_domain)


def _with_injected(state: _Call, values: list[Any]) -> list[Any]:
    """The method's arguments: those from the wire, and what the daemon provides."""
    wire = iter(values)
    arguments: list[Any] = []
    for kind in state.procedure.injected:
        if kind is None:
            arguments.append(next(wire))
        elif kind is Caller:
            arguments.append(state.client)
        elif kind is Consent:
            arguments.append(state.consent)
        elif kind is Files:
            arguments.append(state.files if state.files is not None else Files())
        else:
            assert kind is Stream
            arguments.append(_open_stream(state, values))
    return arguments


def _open_stream(state: _Call, values: list[Any]) -> ClientStream:
    procedure = state.procedure
    sparse = bool(procedure.sparse_flag and values[procedure.flags_index] & procedure.sparse_flag)
    stream = ClientStream(state.client, state.packet, sparse=sparse)
    if stream.key in state.client.streams:
        raise RpcError("the serial of a stream that is open")
    state.client.streams[stream.key] = stream
    state.stream = stream
    return stream


def _reply(state: _Call, result: Any) -> None:
    """Shape and encode the result, and send it."""
    client = state.client
    files = NO_FILES
    if type(result) is WithFiles:
        result, files = result.value, result.files
    try:
        try:
            payload = _encode(state, result)
        except XdrError as exc:
            raise RpcError(f"Unable to encode message payload: {exc.detail}") from exc
        if len(payload) > REPLY_MAX or len(files) > FDS_MAX:
            raise RpcError(f"Unable to encode message payload: {len(payload)} bytes, {len(files)} descriptors")
    except Exception:
        close_fds(files)
        raise
    client.reply(state.packet, payload, files)
    if state.files:
        state.close_files()
    if state.stream is not None:
        state.stream.start()
    if changes(state.procedure):
        _log_change(state, result, None)
    if log.isEnabledFor(logging.DEBUG):
        log.debug("conn=%d %s%s %.1f ms", client.number, state.procedure.name, _subject(state), _elapsed_ms(state))


def _encode(state: _Call, result: Any) -> bytes:
    procedure = state.procedure
    if procedure.shaped is not None:
        return procedure.reply.encode_checked(*_shape(procedure.shaped.shape, result, state.wanted))
    if not procedure.reply_hints:
        return b""
    return procedure.reply.encode_checked(result)


def _shape(shape: Shape, items: list[Any], wanted: int) -> tuple[Any, ...]:
    """The reply's fields of a plain list; see pyvirtd.api.rpc.Shaped."""
    if shape is Shape.LISTED:
        return (items if wanted else [], len(items))
    if shape is Shape.COUNT:
        return (len(items),)
    if shape is Shape.IDS:
        return ([item.id for item in items[:wanted]],)
    if shape is Shape.NAMES:
        return ([item.listed_name for item in items[:wanted]],)
    return (items[:wanted], len(items[:wanted]) if wanted else len(items))


def _fail(state: _Call, exc: Exception) -> None:
    """Turn any failure into an error reply; one that is no VirtError is our fault and goes to the log in full."""
    state.close_files()
    if state.stream is not None:
        state.stream.lost()
    client, name = state.client, state.procedure.name
    error = client_error(exc, f"conn={client.number} {name}", name=name)
    if error.domain is From.NONE and state.handler is not None:
        error.domain = state.handler.driver.error_domain
    level = logging.DEBUG if isinstance(exc, NoSupport) else logging.INFO
    if log.isEnabledFor(level):
        took = _elapsed_ms(state)
        log.log(
            level, "conn=%d %s%s failed after %.1f ms: %s", client.number, name, _subject(state), took, error.message
        )
    if state.handler is not None and changes(state.procedure):
        _log_change(state, None, error)
    client.reply_error(state.packet, error)


def _log_change(state: _Call, result: Any, error: VirtError | None) -> None:
    """Leave an entry of the call, about the object it names or, where it brings one, its result."""
    named = (item for item in (*state.arguments, result) if isinstance(getattr(item, "name", None), str))
    client, took = state.client, _elapsed_ms(state)
    log_call(client.number, client.identity, state.procedure.name, next(named, None), error, took)


def _subject(state: _Call) -> str:
    for value in state.arguments:
        name = getattr(value, "name", None)
        if isinstance(name, str):
            return f" {name}"
    return ""


def _elapsed_ms(state: _Call) -> float:
    return (time.monotonic() - state.since) * 1000
