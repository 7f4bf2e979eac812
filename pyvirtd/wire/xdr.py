"""XDR (RFC 4506) codecs compiled from type annotations.

A wire type is a Python annotation: the aliases below for scalars, `Annotated[str, Text(n)]`,
`Annotated[list[T], Max(n)]`, `T | None` for optional data, a NamedTuple for a struct. A class with a `wire_type`
attribute stands on the wire as that type; encoding reads the fields from the object itself. A struct that is sent by
the thousand may bring a faster encoder of its own, `encode_fast`. `codec()` turns a list of
named types into two functions, generated and compiled once. Every count is checked against its limit and against the
bytes that are left before anything is allocated; bytes left over are an error.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pyvirtd.errors import RpcError


class XdrError(RpcError):
    """Bytes that are not what the type says, or a value that does not fit the type."""


@dataclass(frozen=True, slots=True)
class Fmt:
    """A scalar; `code` is its struct letter."""

    code: str


@dataclass(frozen=True, slots=True)
class Text:
    """A string of at most `limit` bytes of UTF-8 without NUL."""

    limit: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """Variable-length bytes, at most `limit`."""

    limit: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """Exactly `size` bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Chars:
    """Bytes that travel as one 32-bit word each: `char name[limit]` where `fixed`, else `char name<limit>`."""

    limit: int
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Max:
    """Limit of a list's length."""

    limit: int


@dataclass(frozen=True, slots=True)
class Cases:
    """A union: the value is a pair (discriminator, value)."""

    arms: tuple[tuple[int, Any], ...]


Int = Annotated[int, Fmt("i")]
UInt = Annotated[int, Fmt("I")]
Hyper = Annotated[int, Fmt("q")]
UHyper = Annotated[int, Fmt("Q")]
Double = Annotated[float, Fmt("d")]

STRING_MAX = 4194304  # protocol: REMOTE_STRING_MAX
Str = Annotated[str, Text(STRING_MAX)]
Uuid = Annotated[bytes, Fixed(16)]  # RFC 4122 order

Encode = Callable[..., bytes]
Decode = Callable[[memoryview, int], tuple[Any, ...]]
Kind = Fmt | Text | Opaque | Fixed | Chars | Cases


@dataclass(frozen=True, slots=True)
class Optional_:
    item: "Type"


@dataclass(frozen=True, slots=True)
class List:
    item: "Type"
    limit: int


@dataclass(frozen=True, slots=True)
class Struct:
    cls: type
    fields: tuple[tuple[str, "Type"], ...]


Type = Kind | Optional_ | List | Struct

_structs: dict[type, Struct] = {}


def describe(annotation: Any) -> Type:
    """The wire type of an annotation. Raises TypeError for one that has none."""
    origin = get_origin(annotation)
    if isinstance(annotation, TypeVar):
        return describe(annotation.__bound__)
    if origin is Annotated:
        base, *marks = get_args(annotation)
        for mark in marks:
            if isinstance(mark, Max):
                return List(describe(get_args(base)[0]), mark.limit)
            if isinstance(mark, Fmt | Text | Opaque | Fixed | Chars | Cases):
                return mark
        return describe(base)
    if origin in (Union, UnionType):
        items = [item for item in get_args(annotation) if item is not NoneType]
        if len(items) == 1:
            return Optional_(describe(items[0]))
    if isinstance(annotation, type):
        if issubclass(annotation, int) and annotation not in (int, bool):
            return Fmt("I")  # an IntFlag of the API
        wire = getattr(annotation, "wire_type", annotation)
        if wire not in _structs and hasattr(wire, "_fields"):
            hints = get_type_hints(wire, include_extras=True)
            _structs[wire] = Struct(wire, tuple((name, describe(hints[name])) for name in wire._fields))
        if wire in _structs:
            return _structs[wire]
    raise TypeError(f"{annotation!r} has no wire type")


def _fixed_format(kind: Type) -> str | None:
    """struct letters of a type of constant size and plain values, else None."""
    if isinstance(kind, Fmt):
        return kind.code
    if isinstance(kind, Fixed) and kind.size % 4 == 0:
        return f"{kind.size}s"
    return None


