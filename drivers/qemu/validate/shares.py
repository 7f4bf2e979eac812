"""Rules of <cachetune> and <memorytune>: no vcpu has two shares of the host, nor two monitors."""

from collections.abc import Set

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.refuse import xml
from pyvirtd.errors import InvalidArg, VirtError, XmlError
from pyvirtd.model.cpu import CacheTune, CpuTune, MemoryTune

PERCENT_MAX = 100


def check_shares(tune: CpuTune, count: int) -> None:
    """Raises XmlError and InvalidArg. Of vcpus beyond the `count` that there are nothing is said."""
    there = frozenset(range(count))
    taken: list[Set[int]] = []
    for cache in tune.cachetune:
        _check_caches(cache)
        if vcpus := there & (cache.vcpus or set()):
            if vcpus in taken:
                raise xml("Identical vcpus in cachetunes found")
            _check_vcpus(vcpus, taken)
            _check_monitors(vcpus, [there & (monitor.vcpus or set()) for monitor in cache.monitor])
    nodes: set[tuple[Set[int], int]] = set()
    for memory in tune.memorytune:
        if vcpus := there & (memory.vcpus or set()):
            _check_vcpus(vcpus, taken)
            _check_memory(vcpus, memory, nodes)
            _check_monitors(vcpus, [there & (monitor.vcpus or set()) for monitor in memory.monitor])


def _check_caches(part: CacheTune) -> None:
    seen = set()
    for cache in part.cache:
        key = cache.level, cache.id, cache.type
        if key in seen:
            raise _wrong(
                f"Colliding cache allocations for cache level '{cache.level}' id '{cache.id}', type '{cache.type}'"
            )
        seen.add(key)


def _check_memory(vcpus: Set[int], part: MemoryTune, seen: set[tuple[Set[int], int]]) -> None:
    for node in part.node:
        if node.bandwidth > PERCENT_MAX:
            raise _wrong("Memory Bandwidth value exceeding 100 is invalid.")
        if (vcpus, node.id) in seen:
            raise _wrong(f"Memory Bandwidth already defined for node {node.id}")
        seen.add((vcpus, node.id))


def _check_vcpus(vcpus: Set[int], taken: list[Set[int]]) -> None:
    if any(vcpus & other and vcpus != other for other in taken):
        raise xml("Overlapping vcpus in resctrls")
    taken.append(vcpus)


def _check_monitors(vcpus: Set[int], monitors: list[Set[int]]) -> None:
    """A monitor is of all vcpus that share, or of some that no other one counts."""
    taken: list[Set[int]] = []
    for own in monitors:
        if not own:
            raise _argument("vcpus is empty")
        if not own <= vcpus:
            raise _argument("Monitor vcpus conflicts with allocation")
        if own in taken:
            raise _argument("Identical vcpus found in same type monitors")
        if own != vcpus and any(own & other for other in taken if other != vcpus):
            raise _argument("vcpus overlaps in resctrl groups")
        taken.append(own)


def _argument(text: str) -> VirtError:
    return InvalidArg(text, domain=ErrorDomain.DOMAIN)


def _wrong(text: str) -> VirtError:
    return XmlError(text, domain=ErrorDomain.RESCTRL)
