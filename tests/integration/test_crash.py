"""The daemon is killed at any moment of a guest's start, stop and definition: the next one finds a whole state."""

import subprocess
import time

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SessionHost

pytestmark = pytest.mark.guest
# Seconds from asking to the kill; a start takes some 0.05 to 0.2.
MOMENTS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.3)


def processes(host: SessionHost, name: str) -> list[int]:
    """The guest's QEMUs."""
    found = host.run(["pgrep", "-f", f"^/usr/bin/qemu-system.*guest={name},"])
    return [int(word) for word in found.stdout.split()]


def ask(host: SessionHost, command: str) -> "subprocess.Popen[str]":
    return host.popen(["virsh", "-q", "-c", host.uri, *command.split()])


def ended(client: "subprocess.Popen[str]") -> int:
    client.communicate(timeout=10)
    return client.returncode


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_start_that_was_cut_short_leaves_a_guest_or_none(session: SessionHost, moment: float) -> None:
    name = f"cut-{int(moment * 1000)}"
    session.define(bare_domain(name))
    client = ask(session, f"start {name}")
    time.sleep(moment)
    session.kill()
    ended(client)
    session.start()
    state = session.ok(f"domstate {name}")
    assert len(processes(session, name)) == (1 if state in ("running", "paused") else 0), state
    if state == "running":
        session.ok(f"destroy {name}")
    session.ok(f"start {name}")
    session.ok(f"destroy {name}")
    session.ok(f"undefine {name}")
    assert processes(session, name) == []


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.01, 0.02, 0.05])
def test_a_destroy_that_was_cut_short_is_seen_by_the_next_daemon(session: SessionHost, moment: float) -> None:
    name = f"end-{int(moment * 1000)}"
    session.define(bare_domain(name))
    session.ok(f"start {name}")
    client = ask(session, f"destroy {name}")
    time.sleep(moment)
    session.kill()
    ended(client)
    session.start()
    deadline = time.monotonic() + 10
    while (state := session.ok(f"domstate {name}")) != "running" and processes(session, name):
        assert time.monotonic() < deadline
    assert len(processes(session, name)) == (1 if state == "running" else 0)
    if state == "running":
        session.ok(f"destroy {name}")
    session.ok(f"undefine {name}")


@pytest.mark.parametrize("moment", [0.0, 0.003, 0.006, 0.01, 0.02])
def test_a_definition_that_was_cut_short_is_the_old_or_the_new(session: SessionHost, moment: float) -> None:
    name = f"def-{int(moment * 1000)}"
    uuid = f"<uuid>10101010-1010-4010-8010-{int(moment * 1000):012d}</uuid>"
    session.define(bare_domain(name, memory_mib=64, extra=uuid))
    path = session.client_file(f"{name}.xml", bare_domain(name, memory_mib=128, extra=uuid))
    client = session.popen(["virsh", "-q", "-c", session.uri, "define", str(path)])
    time.sleep(moment)
    session.kill()
    acknowledged = ended(client) == 0
    session.start()
    memory = next(line for line in session.ok(f"dumpxml {name}").splitlines() if "<memory " in line)
    sizes = ("131072",) if acknowledged else ("65536", "131072")
    assert any(size in memory for size in sizes)
    session.ok(f"undefine {name}")
