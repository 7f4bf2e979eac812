"""Guests whose place on the host is numad's advice."""

import asyncio
import shutil
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu import placement
from pyvirtd.drivers.qemu.cgroups import memory_nodes
from pyvirtd.drivers.qemu.qemu_img import qemu_img
from pyvirtd.errors import OperationFailed
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.status import STATUS_VIEW, StatusAdvice, read_status
from pyvirtd.xml.element import LIVE
from tests.support.blocking import calls_on_the_loop
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

DOMAIN = "<domain type='qemu'><name>x</name><memory>1500</memory>{}<os><type>hvm</type></os></domain>"
VCPUS = "<vcpu placement='auto' current='2'>3</vcpu>"
MEMORY = "<numatune><memory mode='{}' placement='auto'/></numatune>"
AUTO = VCPUS + MEMORY.format("strict")

needs_numad = pytest.mark.skipif(not shutil.which("numad"), reason="numad is not installed")


@pytest.fixture
def numad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A numad that notes what it is asked and says "0"."""
    program = tmp_path / "numad"
    advise(program, "echo 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def advise(program: Path, command: str) -> None:
    program.write_text(f'#!/bin/sh\necho "$@" >>{program}.asked\n{command}\n')
    program.chmod(0o755)


def place(top: str) -> DomainDef:
    live = DomainDef.parse(DOMAIN.format(top))
    asyncio.run(placement.place(live))
    return live


def test_programs_are_not_looked_for_on_the_loop(numad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop = calls_on_the_loop(monkeypatch, (shutil, "which"))
    place(AUTO)
    asyncio.run(qemu_img("create", "-q", str(tmp_path / "image"), "1M", error="cannot make it"))
    assert on_loop == []


def test_advice_is_for_vcpus_that_are_on_and_all_memory(numad: Path) -> None:
    live = place(AUTO)
    assert Path(f"{numad}.asked").read_text() == "-w 2:2\n"
    advice = placement.noted_advice(live)
    assert advice is not None
    assert advice.nodeset == memory_nodes(live) == {0}
    assert advice.cpuset == live.vcpu.cpuset
    assert 0 in (live.vcpu.cpuset or ())


@pytest.mark.parametrize("view", [LIVE, STATUS_VIEW])
def test_documents_show_the_wish_and_not_the_advice(numad: Path, view: int) -> None:
    assert place(AUTO).format(view) == DomainDef.parse(DOMAIN.format(AUTO)).format(view)


def test_what_the_definition_chooses_is_kept(numad: Path) -> None:
    live = place("<vcpu cpuset='1'>1</vcpu>" + MEMORY.format("interleave"))
    assert placement.noted_advice(live) == StatusAdvice(nodeset={0})
    assert live.vcpu.cpuset == {1}
    live = place(VCPUS + "<numatune><memory mode='strict' nodeset='5'/></numatune>")
    assert memory_nodes(live) == {5}
    assert placement.noted_advice(live) == StatusAdvice(cpuset=live.vcpu.cpuset)


def test_guests_with_a_place_of_their_own_ask_nobody(numad: Path) -> None:
    place("<vcpu cpuset='0'>1</vcpu>")
    assert not Path(f"{numad}.asked").exists()


def test_host_without_numad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperationFailed, match=r"Failed to query numad for the advisory nodeset$"):
        place(AUTO)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo oops >&2; exit 1", "oops"),
        ("exit 3", "it ended with 3"),
        ("echo none", "it said 'none'"),
        ("echo 4095", "it names no node of this host"),
        ("echo", "it names no node of this host"),
        ("sleep 60", "did not end within"),
    ],
)
def test_advice_that_does_not_help_is_told(
    numad: Path, monkeypatch: pytest.MonkeyPatch, command: str, why: str
) -> None:
    monkeypatch.setattr(placement, "ASK_S", 0.3)
    advise(numad, command)
    with pytest.raises(OperationFailed, match=f"advisory nodeset: .*{why}"):
        place(AUTO)


def test_later_daemon_knows_the_advice_of_either_kind_of_state_file() -> None:
    live = DomainDef.parse(DOMAIN.format(AUTO))
    asyncio.run(placement.place_again(live, StatusAdvice(nodeset={0}, cpuset={0, 1})))
    assert placement.noted_advice(live) == StatusAdvice(nodeset={0}, cpuset={0, 1})
    asyncio.run(placement.place_again(live, StatusAdvice(nodeset={0})))
    assert (memory_nodes(live), 0 in (live.vcpu.cpuset or ())) == ({0}, True)


@needs_numad
def test_guest_runs_where_numad_says_and_is_found_there(host: SystemHost) -> None:
    top = "<vcpu placement='auto'>1</vcpu>"
    host.define(bare_domain("placed", extra=MEMORY.format("strict")).replace("<vcpu>1</vcpu>", top))
    host.ok("start placed --paused")
    try:
        for _ in range(2):
            status = read_status(host.path("/run/libvirt/qemu/placed.xml").read_text())
            assert status.numad is not None
            assert status.numad.nodeset
            assert status.numad.cpuset
            assert "<vcpu placement='auto'>1</vcpu>" in host.ok("dumpxml placed")
            assert "<memory mode='strict' placement='auto'/>" in host.ok("dumpxml placed")
            host.restart(9)
        words = host.run(["sh", "-c", "tr '\\0' ' ' </proc/$(cat /run/libvirt/qemu/placed.pid)/cmdline"]).stdout
        assert '"host-nodes":[' in words
    finally:
        host.ok("destroy placed")
        host.ok("undefine placed")
