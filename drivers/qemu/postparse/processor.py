"""Defaults of <cpu>: mode, model, check, NUMA cells."""

import re

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.board import ARM, PPC64, S390, X86
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import XmlError
from pyvirtd.model.cpu import (
    Cpu,
    CpuCheck,
    CpuFallback,
    CpuFeature,
    CpuMatch,
    CpuMode,
    CpuModel,
    FeaturePolicy,
    Numa,
    NumaCell,
    NumaSibling,
)
from pyvirtd.model.domain import DomainDef

DOMAIN = ErrorDomain.DOMAIN
LOCAL_DISTANCE = 10  # as ACPI's SLIT has it
# Architectures whose processor models libvirt knows; others are left to QEMU.
_SVE_LENGTH = re.compile(r"sve[0-9]+")
_WITH_CPU_MODELS = X86 | PPC64 | ARM | S390


def complete_cpu(scope: Scope) -> None:
    """Mode, match, check and fallback; without a model the machine's own."""
    cpu = scope.definition.cpu
    if cpu is not None:
        _complete_mode(cpu)
        if cpu.numa is not None:
            complete_cells(cpu.numa)
            _place_vcpus(scope.definition, cpu.numa)
        if scope.board.arm:
            _imply_sve(cpu)
    _default_model(scope)
    cpu = scope.definition.cpu
    if cpu is None or (cpu.mode in (None, CpuMode.CUSTOM) and not _named(cpu)):
        return
    if cpu.mode in (CpuMode.HOST_PASSTHROUGH, CpuMode.MAXIMUM):
        cpu.check = cpu.check or CpuCheck.NONE
        if cpu.migratable is None and scope.board.x86 and cpu.mode is CpuMode.HOST_PASSTHROUGH:
            # only the x86_64 emulator is asked whether it has the property
            cpu.migratable = scope.board.arch == "x86_64"
    elif cpu.mode is CpuMode.HOST_MODEL:
        cpu.check = cpu.check or CpuCheck.PARTIAL
    else:
        cpu.check = cpu.check or (CpuCheck.PARTIAL if scope.kvm else CpuCheck.NONE)


def _imply_sve(cpu: Cpu) -> None:
    """A length of vectors makes no sense without vectors."""
    names = {feature.name for feature in cpu.feature}
    if "sve" not in names and any(_SVE_LENGTH.fullmatch(name) for name in names):
        cpu.feature.append(CpuFeature(policy=FeaturePolicy.REQUIRE, name="sve"))


def _named(cpu: Cpu) -> bool:
    return cpu.model is not None and bool(cpu.model.name)


def _complete_mode(cpu: Cpu) -> None:
    if cpu.model is not None and not cpu.model.name:
        cpu.model = None  # a fallback without a model says nothing
    if cpu.mode is None and (cpu.match is not None or cpu.model is not None):
        cpu.mode = CpuMode.CUSTOM
    if cpu.mode is CpuMode.CUSTOM and cpu.model is not None:
        cpu.match = cpu.match or CpuMatch.EXACT
    elif cpu.mode not in (None, CpuMode.CUSTOM):
        cpu.match = None
    if cpu.model is not None:
        cpu.model.fallback = cpu.model.fallback or CpuFallback.ALLOW
    if cpu.mode is not CpuMode.CUSTOM and cpu.mode is not CpuMode.HOST_MODEL:
        cpu.model = None


def _default_model(scope: Scope) -> None:
    """What QEMU would choose, written down so that a newer QEMU cannot choose otherwise."""
    definition = scope.definition
    cpu = definition.cpu
    if cpu is not None and (_named(cpu) or cpu.mode not in (None, CpuMode.CUSTOM)):
        return
    machine = scope.caps.machine(definition.os.type.machine or "", definition.type)
    model = machine.default_cpu if machine else None
    if model is None or scope.board.arch not in _WITH_CPU_MODELS:
        return
    if scope.board.ppc64:
        model = model.partition("_v")[0].upper()
    if model == "host":
        mode, named = CpuMode.HOST_PASSTHROUGH, None
    else:
        mode, named = CpuMode.CUSTOM, CpuModel(fallback=CpuFallback.FORBID, name=model)
    cpu = definition.cpu = cpu or Cpu()
    cpu.mode, cpu.model, cpu.check = mode, named, None
    cpu.match = CpuMatch.EXACT if named else None


def complete_cells(numa: Numa) -> None:
    """Numbers of cells that have none, and cells in the order of their numbers."""
    cells = numa.cell
    for place, cell in enumerate(cells):
        if cell.id is None:
            cell.id = place
    numbers = [cell.id or 0 for cell in cells]
    for number in numbers:
        if number >= len(cells):
            raise XmlError(
                "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting "
                "from 0 are not allowed",
                domain=DOMAIN,
            )
        if numbers.count(number) > 1:
            raise XmlError(f"Duplicate NUMA cell info for cell id '{number}'", domain=DOMAIN)
    numa.cell = sorted(cells, key=_number)
    for cell in numa.cell:
        _check_distances(cell, len(cells))
    _complete_distances(numa)


def _complete_distances(numa: Numa) -> None:
    """A node is near to itself, and as far from another as that one is from it unless it says otherwise."""
    table: list[dict[int, int]] = [{} for _ in numa.cell]
    for number, cell in enumerate(numa.cell):
        for sibling in cell.distances:
            table[number].setdefault(number, LOCAL_DISTANCE)
            table[number][sibling.id] = sibling.value
            table[sibling.id].setdefault(sibling.id, LOCAL_DISTANCE)
            table[sibling.id].setdefault(number, sibling.value)
    for cell, row in zip(numa.cell, table, strict=True):
        cell.distances = [NumaSibling(id=number, value=value) for number, value in sorted(row.items())]


def _place_vcpus(definition: DomainDef, numa: Numa) -> None:
    """Processors that no node names belong to the first."""
    if not numa.cell:
        return
    placed = {number for cell in numa.cell for number in cell.cpus or ()}
    left = set(range(definition.vcpu.count)) - placed
    if placed and left:
        numa.cell[0].cpus = frozenset(numa.cell[0].cpus or ()) | left


def _number(cell: NumaCell) -> int:
    return cell.id or 0


def _check_distances(cell: NumaCell, cells: int) -> None:
    for sibling in cell.distances:
        if sibling.id >= cells:
            raise XmlError(f"Invalid 'id' '{sibling.id}' in NUMA distances for sibling: '{cell.id}'", domain=DOMAIN)


def numa_cells(definition: DomainDef) -> int:
    """How many NUMA nodes the guest has."""
    cpu = definition.cpu
    return len(cpu.numa.cell) if cpu is not None and cpu.numa is not None else 0
