"""Calls that cross on one domain: whatever their order, each QEMU belongs to a domain that clients can see."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SystemHost

pytestmark = pytest.mark.guest
# A start that takes its time at the moment that the domain's description names, and says that it is there.
HOOK = """#!/bin/sh
if grep -q "<description>slow:$2<" ; then touch "/run/libvirt/at-$1-$2"; sleep 1.5; fi
"""


@pytest.fixture(scope="module")
def slow() -> Iterator[SystemHost]:
    """A daemon whose domains start slowly."""
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost() as made:
        made.write("/etc/libvirt/hooks/qemu", HOOK).chmod(0o755)
        yield made.start()


def qemus(host: SystemHost, name: str) -> list[int]:
    found = host.run(["pgrep", "-f", f"^/usr/bin/qemu-system.*guest={name},"])
    return [int(word) for word in found.stdout.split()]


def begin_start(host: SystemHost, name: str, moment: str) -> "subprocess.Popen[str]":
    """A start on its way that has come to `moment`, an operation of the hook."""
    host.define(bare_domain(name, extra=f"<description>slow:{moment}</description>"))
    client = host.popen(["virsh", "-q", "-c", host.uri, "start", name])
    mark = f"/run/libvirt/at-{name}-{moment}"
    deadline = time.monotonic() + 10
    while host.run(["test", "-e", mark]).returncode:
        assert time.monotonic() < deadline, "the hook was not run"
        time.sleep(0.02)
    return client


@pytest.mark.parametrize("moment", ["prepare", "start", "started"])
def test_a_domain_that_is_undefined_while_it_starts_runs_as_a_transient_one(slow: SystemHost, moment: str) -> None:
    name = f"undef-{moment}"
    client = begin_start(slow, name, moment)
    slow.ok(f"undefine {name}")
    out, err = client.communicate(timeout=20)
    assert client.returncode == 0, out + err
    assert name in slow.ok("list --name --transient")
    assert len(qemus(slow, name)) == 1
    slow.ok(f"destroy {name}")
    assert qemus(slow, name) == []
    assert name not in slow.ok("list --all --name")


@pytest.mark.parametrize("moment", ["started"])
def test_a_domain_that_is_destroyed_while_it_starts_is_off(slow: SystemHost, moment: str) -> None:
    name = f"end-{moment}"
    client = begin_start(slow, name, moment)
    slow.ok(f"destroy {name}", timeout=20)
    client.communicate(timeout=20)
    assert client.returncode != 0
    assert slow.ok(f"domstate {name}") == "shut off"
    assert qemus(slow, name) == []
    slow.ok(f"start {name} --paused")
    slow.ok(f"destroy {name}")
    slow.ok(f"undefine {name}")


def test_a_transient_domain_is_created_once(slow: SystemHost) -> None:
    path = slow.client_file(
        "twice.xml", bare_domain("twice", extra="<uuid>11111111-2222-4333-8444-555555555555</uuid>")
    )
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: slow.virsh(f"create {path}").returncode, range(6)))
    assert results.count(0) == 1
    assert len(qemus(slow, "twice")) == 1
    assert slow.ok("list --name").split() == ["twice"]
    slow.ok("destroy twice")
    assert slow.ok("list --all --name").split() == []
