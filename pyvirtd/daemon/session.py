"""The session procedures: a client opens a driver by URI, authenticates, asks for features, subscribes to events."""

import os
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

from pyvirtd.api.rpc import Part, accepts
from pyvirtd.api.session import SessionPart
from pyvirtd.api.types import (
    Caller,
    Domain,
    DomainRef,
    Network,
    NetworkRef,
    NodeDevice,
    NodeDeviceRef,
    Secret,
    SecretRef,
    StoragePool,
    StoragePoolRef,
    TypedParam,
)
from pyvirtd.constants.domain import DomainEventID
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import ConnectFlags
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.access import Identity
from pyvirtd.core.driver import Driver
from pyvirtd.core.params import checked
from pyvirtd.core.registry import driver_for_uri
from pyvirtd.daemon.auth import remaining
from pyvirtd.daemon.auth_polkit import PolkitSession
from pyvirtd.daemon.auth_sasl import SaslSession
from pyvirtd.daemon.client import Client, check_event, client_of
from pyvirtd.errors import InternalError, InvalidArg, NoSupport, OperationDenied

ANY_FLAGS = 2**32 - 1
# The libvirt release whose API is served: major * 1,000,000 + minor * 1,000 + release.
LIB_VERSION = 9_000_000


# libvirt-host.h VIR_CONNECT_IDENTITY_...: the type of each value, and where it is kept.
IDENTITY_KINDS = {
    "user-name": Kind.STRING,
    "unix-user-id": Kind.ULLONG,
    "group-name": Kind.STRING,
    "unix-group-id": Kind.ULLONG,
    "process-id": Kind.LLONG,
    "process-time": Kind.ULLONG,
    "sasl-user-name": Kind.STRING,
    "x509-distinguished-name": Kind.STRING,
    "selinux-context": Kind.STRING,
}
IDENTITY_FIELDS = {
    "user-name": "user_name",
    "unix-user-id": "uid",
    "group-name": "group_name",
    "unix-group-id": "gid",
    "process-id": "pid",
    "process-time": "start_time",
    "sasl-user-name": "sasl_user_name",
    "x509-distinguished-name": "x509_dname",
    "selinux-context": "selinux_context",
}


class Feature(IntEnum):
    """protocol: VIR_DRV_FEATURE_..., those the connection itself has."""

    FD_PASSING = 8
    TYPED_PARAM_STRING = 9
    PROGRAM_KEEPALIVE = 10
    REMOTE_EVENT_CALLBACK = 14
    REMOTE_CLOSE_CALLBACK = 15
    NETWORK_UPDATE_HAS_CORRECT_ORDER = 16