class _Source:
    """Lines of one generated function with the constants that they name."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "XdrError": XdrError,
            "word": struct.Struct(">I"),
            "raw": _raw,
            "count": _count,
            "chars": _chars,
            "put_chars": _put_chars,
            "bad_text": _bad_text,
            "check_size": _check_size,
            "bad_size": _bad_size,
        }
        self.serial = 0

    def name(self, value: Any) -> str:
        self.serial += 1
        key = f"k{self.serial}"
        self.names[key] = value
        return key

    def fresh(self) -> str:
        self.serial += 1
        return f"v{self.serial}"

    def add(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def build(self, name: str) -> Any:
        exec(compile("\n".join(self.lines), f"<xdr {name}>", "exec"), self.names)  # noqa: S102 - our own source
        return self.names[name]


def _count(data: memoryview, pos: int, limit: int, least: int) -> int:
    """The length word at `pos`: at most `limit`, and no more items than bytes left at `least` bytes an item."""
    if pos + 4 > len(data):
        raise XdrError("message is too short")
    length = int.from_bytes(data[pos : pos + 4], "big")
    if length > limit:
        raise XdrError(f"length {length} is above the limit of {limit}")
    if length * least > len(data) - pos - 4:
        raise XdrError("message is too short")
    return length


def _raw(data: memoryview, pos: int, limit: int) -> tuple[bytes, int]:
    size = _count(data, pos, limit, 1)
    end = pos + 4 + size
    after = (end + 3) & ~3
    if after > len(data):
        raise XdrError("message is too short")
    return bytes(data[pos + 4 : end]), after


def _chars(data: memoryview, pos: int, kind: Chars) -> tuple[bytes, int]:
    if kind.fixed:
        size = kind.limit
        if pos + 4 * size > len(data):
            raise XdrError("message is too short")
    else:
        size = _count(data, pos, kind.limit, 4)
        pos += 4
    return bytes(data[pos + 3 : pos + 4 * size : 4]), pos + 4 * size


def _put_chars(out: list[bytes], value: bytes, kind: Chars) -> None:
    if kind.fixed:
        value = value[: kind.limit - 1].ljust(kind.limit, b"\0")
    else:
        _check_size(len(value), kind.limit)
        out.append(len(value).to_bytes(4, "big"))
    words = bytearray(4 * len(value))
    words[3::4] = value
    out.append(bytes(words))


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise XdrError(f"length {size} is above the limit of {limit}")


def _bad_size(size: int, limit: int) -> None:
    _check_size(size, limit)
    raise XdrError("message is too short")


def _bad_text(size: int, limit: int) -> None:
    _check_size(size, limit)
    raise XdrError("a string holds a NUL byte")


def _least(kind: Type) -> int:
    """Fewest bytes that a value of the type takes."""
    if isinstance(kind, Fmt):
        return max(4, struct.calcsize(">" + kind.code))
    if isinstance(kind, Fixed):
        return (kind.size + 3) & ~3
    if isinstance(kind, Struct):
        return sum(_least(item) for _, item in kind.fields)
    if isinstance(kind, Chars) and kind.fixed:
        return 4 * kind.limit
    return 4


def _runs(fields: Sequence[tuple[str, Type]]) -> list[list[tuple[str, Type]]]:
    """Fields in order, neighbours of constant size together in one run."""
    runs: list[list[tuple[str, Type]]] = []
    for field in fields:
        if runs and _fixed_format(field[1]) and _fixed_format(runs[-1][-1][1]):
            runs[-1].append(field)
        else:
            runs.append([field])
    return runs


# --- encoding ---------------------------------------------------------------------------------------------------


def _put(src: _Source, depth: int, expr: str, kind: Type) -> None:
    if isinstance(kind, Struct) and hasattr(kind.cls, "encode_fast"):
        src.add(depth, f"put({src.name(kind.cls.encode_fast)}({expr}))")
    elif isinstance(kind, Struct):
        fields = [(f"{expr}.{name}", item) for name, item in kind.fields]
        _put_fields(src, depth, fields)
    elif isinstance(kind, List):
        src.add(
            depth, f"if len({expr}) > {kind.limit}: raise XdrError(f'length {{len({expr})}} is above {kind.limit}')"
        )
        src.add(depth, f"put(word.pack(len({expr})))")
        code = _fixed_format(kind.item)
        if code and len(code) == 1:
            pack = src.name(struct.pack)
            src.add(depth, f"put({pack}(f'>{{len({expr})}}{code}', *{expr}))")
        else:
            item = src.fresh()
            src.add(depth, f"for {item} in {expr}:")
            _put(src, depth + 1, item, kind.item)
    elif isinstance(kind, Optional_):
        value = src.fresh()
        src.add(depth, f"{value} = {expr}")
        src.add(depth, f"if {value} is None: put(b'\\0\\0\\0\\0')")
        src.add(depth, "else:")
        src.add(depth + 1, "put(b'\\0\\0\\0\\1')")
        _put(src, depth + 1, value, kind.item)
    elif isinstance(kind, Cases):
        tag, value = src.fresh(), src.fresh()
        src.add(depth, f"{tag}, {value} = {expr}")
        src.add(depth, f"put(word.pack({tag}))")
        for i, (number, annotation) in enumerate(kind.arms):
            src.add(depth, f"{'if' if i == 0 else 'elif'} {tag} == {number}:")
            _put(src, depth + 1, value, describe(annotation))
        src.add(depth, f"else: raise XdrError(f'no such union arm {{{tag}}}')")
    elif isinstance(kind, Chars):
        src.add(depth, f"put_chars(out, {expr}, {src.name(kind)})")
    elif isinstance(kind, Text | Opaque | Fixed):
        _put_bytes(src, depth, expr, kind)
    else:
        src.add(depth, f"put({src.name(struct.Struct('>' + kind.code).pack)}({expr}))")


def _put_bytes(src: _Source, depth: int, expr: str, kind: Text | Opaque | Fixed) -> None:
    value = src.fresh()
    if isinstance(kind, Fixed):
        src.add(depth, f"{value} = {expr}")
        src.add(depth, f"if len({value}) != {kind.size}: raise XdrError('wrong length')")
        src.add(depth, f"put({value})")
        if pad := -kind.size % 4:
            src.add(depth, f"put({bytes(pad)!r})")
        return
    src.add(depth, f"{value} = {expr}.encode()" if isinstance(kind, Text) else f"{value} = {expr}")
    bad = f"len({value}) > {kind.limit}" + (f" or b'\\0' in {value}" if isinstance(kind, Text) else "")
    src.add(depth, f"if {bad}: bad_text(len({value}), {kind.limit})")
    src.add(depth, f"put(word.pack(len({value}))); put({value})")
    src.add(depth, f"if len({value}) & 3: put(b'\\0\\0\\0'[:-len({value}) & 3])")


def _put_fields(src: _Source, depth: int, fields: Sequence[tuple[str, Type]]) -> None:
    for run in _runs(fields):
        if not _fixed_format(run[0][1]):
            _put(src, depth, *run[0])
            continue
        layout = struct.Struct(">" + "".join(_fixed_format(kind) or "" for _, kind in run))
        src.add(depth, f"put({src.name(layout.pack)}({', '.join(expr for expr, _ in run)}))")


# --- decoding ---------------------------------------------------------------------------------------------------


def _get(src: _Source, depth: int, target: str, kind: Type) -> None:
    """Lines that read one value at `pos` into `target` and move `pos`."""
    if isinstance(kind, Struct):
        names = _get_fields(src, depth, kind.fields)
        src.add(depth, f"{target} = {src.name(kind.cls)}({', '.join(names)})")
    elif isinstance(kind, List):
        size, item = src.fresh(), src.fresh()
        src.add(depth, f"{size} = count(data, pos, {kind.limit}, {_least(kind.item)}); pos += 4")
        src.add(depth, f"{target} = []")
        src.add(depth, f"for _ in range({size}):")
        _get(src, depth + 1, item, kind.item)
        src.add(depth + 1, f"{target}.append({item})")
    elif isinstance(kind, Optional_):
        src.add(depth, "if word.unpack_from(data, pos)[0]:")
        src.add(depth + 1, "pos += 4")
        _get(src, depth + 1, target, kind.item)
        src.add(depth, f"else: pos += 4; {target} = None")
    elif isinstance(kind, Cases):
        tag, value = src.fresh(), src.fresh()
        src.add(depth, f"{tag} = word.unpack_from(data, pos)[0]; pos += 4")
        for i, (number, annotation) in enumerate(kind.arms):
            src.add(depth, f"{'if' if i == 0 else 'elif'} {tag} == {number}:")
            _get(src, depth + 1, value, describe(annotation))
        src.add(depth, f"else: raise XdrError(f'no such union arm {{{tag}}}')")
        src.add(depth, f"{target} = ({tag}, {value})")
    elif isinstance(kind, Chars):
        src.add(depth, f"{target}, pos = chars(data, pos, {src.name(kind)})")
    elif isinstance(kind, Text):
        src.add(depth, "size = word.unpack_from(data, pos)[0]; end = pos + 4 + size")
        src.add(depth, f"if size > {kind.limit} or end > len(data): bad_size(size, {kind.limit})")
        src.add(depth, f"{target} = str(data[pos + 4:end], 'utf-8'); pos = end + 3 & -4")
        src.add(depth, f"if '\\0' in {target}: bad_text(0, 0)")
    elif isinstance(kind, Opaque):
        src.add(depth, f"{target}, pos = raw(data, pos, {kind.limit})")
    else:
        width = _least(kind)
        layout = struct.Struct(">" + (f"{kind.size}s{-kind.size % 4}x" if isinstance(kind, Fixed) else kind.code))
        src.add(depth, f"{target} = {src.name(layout.unpack_from)}(data, pos)[0]; pos += {width}")


def _get_fields(src: _Source, depth: int, fields: Sequence[tuple[str, Type]]) -> list[str]:
    targets: list[str] = []
    for run in _runs(fields):
        names = [src.fresh() for _ in run]
        targets += names
        if not _fixed_format(run[0][1]):
            _get(src, depth, names[0], run[0][1])
            continue
        layout = struct.Struct(">" + "".join(_fixed_format(kind) or "" for _, kind in run))
        src.add(depth, f"{', '.join(names)}, = {src.name(layout.unpack_from)}(data, pos); pos += {layout.size}")
    return targets


@dataclass(frozen=True, slots=True)
class Codec:
    """`encode(*values) -> bytes` and `decode(data, start) -> tuple` for one list of fields."""

    fields: tuple[tuple[str, Type], ...]
    encode: Encode
    _decode: Decode

    def decode(self, data: memoryview | bytes, start: int = 0) -> tuple[Any, ...]:
        """The values from `start` to the very end of `data`. Raises XdrError."""
        try:
            return self._decode(data, start)  # type: ignore[arg-type]
        except struct.error:
            raise XdrError("message is too short") from None
        except UnicodeDecodeError:
            raise XdrError("a string is not valid UTF-8") from None

    def encode_checked(self, *values: Any) -> bytes:
        """`encode` with XdrError in place of struct's error for a number out of range."""
        try:
            return self.encode(*values)
        except struct.error as exc:
            raise XdrError(f"value does not fit its wire type: {exc}") from exc


def codec(fields: Sequence[tuple[str, Any]]) -> Codec:
    """Compile the codec of (name, annotation) pairs."""
    kinds = tuple((name, describe(annotation)) for name, annotation in fields)
    src = _Source()
    args = [f"a{i}" for i in range(len(kinds))]
    src.add(0, f"def encode({', '.join(args)}):")
    src.add(1, "out = []; put = out.append")
    _put_fields(src, 1, [(arg, kind) for arg, (_, kind) in zip(args, kinds, strict=True)])
    src.add(1, "return b''.join(out)")
    encode = src.build("encode")
    src = _Source()
    src.add(0, "def decode(data, pos):")
    targets = _get_fields(src, 1, kinds)
    src.add(1, "if pos != len(data): raise XdrError('message is longer than its content')")
    src.add(1, f"return ({''.join(name + ', ' for name in targets)})")
    return Codec(kinds, encode, src.build("decode"))
