"""The node procedures: the host is the same for every hypervisor driver."""

from pyvirtd.api.connect import NodeGetCPUMapReply, NodeGetInfoReply, NodePart
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import NodeCPUStat, NodeMemoryStat, SecurityModel, TypedParam
from pyvirtd.constants.host import NodeAllocPagesFlags, TypedParameterFlags
from pyvirtd.core.driver import Driver
from pyvirtd.core.host_power import HostSleep
from pyvirtd.errors import InvalidArg

STRING_OKAY = TypedParameterFlags.STRING_OKAY


class HostNode(NodePart):
    """Answers from core/host.py."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.info = driver.host.info
        self.sleep = HostSleep(driver.host.tasks.start)

    async def node_get_info(self) -> NodeGetInfoReply:
        return await self.info.node_info()

    def node_get_free_memory(self) -> int:
        return self.info.free_memory()

    def node_get_cells_free_memory(self, start_cell: int, maxcells: int) -> list[int]:
        return self.info.cells_free_memory(start_cell, maxcells)

    @accepts(0)
    def node_get_cpu_stats(self, cpu_num: int, flags: int) -> list[NodeCPUStat]:
        return self.info.cpu_stats(cpu_num)

    @accepts(0)
    def node_get_memory_stats(self, cell_num: int, flags: int) -> list[NodeMemoryStat]:
        return self.info.memory_stats(cell_num)

    @accepts(STRING_OKAY)
    def node_get_memory_parameters(self, flags: int) -> list[TypedParam]:
        return self.info.memory_parameters()

    @accepts(0)
    async def node_set_memory_parameters(self, params: list[TypedParam], flags: int) -> None:
        await self.info.set_memory_parameters(params)

    @accepts(0)
    async def node_get_cpu_map(self, need_map: int, need_online: int, flags: int) -> NodeGetCPUMapReply:
        return await self.info.cpu_map(need_map=bool(need_map), need_online=bool(need_online))

    @accepts(0)
    def node_get_free_pages(self, pages: list[int], start_cell: int, cell_count: int, flags: int) -> list[int]:
        if not pages or not cell_count:
            raise InvalidArg("pages and cells must be named in virNodeGetFreePages")
        return self.info.free_pages(pages, start_cell, cell_count)

    @accepts(NodeAllocPagesFlags.SET)
    async def node_alloc_pages(
        self, page_sizes: list[int], page_counts: list[int], start_cell: int, cell_count: int, flags: int
    ) -> int:
        if len(page_sizes) != len(page_counts):
            raise InvalidArg("as many page counts as page sizes are needed in virNodeAllocPages")
        add = not flags & NodeAllocPagesFlags.SET
        return await self.info.alloc_pages(page_sizes, page_counts, start_cell, cell_count, add=add)

    @accepts(0, function="virNodeSuspend")
    async def node_suspend_for_duration(self, target: int, duration: int, flags: int) -> None:
        await self.sleep.suspend(target, duration)

    def node_get_security_model(self) -> SecurityModel:
        models = self.driver.security_models()
        if not models:
            return SecurityModel(b"", b"")
        return SecurityModel(models[0].model.encode() + b"\0", models[0].doi.encode() + b"\0")
