"""Statistics of domains: disks, interfaces, memory, processors. No read here takes a job.

Many domains in one call are `stats_bulk`'s; looking into a guest's memory is `stats_peek`'s.
"""

import asyncio
import os
from typing import TYPE_CHECKING

from pyvirtd.api.domain_stats import (
    DomainBlockStatsReply,
    DomainGetBlockInfoReply,
    DomainGetCPUStatsReply,
    DomainGetVcpusReply,
    DomainInterfaceStatsReply,
    StatsPart,
)
from pyvirtd.api.limits import CPUMAPS_MAX, DOMAIN_GET_CPU_STATS_MAX, DOMAIN_MEMORY_STATS_MAX, VCPUINFO_MAX
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import (
    DomainRef,
    DomainStatsRecord,
    MemoryStat,
    TypedParam,
    VcpuInfo,
    param_llong,
)
from pyvirtd.constants.domain import ConnectGetAllDomainStatsFlags as BulkFlags
from pyvirtd.constants.domain import DomainDirtyRateCalcFlags as DirtyFlags
from pyvirtd.constants.domain import DomainMemoryFlags, DomainVcpuFlags
from pyvirtd.constants.domain import DomainMemoryStatTags as Tag
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.domain import DomainStatsTypes as Group
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterFlags
from pyvirtd.core.edits import change, one_target
from pyvirtd.core.jobs import Job
from pyvirtd.core.objects import filter_domains
from pyvirtd.core.procstat import read_process, read_thread
from pyvirtd.drivers.qemu.agent_calls import agent_of
from pyvirtd.drivers.qemu.blocks_find import disk_format, find_disk, format_node, is_empty
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.runtime import set_balloon_period
from pyvirtd.drivers.qemu.stats_bulk import ALL, BulkStats, Wanted
from pyvirtd.drivers.qemu.stats_cpu import cpu_times_of_each, cpu_totals
from pyvirtd.drivers.qemu.stats_image import Image, ImageSize, measure_one, refuse_lent, require_local
from pyvirtd.drivers.qemu.stats_net import find_interface, interface_counters
from pyvirtd.drivers.qemu.stats_off import ONLY_RUNNING
from pyvirtd.drivers.qemu.stats_peek import peek_memory
from pyvirtd.drivers.qemu.stats_qmp import BlockStats, Traffic, balloon_figures, block_nodes
from pyvirtd.drivers.qemu.stats_running import RUNNING, balloon_command
from pyvirtd.drivers.qemu.tune_shared import live_group
from pyvirtd.errors import (
    ArgumentUnsupported,
    BadCall,
    ConfigUnsupported,
    InternalError,
    InvalidArg,
    NoDomain,
    OperationInvalid,
    OperationUnsupported,
)
from pyvirtd.model.disk import Disk
from pyvirtd.model.domain import DomainDef, DomainType
from pyvirtd.model.storage import StorageType
from pyvirtd.util.files import in_thread
from pyvirtd.util.values import cpus_to_map

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

STRING_OKAY = TypedParameterFlags.STRING_OKAY
LIST_FLAGS = (
    BulkFlags.ACTIVE
    | BulkFlags.INACTIVE
    | BulkFlags.PERSISTENT
    | BulkFlags.TRANSIENT
    | BulkFlags.RUNNING
    | BulkFlags.PAUSED
    | BulkFlags.SHUTOFF
    | BulkFlags.OTHER
)
BULK_FLAGS = LIST_FLAGS | BulkFlags.NOWAIT | BulkFlags.BACKING | BulkFlags.ENFORCE_STATS
IMAGE_S = 30.0  # for the storage of one image that a client asks about
TOTAL = -1  # of the CPUs in domain_get_cpu_stats
CPUS_MAX = 128  # protocol: REMOTE_DOMAIN_GET_CPU_STATS_NCPUS_MAX
DIRTY_SECONDS = range(1, 61)
# Parameters of block statistics, in libvirt's order: a field of the traffic each.
BLOCK_PARAMS = (
    ("wr_bytes", "wr_bytes"),
    ("wr_operations", "wr_reqs"),
    ("rd_bytes", "rd_bytes"),
    ("rd_operations", "rd_reqs"),
    ("flush_operations", "flush_reqs"),
    ("wr_total_times", "wr_ns"),
    ("rd_total_times", "rd_ns"),
    ("flush_total_times", "flush_ns"),
)


