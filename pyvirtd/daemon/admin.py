"""The admin socket: who connects there sees and changes the daemon itself. https://libvirt.org/manpages/virt-admin.html

Only root, or the user whose session the daemon is, gets past it, by the kernel's word and the socket's mode. Calls need
no worker threads here: the sizes of the pool are kept and told, what is busy and waits is counted in calls.
"""

import grp
import pwd
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pyvirtd.api import types
from pyvirtd.api.admin import (
    AdminConnectGetLoggingFiltersReply,
    AdminConnectGetLoggingOutputsReply,
    AdminPart,
)
from pyvirtd.api.rpc import ADMIN, Part, accepts
from pyvirtd.api.types import AdminClientRef, Caller, ServerRef, TypedParam, param_boolean, param_int, param_string
from pyvirtd.api.types import param_uint as uint
from pyvirtd.config import DaemonConfig
from pyvirtd.constants.admin import ClientTransport
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.access import Identity
from pyvirtd.core.driver import Driver, Host
from pyvirtd.core.params import checked
from pyvirtd.daemon.client import Client, client_of
from pyvirtd.daemon.listeners import Listener
from pyvirtd.daemon.server import Server
from pyvirtd.daemon.session import LIB_VERSION
from pyvirtd.errors import InternalError, InvalidArg, NoClient, NoServer
from pyvirtd.log import format_filters, format_outputs, logs
from pyvirtd.util.files import in_thread

POOL = ("minWorkers", "maxWorkers", "prioWorkers")
LIMITS = ("nclients_max", "nclients_unauth_max")
TIMEOUT_MAX_S = (2**31 - 1) // 1000


@dataclass
class Pool:
    """The sizes of a server's pool of workers, as they were configured or set."""

    minWorkers: int
    maxWorkers: int
    prioWorkers: int


class AdminServer(Server):
    """The admin socket's own server: it knows the other one, and itself."""

    def __init__(self, host: Host, config: DaemonConfig, main: Server) -> None:
        self.main = main
        super().__init__(host, config)
        self.driver = AdminDriver(host, self)
        opening = {number for (_, number), one in self.driver.handlers.items() if one.procedure.name in OPENING}
        self.base_handlers = {key: one for key, one in self.driver.handlers.items() if key[1] in opening}
        self.pools = {
            "libvirtd": Pool(config.min_workers, config.max_workers, config.prio_workers),
            "admin": Pool(config.admin_min_workers, config.admin_max_workers, 0),
        }

    def apply(self, config: DaemonConfig) -> None:
        super().apply(
            replace(
                config,
                max_clients=config.admin_max_clients,
                max_queued_clients=config.admin_max_queued_clients,
                max_anonymous_clients=min(config.max_anonymous_clients, config.admin_max_clients),
                max_client_requests=config.admin_max_client_requests,
                keepalive_interval=config.admin_keepalive_interval,
                keepalive_count=config.admin_keepalive_count,
            )
        )

    def programs(self, client: Client) -> frozenset[int]:
        return frozenset({ADMIN.number})

    def _auth(self, listener: Listener) -> str:
        """By this scheme, whose steps are not of this program, root and the daemon's own user need none."""
        return "polkit"

    @property
    def servers(self) -> dict[str, Server]:
        return {"libvirtd": self.main, "admin": self}

    def _watch_idle(self) -> None:
        """The daemon does not end while somebody looks after it."""
        if self.clients:
            self.host.inhibit.add(self)
        else:
            self.host.inhibit.discard(self)


