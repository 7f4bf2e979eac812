"""Stopping and going on: one reason each, told once, and kept for nobody else when QEMU refuses."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyvirtd.constants.domain import (
    DomainEventResumedDetailType,
    DomainEventSuspendedDetailType,
    DomainEventType,
    DomainPausedReason,
    DomainRunningReason,
    DomainShutoffReason,
    DomainState,
)
from pyvirtd.drivers.qemu.domain import Guest, Phase, QemuDomain
from pyvirtd.drivers.qemu.monitor import MonitorClosed
from pyvirtd.drivers.qemu.pause import UNPAUSED, Pausing, Resuming, go_on, pause, paused, resume
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.model.domain import DomainDef
from tests.drivers.qemu.definitions import document
from tests.drivers.qemu.tune_support import FakeDriver

FOR_SAVE: Pausing = (DomainPausedReason.SAVE, DomainEventSuspendedDetailType.PAUSED)
CANCELED: Resuming = (DomainRunningReason.SAVE_CANCELED, DomainEventResumedDetailType.UNPAUSED)
UUID = "<uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid>"


class World(FakeDriver):
    """A guest whose QEMU takes every command, or raises `error`."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[str] = []
        self.told: list[tuple[int, int]] = []
        self.error: VirtError | None = None
        definition = DomainDef.parse(document(top=UUID))
        self.dom = QemuDomain(definition, persistent=True)
        self.dom.live = definition
        self.guest = SimpleNamespace(
            monitor=self, pausing=None, resuming=None, ending=None, phase=Phase.UP, rebooting=False
        )
        self.dom.guest = cast("Guest", self.guest)
        self.dom.set_state(DomainState.RUNNING, DomainRunningReason.BOOTED)

    async def execute(self, command: str) -> dict[str, Any]:
        self.commands.append(command)
        if self.error is not None:
            raise self.error
        return {}

    def emit_lifecycle(self, dom: QemuDomain, event: DomainEventType, detail: int) -> None:
        self.told.append((event, detail))

    @property
    def state(self) -> tuple[DomainState, int]:
        return self.dom.state, self.dom.reason


def run(work: Callable[[World], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(World()), 10))  # type: ignore[arg-type]


def test_a_guest_stands_and_goes_on_for_the_reasons_given() -> None:
    async def work(world: World) -> None:
        await pause(world.as_driver, world.dom, FOR_SAVE)
        assert world.state == (DomainState.PAUSED, DomainPausedReason.SAVE)
        await resume(world.as_driver, world.dom, CANCELED)
        assert world.state == (DomainState.RUNNING, DomainRunningReason.SAVE_CANCELED)
        assert world.commands == ["stop", "cont"]
        assert [event for event, _ in world.told] == [DomainEventType.SUSPENDED, DomainEventType.RESUMED]
        assert world.saved == ["status", "status"]

    run(work)


def test_a_reason_that_qemu_refused_is_not_the_next_ones() -> None:
    async def work(world: World) -> None:
        world.error = OperationFailed("no")
        with pytest.raises(OperationFailed):
            await pause(world.as_driver, world.dom, FOR_SAVE)
        assert world.told == world.saved == []
        paused(world.as_driver, world.dom)  # by QEMU itself, later
        assert world.state == (DomainState.PAUSED, DomainPausedReason.UNKNOWN)
        with pytest.raises(OperationFailed):
            await resume(world.as_driver, world.dom, CANCELED)
        assert world.guest.resuming is None

    run(work)


def test_a_guest_that_does_not_go_on_is_told_of() -> None:
    async def work(world: World) -> None:
        await pause(world.as_driver, world.dom, FOR_SAVE)
        world.error = OperationFailed("no")
        await go_on(world.as_driver, world.dom, CANCELED)
        assert world.told[1:] == [(DomainEventType.SUSPENDED, DomainEventSuspendedDetailType.API_ERROR)]
        world.error = MonitorClosed()
        await go_on(world.as_driver, world.dom, CANCELED)
        assert len(world.told) == 2

    run(work)


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.dom.set_state(DomainState.PAUSED, DomainPausedReason.IOERROR),
        lambda world: world.dom.set_state(DomainState.SHUTDOWN, 0),
        lambda world: setattr(world.guest, "ending", DomainShutoffReason.DESTROYED),
        lambda world: setattr(world.guest, "phase", Phase.FINISHING),
        lambda world: setattr(world.dom, "guest", None),
    ],
)
def test_a_guest_that_others_stopped_or_end_does_not_go_on(change: Callable[[World], None]) -> None:
    async def work(world: World) -> None:
        await pause(world.as_driver, world.dom, FOR_SAVE)
        change(world)
        await go_on(world.as_driver, world.dom, UNPAUSED, (DomainPausedReason.SAVE,))
        assert world.commands == ["stop"]

    run(work)
