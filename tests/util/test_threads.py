"""System calls in threads of their own."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator

import pytest

from pyvirtd.util import threads
from pyvirtd.util.threads import Closers, in_own_thread
from tests.support.descriptors import until_closed


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end at the latest, so that no thread is left."""
    made = threading.Event()
    yield made
    made.set()


def test_result_and_error_come_back() -> None:
    assert asyncio.run(in_own_thread(5, divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_own_thread(5, divmod, 7, 0))


def test_one_that_does_not_end_is_left_to_itself(gate: threading.Event) -> None:
    since = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(in_own_thread(0.05, gate.wait))
    assert time.monotonic() - since < 2


def test_many_that_do_not_end_hold_up_nobody(gate: threading.Event) -> None:
    async def main() -> object:
        stuck = [asyncio.ensure_future(in_own_thread(5, gate.wait)) for _ in range(40)]
        await asyncio.sleep(0)
        answer = await in_own_thread(5, os.getpid)
        gate.set()
        await asyncio.gather(*stuck)
        return answer

    assert asyncio.run(main()) == os.getpid()


def test_a_descriptor_that_does_not_close_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    close, closed = os.close, []

    def slow(fd: int) -> None:
        if fd == stuck:
            gate.wait()
        closed.append(fd)
        close(fd)

    stuck, other = os.pipe()
    monkeypatch.setattr(threads.os, "close", slow)
    closers = Closers()
    closers.close([stuck])
    closers.close([other])
    until = time.monotonic() + 5
    while closed != [other] and time.monotonic() < until:
        time.sleep(0.001)
    assert closed == [other]
    assert not closers.idle
    gate.set()
    while not closers.idle and time.monotonic() < until:
        time.sleep(0.001)
    assert closed == [other, stuck]


def test_more_than_there_are_threads_for_wait(
    monkeypatch: pytest.MonkeyPatch, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[int] = []

    def slow(fd: int) -> None:
        gate.wait()
        closed.append(fd)

    monkeypatch.setattr(threads, "CLOSERS_MAX", 3)
    monkeypatch.setattr(threads.os, "close", slow)
    closers = Closers()
    for fd in range(1000, 1010):
        closers.close([fd])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert sum(thread.name == "closer" for thread in threading.enumerate()) <= 3
    gate.set()
    until = time.monotonic() + 5
    while not closers.idle and time.monotonic() < until:
        time.sleep(0.001)
    assert sorted(closed) == list(range(1000, 1010))


def test_without_a_thread_they_are_closed_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    closers, fds = Closers(), os.pipe()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        closers.close([fds[0]])
    closers.close([fds[1]])
    until = time.monotonic() + 5
    while not closers.idle and time.monotonic() < until:
        time.sleep(0.001)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_one_that_is_closed_already_keeps_no_other_open() -> None:
    gone, other = os.pipe()
    os.close(gone)
    threads.close_fds([gone, other])
    until_closed()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(other)
