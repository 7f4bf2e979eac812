"""How many vcpus a definition has: changes to it that need no guest."""

from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import InvalidArg
from pyvirtd.model.cpu import VcpuState
from pyvirtd.model.domain import DomainDef

VCPUS_MAX = 65535  # what <vcpu> is read as


class _State(NamedTuple):
    """One vcpu; `hotpluggable` None: not decided."""

    enabled: bool
    hotpluggable: bool | None


def set_vcpus(definition: DomainDef, count: int, *, hotpluggable: bool) -> None:
    """Enable so many of a definition's vcpus, the lowest first, and disable the highest first. Raises InvalidArg."""
    vcpu = definition.vcpu
    if count > vcpu.count:
        raise InvalidArg(
            f"requested vcpus is greater than max allowable vcpus for the persistent domain: {count} > {vcpu.count}",
            domain=From.QEMU,
        )
    states = _states(definition)
    individual = bool(definition.vcpus)
    missing = count - sum(state.enabled for state in states)
    for number, state in enumerate(states):
        if missing > 0 and not state.enabled:
            states[number] = _State(enabled=True, hotpluggable=hotpluggable)
            individual |= hotpluggable
            missing -= 1
    for number in range(len(states) - 1, -1, -1):
        if missing < 0 and states[number].enabled:
            states[number] = _State(enabled=False, hotpluggable=True)
            missing += 1
    vcpu.current = count if count < vcpu.count else None
    definition.vcpus = _listed(states) if individual else []


def set_max_vcpus(definition: DomainDef, count: int) -> None:
    """Change the most vcpus that a definition may have; enabled ones above that go. Raises InvalidArg."""
    if count > VCPUS_MAX:
        raise InvalidArg(f"requested vcpus is greater than a definition can hold: {count} > {VCPUS_MAX}")
    topology = definition.cpu.topology if definition.cpu is not None else None
    if topology is not None and topology.sockets * topology.dies * topology.cores * topology.threads != count:
        raise InvalidArg("CPU topology doesn't match the desired vcpu count", domain=From.QEMU)
    _fit_numa(definition, count)
    states = _states(definition)
    states = states[:count] + [_State(enabled=False, hotpluggable=None)] * (count - len(states))
    enabled = sum(state.enabled for state in states)
    definition.vcpu.count = count
    definition.vcpu.current = enabled if enabled < count else None
    definition.vcpus = _listed(states) if definition.vcpus else []
    if definition.cputune is not None:
        definition.cputune.vcpupin = [pin for pin in definition.cputune.vcpupin if pin.vcpu < count]


def _fit_numa(definition: DomainDef, count: int) -> None:
    """Vcpus that no NUMA cell has are the first one's."""
    cells = definition.cpu.numa.cell if definition.cpu is not None and definition.cpu.numa is not None else []
    taken = {number for cell in cells for number in cell.cpus or ()}
    if len(taken) > count:
        raise InvalidArg("Number of CPUs in <numa> exceeds the desired maximum vcpu count", domain=From.QEMU)
    if cells and len(taken) < count:
        cells[0].cpus = frozenset(cells[0].cpus or ()) | frozenset(range(count)) - taken


def _states(definition: DomainDef) -> list[_State]:
    """Every vcpu; without a list of them the lowest are enabled, and what is not may be plugged in."""
    if definition.vcpus:
        listed = sorted(definition.vcpus, key=lambda vcpu: vcpu.id)
        return [_State(bool(vcpu.enabled), vcpu.hotpluggable) for vcpu in listed]
    current = definition.vcpu.current or definition.vcpu.count
    return [_State(number < current, hotpluggable=number >= current) for number in range(definition.vcpu.count)]


def _listed(states: list[_State]) -> list[VcpuState]:
    """The list for the document; an order of plugging does not outlast a change."""
    return [
        VcpuState(id=number, enabled=state.enabled, hotpluggable=state.hotpluggable)
        for number, state in enumerate(states)
    ]
