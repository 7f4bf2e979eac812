"""Files that survive a crash, pid files, careful reads."""

import asyncio
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pyvirtd.util import files
from pyvirtd.util.files import LockHeld, Owner, PidFile


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_written_file_has_content_and_mode(tmp_path: Path) -> None:
    files.write_file(tmp_path / "a.xml", "<a/>\n", 0o644)
    assert (tmp_path / "a.xml").read_text() == "<a/>\n"
    assert stat.S_IMODE((tmp_path / "a.xml").stat().st_mode) == 0o644


def test_written_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        files.write_file(tmp_path / "a", b"", 0o664)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o664


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_written_file_has_its_owner(tmp_path: Path) -> None:
    files.write_file(tmp_path / "a", b"", owner=Owner(7, 8))
    assert ((tmp_path / "a").stat().st_uid, (tmp_path / "a").stat().st_gid) == (7, 8)


def test_write_replaces_a_link_and_leaves_its_target_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "a").symlink_to("target")
    files.write_file(tmp_path / "a", "new")
    assert (tmp_path / "target").read_text() == "old"
    assert not (tmp_path / "a").is_symlink()


def test_write_keeps_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    files.write_file(tmp_path / "a", b"\xfc".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "a").read_bytes() == b"\xfc"


def test_longest_name_can_be_written(tmp_path: Path) -> None:
    files.write_file(tmp_path / ("n" * 255), b"x")
    assert names(tmp_path) == ["n" * 255]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("old")

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        files.write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_write_syncs_content_before_the_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(fd: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def note_rename(source: Path, target: Path) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    files.write_file(tmp_path / "a", "x")
    assert steps == ["file", "rename", "directory"]


def test_killed_writer_leaves_old_or_new_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    program = (
        "import sys; from pathlib import Path; from pyvirtd.util import files\n"
        "for n in range(10**9): files.write_file(Path(sys.argv[1]), str(n % 10) * 100_000)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.2)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    content = path.read_text()
    assert content == content[0] * 100_000
    files.sweep_temporaries(tmp_path)
    assert names(tmp_path) == ["a"]


def test_sweep_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / ".pyvirtd-1-1.new").touch()
    (tmp_path / "a.xml").touch()
    (tmp_path / "b.new").touch()
    assert files.sweep_temporaries(tmp_path) == [".pyvirtd-1-1.new"]
    assert names(tmp_path) == ["a.xml", "b.new"]


def test_many_writes_at_once_all_arrive(tmp_path: Path) -> None:
    async def write_all() -> None:
        await asyncio.gather(*(files.atomic_write(tmp_path / f"{n}", str(n)) for n in range(100)))

    asyncio.run(write_all())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(n): str(n) for n in range(100)}


def test_loop_runs_while_a_sync_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> int:
        monkeypatch.setattr(os, "fsync", lambda _fd: time.sleep(0.1))
        ticks = 0
        task = asyncio.ensure_future(files.atomic_write(tmp_path / "a", "x"))
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(scenario()) >= 5


def test_callers_that_wait_share_one_directory_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, count = threading.Event(), 0

    def slow(_path: Path) -> None:
        nonlocal count
        count += 1
        gate.wait(10)

    monkeypatch.setattr(files, "_fsync_path", slow)
    threads = [threading.Thread(target=files.sync_directory, args=(tmp_path,)) for _ in range(8)]
    threads[0].start()
    while not count:
        time.sleep(0.001)
    for thread in threads[1:]:
        thread.start()
    while files._syncs[tmp_path].users < 8:
        time.sleep(0.001)
    gate.set()
    for thread in threads:
        thread.join(10)
    # The first one's sync began before the others came, so they need one more, and one is enough for all.
    assert count == 2
    assert not files._syncs


def test_shared_sync_that_fails_fails_every_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, started, failures = threading.Event(), threading.Event(), []

    def fail(_path: Path) -> None:
        started.set()
        gate.wait(10)
        raise OSError(errno.EIO, "broken disk")

    def call() -> None:
        try:
            files.sync_directory(tmp_path)
        except OSError as exc:
            failures.append(exc.errno)

    monkeypatch.setattr(files, "_fsync_path", fail)
    threads = [threading.Thread(target=call) for _ in range(5)]
    threads[0].start()
    started.wait(10)
    for thread in threads[1:]:
        thread.start()
    while files._syncs[tmp_path].users < 5:
        time.sleep(0.001)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert failures == [errno.EIO] * 5


def test_unlink_tells_whether_there_was_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert files.unlink_file(tmp_path / "a")
    assert not files.unlink_file(tmp_path / "a", missing_ok=True)
    with pytest.raises(FileNotFoundError):
        files.unlink_file(tmp_path / "a")


