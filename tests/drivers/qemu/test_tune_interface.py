"""Limits of interfaces, as the kernel keeps them."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from pyvirtd.core.bandwidth import set_bandwidth
from pyvirtd.model.net import Bandwidth, BandwidthRate, Interface, InterfaceTarget, InterfaceType
from pyvirtd.util.process import Result
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

MAC = "52:54:00:11:22:33"
NET = f"""<interface type='bridge'><mac address='{MAC}'/><source bridge='limited'/><target dev='limit0'/>
<bandwidth><inbound average='1000' peak='5000' burst='512'/></bandwidth></interface>"""


@pytest.fixture(scope="module")
def running(host: SystemHost) -> Iterator[SystemHost]:
    host.run(["ip", "link", "add", "limited", "type", "bridge"])
    host.define(bare_domain("limited", devices=NET))
    host.ok("start limited --paused")
    yield host
    host.ok("destroy limited")
    host.ok("undefine limited")
    host.run(["ip", "link", "del", "limited"])


def classes(host: SystemHost) -> str:
    return host.run(["tc", "class", "show", "dev", "limit0"]).stdout


def test_limit_is_in_force_when_the_guest_starts(running: SystemHost) -> None:
    assert re.search(r"htb 1:1 root .*rate 8Mbit ceil 40Mbit burst 512Kb", classes(running))


def test_limit_is_changed_and_taken_away_while_the_guest_runs(running: SystemHost) -> None:
    running.ok(f"domiftune limited {MAC} --live --inbound 100")
    assert "rate 800Kbit ceil 800Kbit" in classes(running)
    assert "<inbound average='100'/>" in running.ok("dumpxml limited")
    assert "average='1000'" in running.ok("dumpxml limited --inactive")
    running.ok("domiftune limited limit0 --live --inbound 0")
    assert classes(running) == ""
    assert "<bandwidth>" not in running.ok("dumpxml limited")


def test_limit_in_the_definition_alone(running: SystemHost) -> None:
    running.ok(f"domiftune limited {MAC} --config --outbound 128,256,300")
    shown = running.ok(f"domiftune limited {MAC} --config")
    assert re.findall(r": *(\d+)", shown) == ["1000", "5000", "512", "0", "128", "256", "300"]
    running.ok(f"domiftune limited {MAC} --config --outbound 0")
    assert "<outbound" not in running.ok("dumpxml limited --inactive")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (f"{MAC} --config --inbound 0,5", "either inbound average or floor is mandatory"),
        ("nobody --config --inbound 1", "'nobody' is not a known interface"),
        (f"{MAC} --live --inbound 5,0,0,3", "'floor' is only supported for interface type 'network'"),
    ],
)
def test_limit_that_cannot_be_is_refused(running: SystemHost, arguments: str, words: str) -> None:
    before = running.ok("dumpxml limited")
    assert words in running.virsh(f"domiftune limited {arguments}").stderr
    assert running.ok("dumpxml limited") == before


@pytest.mark.parametrize(("kind", "limited"), [(InterfaceType.BRIDGE, "ingress"), (InterfaceType.DIRECT, "root")])
def test_what_the_guest_sends_is_limited_at_its_end_of_the_cable(
    kind: InterfaceType, limited: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tap is the host's end, a macvtap device the guest's own."""
    asked: list[str] = []

    async def run(argv: list[str], *, timeout: float) -> Result:
        asked.append(" ".join(argv))
        return Result(0, b"", b"")

    monkeypatch.setattr("pyvirtd.core.bandwidth.run", run)
    bandwidth = Bandwidth(outbound=BandwidthRate(average=10))
    net = Interface(type=kind, target=InterfaceTarget(dev="x"), bandwidth=bandwidth)
    asyncio.run(set_bandwidth(net, fresh=True))
    assert asked[0].startswith(f"tc qdisc add dev x {limited}")
    assert any("10kbps" in command for command in asked)
