"""A start that goes on where a guest stopped, instead of booting it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyvirtd.constants.domain import (
    DomainEventResumedDetailType,
    DomainEventStartedDetailType,
    DomainRunningReason,
)
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.pause import Pausing, Resuming
from pyvirtd.model.cpu import Cpu

RESTORED: Resuming = (DomainRunningReason.RESTORED, DomainEventResumedDetailType.FROM_SNAPSHOT)


@dataclass(frozen=True, slots=True)
class Incoming:
    """Where the guest comes from. `load` fills the QEMU that waits for it.

    `running` and `paused` are the reason of the state, and the detail of its event, that the guest then has. `image`
    is the file it comes from, `used_up` says that it is to be removed; `own_cpu` the CPU as the definition names it,
    where the guest's live one says more.
    """

    load: Callable[[QemuDomain], Awaitable[None]]
    started: DomainEventStartedDetailType
    running: Resuming
    paused: Pausing
    image: str | None = None
    used_up: bool = False
    own_cpu: Cpu | None = None
