"""What a driver is, and the host that it is given.

A driver names its URI schemes and its parts; each part implements procedures by overriding declarations. From the
parts a driver's table of handlers is made once; the dispatcher looks a call up in the table of the connection's
driver, then in those of the secondary drivers.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pyvirtd.api.rpc import Part, Procedure
from pyvirtd.config import DaemonConfig, QemuConfig
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.audit import Audit
from pyvirtd.core.events import EventBus
from pyvirtd.core.hooks import Hooks
from pyvirtd.core.host import HostInfo
from pyvirtd.errors import InternalError
from pyvirtd.model.capabilities import SecurityModelDescription
from pyvirtd.paths import Paths

log = logging.getLogger(__name__)

PartT = TypeVar("PartT", bound=Part)


class Tasks:
    """Background tasks with an owner: failures are logged, `close` ends what is left."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work`; it is kept until it ends."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel and await all."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Host:
    """What the daemon gives to every driver."""

    paths: Paths
    privileged: bool
    daemon_config: DaemonConfig
    qemu_config: QemuConfig
    hooks: Hooks
    info: HostInfo = field(default_factory=HostInfo)
    audit: Audit = field(default_factory=Audit)
    events: EventBus = field(default_factory=EventBus)
    tasks: Tasks = field(default_factory=Tasks)
    drivers: "list[Driver]" = field(default_factory=list)
    inhibit: set[object] = field(default_factory=set)  # running guests: the daemon does not end when idle


@dataclass(slots=True)
class Handler:
    """A driver's implementation of one procedure."""

    procedure: Procedure
    method: Callable[..., Any]
    is_async: bool
    accepted_flags: int
    function: str
    driver: "Driver"


class Driver:
    """Base of all drivers."""

    name: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]] = ()  # empty: a secondary driver, reached through every connection
    system: ClassVar[bool] = True
    session: ClassVar[bool] = True
    parts: ClassVar[tuple[type[Part], ...]] = ()
    error_domain: ClassVar[From] = From.NONE
    access_name: ClassVar[str] = ""  # what access rules call a connection to it; the driver's own name where empty
    function_prefix: ClassVar[str] = ""  # of the names of its functions; the driver's own name where empty
    objects: ClassVar[tuple[type, ...]] = ()  # classes of the references that `resolve` takes
    features: ClassVar[frozenset[int]] = frozenset()  # protocol: VIR_DRV_FEATURE_... beyond the connection's own

    def __init__(self, host: Host) -> None:
        self.host = host
        self.handlers: dict[tuple[int, int], Handler] = {}
        self._parts: dict[type[Part], Part] = {}
        for part_class in self.parts:
            self._parts[part_class] = part = part_class(self)  # type: ignore[call-arg]
            self._add(part)

    def _add(self, part: Part) -> None:
        for procedure in {p.name: p for base in type(part).__mro__ for p in _declared(base)}.values():
            if not type(part).implements(procedure):
                continue
            method = getattr(part, procedure.name)
            flags = getattr(method, "accepted_flags", 0)
            function = getattr(method, "function_name", None) or self.function_name(procedure)
            handler = Handler(procedure, method, inspect.iscoroutinefunction(method), flags, function, self)
            self.handlers[procedure.program.number, procedure.number] = handler

    def function_name(self, procedure: Procedure) -> str:
        """libvirt's name of the driver's function: the driver's name before the API's, said once."""
        prefix, api = self.function_prefix or self.name, procedure.api
        return prefix + (api[len(prefix) :] if api.lower().startswith(prefix) else api)

    def part(self, kind: type[PartT]) -> PartT:
        """The driver's part of that class, whose methods are a client's calls."""
        part = self._parts[kind]
        assert isinstance(part, kind)
        return part

    @property
    def connect_driver(self) -> str:
        """What access rules call a connection to this driver."""
        return self.access_name or self.name

    async def start(self) -> None:
        """Load state from disk and adopt what runs."""

    async def reload(self) -> None:
        """SIGHUP: read definitions again."""

    async def autostart(self) -> None:
        """Start what is marked so; called once all drivers run."""

    async def host_shutdown(self) -> None:
        """The host shuts down, or the user's session ends: care for what runs; the daemon then ends."""

    async def stop(self) -> None:
        """The daemon ends; guests run on."""

    def security_models(self) -> tuple[SecurityModelDescription, ...]:
        """How guests are confined, the first model first."""
        return ()

    @property
    def uri_path(self) -> str:
        """The path of this driver's URIs as this daemon runs it."""
        return "/system" if self.host.privileged else "/session"

    def serves_path(self, path: str) -> bool:
        """Whether a URI with this path is for this driver as this daemon runs it."""
        return path == self.uri_path

    def resolve(self, ref: Any) -> Any:
        """The live object of a client's reference. Raises the family's not-found error."""
        raise InternalError(f"the {self.name} driver has no objects of type {type(ref).__name__}")


def _declared(base: type) -> list[Procedure]:
    procedures = base.__dict__.get("procedures")
    return list(procedures.values()) if procedures else []