class Session(SessionPart):
    """Acts on the calling client alone."""

    def __init__(self, driver: "DaemonDriver") -> None:
        self.driver = driver

    @accepts(ANY_FLAGS)  # libvirtd looks at one bit and lets the others pass
    def connect_open(self, name: str | None, flags: int, caller: Caller) -> None:
        client = client_of(caller)
        if client.driver is not None:
            raise InternalError("connection already open", domain=From.RPC)
        driver, uri = driver_for_uri(self.driver.host, name or "")
        if flags & ConnectFlags.RO:
            client.read_only = True
        client.driver, client.uri = driver, uri
        client.handlers, client.resolvers = client.server.tables(driver)

    def connect_close(self, caller: Caller) -> None:
        client = client_of(caller)
        client.release()
        client.reset()

    def connect_supports_feature(self, feature: int, caller: Caller) -> int:
        client = client_of(caller)
        if feature == Feature.PROGRAM_KEEPALIVE:
            return int(client.start_keepalive())
        _opened(caller)
        if feature in Feature.__members__.values():
            return 1
        return int(client.driver is not None and feature in client.driver.features)

    def auth_list(self, caller: Caller) -> list[int]:
        return [remaining(client_of(caller))]

    def connect_get_uri(self, caller: Caller) -> str:
        return _opened(caller).uri

    def connect_is_secure(self, caller: Caller) -> int:
        return int(client_of(caller).transport.secure)

    def connect_get_lib_version(self, caller: Caller) -> int:
        return LIB_VERSION

    @accepts(0)
    def connect_set_identity(self, params: list[TypedParam], flags: int, caller: Caller) -> None:
        """For a proxy, which speaks for its own clients: from now on the connection is theirs."""
        client = _opened(caller)
        if client.identity.uid not in (0, os.geteuid()):
            raise OperationDenied("only root may set the identity of a connection", domain=From.RPC)
        given = {IDENTITY_FIELDS[name]: value for name, value in checked(params, IDENTITY_KINDS).items()}
        for name in ("pid", "uid", "gid"):
            if not 0 <= given.get(name, 0) < 2**32 - 1:
                raise InvalidArg(f"the identity's {name} is out of range")
        client.identify(Identity(**given))

    def connect_register_close_callback(self, caller: Caller) -> None:
        client = _opened(caller)
        if client.close_callback:
            raise InternalError("A close callback is already registered", domain=From.RPC)
        client.close_callback = True

    def connect_unregister_close_callback(self, caller: Caller) -> None:
        client = _opened(caller)
        if not client.close_callback:
            raise InternalError("A close callback is not registered", domain=From.RPC)
        client.close_callback = False

    # --- event subscriptions ---------------------------------------------------------------------------------

    def connect_domain_event_register(self, caller: Caller) -> int:
        self.connect_domain_event_register_any(DomainEventID.LIFECYCLE, caller)
        return 1

    def connect_domain_event_deregister(self, caller: Caller) -> int:
        self.connect_domain_event_deregister_any(DomainEventID.LIFECYCLE, caller)
        return 0

    def connect_domain_event_register_any(self, event_id: int, caller: Caller) -> None:
        client = _opened(caller)
        client.subscribe_legacy(_emitter(client, "domain"), event_id)

    def connect_domain_event_deregister_any(self, event_id: int, caller: Caller) -> None:
        _opened(caller).unsubscribe_legacy(event_id)

    def connect_domain_event_callback_register_any(self, event_id: int, dom: Domain | None, caller: Caller) -> int:
        return _subscribe(caller, "domain", event_id, dom)

    def connect_domain_event_callback_deregister_any(self, callback_id: int, caller: Caller) -> None:
        _opened(caller).unsubscribe("domain", callback_id)

    def connect_network_event_register_any(self, event_id: int, net: Network | None, caller: Caller) -> int:
        return _subscribe(caller, "network", event_id, net)

    def connect_network_event_deregister_any(self, callback_id: int, caller: Caller) -> None:
        _opened(caller).unsubscribe("network", callback_id)

    def connect_storage_pool_event_register_any(self, event_id: int, pool: StoragePool | None, caller: Caller) -> int:
        return _subscribe(caller, "storage_pool", event_id, pool)

    def connect_storage_pool_event_deregister_any(self, callback_id: int, caller: Caller) -> None:
        _opened(caller).unsubscribe("storage_pool", callback_id)

    def connect_node_device_event_register_any(self, event_id: int, dev: NodeDevice | None, caller: Caller) -> int:
        return _subscribe(caller, "node_device", event_id, dev)

    def connect_node_device_event_deregister_any(self, callback_id: int, caller: Caller) -> None:
        _opened(caller).unsubscribe("node_device", callback_id)

    def connect_secret_event_register_any(self, event_id: int, secret: Secret | None, caller: Caller) -> int:
        return _subscribe(caller, "secret", event_id, secret)

    def connect_secret_event_deregister_any(self, callback_id: int, caller: Caller) -> None:
        _opened(caller).unsubscribe("secret", callback_id)


class DaemonDriver(Driver):
    """The daemon's own handlers, in the table of every connection."""

    name = "remote"
    parts: ClassVar[tuple[type[Part], ...]] = (Session, PolkitSession, SaslSession)
    error_domain = From.RPC

    def function_name(self, procedure: Any) -> str:
        return f"remoteDispatch{procedure.api}"


def _opened(caller: Caller) -> Client:
    client = client_of(caller)
    if client.driver is None:
        raise InternalError("hypervisor connection not open", domain=From.RPC)
    return client


def _subscribe(caller: Caller, family: str, event_id: int, about: Any) -> int:
    client = _opened(caller)
    check_event(family, event_id)
    return client.subscribe(_emitter(client, family), family, event_id, about=about)


class _Emitter(NamedTuple):
    """Whose objects a family's events are about, and what the error says where no driver has any."""

    ref: type
    register: str
    domain: From


_EMITTERS = {
    "domain": _Emitter(DomainRef, "ConnectDomainEventRegisterAny", From.DOMAIN),
    "network": _Emitter(NetworkRef, "ConnectNetworkEventRegisterAny", From.NETWORK),
    "storage_pool": _Emitter(StoragePoolRef, "ConnectStoragePoolEventRegisterAny", From.STORAGE),
    "node_device": _Emitter(NodeDeviceRef, "ConnectNodeDeviceEventRegisterAny", From.NODEDEV),
    "secret": _Emitter(SecretRef, "ConnectSecretEventRegisterAny", From.SECRET),
}


def _emitter(client: Client, family: str) -> Driver:
    """The driver of the connection whose objects the family's events are about. Raises NoSupport."""
    about = _EMITTERS[family]
    driver = client.resolvers.get(about.ref)
    if driver is None:
        raise NoSupport(f"vir{about.register}", domain=about.domain)
    return driver
