"""A save that fails before a byte is written, and a dump that does: the guest goes on."""

import asyncio
from pathlib import Path

import pytest

from pyvirtd.constants.domain import DomainCoreDumpFlags, DomainCoreDumpFormat, DomainRunningReason, DomainState
from pyvirtd.drivers.qemu.dump import core_dump
from pyvirtd.drivers.qemu.pause import paused, resumed
from pyvirtd.drivers.qemu.saving.save import Saving, save
from pyvirtd.errors import InternalError, OperationTimeout, VirtError
from tests.drivers.qemu.pause_support import World

SAVED = DomainRunningReason.SAVE_CANCELED
DUMPED = DomainRunningReason.UNPAUSED


async def begin(world: World, path: Path, reason: DomainRunningReason) -> None:
    """A save, or a dump, by the reason for which the guest goes on after it."""
    if reason is SAVED:
        await save(world.as_driver, world.dom, Saving(path), "DomainSave")
    else:
        await core_dump(world.as_driver, world.dom, str(path), DomainCoreDumpFormat.RAW, DomainCoreDumpFlags(0))


def fails(world: World, path: Path, reason: DomainRunningReason, error: type[VirtError]) -> None:
    async def work() -> None:
        with pytest.raises(error):
            await begin(world, path, reason)
        assert world.commands == ["stop", "cont"]
        if error is OperationTimeout:  # QEMU obeys now
            paused(world.as_driver, world.dom)
            resumed(world.as_driver, world.dom)
        assert world.state == (DomainState.RUNNING, reason)
        assert world.dom.jobs.long_job is None

    asyncio.run(asyncio.wait_for(work(), 10))
    assert not path.exists()


@pytest.mark.parametrize("reason", [SAVED, DUMPED])
def test_the_guest_goes_on_when_the_disk_refuses_that_it_stands(tmp_path: Path, reason: DomainRunningReason) -> None:
    world = World()
    world.failing = {2}  # after the job's own
    fails(world, tmp_path / "image", reason, InternalError)


@pytest.mark.parametrize("reason", [SAVED, DUMPED])
def test_the_guest_goes_on_when_it_stops_late(tmp_path: Path, reason: DomainRunningReason) -> None:
    world = World()
    world.errors["stop"] = OperationTimeout("no answer")
    fails(world, tmp_path / "image", reason, OperationTimeout)
