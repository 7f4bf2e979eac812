"""Figures of a job that takes long: how far it is, and what it did once it is over.

Names of the parameters: VIR_DOMAIN_JOB_... of libvirt-domain.h.
"""

import time
from dataclasses import dataclass, field, replace

from pyvirtd.api.domain_save import DomainGetJobInfoReply, DomainGetJobStatsReply
from pyvirtd.api.types import TypedParam
from pyvirtd.constants.domain import DomainJobOperation, DomainJobType
from pyvirtd.constants.host import TypedParameterType as Kind


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes: how many there are, were moved, and are left."""

    total: int = 0
    processed: int = 0
    remaining: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.total + other.total, self.processed + other.processed, self.remaining + other.remaining)


@dataclass(frozen=True, slots=True)
class JobStats:
    """One job's figures at a moment. Times are in milliseconds, sizes in bytes; None where nobody knows.

    `details` are further unsigned figures by the names of their parameters, in order; `sums` whether there are
    figures of memory and disks together among the parameters.
    """

    operation: DomainJobOperation
    type: DomainJobType = DomainJobType.UNBOUNDED
    since: float = field(default_factory=time.monotonic)
    elapsed_ms: int = 0
    downtime_ms: int | None = None
    setup_ms: int | None = None
    memory: Amount | None = None
    disk: Amount | None = None
    details: tuple[tuple[str, int], ...] = ()
    error: str | None = None
    sums: bool = True

    def now(self) -> "JobStats":
        """The figures of a job that runs, as of this moment."""
        return replace(self, elapsed_ms=int((time.monotonic() - self.since) * 1000))

    def ended(self, type: DomainJobType, error: str | None = None) -> "JobStats":
        """The figures of a job that ends now."""
        return replace(self.now(), type=type, error=error)

    @property
    def data(self) -> Amount:
        return (self.memory or Amount()) + (self.disk or Amount())

    def info(self) -> DomainGetJobInfoReply:
        """As the older call tells them."""
        memory, disk, data = self.memory or Amount(), self.disk or Amount(), self.data
        return DomainGetJobInfoReply(
            self.type,
            self.elapsed_ms,
            0,
            *(data.total, data.processed, data.remaining),
            *(memory.total, memory.processed, memory.remaining),
            *(disk.total, disk.processed, disk.remaining),
        )

    def reply(self) -> DomainGetJobStatsReply:
        """As the call with parameters tells them."""
        return DomainGetJobStatsReply(self.type, self.params())

    def params(self) -> list[TypedParam]:
        """The figures as parameters; also the body of the event at the job's end."""
        found = [TypedParam("operation", (Kind.INT, int(self.operation)))]
        if self.error is not None:
            found.append(TypedParam("errmsg", (Kind.STRING, self.error)))
        figures: list[tuple[str, int]] = [("time_elapsed", self.elapsed_ms)]
        if self.downtime_ms is not None:
            figures.append(("downtime", self.downtime_ms))
        if self.setup_ms is not None:
            figures.append(("setup_time", self.setup_ms))
        if self.memory is not None:
            figures += [*(_amount("data", self.data) if self.sums else ()), *_amount("memory", self.memory)]
        figures += self.details
        if self.disk is not None:
            figures += _amount("disk", self.disk)
        return found + [TypedParam(name, (Kind.ULLONG, value)) for name, value in figures]


def _amount(what: str, amount: Amount) -> list[tuple[str, int]]:
    return [
        (f"{what}_total", amount.total),
        (f"{what}_processed", amount.processed),
        (f"{what}_remaining", amount.remaining),
    ]


NO_JOB = JobStats(DomainJobOperation.UNKNOWN, DomainJobType.NONE, since=0.0)
