"""A user's client starts the session daemon by itself, and it ends when nobody needs it."""

import contextlib
import shutil
import time
from collections.abc import Iterator

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SessionHost


class Autostart(SessionHost):
    """A session whose daemon is started by clients: by LIBVIRTD_PATH, which names a directory."""

    @property
    def env(self) -> dict[str, str]:
        inherited = super().env
        del inherited["LIBVIRT_AUTOSTART"]
        return inherited | {"LIBVIRTD_PATH": str(self.folder / "home" / "bin")}

    def provide(self) -> None:
        """Put a program of libvirtd's name where clients look; it ends sooner than the client asks for."""
        bin_dir = self.folder / "home" / "bin"
        bin_dir.mkdir(exist_ok=True)
        program = bin_dir / "libvirtd"
        daemon = f"PYTHONPATH={self._source} exec {self._python} -m pyvirtd --timeout=2"
        program.write_text(f'#!/bin/sh\necho "$@" >> {bin_dir}/words\n{daemon}\n')
        program.chmod(0o755)
        for path in (bin_dir, program):
            with contextlib.suppress(LookupError, PermissionError):
                shutil.chown(path, self.USER, self._group)

    @property
    def serves(self) -> bool:
        return self.socket.exists()


@pytest.fixture
def session() -> Iterator[Autostart]:
    with Autostart() as made:
        made.provide()
        yield made
        deadline = time.monotonic() + 10
        while made.serves and time.monotonic() < deadline:  # none is left to find its directory gone
            time.sleep(0.1)


def test_client_starts_the_daemon_and_it_ends_when_idle(session: Autostart) -> None:
    assert not session.serves
    assert session.ok("uri") == "qemu:///session"
    assert (session.folder / "home" / "bin" / "words").read_text().split() == ["--timeout=120"]
    assert session.serves
    deadline = time.monotonic() + 15
    while session.serves:
        assert time.monotonic() < deadline, "the daemon does not end"
        time.sleep(0.1)
    assert session.ok("uri") == "qemu:///session"  # and the next client starts the next one


@pytest.mark.guest
def test_everything_of_a_session_is_its_users(session: Autostart) -> None:
    xml = bare_domain("mine", devices="<interface type='user'><model type='virtio'/></interface>")
    session.ok(["create", str(session.client_file("mine.xml", xml))])
    time.sleep(3)
    assert session.serves  # a guest keeps the daemon
    owners = {path.stat().st_uid for name in ("run", "config", "cache") for path in (session.folder / name).rglob("*")}
    assert len(owners) == 1
    assert owners == {(session.folder / "home").stat().st_uid}
    refused = session.virsh("-c lxc:///session list")
    assert refused.returncode != 0
    session.ok("destroy mine")
