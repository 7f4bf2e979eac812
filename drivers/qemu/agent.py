"""One guest's agent: commands over the unix socket of its channel, one at a time, each with a deadline.

https://www.qemu.org/docs/master/interop/qemu-ga-ref.html. What answers is the guest's own program, which may be old,
broken or hostile: late answers are told from ours by guest-sync-delimited, an answer is bounded in size and in
structure, nothing is read while no command waits, and after any trouble the connection is made anew.
"""

import asyncio
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from pyvirtd.constants.domain import DomainAgentResponseTimeoutValues
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.constants.qemu import DomainQemuAgentCommandTimeoutValues
from pyvirtd.errors import AgentUnresponsive, InternalError, VirtError

BLOCK = int(DomainAgentResponseTimeoutValues.BLOCK)
DEFAULT = int(DomainAgentResponseTimeoutValues.DEFAULT)
# libvirt's waits: for an answer where the caller has no wish of its own, and for a guest to act on guest-shutdown.
DEFAULT_S = 5.0
SHUTDOWN_S = float(DomainQemuAgentCommandTimeoutValues.SHUTDOWN)
TURN_S = 30.0  # for the command before ours to end
REPLY_MAX = 10 << 20
PARTS_MAX = 400_000  # values in a reply: each costs some sixty bytes of memory, however short its text
STALE_MAX = 1 << 20  # what an agent may have said that nobody asked for
LINE_COST = 256  # that reading a line costs beside its bytes, counted as bytes
CHUNK = 1 << 16
SHOWN_MAX = 1024
RETRY_S = 0.05
DELIMITER = b"\xff"  # never part of JSON in UTF-8: resets the agent's parser, and marks the answer to a sync
SHUTDOWN_MODES = ("powerdown", "reboot", "halt")


class AgentUnsynced(VirtError):
    """The agent answers, but not what it was asked."""

    code = ErrorNumber.AGENT_UNSYNCED
    domain = From.QEMU


class AgentCommandRefused(InternalError):
    """The agent answered with an error; `qga_class` and `description` are its own words."""

    domain = From.QEMU

    def __init__(self, command: str, qga_class: str, description: str) -> None:
        super().__init__(f"unable to execute QEMU agent command '{command}': {description}")
        self.qga_class = qga_class
        self.description = description


class _Gone(Exception):
    """The connection ended, from either side: no error yet, for a guest that shuts down lets go, too."""


