"""Who may change a domain now: one normal job at a time, beside it at most one long job, and agent jobs apart.

Reads take no job. A long job (start, save, dump, migration, backup) names the kinds of normal job that it lets
through. Waiting is first come, first served among those that fit, for at most WAIT_S seconds; the error then names
the holder. Releasing never awaits, so it is safe in a cancelled task's `finally`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, Flag, auto

from pyvirtd.core.job_stats import JobStats
from pyvirtd.errors import OperationTimeout, VirtError

WAIT_S = 30.0  # as libvirt's wait for a domain's state change lock


class Job(Flag):
    """Kinds of normal job."""

    QUERY = auto()
    DESTROY = auto()
    SUSPEND = auto()
    MODIFY = auto()
    ABORT = auto()
    NONE = 0


class LongJob(Enum):
    """Kinds of long job; the value is the word of the status file."""

    START = "start"
    SAVE = "save"
    DUMP = "dump"
    SNAPSHOT = "snapshot"
    BACKUP = "backup"
    MIGRATION_OUT = "migration out"
    MIGRATION_IN = "migration in"


@dataclass(slots=True, eq=False)
class Held:
    """A job that runs: for which call, since when (monotonic seconds)."""

    owner: str
    since: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.owner} for {time.monotonic() - self.since:.0f} s"


@dataclass(slots=True, eq=False)
class HeldLong(Held):
    """A long job that runs. One that tells how far it is has `stats`, which `refresh` brings up to date.

    `aborted` is set when a client wants it to end; whoever runs it must look.
    """

    kind: LongJob = field(kw_only=True)
    stats: JobStats | None = None
    refresh: Callable[[], Awaitable[None]] | None = None
    aborted: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Waiter:
    kind: Job | LongJob
    owner: str
    ready: asyncio.Future[Held]


class Jobs:
    """The jobs of one domain."""

    def __init__(self) -> None:
        self.normal: Held | None = None
        self.long_job: HeldLong | None = None
        self.completed: JobStats | None = None  # of the last long job that was done
        self._allowed = Job.NONE
        self._waiting: list[_Waiter] = []  # few, and mostly none: an empty deque takes ten times the memory

    def _fits(self, kind: Job | LongJob) -> bool:
        if isinstance(kind, LongJob):
            return self.long_job is None and self.normal is None
        if self.normal is not None:
            return False
        return self.long_job is None or bool(kind & self._allowed)

    def _take(self, kind: Job | LongJob, owner: str) -> Held:
        if isinstance(kind, LongJob):
            self.long_job = HeldLong(owner, kind=kind)
            self._allowed = Job.NONE
            return self.long_job
        self.normal = Held(owner)
        return self.normal

    async def _acquire(self, kind: Job | LongJob, owner: str) -> Held:
        if self._fits(kind) and not self._waiting:
            return self._take(kind, owner)
        waiter = _Waiter(kind, owner, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._wake()
        try:
            async with asyncio.timeout(WAIT_S):
                return await waiter.ready
        except TimeoutError:
            raise self._timeout() from None
        except asyncio.CancelledError:
            if waiter.ready.done() and not waiter.ready.cancelled() and not waiter.ready.exception():
                self._release(waiter.ready.result())
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _timeout(self) -> OperationTimeout:
        holder = self.normal or self.long_job
        by = f" (held by monitor={holder})" if holder else ""
        return OperationTimeout(f"cannot acquire state change lock{by}")

    def _release(self, held: Held) -> None:
        if self.normal is held:
            self.normal = None
        elif self.long_job is held:
            self.long_job = None
            self._allowed = Job.NONE
        self._wake()

    def _wake(self) -> None:
        for waiter in list(self._waiting):
            if self._fits(waiter.kind):
                self._waiting.remove(waiter)
                if not waiter.ready.done():
                    waiter.ready.set_result(self._take(waiter.kind, waiter.owner))

    @asynccontextmanager
    async def hold(self, kind: Job, owner: str) -> AsyncIterator[Held]:
        """Hold a normal job. Raises OperationTimeout, or what `fail_waiters` was given."""
        held = await self._acquire(kind, owner)
        try:
            yield held
        finally:
            self._release(held)

    @asynccontextmanager
    async def long(self, kind: LongJob, owner: str, allow: Job = Job.NONE) -> AsyncIterator[HeldLong]:
        """Hold a long job that lets normal jobs of the kinds `allow` run beside it."""
        held = await self._acquire(kind, owner)
        assert isinstance(held, HeldLong)
        self._allowed = allow
        self._wake()
        try:
            yield held
        finally:
            self._release(held)

    @property
    def starting(self) -> bool:
        """Whether a start runs, or waits for its turn."""
        held = self.long_job is not None and self.long_job.kind is LongJob.START
        return held or any(waiter.kind is LongJob.START for waiter in self._waiting)

    def fail_waiters(self, error: VirtError) -> None:
        """The guest is gone: whoever waits for a job fails now, not at its deadline; but for the next start."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if waiter.kind is LongJob.START:
                self._waiting.append(waiter)
            elif not waiter.ready.done():
                waiter.ready.set_exception(error)
        self._wake()
