"""Processes: starting, waiting by pidfd, running commands, with real processes."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pyvirtd.util import process as processes
from pyvirtd.util.process import (
    CommandTimeout,
    Identity,
    Launch,
    OutputTooLong,
    Process,
    process_start_time,
    run,
    spawn,
)

NOBODY = Identity(65534, 65534)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def gone(pid: int) -> bool:
    """Whether a process has ended, where it may be a zombie that nobody reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def is_known(pid: int) -> bool:
    """Whether the kernel still keeps a process, alive or not."""
    return Path(f"/proc/{pid}").exists()


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def output_of(argv: list[str], launch: Launch | None = None) -> str:
    result = asyncio.run(run(argv, timeout=10, launch=launch or Launch()))
    assert result.returncode == 0, result
    return result.stdout.decode()


def test_exit_code_is_told() -> None:
    async def scenario() -> int | None:
        process = spawn(["sh", "-c", "exit 7"])
        assert await process.wait() == 7
        return process.returncode

    assert asyncio.run(scenario()) == 7


def test_killing_signal_is_told() -> None:
    async def scenario() -> int | None:
        process = spawn(["sleep", "60"])
        assert process.running
        assert process.send_signal(signal.SIGTERM)
        return await process.wait()

    assert asyncio.run(scenario()) == -signal.SIGTERM


def test_ended_process_takes_no_signal() -> None:
    async def scenario() -> bool:
        process = spawn(["true"])
        await process.wait()
        assert not process.running
        return process.send_signal(signal.SIGKILL)

    assert not asyncio.run(scenario())


