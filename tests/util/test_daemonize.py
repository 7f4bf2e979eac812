"""Going into the background, with real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HEAD = """
import os, signal, sys, time
from pathlib import Path
from pyvirtd.util.daemonize import daemonized
where = Path(sys.argv[1])
with daemonized(True) as ready:
    where.write_text(f"{os.getpid()} {os.getsid(0)} {os.getppid()} {os.getcwd()}")
"""


def start(body: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run a program whose body is daemonized, to the end of the process that we started."""
    program = HEAD + "".join(f"    {line}\n" for line in body.splitlines())
    command = [sys.executable, "-c", program, str(where / "told")]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=False, env={"PYTHONPATH": os.getcwd()}
    )


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 10
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def test_command_ends_when_the_daemon_serves_and_the_daemon_goes_on(tmp_path: Path) -> None:
    result = start("ready(); time.sleep(60)", tmp_path)
    pid = int((tmp_path / "told").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    assert (result.returncode, result.stderr) == (0, "")


def test_command_waits_until_the_daemon_serves(tmp_path: Path) -> None:
    began = time.monotonic()
    start("time.sleep(0.5); ready()", tmp_path)
    assert time.monotonic() - began >= 0.5


def test_daemon_has_a_session_that_it_does_not_lead(tmp_path: Path) -> None:
    start("ready()", tmp_path)
    pid, session, _, directory = (tmp_path / "told").read_text().split()
    assert pid != session
    assert int(session) != os.getsid(0)
    assert directory == "/"


def test_error_before_the_daemon_serves_is_told_once(tmp_path: Path) -> None:
    result = start("raise ValueError('the port is taken')", tmp_path)
    assert (result.returncode, result.stderr) == (1, "pyvirtd: error: the port is taken\n")


def test_daemon_that_ends_before_it_serves_is_told(tmp_path: Path) -> None:
    result = start("pass", tmp_path)
    assert (result.returncode, result.stderr) == (1, "pyvirtd: error: the daemon ended before it was ready\n")


def test_daemon_that_is_killed_before_it_serves_is_told(tmp_path: Path) -> None:
    result = start("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert (result.returncode, result.stderr) == (1, "pyvirtd: error: the daemon ended before it was ready\n")


def test_daemon_keeps_no_output_of_its_caller(tmp_path: Path) -> None:
    shown = "' '.join(os.readlink(f'/proc/self/fd/{n}') for n in range(3))"
    start(f"ready(); Path({str(tmp_path / 'fds')!r}).write_text({shown})", tmp_path)
    assert wait_for(tmp_path / "fds") == "/dev/null /dev/null /dev/null"


def test_daemon_survives_the_death_of_its_caller(tmp_path: Path) -> None:
    program = HEAD + f"    time.sleep(1); ready(); Path({str(tmp_path / 'done')!r}).write_text('x')\n"
    caller = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "told")])
    wait_for(tmp_path / "told")
    caller.kill()
    caller.wait()
    assert wait_for(tmp_path / "done") == "x"


def test_nothing_happens_in_the_foreground(tmp_path: Path) -> None:
    program = (
        "import os\nfrom pyvirtd.util.daemonize import daemonized\npid = os.getpid()\n"
        "with daemonized(False) as ready:\n    ready()\n    print(os.getpid() == pid)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown == "True\n"
