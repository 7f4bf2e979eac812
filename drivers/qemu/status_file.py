"""The status file of a running guest, from which a daemon that starts anew finds it again.

It is libvirt's <domstatus> in run/libvirt/qemu/NAME.xml, so that either daemon can take up what the other left.
"""

import contextlib
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.constants.domain import (
    DomainPausedReason,
    DomainRunningReason,
    DomainShutdownReason,
    DomainState,
)
from pyvirtd.core.jobs import LongJob
from pyvirtd.drivers.qemu.command.block import last_node
from pyvirtd.drivers.qemu.domain import Phase, QemuDomain
from pyvirtd.drivers.qemu.helpers import DbusDaemon, ReservationHelper
from pyvirtd.drivers.qemu.placement import noted_advice
from pyvirtd.errors import from_os_error
from pyvirtd.model.status import STATUS_VIEW, DomStatus, StatusJob, StatusMonitor, StatusTaint, StatusVcpu
from pyvirtd.util.files import atomic_write, durable_unlink, in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

REASONS: dict[DomainState, type[IntEnum]] = {
    DomainState.RUNNING: DomainRunningReason,
    DomainState.PAUSED: DomainPausedReason,
    DomainState.SHUTDOWN: DomainShutdownReason,
}
HEADER = "<!-- The state of a running guest: not to be edited. -->\n\n"


async def save_status(driver: "QemuDriver", dom: QemuDomain) -> None:
    """Write the status file of a running guest; of one that has ended meanwhile nothing is written.

    One write at a time, so that an older state never overtakes a newer one; who asks while one runs shares the next.
    """
    guest = dom.guest
    if guest is None:
        return
    guest.status_wanted += 1
    wanted = guest.status_wanted
    async with guest.status_lock:
        if guest.status_written >= wanted or guest.phase is Phase.FINISHED or dom.guest is not guest:
            return
        shared = guest.status_wanted
        paths = driver.host.paths.qemu
        path = paths.status_file(dom.name)
        text = _status_of(dom, paths.channel_dir(dom.id, dom.name)).format(STATUS_VIEW)
        try:
            await atomic_write(path, HEADER + text)
        except OSError as exc:
            raise from_os_error(exc, f"cannot write '{path}'") from exc
        guest.status_written = shared


async def remove_status(driver: "QemuDriver", dom: QemuDomain) -> None:
    """Remove the status file, after a write that is under way."""
    paths = driver.host.paths.qemu
    lock = dom.guest.status_lock if dom.guest is not None else contextlib.nullcontext()
    async with lock:
        await in_thread(paths.pid_file(dom.name).unlink, missing_ok=True)
        await durable_unlink(paths.status_file(dom.name), missing_ok=True)


def state_of(status: DomStatus) -> tuple[DomainState, int]:
    """State and reason of a file's words."""
    state = next((state for state in DomainState if _word(state.name) == status.state), DomainState.NOSTATE)
    reasons = REASONS.get(state, ())
    return state, next((int(reason) for reason in reasons if _word(reason.name) == status.reason), 0)


def _status_of(dom: QemuDomain, channels: Path) -> DomStatus:
    """The state of a running guest; `channels` is the directory of its channels' sockets."""
    guest, live = dom.running, dom.live_def
    reasons = REASONS.get(dom.state)
    job = dom.jobs.long_job
    if job is not None and job.kind is LongJob.START and guest.phase >= Phase.UP:
        job = None
    return DomStatus(
        state=_word(dom.state.name),
        reason=_word(reasons(dom.reason).name) if reasons is not None else "unknown",
        pid=guest.process.pid,
        taint=[StatusTaint(flag=taint) for taint in guest.taints],
        monitor=StatusMonitor(path=str(guest.monitor_path)),
        dbus_daemon=guest.helpers.has(DbusDaemon),
        pr_daemon=guest.helpers.has(ReservationHelper),
        vcpus=[StatusVcpu(id=vcpu, pid=thread) for vcpu, thread in sorted(guest.vcpu_threads.items())],
        job=StatusJob(async_=job.kind.value) if job is not None else guest.unfinished,
        fakereboot=guest.fake_reboot,
        lib_dir=str(guest.directory),
        channel_target_dir=str(channels),
        remember_owner=True,
        nodename=last_node(live),
        fdset=guest.fdsets,
        cpu=guest.own_cpu,
        agent_timeout=dom.agent_timeout,
        numad=noted_advice(live),
        restored=guest.restored,
        domain=live,
    )


def _word(name: str) -> str:
    """An enumeration's name as the file spells it."""
    return name.lower().replace("_", " ")
