"""What stands on the wire more than once: references to objects, the objects' base classes, shared structs.

A method's parameter or result typed with an object class (Domain, Network, ...) travels as the class's reference; the
dispatcher turns a reference from a client into the driver's live object, and encoding reads the reference's fields
from the object. Drivers derive their own object classes.
"""

import struct
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pyvirtd.api.limits import (
    CONNECT_GET_ALL_DOMAIN_STATS_MAX,
    CPUMAP_MAX,
    DOMAIN_FSINFO_DISKS_MAX,
    DOMAIN_IP_ADDR_MAX,
    SECURITY_DOI_MAX,
    SECURITY_LABEL_MAX,
    SECURITY_MODEL_MAX,
)
from pyvirtd.api.rpc import Injected
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.errors import VirtError
from pyvirtd.wire.xdr import Cases, Chars, Double, Hyper, Int, Max, Opaque, Str, UHyper, UInt, Uuid, XdrError, codec


class Caller(Injected):
    """The connection a call came through; the daemon provides it."""

    read_only: bool

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when the connection ends; returns what forgets the callback."""
        raise NotImplementedError

    def subscribe(
        self,
        driver: object,
        family: str,
        event_id: int,
        *,
        about: Any = None,
        pattern: Callable[[Any], bool] | None = None,
    ) -> int:
        """Send the caller a driver's events: of one object, and only bodies that `pattern` takes, where given.
        Returns the callback id. Raises InternalError for an event that there is not."""
        raise NotImplementedError

    def unsubscribe(self, family: str, callback_id: int) -> None:
        """End a subscription of the caller's own. Raises InternalError for a number that is none."""
        raise NotImplementedError


class Consent(Injected):
    """The access check of a call that names no object: its driver finds one on the way, and asks about that.

    The daemon provides it; this one is for whom no rules apply to, and allows everything. The method asks before it
    changes or tells anything, or the call fails.
    """

    async def to_document(self, xml: str) -> None:
        """The call is about the object that this document describes. Raises AccessDenied."""

    async def unfound(self, exc: VirtError) -> VirtError:
        """The error to raise in place of `exc`, which tells that there is no such object, or none to be known."""
        return exc


class Hole(NamedTuple):
    """A run of zeros in a stream, in bytes."""

    length: int


class Stream(Injected):
    """The byte stream bound to a call; the daemon provides it. The method hands it a pump, which outlives the call:

        stream.serve(self._copy(path, stream), reads=False)

    The pump's return ends the stream well and a VirtError aborts it. When the client aborts or goes, its reads and
    writes raise VirtError, and it is cancelled wherever else it waits.
    """

    def serve(self, pump: Coroutine[Any, Any, None], *, reads: bool) -> None:
        """Run what moves the bytes. With `reads` it reads what the client sends, to the end (None), and the client's
        finish is answered once it returns; without, a finish cancels it."""
        raise NotImplementedError

    async def read(self) -> bytes | Hole | None:
        """Next data or hole from the client; None at its end."""
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        """Send data; waits while the client is slow. Raises VirtError when the stream is over."""
        raise NotImplementedError

    async def write_hole(self, length: int) -> None:
        """Send a run of zeros, as a hole where the client asked for holes. Raises VirtError as `write` does."""
        raise NotImplementedError

    def send_eof(self) -> None:
        """No more data comes; a pump's return says so, too."""
        raise NotImplementedError

    def abort(self, error: VirtError) -> None:
        """End the stream with an error, from wherever."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether the stream is over."""
        raise NotImplementedError


class DomainRef(NamedTuple):
    name: Str
    uuid: Uuid
    id: Int


class NetworkRef(NamedTuple):
    name: Str
    uuid: Uuid


class NetworkPortRef(NamedTuple):
    net: NetworkRef
    uuid: Uuid


class NWFilterRef(NamedTuple):
    name: Str
    uuid: Uuid


class NWFilterBindingRef(NamedTuple):
    portdev: Str
    filtername: Str


class InterfaceRef(NamedTuple):
    name: Str
    mac: Str


class StoragePoolRef(NamedTuple):
    name: Str
    uuid: Uuid


class StorageVolRef(NamedTuple):
    pool: Str
    name: Str
    key: Str


class NodeDeviceRef(NamedTuple):
    name: Str


