"""The admin program of virt-admin.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, NamedTuple

from pyvirtd.api.limits import (
    ADMIN_CLIENT_INFO_PARAMETERS_MAX,
    ADMIN_CLIENT_LIST_MAX,
    ADMIN_SERVER_CLIENT_LIMITS_MAX,
    ADMIN_SERVER_LIST_MAX,
    ADMIN_SERVER_THREADPOOL_PARAMETERS_MAX,
)
from pyvirtd.api.rpc import ADMIN, Answer, Part, Shape, Shaped, rpc
from pyvirtd.api.types import AdminClient, Caller, Server, TypedParam
from pyvirtd.wire.xdr import Max, Str, UHyper, UInt


class AdminConnectGetLoggingOutputsReply(NamedTuple):
    outputs: Str
    noutputs: UInt


class AdminConnectGetLoggingFiltersReply(NamedTuple):
    filters: Str | None
    nfilters: UInt


class AdminPart(Part, program=ADMIN):
    """AdminPart procedures."""

    @rpc(1)
    def connect_open(self, flags: UInt, caller: Caller) -> Answer[None]: ...

    @rpc(2)
    def connect_close(self, caller: Caller) -> Answer[None]: ...

    @rpc(3)
    def connect_get_lib_version(self, caller: Caller) -> Answer[UHyper]: ...

    @rpc(4)
    def connect_list_servers(
        self, flags: UInt, caller: Caller
    ) -> Answer[Annotated[list[Server], Shaped(Shape.LISTED, ADMIN_SERVER_LIST_MAX, need=UInt)]]: ...

    @rpc(5)
    def connect_lookup_server(self, name: Str, flags: UInt, caller: Caller) -> Answer[Server]: ...

    @rpc(6)
    def server_get_threadpool_parameters(
        self, srv: Server, flags: UInt, caller: Caller
    ) -> Answer[Annotated[list[TypedParam], Max(ADMIN_SERVER_THREADPOOL_PARAMETERS_MAX)]]: ...

    @rpc(7)
    def server_set_threadpool_parameters(
        self,
        srv: Server,
        params: Annotated[list[TypedParam], Max(ADMIN_SERVER_THREADPOOL_PARAMETERS_MAX)],
        flags: UInt,
        caller: Caller,
    ) -> Answer[None]: ...

    @rpc(8)
    def server_list_clients(
        self, srv: Server, flags: UInt, caller: Caller
    ) -> Answer[Annotated[list[AdminClient], Shaped(Shape.LISTED, ADMIN_CLIENT_LIST_MAX, need=UInt)]]: ...

    @rpc(9)
    def server_lookup_client(self, srv: Server, id: UHyper, flags: UInt, caller: Caller) -> Answer[AdminClient]: ...

    @rpc(10)
    def client_get_info(
        self, clnt: AdminClient, flags: UInt, caller: Caller
    ) -> Answer[Annotated[list[TypedParam], Max(ADMIN_CLIENT_INFO_PARAMETERS_MAX)]]: ...

    @rpc(11)
    def client_close(self, clnt: AdminClient, flags: UInt, caller: Caller) -> Answer[None]: ...

    @rpc(12)
    def server_get_client_limits(
        self, srv: Server, flags: UInt, caller: Caller
    ) -> Answer[Annotated[list[TypedParam], Max(ADMIN_SERVER_CLIENT_LIMITS_MAX)]]: ...

    @rpc(13)
    def server_set_client_limits(
        self,
        srv: Server,
        params: Annotated[list[TypedParam], Max(ADMIN_SERVER_CLIENT_LIMITS_MAX)],
        flags: UInt,
        caller: Caller,
    ) -> Answer[None]: ...

    @rpc(14)
    def connect_get_logging_outputs(
        self, flags: UInt, caller: Caller
    ) -> Answer[AdminConnectGetLoggingOutputsReply]: ...

    @rpc(15)
    def connect_get_logging_filters(
        self, flags: UInt, caller: Caller
    ) -> Answer[AdminConnectGetLoggingFiltersReply]: ...

    @rpc(16)
    def connect_set_logging_outputs(self, outputs: Str | None, flags: UInt, caller: Caller) -> Answer[None]: ...

    @rpc(17)
    def connect_set_logging_filters(self, filters: Str | None, flags: UInt, caller: Caller) -> Answer[None]: ...

    @rpc(18)
    def server_update_tls_files(self, srv: Server, flags: UInt, caller: Caller) -> Answer[None]: ...

    @rpc(19)
    def connect_set_daemon_timeout(self, timeout: UInt, flags: UInt, caller: Caller) -> Answer[None]: ...
