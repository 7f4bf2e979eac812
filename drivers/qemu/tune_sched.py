"""Scheduling policies of a guest's threads (<vcpusched>, <iothreadsched>, <emulatorsched>). sched(7)"""

import os
from collections.abc import Mapping

from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.tune_pins import iothread_tids
from pyvirtd.drivers.qemu.tune_shared import iothread_ids
from pyvirtd.errors import from_os_error
from pyvirtd.model.cpu import CpuTune, Scheduler, SchedulerPolicy

POLICIES = {
    SchedulerPolicy.BATCH: os.SCHED_BATCH,
    SchedulerPolicy.IDLE: os.SCHED_IDLE,
    SchedulerPolicy.FIFO: os.SCHED_FIFO,
    SchedulerPolicy.RR: os.SCHED_RR,
}


async def apply_schedulers(dom: QemuDomain) -> None:
    """Give the threads of a guest that starts the policies of its definition. Raises VirtError."""
    guest, live = dom.running, dom.live_def
    tune = live.cputune or CpuTune()
    if tune.emulatorsched is not None:
        _set(guest.process.pid, tune.emulatorsched)
    _set_each(guest.vcpu_threads, {number: one for one in tune.vcpusched for number in one.vcpus or ()})
    if tune.iothreadsched and iothread_ids(live):
        wanted = {number: one for one in tune.iothreadsched for number in one.iothreads or ()}
        _set_each(await iothread_tids(guest), wanted)


def _set_each(tids: Mapping[int, int], wanted: Mapping[int, Scheduler]) -> None:
    for number, tid in tids.items():
        if (scheduler := wanted.get(number)) is not None:
            _set(tid, scheduler)


def _set(tid: int, scheduler: Scheduler) -> None:
    try:
        os.sched_setscheduler(tid, POLICIES[scheduler.scheduler], os.sched_param(scheduler.priority or 0))
    except OSError as exc:
        raise from_os_error(exc, f"Cannot set scheduler parameters for pid {tid}") from exc
