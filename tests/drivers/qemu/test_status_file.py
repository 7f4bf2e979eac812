"""The status file: one write at a time, shared by who waits for it; nobody is told of one that failed."""

import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyvirtd.drivers.qemu import status_file
from pyvirtd.drivers.qemu.domain import Guest, Phase, QemuDomain
from pyvirtd.drivers.qemu.status_file import save_status
from pyvirtd.errors import SystemError_
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.status import DomStatus
from pyvirtd.paths import Paths
from tests.drivers.qemu.definitions import document
from tests.drivers.qemu.tune_support import FakeDriver

UUID = "<uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid>"


class World(FakeDriver):
    """A running guest; the writes whose numbers are in `failing` find a full disk."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, failing: set[int]) -> None:
        super().__init__()
        self.host.paths = Paths.system(folder)
        definition = DomainDef.parse(document(top=UUID))
        self.dom = QemuDomain(definition, persistent=True)
        self.dom.live = definition
        self.writes, self._failing = 0, failing
        guest = SimpleNamespace(status_lock=asyncio.Lock(), status_wanted=0, status_written=0, phase=Phase.UP)
        self.dom.guest = cast("Guest", guest)
        monkeypatch.setattr(status_file, "atomic_write", self._write)
        monkeypatch.setattr(status_file, "_status_of", lambda dom, channels: DomStatus(domain=dom.live))

    async def _write(self, path: Path, text: str) -> None:
        self.writes += 1
        number = self.writes
        await asyncio.sleep(0.01)
        if number in self._failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    async def saves(self, number: int) -> list[Any]:
        """What each of so many gets that ask at once."""
        asking = (save_status(self.as_driver, self.dom) for _ in range(number))
        return await asyncio.gather(*asking, return_exceptions=True)


def test_who_asks_during_a_write_shares_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        world = World(tmp_path, monkeypatch, set())
        assert await world.saves(5) == [None] * 5
        assert world.writes == 2

    asyncio.run(work())


def test_a_shared_write_that_fails_is_a_success_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        world = World(tmp_path, monkeypatch, {2, 3})
        first, second, third, fourth = await world.saves(4)
        assert (first, fourth) == (None, None)
        assert all(isinstance(error, SystemError_) for error in (second, third))
        assert world.writes == 4

    asyncio.run(work())
