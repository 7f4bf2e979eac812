"""qemu+ssh through a real sshd: by libvirt's helper where it is installed, by ours, and by netcat; as root."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import SessionHost, SystemHost

LIBVIRT_HELPER = Path("/usr/bin/virt-ssh-helper")
SSHD = "/usr/sbin/sshd"
PORT = 2222
SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
SetEnv PATH={path}
"""
SSH_CONFIG = """
Host *
  IdentityFile {folder}/user_key
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  BatchMode yes
"""


class Ssh:
    """A host that answers ssh."""

    def __init__(self, host: SystemHost) -> None:
        self.host = host
        self.folder = host.folder / "ssh"
        self.folder.mkdir()
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        helpers = self.folder / "bin"
        helpers.mkdir()
        script = helpers / "virt-ssh-helper"
        script.write_text(f'#!/bin/sh\nPYTHONPATH={host._source} exec {host._python} -m pyvirtd.ssh_helper "$@"\n')
        script.chmod(0o755)
        self.config = self.folder / "ssh_config"
        self.config.write_text(SSH_CONFIG.format(folder=self.folder))
        self.wrapper = self.folder / "ssh"
        self.wrapper.write_text(f'#!/bin/sh\nexec ssh -F {self.config} "$@"\n')
        self.wrapper.chmod(0o755)
        self.path = f"{helpers}:{host.env['PATH']}"
        self._sshd: subprocess.Popen[str] | None = None

    def serve(self, path: str) -> None:
        """Answer with this search path for programs."""
        self.end()
        settings = SSHD_CONFIG.format(port=PORT, folder=self.folder, path=path)
        self.folder.joinpath("sshd_config").write_text(settings)
        self.host.path("/run/sshd").mkdir(exist_ok=True)
        self._sshd = self.host.popen([SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")])
        for _ in range(100):
            if self.host.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}"]).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError("sshd does not listen")

    def end(self) -> None:
        if self._sshd is not None:
            self._sshd.terminate()
            self._sshd.communicate(timeout=10)
            self._sshd = None

    def virsh(self, command: str, *, what: str = "system", more: str = "", read_only: bool = False) -> str:
        uri = f"qemu+ssh://root@127.0.0.1:{PORT}/{what}?command={self.wrapper}{more}"
        options = ["-r"] if read_only else []
        done = self.host.run(["virsh", "-q", *options, "-c", uri, command], timeout=30)
        return (done.stdout + done.stderr).strip()


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
