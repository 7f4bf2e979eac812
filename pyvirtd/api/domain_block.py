"""Block jobs and tuning of disks.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic, NamedTuple

from pyvirtd.api.limits import (
    DOMAIN_BLOCK_COPY_PARAMETERS_MAX,
    DOMAIN_BLOCK_IO_TUNE_PARAMETERS_MAX,
    DOMAIN_BLOCK_PEEK_BUFFER_MAX,
    DOMAIN_DISK_ERRORS_MAX,
)
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, Unless, When, rpc
from pyvirtd.api.types import D, DiskError, TypedParam
from pyvirtd.constants.domain import DomainModificationImpact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Max, Opaque, Str, UHyper, UInt


class DomainGetBlockJobInfoReply(NamedTuple):
    found: Int
    type: Int
    bandwidth: UHyper
    cur: UHyper
    end: UHyper


class DomainGetDiskErrorsReply(NamedTuple):
    errors: Annotated[list[DiskError], Max(DOMAIN_DISK_ERRORS_MAX)]
    nerrors: Int


class BlockPart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN):
    """BlockPart procedures."""

    @rpc(103, "domain:block_read")
    def domain_block_peek(
        self, dom: D, path: Str, offset: UHyper, size: UInt, flags: UInt
    ) -> Answer[Annotated[bytes, Opaque(DOMAIN_BLOCK_PEEK_BUFFER_MAX)]]: ...

    @rpc(237, "domain:write")
    def domain_block_job_abort(self, dom: D, path: Str, flags: UInt) -> Answer[None]: ...

    @rpc(238, "domain:read", ro=True)
    def domain_get_block_job_info(self, dom: D, path: Str, flags: UInt) -> Answer[DomainGetBlockJobInfoReply]: ...

    @rpc(239, "domain:write")
    def domain_block_job_set_speed(self, dom: D, path: Str, bandwidth: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(240, "domain:block_write")
    def domain_block_pull(self, dom: D, path: Str, bandwidth: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(251, "domain:block_write")
    def domain_block_resize(self, dom: D, disk: Str, size: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(
        252,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_block_io_tune(
        self,
        dom: D,
        disk: Str,
        params: Annotated[list[TypedParam], Max(DOMAIN_BLOCK_IO_TUNE_PARAMETERS_MAX)],
        flags: UInt,
    ) -> Answer[None]: ...

    @rpc(253, "domain:read", ro=True)
    def domain_get_block_io_tune(
        self, dom: D, disk: Str | None, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Shaped(Shape.SIZED, DOMAIN_BLOCK_IO_TUNE_PARAMETERS_MAX)]]: ...

    @rpc(263, "domain:read", ro=True)
    def domain_get_disk_errors(self, dom: D, maxerrors: UInt, flags: UInt) -> Answer[DomainGetDiskErrorsReply]: ...

    @rpc(266, "domain:block_write")
    def domain_block_rebase(
        self, dom: D, path: Str, base: Str | None, bandwidth: UHyper, flags: UInt
    ) -> Answer[None]: ...

    @rpc(290, "domain:block_write")
    def domain_block_commit(
        self, dom: D, disk: Str, base: Str | None, top: Str | None, bandwidth: UHyper, flags: UInt
    ) -> Answer[None]: ...

    @rpc(345, "domain:block_write")
    def domain_block_copy(
        self,
        dom: D,
        path: Str,
        destxml: Str,
        params: Annotated[list[TypedParam], Max(DOMAIN_BLOCK_COPY_PARAMETERS_MAX)],
        flags: UInt,
    ) -> Answer[None]: ...

    @rpc(386, "domain:write")
    def domain_set_block_threshold(self, dom: D, dev: Str, threshold: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(451, "domain:write")
    def domain_set_throttle_group(
        self,
        dom: D,
        group: Str,
        params: Annotated[list[TypedParam], Max(DOMAIN_BLOCK_IO_TUNE_PARAMETERS_MAX)],
        flags: UInt,
    ) -> Answer[None]: ...

    @rpc(452, "domain:write")
    def domain_del_throttle_group(self, dom: D, group: Str | None, flags: UInt) -> Answer[None]: ...