class Stats(StatsPart[QemuDomain]):
    """The statistics procedures."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver
        self.bulk = BulkStats()

    # --- many domains ----------------------------------------------------------------------------------------

    @accepts(BULK_FLAGS)
    async def connect_get_all_domain_stats(
        self, doms: list[QemuDomain], stats: int, flags: int
    ) -> list[DomainStatsRecord]:
        chosen = filter_domains(self._named(doms) if doms else self.driver.domains, flags & LIST_FLAGS)
        if flags & BulkFlags.ENFORCE_STATS:
            for dom in chosen:
                _enforce(dom, stats)
        groups = Group(stats & ALL) if stats else ALL
        backing, nowait = bool(flags & BulkFlags.BACKING), bool(flags & BulkFlags.NOWAIT)
        return await self.bulk.collect(chosen, Wanted(groups, backing=backing, nowait=nowait))

    def _named(self, refs: list[QemuDomain]) -> list[QemuDomain]:
        """The domains that a client names; those that are gone are passed over."""
        found = []
        for ref in refs:
            try:
                found.append(self.driver.resolve(ref) if isinstance(ref, DomainRef) else ref)
            except NoDomain:
                continue
        return found

    # --- disks -----------------------------------------------------------------------------------------------

    async def domain_block_stats(self, dom: QemuDomain, path: str) -> DomainBlockStatsReply:
        traffic = await self._traffic(dom, path)
        return DomainBlockStatsReply(traffic.rd_reqs, traffic.rd_bytes, traffic.wr_reqs, traffic.wr_bytes, -1)

    @accepts(STRING_OKAY)
    async def domain_block_stats_flags(self, dom: QemuDomain, path: str, flags: int) -> list[TypedParam]:
        traffic = await self._traffic(dom, path)
        return [param_llong(name, getattr(traffic, field)) for name, field in BLOCK_PARAMS]

    async def _traffic(self, dom: QemuDomain, path: str) -> Traffic:
        """The traffic of a disk, of all together by an empty path."""
        live = dom.live_def
        disks = live.devices.disk
        if path:
            disk = find_disk(live, path)
            if disk is None:
                raise InvalidArg(f"invalid path: {path}")
            disks = [disk]
        found = BlockStats.of(await dom.monitor.execute("query-blockstats")).traffic
        total = Traffic()
        for disk in disks:
            traffic = found.get(disk.info.alias or "")
            if traffic is None and path:
                raise InternalError(f"cannot find statistics for device '{disk.info.alias}'")
            total = total.plus(traffic or Traffic())
        return total

    @accepts(0)
    async def domain_get_block_info(self, dom: QemuDomain, path: str, flags: int) -> DomainGetBlockInfoReply:
        if not path:
            raise BadCall("string disk in virDomainGetBlockInfo must not be empty")
        disk = find_disk(dom.shown, path)
        if disk is None:
            raise InvalidArg(f"invalid path {path} not assigned to domain")
        if is_empty(disk):
            raise InvalidArg(f"disk '{path}' does not currently have a source assigned")
        refuse_lent(disk)
        size = await (self._image_size(disk) if dom.guest is None else self._live_size(dom, disk))
        return DomainGetBlockInfoReply(size.allocation, size.capacity, size.physical)

    async def _image_size(self, disk: Disk) -> ImageSize:
        return await measure_one(Image(require_local(disk), disk_format(disk)), IMAGE_S, From.QEMU)

    async def _live_size(self, dom: QemuDomain, disk: Disk) -> ImageSize:
        """What QEMU says; the length of a file is the host's to tell, and what it holds where QEMU wrote nothing."""
        monitor, source = dom.monitor, disk.source
        blocks, nodes = await asyncio.gather(
            monitor.execute("query-blockstats"), monitor.execute("query-named-block-nodes", {"flat": True})
        )
        name = format_node((source.index or 0) if source is not None else 0)
        node = block_nodes(nodes).get(name)
        if node is None:
            return await self._image_size(disk)
        highest = BlockStats.of(blocks).highest.get(name, 0)
        if disk.type is not StorageType.FILE:
            return ImageSize(highest, node.capacity, node.physical or node.capacity)
        at_rest = await self._image_size(disk)
        return ImageSize(highest or node.physical, node.capacity, at_rest.physical)

    # --- interfaces ------------------------------------------------------------------------------------------

    def domain_interface_stats(self, dom: QemuDomain, device: str) -> DomainInterfaceStatsReply:
        return DomainInterfaceStatsReply(*interface_counters(find_interface(dom.live_def, device)))

    # --- memory ----------------------------------------------------------------------------------------------

    @accepts(0)
    async def domain_memory_stats(self, dom: QemuDomain, max_stats: int, flags: int) -> list[MemoryStat]:
        if max_stats > DOMAIN_MEMORY_STATS_MAX:
            raise InternalError("maxStats > REMOTE_DOMAIN_MEMORY_STATS_MAX", domain=From.RPC)
        if not max_stats:
            return []
        live, guest = dom.live_def, dom.running
        stats = []
        if live.devices.balloon is not None:
            balloon, told = await asyncio.gather(
                guest.monitor.execute("query-balloon"), guest.monitor.execute(*balloon_command(live))
            )
            stats.append(MemoryStat(Tag.ACTUAL_BALLOON, int(balloon["actual"]) // 1024))
            stats += [MemoryStat(figure.tag, figure.value) for figure in balloon_figures(told)]
        try:
            stats.append(MemoryStat(Tag.RSS, read_process(guest.process.pid).rss_kib))
        except ProcessLookupError:
            raise OperationInvalid("domain is not running", domain=From.DOMAIN) from None
        return stats[:max_stats]

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_memory_stats_period(self, dom: QemuDomain, period: int, flags: int) -> None:
        if period < 0:
            raise BadCall("period in virDomainSetMemoryStatsPeriod must be zero or greater")

        def edit(definition: DomainDef, *, live: bool) -> None:
            balloon = definition.devices.balloon
            if balloon is None:
                raise InternalError("No memory balloon device configured, can not set the collection period")
            balloon.stats_period = period or None

        async def tell_qemu() -> None:
            await set_balloon_period(dom, period)

        await change(self.driver, dom, flags, edit, tell_qemu)

    @accepts(DomainMemoryFlags.VIRTUAL | DomainMemoryFlags.PHYSICAL)
    async def domain_memory_peek(self, dom: QemuDomain, offset: int, size: int, flags: int) -> bytes:
        return await peek_memory(self.driver, dom, offset, size, flags)

    @accepts(DirtyFlags.DIRTY_BITMAP | DirtyFlags.DIRTY_RING)
    async def domain_start_dirty_rate_calc(self, dom: QemuDomain, seconds: int, flags: int) -> None:
        if flags == DirtyFlags.DIRTY_BITMAP | DirtyFlags.DIRTY_RING:
            raise BadCall(
                "Flags 'VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_BITMAP' and 'VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_RING'"
                " are mutually exclusive"
            )
        if seconds not in DIRTY_SECONDS:
            raise ConfigUnsupported(f"seconds={seconds} is invalid, please choose value within [1, 60].")
        async with dom.jobs.hold(Job.MODIFY, "DomainStartDirtyRateCalc"):
            guest, live = dom.running, dom.live_def
            arguments: dict[str, object] = {"calc-time": seconds}
            if flags:
                # QEMU 7.2 under TCG dies of a request for these modes.
                if live.type is not DomainType.KVM:
                    raise OperationUnsupported("only KVM tells which pages a guest wrote")
                arguments["mode"] = "dirty-bitmap" if flags & DirtyFlags.DIRTY_BITMAP else "dirty-ring"
            await guest.monitor.execute("calc-dirty-rate", arguments)

    # --- processors ------------------------------------------------------------------------------------------

    def domain_get_max_vcpus(self, dom: QemuDomain) -> int:
        return dom.live_def.vcpu.count

    @accepts(Impact.LIVE | Impact.CONFIG | DomainVcpuFlags.MAXIMUM | DomainVcpuFlags.GUEST)
    async def domain_get_vcpus_flags(self, dom: QemuDomain, flags: int) -> int:
        definition = one_target(dom, flags)
        if flags & DomainVcpuFlags.GUEST:
            if dom.guest is None:
                raise InvalidArg("vCPU count provided by the guest agent can only be requested for live domains")
            return await self._guest_vcpus(dom, every=bool(flags & DomainVcpuFlags.MAXIMUM))
        vcpu = definition.vcpu
        return vcpu.count if flags & DomainVcpuFlags.MAXIMUM else vcpu.current or vcpu.count

    async def _guest_vcpus(self, dom: QemuDomain, *, every: bool) -> int:
        """How many processors the guest itself has, or uses."""
        told = await agent_of(dom).execute("guest-get-vcpus")
        if not isinstance(told, list) or not all(isinstance(vcpu, dict) for vcpu in told):
            raise InternalError("the guest agent told no list of vcpus", domain=From.QEMU)
        return sum(1 for vcpu in told if every or vcpu.get("online") is True)

    def domain_get_vcpus(self, dom: QemuDomain, maxinfo: int, maplen: int) -> DomainGetVcpusReply:
        if maxinfo > VCPUINFO_MAX:
            raise InternalError("maxinfo > REMOTE_VCPUINFO_MAX", domain=From.RPC)
        if maxinfo * maplen > CPUMAPS_MAX:
            raise InternalError("maxinfo * maplen > REMOTE_CPUMAPS_MAX", domain=From.RPC)
        if maxinfo <= 0:
            raise BadCall("info in virDomainGetVcpus must not be NULL")
        if maplen < 0:
            raise BadCall("maplen in virDomainGetVcpus must be zero or greater")
        if dom.guest is None:
            raise OperationInvalid("cannot retrieve vcpu information for inactive domain", domain=From.QEMU)
        infos, maps = [], []
        pid = dom.guest.process.pid
        for number, tid in sorted(dom.guest.vcpu_threads.items())[:maxinfo]:
            try:
                thread = read_thread(pid, tid)
                maps.append(cpus_to_map(os.sched_getaffinity(tid), maplen))
            except ProcessLookupError:
                continue
            infos.append(VcpuInfo(number, RUNNING, thread.cpu_ns, thread.processor))
        return DomainGetVcpusReply(infos, b"".join(maps).ljust(maxinfo * maplen, b"\0"))

    @accepts(STRING_OKAY)
    async def domain_get_cpu_stats(
        self, dom: QemuDomain, nparams: int, start_cpu: int, ncpus: int, flags: int
    ) -> DomainGetCPUStatsReply:
        """Of all processors together, or of each where control groups count that."""
        if nparams > DOMAIN_GET_CPU_STATS_MAX // CPUS_MAX:
            raise InternalError("nparams too large", domain=From.RPC)
        if ncpus > CPUS_MAX:
            raise InternalError("ncpus too large", domain=From.RPC)
        if start_cpu < TOTAL:
            raise BadCall("start_cpu in virDomainGetCPUStats must be zero or greater")
        if start_cpu == TOTAL and ncpus != 1:
            raise BadCall("ncpus must be 1 when start_cpu is -1")
        guest = dom.running
        if start_cpu == TOTAL:
            params = await in_thread(cpu_totals, guest.process.pid, guest.group)
            return DomainGetCPUStatsReply(params[:nparams], min(nparams, len(params)) if nparams else len(params))
        each = await in_thread(cpu_times_of_each, live_group(dom, "cpuacct"), list(guest.vcpu_threads))
        if not ncpus:
            return DomainGetCPUStatsReply([], len(each))
        if start_cpu >= len(each):
            raise InvalidArg(f"start_cpu {start_cpu} larger than maximum of {len(each) - 1}", domain=From.QEMU)
        if not nparams:
            return DomainGetCPUStatsReply([], len(each[0]))
        wanted = each[start_cpu : start_cpu + ncpus]
        count = min(nparams, len(each[0]))
        return DomainGetCPUStatsReply([param for params in wanted for param in params[:count]], count)


def _enforce(dom: QemuDomain, stats: int) -> None:
    """Raises ArgumentUnsupported for groups that a domain cannot tell."""
    missing = stats & ~int(ALL)
    if dom.guest is None:
        missing |= stats & int(ONLY_RUNNING)
    if missing:
        raise ArgumentUnsupported(f"Stats types bits 0x{missing:x} are not supported by this daemon or QEMU")
