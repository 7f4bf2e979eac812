"""Where on the host a guest's threads may run: at its start, and when a client says otherwise.

sched_setaffinity(2) on QEMU's threads, and the processors of their control groups where they have some.
"""

import os
from collections.abc import Set
from contextlib import suppress
from typing import TYPE_CHECKING

from pyvirtd.api.domain_tune import TunePart
from pyvirtd.api.events import DomainEventTunable
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import param_string
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.core import cgroup_limits as limits
from pyvirtd.core.edits import change
from pyvirtd.core.procstat import thread_ids
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.drivers.qemu.tune_shared import iothread_ids
from pyvirtd.errors import BadCall, InvalidArg, from_os_error
from pyvirtd.model.cpu import CpuTune, IothreadPin, VcpuPin
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread
from pyvirtd.util.values import cpus_from_map, format_cpus

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

Cpus = Set[int]


def set_affinity(tid: int, cpus: Cpus) -> None:
    """Let a thread run on these CPUs only; one that ended needs none. Raises VirtError."""
    try:
        os.sched_setaffinity(tid, cpus)
    except ProcessLookupError:
        return
    except OSError as exc:
        raise from_os_error(exc, f"cannot set CPU affinity on process {tid}") from exc


async def _pin_group(guest: Guest, name: str, cpus: Cpus) -> None:
    """Let the group of some of a guest's threads have these CPUs, before its threads are told so."""
    if guest.group is not None:
        group = await in_thread(guest.group.threads(name).settled)
        if group.has("cpuset"):
            await in_thread(limits.set_cpus, group, cpus)


async def iothread_tids(guest: Guest) -> dict[int, int]:
    """The thread of each IOThread of a guest, by its number."""
    found = {}
    for thread in await guest.monitor.execute("query-iothreads"):
        number = str(thread["id"]).removeprefix("iothread")
        if number.isdigit():
            found[int(number)] = int(thread["thread-id"])
    return found


async def apply_pins(dom: QemuDomain) -> None:
    """Put the threads of a guest that starts where its definition wants them. Raises VirtError."""
    guest, live = dom.running, dom.live_def
    tune, everywhere = live.cputune or CpuTune(), live.vcpu.cpuset
    if everywhere is None and tune.emulatorpin is None and not tune.vcpupin and not tune.iothreadpin:
        return
    iothreads = await iothread_tids(guest) if iothread_ids(live) else {}
    if (emulator := tune.emulatorpin or everywhere) is not None:
        for tid in _emulator_tids(guest, iothreads):
            set_affinity(tid, emulator)
    _pin_each(guest.vcpu_threads, {pin.vcpu: pin.cpuset for pin in tune.vcpupin}, everywhere)
    _pin_each(iothreads, {pin.iothread: pin.cpuset for pin in tune.iothreadpin}, everywhere)


def _pin_each(tids: dict[int, int], pins: dict[int, Cpus | None], default: Cpus | None) -> None:
    for number, tid in tids.items():
        if (cpus := pins.get(number) or default) is not None:
            set_affinity(tid, cpus)


def _emulator_tids(guest: Guest, iothreads: dict[int, int]) -> list[int]:
    """QEMU's threads that are neither a vcpu nor an IOThread."""
    own = {*guest.vcpu_threads.values(), *iothreads.values()}
    with suppress(ProcessLookupError):
        return [tid for tid in thread_ids(guest.process.pid) if tid not in own]
    return []


