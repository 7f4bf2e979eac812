"""The declarations of remote procedures and events, and what is derived from them.

A Part is a class of methods, each a procedure:

    class DomainPart(Part, Generic[D]):
        @rpc(14, "domain:read", When(XML.SECURE, "domain:read_secure"), ro=True)
        def domain_get_xml_desc(self, dom: D, flags: UInt) -> Answer[Str]: ...

The number, the permissions with their conditions, the read-only class and the stream direction stand in the
decorator; arguments and result in the signature. From that one declaration come the codec, the gates, the access
check, the answer for what no driver implements, the log line and docs/support.md. A driver implements a procedure by
overriding the method, as a plain function when it never waits; `@accepts(flags)` on the override states its flags.
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from types import UnionType
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import BadCall
from pyvirtd.wire.xdr import Codec, Int, Max, Str, UInt, codec

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Answer: TypeAlias = Union[T, Awaitable[T]]  # noqa: UP007 - mypy takes a generic alias only in this form


class Program(NamedTuple):
    """An RPC program; all have version 1."""

    name: str
    number: int


REMOTE = Program("remote", 0x20008086)
QEMU = Program("qemu", 0x20008087)
LXC = Program("lxc", 0x00068000)
ADMIN = Program("admin", 0x06900690)
KEEPALIVE = Program("keepalive", 0x6B656570)
VERSION = 1


class Direction(Enum):
    """Which way the bytes of a call's stream mostly go, seen from the client."""

    UPLOAD = "upload"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class Need:
    """A permission that a call needs: always, or under a condition on its arguments."""

    permission: str
    param: str = ""
    mask: int = 0
    clear: bool = False
    equals: bool = False

    def applies(self, arguments: "dict[str, Any]") -> bool:
        """Whether these arguments need the permission."""
        if not self.param:
            return True
        value = arguments[self.param]
        if self.equals:
            return bool(value == self.mask)
        return bool(value & self.mask) != self.clear


def When(mask: int, permission: str) -> Need:
    """Needed when any of these flags is set."""
    return Need(permission, "flags", int(mask))


def Unless(mask: int, permission: str) -> Need:
    """Needed when none of these flags is set."""
    return Need(permission, "flags", int(mask), clear=True)


def WhenIs(param: str, value: int, permission: str) -> Need:
    """Needed when the argument has this value."""
    return Need(permission, param, int(value), equals=True)


class Shape(Enum):
    """How a method's plain list stands on the wire; see the aliases below."""

    PLAIN = "plain"
    LISTED = "listed"
    COUNT = "count"
    NAMES = "names"
    IDS = "ids"
    SIZED = "sized"


@dataclass(frozen=True, slots=True)
class Shaped:
    """Marks a result whose wire form has a count, or that a count argument cuts.

    LISTED: `need_results` asks for items beside their number. COUNT: only the number. NAMES, IDS: at most `maxnames`
    names (uuids for secrets) or ids. SIZED: `nparams` 0 asks for the number, else at most so many are sent.
    """

    shape: Shape
    limit: int
    count: Any = UInt
    need: Any = Int
    max_name: str = "maxnames"
    first: bool = False  # the count argument leads the arguments instead of standing before the flags


class Files(list[int]):
    """Descriptors that came with a call. The method takes what it keeps with `take()`; the rest is closed after it."""

    wire_skip: ClassVar[bool] = True

    def take(self) -> list[int]:
        """All of them, now the caller's."""
        taken = list(self)
        self.clear()
        return taken


@dataclass(slots=True)
class WithFiles:
    """A result with descriptors; they are closed once sent."""

    value: Any
    files: list[int]


class Injected:
    """Base of parameter types that the dispatcher provides and that are not on the wire (Caller, Stream)."""


@dataclass(frozen=True, slots=True)
class _Declaration:
    number: int
    needs: tuple[Need, ...]
    list_filter: str | None
    read_only: bool
    ro_deny: Need | None
    stream: Direction | None
    sparse_flag: int
    before_auth: bool
    api: str | None


def rpc(
    number: int,
    *needs: str | Need,
    ro: bool = False,
    ro_deny: Need | None = None,
    list_filter: str | None = None,
    stream: Direction | None = None,
    sparse_flag: int = 0,
    before_auth: bool = False,
    api: str | None = None,
) -> Callable[[F], F]:
    """Declare a method as procedure `number`.

    needs: permissions "object:permission"; ro: a read-only client may call it, but not where `ro_deny` applies (its
    permission says what that would need);
    list_filter: permission that each listed object needs; api: libvirt's name where it does not follow from ours.
    """

    def declare(function: F) -> F:
        needed = tuple(Need(need) if isinstance(need, str) else need for need in needs)
        declaration = _Declaration(number, needed, list_filter, ro, ro_deny, stream, sparse_flag, before_auth, api)
        function.declaration = declaration  # type: ignore[attr-defined]
        return function

    return declare


