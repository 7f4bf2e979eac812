"""Hook scripts, with real scripts in a directory of their own."""

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from pyvirtd.constants.error import ErrorDomain, ErrorNumber
from pyvirtd.core.hooks import DaemonOp, DomainOp, HookDriver, Hooks, NetworkOp, script_environment
from pyvirtd.errors import HookFailed
from pyvirtd.paths import Paths

XML = "<domain>\n  <name>vé</name>\n</domain>\n"


class Place:
    """A configuration directory with hooks, and what they leave."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = Paths.system(root)
        self.hooks = Hooks(self.paths)
        self.paths.hooks.mkdir(parents=True)

    def script(self, name: str, body: str, mode: int = 0o755) -> Path:
        path = self.paths.hooks / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(mode)
        return path

    def recorder(self, name: str) -> None:
        self.script(name, f'echo "{name}" "$@" >> {self.root}/calls\ncat > {self.root}/stdin')

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def domain(self, operation: DomainOp, xml: str = XML) -> str | None:
        return asyncio.run(self.hooks.domain(HookDriver.QEMU, "web1", operation, xml))


def state_of(pid: str) -> str:
    """The state letter of a process, "" once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_no_scripts_is_nothing_to_do(place: Place) -> None:
    def never() -> str:
        raise AssertionError

    assert not place.hooks.present("qemu")
    assert asyncio.run(place.hooks.run("qemu", "web1", "start", "begin", "-", never)) is None


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        (DomainOp.PREPARE, "web1 prepare begin -"),
        (DomainOp.STARTED, "web1 started begin -"),
        (DomainOp.RECONNECT, "web1 reconnect begin -"),
        (DomainOp.MIGRATE, "web1 migrate begin -"),
        (DomainOp.STOPPED, "web1 stopped end -"),
        (DomainOp.RELEASE, "web1 release end -"),
    ],
)
def test_a_guests_hook_gets_libvirts_arguments_and_the_document(
    place: Place, operation: DomainOp, arguments: str
) -> None:
    place.recorder("qemu")

    place.domain(operation)

    assert place.calls == [f"qemu {arguments}"]
    assert (place.root / "stdin").read_text() == XML


def test_the_daemons_hook_gets_libvirts_arguments(place: Place) -> None:
    place.recorder("daemon")

    for operation in DaemonOp:
        asyncio.run(place.hooks.daemon(operation))

    assert place.calls == ["daemon - start - start", "daemon - shutdown - shutdown", "daemon - reload begin SIGHUP"]
    assert (place.root / "stdin").read_text() == ""


def test_a_networks_hook_gets_libvirts_arguments(place: Place) -> None:
    place.recorder("network")

    for operation in (NetworkOp.START, NetworkOp.PORT_CREATED, NetworkOp.PORT_DELETED, NetworkOp.STOPPED):
        asyncio.run(place.hooks.network("net1", operation, "<hookData/>"))

    assert place.calls == [
        "network net1 start begin -",
        "network net1 port-created begin -",
        "network net1 port-deleted end -",
        "network net1 stopped end -",
    ]


def test_the_directorys_scripts_follow_in_the_order_of_their_bytes(place: Place) -> None:
    for name in ("qemu", *(f"qemu.d/{name}" for name in ("a", "B", ".h", "c10", "c9", "_x"))):
        place.recorder(name)
    (place.paths.hooks / "qemu.d/directory").mkdir()
    place.script("qemu.d/not-executable", "exit 1", mode=0o644)

    place.domain(DomainOp.START)

    order = [line.split()[0] for line in place.calls]
    assert order == ["qemu", "qemu.d/.h", "qemu.d/B", "qemu.d/_x", "qemu.d/a", "qemu.d/c10", "qemu.d/c9"]


def test_a_main_script_that_may_not_be_executed_is_told_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    path = place.script("qemu", "exit 1", mode=0o644)

    with caplog.at_level(logging.WARNING):
        place.domain(DomainOp.START)
        place.domain(DomainOp.STARTED)

    assert caplog.messages == [f"Non-executable hook script {path}"]


def test_a_script_sees_little_of_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    place.script("qemu", f"env > {place.root}/env; ls /proc/self/fd > {place.root}/fds")

    place.domain(DomainOp.START)

    lines = dict(line.split("=", 1) for line in (place.root / "env").read_text().splitlines())
    assert lines["LC_ALL"] == "C"
    assert lines["PATH"] == os.environ["PATH"]
    assert set(lines) - {"PWD", "OLDPWD", "SHLVL", "_"} == set(script_environment(os.environ))
    assert len((place.root / "fds").read_text().split()) == 4  # standard ones, and the directory being read


