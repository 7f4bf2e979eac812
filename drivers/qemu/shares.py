"""A guest's shares of caches and memory bandwidth, and what its monitors count: <cachetune> and <memorytune>.

The names of a guest's groups follow from its live definition, so that a later daemon knows what to remove.
https://libvirt.org/formatdomain.html#cpu-tuning
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from pyvirtd.api.types import TypedParam, param_string, param_uint, param_ullong
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.cgroup import machine_name
from pyvirtd.core.host_topology import read_topology
from pyvirtd.core.resctrl import HOST, MONITORS, CacheShare, Count, Resctrl
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.cpu import CacheTune, CpuTune, MemoryTune
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread
from pyvirtd.util.values import format_cpus
from pyvirtd.xml.types import scale

log = logging.getLogger(__name__)

OCCUPANCY, LOCAL, TOTAL = "llc_occupancy", "mbm_local_bytes", "mbm_total_bytes"  # names of the kernel's counts


Counts = Mapping[tuple[str, str], list[Count]]  # by a group's path and the kernel's name of the count


class Monitor(NamedTuple):
    """Counting for some vcpus; `path`: of the group below resctrl's root; `own`: a directory of its own."""

    id: str
    vcpus: Set[int]
    counts: str
    path: str
    own: bool


@dataclass
class Share:
    """What some vcpus have of the host; without shares their threads stay in the default group."""

    id: str
    vcpus: Set[int]
    group: str = ""
    caches: list[CacheShare] = field(default_factory=list)
    memory: dict[int, int] = field(default_factory=dict)
    monitors: list[Monitor] = field(default_factory=list)


def shares_of(live: DomainDef) -> list[Share]:
    """The groups of a guest. What <cachetune> and <memorytune> say of the same vcpus is one group."""
    machine = machine_name(live.id or 0, live.name)
    there = frozenset(range(live.vcpu.count))
    found: dict[str, Share] = {}
    parts = [(part, there & (part.vcpus or set())) for part in _parts(live)]
    for part, vcpus in parts:
        if vcpus:
            share = found.setdefault(_id(vcpus), Share(_id(vcpus), vcpus))
            if isinstance(part, CacheTune):
                share.caches += [
                    CacheShare(one.level, one.id, str(one.type), scale(one.size, one.unit or "B", "B"))
                    for one in part.cache
                ]
            else:
                share.memory |= {node.id: node.bandwidth for node in part.node}
            if share.caches or share.memory:
                share.group = f"{machine}-{share.id}"
    for part, vcpus in parts:
        counts = OCCUPANCY if isinstance(part, CacheTune) else LOCAL
        for monitor in part.monitor if vcpus else ():
            share = found[_id(vcpus)]
            own = there & (monitor.vcpus or set())
            share.monitors.append(_monitor(share, machine, _id(own), own, counts))
    return list(found.values())


def _parts(live: DomainDef) -> list[CacheTune | MemoryTune]:
    tune = live.cputune or CpuTune()
    return [*tune.cachetune, *tune.memorytune]


def _id(vcpus: Set[int] | None) -> str:
    return f"vcpus_{format_cpus(vcpus or ())}"


def _monitor(share: Share, machine: str, name: str, vcpus: Set[int], counts: str) -> Monitor:
    """A group counts for itself; for some of its vcpus a group below it does."""
    if share.group and name == share.id:
        return Monitor(name, vcpus, counts, share.group, own=False)
    above = f"{share.group}/" if share.group else ""
    return Monitor(name, vcpus, counts, f"{above}{MONITORS}/{machine}-{name}", own=True)


# --- a guest's life ---------------------------------------------------------------------------------------------


def name_shares(live: DomainDef) -> None:
    """Give the parts of a live definition the names that clients see."""
    for part in _parts(live):
        part.id = part.id or _id(frozenset(range(live.vcpu.count)) & (part.vcpus or set()))


async def make(live: DomainDef, resctrl: Resctrl = HOST) -> None:
    """Make the groups of a guest that starts. Raises VirtError; then none is left."""
    if shares := shares_of(live):
        name_shares(live)
        try:
            await in_thread(_make, shares, resctrl)
        except BaseException:
            await remove(live, resctrl)
            raise


def _make(shares: Iterable[Share], resctrl: Resctrl) -> None:
    if not resctrl.usable:
        raise ConfigUnsupported("Resource control is not supported on this host", domain=From.RESCTRL)
    banks = read_topology().caches
    for share in shares:
        for monitor in share.monitors:
            if not resctrl.can_count(monitor.counts):
                raise ConfigUnsupported(f"This host does not count '{monitor.counts}'", domain=From.RESCTRL)
        if share.group:
            resctrl.make(share.group, share.caches, share.memory, banks)
        made: set[str] = set()
        for monitor in share.monitors:
            if monitor.own and monitor.path not in made:
                made.add(monitor.path)
                resctrl.make_monitor(share.group, monitor.path.rpartition("/")[2])


