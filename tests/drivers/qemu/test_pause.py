"""Stopping and going on: one reason each, told once, and kept for nobody else when QEMU refuses."""

import asyncio
from collections.abc import Awaitable, Callable

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
from pyvirtd.drivers.qemu.domain import Phase
from pyvirtd.drivers.qemu.monitor import MonitorClosed
from pyvirtd.drivers.qemu.pause import UNPAUSED, Pausing, Resuming, go_on, pause, paused, resume, resumed
from pyvirtd.errors import OperationFailed, OperationTimeout
from tests.drivers.qemu.pause_support import World

FOR_SAVE: Pausing = (DomainPausedReason.SAVE, DomainEventSuspendedDetailType.PAUSED)
BY_USER: Pausing = (DomainPausedReason.USER, DomainEventSuspendedDetailType.PAUSED)
CANCELED: Resuming = (DomainRunningReason.SAVE_CANCELED, DomainEventResumedDetailType.UNPAUSED)


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
        world.errors = dict.fromkeys(("stop", "cont"), OperationFailed("no"))
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
        world.errors["cont"] = OperationFailed("no")
        await go_on(world.as_driver, world.dom, CANCELED)
        assert world.told[1:] == [(DomainEventType.SUSPENDED, DomainEventSuspendedDetailType.API_ERROR)]
        world.errors["cont"] = MonitorClosed()
        await go_on(world.as_driver, world.dom, CANCELED)
        assert len(world.told) == 2

    run(work)


def test_a_guest_that_goes_on_runs_even_if_the_disk_refuses_to_say_so(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        await pause(world.as_driver, world.dom, FOR_SAVE)
        world.failing = {2}
        await go_on(world.as_driver, world.dom, CANCELED)
        assert world.state == (DomainState.RUNNING, DomainRunningReason.SAVE_CANCELED)
        assert [event for event, _ in world.told] == [DomainEventType.SUSPENDED, DomainEventType.RESUMED]

    run(work)
    assert "goes on, and its status on disk does not say so: " in caplog.text


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


@pytest.mark.parametrize("slow", [("stop",), ("stop", "cont")])
def test_a_guest_that_obeys_late_goes_on_too(slow: tuple[str, ...]) -> None:
    async def work(world: World) -> None:
        world.errors = dict.fromkeys(slow, OperationTimeout("no answer"))
        with pytest.raises(OperationTimeout):
            await pause(world.as_driver, world.dom, FOR_SAVE)
        await go_on(world.as_driver, world.dom, CANCELED, (DomainPausedReason.SAVE,))
        assert world.commands == ["stop", "cont"]
        assert world.told == [], "it has not stopped yet"
        paused(world.as_driver, world.dom)  # QEMU's events
        assert world.state == (DomainState.PAUSED, DomainPausedReason.SAVE)
        resumed(world.as_driver, world.dom)
        assert world.state == (DomainState.RUNNING, DomainRunningReason.SAVE_CANCELED)
        await go_on(world.as_driver, world.dom, CANCELED)
        assert world.commands == ["stop", "cont"]

    run(work)


def test_a_stop_of_somebody_elses_that_may_come_late_is_left_to_him() -> None:
    async def work(world: World) -> None:
        world.errors["stop"] = OperationTimeout("no answer")
        with pytest.raises(OperationTimeout):
            await pause(world.as_driver, world.dom, BY_USER)
        await go_on(world.as_driver, world.dom, UNPAUSED, (DomainPausedReason.WATCHDOG,))
        assert world.commands == ["stop"]
        paused(world.as_driver, world.dom)
        assert world.state == (DomainState.PAUSED, DomainPausedReason.USER)

    run(work)