def test_nothing_printed_changes_nothing(place: Place) -> None:
    place.script("qemu", "echo; echo '  '")

    assert place.domain(DomainOp.MIGRATE) is None


def test_what_is_printed_goes_through_all_scripts(place: Place) -> None:
    place.script("qemu", "sed s/vé/v1/")
    place.script("qemu.d/a", "echo '  '")
    place.script("qemu.d/b", "sed s/v1/v1v2/")
    place.script("qemu.d/c", "true")

    assert place.domain(DomainOp.RESTORE) == XML.replace("vé", "v1v2")


def test_a_failure_has_libvirts_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "USER", "LOGNAME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("HOME", "/root")
    path = place.script("qemu", "echo out; echo 'no storage\nat all' >&2; exit 3")

    with pytest.raises(HookFailed) as info:
        place.domain(DomainOp.PREPARE)

    assert info.value.message == (
        "Hook script execution failed: internal error: Child process "
        f"(LC_ALL=C PATH=/usr/bin:/bin HOME=/root {path} web1 prepare begin -) "
        "unexpected exit status 3: no storage\nat all\n"
    )
    assert (info.value.code, info.value.domain) == (ErrorNumber.HOOK_SCRIPT_FAILED, ErrorDomain.HOOK)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("exit 1", "unexpected exit status 1"),
        ("kill -9 $$", "unexpected fatal signal 9"),
    ],
)
def test_a_failure_without_words(place: Place, body: str, words: str) -> None:
    place.script("qemu", body)

    with pytest.raises(HookFailed) as info:
        place.domain(DomainOp.PREPARE)

    assert info.value.message.endswith(f" web1 prepare begin -) {words}")


def test_a_script_that_cannot_be_executed_fails(place: Place) -> None:
    path = place.script("qemu", "")
    path.write_text("#!/nonexistent\n")

    with pytest.raises(HookFailed, match=r"unexpected exit status 127: cannot execute binary .*: No such file"):
        place.domain(DomainOp.PREPARE)


def test_all_scripts_run_and_the_last_failure_is_told(place: Place) -> None:
    place.script("qemu", "exit 1")
    place.script("qemu.d/a", "exit 2")
    place.recorder("qemu.d/b")

    with pytest.raises(HookFailed, match="unexpected exit status 2"):
        place.domain(DomainOp.PREPARE)

    assert place.calls == ["qemu.d/b web1 prepare begin -"]


def test_a_script_that_hangs_is_killed_with_its_children(place: Place) -> None:
    hooks = Hooks(place.paths, deadline_s=0.5)
    place.script("qemu", f"sleep 60 & echo $! > {place.root}/child; sleep 60")
    began = time.monotonic()

    with pytest.raises(HookFailed, match=r"did not end within 0\.5 seconds"):
        asyncio.run(hooks.domain(HookDriver.QEMU, "web1", DomainOp.PREPARE, XML))

    assert time.monotonic() - began < 10
    child = (place.root / "child").read_text().strip()
    while state_of(child) not in ("", "Z"):
        assert time.monotonic() - began < 10
        time.sleep(0.01)


def test_a_script_that_prints_without_end_is_killed(place: Place) -> None:
    place.script("qemu", "exec yes")

    with pytest.raises(HookFailed, match="printed more than"):
        place.domain(DomainOp.PREPARE)


def test_a_script_may_leave_a_child_that_keeps_its_output(place: Place) -> None:
    place.script("qemu", "echo '<new/>'; sleep 5 &")
    began = time.monotonic()

    assert place.domain(DomainOp.MIGRATE) == "<new/>\n"
    assert time.monotonic() - began < 4


def test_scripts_run_beside_the_loop(place: Place) -> None:
    """A script that calls the daemon gets its answer while it runs."""
    place.script("qemu", f"touch {place.root}/asked; until [ -e {place.root}/answered ]; do sleep 0.02; done")

    async def work() -> None:
        running = asyncio.create_task(place.hooks.domain(HookDriver.QEMU, "web1", DomainOp.STARTED, XML))
        while not (place.root / "asked").exists():  # noqa: ASYNC110 - the script is not ours to notify us
            await asyncio.sleep(0.01)
        (place.root / "answered").touch()
        await asyncio.wait_for(running, 10)

    asyncio.run(work())
