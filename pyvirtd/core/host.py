"""The host as clients see it: node information, CPU and memory statistics, names. Answers are those of the node calls.

What needs a scan of sysfs is read in a thread and kept; small files of /proc are read where they are asked for, as the
kernel answers from memory. SMBIOS is `smbios`, what QEMU can do on this host is the QEMU driver's.
"""

import asyncio
import fcntl
import os
import re
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pyvirtd.api.connect import NodeGetCPUMapReply, NodeGetInfoReply
from pyvirtd.api.types import NodeCPUStat, NodeMemoryStat, TypedParam
from pyvirtd.core import host_memory, host_power, smbios
from pyvirtd.core.host_memory import WHOLE_HOST, Memory, Pages
from pyvirtd.core.host_topology import Topology, node_numbers, online_text, read_topology
from pyvirtd.errors import ConfigUnsupported, InternalError, InvalidArg, from_os_error
from pyvirtd.model.capabilities import SysInfo

ALL_CPUS = -1
HOSTNAME_TIMEOUT_S = 5.0

_ARCH_OF_MACHINE = {"i386": "i686", "i486": "i686", "i586": "i686", "armv8l": "armv7l", "amd64": "x86_64"}


class BadIndex(InvalidArg):
    """A CPU or cell number out of range; libvirt's text has no leading words here."""

    @property
    def message(self) -> str:
        return self.detail


class CellMemory(NamedTuple):
    """The memory of one NUMA cell, as it is now."""

    memory: Memory
    pages: list[Pages]


class TscInfo(NamedTuple):
    """The time stamp counter of the host's CPUs; `scaling` if a guest may have another frequency (None: unknown)."""

    frequency_hz: int
    scaling: bool | None


def host_arch() -> str:
    """libvirt's name of the host's architecture."""
    machine = os.uname().machine
    return _ARCH_OF_MACHINE.get(machine, machine)


def parse_mhz(cpuinfo: str) -> int:
    """The first CPU's frequency in /proc/cpuinfo; 0 where the architecture has none there."""
    match = re.search(r"^(?:cpu MHz|clock)\s*:\s*(\d+)", cpuinfo, re.MULTILINE)
    return int(match[1]) if match else 0


def parse_cpu_stats(stat: str, cpu: int, ticks: int) -> list[NodeCPUStat]:
    """Times of one CPU, or of all together, in ns. Raises BadIndex for a CPU that /proc/stat lacks."""
    name = "cpu" if cpu == ALL_CPUS else f"cpu{cpu}"
    match = re.search(rf"^{name} +(.*)$", stat, re.MULTILINE)
    if match is None:
        raise BadIndex("Invalid cpuNum in virHostCPUGetStatsLinux")
    # proc(5): user nice system idle iowait irq softirq steal guest guest_nice
    user, nice, system, idle, iowait, irq, softirq = (int(word) for word in match[1].split()[:7])
    ns = 1_000_000_000 // ticks
    return [
        NodeCPUStat("kernel", (system + irq + softirq) * ns),
        NodeCPUStat("user", (user + nice) * ns),
        NodeCPUStat("idle", idle * ns),
        NodeCPUStat("iowait", iowait * ns),
    ]