def test_child_that_nobody_waits_for_is_reaped() -> None:
    async def scenario() -> None:
        process = spawn(["true"])
        deadline = time.monotonic() + 10
        while is_known(process.pid):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_cancelled_wait_leaves_the_process_watched() -> None:
    async def scenario() -> int | None:
        process = spawn(["sleep", "60"])
        waiting = asyncio.ensure_future(process.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        process.send_signal(signal.SIGKILL)
        return await process.wait()

    assert asyncio.run(scenario()) == -signal.SIGKILL


def test_program_that_is_not_there_is_an_error() -> None:
    async def scenario() -> None:
        with pytest.raises(FileNotFoundError):
            spawn(["/nonexistent/program"])

    asyncio.run(scenario())


def test_closed_watch_leaves_the_process_running_and_tells_who_waits() -> None:
    async def scenario() -> None:
        process = spawn(["sleep", "60"])
        waiting = asyncio.ensure_future(process.wait())
        await asyncio.sleep(0)
        process.close()
        process.close()
        assert await waiting is None
        assert not gone(process.pid)
        end(process.pid)

    asyncio.run(scenario())


def with_stranger(scenario: Callable[[int], Awaitable[None]]) -> None:
    """Run a scenario with the pid of a process that is not this one's child."""
    shell = subprocess.run(
        ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    pid = int(shell.stdout)

    async def main() -> None:
        await scenario(pid)

    try:
        asyncio.run(main())
    finally:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


def test_adopted_process_is_watched_until_its_end() -> None:
    async def scenario(pid: int) -> None:
        process = Process.adopt(pid, process_start_time(pid))
        assert process.running
        process.send_signal(signal.SIGKILL)
        assert await asyncio.wait_for(process.wait(), 10) is None
        assert not process.running

    with_stranger(scenario)


def test_process_that_began_at_another_time_is_not_adopted() -> None:
    async def scenario(pid: int) -> None:
        with pytest.raises(ProcessLookupError):
            Process.adopt(pid, process_start_time(pid) - 1)

    with_stranger(scenario)


def adopt(pid: int) -> None:
    async def scenario() -> None:
        Process.adopt(pid).close()

    asyncio.run(scenario())


def test_process_that_is_gone_is_not_adopted() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError):  # a zombie still has its number
        adopt(child.pid)
    child.wait()
    with pytest.raises(ProcessLookupError):
        adopt(child.pid)


def test_start_time_is_read_past_a_strange_name(tmp_path: Path) -> None:
    (tmp_path / "a) R 1 (").symlink_to("/bin/sleep")
    child = subprocess.Popen([tmp_path / "a) R 1 (", "60"])
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert abs(process_start_time(child.pid) / ticks - uptime) < 5
    finally:
        child.kill()
        child.wait()


def test_child_has_only_its_own_descriptors() -> None:
    read, write = os.pipe()
    extra = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        program = "import os; print(*(fd for fd in range(100) if os.path.exists(f'/proc/self/fd/{fd}')))"
        listed = output_of([sys.executable, "-S", "-c", program], Launch(pass_fds=[write]))
    finally:
        for fd in (read, write, extra):
            os.close(fd)
    assert listed.split() == ["0", "1", "2", str(write)]


def test_child_has_its_own_session() -> None:
    async def scenario() -> None:
        process = spawn(["sleep", "60"])
        assert os.getsid(process.pid) == process.pid
        process.send_signal(signal.SIGKILL)
        await process.wait()

    asyncio.run(scenario())


def test_child_is_not_spared_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text()
    own.write_text("300")  # less than ours is for root alone
    try:
        assert output_of(["sh", "-c", f"sleep 0.2; cat {own}"], Launch()) == "300\n"
        monkeypatch.setattr(processes, "_is_spared", lambda: True)
        assert output_of(["sh", "-c", f"sleep 0.2; cat {own}"], Launch()) == "0\n"
    finally:
        own.write_text(before)


def test_child_has_umask_directory_and_environment(tmp_path: Path) -> None:
    launch = Launch(umask=0o027, cwd=str(tmp_path), env={"PATH": os.environ["PATH"], "A": "b"})
    assert output_of(["sh", "-c", "umask; pwd; env | grep ^A="], launch).split() == ["0027", str(tmp_path), "A=b"]


def test_child_has_its_limits() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = Launch(limits={"CORE": 0, "NOFILE": soft - 1})
    assert output_of(["sh", "-c", "ulimit -Hc; ulimit -Sc; ulimit -Hn"], limits).split() == ["0", "0", str(soft - 1)]


@as_root
def test_child_runs_as_somebody_else() -> None:
    listed = output_of(["id"], Launch(identity=NOBODY._replace(groups=(7, 8))))
    words = dict(word.split("=") for word in listed.split())
    assert words["uid"].startswith("65534")
    assert words["gid"].startswith("65534")
    assert {int(group.split("(")[0]) for group in words["groups"].split(",")} == {65534, 7, 8}


@as_root
def test_child_that_runs_as_somebody_else_keeps_none_of_our_groups() -> None:
    assert output_of(["id", "-G"], Launch(identity=NOBODY)).split() == ["65534"]


@as_root
def test_child_without_capabilities_can_have_none() -> None:
    launch = Launch(drop_capabilities=True)
    status = output_of(["grep", "Cap", "/proc/self/status"], launch)
    found = {line.split()[0]: int(line.split()[1], 16) for line in status.splitlines()}
    assert (found["CapBnd:"], found["CapEff:"], found["CapPrm:"]) == (0, 0, 0)


@as_root
def test_child_that_dies_with_us_does_when_we_are_killed() -> None:
    code = """
import asyncio, time
from pyvirtd.util.process import Launch, spawn
async def main():
    print(spawn(["sleep", "60"], Launch(dies_with_us=True, drop_capabilities=%r)).pid, flush=True)
    time.sleep(60)
asyncio.run(main())
""" % (os.geteuid() == 0)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as us:
        assert us.stdout is not None
        child = int(us.stdout.readline())
        deadline = time.monotonic() + 5
        while Path(f"/proc/{child}/comm").read_text().strip() != "sleep":
            assert time.monotonic() < deadline
        us.kill()
        while not gone(child):
            assert time.monotonic() < deadline


def test_descriptors_reach_a_child_that_runs_as_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("content")
    (tmp_path / "secret").chmod(0o600)
    fd = os.open(tmp_path / "secret", os.O_RDONLY)
    try:
        assert output_of(["bash", "-c", f"cat <&{fd}"], Launch(pass_fds=[fd], identity=NOBODY)) == "content"
    finally:
        os.close(fd)


def test_start_copies_nothing_of_ours() -> None:
    ballast = [str(n) for n in range(1_500_000)]  # some 100 MB, whose page tables a fork copies

    def forked() -> float:
        began = time.perf_counter()
        pid = os.fork()
        if not pid:
            os._exit(0)
        taken = time.perf_counter() - began
        os.waitpid(pid, 0)
        return taken

    async def spawned() -> float:
        began = time.perf_counter()
        process = spawn(["true"], Launch(limits={"CORE": 0}))
        taken = time.perf_counter() - began
        await process.wait()
        return taken

    async def scenario() -> list[float]:
        return [await spawned() for _ in range(10)]

    fork = min(forked() for _ in range(10))
    assert min(asyncio.run(scenario())) < fork
    assert ballast


def test_command_gets_its_input_and_gives_both_outputs() -> None:
    result = asyncio.run(run(["sh", "-c", "cat; echo oops >&2; exit 3"], input=b"x" * 300_000, timeout=10))
    assert result == (3, b"x" * 300_000, b"oops\n")


def test_command_without_input_reads_nothing() -> None:
    assert output_of(["cat"]) == ""


def test_command_that_does_not_read_its_input_is_fine() -> None:
    assert asyncio.run(run(["true"], input=b"x" * 1_000_000, timeout=10)).returncode == 0


def test_command_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"'sh' did not end within 0.3 seconds"):
        asyncio.run(run(["sh", "-c", f"sleep 60 & echo $! $$ > {pids}; wait"], timeout=0.3))
    assert time.monotonic() - began < 5
    deadline = time.monotonic() + 5
    while not all(gone(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_command_that_prints_too_much_is_killed() -> None:
    with pytest.raises(OutputTooLong, match="'yes' printed more than 1000 bytes"):
        asyncio.run(run(["yes"], timeout=10, limit=1000))


def test_output_of_just_the_limit_is_fine() -> None:
    assert asyncio.run(run(["printf", "12345"], timeout=10, limit=5)).stdout == b"12345"


def test_cancelled_command_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(run(["sh", "-c", f"echo $$ > {pid}; exec sleep 60"], timeout=60), timeout=0.5))
    assert gone(int(pid.read_text()))


def test_command_whose_child_keeps_its_output_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LINGER_S", 0.1)
    began = time.monotonic()
    result = asyncio.run(run(["sh", "-c", "sleep 3 & echo done"], timeout=10))
    assert result == (0, b"done\n", b"")
    assert time.monotonic() - began < 2


def test_command_that_closes_its_output_is_waited_for() -> None:
    assert asyncio.run(run(["sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 4"], timeout=10)).returncode == 4


def test_many_commands_run_at_once() -> None:
    async def scenario() -> list[bytes]:
        commands = (run(["sh", "-c", f"sleep 0.2; echo {n}"], timeout=20) for n in range(20))
        return [result.stdout for result in await asyncio.gather(*commands)]

    began = time.monotonic()
    assert asyncio.run(scenario()) == [f"{n}\n".encode() for n in range(20)]
    assert time.monotonic() - began < 3


def test_running_leaves_no_descriptor_behind() -> None:
    async def scenario() -> None:
        await run(["cat"], input=b"x", timeout=10)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await run(["cat"], input=b"x", timeout=10)
            with pytest.raises(FileNotFoundError):
                await run(["/nonexistent"], input=b"x", timeout=10)
            with pytest.raises(CommandTimeout):
                await run(["sleep", "60"], timeout=0.01)
            await spawn(["true"]).wait()
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(scenario())
