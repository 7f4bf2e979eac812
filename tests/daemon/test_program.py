"""The program: options, its place in the background, pid file and sockets, signals, configuration."""

import grp
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.host import Host, SessionHost, SystemHost

CONFIG = "/config/libvirt/libvirtd.conf"  # of a session


@pytest.fixture
def made() -> Iterator[SessionHost]:
    """A session host whose daemon does not run yet."""
    with SessionHost() as host:
        yield host


@pytest.fixture
def system() -> Iterator[SystemHost]:
    """A system host whose daemon does not run yet."""
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost() as host:
        yield host


def configure(host: Host, text: str) -> None:
    path = host.write(CONFIG if isinstance(host, SessionHost) else "/etc/libvirt/libvirtd.conf", text)
    owner = path.parent.parent.stat()
    for one in (path, path.parent):
        one.chmod(0o755)
        os.chown(one, owner.st_uid, owner.st_gid)


def program(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return host.run([host._python, "-m", "pyvirtd", *arguments], timeout=30)


def eventually(condition: Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def pid_file(host: Host) -> Path:
    return host.path("/run/libvirtd.pid" if isinstance(host, SystemHost) else "/run/libvirt/libvirtd.pid")


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version_is_told(made: SessionHost, option: str) -> None:
    done = program(made, option)
    assert (done.returncode, done.stdout.strip()) == (0, f"pyvirtd (libvirt) {version('pyvirtd')}")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_options_and_places(made: SessionHost, option: str) -> None:
    done = program(made, option)
    assert done.returncode == 0
    for words in ("-d | --daemon", "-t | --timeout <secs>", str(made.socket), "libvirtd.conf"):
        assert words in done.stderr + done.stdout


@pytest.mark.parametrize("arguments", [["--no-such"], ["-t", "x"], ["-f"], ["word"]], ids=" ".join)
def test_bad_options_are_refused(made: SessionHost, arguments: list[str]) -> None:
    done = program(made, *arguments)
    assert done.returncode == 1
    assert done.stderr


def test_listening_without_certificates_stops_the_start(made: SessionHost) -> None:
    configure(made, 'ca_file = "/nowhere/ca.pem"\ncert_file = "/nowhere/cert.pem"\nkey_file = "/nowhere/key.pem"\n')
    done = program(made, "--listen")
    assert done.returncode == 1
    assert "Cannot read CA certificate '/nowhere/ca.pem': No such file or directory" in done.stderr


# --- background -------------------------------------------------------------------------------------------------------


def test_in_the_background_it_returns_when_it_serves(made: SessionHost) -> None:
    done = program(made, "-d")
    assert done.returncode == 0, done.stderr
    pid = int(pid_file(made).read_text())
    try:
        assert "test" in made.ok(f"-c test+unix:///default?socket={made.socket} list")
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) != os.getsid(0)
        for fd in (0, 1, 2):
            assert os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
    finally:
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not made.socket.exists())