def accepts(flags: int, *, function: str | None = None) -> Callable[[F], F]:
    """State the flags a driver's method accepts; any other bit is refused before it runs."""

    def mark(method: F) -> F:
        method.accepted_flags = int(flags)  # type: ignore[attr-defined]
        method.function_name = function  # type: ignore[attr-defined]
        return method

    return mark


# Words of libvirt's names that are not merely capitalised.
_WORDS = {
    "xml": "XML",
    "uuid": "UUID",
    "id": "ID",
    "cpu": "CPU",
    "os": "OS",
    "uri": "URI",
    "iothread": "IOThread",
    "ssh": "SSH",
    "fd": "FD",
    "sev": "SEV",
    "pm": "PM",
    "nmi": "NMI",
    "dhcp": "DHCP",
    "fsfreeze": "FSFreeze",
    "fsthaw": "FSThaw",
    "fstrim": "FSTrim",
    "fsinfo": "FSInfo",
    "nwfilter": "NWFilter",
    "nwfilters": "NWFilters",
    "scsi": "SCSI",
    "wwn": "WWN",
    "mac": "MAC",
    "iface": "Interface",
}


def api_name(name: str) -> str:
    """libvirt's name of a procedure without "vir": domain_get_xml_desc -> DomainGetXMLDesc."""
    return "".join(_WORDS.get(word, word.capitalize()) for word in name.split("_"))


class Procedure:
    """Everything known of one procedure."""

    def __init__(self, program: Program, part: "type[Part]", name: str, function: Callable[..., Any]) -> None:
        declared: _Declaration = function.declaration  # type: ignore[attr-defined]
        self.program = program
        self.part = part
        self.error_domain = part.error_domain
        self.name = name
        self.number = declared.number
        self.needs = declared.needs
        self.list_filter = declared.list_filter
        self.read_only = declared.read_only
        self.ro_deny = declared.ro_deny
        self.stream = declared.stream
        self.sparse_flag = declared.sparse_flag
        self.before_auth = declared.before_auth
        self.api = declared.api or api_name(name)
        hints = get_type_hints(function, include_extras=True)
        self.shaped = _shaped(hints["return"])
        params = [(p, hints[p]) for p in list(inspect.signature(function).parameters)[1:]]
        # Parameters in call order: None stands for one from the wire, a class for one that is provided.
        self.injected = tuple(
            hint if isinstance(hint, type) and issubclass(hint, Injected | Files) else None for _, hint in params
        )
        self.injects = any(self.injected)
        wire = [(p, hint) for (p, hint), given in zip(params, self.injected, strict=True) if given is None]
        self.wire_params = tuple(p for p, _ in wire)
        self.ref_params = tuple(i for i, (_, hint) in enumerate(wire) if _object_class(hint) is not None)
        self.flags_index = self.wire_params.index("flags") if "flags" in self.wire_params else -1
        self.args_hints = _args_on_wire(wire, self.shaped)
        # Where the count argument of a shaped result stands on the wire; -1 where there is none.
        self.wanted_index = next((i for i, (p, _) in enumerate(self.args_hints) if p not in self.wire_params), -1)
        self.reply_hints = _reply_on_wire(hints["return"], self.shaped)

    @cached_property
    def args(self) -> Codec:
        """Codec of the call's arguments, compiled on first use."""
        return codec(self.args_hints)

    @cached_property
    def reply(self) -> Codec:
        """Codec of the reply."""
        return codec(self.reply_hints)

    def __repr__(self) -> str:
        return f"<Procedure {self.program.name} {self.number} {self.name}>"


def _unwrap(annotation: Any) -> Any:
    """T of Answer[T]."""
    if get_origin(annotation) is not None:
        for item in get_args(annotation):
            if get_origin(item) is Awaitable:
                return get_args(item)[0]
    return annotation


def _shaped(result: Any) -> Shaped | None:
    inner = _unwrap(result)
    if get_origin(inner) is Annotated:
        return next((mark for mark in get_args(inner)[1:] if isinstance(mark, Shaped)), None)
    return None


