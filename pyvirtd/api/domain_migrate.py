"""Migration, all protocol versions.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic, NamedTuple

from pyvirtd.api.limits import DOMAIN_MIGRATE_PARAM_LIST_MAX, MIGRATE_COOKIE_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Direction, Part, rpc
from pyvirtd.api.types import D, Domain, Stream, TypedParam
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Max, Opaque, Str, UHyper, UInt


class DomainMigratePrepareReply(NamedTuple):
    cookie: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]
    uri_out: Str | None


class DomainMigratePrepare2Reply(NamedTuple):
    cookie: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]
    uri_out: Str | None


class DomainMigrateBegin3Reply(NamedTuple):
    cookie_out: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]
    xml: Str


class DomainMigratePrepare3Reply(NamedTuple):
    cookie_out: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]
    uri_out: Str | None


class DomainMigrateFinish3Reply(NamedTuple):
    dom: Domain
    cookie_out: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]


class DomainMigrateBegin3ParamsReply(NamedTuple):
    cookie_out: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]
    xml: Str


class DomainMigratePrepare3ParamsReply(NamedTuple):
    cookie_out: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]
    uri_out: Str | None


class DomainMigrateFinish3ParamsReply(NamedTuple):
    dom: Domain
    cookie_out: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]


class MigrationPart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN):
    """MigrationPart procedures."""

    @rpc(61, "domain:migrate", "domain:start", "domain:write")
    def domain_migrate_prepare(
        self, uri_in: Str | None, flags: UHyper, dname: Str | None, resource: UHyper
    ) -> Answer[DomainMigratePrepareReply]: ...

    @rpc(62, "domain:migrate")
    def domain_migrate_perform(
        self,
        dom: D,
        cookie: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        uri: Str,
        flags: UHyper,
        dname: Str | None,
        resource: UHyper,
    ) -> Answer[None]: ...

    @rpc(63, "domain:migrate")
    def domain_migrate_finish(
        self, dname: Str, cookie: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)], uri: Str, flags: UHyper
    ) -> Answer[D]: ...

    @rpc(108, "domain:migrate", "domain:start", "domain:write")
    def domain_migrate_prepare2(
        self, uri_in: Str | None, flags: UHyper, dname: Str | None, resource: UHyper, dom_xml: Str
    ) -> Answer[DomainMigratePrepare2Reply]: ...

    @rpc(109, "domain:migrate")
    def domain_migrate_finish2(
        self, dname: Str, cookie: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)], uri: Str, flags: UHyper, retcode: Int
    ) -> Answer[D]: ...

    @rpc(148, "domain:migrate", "domain:start", "domain:write", stream=Direction.UPLOAD)
    def domain_migrate_prepare_tunnel(
        self, flags: UHyper, dname: Str | None, resource: UHyper, dom_xml: Str, stream: Stream
    ) -> Answer[None]: ...

    @rpc(166, "domain:migrate")
    def domain_migrate_set_max_downtime(self, dom: D, downtime: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(207, "domain:migrate")
    def domain_migrate_set_max_speed(self, dom: D, bandwidth: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(213, "domain:migrate")
    def domain_migrate_begin3(
        self, dom: D, xmlin: Str | None, flags: UHyper, dname: Str | None, resource: UHyper
    ) -> Answer[DomainMigrateBegin3Reply]: ...

    @rpc(214, "domain:migrate", "domain:start", "domain:write")
    def domain_migrate_prepare3(
        self,
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        uri_in: Str | None,
        flags: UHyper,
        dname: Str | None,
        resource: UHyper,
        dom_xml: Str,
    ) -> Answer[DomainMigratePrepare3Reply]: ...

    @rpc(215, "domain:migrate", "domain:start", "domain:write", stream=Direction.UPLOAD)
    def domain_migrate_prepare_tunnel3(
        self,
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        flags: UHyper,
        dname: Str | None,
        resource: UHyper,
        dom_xml: Str,
        stream: Stream,
    ) -> Answer[Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]]: ...

    @rpc(216, "domain:migrate")
    def domain_migrate_perform3(
        self,
        dom: D,
        xmlin: Str | None,
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        dconnuri: Str | None,
        uri: Str | None,
        flags: UHyper,
        dname: Str | None,
        resource: UHyper,
    ) -> Answer[Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]]: ...

    @rpc(217, "domain:migrate")
    def domain_migrate_finish3(
        self,
        dname: Str,
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        dconnuri: Str | None,
        uri: Str | None,
        flags: UHyper,
        cancelled: Int,
    ) -> Answer[DomainMigrateFinish3Reply]: ...

    @rpc(218, "domain:migrate")
    def domain_migrate_confirm3(
        self, dom: D, cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)], flags: UHyper, cancelled: Int
    ) -> Answer[None]: ...

    @rpc(242, "domain:migrate")
    def domain_migrate_get_max_speed(self, dom: D, flags: UInt) -> Answer[UHyper]: ...

    @rpc(299, "domain:migrate", ro=True)
    def domain_migrate_get_compression_cache(self, dom: D, flags: UInt) -> Answer[UHyper]: ...

    @rpc(300, "domain:migrate")
    def domain_migrate_set_compression_cache(self, dom: D, cache_size: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(302, "domain:migrate")
    def domain_migrate_begin3_params(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_MIGRATE_PARAM_LIST_MAX)], flags: UInt
    ) -> Answer[DomainMigrateBegin3ParamsReply]: ...

    @rpc(303, "domain:migrate", "domain:start", "domain:write")
    def domain_migrate_prepare3_params(
        self,
        params: Annotated[list[TypedParam], Max(DOMAIN_MIGRATE_PARAM_LIST_MAX)],
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        flags: UInt,
    ) -> Answer[DomainMigratePrepare3ParamsReply]: ...

    @rpc(304, "domain:migrate", "domain:start", "domain:write")
    def domain_migrate_prepare_tunnel3_params(
        self,
        params: Annotated[list[TypedParam], Max(DOMAIN_MIGRATE_PARAM_LIST_MAX)],
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        flags: UInt,
    ) -> Answer[Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]]: ...

    @rpc(305, "domain:migrate")
    def domain_migrate_perform3_params(
        self,
        dom: D,
        dconnuri: Str | None,
        params: Annotated[list[TypedParam], Max(DOMAIN_MIGRATE_PARAM_LIST_MAX)],
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        flags: UInt,
    ) -> Answer[Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)]]: ...

    @rpc(306, "domain:migrate")
    def domain_migrate_finish3_params(
        self,
        params: Annotated[list[TypedParam], Max(DOMAIN_MIGRATE_PARAM_LIST_MAX)],
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        flags: UInt,
        cancelled: Int,
    ) -> Answer[DomainMigrateFinish3ParamsReply]: ...

    @rpc(307, "domain:migrate")
    def domain_migrate_confirm3_params(
        self,
        dom: D,
        params: Annotated[list[TypedParam], Max(DOMAIN_MIGRATE_PARAM_LIST_MAX)],
        cookie_in: Annotated[bytes, Opaque(MIGRATE_COOKIE_MAX)],
        flags: UInt,
        cancelled: Int,
    ) -> Answer[None]: ...

    @rpc(364, "domain:migrate")
    def domain_migrate_start_post_copy(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(387, "domain:migrate", ro=True)
    def domain_migrate_get_max_downtime(self, dom: D, flags: UInt) -> Answer[UHyper]: ...
