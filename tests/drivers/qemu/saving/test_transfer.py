"""A paused guest's state through a descriptor, with real QEMUs that have nothing to boot."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pyvirtd.constants.domain import DomainJobOperation, DomainJobType
from pyvirtd.core.job_stats import JobStats
from pyvirtd.core.jobs import HeldLong, LongJob
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.monitor import Monitor, MonitorClosed
from pyvirtd.drivers.qemu.saving.transfer import load_state, send_state
from pyvirtd.errors import OperationAborted, OperationFailed
from pyvirtd.util.process import Launch, Process, spawn

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="qemu-system-x86_64 is not installed"),
]


class Machine:
    """A QEMU with 64 MiB that no guest runs in."""

    def __init__(self, process: Process, monitor: Monitor) -> None:
        self.process = process
        self.monitor = monitor

    @property
    def dom(self) -> QemuDomain:
        """All of a domain that a transfer looks at."""
        return cast("QemuDomain", self)

    async def status(self) -> str:
        return str((await self.monitor.execute("query-status"))["status"])


@asynccontextmanager
async def machine(folder: Path, name: str, *more: str) -> AsyncIterator[Machine]:
    path = folder / f"{name}.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    chardev = f"socket,id=m,fd={listener.fileno()},server=on,wait=off"
    argv = ["qemu-system-x86_64", "-S", "-M", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "64"]
    argv += ["-chardev", chardev, "-mon", "chardev=m,mode=control", *more]
    process = spawn(argv, Launch(pass_fds=[listener.fileno()], env=dict(os.environ)))
    listener.close()
    monitor = Monitor(name)
    await monitor.connect(path)
    monitor.start(_ignore)
    try:
        yield Machine(process, monitor)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await monitor.close()


async def _ignore(_message: dict[str, Any]) -> None:
    pass


def save_job() -> HeldLong:
    return HeldLong("test", kind=LongJob.SAVE, stats=JobStats(DomainJobOperation.SAVE))


def run(work: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(work, 40))  # type: ignore[arg-type]


def test_a_state_goes_to_a_file_and_back_and_is_counted(tmp_path: Path) -> None:
    async def work() -> None:
        job = save_job()
        with (tmp_path / "state").open("w+b") as file:
            async with machine(tmp_path, "from") as source:
                await send_state(source.dom, file.fileno(), job)
                assert await source.status() == "postmigrate"
                await source.monitor.execute("cont")
                assert await source.status() == "running"
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            async with machine(tmp_path, "to", "-incoming", "defer") as target:
                await load_state(target.dom, file.fileno())
                assert await target.status() in ("paused", "prelaunch")
        assert job.stats is not None
        assert job.stats.type is DomainJobType.COMPLETED
        assert job.stats.memory is not None
        assert 0 < job.stats.memory.processed <= size
        assert job.stats.memory.remaining == 0 < job.stats.memory.total

    run(work())


@pytest.mark.parametrize("dies", [False, True], ids=["silent", "dies"])
def test_a_reader_that_fails_costs_the_transfer_and_not_the_guest(tmp_path: Path, dies: bool) -> None:
    """One that reads no more is waited for until a client ends the job; one that dies ends it."""

    async def work() -> None:
        job = save_job()
        ours, theirs = os.pipe()
        closing = contextlib.ExitStack()
        reader = closing.enter_context(os.fdopen(ours, "rb", buffering=0))
        async with machine(tmp_path, "from", "-object", "rng-builtin,id=r") as source:
            sending = asyncio.ensure_future(send_state(source.dom, theirs, job, unblock=closing.close))
            await asyncio.sleep(0.3)
            assert reader.read(4096)
            assert not sending.done(), "the pipe holds all of the state"
            if dies:
                closing.close()
            else:
                job.aborted.set()
            expected = OperationFailed if dies else OperationAborted
            with pytest.raises(expected):
                await sending
            os.close(theirs)
            await source.monitor.execute("cont")
            assert await source.status() == "running"

    run(work())


def test_a_qemu_that_is_killed_ends_the_transfer(tmp_path: Path) -> None:
    async def work() -> None:
        ours, theirs = os.pipe()
        async with machine(tmp_path, "from") as source:
            sending = asyncio.ensure_future(send_state(source.dom, theirs, save_job()))
            await asyncio.sleep(0.2)
            source.process.send_signal(signal.SIGKILL)
            with pytest.raises(OperationFailed, match="domain is not running"):
                await sending
        os.close(ours)
        os.close(theirs)

    run(work())


def test_a_state_that_is_cut_off_is_no_state(tmp_path: Path) -> None:
    async def work() -> None:
        state = tmp_path / "state"
        with state.open("w+b") as file:
            async with machine(tmp_path, "from") as source:
                await send_state(source.dom, file.fileno(), save_job())
            file.truncate(file.tell() // 2)
            file.seek(0)
            async with machine(tmp_path, "to", "-incoming", "defer") as target:
                with pytest.raises((MonitorClosed, OperationFailed)):
                    await load_state(target.dom, file.fileno())

    run(work())