class Agent:
    """The agent behind a unix socket; connects when first used. `response_timeout` is for commands without their own.

    Timeouts are libvirt's numbers: BLOCK (-2) waits until the agent answers or goes, DEFAULT (-1) is five seconds,
    0 only sends, and any other is in seconds.
    """

    def __init__(self, path: str | os.PathLike[str], response_timeout: int = BLOCK) -> None:
        self.path = os.fspath(path)
        self.response_timeout = response_timeout
        self._turn = asyncio.Lock()
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False

    async def execute(self, command: str, arguments: dict[str, Any] | None = None, timeout: int | None = None) -> Any:
        """The command's return value, of whatever type the guest chose. None for `timeout`: response_timeout.

        Raises AgentCommandRefused, AgentUnresponsive, AgentUnsynced, and InternalError for what is no answer.
        """
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        return (await self._exchange(command, message, timeout))["return"]

    async def raw(self, text: str, timeout: int | None = None) -> str:
        """The agent's whole answer to a client's own JSON, as compact JSON. Raises as execute() does."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise InternalError(f"cannot parse json {_shown(text)}: {exc}", domain=From.QEMU) from None
        command = message.get("execute") if isinstance(message, dict) else None
        name = command if isinstance(command, str) else "<unknown>"
        return _compact(await self._exchange(name, message, timeout))

    async def shutdown(self, mode: str = "powerdown", timeout_s: float = SHUTDOWN_S) -> None:
        """Ask the guest to power down, reboot or halt; returns when it goes: there is no answer but an error.

        The guest goes when the agent does, so call close() when QEMU reports the guest's shutdown or reset.
        """
        assert mode in SHUTDOWN_MODES, mode
        message = {"execute": "guest-shutdown", "arguments": {"mode": mode}}
        async with self._my_turn():
            await self._ready(DEFAULT_S)
            with suppress(_Gone):
                async with _deadline(timeout_s):
                    await self._send(_compact(message).encode() + b"\n")
                    _check(await self._reply(), "guest-shutdown")

    async def close(self) -> None:
        """Let go of the agent; a command that waits fails. For good."""
        self._closed = True
        if self._waiting is not None:
            if not self._waiting.done():
                self._waiting.set_exception(_Gone())
        elif not self._turn.locked():
            self._disconnect()

    # --- exchange --------------------------------------------------------------------------------------------

    async def _exchange(self, name: str, message: Any, timeout: int | None) -> dict[str, Any]:
        wanted = self.response_timeout if timeout is None else timeout
        seconds = None if wanted == BLOCK else DEFAULT_S if wanted == DEFAULT else float(max(wanted, 0))
        async with self._my_turn():
            await self._ready(min(seconds or DEFAULT_S, DEFAULT_S))
            try:
                async with _deadline(seconds):
                    await self._send(_compact(message).encode() + b"\n")
                    return _check(await self._reply(), name)
            except _Gone:
                raise _disappeared() from None

    @asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        """Have the agent for oneself. Any failure but the agent's own refusal ends the connection."""
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError:
            raise AgentUnresponsive("another command waits for the guest agent", domain=From.QEMU) from None
        keep = False
        try:
            yield
            keep = True
        except AgentCommandRefused:
            keep = True
            raise
        finally:
            if not keep or self._closed:
                self._disconnect()
            self._turn.release()

    async def _ready(self, seconds: float) -> None:
        """Be connected, with nothing to come but the answer to the next command."""
        if self._is_quiet():
            return
        self._disconnect()
        try:
            async with _deadline(seconds):
                await self._connect()
            await self._synchronize(seconds)
        except _Gone:
            raise _disappeared() from None

    async def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        while not self._closed:
            try:
                self._socket.connect(self.path)
            except BlockingIOError:  # more wait to be accepted than QEMU has room for
                await asyncio.sleep(RETRY_S)
            except OSError as exc:
                reason = os.strerror(exc.errno or 0)
                raise AgentUnresponsive(f"failed to connect to agent socket: {reason}", domain=From.QEMU) from None
            else:
                return
        raise AgentUnresponsive("QEMU guest agent is not connected", domain=From.QEMU)

    async def _synchronize(self, seconds: float) -> None:
        """Skip what the agent still says to those before us. Raises AgentUnsynced where it never answers us."""
        number = secrets.randbelow(1 << 53)  # exact in every reader of JSON
        message = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        said: object = None
        try:
            async with asyncio.timeout(seconds):
                await self._send(DELIMITER + _compact(message).encode() + b"\n")
                budget = STALE_MAX
                while True:
                    line = await self._line(budget)
                    budget -= len(line) + LINE_COST
                    with suppress(InternalError):
                        said = _parse(line.rpartition(DELIMITER)[2]).get("return")
                    if type(said) is int and said == number:
                        return
        except TimeoutError:
            if type(said) is int:
                raise AgentUnsynced(f"Guest agent returned ID: {said} instead of {number}") from None
            raise _not_available() from None

    async def _reply(self) -> dict[str, Any]:
        """The next answer."""
        budget = REPLY_MAX
        while True:
            line = await self._line(budget)
            budget -= len(line) + LINE_COST
            reply = _parse(line.lstrip(DELIMITER))
            if "event" not in reply:
                return reply

    # --- bytes -----------------------------------------------------------------------------------------------

    def _is_quiet(self) -> bool:
        """Whether we are connected and the agent has said nothing unasked."""
        if self._socket is None or self._buffer:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    async def _line(self, limit: int) -> bytes:
        """The next line without its end. Raises InternalError when it is longer than `limit`."""
        searched, end = 0, -1
        while limit > 0 and searched <= limit and (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            self._buffer += await self._receive()
        if end < 0:
            raise InternalError("the guest agent's reply is too long", domain=From.QEMU)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    async def _receive(self) -> bytes:
        while True:
            sock = self._open_socket()
            try:
                data = sock.recv(CHUNK)
            except BlockingIOError:
                await self._wait(sock, reading=True)
            except OSError:
                raise _Gone from None
            else:
                if not data:
                    raise _Gone
                await asyncio.sleep(0)  # a guest that never stops talking does not keep the loop to itself
                return data

    async def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            sock = self._open_socket()
            try:
                rest = rest[sock.send(rest) :]
            except BlockingIOError:
                await self._wait(sock, reading=False)
            except OSError:
                raise _Gone from None

    def _open_socket(self) -> socket.socket:
        if self._closed or self._socket is None:
            raise _Gone
        return self._socket

    async def _wait(self, sock: socket.socket, *, reading: bool) -> None:
        """Wait until the socket can be read or written; close() ends the wait."""
        loop = asyncio.get_running_loop()
        self._waiting = ready = loop.create_future()
        add, remove = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
        add(sock, _wake, ready)
        try:
            await ready
        finally:
            remove(sock)
            self._waiting = None

    def _disconnect(self) -> None:
        self._buffer.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@asynccontextmanager
async def _deadline(seconds: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise _not_available() from None


def _not_available() -> AgentUnresponsive:
    return AgentUnresponsive("Guest agent not available for now", domain=From.QEMU)


def _disappeared() -> AgentUnresponsive:
    return AgentUnresponsive("Guest agent disappeared while executing command", domain=From.QEMU)


# --- what the guest says --------------------------------------------------------------------------------------


def _parse(line: bytes) -> dict[str, Any]:
    """A line as a JSON object. Raises InternalError."""
    if sum(map(line.count, (b",", b"[", b"{"))) > PARTS_MAX:
        raise InternalError("the guest agent's reply has too many parts", domain=From.QEMU)
    try:
        reply = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise InternalError(f"cannot parse json {_shown(line)}: {exc}", domain=From.QEMU) from None
    if not isinstance(reply, dict):
        raise InternalError(f"Parsed JSON reply '{_shown(line)}' isn't an object", domain=From.QEMU)
    return reply


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _check(reply: dict[str, Any], command: str) -> dict[str, Any]:
    """The reply, when it is a success."""
    if "error" in reply:
        error = reply["error"] if isinstance(reply["error"], dict) else {}
        qga_class, description = error.get("class"), error.get("desc")
        raise AgentCommandRefused(
            command,
            qga_class if isinstance(qga_class, str) else "",
            _shown(description) if isinstance(description, str) and description else "unknown QEMU command error",
        )
    if "return" not in reply:
        raise InternalError(f"unable to execute QEMU agent command '{command}'", domain=From.QEMU)
    return reply


def _shown(text: str | bytes) -> str:
    """The guest's words, fit for a message: bounded, and nothing that a terminal or a log would act on."""
    words = text[:SHOWN_MAX].decode("utf-8", "replace") if isinstance(text, bytes) else text[:SHOWN_MAX]
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in words)


def _compact(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(value, separators=(",", ":"))
    return text
