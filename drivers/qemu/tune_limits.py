"""Changing what control groups limit: processor time, memory, block devices, NUMA nodes.

A live change goes to the kernel first; what the kernel took stays where a later part of the same call is refused.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyvirtd.api.domain_tune import TunePart
from pyvirtd.api.events import DomainEventTunable
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import TypedParam, param_llong, param_ullong
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core import cgroup_limits as limits
from pyvirtd.core.cgroup import Group
from pyvirtd.core.cgroup_limits import PERIOD_RANGE, QUOTA_RANGE, UNLIMITED_KIB
from pyvirtd.core.edits import change
from pyvirtd.core.params import checked
from pyvirtd.drivers.qemu.cgroups import tell_weights, thread_groups
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.tune_shared import BLKIO_DEVICE, NUMA_MODES, SCHEDULER, live_group, need_system
from pyvirtd.errors import ConfigUnsupported, InvalidArg, OperationInvalid, OperationUnsupported
from pyvirtd.model.cpu import BlkioDevice, Blkiotune, CpuTune, Memtune, NumaMode, Numatune, NumatuneMemory
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread
from pyvirtd.util.values import parse_cpus

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

SCHEDULER_FIELDS = dict(SCHEDULER)
SCHEDULER_KINDS = {name: Kind.LLONG if name.endswith("quota") else Kind.ULLONG for name in SCHEDULER_FIELDS}
MEMORY_KINDS = dict.fromkeys(limits.MEMORY_FILES, Kind.ULLONG)
BLKIO_KINDS = {"weight": Kind.UINT} | {f"device_{name}": Kind.STRING for name in BLKIO_DEVICE}
NUMA_KINDS = {"numa_mode": Kind.INT, "numa_nodeset": Kind.STRING}
MODES = {number: mode for mode, number in NUMA_MODES.items()}
VALUE_MAX = {True: 2**64 - 1, False: 2**32 - 1}  # of a device's limit in bytes, and of the others


class TuneLimits(TunePart[QemuDomain]):
    """The procedures that change limits."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    # --- processor time --------------------------------------------------------------------------------------

    async def domain_set_scheduler_parameters(self, dom: QemuDomain, params: list[TypedParam]) -> None:
        await self._set_scheduler(dom, params, 0)

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_scheduler_parameters_flags(
        self, dom: QemuDomain, params: list[TypedParam], flags: int
    ) -> None:
        await self._set_scheduler(dom, params, flags)

    async def _set_scheduler(self, dom: QemuDomain, params: list[TypedParam], flags: int) -> None:
        need_system(self.driver, OperationUnsupported, "CPU")
        wanted = checked(params, SCHEDULER_KINDS)

        def edit(definition: DomainDef, *, live: bool) -> None:
            if live:
                live_group(dom, "cpu")
            tune = definition.cputune = definition.cputune or CpuTune()
            for name, value in wanted.items():
                _check_time(name, value)
                if value or not live:
                    setattr(tune, SCHEDULER_FIELDS[name], value)

        async def tell_kernel() -> None:
            group = live_group(dom, "cpu")
            told = []
            for name, value in wanted.items():
                if name == "cpu_shares":
                    await in_thread(limits.set_shares, group, value)
                    await tell_weights(group, shares=value)
                elif value:
                    await in_thread(_set_bandwidth, thread_groups(dom, name.partition("_")[0]), name, value)
                if value:
                    make = param_llong if SCHEDULER_KINDS[name] is Kind.LLONG else param_ullong
                    told.append(make(f"cputune.{name}", value))
            if told:
                self.driver.host.events.emit(self.driver, DomainEventTunable(dom, told))

        await change(self.driver, dom, flags, edit, tell_kernel)

    # --- memory ----------------------------------------------------------------------------------------------

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_memory_parameters(self, dom: QemuDomain, params: list[TypedParam], flags: int) -> None:
        need_system(self.driver, OperationUnsupported, "Memory")
        wanted: dict[str, int] = checked(params, MEMORY_KINDS)

        def edit(definition: DomainDef, *, live: bool) -> None:
            if live:
                live_group(dom, "memory")
            tune = definition.memtune = definition.memtune or Memtune()
            for name, value in wanted.items():
                setattr(tune, f"{name}_kib", None if value >= UNLIMITED_KIB else value)
            hard, swap = (
                UNLIMITED_KIB if kib is None else kib for kib in (tune.hard_limit_kib, tune.swap_hard_limit_kib)
            )
            if hard > swap and {"hard_limit", "swap_hard_limit"} & set(wanted):
                raise InvalidArg("memory hard_limit tunable value must be lower than or equal to swap_hard_limit")
            if not any(value is not None for _, value in tune.values()):
                definition.memtune = None

        async def tell_kernel() -> None:
            await in_thread(_set_memory, live_group(dom, "memory"), wanted)

        await change(self.driver, dom, flags, edit, tell_kernel)

    # --- block devices ---------------------------------------------------------------------------------------

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_blkio_parameters(self, dom: QemuDomain, params: list[TypedParam], flags: int) -> None:
        need_system(self.driver, ConfigUnsupported, "Block I/O")
        wanted = checked(params, BLKIO_KINDS)
        devices = {
            name: list(_device_values(f"device_{name}", wanted[f"device_{name}"]))
            for name in BLKIO_DEVICE
            if f"device_{name}" in wanted
        }

        def edit(definition: DomainDef, *, live: bool) -> None:
            if live:
                live_group(dom, "blkio")
            tune = definition.blkiotune = definition.blkiotune or Blkiotune()
            if "weight" in wanted:
                tune.weight = wanted["weight"]
            for name, values in devices.items():
                for path, value in values:
                    setattr(_device(tune, path), name, value or None)
            tune.device = [one for one in tune.device if any(value for key, value in one.values() if key != "path")]
            if not tune.weight and not tune.device:
                definition.blkiotune = None

        async def tell_kernel() -> None:
            group = live_group(dom, "blkio")
            if "weight" in wanted:
                await in_thread(limits.set_weight, group, wanted["weight"])
                await tell_weights(group, blkio=wanted["weight"])
            for name, values in devices.items():
                for path, value in values:
                    await in_thread(limits.set_device_limit, group, path, name, value)

        await change(self.driver, dom, flags, edit, tell_kernel)

    # --- NUMA nodes ------------------------------------------------------------------------------------------

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_numa_parameters(self, dom: QemuDomain, params: list[TypedParam], flags: int) -> None:
        wanted = checked(params, NUMA_KINDS)
        mode = wanted.get("numa_mode")
        if mode is not None and mode not in MODES:
            raise InvalidArg(f"unsupported numatune mode: '{mode}'")
        nodes = parse_cpus(wanted["numa_nodeset"]) if "numa_nodeset" in wanted else None
        if nodes is not None and not nodes:
            raise OperationInvalid(f"Invalid nodeset of 'numatune': '{wanted['numa_nodeset']}'")

        def edit(definition: DomainDef, *, live: bool) -> None:
            tune = definition.numatune or Numatune()
            memory = tune.memory or NumatuneMemory(mode=NumaMode.STRICT)
            if live:
                need_system(self.driver, OperationUnsupported, "NUMA")
                live_group(dom, "cpuset")
                _check_live_numa(tune.memory, None if mode is None else MODES[mode], nodes=nodes is not None)
            if mode is not None:
                memory.mode = MODES[mode]
            if nodes is not None:
                memory.nodeset, memory.placement = nodes, None
            tune.memory = memory
            definition.numatune = tune

        async def tell_kernel() -> None:
            if nodes is not None:
                await in_thread(_set_nodes, thread_groups(dom, "all"), nodes)

        await change(self.driver, dom, flags, edit, tell_kernel)


