"""Sessions: opening, authentication, features and event subscriptions. The daemon itself implements these.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, NamedTuple

from pyvirtd.api.limits import AUTH_SASL_DATA_MAX, AUTH_TYPE_LIST_MAX, CONNECT_IDENTITY_PARAMS_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Part, rpc
from pyvirtd.api.types import Caller, Domain, Network, NodeDevice, Secret, StoragePool, TypedParam
from pyvirtd.wire.xdr import Chars, Int, Max, Str, UHyper, UInt


class AuthSASLStartReply(NamedTuple):
    complete: Int
    nil: Int
    data: Annotated[bytes, Chars(AUTH_SASL_DATA_MAX)]


class AuthSASLStepReply(NamedTuple):
    complete: Int
    nil: Int
    data: Annotated[bytes, Chars(AUTH_SASL_DATA_MAX)]


class SessionPart(Part, program=REMOTE):
    """SessionPart procedures."""

    @rpc(1, "connect:getattr", ro=True)
    def connect_open(self, name: Str | None, flags: UInt, caller: Caller) -> Answer[None]: ...

    @rpc(2, ro=True)
    def connect_close(self, caller: Caller) -> Answer[None]: ...

    @rpc(60, "connect:getattr", ro=True)
    def connect_supports_feature(self, feature: Int, caller: Caller) -> Answer[Int]: ...

    @rpc(66, ro=True, before_auth=True)
    def auth_list(self, caller: Caller) -> Answer[Annotated[list[Int], Max(AUTH_TYPE_LIST_MAX)]]: ...

    @rpc(67, ro=True, before_auth=True)
    def auth_sasl_init(self, caller: Caller) -> Answer[Str]: ...

    @rpc(68, ro=True, before_auth=True)
    def auth_sasl_start(
        self, mech: Str, nil: Int, data: Annotated[bytes, Chars(AUTH_SASL_DATA_MAX)], caller: Caller
    ) -> Answer[AuthSASLStartReply]: ...

    @rpc(69, ro=True, before_auth=True)
    def auth_sasl_step(
        self, nil: Int, data: Annotated[bytes, Chars(AUTH_SASL_DATA_MAX)], caller: Caller
    ) -> Answer[AuthSASLStepReply]: ...

    @rpc(70, ro=True, before_auth=True)
    def auth_polkit(self, caller: Caller) -> Answer[Int]: ...

    @rpc(105, "connect:search_domains", list_filter="domain:getattr", ro=True)
    def connect_domain_event_register(self, caller: Caller) -> Answer[Int]: ...

    @rpc(106, "connect:read", ro=True)
    def connect_domain_event_deregister(self, caller: Caller) -> Answer[Int]: ...

    @rpc(110, "connect:getattr", ro=True)
    def connect_get_uri(self, caller: Caller) -> Answer[Str]: ...

    @rpc(149, ro=True)
    def connect_is_secure(self, caller: Caller) -> Answer[Int]: ...

    @rpc(157, "connect:getattr", ro=True)
    def connect_get_lib_version(self, caller: Caller) -> Answer[UHyper]: ...

    @rpc(167, "connect:search_domains", list_filter="domain:getattr", ro=True)
    def connect_domain_event_register_any(self, event_id: Int, caller: Caller) -> Answer[None]: ...

    @rpc(168, "connect:read", ro=True)
    def connect_domain_event_deregister_any(self, event_id: Int, caller: Caller) -> Answer[None]: ...

    @rpc(313, "connect:search_networks", list_filter="network:getattr", ro=True)
    def connect_network_event_register_any(self, event_id: Int, net: Network | None, caller: Caller) -> Answer[Int]: ...

    @rpc(314, "connect:read", ro=True)
    def connect_network_event_deregister_any(self, callback_id: Int, caller: Caller) -> Answer[None]: ...

    @rpc(316, "connect:search_domains", list_filter="domain:getattr", ro=True)
    def connect_domain_event_callback_register_any(
        self, event_id: Int, dom: Domain | None, caller: Caller
    ) -> Answer[Int]: ...

    @rpc(317, "connect:read", ro=True)
    def connect_domain_event_callback_deregister_any(self, callback_id: Int, caller: Caller) -> Answer[None]: ...

    @rpc(360, "connect:getattr", ro=True)
    def connect_register_close_callback(self, caller: Caller) -> Answer[None]: ...

    @rpc(361, "connect:getattr", ro=True)
    def connect_unregister_close_callback(self, caller: Caller) -> Answer[None]: ...

    @rpc(368, "connect:search_storage_pools", list_filter="storage_pool:getattr", ro=True)
    def connect_storage_pool_event_register_any(
        self, event_id: Int, pool: StoragePool | None, caller: Caller
    ) -> Answer[Int]: ...

    @rpc(369, "connect:read", ro=True)
    def connect_storage_pool_event_deregister_any(self, callback_id: Int, caller: Caller) -> Answer[None]: ...

    @rpc(374, "connect:search_node_devices", list_filter="node_device:getattr", ro=True)
    def connect_node_device_event_register_any(
        self, event_id: Int, dev: NodeDevice | None, caller: Caller
    ) -> Answer[Int]: ...

    @rpc(375, "connect:read", ro=True)
    def connect_node_device_event_deregister_any(self, callback_id: Int, caller: Caller) -> Answer[None]: ...

    @rpc(380, "connect:search_secrets", list_filter="secret:getattr", ro=True)
    def connect_secret_event_register_any(
        self, event_id: Int, secret: Secret | None, caller: Caller
    ) -> Answer[Int]: ...

    @rpc(381, "connect:read", ro=True)
    def connect_secret_event_deregister_any(self, callback_id: Int, caller: Caller) -> Answer[None]: ...

    @rpc(419, "connect:write", ro=True)
    def connect_set_identity(
        self, params: Annotated[list[TypedParam], Max(CONNECT_IDENTITY_PARAMS_MAX)], flags: UInt, caller: Caller
    ) -> Answer[None]: ...
