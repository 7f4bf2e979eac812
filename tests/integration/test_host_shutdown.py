"""Guests at the host's shutdown: announced by a login manager, by the session's bus, or by a signal."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.guest import Guest
from tests.guest.build import READY
from tests.support.domains import bare_domain, tiny_domain
from tests.support.host import SessionHost

pytestmark = pytest.mark.guest
CONF = "config/libvirt/qemu.conf"
MARK = "run/libvirt/qemu/run/autostarted"


class BusHost(SessionHost):
    """A session whose system and session buses are files in its own folder."""

    @property
    def env(self) -> dict[str, str]:
        names = {"DBUS_SYSTEM_BUS_ADDRESS": "system.bus", "DBUS_SESSION_BUS_ADDRESS": "session.bus"}
        return super().env | {name: f"unix:path={self.folder}/{path}" for name, path in names.items()}


@dataclass
class Login:
    host: BusHost
    manager: "subprocess.Popen[str]"
    session: "subprocess.Popen[str]"

    def heard(self) -> str:
        assert self.manager.stdout is not None
        return self.manager.stdout.readline().strip()

    def say(self, word: str) -> None:
        assert self.manager.stdin is not None
        self.manager.stdin.write(f"{word}\n")
        self.manager.stdin.flush()


@contextmanager
def running(host: BusHost, argv: list[str]) -> "Iterator[subprocess.Popen[str]]":
    process = host.popen(argv)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def login() -> Iterator[Login]:
    with BusHost() as host:
        bus = ["dbus-daemon", "--session", "--nofork", "--nopidfile"]
        with (
            running(host, [*bus, f"--address=unix:path={host.folder}/system.bus"]),
            running(host, [*bus, f"--address=unix:path={host.folder}/session.bus"]) as session,
        ):
            while not all((host.folder / name).exists() for name in ("system.bus", "session.bus")):
                time.sleep(0.01)
            program = str(host._source / "tests/support/login_manager.py")
            with running(host, [host._python, program]) as manager:
                made = Login(host, manager, session)
                assert made.heard() == "ready"
                yield made


def configure(host: SessionHost, *lines: str) -> None:
    folder = host.path(CONF).parent
    done = host.run(["sh", "-c", f"mkdir -p {folder}; cat >{host.path(CONF)}"], text="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr


def qemus(host: SessionHost) -> int:
    return len(host.run(["pgrep", "-f", f"^/usr/bin/qemu-system.*{host.folder}"]).stdout.split())


def last_words(host: SessionHost, name: str) -> str:
    return host.path(f"cache/libvirt/qemu/log/{name}.log").read_text().strip().splitlines()[-1].split("reason=")[-1]


def boot_again(host: SessionHost) -> None:
    host.path(MARK).unlink()
    host.start()


def eventually_running(host: SessionHost, name: str) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if host.ok(f"domstate {name}") == "running":
            return True
        time.sleep(0.05)
    return False


def test_a_signal_shuts_guests_down_and_ends_those_that_stay(guest: Guest) -> None:
    with SessionHost() as host:
        configure(host, 'auto_shutdown_try_save = "none"', 'auto_shutdown_try_shutdown = "persistent"')
        host.start()
        host.define(tiny_domain(host.adopt(guest)))
        host.define(bare_domain("off"))
        with host.terminal("start tiny --console") as console:
            console.expect(READY, timeout=60)
        host.ok(["create", str(host.client_file("deaf.xml", bare_domain("deaf")))])
        os.kill(host.pid, signal.SIGUSR1)
        assert host.wait_ended() == 0
        assert (last_words(host, "tiny"), last_words(host, "deaf")) == ("shutdown", "destroyed")
        assert qemus(host) == 0
        boot_again(host)
        assert eventually_running(host, "tiny")
        assert host.ok("list --name") == "tiny"


def test_a_sessions_guests_are_saved_and_come_back_as_they_were(guest: Guest) -> None:
    with SessionHost() as host:
        host.start()
        for name in ("tiny", "still"):
            host.define(tiny_domain(host.adopt(guest), name))
        host.ok("start still --paused")
        with host.terminal("start tiny --console") as console:
            console.expect(READY, timeout=60)
            console.expect("tiny# ")
            console.command("mark=$((6 * 7))")
        os.kill(host.pid, signal.SIGUSR1)
        assert host.wait_ended() == 0
        assert (last_words(host, "tiny"), last_words(host, "still")) == ("saved", "saved")
        boot_again(host)
        assert eventually_running(host, "tiny")
        with host.terminal("console tiny") as console:
            console.prompt()
            assert console.command("echo $mark") == "42"
        assert host.ok("domstate still") == "paused"


def test_the_login_manager_waits_until_no_guest_is_left(login: Login) -> None:
    host = login.host
    configure(host, 'auto_shutdown_try_save = "none"', "auto_shutdown_wait = 1", "auto_shutdown_restore = 0")
    host.start()
    assert login.heard() == "inhibit shutdown pyvirtd delay"
    host.define(bare_domain("deaf"))
    host.ok("start deaf")
    asked = time.monotonic()
    login.say("shutdown")
    assert login.heard() == "released"
    assert time.monotonic() - asked >= 1  # it was given its time to power off
    assert host.wait_ended() == 0
    assert qemus(host) == 0
    assert not host.path("config/libvirt/qemu/autostart/deaf.xml.once").is_symlink()


def test_a_sessions_end_is_its_guests_end(login: Login) -> None:
    host = login.host
    configure(host, 'auto_shutdown_try_save = "none"', 'auto_shutdown_try_shutdown = "none"')
    host.start()
    host.define(bare_domain("deaf"))
    host.ok("start deaf")
    login.session.kill()
    assert host.wait_ended() == 0
    assert last_words(host, "deaf") == "destroyed"


def test_without_a_policy_guests_run_on(login: Login) -> None:
    host = login.host
    configure(host, *(f'auto_shutdown_{step} = "none"' for step in ("try_save", "try_shutdown", "poweroff")))
    host.start()
    host.define(bare_domain("on"))
    host.ok("start on")
    assert login.heard() == "inhibit shutdown pyvirtd delay"
    login.say("shutdown")
    assert login.heard() == "released"
    assert host.wait_ended() == 0
    host.start()
    assert host.ok("domstate on") == "running"
