"""Helpers that are started again when they die: as long as their guest runs, and never beyond its end."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.core.driver import Tasks
from pyvirtd.drivers.qemu import helpers as module
from pyvirtd.drivers.qemu.helpers import Helper, Helpers, Run
from pyvirtd.errors import InternalError, SystemError_
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import Paths
from pyvirtd.util.process import Launch
from tests.drivers.qemu.definitions import document


class Sleeper(Helper):
    """Runs a program that serves nothing; `starts` counts, the first `failing` of them fail."""

    title = program = "sleep"
    restarts = True

    def __init__(self, folder: Path, *, failing: int = 0, seconds: str = "60") -> None:
        paths = Paths.system(folder).qemu
        paths.log.mkdir(parents=True)
        super().__init__(Run(DomainDef.parse(document()), 1, paths, cast("QemuConfig", None), None))
        self.pid_file = folder / "sleep.pid"
        self.seconds, self.failing, self.starts = seconds, failing, 0
        self.pids: list[int] = []
        self.slow = asyncio.Event()
        self.slow.set()

    async def start(self) -> None:
        self.starts += 1
        if self.starts <= self.failing:
            raise InternalError("the server is away")
        await self.launch(["sleep", self.seconds], Launch(), log_path=self.run.log_path)
        assert self.process is not None
        self.pids.append(self.process.pid)
        await self.slow.wait()

    @property
    def alive(self) -> list[int]:
        return [pid for pid in self.pids if os.path.exists(f"/proc/{pid}/exe")]


async def nothing() -> None:
    pass


async def soon(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)


def watched(helper: Sleeper, again: Callable[[], Awaitable[None]] = nothing) -> tuple[Helpers, Tasks]:
    helpers, tasks = Helpers(), Tasks()
    helpers._helpers = [helper]
    helpers.watch(tasks, again)
    return helpers, tasks


def test_one_that_died_while_the_daemon_was_away_is_started_again(tmp_path: Path) -> None:
    async def scene() -> None:
        helper = Sleeper(tmp_path)
        helpers, _ = watched(helper)
        await soon(lambda: helper.alive)
        await helpers.stop()
        assert not helper.alive
        assert not helper.pid_file.exists()

    asyncio.run(scene())


def test_restart_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)

    async def scene() -> None:
        helper = Sleeper(tmp_path, failing=3)
        helpers, _ = watched(helper)
        await soon(lambda: helper.alive)
        assert helper.starts == 4
        await helpers.stop()

    asyncio.run(scene())


def test_one_that_dies_at_once_is_started_after_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.2)

    async def scene() -> None:
        helper = Sleeper(tmp_path, seconds="0")
        helpers, _ = watched(helper)
        await asyncio.sleep(0.5)
        assert 2 <= helper.starts <= 3
        await helpers.stop()

    asyncio.run(scene())


def test_one_whose_group_is_gone_ends_with_its_guest(tmp_path: Path) -> None:
    async def scene() -> None:
        told = asyncio.Event()

        async def again() -> None:
            told.set()
            raise InternalError("no such group")

        helper = Sleeper(tmp_path)
        helpers, _ = watched(helper, again)
        await asyncio.wait_for(told.wait(), 5)
        await asyncio.sleep(0)
        assert helper.alive, "it serves, wherever it is counted"
        await helpers.stop()
        assert not helper.alive

    asyncio.run(scene())


def test_guest_that_ends_while_one_is_started_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)

    async def scene() -> None:
        helper = Sleeper(tmp_path)
        helper.slow.clear()
        helpers, tasks = watched(helper)
        await soon(lambda: helper.alive)
        await helpers.stop()
        helper.slow.set()
        await asyncio.sleep(0.1)
        await tasks.close()
        assert not helper.alive
        assert helper.starts == 1

    asyncio.run(scene())


def test_number_that_cannot_be_noted_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    async def scene() -> None:
        helper = Sleeper(tmp_path)
        helper.pid_file = tmp_path / "nowhere" / "pid"
        with pytest.raises(SystemError_, match=r"cannot write '.*/nowhere/pid': No such file"):
            await helper.start()
        await helper.end()

    asyncio.run(scene())