class TunePins(TunePart[QemuDomain]):
    """The procedures that pin threads."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    async def domain_pin_vcpu(self, dom: QemuDomain, vcpu: int, cpumap: bytes) -> None:
        await self._pin_vcpu(dom, vcpu, _cpus(cpumap, "virDomainPinVcpu"), Impact.LIVE)

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_pin_vcpu_flags(self, dom: QemuDomain, vcpu: int, cpumap: bytes, flags: int) -> None:
        await self._pin_vcpu(dom, vcpu, _cpus(cpumap, "virDomainPinVcpuFlags"), flags)

    async def _pin_vcpu(self, dom: QemuDomain, vcpu: int, cpus: Cpus, flags: int) -> None:
        def edit(definition: DomainDef, *, live: bool) -> None:
            current, count = definition.vcpu.current or definition.vcpu.count, definition.vcpu.count
            if vcpu >= count:
                kind, number = ("live", count) if live else ("persistent", current)
                raise InvalidArg(f"vcpu {vcpu} is out of range of {kind} cpu count {number}")
            pins = [pin for pin in _tune(definition).vcpupin if pin.vcpu != vcpu]
            _tune(definition).vcpupin = sorted([*pins, VcpuPin(vcpu=vcpu, cpuset=cpus)], key=lambda pin: pin.vcpu)

        async def tell_threads() -> None:
            tid = dom.running.vcpu_threads.get(vcpu)
            if tid is not None:
                await _pin_group(dom.running, f"vcpu{vcpu}", cpus)
                set_affinity(tid, cpus)
                self._tell(dom, f"cputune.vcpupin{vcpu}", cpus)

        await change(self.driver, dom, flags, edit, tell_threads)

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_pin_emulator(self, dom: QemuDomain, cpumap: bytes, flags: int) -> None:
        cpus = _cpus(cpumap, "virDomainPinEmulator")

        def edit(definition: DomainDef, *, live: bool) -> None:
            _tune(definition).emulatorpin = cpus

        async def tell_threads() -> None:
            await _pin_group(dom.running, "emulator", cpus)
            for tid in _emulator_tids(dom.running, await iothread_tids(dom.running)):
                set_affinity(tid, cpus)
            self._tell(dom, "cputune.emulatorpin", cpus)

        await change(self.driver, dom, flags, edit, tell_threads)

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_pin_iothread(self, dom: QemuDomain, iothreads_id: int, cpumap: bytes, flags: int) -> None:
        cpus = _cpus(cpumap, "virDomainPinIOThread", "Empty iothread cpumap list for pinning")

        def edit(definition: DomainDef, *, live: bool) -> None:
            if iothreads_id not in iothread_ids(definition):
                raise InvalidArg(f"{'iothread' if live else 'iothreadid'} {iothreads_id} not found")
            pins = [pin for pin in _tune(definition).iothreadpin if pin.iothread != iothreads_id]
            pins.append(IothreadPin(iothread=iothreads_id, cpuset=cpus))
            _tune(definition).iothreadpin = sorted(pins, key=lambda pin: pin.iothread)

        async def tell_threads() -> None:
            tid = (await iothread_tids(dom.running)).get(iothreads_id)
            if tid is None:
                raise InvalidArg(f"iothread {iothreads_id} not found")
            await _pin_group(dom.running, f"iothread{iothreads_id}", cpus)
            set_affinity(tid, cpus)
            self._tell(dom, f"cputune.iothreadpin{iothreads_id}", cpus)

        await change(self.driver, dom, flags, edit, tell_threads)

    def _tell(self, dom: QemuDomain, name: str, cpus: Cpus) -> None:
        self.driver.host.events.emit(self.driver, DomainEventTunable(dom, [param_string(name, format_cpus(cpus))]))


def _tune(definition: DomainDef) -> CpuTune:
    """The definition's <cputune>, made where there is none."""
    if definition.cputune is None:
        definition.cputune = CpuTune()
    return definition.cputune


def _cpus(cpumap: bytes, function: str, empty: str = "Empty cpu list for pinning") -> frozenset[int]:
    """The CPUs of the wire's bitmap. Raises BadCall and InvalidArg for none."""
    if not cpumap:
        raise BadCall(f"cpumap in {function} must not be NULL")
    cpus = cpus_from_map(cpumap)
    if not cpus:
        raise InvalidArg(empty)
    return cpus
