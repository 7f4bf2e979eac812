"""What /proc tells of a guest's process and its threads: processor time, memory, page faults.

proc(5). These files are made by the kernel from memory: reading them does not wait. Everything raises
ProcessLookupError once the process or thread is gone.
"""

import os
import time
from typing import NamedTuple

NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
CPUCLOCK_SCHED = 2  # linux/posix-timers.h: time on a processor, in nanoseconds
# proc(5) /proc/PID/stat, counted from the field after the command's name.
MINOR_FAULTS, MAJOR_FAULTS, USER_TIME, SYSTEM_TIME, RSS, PROCESSOR = 7, 9, 11, 12, 21, 36


class ProcessStat(NamedTuple):
    """A process with all its threads. Times in steps of a clock tick."""

    user_ns: int
    system_ns: int
    rss_kib: int
    minor_faults: int
    major_faults: int


class ThreadStat(NamedTuple):
    """One thread. `wait_ns`: ready to run, but not run; `processor`: where it ran last."""

    tid: int
    cpu_ns: int
    user_ns: int
    system_ns: int
    wait_ns: int
    processor: int


def cpu_time_ns(pid: int) -> int:
    """Processor time of a process with all its threads, those that ended too."""
    # linux/posix-timers.h: the number of another process's clock is made from its pid.
    try:
        return time.clock_gettime_ns(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        raise ProcessLookupError(f"no process {pid}") from None


def read_process(pid: int) -> ProcessStat:
    """Figures of a whole process."""
    fields = _stat_fields(f"/proc/{pid}/stat")
    return ProcessStat(
        int(fields[USER_TIME]) * NS_PER_TICK,
        int(fields[SYSTEM_TIME]) * NS_PER_TICK,
        int(fields[RSS]) * PAGE_KIB,
        int(fields[MINOR_FAULTS]),
        int(fields[MAJOR_FAULTS]),
    )


def read_thread(pid: int, tid: int) -> ThreadStat:
    """Figures of one thread of a process."""
    folder = f"/proc/{pid}/task/{tid}"
    fields = _stat_fields(f"{folder}/stat")
    user_ns, system_ns = int(fields[USER_TIME]) * NS_PER_TICK, int(fields[SYSTEM_TIME]) * NS_PER_TICK
    # Nothing but zeros where the kernel keeps no scheduler statistics.
    cpu_ns, wait_ns = (int(word) for word in _read(f"{folder}/schedstat").split()[:2])
    return ThreadStat(tid, cpu_ns or user_ns + system_ns, user_ns, system_ns, wait_ns, int(fields[PROCESSOR]))


def thread_ids(pid: int) -> list[int]:
    """The threads of a process, its first one too."""
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None


def _stat_fields(path: str) -> list[bytes]:
    """The fields behind the command's name, which stands in parentheses and may hold anything."""
    text = _read(path)
    return text[text.rindex(b")") + 2 :].split()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"{path} is gone") from None
