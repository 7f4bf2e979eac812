"""Sockets that the service manager passes, and those that we make ourselves."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvirtd.daemon.listeners import Wire, network_listeners, unix_listener
from pyvirtd.errors import VirtError
from tests.support.host import SessionHost

# Starts a program with the listening sockets of argv as its descriptors from 3 on, as a service manager does.
STARTER = """
import os, socket, sys
names, *rest = sys.argv[1:]
socks = []
for at, name in enumerate(names.split(",")):
    kind, _, place = name.partition("@")
    sock = socket.socket(socket.AF_UNIX if "/" in place else socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(place if "/" in place else ("127.0.0.1", int(place)))
    if kind != "deaf": sock.listen()
    socks.append((kind, sock))
for at, (_, sock) in enumerate(socks):
    os.dup2(sock.fileno(), 100 + at)
for at in range(len(socks)):
    os.dup2(100 + at, 3 + at)
    os.close(100 + at)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(socks)))
if any(kind for kind, _ in socks): os.environ["LISTEN_FDNAMES"] = ":".join(kind for kind, _ in socks)
os.execv(rest[0], rest)
"""


class Activated(SessionHost):
    """A session daemon whose sockets were there before it. `sockets`: NAME@PATH or NAME@PORT, separated by commas."""

    sockets = ""

    def _daemon_argv(self) -> list[str]:
        return [self._python, "-c", STARTER, self.sockets, *super()._daemon_argv()]


@pytest.fixture
def activated() -> Iterator[Activated]:
    with Activated() as host:
        host.path("/run/libvirt").mkdir()
        host.path("/run/libvirt").chmod(0o777)
        yield host


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("unit", ["libvirtd", "pyvirtd"])
def test_passed_sockets_are_known_by_name(activated: Activated, unit: str) -> None:
    main, read_only = activated.socket, activated.path("/run/other")
    activated.sockets = f"{unit}-ro.socket@{read_only},{unit}.socket@{main}"
    activated.start()
    assert activated.ok("uri") == "qemu:///session"
    done = activated.run(["virsh", "-c", f"qemu+unix:///session?socket={read_only}", "nodesuspend", "mem", "60"])
    assert "read only access prevents" in done.stderr
    activated.stop()
    assert main.exists()  # it is the service manager's


def test_passed_sockets_without_names_are_known_by_place(activated: Activated) -> None:
    activated.sockets = f"@{activated.socket},@{free_port()}"
    activated.start()
    assert activated.ok("uri") == "qemu:///session"


def test_a_passed_tcp_socket_is_served_without_listen(activated: Activated) -> None:
    port = free_port()
    config = activated.write("/config/libvirt/libvirtd.conf", 'auth_tcp = "none"\n')
    for one in (config, config.parent):
        one.chmod(0o777)
    activated.sockets = f"libvirtd.socket@{activated.socket},libvirtd-tcp.socket@{port}"
    activated.start()
    done = activated.run(["virsh", "-c", f"qemu+tcp://127.0.0.1:{port}/session", "hostname"])
    assert done.stdout.strip() == os.uname().nodename, done.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("else.socket@{0}", "which is no socket of ours"),
        ("deaf@{0}", "which is no listening stream socket"),
        ("libvirtd-tls.socket@{0}", "a socket of another family"),
    ],
)
def test_a_passed_socket_that_is_nobodys_is_refused(activated: Activated, name: str, reason: str) -> None:
    argv = activated.command([activated._python, "-c", STARTER, name.format(activated.path("/run/x"))])
    done = subprocess.run(
        [*argv, activated._python, "-m", "pyvirtd"], capture_output=True, text=True, env=activated.env, timeout=30
    )
    assert done.returncode == 1
    assert reason in done.stderr


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(VirtError, match=f"Unable to bind to 127.0.0.1:{port}: Address already in use"):
            network_listeners(Wire.TCP, "127.0.0.1", port, 1)


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(VirtError, match=r"Unable to resolve address '256\.0\.0\.1' service 'nothing'"):
        network_listeners(Wire.TCP, "256.0.0.1", "nothing", 1)


def test_all_addresses_of_a_name_are_served() -> None:
    found = network_listeners(Wire.TCP, None, "0", 1)
    families = {listener.sock.family for listener in found}
    for listener in found:
        listener.sock.close()
    assert socket.AF_INET in families


def test_an_unknown_group_of_the_unix_socket_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(VirtError, match="there is no group 'no-such-group'"):
        unix_listener(tmp_path / "sock", 0o770, "no-such-group", 1)
    assert not (tmp_path / "sock").exists()