class SecretRef(NamedTuple):
    uuid: Uuid
    usage_type: Int
    usage_id: Str


class DomainCheckpointRef(NamedTuple):
    name: Str
    dom: DomainRef


class DomainSnapshotRef(NamedTuple):
    name: Str
    dom: DomainRef


class ServerRef(NamedTuple):
    name: Str


class AdminClientRef(NamedTuple):
    srv: ServerRef
    id: UHyper
    timestamp: Hyper
    transport: UInt


class Domain:
    """A guest; `id` is -1 while it does not run."""

    wire_type: ClassVar[type] = DomainRef
    access_class: ClassVar[str] = "domain"
    name: str
    uuid: bytes
    id: int


class Network:
    wire_type: ClassVar[type] = NetworkRef
    access_class: ClassVar[str] = "network"
    name: str
    uuid: bytes


class NetworkPort:
    wire_type: ClassVar[type] = NetworkPortRef
    access_class: ClassVar[str] = "network_port"
    net: Network
    uuid: bytes


class NWFilter:
    wire_type: ClassVar[type] = NWFilterRef
    access_class: ClassVar[str] = "nwfilter"
    name: str
    uuid: bytes


class NWFilterBinding:
    wire_type: ClassVar[type] = NWFilterBindingRef
    access_class: ClassVar[str] = "nwfilter_binding"
    portdev: str
    filtername: str


class Interface:
    wire_type: ClassVar[type] = InterfaceRef
    access_class: ClassVar[str] = "interface"
    name: str
    mac: str


class StoragePool:
    wire_type: ClassVar[type] = StoragePoolRef
    access_class: ClassVar[str] = "storage_pool"
    name: str
    uuid: bytes


class StorageVol:
    wire_type: ClassVar[type] = StorageVolRef
    access_class: ClassVar[str] = "storage_vol"
    pool: str
    name: str
    key: str


class NodeDevice:
    wire_type: ClassVar[type] = NodeDeviceRef
    access_class: ClassVar[str] = "node_device"
    name: str


class Secret:
    wire_type: ClassVar[type] = SecretRef
    access_class: ClassVar[str] = "secret"
    uuid: bytes
    usage_type: int
    usage_id: str


class DomainCheckpoint:
    wire_type: ClassVar[type] = DomainCheckpointRef
    access_class: ClassVar[str] = "domain"
    name: str
    dom: Domain


class DomainSnapshot:
    wire_type: ClassVar[type] = DomainSnapshotRef
    access_class: ClassVar[str] = "domain"
    name: str
    dom: Domain


class Server:
    wire_type: ClassVar[type] = ServerRef
    access_class: ClassVar[str] = "server"
    name: str


class AdminClient:
    wire_type: ClassVar[type] = AdminClientRef
    access_class: ClassVar[str] = "admin_client"
    srv: Server
    id: int
    timestamp: int
    transport: int


D = TypeVar("D", bound=Domain)

TypedValue = Annotated[
    tuple[int, Any],
    Cases(
        (
            (Kind.INT, Int),
            (Kind.UINT, UInt),
            (Kind.LLONG, Hyper),
            (Kind.ULLONG, UHyper),
            (Kind.DOUBLE, Double),
            (Kind.BOOLEAN, Int),
            (Kind.STRING, Str),
        )
    ),
]


class TypedParam(NamedTuple):
    """A named value of one of libvirt's parameter types: `value` is (Kind, value)."""

    field: Str
    value: TypedValue

    @staticmethod
    def encode_fast(param: "TypedParam") -> bytes:
        """The wire bytes; what leads a value is made once for each name and kind."""
        field, (kind, value) = param
        head = _HEADS.get((field, kind))
        if head is None:
            if len(_HEADS) >= _HEADS_MAX:
                _HEADS.clear()
            head = _HEADS[field, kind] = _FIELD_HEAD.encode_checked(field, int(kind))
        if kind == Kind.STRING:
            return head + _TEXT.encode(value)
        pack = _PACK.get(kind)
        if pack is None:
            raise XdrError(f"no such kind of parameter {kind}")
        return head + pack(value)


