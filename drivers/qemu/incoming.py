"""A start that goes on where a guest stopped, instead of booting it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyvirtd.constants.domain import (
    DomainEventResumedDetailType,
    DomainEventStartedDetailType,
    DomainEventSuspendedDetailType,
    DomainPausedReason,
    DomainRunningReason,
)
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.model.cpu import Cpu

Resuming = tuple[DomainRunningReason, DomainEventResumedDetailType]  # why a guest runs: of the state and its event
RESTORED: Resuming = (DomainRunningReason.RESTORED, DomainEventResumedDetailType.FROM_SNAPSHOT)


@dataclass(frozen=True, slots=True)
class Incoming:
    """Where the guest comes from. `load` fills the QEMU that waits for it.

    `running` and `paused` are the reason of the state, and the detail of its event, that the guest then has. `image`
    is the file it comes from; `own_cpu` the CPU as the definition names it, where the guest's live one says more.
    """

    load: Callable[[QemuDomain], Awaitable[None]]
    started: DomainEventStartedDetailType
    running: Resuming
    paused: tuple[DomainPausedReason, DomainEventSuspendedDetailType]
    image: str | None = None
    own_cpu: Cpu | None = None