def test_symlink_is_not_replaced_by_accident(tmp_path: Path) -> None:
    files.make_symlink(Path("/a"), tmp_path / "l")
    with pytest.raises(FileExistsError):
        files.make_symlink(Path("/b"), tmp_path / "l")
    assert os.readlink(tmp_path / "l") == "/a"


def test_symlink_is_replaced_on_demand(tmp_path: Path) -> None:
    files.make_symlink(Path("/a"), tmp_path / "l")
    files.make_symlink(Path("/b"), tmp_path / "l", replace=True)
    assert os.readlink(tmp_path / "l") == "/b"
    assert names(tmp_path) == ["l"]


def test_coroutines_do_what_their_functions_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        await files.atomic_write(tmp_path / "a", "x")
        await files.durable_symlink(Path("a"), tmp_path / "l")
        assert await files.durable_unlink(tmp_path / "l")

    asyncio.run(scenario())
    assert names(tmp_path) == ["a"]


def test_directory_is_made_with_parents_and_exact_mode(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        assert files.make_directory(tmp_path / "a" / "b", 0o775)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o775
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o775


def test_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    assert not files.make_directory(tmp_path / "a", 0o755)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_existing_directory_gets_its_owner(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    files.make_directory(tmp_path / "a", owner=Owner(7, 8))
    assert ((tmp_path / "a").stat().st_uid, (tmp_path / "a").stat().st_gid) == (7, 8)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["link", "link/below"])
def test_no_directory_is_given_to_whoever_made_a_link_to_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "etc" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("etc")
    files.make_directory(tmp_path / name, owner=Owner(0, 0))  # root's own links lead where they lead
    os.lchown(tmp_path / "link", 7, 8)
    with pytest.raises(OSError, match="symbolic link"):
        files.make_directory(tmp_path / name, owner=Owner(7, 8))
    assert (tmp_path / "etc").stat().st_uid == (tmp_path / "etc" / "below").stat().st_uid == 0


def test_directory_over_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError):
        files.make_directory(tmp_path / "a" / "b")


def test_read_gives_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xfcx")
    assert files.read_file(tmp_path / "a") == b"\xfcx"
    assert files.read_text(tmp_path / "a") == "\udcfcx"


def test_read_of_a_long_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 11)
    assert len(files.read_file(tmp_path / "a", 11)) == 11
    with pytest.raises(OSError, match="File too large"):
        files.read_file(tmp_path / "a", 10)


def test_read_follows_links_only_on_demand(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "l").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        files.read_file(tmp_path / "l")
    assert files.read_file(tmp_path / "l", follow=True) == b"x"


def test_read_of_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(OSError, match="not a regular file"):
        files.read_file(tmp_path / "f")


HOLD = (
    "import sys; from pathlib import Path; from pyvirtd.util.files import PidFile\n"
    "lock = PidFile.acquire(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


def hold(path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "held\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_pid_file_holds_the_pid_without_a_line_end(tmp_path: Path) -> None:
    with PidFile.acquire(tmp_path / "p"):
        assert (tmp_path / "p").read_text() == str(os.getpid())


def test_pid_file_of_another_process_names_it(tmp_path: Path) -> None:
    child = hold(tmp_path / "p")
    try:
        with pytest.raises(LockHeld) as caught:
            PidFile.acquire(tmp_path / "p")
    finally:
        end(child)
    assert caught.value.pid == child.pid
    assert str(caught.value) == (
        f"Failed to acquire pid file '{tmp_path}/p': Resource temporarily unavailable, held by process {child.pid}"
    )


def test_pid_file_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    end(hold(tmp_path / "p"))
    assert (tmp_path / "p").exists()
    with PidFile.acquire(tmp_path / "p"):
        assert (tmp_path / "p").read_text() == str(os.getpid())


def test_released_pid_file_is_gone(tmp_path: Path) -> None:
    lock = PidFile.acquire(tmp_path / "p")
    lock.release()
    lock.release()
    assert names(tmp_path) == []


def test_release_leaves_a_file_that_is_no_longer_ours(tmp_path: Path) -> None:
    lock = PidFile.acquire(tmp_path / "p")
    (tmp_path / "p").unlink()
    (tmp_path / "p").write_text("another")
    lock.release()
    assert (tmp_path / "p").read_text() == "another"


def test_pid_file_is_not_followed_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "p").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic"):
        PidFile.acquire(tmp_path / "p")
    assert (tmp_path / "victim").read_text() == "precious"


def test_pid_file_removed_while_we_wait_for_it_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, locks = tmp_path / "p", []
    original = files._lock

    def lock(fd: int, where: Path) -> None:
        original(fd, where)
        if not locks:
            path.unlink()
        locks.append(fd)

    monkeypatch.setattr(files, "_lock", lock)
    with PidFile.acquire(path):
        assert path.read_text() == str(os.getpid())
    assert len(locks) == 2