async def place_vcpus(dom: QemuDomain, resctrl: Resctrl = HOST) -> None:
    """Put the vcpus of a guest that starts into their groups. Raises VirtError."""
    if shares := shares_of(dom.live_def):
        await in_thread(_place, shares, dict(dom.running.vcpu_threads), resctrl)


def _place(shares: Iterable[Share], threads: dict[int, int], resctrl: Resctrl) -> None:
    for share in shares:
        places = [(share.group, share.vcpus)] if share.group else []
        places += [(monitor.path, monitor.vcpus) for monitor in share.monitors if monitor.own]
        for path, vcpus in dict(places).items():
            for vcpu in sorted(vcpus & threads.keys()):
                resctrl.add(path, threads[vcpu])


async def remove(live: DomainDef, resctrl: Resctrl = HOST) -> None:
    """Remove the groups of a guest that is gone; what fails is logged."""
    for share in shares_of(live):
        own = [monitor.path for monitor in share.monitors if monitor.own]
        for path in (*own, *([share.group] if share.group else [])):
            try:
                await in_thread(resctrl.remove, path)
            except OSError as exc:
                log.warning("domain %s: cannot remove '%s': %s", live.name, resctrl.root / path, exc)


async def remove_left(short: str, resctrl: Resctrl = HOST) -> None:
    """Remove the groups of a start that was cut short; `short`: the guest's number and the beginning of its name."""
    number, _, name = short.partition("-")
    if resctrl.usable and number.isdigit():
        try:
            await in_thread(resctrl.remove_left, machine_name(int(number), name))
        except OSError as exc:
            log.warning("cannot remove the resctrl groups of '%s': %s", short, exc)


# --- figures ----------------------------------------------------------------------------------------------------


async def read_counts(live: DomainDef, resctrl: Resctrl = HOST) -> Counts:
    """What a guest's monitors count now. The kernel asks the processors, which takes its time."""
    if not _parts(live):
        return {}
    wanted = [(monitor.path, OCCUPANCY) for monitor in _monitors(live, OCCUPANCY)]
    wanted += [(monitor.path, name) for monitor in _monitors(live, LOCAL) for name in (LOCAL, TOTAL)]
    return await in_thread(_read_counts, wanted, resctrl) if wanted else {}


def _read_counts(wanted: Iterable[tuple[str, str]], resctrl: Resctrl) -> Counts:
    return {(path, name): resctrl.counts(path, name) for path, name in wanted}


def cache_params(live: DomainDef, counts: Counts) -> Iterator[TypedParam]:
    """What the monitors of caches count."""
    monitors = _monitors(live, OCCUPANCY)
    yield param_uint("cpu.cache.monitor.count", len(monitors))
    for number, monitor in enumerate(monitors):
        prefix = f"cpu.cache.monitor.{number}"
        banks = counts.get((monitor.path, OCCUPANCY), [])
        yield from _head(prefix, monitor, "bank", len(banks))
        for index, bank in enumerate(banks):
            yield param_uint(f"{prefix}.bank.{index}.id", bank.id)
            yield param_uint(f"{prefix}.bank.{index}.bytes", bank.value)


def memory_params(live: DomainDef, counts: Counts) -> Iterator[TypedParam]:
    """What the monitors of memory bandwidth count."""
    monitors = _monitors(live, LOCAL)
    if not monitors:
        return
    yield param_uint("memory.bandwidth.monitor.count", len(monitors))
    for number, monitor in enumerate(monitors):
        prefix = f"memory.bandwidth.monitor.{number}"
        totals = {count.id: count.value for count in counts.get((monitor.path, TOTAL), [])}
        nodes = counts.get((monitor.path, LOCAL), [])
        yield from _head(prefix, monitor, "node", len(nodes))
        for index, node in enumerate(nodes):
            yield param_uint(f"{prefix}.node.{index}.id", node.id)
            yield param_ullong(f"{prefix}.node.{index}.bytes.local", node.value)
            yield param_ullong(f"{prefix}.node.{index}.bytes.total", totals.get(node.id, 0))


def _monitors(live: DomainDef, counts: str) -> list[Monitor]:
    return [monitor for share in shares_of(live) for monitor in share.monitors if monitor.counts == counts]


def _head(prefix: str, monitor: Monitor, places: str, count: int) -> Iterator[TypedParam]:
    yield param_string(f"{prefix}.name", monitor.id)
    yield param_string(f"{prefix}.vcpus", format_cpus(monitor.vcpus))
    yield param_uint(f"{prefix}.{places}.count", count)
