"""What clients see of a domain's long job, and how they end it."""

from typing import TYPE_CHECKING

from pyvirtd.api.domain_save import DomainGetJobInfoReply, DomainGetJobStatsReply, SavePart
from pyvirtd.api.rpc import accepts
from pyvirtd.constants.domain import DomainAbortJobFlagsValues, DomainGetJobStatsFlags, DomainJobType
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.job_stats import NO_JOB, JobStats
from pyvirtd.core.jobs import Job, LongJob
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import InvalidArg, OperationInvalid

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

Stats = DomainGetJobStatsFlags
ENDED_BY_DESTROY = {LongJob.START: "VM start", LongJob.MIGRATION_IN: "incoming migration"}


class RunningJobs(SavePart[QemuDomain]):
    """Progress of long jobs."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    async def domain_get_job_info(self, dom: QemuDomain) -> DomainGetJobInfoReply:
        return (await _current(dom)).info()

    @accepts(Stats.COMPLETED | Stats.KEEP_COMPLETED)
    async def domain_get_job_stats(self, dom: QemuDomain, flags: int) -> DomainGetJobStatsReply:
        if not flags & Stats.COMPLETED:
            if flags & Stats.KEEP_COMPLETED:
                raise InvalidArg("Flag 'VIR_DOMAIN_JOB_STATS_COMPLETED' is required by flag"
                                 " 'VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED'", domain=From.QEMU)  # fmt: skip
            stats = await _current(dom)
        else:
            stats = dom.jobs.completed or NO_JOB
            if not flags & Stats.KEEP_COMPLETED:
                dom.jobs.completed = None
        return stats.reply() if stats is not NO_JOB else DomainGetJobStatsReply(NO_JOB.type, [])

    async def domain_abort_job(self, dom: QemuDomain) -> None:
        await self.domain_abort_job_flags(dom, 0)

    @accepts(DomainAbortJobFlagsValues.POSTCOPY)
    async def domain_abort_job_flags(self, dom: QemuDomain, flags: int) -> None:
        async with dom.jobs.hold(Job.ABORT, "DomainAbortJob"):
            dom.require_active()
            job = dom.jobs.long_job
            if job is None:
                raise OperationInvalid("no job is active on the domain", domain=From.QEMU)
            if flags & DomainAbortJobFlagsValues.POSTCOPY:
                raise OperationInvalid("current job is not outgoing migration in post-copy mode", domain=From.QEMU)
            if (what := ENDED_BY_DESTROY.get(job.kind)) is not None:
                raise OperationInvalid(f"cannot abort {what}; use virDomainDestroy instead", domain=From.QEMU)
            job.aborted.set()


async def _current(dom: QemuDomain) -> JobStats:
    """The figures of the job that runs now. Raises OperationInvalid when off."""
    dom.require_active()
    job = dom.jobs.long_job
    if job is None or job.stats is None:
        return NO_JOB
    if job.refresh is not None:
        await job.refresh()
    return job.stats.now() if job.stats.type is DomainJobType.UNBOUNDED else job.stats