class ServerObject(types.Server):
    """A server as calls name it."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.server = name, server


class ClientObject(types.AdminClient):
    """A client as calls name it."""

    def __init__(self, srv: ServerObject, client: Client) -> None:
        self.srv, self.client = srv, client
        self.id, self.timestamp = client.number, client.connected_at
        self.transport = int(_transport(client))


OPENING = ("connect_open", "connect_close", "connect_get_lib_version")


class Admin(AdminPart):
    """The procedures of virt-admin."""

    def __init__(self, driver: "AdminDriver") -> None:
        self.admin = driver.server

    # --- the connection and the daemon -----------------------------------------------------------------------

    @accepts(0)
    def connect_open(self, flags: int, caller: Caller) -> None:
        client = client_of(caller)
        if client.driver is not None:
            raise InternalError("connection already open", domain=From.RPC)
        client.driver = self.admin.driver
        client.handlers = self.admin.driver.handlers
        client.resolvers = dict.fromkeys(AdminDriver.objects, self.admin.driver)

    def connect_close(self, caller: Caller) -> None:
        client_of(caller).release()
        client_of(caller).reset()

    def connect_get_lib_version(self, caller: Caller) -> int:
        return LIB_VERSION

    @accepts(0)
    def connect_set_daemon_timeout(self, timeout: int, flags: int, caller: Caller) -> None:
        if timeout > TIMEOUT_MAX_S:
            raise InvalidArg(f"timeout must be at most {TIMEOUT_MAX_S}")
        main = self.admin.main
        if main.on_idle is not None:
            main.end_when_idle(timeout, main.on_idle)

    # --- servers ---------------------------------------------------------------------------------------------

    @accepts(0)
    def connect_list_servers(self, flags: int, caller: Caller) -> list[types.Server]:
        return [ServerObject(name, server) for name, server in self.admin.servers.items()]

    @accepts(0)
    def connect_lookup_server(self, name: str, flags: int, caller: Caller) -> types.Server:
        return self.admin.driver.server_named(name)

    @accepts(0)
    def server_get_threadpool_parameters(self, srv: types.Server, flags: int, caller: Caller) -> list[TypedParam]:
        pool = self.admin.pools[srv.name]
        clients = self.admin.servers[srv.name].clients
        busy = sum(client.in_flight for client in clients)
        workers = max(pool.minWorkers, busy)
        return [
            uint("minWorkers", pool.minWorkers),
            uint("maxWorkers", pool.maxWorkers),
            uint("nWorkers", workers),
            uint("freeWorkers", workers - busy),
            uint("prioWorkers", pool.prioWorkers),
            uint("jobQueueDepth", sum(client.waiting for client in clients)),
        ]

    @accepts(0)
    def server_set_threadpool_parameters(
        self, srv: types.Server, params: list[TypedParam], flags: int, caller: Caller
    ) -> None:
        wanted: dict[str, int] = checked(params, dict.fromkeys(POOL, Kind.UINT))
        pool = replace(self.admin.pools[srv.name], **wanted)
        if pool.minWorkers > pool.maxWorkers:
            raise InvalidArg("minWorkers cannot be larger than maxWorkers")
        self.admin.pools[srv.name] = pool

    @accepts(0)
    def server_get_client_limits(self, srv: types.Server, flags: int, caller: Caller) -> list[TypedParam]:
        server = self.admin.servers[srv.name]
        return [
            uint("nclients_max", server.max_clients),
            uint("nclients", len(server.clients)),
            uint("nclients_unauth_max", server.max_anonymous),
            uint("nclients_unauth", len(server.anonymous)),
        ]

    @accepts(0)
    def server_set_client_limits(self, srv: types.Server, params: list[TypedParam], flags: int, caller: Caller) -> None:
        server = self.admin.servers[srv.name]
        wanted: dict[str, int] = checked(params, dict.fromkeys(LIMITS, Kind.UINT))
        most = wanted.get("nclients_max", server.max_clients)
        unauthenticated = wanted.get("nclients_unauth_max", server.max_anonymous)
        if unauthenticated > most:
            raise InvalidArg(
                "The overall maximum number of clients waiting for authentication must not be less than the overall "
                "maximum number of clients"
            )
        server.set_limits(most, unauthenticated)

    @accepts(0)
    async def server_update_tls_files(self, srv: types.Server, flags: int, caller: Caller) -> None:
        server = self.admin.servers[srv.name]
        if server.tls is None:
            raise InternalError("no tls service found, unable to update tls files", domain=From.RPC)
        await server.reload_tls()

    # --- clients ---------------------------------------------------------------------------------------------

    @accepts(0)
    def server_list_clients(self, srv: types.Server, flags: int, caller: Caller) -> list[types.AdminClient]:
        server = self.admin.driver.server_named(srv.name)
        clients = sorted(server.server.clients, key=lambda client: client.number)
        return [ClientObject(server, client) for client in clients]

    @accepts(0)
    def server_lookup_client(self, srv: types.Server, id: int, flags: int, caller: Caller) -> types.AdminClient:
        return self.admin.driver.client_of(srv.name, id)

    @accepts(0)
    async def client_get_info(self, clnt: types.AdminClient, flags: int, caller: Caller) -> list[TypedParam]:
        client = self.admin.driver.client_of(clnt.srv.name, clnt.id).client
        identity = await in_thread(_with_names, client.identity)
        found: Iterable[tuple[Callable[[str, Any], TypedParam], str, object]] = (
            (param_boolean, "readonly", client.read_only),
            (param_string, "sock_addr", identity.address or None),
            (param_string, "sasl_user_name", identity.sasl_user_name or None),
            (param_string, "tls_x509_dname", identity.x509_dname or None),
            (param_int, "unix_user_id", identity.uid),
            (param_string, "unix_user_name", identity.user_name or None),
            (param_int, "unix_group_id", identity.gid),
            (param_string, "unix_group_name", identity.group_name or None),
            (param_int, "unix_process_id", identity.pid),
            (param_string, "selinux_context", identity.selinux_context or None),
        )
        return [make(name, value) for make, name, value in found if value is not None]

    @accepts(0)
    def client_close(self, clnt: types.AdminClient, flags: int, caller: Caller) -> None:
        client = self.admin.driver.client_of(clnt.srv.name, clnt.id).client
        if client is caller:
            client.end()  # once this call is answered
        else:
            client.transport.close()

    # --- logging ---------------------------------------------------------------------------------------------

    @accepts(0)
    def connect_get_logging_outputs(self, flags: int, caller: Caller) -> AdminConnectGetLoggingOutputsReply:
        return AdminConnectGetLoggingOutputsReply(format_outputs(logs.outputs), len(logs.outputs))

    @accepts(0)
    def connect_get_logging_filters(self, flags: int, caller: Caller) -> AdminConnectGetLoggingFiltersReply:
        return AdminConnectGetLoggingFiltersReply(format_filters(logs.filters) or None, len(logs.filters))

    @accepts(0)
    async def connect_set_logging_outputs(self, outputs: str | None, flags: int, caller: Caller) -> None:
        await in_thread(logs.set_outputs, outputs or "")

    @accepts(0)
    def connect_set_logging_filters(self, filters: str | None, flags: int, caller: Caller) -> None:
        logs.set_filters(filters or "")


class AdminDriver(Driver):
    """Answers the admin program."""

    name = "admin"
    parts: ClassVar[tuple[type[Part], ...]] = (Admin,)
    objects: ClassVar[tuple[type, ...]] = (ServerRef, AdminClientRef)
    error_domain = From.ADMIN

    def __init__(self, host: Host, server: AdminServer) -> None:
        self.server = server
        super().__init__(host)

    def function_name(self, procedure: Any) -> str:
        return f"adm{procedure.api}"

    def resolve(self, ref: Any) -> Any:
        if isinstance(ref, ServerRef):
            return self.server_named(ref.name)
        return self.client_of(ref.srv.name, ref.id)

    def server_named(self, name: str) -> ServerObject:
        """Raises NoServer."""
        server = self.server.servers.get(name)
        if server is None:
            raise NoServer(f"No server named '{name}'", domain=From.RPC)
        return ServerObject(name, server)

    def client_of(self, server: str, number: int) -> ClientObject:
        """Raises NoServer and NoClient."""
        srv = self.server_named(server)
        for client in srv.server.clients:
            if client.number == number:
                return ClientObject(srv, client)
        raise NoClient(f"No client with matching ID '{number}'", domain=From.RPC)


def _with_names(identity: Identity) -> Identity:
    """With the names of the peer's user and group, which a name service may take its time to tell."""
    user, group = identity.user_name, identity.group_name
    with suppress(KeyError):
        user = user or ("" if identity.uid is None else pwd.getpwuid(identity.uid).pw_name)
    with suppress(KeyError):
        group = group or ("" if identity.gid is None else grp.getgrgid(identity.gid).gr_name)
    return replace(identity, user_name=user, group_name=group)


def _transport(client: Client) -> ClientTransport:
    """How a client is connected; who has no address came over a unix socket."""
    if not client.identity.address:
        return ClientTransport.UNIX
    return ClientTransport.TLS if client.identity.x509_dname else ClientTransport.TCP
