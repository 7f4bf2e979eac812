"""The rules of jobs: order, what fits beside what, deadlines, cancellation."""

import asyncio
from collections.abc import Awaitable

import pytest

from pyvirtd.core import jobs as module
from pyvirtd.core.jobs import Job, Jobs, LongJob
from pyvirtd.errors import OperationInvalid, OperationTimeout


def run(work: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_waiters_get_the_job_in_their_order() -> None:
    async def work() -> None:
        jobs, order = Jobs(), []

        async def one(number: int) -> None:
            async with jobs.hold(Job.MODIFY, f"call {number}"):
                order.append(number)
                await asyncio.sleep(0)

        async with jobs.hold(Job.MODIFY, "first"):
            tasks = [asyncio.create_task(one(number)) for number in range(5)]
            await settle()
            assert order == []
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]

    run(work())


def test_a_long_job_lets_through_only_what_it_allows() -> None:
    async def work() -> None:
        jobs = Jobs()
        async with jobs.long(LongJob.SAVE, "save", Job.QUERY | Job.ABORT):
            async with jobs.hold(Job.ABORT, "abort"):
                pass
            waiting = asyncio.create_task(_hold(jobs, Job.MODIFY))
            await settle()
            assert not waiting.done()
        await waiting

    run(work())


def test_one_that_fits_overtakes_one_that_does_not() -> None:
    async def work() -> None:
        jobs = Jobs()
        async with jobs.long(LongJob.SAVE, "save", Job.ABORT):
            modify = asyncio.create_task(_hold(jobs, Job.MODIFY))
            await settle()
            await _hold(jobs, Job.ABORT)
            assert not modify.done()
        await modify

    run(work())


async def _hold(jobs: Jobs, kind: Job) -> None:
    async with jobs.hold(kind, "waiter"):
        pass


def test_a_second_long_job_waits_for_the_first() -> None:
    async def work() -> None:
        jobs = Jobs()

        async def second() -> None:
            async with jobs.long(LongJob.DUMP, "dump"):
                pass

        async with jobs.long(LongJob.SAVE, "save"):
            task = asyncio.create_task(second())
            await settle()
            assert not task.done()
        await task

    run(work())


def test_the_timeout_names_the_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.05)

    async def work() -> None:
        jobs = Jobs()
        async with jobs.hold(Job.MODIFY, "DomainReset"):
            with pytest.raises(OperationTimeout, match=r"held by monitor=DomainReset"):
                await _hold(jobs, Job.MODIFY)
        await _hold(jobs, Job.MODIFY)

    run(work())


def test_a_cancelled_waiter_leaves_the_job_to_the_next() -> None:
    async def work() -> None:
        jobs = Jobs()
        async with jobs.hold(Job.MODIFY, "first"):
            quitter, patient = (asyncio.create_task(_hold(jobs, Job.MODIFY)) for _ in range(2))
            await settle()
            quitter.cancel()
            await settle()
        await patient
        assert jobs.normal is None

    run(work())


def test_a_waiter_cancelled_as_it_gets_the_job_gives_it_back() -> None:
    async def work() -> None:
        jobs = Jobs()
        async with jobs.hold(Job.MODIFY, "first"):
            task = asyncio.create_task(_hold(jobs, Job.MODIFY))
            await settle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await _hold(jobs, Job.MODIFY)

    run(work())


def test_waiters_fail_at_once_when_the_guest_is_gone() -> None:
    async def work() -> None:
        jobs = Jobs()
        async with jobs.hold(Job.MODIFY, "first"):
            task = asyncio.create_task(_hold(jobs, Job.MODIFY))
            await settle()
            jobs.fail_waiters(OperationInvalid("domain is not running"))
            with pytest.raises(OperationInvalid):
                await task

    run(work())


def test_an_error_inside_releases_the_job() -> None:
    async def work() -> None:
        jobs = Jobs()
        with pytest.raises(ValueError, match="inside"):
            async with jobs.hold(Job.MODIFY, "first"):
                raise ValueError("inside")
        await _hold(jobs, Job.MODIFY)

    run(work())
