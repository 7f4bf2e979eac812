"""A real sshd in a host, with keys of its own; who may log in is root."""

import subprocess
import time

from tests.support.host import SystemHost

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
Subsystem sftp internal-sftp
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
