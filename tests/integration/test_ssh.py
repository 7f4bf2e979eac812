"""qemu+ssh through a real sshd: by libvirt's helper where it is installed, by ours, and by netcat; as root."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import SessionHost, SystemHost
from tests.support.ssh import SSHD, Ssh

LIBVIRT_HELPER = Path("/usr/bin/virt-ssh-helper")


@pytest.fixture(scope="module")
def ssh(host: SystemHost) -> Iterator[Ssh]:
    if not Path(SSHD).exists():
        pytest.skip("sshd is not installed (package openssh-server)")
    made = Ssh(host)
    yield made
    made.end()


def test_our_helper_connects(ssh: Ssh) -> None:
    ssh.serve(ssh.path)
    assert ssh.virsh("hostname", more="&proxy=native") == os.uname().nodename
    assert ssh.virsh("; ".join(["capabilities"] * 20)).count("<capabilities>") == 20
    assert "read only access" in ssh.virsh("nodesuspend mem 60", more="&proxy=native", read_only=True)


def test_libvirts_helper_connects(ssh: Ssh) -> None:
    if not LIBVIRT_HELPER.exists():
        pytest.skip("libvirt's virt-ssh-helper is not installed (package libvirt-daemon)")
    ssh.serve("/usr/bin:/bin")
    assert ssh.virsh("hostname", more="&proxy=native") == os.uname().nodename


def test_netcat_connects(ssh: Ssh) -> None:
    if not shutil.which("nc"):
        pytest.skip("nc is not installed (package netcat-openbsd)")
    ssh.serve("/usr/bin:/bin")
    assert ssh.virsh("hostname", more="&proxy=netcat") == os.uname().nodename


def test_our_helper_says_what_is_wrong(ssh: Ssh) -> None:
    helper = [ssh.host._python, "-m", "pyvirtd.ssh_helper"]
    for uri, words in (
        ("qemu:///system?socket=/nowhere", "Failed to connect socket to '/nowhere': No such file or directory"),
        ("qemu://other/system", "names another host"),
        ("system", "no scheme"),
    ):
        done = ssh.host.run([*helper, uri])
        assert done.returncode == 1
        assert words in done.stderr
    assert ssh.host.run(helper).returncode != 0


def test_our_helper_starts_the_daemon_of_a_session() -> None:
    with SessionHost() as session:
        environment = ["env", "LIBVIRT_AUTOSTART=1"]
        command = [*environment, session._python, "-m", "pyvirtd.ssh_helper", "qemu:///session"]
        helper = session.popen(command)
        try:
            pid_file = session.path("/run/libvirt/libvirtd.pid")
            for _ in range(200):
                if pid_file.exists() and session.virsh("uri").returncode == 0:
                    break
                time.sleep(0.05)
            assert session.ok("uri") == "qemu:///session"
            assert helper.poll() is None
        finally:
            helper.stdin.close()  # type: ignore[union-attr]
            helper.wait(10)
            helper.stdout.close()  # type: ignore[union-attr]
            if pid_file.exists():
                os.kill(int(pid_file.read_text()), 15)
