"""A system host with a system bus and a polkitd of its own: real ones, whose rules are the test's."""

import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.host import ROOT, SystemHost

POLKITD = "/usr/lib/polkit-1/polkitd"
USER = "nobody"  # who has no rights but those that the rules give


class PolkitHost(SystemHost):
    """`rules` is the text of a rules.d file. The policies are the project's own."""

    def __init__(self, rules: str = "", *, config: str = "", daemon: str = "pyvirtd") -> None:
        self._config, self._bus_runs = config, False
        super().__init__(daemon)
        try:
            self._bind("etc/polkit-1", "/etc/polkit-1")
            self._bind("polkit-actions", "/usr/share/polkit-1/actions")
            self.set_rules(rules)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def missing() -> str:
        """Why there can be no such host here; empty where there can."""
        if reason := SystemHost.missing():
            return reason
        for program in ("dbus-daemon", POLKITD):
            if not shutil.which(program):
                return f"{Path(program).name} is not installed"
        return ""

    def spawn(self) -> int:
        if not self._bus_runs:
            self.start_bus()
        return super().spawn()

    def start_bus(self) -> None:
        """Start the bus and polkitd; daemons that cache a failed connection must find them running."""
        self._bus_runs = True
        self.path("/run/dbus").mkdir(exist_ok=True)
        self._start(["dbus-daemon", "--system", "--nofork", "--nopidfile"], self.folder / "bus.log")
        self._wait(lambda: b"org.freedesktop.DBus" in self._bus_names(), "bus.log")  # polkitd does not wait for it
        self.polkitd_pid = self._start([POLKITD], self.folder / "polkitd.log")
        self._wait(lambda: b"PolicyKit1" in self._bus_names(), "polkitd.log")

    def _wait(self, condition: Callable[[], bool], log: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, (self.folder / log).read_text()
            time.sleep(0.05)

    def _bus_names(self) -> bytes:
        question = "org.freedesktop.DBus.ListNames"
        ask = [
            "dbus-send",
            "--system",
            "--print-reply",
            "--dest=org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            question,
        ]
        return subprocess.run(self.command(ask), capture_output=True, check=False).stdout

    def set_rules(self, text: str) -> None:
        """Replace the rules; polkitd, if it runs, reads them by itself within two seconds."""
        self.write("/etc/polkit-1/rules.d/10-test.rules", text).chmod(0o644)

    def as_user(self, argv: Sequence[str], user: str = USER) -> list[str]:
        """The command line that runs `argv` in the host as somebody else."""
        entry = pwd.getpwnam(user)
        drop = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups", "--"]
        return self.command([*drop, *argv])

    def virsh_as_user(self, words: Sequence[str], *, user: str = USER) -> "subprocess.CompletedProcess[str]":
        """Run one virsh command without a terminal as somebody else."""
        argv = self.as_user(["virsh", "-q", *words], user)
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=self.env, check=False)

    def _prepare(self) -> None:
        super()._prepare()
        self.write("/etc/libvirt/libvirtd.conf", self._config)
        self.write("/etc/libvirt/pyvirtd.conf", self._config)
        rules = self.path("/etc/polkit-1/rules.d")
        rules.mkdir(parents=True)
        actions = self.path("/polkit-actions")
        actions.mkdir()
        for policy in (ROOT / "conf").glob("*.policy"):
            shutil.copy(policy, actions)

    def _bind(self, inside: str, path: str) -> None:
        done = self.run(["mount", "--bind", str(self.path(inside)), path])
        assert done.returncode == 0, done.stderr
