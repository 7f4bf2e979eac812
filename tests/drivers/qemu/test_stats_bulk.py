"""Statistics of many domains in one call."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.types import DomainStatsRecord, PreparedParams
from pyvirtd.constants.domain import DomainShutoffReason, DomainState
from pyvirtd.constants.domain import DomainStatsTypes as Group
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.drivers.qemu import stats_bulk
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.monitor import CommandRefused
from pyvirtd.drivers.qemu.stats_bulk import ALL, BulkStats, Wanted
from tests.drivers.qemu.stats_support import (
    DISK,
    NO_BALLOON_STATS,
    UNSTARTED,
    drive,
    node,
    node_stats,
    off,
    running,
)

IDLE: dict[str, Any] = {"qom-get": NO_BALLOON_STATS, "query-dirty-rate": UNSTARTED}


def collect(doms: Sequence[QemuDomain], groups: Group = ALL, **more: bool) -> list[DomainStatsRecord]:
    return asyncio.run(BulkStats().collect(doms, Wanted(groups, **more)))


def told(record: DomainStatsRecord) -> dict[str, Any]:
    return {param.field: param.value[1] for param in record.params}


# --- off --------------------------------------------------------------------------------------------------------


def test_a_domain_that_is_off_tells_its_definition(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(bytes(4096))
    devices = (
        DISK.format("raw", image, "vda") + "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>"
    )
    dom = off(devices=devices, vcpu="<vcpu current='1'>4</vcpu>")
    dom.set_state(DomainState.SHUTOFF, DomainShutoffReason.DESTROYED)
    params = collect([dom])[0].params
    assert [(param.field, *param.value) for param in params] == [
        ("state.state", Kind.INT, 5),
        ("state.reason", Kind.INT, 2),
        ("balloon.current", Kind.ULLONG, 49152),
        ("balloon.maximum", Kind.ULLONG, 65536),
        ("vcpu.current", Kind.UINT, 1),
        ("vcpu.maximum", Kind.UINT, 4),
        ("block.count", Kind.UINT, 2),
        ("block.0.name", Kind.STRING, "vda"),
        ("block.0.path", Kind.STRING, str(image)),
        ("block.0.allocation", Kind.ULLONG, image.stat().st_blocks * 512),
        ("block.0.capacity", Kind.ULLONG, 4096),
        ("block.0.physical", Kind.ULLONG, 4096),
        ("block.1.name", Kind.STRING, "sda"),
    ]


def test_a_missing_image_leaves_name_and_path() -> None:
    assert told(collect([off(devices=DISK.format("raw", "/nonexistent/x", "vda"))], Group.BLOCK)[0]) == {
        "block.count": 1,
        "block.0.name": "vda",
        "block.0.path": "/nonexistent/x",
    }


def test_backing_images_of_a_definition_are_told_on_request() -> None:
    backing = "<backingStore type='file'><format type='raw'/><source file='/nonexistent/y'/></backingStore></disk>"
    dom = off(devices=DISK.format("qcow2", "/nonexistent/x", "vda").replace("</disk>", backing))
    assert told(collect([dom], Group.BLOCK)[0])["block.count"] == 1
    assert told(collect([dom], Group.BLOCK, backing=True)[0])["block.1.path"] == "/nonexistent/y"


def test_what_did_not_change_is_not_made_again() -> None:
    dom, bulk = off(), BulkStats()

    def ask() -> list[Any]:
        return asyncio.run(bulk.collect([dom], Wanted(ALL)))[0].params

    first = ask()
    assert isinstance(first, PreparedParams)
    assert ask() is first
    dom.set_state(DomainState.SHUTOFF, DomainShutoffReason.CRASHED)
    assert ask() is not first


def test_a_new_definition_is_told_at_once() -> None:
    dom, bulk = off(), BulkStats()
    asyncio.run(bulk.collect([dom], Wanted(ALL)))
    dom.config = dom.config.copy()
    dom.config.memory.kib = 131072
    assert told(asyncio.run(bulk.collect([dom], Wanted(ALL)))[0])["balloon.maximum"] == 131072


# --- running ----------------------------------------------------------------------------------------------------


def test_a_running_guest_tells_all_groups_in_libvirts_order() -> None:
    dom = off(devices=DISK.format("qcow2", "/nonexistent/x", "vda"), extra="<iothreads>1</iothreads>")
    answers = IDLE | {
        "qom-get": {"stats": {"stat-swap-in": 0, "stat-free-memory": 1048576}, "last-update": 17},
        "query-blockstats": [drive("virtio-disk0", node_stats("libvirt-1-format", highest=9, rd_operations=2))],
        "query-named-block-nodes": [node("libvirt-1-format", 67108864, 200704)],
        "query-iothreads": [
            {"id": "iothread1", "thread-id": 1, "poll-max-ns": 32768, "poll-grow": 0, "poll-shrink": 0}
        ],
    }
    running(dom, answers)
    params = collect([dom])[0].params
    assert [param.field for param in params] == [
        *("state.state", "state.reason", "cpu.time", "cpu.user", "cpu.system", "cpu.cache.monitor.count"),
        *("cpu.haltpoll.success.time", "cpu.haltpoll.fail.time", "balloon.current", "balloon.maximum"),
        *("balloon.swap_in", "balloon.unused", "balloon.last-update", "balloon.rss", "vcpu.current", "vcpu.maximum"),
        *("vcpu.0.state", "vcpu.0.time", "vcpu.0.wait", "vcpu.0.delay", "net.count", "block.count", "block.0.name"),
        *("block.0.path", "block.0.backingIndex", "block.0.rd.reqs", "block.0.rd.bytes", "block.0.rd.times"),
        *("block.0.wr.reqs", "block.0.wr.bytes", "block.0.wr.times", "block.0.fl.reqs", "block.0.fl.times"),
        *("block.0.allocation", "block.0.capacity", "block.0.physical", "iothread.count", "iothread.1.poll-max-ns"),
        *("iothread.1.poll-grow", "iothread.1.poll-shrink", "dirtyrate.calc_status", "dirtyrate.calc_start_time"),
        *("dirtyrate.calc_period", "dirtyrate.calc_mode"),
    ]
    kinds = {param.field: param.value[0] for param in params}
    assert kinds["cpu.time"] is Kind.ULLONG
    assert kinds["vcpu.0.state"] is Kind.INT
    assert kinds["dirtyrate.calc_start_time"] is Kind.LLONG
    assert kinds["iothread.1.poll-grow"] is Kind.UINT
    values = told(DomainStatsRecord(dom, params))
    assert values["balloon.unused"] == 1024
    assert (values["block.0.allocation"], values["block.0.capacity"]) == (9, 67108864)


def test_only_what_the_groups_need_is_asked() -> None:
    dom = off(devices=DISK.format("qcow2", "/nonexistent/x", "vda"))
    monitor = running(dom, IDLE)
    collect([dom], Group.STATE | Group.VCPU | Group.CPU_TOTAL | Group.INTERFACE | Group.IOTHREAD | Group.VM)
    assert monitor.asked == []
    collect([dom], Group.BALLOON)
    assert monitor.asked == ["qom-get"]


def test_nodes_and_dirty_rate_are_asked_again_only_after_something_changed() -> None:
    dom, bulk = off(devices=DISK.format("qcow2", "/nonexistent/x", "vda")), BulkStats()
    answers = IDLE | {
        "query-blockstats": [drive("virtio-disk0", node_stats("libvirt-1-format", highest=9))],
        "query-named-block-nodes": [node("libvirt-1-format", 67108864, 200704)],
    }
    monitor = running(dom, answers)

    def ask() -> dict[str, Any]:
        monitor.asked.clear()
        return told(asyncio.run(bulk.collect([dom], Wanted(Group.BLOCK | Group.DIRTYRATE)))[0])

    first = ask()
    assert monitor.asked == ["query-blockstats", "query-named-block-nodes", "query-dirty-rate"]
    assert ask() == first
    assert monitor.asked == ["query-blockstats"]
    monitor.changes += 1
    answers["query-named-block-nodes"] = [node("libvirt-1-format", 2 * 67108864, 200704)]
    assert ask()["block.0.capacity"] == 2 * 67108864


def test_the_size_of_a_local_image_is_looked_up_when_its_nodes_are_known(tmp_path: Path) -> None:
    image = tmp_path / "a"
    image.write_bytes(bytes(4096))
    dom, bulk = off(devices=DISK.format("raw", image, "vda")), BulkStats()
    answers = IDLE | {
        "query-blockstats": [drive("virtio-disk0", node_stats("libvirt-1-format", highest=9))],
        "query-named-block-nodes": [node("libvirt-1-format", 1 << 20, 4096)],
    }
    running(dom, answers)

    def physical() -> int:
        return int(told(asyncio.run(bulk.collect([dom], Wanted(Group.BLOCK)))[0])["block.0.physical"])

    assert physical() == 4096
    image.write_bytes(b"x" * 65536)
    assert physical() == image.stat().st_blocks * 512


def test_a_measured_dirty_rate_is_told() -> None:
    dom = off()
    measured = {"status": "measured", "start-time": 6128, "calc-time": 1, "mode": "page-sampling", "dirty-rate": 12}
    running(dom, IDLE | {"query-dirty-rate": measured})
    assert told(collect([dom], Group.DIRTYRATE)[0]) == {
        "dirtyrate.calc_status": 2,
        "dirtyrate.calc_start_time": 6128,
        "dirtyrate.calc_period": 1,
        "dirtyrate.calc_mode": "page-sampling",
        "dirtyrate.megabytes_per_second": 12,
    }


def test_kvm_figures_are_told_of_a_kvm_guest() -> None:
    dom = off(kind="kvm")
    schema = {"target": "vcpu", "stats": [{"name": "halt_poll_success_ns", "type": "cumulative"}]}
    answers = {
        "query-stats-schemas": [schema],
        "query-stats": [{"qom-path": "/cpu0", "stats": [{"name": "halt_poll_success_ns", "value": 5}]}],
        "query-cpus-fast": [{"qom-path": "/cpu0", "cpu-index": 0}],
    }
    monitor = running(dom, answers, schema=frozenset(("query-stats-schemas",)))
    values = told(collect([dom], Group.VCPU | Group.CPU_TOTAL)[0])
    assert values["vcpu.0.halt_poll_success_ns.sum"] == 5
    assert values["cpu.haltpoll.success.time"] == 5
    assert sorted(monitor.asked) == ["query-cpus-fast", "query-stats", "query-stats-schemas"]


# --- guests that do not answer ----------------------------------------------------------------------------------


def test_a_guest_that_does_not_answer_costs_its_own_figures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_bulk, "GUEST_S", 0.2)
    doms = [off(f"d{number}") for number in range(4)]
    for number, dom in enumerate(doms):
        running(dom, {} if number == 1 else IDLE, number=number + 1)
    began = time.monotonic()
    records = collect(doms, Group.STATE | Group.BALLOON | Group.DIRTYRATE)
    assert time.monotonic() - began < 2
    assert ["balloon.last-update" in told(record) for record in records] == [True, False, True, True]
    assert told(records[1])["state.state"] == 1
    assert told(records[1])["balloon.maximum"] == 65536


def test_a_guest_that_hangs_is_waited_for_in_full_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_bulk, "GUEST_S", 1.5)
    monkeypatch.setattr(stats_bulk, "NOWAIT_S", 0.01)
    dom, bulk, answers = off(), BulkStats(), dict[str, Any]()
    running(dom, answers)

    def seconds() -> float:
        began = time.monotonic()
        asyncio.run(bulk.collect([dom], Wanted(Group.DIRTYRATE)))
        return time.monotonic() - began

    assert seconds() >= 1.5
    assert seconds() < 1.5
    answers.update(IDLE)
    seconds()
    answers.clear()
    dom.running.monitor.changes += 1
    assert seconds() >= 1.5


def test_guests_are_asked_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_bulk, "GUEST_S", 0.3)
    doms = [off(f"d{number}") for number in range(10)]
    for number, dom in enumerate(doms):
        running(dom, {}, number=number + 1)
    began = time.monotonic()
    collect(doms, Group.BALLOON | Group.DIRTYRATE)
    assert time.monotonic() - began < 1.5  # one after the other it would be three seconds


def test_a_refused_command_costs_its_own_figures_only() -> None:
    dom = off()
    running(dom, IDLE | {"query-dirty-rate": CommandRefused("query-dirty-rate", "CommandNotFound", "no")})
    values = told(collect([dom])[0])
    assert "balloon.last-update" in values
    assert "dirtyrate.calc_status" not in values


def test_a_guest_that_ends_while_it_is_asked_tells_its_state() -> None:
    dom = off()
    monitor = running(dom, IDLE)

    async def end() -> list[DomainStatsRecord]:
        asked = asyncio.ensure_future(BulkStats().collect([dom], Wanted(ALL)))
        await asyncio.wait_for(monitor.first.wait(), 5)
        dom.live = dom.guest = None
        dom.set_state(DomainState.SHUTOFF, DomainShutoffReason.CRASHED)
        return await asked

    assert told(asyncio.run(end())[0]) == {"state.state": 5, "state.reason": 3}
