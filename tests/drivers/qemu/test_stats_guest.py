"""Statistics and tuning of a real QEMU, through virsh and python3-libvirt."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SystemHost

pytestmark = pytest.mark.guest

IMAGES = "/var/lib/libvirt/images"
DEVICES = (
    f"<disk type='file'><driver name='qemu' type='qcow2'/><source file='{IMAGES}/a.qcow2'/>"
    "<target dev='vda' bus='virtio'/></disk>"
    f"<disk type='file'><driver name='qemu' type='raw'/><source file='{IMAGES}/b.img'/>"
    "<target dev='sda' bus='sata'/></disk>"
    "<disk type='file' device='cdrom'><target dev='sdb' bus='sata'/></disk>"
    "<interface type='user'><model type='virtio'/></interface>"
)
MIB = 1 << 20


@pytest.fixture(scope="module")
def running(host: SystemHost) -> Iterator[SystemHost]:
    """A host with the running domain `on` and the same one `off`."""
    host.path(IMAGES).mkdir(parents=True, exist_ok=True)
    for command in (
        f"qemu-img create -q -f qcow2 {IMAGES}/a.qcow2 64M",
        f"qemu-img create -q -f raw {IMAGES}/b.img 8M",
    ):
        subprocess.run(host.command(command.split()), check=True)
    host.path(f"{IMAGES}/b.img").write_bytes(b"head" + bytes(8 * MIB - 4))
    for name in ("on", "off"):
        host.define(bare_domain(name, devices=DEVICES, extra="<iothreads>1</iothreads>"))
    host.ok("start on --paused")
    yield host
    host.ok("destroy on")


def stats(host: SystemHost, name: str, flags: int = 0) -> dict[str, Any]:
    code = (
        f"import json; dom = conn.lookupByName({name!r});"
        f"print(json.dumps(conn.domainListGetStats([dom], 0, {flags})[0][1]))"
    )
    found: dict[str, Any] = json.loads(host.python(code))
    return found


def test_bulk_statistics_of_a_running_guest(running: SystemHost) -> None:
    found = stats(running, "on")
    assert found["state.state"] == 3
    assert found["cpu.time"] > 0
    assert found["balloon.rss"] > 10000
    assert found["block.count"] == 3
    assert (found["block.0.name"], found["block.0.capacity"], found["block.1.capacity"]) == ("vda", 64 * MIB, 8 * MIB)
    assert found["block.1.physical"] == running.path(f"{IMAGES}/b.img").stat().st_blocks * 512
    assert found["block.2.name"] == "sdb"
    assert "block.2.path" not in found
    assert found["iothread.count"] == 1
    assert found["dirtyrate.calc_status"] == 0
    assert stats(running, "on")["block.0.capacity"] == 64 * MIB  # from memory now


def test_bulk_statistics_of_a_domain_that_is_off(running: SystemHost) -> None:
    found = stats(running, "off")
    assert found["state.state"] == 5
    assert (found["block.0.capacity"], found["block.1.physical"]) == (64 * MIB, 8 * MIB)


def test_enforced_groups_are_refused_where_they_cannot_be(running: SystemHost) -> None:
    done = running.virsh("domstats --iothread --enforce off")
    assert "Stats types bits 0x80 are not supported by this daemon or QEMU" in done.stderr


def test_disks_one_by_one(running: SystemHost) -> None:
    assert "rd_req" in running.ok("domblkstat on vda --human").replace("number of read operations:", "rd_req")
    info = running.ok("domblkinfo on sda")
    assert [line.split()[-1] for line in info.splitlines()][::2] == [str(8 * MIB), str(8 * MIB)]
    assert running.ok("domblkerror on") == "No errors found"
    assert "total_bytes_sec: 0" in running.ok("blkdeviotune on vda")


def test_disks_and_memory_are_looked_into(running: SystemHost) -> None:
    code = (
        "import libvirt; dom = conn.lookupByName('on');"
        "print(dom.blockPeek('sda', 0, 4), len(dom.memoryPeek(0xf0000, 64, libvirt.VIR_MEMORY_PHYSICAL)))"
    )
    assert running.python(code) == "b'head' 64"
    left = list(running.path("/var/lib/libvirt/qemu").rglob("mem.*"))
    assert left == []


def test_memory_and_processors(running: SystemHost) -> None:
    assert "rss" in running.ok("dommemstat on")
    assert running.ok("vcpucount on --live --current") == "1"
    assert "CPU Affinity" in running.ok("vcpuinfo on")
    assert "cpu_time" in running.ok("cpu-stats on --total")
    assert running.ok("iothreadinfo on").split()[-2] == "1"


def test_a_dirty_rate_is_measured_and_told(running: SystemHost) -> None:
    running.ok("domdirtyrate-calc on --seconds 1")
    assert stats(running, "on")["dirtyrate.calc_status"] in (1, 2)


def test_an_unknown_interface_is_refused(running: SystemHost) -> None:
    assert "'vnet9' is not a known interface" in running.virsh("domifstat on vnet9").stderr


def test_changes_outlast_the_daemon(running: SystemHost) -> None:
    running.ok("setmaxmem off 128M --config")
    running.ok("setvcpus off 4 --config --maximum")
    running.ok("dommemstat on --period 5 --live")
    running.restart(9)
    assert "<memory unit='KiB'>131072</memory>" in running.ok("dumpxml off --inactive")
    assert running.ok("vcpucount off --config --maximum") == "4"
    assert "<stats period='5'/>" in running.ok("dumpxml on")
    assert stats(running, "on")["block.0.capacity"] == 64 * MIB
