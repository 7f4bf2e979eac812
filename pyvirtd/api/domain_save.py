"""Saved guests: save images, managed save, core dumps and the jobs behind them.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic, NamedTuple

from pyvirtd.api.limits import DOMAIN_JOB_STATS_MAX, DOMAIN_SAVE_PARAMS_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Part, When, rpc
from pyvirtd.api.types import Consent, D, TypedParam
from pyvirtd.constants.domain import DomainSaveImageXMLFlags
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Max, Str, UHyper, UInt


class DomainGetJobInfoReply(NamedTuple):
    type: Int
    time_elapsed: UHyper
    time_remaining: UHyper
    data_total: UHyper
    data_processed: UHyper
    data_remaining: UHyper
    mem_total: UHyper
    mem_processed: UHyper
    mem_remaining: UHyper
    file_total: UHyper
    file_processed: UHyper
    file_remaining: UHyper


class DomainGetJobStatsReply(NamedTuple):
    type: Int
    params: Annotated[list[TypedParam], Max(DOMAIN_JOB_STATS_MAX)]


class SavePart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN):
    """SavePart procedures."""

    @rpc(53, "domain:core_dump")
    def domain_core_dump(self, dom: D, to: Str, flags: UInt) -> Answer[None]: ...

    @rpc(54, "domain:start", "domain:write")
    def domain_restore(self, from_: Str, consent: Consent) -> Answer[None]: ...

    @rpc(55, "domain:hibernate")
    def domain_save(self, dom: D, to: Str) -> Answer[None]: ...

    @rpc(163, "domain:read", ro=True)
    def domain_get_job_info(self, dom: D) -> Answer[DomainGetJobInfoReply]: ...

    @rpc(164, "domain:write")
    def domain_abort_job(self, dom: D) -> Answer[None]: ...

    @rpc(182, "domain:hibernate")
    def domain_managed_save(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(183, "domain:read", ro=True)
    def domain_has_managed_save_image(self, dom: D, flags: UInt) -> Answer[Int]: ...

    @rpc(184, "domain:hibernate")
    def domain_managed_save_remove(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(232, "domain:hibernate")
    def domain_save_flags(self, dom: D, to: Str, dxml: Str | None, flags: UInt) -> Answer[None]: ...

    @rpc(233, "domain:start", "domain:write")
    def domain_restore_flags(self, from_: Str, dxml: Str | None, flags: UInt, consent: Consent) -> Answer[None]: ...

    @rpc(235, "domain:write")
    def domain_save_image_get_xml_desc(self, file: Str, flags: UInt, consent: Consent) -> Answer[Str]: ...

    @rpc(236, "domain:write", "domain:hibernate")
    def domain_save_image_define_xml(self, file: Str, dxml: Str, flags: UInt, consent: Consent) -> Answer[None]: ...

    @rpc(298, "domain:read", ro=True)
    def domain_get_job_stats(self, dom: D, flags: UInt) -> Answer[DomainGetJobStatsReply]: ...

    @rpc(334, "domain:core_dump")
    def domain_core_dump_with_format(self, dom: D, to: Str, dumpformat: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(
        388,
        "domain:read",
        When(DomainSaveImageXMLFlags.SECURE, "domain:read_secure"),
        ro=True,
        ro_deny=When(DomainSaveImageXMLFlags.SECURE, "domain:read_secure"),
    )
    def domain_managed_save_get_xml_desc(self, dom: D, flags: UInt) -> Answer[Str]: ...

    @rpc(389, "domain:write", "domain:hibernate")
    def domain_managed_save_define_xml(self, dom: D, dxml: Str | None, flags: UInt) -> Answer[None]: ...

    @rpc(440, "domain:hibernate")
    def domain_save_params(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_SAVE_PARAMS_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(441, "domain:start", "domain:write")
    def domain_restore_params(
        self, params: Annotated[list[TypedParam], Max(DOMAIN_SAVE_PARAMS_MAX)], flags: UInt, consent: Consent
    ) -> Answer[None]: ...

    @rpc(442, "domain:write")
    def domain_abort_job_flags(self, dom: D, flags: UInt) -> Answer[None]: ...