def test_directories_that_cannot_be_made_stop_the_start(made: SessionHost) -> None:
    made.write("/run/libvirt", "in the way")
    done = program(made)
    assert done.returncode == 1
    assert re.search(r"^pyvirtd: error: .*Not a directory: .*/run/libvirt", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_in_the_background_a_failed_start_is_told(made: SessionHost) -> None:
    configure(made, "no_such_key = 1\n")
    done = program(made, "-d")
    assert done.returncode == 1
    assert "no_such_key" in done.stderr


# --- one daemon -------------------------------------------------------------------------------------------------------


def test_a_second_daemon_names_the_first(made: SessionHost) -> None:
    made.start()
    assert pid_file(made).read_text() == str(made.pid)
    done = program(made)
    assert done.returncode == 1
    assert f"held by process {made.pid}" in done.stderr
    assert made.virsh("uri").returncode == 0


def test_another_pid_file_makes_no_second_daemon(made: SessionHost) -> None:
    made.start()
    done = program(made, "-p", str(made.path("/run/other.pid")))
    assert done.returncode == 1
    assert f"another daemon serves {made.socket} (pid {made.pid})" in done.stderr
    assert made.virsh("uri").returncode == 0
    assert not made.path("/run/other.pid").exists()


def test_the_pid_file_may_be_elsewhere(made: SessionHost) -> None:
    made.arguments = ["-p", str(made.path("/run/my.pid"))]
    made.start()
    assert made.path("/run/my.pid").read_text() == str(made.pid)
    assert not pid_file(made).exists()


def test_a_killed_daemon_starts_again_at_once(made: SessionHost) -> None:
    made.start()
    made.kill(signal.SIGKILL)
    assert made.socket.exists()
    assert pid_file(made).exists()
    made.start()
    assert pid_file(made).read_text() == str(made.pid)


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_well(made: SessionHost, number: signal.Signals) -> None:
    made.start()
    assert made.kill(number) == 0
    assert not made.socket.exists()
    assert not pid_file(made).exists()


def test_connected_clients_see_the_end(made: SessionHost) -> None:
    made.start()
    with made.popen(
        ["virsh", "-q", "-c", f"test+unix:///default?socket={made.socket}", "event", "--all", "--loop"]
    ) as client:
        time.sleep(0.3)
        assert made.stop() == 0
        assert client.wait(10) != 0


def test_an_idle_daemon_ends(made: SessionHost) -> None:
    made.arguments = ["-t", "1"]
    made.start()
    start = time.monotonic()
    assert made.wait_ended() == 0
    assert 0.5 < time.monotonic() - start < 5
    assert not made.socket.exists()


def test_a_daemon_with_a_client_does_not_end(made: SessionHost) -> None:
    made.arguments = ["-t", "1"]
    made.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(made.socket))
        time.sleep(2)
        assert made._status(made.pid) is None
    assert made.wait_ended() == 0


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("\nmax_cliants = 5\n", 2, "unknown key 'max_cliants'"),
        ('max_clients = "many"\n', 1, "max_clients"),
        ("# fine\nmax_clients = (\n", 2, ""),
        ('auth_unix_rw = "maybe"\n', 1, "auth_unix_rw: unsupported value 'maybe'"),
    ],
)
def test_a_bad_configuration_stops_the_start(made: SessionHost, text: str, line: int, words: str) -> None:
    configure(made, text)
    done = program(made)
    assert done.returncode == 1
    assert re.search(rf"libvirtd\.conf:{line}: .*{re.escape(words)}", done.stderr), done.stderr
    assert not made.socket.exists()


def test_a_configuration_that_was_named_must_be_there(made: SessionHost) -> None:
    done = program(made, "-f", "/no/such/file")
    assert done.returncode == 1
    assert "/no/such/file" in done.stderr


def test_a_named_configuration_is_read_in_place_of_the_default(made: SessionHost) -> None:
    configure(made, "no_such_key = 1\n")
    other = made.write("/config/mine.conf", "max_clients = 30\n")
    made.arguments = ["-f", str(other)]
    made.start()


def test_keys_without_effect_are_named_once(made: SessionHost) -> None:
    configure(made, "ovs_timeout = 7\nmax_clients = 40\n")
    made.start()
    (line,) = [line for line in made.log().splitlines() if "no effect yet" in line]
    assert "ovs_timeout" in line
    assert "max_clients" not in line


def test_logs_go_where_they_are_sent(made: SessionHost) -> None:
    first, second = made.path("/run/all.log"), made.path("/run/errors.log")
    filters = 'log_filters = "1:daemon"\n'
    configure(made, f'log_level = 4\n{filters}log_outputs = "1:file:{first} 4:file:{second}"\n')
    made.start()
    made.ok(f"-c test+unix:///default?socket={made.socket} list")
    made.virsh(f"-c test+unix:///default?socket={made.socket} domid nobody")
    made.stop()
    text = first.read_text()
    assert "domain_lookup_by_name failed" in text
    assert "connect_list_all_domains" in text
    assert "pyvirtd.core" not in text
    assert second.read_text() == ""


