"""A machine of its own with the real systemd as its first process, over an overlay of this one's root. For root.

It has namespaces, control groups of version 2, no network and a fresh /run; nothing of it is left on the host.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.host import ROOT
from tests.support.terminal import Terminal

PROGRAM = str(Path(sys.executable).parent / "pyvirtd")
INIT = Path("/lib/systemd/systemd")
BOOT_S = 30.0
# Runs as the first process of the new namespaces, in the folder that is to be the root's place: $1.
SCRIPT = r"""
set -e
cd "$1"
mount -t tmpfs -o mode=755 tmpfs .
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
cd root
mount -t proc proc proc
for name in kernel vm fs; do
    mount --bind "proc/sys/$name" "proc/sys/$name"
    mount -o remount,ro,bind "proc/sys/$name"
done
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 dev/tty c 5 0
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
for unit in systemd-udevd.service systemd-networkd.service systemd-resolved.service getty.target \
    systemd-journald-audit.socket console-getty.service libvirtd.service libvirtd.socket libvirtd-ro.socket \
    libvirtd-admin.socket libvirt-guests.service; do ln -sf /dev/null "etc/systemd/system/$unit"; done
ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
rm -rf var/lib/libvirt var/log/libvirt var/cache/libvirt etc/libvirt
mkdir -p etc/libvirt
: > etc/machine-id
ip link set lo up
mkdir -p .old
pivot_root . .old
umount -l /.old
rmdir /.old
exec env -i container=pyvirtd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal
"""


class Machine:
    """One booted systemd; `close` ends it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pv-sd-"))
        self._group = _unified() / self.folder.name
        self._group.mkdir()
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup"]
        self._outer = subprocess.Popen(
            [
                "sh",
                "-c",
                'echo $$ > "$0/cgroup.procs"; exec "$@"',
                str(self._group),
                *unshare,
                "--propagation=private",
                "bash",
                "-c",
                SCRIPT,
                "boot",
                str(self.folder),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def missing() -> str:
        """Why there can be no such machine here; empty where there can."""
        if os.geteuid() != 0:
            return "systemd as a first process needs root"
        if not Path(PROGRAM).exists() or not shutil.which("virsh"):
            return "the project is not installed here, or virsh is not"
        if not INIT.exists() or not shutil.which("dbus-daemon") or not Path("/lib/systemd/systemd-machined").exists():
            return "systemd, dbus or systemd-container is not installed"
        if not (_unified() / "cgroup.controllers").exists() or not os.access(_unified(), os.W_OK):
            return "no control groups of version 2 that could be written"
        trial = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--propagation=private", "bash", "-c"]
        script = (
            "set -e; mount -t tmpfs tmpfs /mnt; mkdir /mnt/u /mnt/w /mnt/r; "
            "mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/r; mknod /mnt/null c 1 3"
        )
        if subprocess.run([*trial, script], capture_output=True, check=False).returncode:
            return "this root may not mount an overlay of the root, or make device nodes"
        return ""

    def command(self, *argv: str) -> list[str]:
        """The command line that runs a program in it."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", "--"]
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root", "TERM=dumb"]
        return [*enter, *clean, *argv]

    def run(self, *argv: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run a program in it."""
        command, nothing = self.command(*argv), subprocess.DEVNULL
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=nothing, check=False)

    def ok(self, *argv: str, timeout: float = 60) -> str:
        """What a program prints that must succeed."""
        done = self.run(*argv, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Put a file into it."""
        place = Path(f"/proc/{self._leader}/root") / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def add_user(self, name: str, password: str, *options: str) -> None:
        """Make an account that can log in; `options` are useradd(8)'s."""
        self.ok("useradd", "--create-home", "--shell", "/bin/sh", *options, name)
        self.write("/root/password", f"{name}:{password}\n")
        self.ok("sh", "-c", "chpasswd < /root/password")

    def as_user(self, name: str, *argv: str) -> list[str]:
        """What to run for somebody whose manager runs to do something."""
        runtime = f"XDG_RUNTIME_DIR=/run/user/{self.ok('id', '--user', name)}"
        return ["runuser", "--user", name, "--", "env", runtime, f"HOME=/home/{name}", *argv]

    @contextmanager
    def login(self, name: str, password: str) -> Iterator[Terminal]:
        """A terminal on which somebody has logged in; its shell's prompt is "$ "."""
        with Terminal(self.command("login", name)) as terminal:
            terminal.expect("Password: ")
            terminal.send_secret(f"{password}\n")
            terminal.expect(r"\$ ")
            yield terminal

    def install(self) -> None:
        """Install the project's units, for the program of these tests, its users and its policies."""
        self.write("/etc/sysusers.d/pyvirtd.conf", (ROOT / "systemd/pyvirtd.sysusers").read_text())
        self.ok("systemd-sysusers")
        self.ok("chmod", "a+x", *(str(folder) for folder in ROOT.parents))
        for policy in (ROOT / "conf").glob("*.policy"):
            self.write(f"/usr/share/polkit-1/actions/{policy.name}", policy.read_text())
        for kind, target in (("*.service", "system"), ("*.socket", "system"), ("user/*", "user")):
            for unit in (ROOT / "systemd").glob(kind):
                text = unit.read_text().replace("/usr/sbin/pyvirtd", PROGRAM)
                self.write(f"/etc/systemd/{target}/{unit.name}", text)
        self.ok("systemctl", "daemon-reload")

    def close(self) -> None:
        """End it, and remove what is left of it on the host."""
        self._outer.kill()
        self._outer.wait()
        for _ in range(100):
            for folder, _, _ in os.walk(self._group, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    break
            if not self._group.exists():
                break
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            assert self._outer.poll() is None, "systemd did not start"
            children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
            if children:
                self._leader = int(children[0])
                if self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                    return
            time.sleep(0.1)
        raise AssertionError(f"systemd is not up after {BOOT_S:g} s")


def _unified() -> Path:
    """Where control groups of version 2 are mounted."""
    unified = Path("/sys/fs/cgroup/unified")
    return unified if unified.is_dir() else Path("/sys/fs/cgroup")
