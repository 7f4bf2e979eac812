"""Statistics of domains.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic, NamedTuple

from pyvirtd.api.limits import (
    CPUMAPS_MAX,
    DOMAIN_BLOCK_STATS_PARAMETERS_MAX,
    DOMAIN_GET_CPU_STATS_MAX,
    DOMAIN_LIST_MAX,
    DOMAIN_MEMORY_PEEK_BUFFER_MAX,
    DOMAIN_MEMORY_STATS_MAX,
    DOMAIN_PERF_EVENTS_MAX,
    VCPUINFO_MAX,
)
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, Unless, When, rpc
from pyvirtd.api.types import D, DomainStatsRecord, MemoryStat, TypedParam, VcpuInfo
from pyvirtd.constants.domain import DomainModificationImpact, DomainVcpuFlags
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Hyper, Int, Max, Opaque, Str, UHyper, UInt


class DomainGetVcpusReply(NamedTuple):
    info: Annotated[list[VcpuInfo], Max(VCPUINFO_MAX)]
    cpumaps: Annotated[bytes, Opaque(CPUMAPS_MAX)]


class DomainBlockStatsReply(NamedTuple):
    rd_req: Hyper
    rd_bytes: Hyper
    wr_req: Hyper
    wr_bytes: Hyper
    errs: Hyper


class DomainInterfaceStatsReply(NamedTuple):
    rx_bytes: Hyper
    rx_packets: Hyper
    rx_errs: Hyper
    rx_drop: Hyper
    tx_bytes: Hyper
    tx_packets: Hyper
    tx_errs: Hyper
    tx_drop: Hyper


class DomainGetBlockInfoReply(NamedTuple):
    allocation: UHyper
    capacity: UHyper
    physical: UHyper


class DomainGetCPUStatsReply(NamedTuple):
    params: Annotated[list[TypedParam], Max(DOMAIN_GET_CPU_STATS_MAX)]
    nparams: Int


class StatsPart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN):
    """StatsPart procedures."""

    @rpc(18, "domain:read", ro=True)
    def domain_get_max_vcpus(self, dom: D) -> Answer[Int]: ...

    @rpc(20, "domain:read", ro=True)
    def domain_get_vcpus(self, dom: D, maxinfo: Int, maplen: Int) -> Answer[DomainGetVcpusReply]: ...

    @rpc(64, "domain:read", ro=True)
    def domain_block_stats(self, dom: D, path: Str) -> Answer[DomainBlockStatsReply]: ...

    @rpc(65, "domain:read", ro=True)
    def domain_interface_stats(self, dom: D, device: Str) -> Answer[DomainInterfaceStatsReply]: ...

    @rpc(104, "domain:mem_read")
    def domain_memory_peek(
        self, dom: D, offset: UHyper, size: UInt, flags: UInt
    ) -> Answer[Annotated[bytes, Opaque(DOMAIN_MEMORY_PEEK_BUFFER_MAX)]]: ...

    @rpc(159, "domain:read", ro=True)
    def domain_memory_stats(
        self, dom: D, max_stats: UInt, flags: UInt
    ) -> Answer[Annotated[list[MemoryStat], Max(DOMAIN_MEMORY_STATS_MAX)]]: ...

    @rpc(194, "domain:read", ro=True)
    def domain_get_block_info(self, dom: D, path: Str, flags: UInt) -> Answer[DomainGetBlockInfoReply]: ...

    @rpc(
        200,
        "domain:read",
        When(DomainVcpuFlags.GUEST, "domain:write"),
        ro=True,
        ro_deny=When(DomainVcpuFlags.GUEST, "domain:write"),
    )
    def domain_get_vcpus_flags(self, dom: D, flags: UInt) -> Answer[Int]: ...

    @rpc(243, "domain:read", ro=True)
    def domain_block_stats_flags(
        self, dom: D, path: Str, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Shaped(Shape.SIZED, DOMAIN_BLOCK_STATS_PARAMETERS_MAX)]]: ...

    @rpc(262, "domain:read", ro=True)
    def domain_get_cpu_stats(
        self, dom: D, nparams: UInt, start_cpu: Int, ncpus: UInt, flags: UInt
    ) -> Answer[DomainGetCPUStatsReply]: ...

    @rpc(
        308,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_memory_stats_period(self, dom: D, period: Int, flags: UInt) -> Answer[None]: ...

    @rpc(344, "connect:search_domains", list_filter="domain:read", ro=True)
    def connect_get_all_domain_stats(
        self, doms: Annotated[list[D], Max(DOMAIN_LIST_MAX)], stats: UInt, flags: UInt
    ) -> Answer[Annotated[list[DomainStatsRecord], Max(DOMAIN_LIST_MAX)]]: ...

    @rpc(365, "domain:read", ro=True)
    def domain_get_perf_events(
        self, dom: D, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Max(DOMAIN_PERF_EVENTS_MAX)]]: ...

    @rpc(366, "domain:write")
    def domain_set_perf_events(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_PERF_EVENTS_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(427, "domain:write")
    def domain_start_dirty_rate_calc(self, dom: D, seconds: Int, flags: UInt) -> Answer[None]: ...
