"""Where on the host a guest goes whose definition leaves that to us: numad is asked once, when it starts.

The advice stands in the live definition as if it had been given there, and is not printed: clients see that placement
is automatic. The state file has it beside the definition. https://libvirt.org/formatdomain.html#numa-node-tuning
"""

import logging
import shutil
from collections.abc import Set

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.host_topology import Topology, parse_list, read_topology
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.model.cpu import NumatuneMemory, Placement
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.status import StatusAdvice
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import run

log = logging.getLogger(__name__)

NUMAD = "numad"
ASK_S = 30.0  # it looks at the host's load for two seconds


async def place(live: DomainDef) -> None:
    """Fill in what numad advises, where a definition asks for it. Raises OperationFailed."""
    if live.vcpu.placement is Placement.AUTO or _memory(live) is not None:
        nodes = await _ask(live)
        topology = await in_thread(read_topology)
        _fill_in(live, _known(nodes, topology), _cpus(nodes, topology))


async def place_again(live: DomainDef, advice: StatusAdvice | None) -> None:
    """Fill in what the state file of a running guest says that numad advised."""
    if advice is not None:
        cpus = advice.cpuset
        if cpus is None and advice.nodeset is not None:
            cpus = _cpus(advice.nodeset, await in_thread(read_topology))
        _fill_in(live, advice.nodeset, cpus)


def noted_advice(live: DomainDef) -> StatusAdvice | None:
    """What numad advised for a running guest; None where it was not asked."""
    memory = _memory(live)
    nodes = memory.nodeset if memory is not None else None
    cpus = live.vcpu.cpuset if live.vcpu.placement is Placement.AUTO else None
    return StatusAdvice(nodeset=nodes, cpuset=cpus) if nodes or cpus else None


def _memory(live: DomainDef) -> NumatuneMemory | None:
    """What says of the guest's memory that its placement is automatic."""
    memory = live.numatune.memory if live.numatune is not None else None
    return memory if memory is not None and memory.placement is Placement.AUTO else None


def _fill_in(live: DomainDef, nodes: Set[int] | None, cpus: Set[int] | None) -> None:
    if (memory := _memory(live)) is not None:
        memory.nodeset = nodes
    if live.vcpu.placement is Placement.AUTO:
        live.vcpu.cpuset = cpus


async def _ask(live: DomainDef) -> Set[int]:
    if await in_thread(shutil.which, NUMAD) is None:
        raise _failed()
    need = f"{live.vcpu.current or live.vcpu.count}:{-(-live.memory.kib // 1024)}"
    try:
        result = await run([NUMAD, "-w", need], timeout=ASK_S)
    except (OSError, VirtError) as exc:
        raise _failed(str(exc)) from exc
    words = result.stdout.decode("utf-8", "replace").strip()
    if result.returncode:
        raise _failed(result.stderr.decode("utf-8", "replace").strip() or f"it ended with {result.returncode}")
    log.debug("domain %s: numad advises nodes '%s'", live.name, words)
    try:
        return parse_list(words)
    except ValueError:
        raise _failed(f"it said '{words}'") from None


def _known(nodes: Set[int], topology: Topology) -> Set[int]:
    """Those of the nodes that the host has. Raises OperationFailed where it has none of them."""
    found = nodes & {cell.id for cell in topology.cells}
    if not found:
        raise _failed("it names no node of this host")
    return found


def _cpus(nodes: Set[int], topology: Topology) -> Set[int]:
    return {cpu.id for cell in topology.cells if cell.id in nodes for cpu in cell.cpus}


def _failed(why: str = "") -> VirtError:
    text = "Failed to query numad for the advisory nodeset"
    return OperationFailed(f"{text}: {why}" if why else text, domain=From.NONE)