def test_a_reload_takes_new_limits_and_keeps_old_ones_from_a_broken_file(made: SessionHost) -> None:
    configure(made, "max_clients = 1\nmax_anonymous_clients = 1\n")
    made.start()
    with socket.socket(socket.AF_UNIX) as blocker:
        blocker.connect(str(made.socket))
        configure(made, "max_clients = what\n")
        os.kill(made.pid, signal.SIGHUP)
        eventually(lambda: "the configuration stays as it was" in made.log())
        assert "Too many active clients (1)" in made.virsh("uri").stderr
        configure(made, "max_clients = 10\nmax_anonymous_clients = 1\n")
        os.kill(made.pid, signal.SIGHUP)
        eventually(lambda: made.virsh("uri", timeout=5).returncode == 0)


def test_the_limit_of_open_files_follows_the_number_of_clients(made: SessionHost) -> None:
    configure(made, "max_clients = 100\nmax_anonymous_clients = 20\n")
    made.start()
    limits = Path(f"/proc/{made.pid}/limits").read_text()
    soft, hard = (int(word) for word in re.findall(r"Max open files +(\d+) +(\d+)", limits)[0])
    assert soft >= min(hard, 3292)


def test_a_reload_without_a_file_takes_the_defaults(made: SessionHost) -> None:
    made.start()
    os.kill(made.pid, signal.SIGHUP)
    time.sleep(0.2)
    assert made.virsh("uri").returncode == 0
    assert "stays as it was" not in made.log()


# --- sockets ----------------------------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_sessions_socket_is_its_users_alone(made: SessionHost) -> None:
    made.start()
    assert mode(made.socket) == 0o700
    assert not made.path("/run/libvirt/libvirt-sock-ro").exists()


def test_the_systems_sockets_are_open_and_polkit_decides(system: SystemHost) -> None:
    system.start()
    assert mode(system.socket) == 0o777
    read_only = system.socket.with_name("libvirt-sock-ro")
    assert mode(read_only) == 0o777
    for path, flag in ((system.socket, ""), (read_only, "-r")):
        done = system.run(
            ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "virsh", "-q", *flag.split(), "list"]
        )
        assert done.returncode == 1, path
        assert "Unable to get system bus connection" in done.stderr  # nor polkit behind it: nobody gets in


def test_modes_and_group_are_those_of_the_configuration(system: SystemHost) -> None:
    group = grp.getgrgid(1).gr_name
    configure(
        system,
        'unix_sock_rw_perms = "0770"\nunix_sock_ro_perms = "0740"\nauth_unix_rw = "none"\n'
        f'unix_sock_group = "{group}"\n',
    )
    system.start()
    read_only = system.socket.with_name("libvirt-sock-ro")
    assert (mode(system.socket), mode(read_only)) == (0o770, 0o740)
    assert {system.socket.stat().st_gid, read_only.stat().st_gid} == {1}
    with_group = ["setpriv", "--reuid=nobody", f"--regid={group}", "--clear-groups", "virsh", "-q", "list"]
    assert system.run(with_group).returncode == 0


def test_a_group_that_there_is_not_stops_the_start(system: SystemHost) -> None:
    configure(system, 'unix_sock_group = "nosuchgroup"\n')
    done = program(system)
    assert done.returncode == 1
    assert "there is no group 'nosuchgroup'" in done.stderr
    assert not system.socket.exists()


def test_without_authentication_the_mode_is_roots_alone(system: SystemHost) -> None:
    configure(system, 'auth_unix_rw = "none"\n')
    system.start()
    assert mode(system.socket) == 0o700


# --- cost -------------------------------------------------------------------------------------------------------------


def test_idle_clients_cost_little(made: SessionHost) -> None:
    count = 1000
    configure(made, f"max_clients = {count + 10}\nmax_anonymous_clients = 0\n")
    made.start()
    made.virsh("uri")
    before = made.pss_kib()
    clients = []
    try:
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(10)
            client.connect(str(made.socket))
            clients.append(client)
        eventually(lambda: len(os.listdir(f"/proc/{made.pid}/fd")) > count)
        cost = (made.pss_kib() - before) / count
        print(f"\n{cost:.1f} KiB for each of {count} idle clients")
        assert cost < 20
        start = time.monotonic()
        assert made.virsh("uri").returncode == 0
        assert time.monotonic() - start < 1
    finally:
        for client in clients:
            client.close()
    eventually(lambda: len(os.listdir(f"/proc/{made.pid}/fd")) < 100)
    print(sys.version_info[:2], f"{made.pss_kib() - before} KiB after they left")
