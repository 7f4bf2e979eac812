"""A connection and its node: versions, capabilities, CPU models, host memory and CPU statistics.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, NamedTuple

from pyvirtd.api.limits import (
    CONNECT_CPU_MODELS_MAX,
    CPU_BASELINE_MAX,
    CPUMAP_MAX,
    NODE_CPU_STATS_MAX,
    NODE_MAX_CELLS,
    NODE_MEMORY_PARAMETERS_MAX,
    NODE_MEMORY_STATS_MAX,
    NODE_SEV_INFO_MAX,
)
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, rpc
from pyvirtd.api.types import NodeCPUStat, NodeMemoryStat, SecurityModel, TypedParam
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Chars, Int, Max, Opaque, Str, UHyper, UInt


class NodeGetInfoReply(NamedTuple):
    model: Annotated[bytes, Chars(32, fixed=True)]
    memory: UHyper
    cpus: Int
    mhz: Int
    nodes: Int
    sockets: Int
    cores: Int
    threads: Int


class NodeGetCPUMapReply(NamedTuple):
    cpumap: Annotated[bytes, Opaque(CPUMAP_MAX)]
    online: UInt
    ret: Int


class ConnectPart(Part, program=REMOTE, error_domain=From.DOMAIN):
    """ConnectPart procedures."""

    @rpc(3, "connect:getattr", ro=True)
    def connect_get_type(self) -> Answer[Str]: ...

    @rpc(4, "connect:getattr", ro=True)
    def connect_get_version(self) -> Answer[UHyper]: ...

    @rpc(5, "connect:read", ro=True)
    def connect_get_max_vcpus(self, type: Str | None) -> Answer[Int]: ...

    @rpc(7, "connect:read", ro=True)
    def connect_get_capabilities(self) -> Answer[Str]: ...

    @rpc(59, "connect:getattr", ro=True)
    def connect_get_hostname(self) -> Answer[Str]: ...

    @rpc(135, "connect:write")
    def connect_domain_xml_from_native(self, native_format: Str, native_config: Str, flags: UInt) -> Answer[Str]: ...

    @rpc(136, "connect:write")
    def connect_domain_xml_to_native(self, native_format: Str, domain_xml: Str, flags: UInt) -> Answer[Str]: ...

    @rpc(158, "connect:read", ro=True)
    def connect_compare_cpu(self, xml: Str, flags: UInt) -> Answer[Int]: ...

    @rpc(162, "connect:read", ro=True)
    def connect_baseline_cpu(
        self, xml_cpus: Annotated[list[Str], Max(CPU_BASELINE_MAX)], flags: UInt
    ) -> Answer[Str]: ...

    @rpc(203, "connect:read", ro=True)
    def connect_get_sysinfo(self, flags: UInt) -> Answer[Str]: ...

    @rpc(312, "connect:read", ro=True)
    def connect_get_cpu_model_names(
        self, arch: Str, flags: UInt
    ) -> Answer[Annotated[list[Str], Shaped(Shape.LISTED, CONNECT_CPU_MODELS_MAX, count=Int)]]: ...

    @rpc(342, "connect:write")
    def connect_get_domain_capabilities(
        self, emulatorbin: Str | None, arch: Str | None, machine: Str | None, virttype: Str | None, flags: UInt
    ) -> Answer[Str]: ...

    @rpc(393, "connect:write")
    def connect_compare_hypervisor_cpu(
        self,
        emulator: Str | None,
        arch: Str | None,
        machine: Str | None,
        virttype: Str | None,
        xml_cpu: Str,
        flags: UInt,
    ) -> Answer[Int]: ...

    @rpc(394, "connect:write")
    def connect_baseline_hypervisor_cpu(
        self,
        emulator: Str | None,
        arch: Str | None,
        machine: Str | None,
        virttype: Str | None,
        xml_cpus: Annotated[list[Str], Max(CPU_BASELINE_MAX)],
        flags: UInt,
    ) -> Answer[Str]: ...


class NodeGetSEVInfoReply(NamedTuple):
    params: Annotated[list[TypedParam], Max(NODE_SEV_INFO_MAX)]
    nparams: Int


class NodePart(Part, program=REMOTE, error_domain=From.DOMAIN):
    """NodePart procedures."""

    @rpc(6, "connect:read", ro=True)
    def node_get_info(self) -> Answer[NodeGetInfoReply]: ...

    @rpc(101, "connect:read", ro=True)
    def node_get_cells_free_memory(
        self, start_cell: Int, maxcells: Int
    ) -> Answer[Annotated[list[UHyper], Max(NODE_MAX_CELLS)]]: ...

    @rpc(102, "connect:read", ro=True)
    def node_get_free_memory(self) -> Answer[UHyper]: ...

    @rpc(122, "connect:read", ro=True)
    def node_get_security_model(self) -> Answer[SecurityModel]: ...

    @rpc(227, "connect:read", ro=True)
    def node_get_cpu_stats(
        self, cpu_num: Int, flags: UInt
    ) -> Answer[Annotated[list[NodeCPUStat], Shaped(Shape.SIZED, NODE_CPU_STATS_MAX)]]: ...

    @rpc(228, "connect:read", ro=True)
    def node_get_memory_stats(
        self, cell_num: Int, flags: UInt
    ) -> Answer[Annotated[list[NodeMemoryStat], Shaped(Shape.SIZED, NODE_MEMORY_STATS_MAX, first=True)]]: ...

    @rpc(250, "connect:pm_control")
    def node_suspend_for_duration(self, target: UInt, duration: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(288, "connect:write")
    def node_set_memory_parameters(
        self, params: Annotated[list[TypedParam], Max(NODE_MEMORY_PARAMETERS_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(289, "connect:read", ro=True)
    def node_get_memory_parameters(
        self, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Shaped(Shape.SIZED, NODE_MEMORY_PARAMETERS_MAX)]]: ...

    @rpc(293, "connect:read", ro=True)
    def node_get_cpu_map(self, need_map: Int, need_online: Int, flags: UInt) -> Answer[NodeGetCPUMapReply]: ...

    @rpc(340, "connect:read", ro=True)
    def node_get_free_pages(
        self, pages: Annotated[list[UInt], Max(NODE_MAX_CELLS)], start_cell: Int, cell_count: UInt, flags: UInt
    ) -> Answer[Annotated[list[UHyper], Max(NODE_MAX_CELLS)]]: ...

    @rpc(347, "connect:write")
    def node_alloc_pages(
        self,
        page_sizes: Annotated[list[UInt], Max(NODE_MAX_CELLS)],
        page_counts: Annotated[list[UHyper], Max(NODE_MAX_CELLS)],
        start_cell: Int,
        cell_count: UInt,
        flags: UInt,
    ) -> Answer[Int]: ...

    @rpc(395, "connect:read")
    def node_get_sev_info(self, nparams: Int, flags: UInt) -> Answer[NodeGetSEVInfoReply]: ...
