"""One guest's QMP connection: commands with a deadline, events in order to one consumer.

Commands may overlap; each waits for its own answer. Foreign errors become libvirt's here and nowhere else: a refusal
by QEMU is "unable to execute QEMU command", a closed monitor is "domain is not running", a silent one a timeout.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, EventListener, ExecInterruptedError, ExecuteError, QMPClient, StateError
from qemu.qmp.message import Message
from qemu.qmp.protocol import Runstate

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import InternalError, OperationInvalid, OperationTimeout, VirtError

log = logging.getLogger(__name__)

COMMAND_S = 30.0  # a healthy QEMU answers in milliseconds; a blocked main loop is reported, not waited for
CONNECT_S = 30.0

QUESTIONS = ("query-", "qom-get", "qom-list")  # commands that change nothing

EventHandler = Callable[[dict[str, Any]], Awaitable[None]]


class CommandRefused(InternalError):
    """QEMU answered with an error; `qmp_class` and `description` are its own words."""

    domain = From.QEMU

    def __init__(self, command: str, qmp_class: str, description: str) -> None:
        super().__init__(f"unable to execute QEMU command '{command}': {description}")
        self.qmp_class = qmp_class
        self.description = description


class MonitorClosed(OperationInvalid):
    """The guest's QEMU is gone or going."""

    domain = From.QEMU

    def __init__(self) -> None:
        super().__init__("domain is not running")


class QuietClient(QMPClient):
    """Without the library's debugging log, which turns every message into text again, read by somebody or not."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.logger.disabled = True  # a guest's end is no error, and what is one our exceptions tell

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    def _cb_outbound(self, msg: Message) -> Message:
        return msg


class Monitor:
    """A connected monitor. `closed` is set when QEMU or the connection ended.

    `changes` grows with each command that may change something and with each event: who keeps an answer of QEMU's
    asks again once it grew.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._client = QuietClient(name)
        self._listener = EventListener()
        self._client.register_listener(self._listener)
        self._tasks: list[asyncio.Task[None]] = []
        self.closed = asyncio.Event()
        self.raw_listeners: list[Callable[[dict[str, Any]], None]] = []
        self.changes = 0
        self._quiet = asyncio.Event()  # every event that came was handled
        self._pending: dict[object, float] = {}  # commands without an answer yet, by the loop's time
        self._passing = asyncio.Lock()  # from a descriptor to the command that takes it

    @property
    def busy_since(self) -> float | None:
        """When the oldest command that waits for its answer was sent, by the loop's time; None if none does."""
        return next(iter(self._pending.values()), None)

    async def connect(self, path: Path, timeout: float = CONNECT_S) -> None:
        """Connect and negotiate. Raises InternalError."""
        try:
            async with asyncio.timeout(timeout):
                await self._client.connect(str(path))
        except TimeoutError:
            raise InternalError(f"the monitor of '{self._name}' does not answer", domain=From.QEMU) from None
        except (ConnectError, OSError) as exc:
            raise InternalError(f"failed to connect to monitor socket: {exc}", domain=From.QEMU) from exc

    def start(self, on_event: EventHandler) -> None:
        """Hand events to `on_event`, one after the other, and watch for the end."""
        self._tasks = [
            asyncio.create_task(self._events(on_event), name=f"events of {self._name}"),
            asyncio.create_task(self._watch(), name=f"monitor of {self._name}"),
        ]

    async def _events(self, on_event: EventHandler) -> None:
        while True:
            if self._listener.empty():
                self._quiet.set()
            message = dict(await self._listener.get())
            self._quiet.clear()
            self.changes += 1
            for listener in list(self.raw_listeners):
                listener(message)
            try:
                await on_event(message)
            except VirtError as exc:
                log.warning("%s: event %s: %s", self._name, message.get("event"), exc)
            except Exception:  # one event must not end the guest's whole stream of them
                log.exception("%s: event %s", self._name, message.get("event"))

    async def _watch(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        self.closed.set()

    async def execute(self, command: str, arguments: dict[str, Any] | None = None, timeout: float = COMMAND_S) -> Any:
        """The command's return value. Raises CommandRefused, MonitorClosed, OperationTimeout."""
        asked = object()
        self._pending[asked] = asyncio.get_running_loop().time()
        if not command.startswith(QUESTIONS):
            self.changes += 1
        try:
            async with asyncio.timeout(timeout):
                return await self._client.execute_msg(self._client.make_execute_msg(command, arguments))
        except ExecuteError as exc:
            raise CommandRefused(command, exc.error_class, str(exc)) from exc
        except (ExecInterruptedError, StateError) as exc:
            raise MonitorClosed from exc
        except TimeoutError:
            raise OperationTimeout(f"the guest's QEMU did not answer '{command}'", domain=From.QEMU) from None
        finally:
            del self._pending[asked]

    async def raw(self, text: str, fd: int | None = None, timeout: float = COMMAND_S) -> dict[str, Any]:
        """The full answer to a client's own JSON command, errors included.

        The command is an object with an "id" of its own, and one that QEMU's parser takes: to any other QEMU answers
        without the id, which is the end of the connection.
        """
        try:
            async with asyncio.timeout(timeout):
                if fd is None:
                    return await self._raw(text)
                async with self._passing:
                    self.send_fd(fd)
                    return await self._raw(text)
        except TimeoutError:
            raise OperationTimeout("the guest's QEMU did not answer", domain=From.QEMU) from None
        except (ExecInterruptedError, StateError, OSError) as exc:
            raise MonitorClosed from exc

    async def _raw(self, text: str) -> dict[str, Any]:
        self.changes += 1
        return dict(await self._client._raw(text.encode(), assign_id=False))

    def send_fd(self, fd: int) -> None:
        """Pass a descriptor beside the next command; the caller keeps its own. Raises MonitorClosed."""
        try:
            self._client.send_fd_scm(fd)
        except (StateError, OSError) as exc:
            raise MonitorClosed from exc

    async def execute_with_fd(self, command: str, arguments: dict[str, Any], fd: int) -> Any:
        """Execute a command that takes a descriptor; the caller keeps its own."""
        async with self._passing:
            self.send_fd(fd)
            return await self.execute(command, arguments)

    async def pass_fd(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor under a name."""
        await self.execute_with_fd("getfd", {"fdname": name}, fd)

    async def drain(self, timeout: float = 0.5) -> None:
        """QEMU is gone: wait until its last events were handled."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.closed.wait()
                await asyncio.sleep(0)  # who waits for an event gets the one that has just come
                await self._quiet.wait()

    async def close(self) -> None:
        """Disconnect; the guest is left as it is."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
        with suppress(Exception):  # an orderly or a broken end is the same to us
            async with asyncio.timeout(5):
                await self._client.disconnect()
        self.closed.set()