def _object_class(hint: Any) -> type | None:
    """The object class of a parameter that refers to a live object, else None."""
    if isinstance(hint, TypeVar):
        hint = hint.__bound__
    if get_origin(hint) in (Union, UnionType):
        for item in get_args(hint):
            found = _object_class(item)
            if found is not None:
                return found
        return None
    return hint if isinstance(hint, type) and hasattr(hint, "wire_type") else None


def _args_on_wire(params: list[tuple[str, Any]], shaped: Shaped | None) -> list[tuple[str, Any]]:
    """The call's wire fields: the parameters, with the count argument of a shaped result before the flags."""
    extra: tuple[str, Any] | None = None
    if shaped is not None:
        extra = {
            Shape.LISTED: ("need_results", shaped.need),
            Shape.NAMES: (shaped.max_name, Int),
            Shape.IDS: (shaped.max_name, Int),
            Shape.SIZED: ("nparams", Int),
        }.get(shaped.shape)
    if extra is None or shaped is None:
        return params
    at = 0 if shaped.first else next((i for i, (name, _) in enumerate(params) if name == "flags"), len(params))
    return [*params[:at], extra, *params[at:]]


def _reply_on_wire(result: Any, shaped: Shaped | None) -> list[tuple[str, Any]]:
    inner = _unwrap(result)
    if inner is None or inner is type(None):
        return []
    if shaped is None:
        return [("result", inner)]
    item = get_args(get_args(inner)[0])[0]
    items = Annotated[list[item], Max(shaped.limit)]  # type: ignore[valid-type]
    return {
        Shape.LISTED: [("items", items), ("ret", shaped.count)],
        Shape.COUNT: [("num", Int)],
        Shape.NAMES: [("names", Annotated[list[Str], Max(shaped.limit)])],
        Shape.IDS: [("ids", Annotated[list[Int], Max(shaped.limit)])],
        Shape.SIZED: [("params", items), ("nparams", Int)],
    }[shaped.shape]


PROCEDURES: dict[tuple[int, int], Procedure] = {}  # by (program number, procedure number)


class Part:
    """A family of procedures. A subclass with `program` in its class line declares; its subclasses implement."""

    procedures: ClassVar[dict[str, Procedure]] = {}
    error_domain: ClassVar[From] = From.NONE  # of errors that arise before a driver is asked

    def __init_subclass__(cls, program: Program | None = None, error_domain: From = From.NONE, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if program is None:
            return
        cls.procedures = {}
        cls.error_domain = error_domain
        for name, function in list(vars(cls).items()):
            if hasattr(function, "declaration"):
                procedure = Procedure(program, cls, name, function)
                key = (program.number, procedure.number)
                assert key not in PROCEDURES, f"{procedure} declared twice"
                PROCEDURES[key] = procedure
                cls.procedures[name] = procedure

    @classmethod
    def implements(cls, procedure: Procedure) -> bool:
        """Whether this class overrides the procedure's declaration."""
        declared = procedure.part.__dict__[procedure.name]
        return getattr(cls, procedure.name, declared) is not declared


@dataclass(frozen=True, slots=True)
class EventMessage:
    """How one kind of event travels: see pyvirtd.api.events."""

    program: Program
    number: int
    family: str
    id: int | None
    legacy: int | None
    lead_words: int
    body: Codec

    @property
    def permission(self) -> str:
        """What a client needs of the event's object to be told."""
        return "domain:getattr" if self.family == "qemu_monitor" else f"{self.family}:getattr"


EVENTS: dict[type, EventMessage] = {}
E = TypeVar("E", bound=type)


def event(
    number: int,
    family: str,
    id: int | None,
    *,
    legacy: int | None = None,
    lead_words: int = 0,
    program: Program = REMOTE,
) -> Callable[[E], E]:
    """Declare a NamedTuple as the body of event message `number`.

    `lead_words`: zero words that stand between the callback id and the body.
    """

    def declare(cls: E) -> E:
        hints = get_type_hints(cls, include_extras=True)
        body = codec([(name, hints[name]) for name in cls._fields])  # type: ignore[attr-defined]
        EVENTS[cls] = EventMessage(program, number, family, id, legacy, lead_words, body)
        return cls

    return declare


def check_flags(flags: int, accepted: int, function: str) -> None:
    """Refuse bits that are not accepted, in libvirt's words. Raises BadCall."""
    if flags & ~accepted:
        text = f"unsupported flags (0x{flags & ~accepted:x}) in function {function}"
        raise BadCall(text, domain=From.NONE, int1=0, int2=0)
