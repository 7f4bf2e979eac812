"""Performance events of guests: counters that the kernel keeps for QEMU's threads.

perf_event_open(2). A counter is opened for each thread that runs, and counts those that it starts later with it.
"""

import ctypes
import os
import struct
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from pyvirtd.api.domain_stats import StatsPart
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import TypedParam, param_boolean
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterFlags
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.edits import change, one_target
from pyvirtd.core.procstat import thread_ids
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.errors import ArgumentUnsupported, BadCall, InvalidArg, VirtError, from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.features import PerfEvent, PerfEventName

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

# linux/perf_event.h: type and number of an event; the three of Intel's resource monitoring left the kernel with 4.14
HARDWARE, SOFTWARE = 0, 1
Name = PerfEventName
EVENTS = {
    **{
        name: (HARDWARE, number)
        for number, name in enumerate(
            (
                Name.CPU_CYCLES, Name.INSTRUCTIONS, Name.CACHE_REFERENCES, Name.CACHE_MISSES,
                Name.BRANCH_INSTRUCTIONS, Name.BRANCH_MISSES, Name.BUS_CYCLES, Name.STALLED_CYCLES_FRONTEND,
                Name.STALLED_CYCLES_BACKEND, Name.REF_CPU_CYCLES,
            )
        )
    },
    **{
        name: (SOFTWARE, number)
        for number, name in enumerate(
            (
                Name.CPU_CLOCK, Name.TASK_CLOCK, Name.PAGE_FAULTS, Name.CONTEXT_SWITCHES, Name.CPU_MIGRATIONS,
                Name.PAGE_FAULTS_MIN, Name.PAGE_FAULTS_MAJ, Name.ALIGNMENT_FAULTS, Name.EMULATION_FAULTS,
            )
        )
    },
}  # fmt: skip
SYSCALLS = {"x86_64": 298, "aarch64": 241, "ppc64le": 319, "s390x": 331, "riscv64": 241}  # perf_event_open
ATTRIBUTES = 112  # bytes of struct perf_event_attr, version 5
INHERIT = 1 << 1
CLOSE_ON_EXEC = 1 << 3
ANY_CPU = NO_GROUP = -1

_libc = ctypes.CDLL(None, use_errno=True)


def open_counter(tid: int, name: PerfEventName) -> int:
    """A descriptor of a counter that counts from now. Raises ArgumentUnsupported and OSError."""
    call, event = SYSCALLS.get(os.uname().machine), EVENTS.get(name)
    if call is None or event is None:
        raise ArgumentUnsupported(f"unable to enable host cpu perf event for {name}", domain=From.PERF)
    kind, number = event
    attributes = struct.pack("=IIQQQQQ", kind, ATTRIBUTES, number, 0, 0, 0, INHERIT).ljust(ATTRIBUTES, b"\0")
    buffer = ctypes.create_string_buffer(attributes, ATTRIBUTES)
    fd = int(
        _libc.syscall(
            ctypes.c_long(call),
            buffer,
            ctypes.c_int(tid),
            ctypes.c_int(ANY_CPU),
            ctypes.c_int(NO_GROUP),
            ctypes.c_ulong(CLOSE_ON_EXEC),
        )
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


class Counters:
    """The open counters of one run of a guest; they are closed when nobody knows the guest any more."""

    def __init__(self) -> None:
        self._open: dict[PerfEventName, list[int]] = {}

    def enable(self, pid: int, name: PerfEventName) -> None:
        """Begin to count an event in all threads of a process. Raises VirtError."""
        if name in self._open:
            return
        fds: list[int] = []
        try:
            for tid in thread_ids(pid):
                with suppress(ProcessLookupError):
                    fds.append(open_counter(tid, name))
        except (OSError, VirtError) as exc:
            _close(fds)
            if isinstance(exc, VirtError):
                raise
            raise from_os_error(exc, f"unable to open host cpu perf event for {name}", domain=From.PERF) from exc
        self._open[name] = fds

    def disable(self, name: PerfEventName) -> None:
        """Count an event no more."""
        _close(self._open.pop(name, []))

    def read(self) -> dict[PerfEventName, int]:
        """What was counted so far, in libvirt's order."""
        return {name: sum(_read(fd) for fd in self._open[name]) for name in PerfEventName if name in self._open}

    def close(self) -> None:
        """Close all."""
        for name in list(self._open):
            self.disable(name)


def _read(fd: int) -> int:
    return int.from_bytes(os.read(fd, 8), "little")


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


_counters: "weakref.WeakKeyDictionary[Guest, Counters]" = weakref.WeakKeyDictionary()


def counters_of(guest: Guest, live: DomainDef) -> Counters:
    """A guest's counters; those of a guest that an earlier daemon started begin now, where they can."""
    found = _counters.get(guest)
    if found is None:
        found = start_counters(guest)
        for name in enabled(live):
            with suppress(VirtError):
                found.enable(guest.process.pid, name)
    return found


def start_counters(guest: Guest) -> Counters:
    """The counters of a guest that nobody counted yet: none."""
    found = _counters[guest] = Counters()
    weakref.finalize(guest, found.close)
    return found


def apply_perf(dom: QemuDomain) -> None:
    """Begin to count what the definition of a guest that starts enables. Raises VirtError."""
    guest = dom.running
    names = enabled(dom.live_def)
    if names:
        found = start_counters(guest)
        for name in names:
            found.enable(guest.process.pid, name)


def enabled(definition: DomainDef) -> list[PerfEventName]:
    """The events that a definition counts."""
    return [event.name for event in definition.perf if event.enabled]


class Perf(StatsPart[QemuDomain]):
    """The procedures of performance events."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(Impact.LIVE | Impact.CONFIG | TypedParameterFlags.STRING_OKAY)
    def domain_get_perf_events(self, dom: QemuDomain, flags: int) -> list[TypedParam]:
        names = enabled(one_target(dom, flags & (Impact.LIVE | Impact.CONFIG)))
        return [param_boolean(name, name in names) for name in PerfEventName]

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_perf_events(self, dom: QemuDomain, params: list[TypedParam], flags: int) -> None:
        if not params:
            raise BadCall("params in virDomainSetPerfEvents must not be NULL")
        wanted: dict[PerfEventName, bool] = {}
        for name, on in map(_wanted, params):
            if name in wanted:
                raise InvalidArg(f"parameter '{name}' occurs multiple times")
            wanted[name] = on

        def edit(definition: DomainDef, *, live: bool) -> None:
            known = {event.name: event for event in definition.perf} | {
                name: PerfEvent(name=name, enabled=on) for name, on in wanted.items()
            }
            definition.perf = [known[name] for name in PerfEventName if name in known]

        async def tell_kernel() -> None:
            counters = counters_of(dom.running, dom.live_def)
            for name, on in wanted.items():
                if on:
                    counters.enable(dom.running.process.pid, name)
                else:
                    counters.disable(name)

        await change(self.driver, dom, flags, edit, tell_kernel)


def _wanted(param: TypedParam) -> tuple[PerfEventName, bool]:
    """An event and whether it shall be counted. Raises InvalidArg and ArgumentUnsupported."""
    kind, value = param.value
    if param.field not in list(PerfEventName):
        raise ArgumentUnsupported(f"parameter '{param.field}' not supported")
    if kind != Kind.BOOLEAN:
        raise InvalidArg(f"invalid type '{Kind(kind).name.lower()}' for parameter '{param.field}', expected 'boolean'")
    return PerfEventName(param.field), bool(value)
