"""Figures of processes and threads, of this one and of children."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pyvirtd.core.procstat import cpu_time_ns, read_process, read_thread, thread_ids

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(flush=True)\ninput()"


@pytest.fixture
def burnt() -> Iterator[subprocess.Popen[bytes]]:
    """A child that used 0.3 seconds of a processor and waits."""
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def test_cpu_time_of_another_process_is_exact(burnt: subprocess.Popen[bytes]) -> None:
    assert 300_000_000 <= cpu_time_ns(burnt.pid) < 3_000_000_000


def test_user_and_system_time_add_up_to_cpu_time(burnt: subprocess.Popen[bytes]) -> None:
    stat = read_process(burnt.pid)

    assert abs(stat.user_ns + stat.system_ns - cpu_time_ns(burnt.pid)) <= 50_000_000


def test_memory_of_a_process_grows_with_what_it_touches() -> None:
    before = read_process(os.getpid())

    block = bytearray(os.urandom(1 << 20) * 16)

    after = read_process(os.getpid())
    assert len(block) == 16 << 20
    assert after.rss_kib - before.rss_kib > 8 << 10
    assert after.minor_faults > before.minor_faults


def test_threads_are_listed_and_measured_one_by_one() -> None:
    ids: list[int] = []
    ready, stop = threading.Event(), threading.Event()

    def work() -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
        ids.append(threading.get_native_id())
        ready.set()
        stop.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(10)
    try:
        assert ids[0] in thread_ids(os.getpid())
        stat = read_thread(os.getpid(), ids[0])
        assert 100_000_000 <= stat.cpu_ns < 2_000_000_000
        assert 0 <= stat.processor < (os.cpu_count() or 1)
    finally:
        stop.set()
        thread.join()


def test_a_command_name_with_parentheses_does_not_confuse() -> None:
    code = "open('/proc/self/comm', 'w').write(') 1 2 (x'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            assert read_process(child.pid).rss_kib > 1000
        finally:
            child.kill()


@pytest.mark.parametrize("read", [cpu_time_ns, read_process, thread_ids, lambda pid: read_thread(pid, pid)])
def test_a_process_that_is_gone_is_reported(read: object) -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    with pytest.raises(ProcessLookupError):
        read(child.pid)  # type: ignore[operator]
