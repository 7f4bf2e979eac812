"""<cachetune> and <memorytune>: groups that are made, filled, counted and removed, in a folder (see `test_resctrl`)."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from pyvirtd.core.resctrl import Resctrl
from pyvirtd.drivers.qemu import shares
from pyvirtd.drivers.qemu.validate.shares import check_shares
from pyvirtd.errors import ConfigUnsupported, VirtError
from pyvirtd.model.cpu import CpuTune
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import LIVE
from tests.core.test_resctrl import BANKS, FakeResctrl
from tests.drivers.qemu.stats_support import definition
from tests.support.blocking import calls_on_the_loop

TUNE = """<cputune>
<cachetune vcpus='0-1'><cache id='0' level='3' type='both' size='4' unit='MiB'/>
<monitor level='3' vcpus='0-1'/><monitor level='3' vcpus='1'/></cachetune>
<cachetune vcpus='2'><monitor level='3' vcpus='2'/></cachetune>
<memorytune vcpus='0-1'><node id='0' bandwidth='30'/><monitor vcpus='1'/></memorytune>
</cputune>"""
CACHE = "<cachetune vcpus='{}'><cache id='0' level='3' type='both' size='4' unit='MiB'/>{}</cachetune>"
MEMORY = "<memorytune vcpus='{}'><node id='{}' bandwidth='{}'/></memorytune>"
MONITORS = "<monitor level='3' vcpus='{}'/><monitor level='3' vcpus='{}'/>"
SECOND = "<cache id='0' level='3' type='both' size='5' unit='MiB'/>"
GROUP = "qemu-3-d-vcpus_0-1"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeResctrl:
    monkeypatch.setattr(shares, "read_topology", lambda: cast("Any", type("T", (), {"caches": BANKS})))
    return FakeResctrl(tmp_path)


@pytest.fixture
def live() -> DomainDef:
    live = definition("d", vcpu="<vcpu>3</vcpu>", extra=TUNE, kind="kvm")
    live.id = 3
    return live


def tasks(host: Resctrl, path: str) -> list[str]:
    return (host.root / path / "tasks").read_text().split()


def names(host: Resctrl) -> list[str]:
    return sorted(str(path.parent.relative_to(host.root)) for path in host.root.rglob("tasks"))


def test_vcpus_run_in_the_groups_of_their_shares_and_monitors(host: FakeResctrl, live: DomainDef) -> None:
    asyncio.run(shares.make(live, host))
    below = f"{GROUP}/mon_groups/qemu-3-d-vcpus_1"
    assert names(host) == ["mon_groups/qemu-3-d-vcpus_2", GROUP, below]
    assert (host.root / GROUP / "schemata").read_text().startswith("L3:0=f0;1=ff\nMB:0=30;1=100\n")
    assert live.format(LIVE).count(" id='vcpus_0-1'") == 2
    dom = cast(
        "Any", type("D", (), {"live_def": live, "running": type("R", (), {"vcpu_threads": {0: 70, 1: 71, 2: 72}})})
    )
    asyncio.run(shares.place_vcpus(dom, host))
    assert tasks(host, GROUP) == ["70", "71"]
    assert tasks(host, below) == ["71"]
    assert tasks(host, "mon_groups/qemu-3-d-vcpus_2") == ["72"]
    asyncio.run(shares.remove(live, host))
    asyncio.run(shares.remove(live, host))
    assert names(host) == []


def test_failed_start_leaves_no_group(host: FakeResctrl, live: DomainDef) -> None:
    assert live.cputune is not None
    live.cputune.cachetune[0].cache[0].size = 15
    with pytest.raises(VirtError, match="Not enough room"):
        asyncio.run(shares.make(live, host))
    (host.root / "info/L3_MON/mon_features").write_text("mbm_local_bytes\n")
    live.cputune.cachetune[0].cache[0].size = 4
    with pytest.raises(ConfigUnsupported, match="does not count 'llc_occupancy'"):
        asyncio.run(shares.make(live, host))
    assert names(host) == []


def test_start_that_was_cut_short_leaves_no_group(host: FakeResctrl, live: DomainDef) -> None:
    asyncio.run(shares.make(live, host))
    asyncio.run(shares.remove_left("3-d", host))
    assert names(host) == []


def test_monitors_are_in_the_statistics(host: FakeResctrl, live: DomainDef, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(shares.make(live, host))
    on_loop = calls_on_the_loop(monkeypatch, (host, "counts"))
    counts = asyncio.run(shares.read_counts(live, host))
    assert not on_loop  # the kernel takes its time
    told = {
        param.field: param.value[1]
        for param in (*shares.cache_params(live, counts), *shares.memory_params(live, counts))
    }
    assert told["cpu.cache.monitor.count"] == 3
    assert told["cpu.cache.monitor.0.name"] == "vcpus_0-1"
    assert told["cpu.cache.monitor.1.vcpus"] == "1"
    assert told["cpu.cache.monitor.0.bank.count"] == 2
    assert told["cpu.cache.monitor.0.bank.1.bytes"] == 2000
    assert told["memory.bandwidth.monitor.count"] == 1
    assert told["memory.bandwidth.monitor.0.node.1.id"] == 1
    assert told["memory.bandwidth.monitor.0.node.1.bytes.local"] == 2001
    assert told["memory.bandwidth.monitor.0.node.1.bytes.total"] == 2002


@pytest.mark.parametrize(
    ("tune", "words"),
    [
        (CACHE.format("0-1", "") + CACHE.format("1-2", ""), "Overlapping vcpus in resctrls"),
        (CACHE.format("0-1", "") + CACHE.format("0-1", ""), "Identical vcpus in cachetunes found"),
        (CACHE.format("0-1", "") + MEMORY.format("1-2", 0, 10), "Overlapping vcpus in resctrls"),
        (CACHE.format("0-1", SECOND), "Colliding cache allocations for cache level '3' id '0', type 'both'"),
        (CACHE.format("0-1", MONITORS.format("0", "2")), "Monitor vcpus conflicts with allocation"),
        (CACHE.format("0-2", MONITORS.format("0-1", "1-2")), "vcpus overlaps in resctrl groups"),
        (CACHE.format("0-1", MONITORS.format("1", "1")), "Identical vcpus found in same type monitors"),
        (CACHE.format("0-1", MONITORS.format("1", "5")), "vcpus is empty"),
        (MEMORY.format("0", 3, 10) * 2, "Memory Bandwidth already defined for node 3"),
        (MEMORY.format("0", 3, 110), "Memory Bandwidth value exceeding 100 is invalid."),
    ],
)
def test_definition_must_not_share_twice(tune: str, words: str) -> None:
    """As libvirtd 9.0 refuses it."""
    live = definition("d", vcpu="<vcpu>3</vcpu>", extra=f"<cputune>{tune}</cputune>", kind="kvm")
    with pytest.raises(VirtError) as refusal:
        check_shares(live.cputune or CpuTune(), live.vcpu.count)
    assert refusal.value.detail == words


def test_vcpus_that_are_not_there_have_no_share() -> None:
    tune = CACHE.format("2-9", "") + CACHE.format("5-6", MONITORS.format("5", "5"))
    live = definition("d", vcpu="<vcpu>3</vcpu>", extra=f"<cputune>{tune}</cputune>", kind="kvm")
    check_shares(live.cputune or CpuTune(), live.vcpu.count)
    assert [share.id for share in shares.shares_of(live)] == ["vcpus_2"]


def test_whole_and_part_may_be_counted(host: FakeResctrl, live: DomainDef) -> None:
    check_shares(live.cputune or CpuTune(), live.vcpu.count)


def test_host_without_resource_control_is_named(tmp_path: Path, live: DomainDef) -> None:
    with pytest.raises(ConfigUnsupported, match="Resource control is not supported on this host"):
        asyncio.run(shares.make(live, Resctrl(tmp_path / "none")))
