"""A host with a daemon of its own: private directories, start, kill -9, restart, and clients that reach this one only.

`SystemHost` (root) serves qemu:///system in mount and network namespaces of its own; `SessionHost` serves
qemu:///session from environment variables alone. Both run `pyvirtd` or, to compare, Debian's `libvirtd`.
"""

import contextlib
import grp
import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from tests.guest import Guest
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    import libvirt

ROOT = Path(__file__).resolve().parents[2]
LIBVIRTD = "/usr/sbin/libvirtd"
CGROUPS = Path("/sys/fs/cgroup")
QEMU_USER = "libvirt-qemu"  # who Debian's libvirtd runs QEMU as

# The holder itself makes the mounts private.
UNSHARE_MOUNTS = ("--mount", "--propagation", "unchanged", "--")


class HostError(AssertionError):
    """The daemon did not do what the host needs; the text holds the end of its log."""


class Host(ABC):
    """One daemon in its own directory tree, with everything that was started in it; `close` ends and removes all."""

    mode: str
    uri: str

    def __init__(
        self,
        daemon: str = "pyvirtd",
        *,
        arguments: Sequence[str] = (),
        kvm: bool = False,
        keep: bool = False,
        cgroups: bool = False,
    ) -> None:
        assert daemon in ("pyvirtd", "libvirtd")
        self.daemon = daemon
        self.arguments = list(arguments)
        self.pid = 0
        self._keep = keep
        # Not pytest's own temporary folder: socket paths are limited to 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pv-"))
        self.folder.chmod(0o755)
        self.log_path = self.folder / "daemon.log"
        self.log_path.touch()
        self._source = ROOT
        self._prepare()
        script = str(self._source / "tests/support/holder.py")
        options = [*self._holder_options(), *(["--kvm"] if kvm else [])]
        if cgroups:
            options.append(f"--cgroups={self.folder.name}")
        self._holder = subprocess.Popen(
            [*self._holder_prefix(), self._python, script, str(self.folder), "--mode", self.mode, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.env,
        )
        self._read_answer()

    # -- the daemon

    def start(self, timeout: float = 30) -> Self:
        """Start the daemon and wait until it answers. Raises HostError with the end of its log."""
        self.spawn()
        self.wait_ready(timeout)
        return self

    def spawn(self) -> int:
        """Start the daemon without waiting; returns its process id."""
        assert not self.pid, "the daemon runs"
        self.pid = self._start(self._daemon_argv(), self.log_path)
        return self.pid

    def wait_ready(self, timeout: float = 30) -> None:
        """Wait until a client gets an answer."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            # A daemon that takes a connection and never answers must not keep the client waiting for ever.
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.socket.exists() and self.virsh("uri", timeout=timeout).returncode == 0:
                    return
            if self.pid and (status := self._status(self.pid)) is not None:
                self.pid = 0
                raise HostError(f"{self.daemon} ended with status {status}:\n{self.log()[-4000:]}")
            time.sleep(0.02)
        raise HostError(f"{self.daemon} does not answer after {timeout} s:\n{self.log()[-4000:]}")

    def kill(self, number: int = signal.SIGKILL, timeout: float = 30) -> int:
        """Send the daemon a signal that ends it, wait, and return its status; the guests run on."""
        assert self.pid, "the daemon does not run"
        os.kill(self.pid, number)
        return self.wait_ended(timeout)

    def wait_ended(self, timeout: float = 30) -> int:
        """Wait for the daemon to end by itself; returns its status."""
        deadline = time.monotonic() + timeout
        while (status := self._status(self.pid)) is None:
            if time.monotonic() > deadline:
                raise HostError(f"{self.daemon} does not end:\n{self.log()[-4000:]}")
            time.sleep(0.01)
        self.pid = 0
        return status

    def stop(self) -> int:
        """End the daemon as an administrator would."""
        return self.kill(signal.SIGTERM)

    def restart(self, number: int = signal.SIGTERM) -> None:
        """End the daemon with a signal and start it again."""
        self.kill(number)
        self.start()

    def log(self) -> str:
        """What the daemon has written so far."""
        return self.log_path.read_text(errors="replace")

    def pss_kib(self) -> int:
        """The daemon's proportional set size."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    # -- clients

    @abstractmethod
    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` where the default sockets are this daemon's."""

    def run(
        self, argv: Sequence[str], *, text: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as a client of this daemon."""
        return subprocess.run(
            self.command(argv), input=text, capture_output=True, text=True, timeout=timeout, env=self.env, check=False
        )

    def popen(self, argv: Sequence[str]) -> "subprocess.Popen[str]":
        """Start a program as a client of this daemon, with pipes; the caller ends it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(argv), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=self.env
        )

    def virsh(
        self, command: str | Sequence[str], *, text: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one virsh command; `text` is its standard input (`define /dev/stdin`)."""
        words = shlex.split(command) if isinstance(command, str) else list(command)
        return self.run(["virsh", "-q", *words], text=text, timeout=timeout)

    def ok(self, command: str | Sequence[str], *, text: str | None = None, timeout: float = 60) -> str:
        """The output of a virsh command that must succeed."""
        done = self.virsh(command, text=text, timeout=timeout)
        assert done.returncode == 0, f"virsh {command}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def define(self, xml: str) -> None:
        """Define a domain through virsh."""
        self.ok(["define", str(self.client_file("domain.xml", xml))])

    def client_file(self, name: str, content: str) -> Path:
        """A file for a client to read; its path is the same here and in the host."""
        path = self.folder / name
        path.write_text(content)
        path.chmod(0o644)
        return path

    def python(self, code: str, *arguments: str, timeout: float = 60) -> str:
        """Run a snippet with python3-libvirt in which `conn` is open; returns what it prints, fails when it does."""
        head = "import sys, libvirt; libvirt.registerErrorHandler(lambda *_: None, None); conn = libvirt.open(); "
        done = self.run([self._python, "-c", head + "\n" + code, *arguments], timeout=timeout)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def terminal(self, command: str | Sequence[str]) -> Terminal:
        """Run virsh on a terminal of its own."""
        words = shlex.split(command) if isinstance(command, str) else list(command)
        return Terminal(self.command(["virsh", *words]), env=self.env)

    def connect(self, *, read_only: bool = False) -> "libvirt.virConnect":
        """A connection of this very process, past all namespaces; the caller closes it."""
        import libvirt

        uri = f"qemu+unix:///{self.mode}?socket={self.socket}{'-ro' if read_only else ''}"
        return libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)

    # -- files

    @property
    @abstractmethod
    def socket(self) -> Path:
        """The daemon's socket as seen from here."""

    @property
    def env(self) -> dict[str, str]:
        """The environment of the daemon and of its clients: nothing of the caller's that could change an answer."""
        return {
            "PATH": f"{Path(self._python).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "TERM": "dumb",
            "PYTHONPATH": str(self._source),
            "LIBVIRT_DEFAULT_URI": self.uri,
            # A client must never start a daemon itself when ours is gone.
            "LIBVIRT_AUTOSTART": "0",
            "HOME": str(self.folder / "home"),
        }

    def path(self, inside: str) -> Path:
        """Where a path of the host is found from here."""
        return self.folder / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes) -> Path:
        """Put a file into the host; the path is absolute in it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def adopt(self, guest: Guest) -> Guest:
        """The guest at paths of the host, in files of its own: daemons change the owner of what a domain uses."""
        copied = guest.copy_to(self.path("/var/lib/libvirt/boot"))
        return replace(copied, kernel=self.inside(copied.kernel), initrd=self.inside(copied.initrd))

    def inside(self, path: Path) -> Path:
        """What the host calls one of its files."""
        return path

    # -- end

    def close(self) -> None:
        """End the daemon and all its guests, remove the directories."""
        if self._holder.poll() is None:
            if self.pid:
                with contextlib.suppress(HostError, ProcessLookupError):
                    self.kill(signal.SIGTERM, timeout=5)
            assert self._holder.stdin
            self._holder.stdin.close()
            try:
                self._holder.wait(20)
            except subprocess.TimeoutExpired:
                self._holder.kill()
                self._holder.wait()
        for stream in (self._holder.stdin, self._holder.stdout):
            if stream:
                stream.close()
        for group in CGROUPS.glob(f"*/{self.folder.name}"):
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what the modes differ in

    @abstractmethod
    def _holder_prefix(self) -> list[str]: ...

    def _holder_options(self) -> list[str]:
        return []

    @abstractmethod
    def _prepare(self) -> None: ...

    def _daemon_argv(self) -> list[str]:
        program = [self._python, "-m", "pyvirtd"] if self.daemon == "pyvirtd" else [LIBVIRTD]
        return [*program, *self.arguments]

    @property
    def _python(self) -> str:
        """The interpreter that runs this, of the copy of the checkout where there is one."""
        if self._source == ROOT or not Path(sys.executable).is_relative_to(ROOT):
            return sys.executable
        return str(self._source / Path(sys.executable).relative_to(ROOT))

    # -- talking to the holder

    def _start(self, argv: Sequence[str], log: Path) -> int:
        answer = self._ask({"do": "start", "argv": list(argv), "env": self.env, "log": str(log)})
        if "error" in answer:
            raise HostError(str(answer["error"]))
        return int(answer["pid"])

    def _status(self, pid: int) -> int | None:
        status = self._ask({"do": "status", "pid": pid})["status"]
        return None if status is None else int(status)

    def _ask(self, command: Mapping[str, object]) -> dict[str, Any]:
        stdin: IO[bytes] | None = self._holder.stdin
        assert stdin
        stdin.write(json.dumps(command).encode() + b"\n")
        stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        assert self._holder.stdout
        line = self._holder.stdout.readline()
        if not line:
            raise HostError(f"the holder of {self.folder} ended with status {self._holder.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class SystemHost(Host):
    """qemu:///system in namespaces of its own; root only."""

    mode = "system"
    uri = "qemu:///system"

    @staticmethod
    def missing() -> str:
        """Why there can be no such host here; empty where there can."""
        if os.geteuid() != 0:
            return "a system daemon needs root"
        if not _may_unshare("--net"):
            return "this root may not make mount and network namespaces"
        return ""

    @staticmethod
    def missing_cgroups() -> str:
        """Why a host here can have no control groups of its own; empty where it can."""
        if not any((folder / "cpu.shares").exists() for folder in CGROUPS.glob("cpu*")):
            return "no control groups of version 1 are mounted"
        if not os.access(CGROUPS, os.W_OK) or not os.access(next(CGROUPS.glob("cpu*")), os.W_OK):
            return "the control groups cannot be written"
        return ""

    @property
    def socket(self) -> Path:
        return self.folder / "run/libvirt/libvirt-sock"

    def command(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self._holder_pid), "--mount", "--net", "--root", "--wdns=/", "--", *argv]

    def inside(self, path: Path) -> Path:
        return Path("/") / path.relative_to(self.folder)

    def spawn(self) -> int:
        if self.daemon == "libvirtd" and not self.path("/run/libvirt/virtlogd-sock").exists():
            self._start(["/usr/sbin/virtlogd"], self.folder / "virtlogd.log")
        return super().spawn()

    @property
    def _holder_pid(self) -> int:
        return self._holder.pid  # unshare without --fork becomes the holder

    def _holder_prefix(self) -> list[str]:
        return ["unshare", "--net", *UNSHARE_MOUNTS]

    def _prepare(self) -> None:
        # Other users must reach their files in these, as in the real ones.
        for path in ("run", "etc/libvirt", "var/lib/libvirt", "var/cache/libvirt", "var/log/libvirt"):
            self.path(path).mkdir(parents=True, exist_ok=True)
        # A machine that never had libvirtd lacks its users; the guests shall still not run as root.
        self.qemu_user = QEMU_USER if _user_exists(QEMU_USER) else "nobody"
        if self.qemu_user != QEMU_USER:
            self.write("/etc/libvirt/qemu.conf", 'user = "nobody"\ngroup = "nogroup"\n')


class SessionHost(Host):
    """qemu:///session of whoever runs the tests; root hands it to `nobody`, as root's daemon is the system's."""

    mode = "session"
    uri = "qemu:///session"
    USER = "nobody"

    @property
    def socket(self) -> Path:
        return self.folder / "run/libvirt/libvirt-sock"

    @property
    def env(self) -> dict[str, str]:
        variables = {
            "XDG_RUNTIME_DIR": "run",
            "XDG_CONFIG_HOME": "config",
            "XDG_CACHE_HOME": "cache",
            "XDG_DATA_HOME": "data",
        }
        own = {name: str(self.folder / folder) for name, folder in variables.items()}
        return super().env | own

    def command(self, argv: Sequence[str]) -> list[str]:
        if os.geteuid() != 0:
            return list(argv)
        return ["setpriv", f"--reuid={self.USER}", f"--regid={self._group}", "--clear-groups", "--", *argv]

    def _holder_prefix(self) -> list[str]:
        # Where root may not even make a mount namespace, the machine's own lock directory has to do.
        return ["unshare", *UNSHARE_MOUNTS] if self._own_mounts else self.command([])

    def _holder_options(self) -> list[str]:
        return ["--user", self.USER] if self._own_mounts else []

    @property
    def _own_mounts(self) -> bool:
        return os.geteuid() == 0 and _may_unshare()

    def _prepare(self) -> None:
        for name in ("home", "run", "config", "cache", "data"):
            (self.folder / name).mkdir(mode=0o700)
        if os.geteuid() != 0:
            return
        for path in [self.folder, *self.folder.iterdir()]:
            shutil.chown(path, self.USER, self._group)
        if not _reachable_by_others(ROOT):
            # A checkout below /root: the other user gets a copy of what runs.
            self._source = self.folder / "source"
            for name in (".venv", "pyvirtd", "drivers", "tests"):
                if (ROOT / name).exists():
                    shutil.copytree(ROOT / name, self._source / name, symlinks=True)

    @property
    def _group(self) -> str:
        return grp.getgrgid(pwd.getpwnam(self.USER).pw_gid).gr_name


def _may_unshare(*more: str) -> bool:
    return subprocess.run(["unshare", *more, *UNSHARE_MOUNTS, "true"], capture_output=True, check=False).returncode == 0


def _user_exists(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def _reachable_by_others(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])