class HostInfo:
    """One per daemon. `root` is "/" but for tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._topology: Topology | None = None
        self._topology_key = ""
        self._mhz: int | None = None
        self._tsc: TscInfo | None = None
        self._tsc_read = False
        self._suspend_targets: tuple[str, ...] | None = None
        self._sysinfo: SysInfo | None = None
        self._sysinfo_read = False

    # CPUs

    async def topology(self) -> Topology:
        """The CPUs; read again only after one came or went."""
        key = online_text(self.root)
        if self._topology is None or key != self._topology_key:
            self._topology = await asyncio.to_thread(read_topology, self.root)
            self._topology_key = key
        return self._topology

    async def node_info(self) -> NodeGetInfoReply:
        topology = await self.topology()
        memory = host_memory.host_memory(self.root)
        if self._mhz is None:
            self._mhz = parse_mhz(await asyncio.to_thread(self._cpuinfo))
        return NodeGetInfoReply(
            host_arch().encode()[:31].ljust(32, b"\0"),
            memory.total_kib,
            len(topology.online),
            self._mhz,
            topology.nodes,
            topology.sockets,
            topology.cores,
            topology.threads,
        )

    async def cpu_map(self, *, need_map: bool, need_online: bool) -> NodeGetCPUMapReply:
        """A bit for each CPU that is on line; the result is the highest CPU present plus one."""
        topology = await self.topology()
        count = max(topology.present, default=-1) + 1
        bits = sum(1 << cpu for cpu in topology.online)
        packed = bits.to_bytes((count + 7) // 8, "little") if need_map else b""
        return NodeGetCPUMapReply(packed, len(topology.online) if need_online else 0, count)

    def cpu_stats(self, cpu: int) -> list[NodeCPUStat]:
        """Times of one CPU, or of all by -1. Raises BadIndex."""
        if cpu < ALL_CPUS:
            raise BadIndex("cpuNum in virNodeGetCPUStats only accepts -1 as a negative value")
        stat = (self.root / "proc/stat").read_text()
        return parse_cpu_stats(stat, cpu, os.sysconf("SC_CLK_TCK"))

    async def tsc(self) -> TscInfo | None:
        """The counter's frequency, from KVM; None without KVM or on other machines than x86."""
        if not self._tsc_read:
            self._tsc = await asyncio.to_thread(read_tsc)
            self._tsc_read = True
        return self._tsc

    # Memory

    def free_memory(self) -> int:
        """In bytes."""
        return host_memory.host_memory(self.root).free_kib * 1024

    def memory_stats(self, cell: int) -> list[NodeMemoryStat]:
        """In KiB, of a cell or of the host by -1. Raises BadIndex."""
        if cell < WHOLE_HOST:
            raise BadIndex("cellNum in virNodeGetMemoryStats only accepts -1 as a negative value")
        if cell == WHOLE_HOST:
            found = host_memory.parse_meminfo((self.root / "proc/meminfo").read_text())
            fields = {"total": "MemTotal", "free": "MemFree", "buffers": "Buffers", "cached": "Cached"}
            return [NodeMemoryStat(name, found[key]) for name, key in fields.items() if key in found]
        memory = host_memory.node_memory(cell, self.root)
        if memory is None:
            highest = self._cells()[-1]
            raise BadIndex(f"cellNum in virHostMemGetStats must be less than or equal to {highest}")
        return [NodeMemoryStat("total", memory.total_kib), NodeMemoryStat("free", memory.free_kib)]

    def cells_free_memory(self, start: int, count: int) -> list[int]:
        """Bytes free in up to `count` cells. Raises InternalError if there is no cell `start`."""
        return [
            memory.free_kib * 1024
            for cell in self._cell_range(start, count)
            if (memory := host_memory.node_memory(cell, self.root))
        ]

    def cells_memory(self, cells: Iterable[int]) -> dict[int, CellMemory]:
        """Memory and page pools of each cell, as they are now: a few small reads for each."""
        return {cell: self._cell_memory(cell) for cell in cells}

    def free_pages(self, sizes_kib: list[int], start: int, count: int) -> list[int]:
        """Free pages of each size, cell after cell; start -1 means the whole host. Raises OperationFailed."""
        cells = [WHOLE_HOST] if start == WHOLE_HOST else self._cell_range(start, count)
        return [host_memory.free_pages(cell, size, self.root) for cell in cells for size in sizes_kib]

    async def alloc_pages(
        self, sizes_kib: list[int], counts: list[int], start: int, cell_count: int, *, add: bool
    ) -> int:
        """Resize page pools; the number of pools that were. Stops at the first that fails, with its error."""
        return await asyncio.to_thread(self._alloc_pages, sizes_kib, counts, start, cell_count, add)

    def memory_parameters(self) -> list[TypedParam]:
        return host_memory.ksm_parameters(self.root)

    async def set_memory_parameters(self, params: list[TypedParam]) -> None:
        await asyncio.to_thread(host_memory.set_ksm_parameters, params, self.root)

    # Names and firmware

    async def hostname(self) -> str:
        """The host's name, qualified if the resolver knows how and answers in time."""
        name = socket.gethostname()
        if name.startswith("localhost") or "." in name:
            return name
        try:
            async with asyncio.timeout(HOSTNAME_TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(name, None, flags=socket.AI_CANONNAME)
        except (OSError, TimeoutError):
            return name
        canonical = found[0][3] if found else ""
        return canonical if canonical and not canonical.startswith("localhost") else name

    async def sysinfo(self) -> SysInfo:
        """What the firmware tells about the machine. Raises ConfigUnsupported if it tells nothing."""
        if not self._sysinfo_read:
            self._sysinfo = await asyncio.to_thread(smbios.read, self.root)
            self._sysinfo_read = True
        if self._sysinfo is None:
            raise ConfigUnsupported("Host SMBIOS information is not available")
        return self._sysinfo

    async def suspend_targets(self) -> tuple[str, ...]:
        """How the host can sleep: of suspend_mem, suspend_disk, suspend_hybrid. Asked once."""
        if self._suspend_targets is None:
            self._suspend_targets = await host_power.suspend_targets()
        return self._suspend_targets

    async def has_iommu(self) -> bool:
        """The kernel put at least one device into an IOMMU group."""
        groups = self.root / "sys/kernel/iommu_groups"
        return await asyncio.to_thread(lambda: groups.is_dir() and any(groups.iterdir()))

    def _cells(self) -> list[int]:
        return node_numbers(self.root) or [0]

    def _cell_range(self, start: int, count: int) -> range:
        highest = self._cells()[-1]
        if not 0 <= start <= highest:
            raise InternalError(f"start cell {start} out of range (0-{highest})")
        return range(start, min(start + count, highest + 1))

    def _cell_memory(self, cell: int) -> CellMemory:
        memory = host_memory.node_memory(cell, self.root)
        node = cell
        if memory is None:
            memory, node = host_memory.host_memory(self.root), WHOLE_HOST
        return CellMemory(memory, host_memory.all_pages(node, memory, self.root))

    def _alloc_pages(self, sizes: list[int], counts: list[int], start: int, cell_count: int, add: bool) -> int:
        cells = [WHOLE_HOST] if start == WHOLE_HOST else self._cell_range(start, cell_count)
        done = 0
        for cell in cells:
            for size, count in zip(sizes, counts, strict=True):
                host_memory.set_huge_pages(cell, size, count, add=add, root=self.root)
                done += 1
        return done

    def _cpuinfo(self) -> str:
        return (self.root / "proc/cpuinfo").read_text(errors="replace")


def host_uuid(configured: str = "", source: str = "smbios", root: Path = Path("/")) -> uuid.UUID:
    """The host's identity: libvirtd.conf's, else the firmware's or the machine-id, else made up for this run."""
    if configured:
        return uuid.UUID(configured)
    files = ("etc/machine-id",) if source == "machine-id" else ("sys/class/dmi/id/product_uuid",)
    for file in files:
        try:
            found = uuid.UUID((root / file).read_text().strip())
        except (OSError, ValueError):
            continue
        # boards ship with a filler of one digit; libvirt does not take it for an identity
        if len(set(found.hex)) > 1:
            return found
    return uuid.uuid4()


# linux/kvm.h
_KVM_CREATE_VM, _KVM_CHECK_EXTENSION, _KVM_CREATE_VCPU, _KVM_GET_TSC_KHZ = 0xAE01, 0xAE03, 0xAE41, 0xAEA3
_KVM_CAP_MAX_VCPUS, _KVM_CAP_NR_VCPUS, _KVM_CAP_TSC_CONTROL, _KVM_CAP_GET_TSC_KHZ = 66, 9, 60, 61


def read_tsc(device: str = "/dev/kvm") -> TscInfo | None:
    """Ask KVM, on a virtual CPU that lives for this question; blocks for a few milliseconds."""
    opened: list[int] = []
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        opened.append(kvm)
        if fcntl.ioctl(kvm, _KVM_CHECK_EXTENSION, _KVM_CAP_GET_TSC_KHZ) <= 0:
            return None
        vm = fcntl.ioctl(kvm, _KVM_CREATE_VM, 0)
        opened.append(vm)
        opened.append(fcntl.ioctl(vm, _KVM_CREATE_VCPU, 0))
        khz = fcntl.ioctl(opened[-1], _KVM_GET_TSC_KHZ, 0)
        scaling = fcntl.ioctl(kvm, _KVM_CHECK_EXTENSION, _KVM_CAP_TSC_CONTROL)
    except OSError:
        return None
    finally:
        for fd in reversed(opened):
            os.close(fd)
    return TscInfo(khz * 1000, scaling > 0) if khz > 0 else None


def kvm_max_vcpus(device: str = "/dev/kvm") -> int:
    """The most virtual CPUs that KVM gives a guest. Raises SystemError_ where /dev/kvm does not open."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise from_os_error(exc, f"Unable to open {device}") from exc
    try:
        most = fcntl.ioctl(fd, _KVM_CHECK_EXTENSION, _KVM_CAP_MAX_VCPUS)
        return most if most > 0 else fcntl.ioctl(fd, _KVM_CHECK_EXTENSION, _KVM_CAP_NR_VCPUS)
    finally:
        os.close(fd)
