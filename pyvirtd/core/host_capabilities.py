"""The <host> part of <capabilities>, which all hypervisor drivers share: processors, memory, caches, security models.

What cannot change is written once for each topology; memory and page counts are read at every call.
Format: https://libvirt.org/formatcaps.html
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from pyvirtd.core.host import CellMemory, HostInfo
from pyvirtd.core.host_memory import huge_page_sizes, page_size_kib
from pyvirtd.core.host_topology import CacheBank, Cell, Topology
from pyvirtd.model.capabilities import HostCpuDescription, SecurityModelDescription, Writer, yes_no


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """What the drivers add to what HostInfo reads. `transports` are the URI schemes of live migration."""

    uuid: UUID
    security_models: tuple[SecurityModelDescription, ...] = ()
    transports: tuple[str, ...] = ()


class HostDocument:
    """Makes <host>. One per driver."""

    def __init__(self, host: HostInfo, identity: HostIdentity) -> None:
        self.host = host
        self.identity = identity
        self._made_for: tuple[Topology, HostCpuDescription] | None = None
        self._before = ""
        self._after = ""

    async def format(self, cpu: HostCpuDescription) -> str:
        """The lines of <host>, at the depth they have in <capabilities>. `cpu` lacks what HostInfo knows."""
        topology = await self.host.topology()
        if self._made_for != (topology, cpu):
            self._before = await self._static_part(await self._complete(cpu, topology))
            self._after = self._last_part(topology.caches)
            self._made_for = (topology, cpu)
        memory = self.host.cells_memory(cell.id for cell in topology.cells)
        return self._before + _cells(topology.cells, memory) + self._after

    async def _complete(self, cpu: HostCpuDescription, topology: Topology) -> HostCpuDescription:
        tsc = await self.host.tsc()
        return cpu._replace(
            tsc_hz=tsc.frequency_hz if tsc else None,
            tsc_scaling=tsc.scaling if tsc else None,
            sockets=topology.sockets,
            cores=topology.cores,
            threads=topology.threads,
            page_sizes_kib=(page_size_kib(), *huge_page_sizes(root=self.host.root)),
        )

    async def _static_part(self, cpu: HostCpuDescription) -> str:
        suspend_targets = await self.host.suspend_targets()
        out = Writer(depth=1)
        out.open("host")
        out.text("uuid", self.identity.uuid)
        cpu.write(out)
        if suspend_targets:
            with out.element("power_management"):
                for target in suspend_targets:
                    out.empty(target)
        else:
            out.empty("power_management")
        out.empty("iommu", support=yes_no(await self.host.has_iommu()))
        if self.identity.transports:
            with out.element("migration_features"):
                out.empty("live")
                with out.element("uri_transports"):
                    for transport in self.identity.transports:
                        out.text("uri_transport", transport)
        return out.take()

    def _last_part(self, caches: Iterable[CacheBank]) -> str:
        out = Writer(depth=2)
        banks = list(caches)
        if banks:
            with out.element("cache"):
                for bank in banks:
                    size, unit = pretty_size(bank.size_kib)
                    shape = {"id": bank.id, "level": bank.level, "type": bank.kind, "size": size, "unit": unit}
                    out.empty("bank", **shape, cpus=bank.cpus)
        for model in self.identity.security_models:
            model.write(out)
        out.close("host")
        return out.take()


def pretty_size(kib: int) -> tuple[int, str]:
    """The largest unit that keeps the number whole."""
    for unit in ("KiB", "MiB", "GiB"):
        if kib == 0 or kib % 1024:
            return kib, unit
        kib //= 1024
    return kib, "TiB"


def _cells(cells: Iterable[Cell], memory: dict[int, CellMemory]) -> str:
    out = Writer(depth=2)
    here = list(cells)
    with out.element("topology"), out.element("cells", num=len(here)):
        for cell in here:
            with out.element("cell", id=cell.id):
                _cell(out, cell, memory[cell.id])
    return out.take()


def _cell(out: Writer, cell: Cell, memory: CellMemory) -> None:
    if memory.memory.total_kib:
        out.text("memory", memory.memory.total_kib, unit="KiB")
    for pool in memory.pages:
        out.text("pages", pool.total, unit="KiB", size=pool.size_kib)
    if cell.distances:
        with out.element("distances"):
            for node, distance in cell.distances:
                out.empty("sibling", id=node, value=distance)
    with out.element("cpus", num=len(cell.cpus)):
        for cpu in cell.cpus:
            out.empty("cpu", id=cpu.id, socket_id=cpu.socket, die_id=cpu.die, core_id=cpu.core, siblings=cpu.siblings)