def _check_time(name: str, value: int) -> None:
    """Raises InvalidArg for a period or quota out of range; 0 and a negative quota say that there is no limit."""
    if name.endswith("period"):
        low, high = PERIOD_RANGE
    elif name.endswith("quota") and value >= 0:
        low, high = QUOTA_RANGE
    else:
        return
    if value and not low <= value <= high:
        raise InvalidArg(f"value of '{name}' is out of range [{low}, {high}]")


def _set_bandwidth(groups: Iterable[Group], name: str, value: int) -> None:
    period, quota = (value, None) if name.endswith("period") else (None, value)
    for group in groups:
        limits.set_bandwidth(group, period, quota)


def _set_memory(group: Group, wanted: dict[str, int]) -> None:
    """The limit with swap may never be below the one without: it goes first where it rises."""
    order = sorted(wanted)
    swap = wanted.get("swap_hard_limit")
    if swap is not None and swap >= limits.memory_limits(group)["swap_hard_limit"]:
        order.insert(0, order.pop(order.index("swap_hard_limit")))
    for name in order:
        limits.set_memory_limit(group, name, wanted[name])


def _set_nodes(groups: Iterable[Group], nodes: frozenset[int]) -> None:
    for group in groups:
        limits.set_memory_nodes(group, nodes)


def _device_values(name: str, text: str) -> Iterable[tuple[str, int]]:
    """The (path, value) pairs of "PATH,VALUE,PATH,VALUE". Raises InvalidArg."""
    words = text.split(",") if text else []
    if len(words) % 2:
        raise InvalidArg(f"unable to parse blkio device '{name}' '{text}'")
    for path, word in zip(words[::2], words[1::2], strict=True):
        most = VALUE_MAX["bytes" in name]
        if not word.isascii() or not word.isdigit() or len(word) > 20 or int(word) > most:
            raise InvalidArg(f"invalid value '{word}' for parameter '{name}' of device '{path}'")
        yield path, int(word)


def _device(tune: Blkiotune, path: str) -> BlkioDevice:
    """The device's limits in a definition, made where there are none."""
    for device in tune.device:
        if device.path == path:
            return device
    device = BlkioDevice(path=path)
    tune.device = [*tune.device, device]
    return device


def _check_live_numa(memory: NumatuneMemory | None, mode: NumaMode | None, *, nodes: bool) -> None:
    """Raises OperationInvalid for what QEMU, which has bound its memory already, cannot follow."""
    if memory is not None and mode is not None and memory.mode is not mode:
        raise OperationInvalid("can't change numatune mode for running domain", domain=From.QEMU)
    if mode is NumaMode.STRICT:
        raise OperationInvalid("can't change nodeset for strict mode for running domain", domain=From.QEMU)
    if nodes and memory is not None and memory.mode is not NumaMode.RESTRICTIVE:
        raise OperationInvalid("change of nodeset for running domain requires restrictive numa mode", domain=From.QEMU)
