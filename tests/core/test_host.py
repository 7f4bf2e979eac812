"""Answers of the node calls on a made-up host."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pyvirtd.api.connect import NodeGetCPUMapReply
from pyvirtd.api.types import NodeCPUStat, NodeMemoryStat
from pyvirtd.core import host as module
from pyvirtd.core.host import BadIndex, HostInfo, host_uuid, parse_cpu_stats, parse_mhz
from pyvirtd.core.host_capabilities import HostDocument, HostIdentity, pretty_size
from pyvirtd.errors import ConfigUnsupported, InternalError
from pyvirtd.model.capabilities import HostCpuDescription, SecurityModelDescription
from tests.core.test_host_topology import make_host, write

STAT = "cpu  10 1 20 300 40 5 6 7 0 0\ncpu0 4 0 9 150 20 2 3 0 0 0\ncpu10 6 1 11 150 20 3 3 7 0 0\nintr 5\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_host(tmp_path)
    write(tmp_path, "sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 1000 kB\nNode 0 MemFree: 400 kB")
    write(tmp_path, "proc/meminfo", "MemTotal: 1000 kB\nMemFree: 400 kB\nBuffers: 5 kB\nCached: 6 kB\nSwapTotal: 1 kB")
    write(tmp_path, "proc/stat", STAT)
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2445.404\n")
    return tmp_path


def test_node_info_counts_and_pads_the_model(root: Path) -> None:
    found = asyncio.run(HostInfo(root).node_info())
    assert found[1:] == (1000, 2, 2445, 1, 1, 2, 1)
    assert len(found.model) == 32
    assert found.model.rstrip(b"\0").decode() == module.host_arch()


def test_cpu_that_goes_off_line_is_seen(root: Path) -> None:
    async def ask() -> tuple[int, int]:
        host = HostInfo(root)
        before = (await host.node_info()).cpus
        write(root, "sys/devices/system/cpu/online", "0")
        write(root, "sys/devices/system/node/node0/cpulist", "0")
        return before, (await host.node_info()).cpus

    assert asyncio.run(ask()) == (2, 1)


def test_mhz_is_zero_where_cpuinfo_has_none() -> None:
    assert parse_mhz("processor : 0\nBogoMIPS : 50.00\n") == 0
    assert parse_mhz("clock\t\t: 3425.000000MHz\n") == 3425


def test_cpu_times_are_summed_into_libvirts_four() -> None:
    assert parse_cpu_stats(STAT, -1, 100) == [
        NodeCPUStat("kernel", 310_000_000),
        NodeCPUStat("user", 110_000_000),
        NodeCPUStat("idle", 3_000_000_000),
        NodeCPUStat("iowait", 400_000_000),
    ]


def test_cpu_one_is_not_cpu_ten() -> None:
    assert parse_cpu_stats(STAT, 10, 100)[1] == NodeCPUStat("user", 70_000_000)
    with pytest.raises(BadIndex) as caught:
        parse_cpu_stats(STAT, 1, 100)
    assert caught.value.message == "Invalid cpuNum in virHostCPUGetStatsLinux"
    assert caught.value.code == 8


def test_memory_of_host_and_of_a_cell(root: Path) -> None:
    host = HostInfo(root)
    assert host.memory_stats(-1) == [
        NodeMemoryStat("total", 1000),
        NodeMemoryStat("free", 400),
        NodeMemoryStat("buffers", 5),
        NodeMemoryStat("cached", 6),
    ]
    assert host.memory_stats(0) == [NodeMemoryStat("total", 1000), NodeMemoryStat("free", 400)]


def test_numbers_out_of_range_have_libvirts_words(root: Path) -> None:
    host = HostInfo(root)
    with pytest.raises(BadIndex, match="cellNum in virHostMemGetStats must be less than or equal to 0"):
        host.memory_stats(1)
    with pytest.raises(BadIndex, match="only accepts -1 as a negative value"):
        host.cpu_stats(-2)
    with pytest.raises(InternalError, match=r"start cell 1 out of range \(0-0\)"):
        host.cells_free_memory(1, 1)


def test_free_memory_in_bytes_and_no_more_cells_than_there_are(root: Path) -> None:
    host = HostInfo(root)
    assert host.free_memory() == 400 * 1024
    assert host.cells_free_memory(0, 5) == [400 * 1024]


def test_cpu_map_has_a_bit_for_each_cpu_on_line(root: Path) -> None:
    write(root, "sys/devices/system/cpu/present", "0-9")
    write(root, "sys/devices/system/cpu/online", "0,9")
    found = asyncio.run(HostInfo(root).cpu_map(need_map=True, need_online=True))
    assert found == NodeGetCPUMapReply(b"\x01\x02", 2, 10)


def test_cpu_map_sends_only_what_was_asked_for(root: Path) -> None:
    found = asyncio.run(HostInfo(root).cpu_map(need_map=False, need_online=False))
    assert found == NodeGetCPUMapReply(b"", 0, 2)


def test_host_without_firmware_tables_has_no_sysinfo(root: Path) -> None:
    with pytest.raises(ConfigUnsupported, match="Host SMBIOS information is not available"):
        asyncio.run(HostInfo(root).sysinfo())


@pytest.mark.parametrize(
    ("name", "answer", "shown"),
    [
        ("web.example.org", "never asked", "web.example.org"),
        ("web", "web.example.org", "web.example.org"),
        ("web", "localhost", "web"),
        ("web", OSError(), "web"),
    ],
)
def test_hostname_is_qualified_where_the_resolver_knows(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: str | OSError, shown: str
) -> None:
    async def ask() -> str:
        async def resolve(*_args: object, **_kwargs: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            if isinstance(answer, OSError):
                raise answer
            return [(0, 0, 0, answer, ("", 0))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        return await HostInfo(root).hostname()

    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert asyncio.run(ask()) == shown


def test_configured_uuid_wins() -> None:
    wanted = "11111111-2222-3333-4444-555555555555"
    assert host_uuid(wanted) == uuid.UUID(wanted)


def test_uuid_comes_from_the_firmware_or_the_machine_id(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/dmi/id/product_uuid", "03020100-0504-0706-0809-0A0B0C0D0E0F")
    write(tmp_path, "etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4")
    assert str(host_uuid(root=tmp_path)) == "03020100-0504-0706-0809-0a0b0c0d0e0f"
    assert host_uuid(source="machine-id", root=tmp_path).hex == "3d1219c7c4c5404aaa1f6d2a48adfda4"


def test_filler_uuid_of_one_digit_is_no_identity(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/dmi/id/product_uuid", "ffffffff-ffff-ffff-ffff-ffffffffffff")
    assert host_uuid(root=tmp_path) != uuid.UUID(int=2**128 - 1)


@pytest.mark.parametrize(
    ("kib", "shown"), [(512, (512, "KiB")), (32768, (32, "MiB")), (1 << 20, (1, "GiB")), (0, (0, "KiB"))]
)
def test_cache_sizes_use_the_largest_whole_unit(kib: int, shown: tuple[int, str]) -> None:
    assert pretty_size(kib) == shown


def answer_with(value: tuple[str, ...]) -> Callable[[], Awaitable[tuple[str, ...]]]:
    async def answer() -> tuple[str, ...]:
        return value

    return answer


def test_host_element_as_libvirt_writes_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_tsc", lambda: module.TscInfo(2_445_404_000, scaling=False))
    monkeypatch.setattr("pyvirtd.core.host_memory.page_size_kib", lambda: 4)
    monkeypatch.setattr("pyvirtd.core.host_capabilities.page_size_kib", lambda: 4)
    monkeypatch.setattr("pyvirtd.core.host_power.suspend_targets", answer_with(("suspend_mem",)))
    models = (SecurityModelDescription("dac", "0", (("kvm", "+1:+1"),)),)
    identity = HostIdentity(uuid.UUID(int=1), models, ("tcp",))
    document = HostDocument(HostInfo(root), identity)
    assert (
        asyncio.run(document.format(HostCpuDescription("x86_64")))
        == """\
  <host>
    <uuid>00000000-0000-0000-0000-000000000001</uuid>
    <cpu>
      <arch>x86_64</arch>
      <counter name='tsc' frequency='2445404000' scaling='no'/>
      <topology sockets='1' dies='1' cores='2' threads='1'/>
      <pages unit='KiB' size='4'/>
    </cpu>
    <power_management>
      <suspend_mem/>
    </power_management>
    <iommu support='no'/>
    <migration_features>
      <live/>
      <uri_transports>
        <uri_transport>tcp</uri_transport>
      </uri_transports>
    </migration_features>
    <topology>
      <cells num='1'>
        <cell id='0'>
          <memory unit='KiB'>1000</memory>
          <pages unit='KiB' size='4'>250</pages>
          <distances>
            <sibling id='0' value='10'/>
          </distances>
          <cpus num='2'>
            <cpu id='0' socket_id='0' die_id='0' core_id='0' siblings='0'/>
            <cpu id='1' socket_id='0' die_id='0' core_id='1' siblings='1'/>
          </cpus>
        </cell>
      </cells>
    </topology>
    <secmodel>
      <model>dac</model>
      <doi>0</doi>
      <baselabel type='kvm'>+1:+1</baselabel>
    </secmodel>
  </host>
"""
    )


def test_host_element_shows_memory_as_it_is_now(root: Path) -> None:
    async def twice() -> tuple[str, str]:
        document = HostDocument(HostInfo(root), HostIdentity(uuid.UUID(int=1)))
        before = await document.format(HostCpuDescription("x86_64"))
        write(root, "sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 2000 kB\nNode 0 MemFree: 400 kB")
        return before, await document.format(HostCpuDescription("x86_64"))

    before, after = asyncio.run(twice())
    assert "<memory unit='KiB'>1000</memory>" in before
    assert "<memory unit='KiB'>2000</memory>" in after
