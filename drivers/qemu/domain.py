"""A QEMU guest in memory: what runs, what QEMU told us of it, and what the daemon is doing with it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from pyvirtd.constants.domain import DomainEventStoppedDetailType, DomainShutoffReason
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.cgroup import Group
from pyvirtd.core.objects import Deferred, DomainObject
from pyvirtd.core.security import Label
from pyvirtd.drivers.qemu.agent import Agent
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.helpers import Helpers
from pyvirtd.drivers.qemu.monitor import Monitor
from pyvirtd.errors import OperationInvalid
from pyvirtd.model.cpu import Cpu
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.status import StatusJob, StatusRestored
from pyvirtd.util.process import Process
from pyvirtd.util.threads import close_fds


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a guest ends, set before it does: what the state and the event will say."""

    reason: DomainShutoffReason
    detail: DomainEventStoppedDetailType

    @property
    def silent(self) -> bool:
        """Whether what QEMU tells at its end is nothing of the guest's: a saved one runs on, a crashed one is dead."""
        return self.reason in (DomainShutoffReason.SAVED, DomainShutoffReason.CRASHED)


DESTROYED = Ending(DomainShutoffReason.DESTROYED, DomainEventStoppedDetailType.DESTROYED)
CRASHED = Ending(DomainShutoffReason.CRASHED, DomainEventStoppedDetailType.CRASHED)
SHUT_DOWN = Ending(DomainShutoffReason.SHUTDOWN, DomainEventStoppedDetailType.SHUTDOWN)
SAVED = Ending(DomainShutoffReason.SAVED, DomainEventStoppedDetailType.SAVED)


class Phase(IntEnum):
    """How far a run is; it never goes back."""

    STARTING = 0  # whatever happens, its start alone tidies up
    UP = 1
    FINISHING = 2  # QEMU is gone and tidying up began; its last events still count
    FINISHED = 3  # no event of this run counts any more


@dataclass(eq=False)
class Guest:
    """One run of a domain; it is gone when QEMU is."""

    process: Process
    monitor: Monitor
    caps: QemuCapabilities
    monitor_path: Path
    directory: Path
    started_at: float = field(default_factory=time.time)
    ending: Ending | None = None
    phase: Phase = Phase.STARTING
    status_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    status_wanted: int = 0  # writes of the status file asked for, and done
    status_written: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)  # the run is tidied up
    fake_reboot: bool = False  # the next shutdown of the guest is a reboot
    rebooting: bool = False  # and has come: nobody is told that the guest stands still
    agent: Agent | None = None
    agent_connected: bool | None = None
    group: Group | None = None  # its control group
    labels: list[Label] = field(default_factory=list)
    helpers: Helpers = field(default_factory=Helpers)
    fdsets: int = 0  # sets of descriptors that QEMU was given; the next one's number
    vcpu_threads: dict[int, int] = field(default_factory=dict)  # vcpu -> thread id
    consoles: dict[str, Any] = field(default_factory=dict)  # alias -> the stream that has it open
    pausing: tuple[int, int] | None = None  # why the next STOP comes: reason, event detail
    stop_pending: bool = False  # a `stop` was sent of which QEMU has shown no effect yet; it may obey late
    resuming: tuple[int, int] | None = None
    autodestroy: Any = None
    taints: list[str] = field(default_factory=list)
    own_cpu: Cpu | None = None  # as the definition names it, where the live one says more
    restored: StatusRestored | None = None  # the image that this run has read: until the start is over, or it is gone
    unfinished: StatusJob | None = None  # what an earlier daemon was doing with it, until that is ended


class QemuDomain(DomainObject):
    """`guest` is None when off."""

    def __init__(self, config: DomainDef | Deferred, *, persistent: bool) -> None:
        super().__init__(config, persistent=persistent)
        self.guest: Guest | None = None
        self.agent_timeout: int = -2  # DomainAgentResponseTimeoutValues.BLOCK
        # Descriptors lent by clients, by the group's name, with what forgets that they go with their client.
        self.lent: dict[str, tuple[tuple[int, ...], Callable[[], None]]] = {}

    def drop_group(self, name: str) -> None:
        """Close the lent descriptors of a name, if there are any."""
        group, forget = self.lent.pop(name, ((), None))
        if forget is not None:
            forget()
        close_fds(group)

    def forgotten(self) -> None:
        for name in list(self.lent):
            self.drop_group(name)

    @property
    def running(self) -> Guest:
        """The guest. Raises OperationInvalid when off."""
        if self.guest is None or self.live is None:
            raise OperationInvalid("domain is not running", domain=From.DOMAIN)
        return self.guest

    @property
    def live_def(self) -> DomainDef:
        """The live definition. Raises OperationInvalid when off."""
        if self.live is None:
            raise OperationInvalid("domain is not running", domain=From.DOMAIN)
        return self.live

    @property
    def monitor(self) -> Monitor:
        """The guest's monitor. Raises OperationInvalid when off."""
        return self.running.monitor