_HEADS: dict[tuple[str, int], bytes] = {}
_HEADS_MAX = 4096
_FIELD_HEAD = codec([("field", Str), ("kind", UInt)])
_TEXT = codec([("value", Str)])
_PACK: dict[int, Callable[[Any], bytes]] = {
    Kind.INT: struct.Struct(">i").pack,
    Kind.UINT: struct.Struct(">I").pack,
    Kind.LLONG: struct.Struct(">q").pack,
    Kind.ULLONG: struct.Struct(">Q").pack,
    Kind.DOUBLE: struct.Struct(">d").pack,
    Kind.BOOLEAN: struct.Struct(">i").pack,
}


def param_int(field: str, value: int) -> TypedParam:
    return TypedParam(field, (Kind.INT, value))


def param_uint(field: str, value: int) -> TypedParam:
    return TypedParam(field, (Kind.UINT, value))


def param_llong(field: str, value: int) -> TypedParam:
    return TypedParam(field, (Kind.LLONG, value))


def param_ullong(field: str, value: int) -> TypedParam:
    return TypedParam(field, (Kind.ULLONG, value))


def param_boolean(field: str, value: bool) -> TypedParam:
    return TypedParam(field, (Kind.BOOLEAN, int(value)))


def param_string(field: str, value: str) -> TypedParam:
    return TypedParam(field, (Kind.STRING, value))


class VcpuInfo(NamedTuple):
    number: UInt
    state: Int
    cpu_time: UHyper
    cpu: Int


class NodeCPUStat(NamedTuple):
    field: Str
    value: UHyper


class NodeMemoryStat(NamedTuple):
    field: Str
    value: UHyper


class DiskError(NamedTuple):
    disk: Str
    error: Int


class MemoryStat(NamedTuple):
    tag: Int
    val: UHyper


class IOThreadInfo(NamedTuple):
    iothread_id: UInt
    cpumap: Annotated[bytes, Opaque(CPUMAP_MAX)]


class GraphicsAddress(NamedTuple):
    family: Int
    node: Str
    service: Str


class GraphicsIdentity(NamedTuple):
    type: Str
    name: Str


class DHCPLease(NamedTuple):
    iface: Str
    expirytime: Hyper
    type: Int
    mac: Str | None
    iaid: Str | None
    ipaddr: Str
    prefix: UInt
    hostname: Str | None
    clientid: Str | None


class FSInfo(NamedTuple):
    mountpoint: Str
    name: Str
    fstype: Str
    dev_aliases: Annotated[list[Str], Max(DOMAIN_FSINFO_DISKS_MAX)]


class IPAddress(NamedTuple):
    type: Int
    addr: Str
    prefix: UInt


class DomainInterface(NamedTuple):
    name: Str
    hwaddr: Str | None
    addrs: Annotated[list[IPAddress], Max(DOMAIN_IP_ADDR_MAX)]


class SecurityLabel(NamedTuple):
    label: Annotated[bytes, Chars(SECURITY_LABEL_MAX)]
    enforcing: Int


class SecurityModel(NamedTuple):
    model: Annotated[bytes, Chars(SECURITY_MODEL_MAX)]
    doi: Annotated[bytes, Chars(SECURITY_DOI_MAX)]


class PreparedParams(list[TypedParam]):
    """Parameters that are sent more than once: their wire bytes are made once. Never changed after that."""

    _wire: bytes | None = None

    def wire(self) -> bytes:
        """The list as it stands on the wire."""
        if self._wire is None:
            self._wire = _STATS_PARAMS.encode_checked(self)
        return self._wire


class DomainStatsRecord(NamedTuple):
    dom: Domain
    params: Annotated[list[TypedParam], Max(CONNECT_GET_ALL_DOMAIN_STATS_MAX)]

    @staticmethod
    def encode_fast(record: "DomainStatsRecord") -> bytes:
        """The wire bytes; those of prepared parameters are at hand."""
        params = record.params
        tail = params.wire() if isinstance(params, PreparedParams) else _STATS_PARAMS.encode_checked(params)
        return _DOMAIN.encode_checked(record.dom) + tail


_DOMAIN = codec([("dom", Domain)])
_STATS_PARAMS = codec([("params", Annotated[list[TypedParam], Max(CONNECT_GET_ALL_DOMAIN_STATS_MAX)])])


class WireError(NamedTuple):
    code: Int
    domain: Int
    message: Str | None
    level: Int
    dom: Domain | None
    str1: Str | None
    str2: Str | None
    str3: Str | None
    int1: Int
    int2: Int
    net: Network | None
