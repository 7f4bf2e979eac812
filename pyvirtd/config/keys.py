"""How keys of a configuration file are declared, read and written: one field of a Settings class is one key.

    max_clients: int = unsigned(5000, "The most clients served at a time.")

gives the key's type, range, default, description and its place in the shipped, commented file. A key declared with
`effective=False` is read and checked, but nothing acts on it yet; Settings.warn_idle() says so once.
"""

import dataclasses
import logging
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from pyvirtd.config.syntax import Entry, Value, format_value, parse
from pyvirtd.errors import ConfSyntax, from_os_error

logger = logging.getLogger("pyvirtd.config")

MAX_FILE_BYTES = 10 * 1024 * 1024
UNLIMITED = 2**64 - 1
UINT_MAX = 2**32 - 1
INT_MAX = 2**31 - 1
DOC_WIDTH = 100


@dataclass(frozen=True)
class Kind:
    """A type of value: what a wrong one is told, a reader that raises ValueError, and a writer."""

    expects: str
    read: Callable[[Value], object]
    write: Callable[[Any], Value] = lambda value: cast("Value", value)


@dataclass(frozen=True)
class Key:
    """All that is declared of one key. `default` is None where it depends on the host or on other keys."""

    name: str
    kind: Kind
    default: object
    doc: str
    example: object
    section: str
    choices: tuple[str, ...]
    effective: bool

    def read(self, value: Value) -> object:
        """The typed value. Raises ValueError with what is wrong, naming the key."""
        try:
            found = self.kind.read(value)
        except TypeError:
            raise ValueError(f"expected {self.kind.expects} for '{self.name}' parameter") from None
        except ValueError as exc:
            raise ValueError(f"value for '{self.name}' parameter must be {exc}") from None
        if self.choices:
            for word in found if isinstance(found, tuple) else (found,):
                if word not in self.choices:
                    raise ValueError(f"{self.name}: unsupported value '{word}', not one of {', '.join(self.choices)}")
        return found

    def shown(self) -> str:
        """The value that the shipped file shows behind the comment sign: the default, else an example."""
        value = self.example if self.default is None or self.example is not None else self.default
        return format_value(self.kind.write(value))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of a file's settings: frozen dataclasses whose fields are made by the functions below.

    `given` names the keys that the file sets, `source` the file they were read from.
    """

    file_name: ClassVar[str]
    title: ClassVar[str]

    given: frozenset[str] = frozenset()
    source: str = ""

    @classmethod
    def keys(cls) -> dict[str, Key]:
        """The declared keys in the shipped file's order."""
        fields = dataclasses.fields(cast("Any", cls))
        return {f.name: dataclasses.replace(f.metadata["key"], name=f.name) for f in fields if f.metadata.get("key")}

    @classmethod
    def idle_keys(cls) -> tuple[str, ...]:
        """The keys that are accepted and do nothing yet."""
        return tuple(name for name, key in cls.keys().items() if not key.effective)

    @classmethod
    def load(cls, path: Path, *, missing_ok: bool = True) -> Self:
        """The settings of a file; all defaults where it is absent and may be. Raises ConfSyntax, SystemError_."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError as exc:
            if missing_ok:
                return cls()
            raise from_os_error(exc, f"Failed to open file '{path}'") from exc
        except OSError as exc:
            raise from_os_error(exc, f"Failed to open file '{path}'") from exc
        if len(data) > MAX_FILE_BYTES:
            raise ConfSyntax(f"{path}:1: the file is longer than {MAX_FILE_BYTES} bytes")
        return cls.parse(data.decode("utf-8", "surrogateescape"), str(path))

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """The settings of a file's text. Raises ConfSyntax naming file, line and key."""
        declared = cls.keys()
        entries = parse(text, name)
        values: dict[str, object] = {}
        for word, entry in entries.items():
            if word not in declared:
                raise ConfSyntax(f"{name}:{entry.line}: unknown key '{word}'")
            try:
                values[word] = declared[word].read(entry.value)
            except ValueError as exc:
                raise ConfSyntax(f"{name}:{entry.line}: {exc}") from None
        settings = cls(**cast("Any", values), given=frozenset(values), source=name)
        for word, wrong in settings.conflicts():
            raise ConfSyntax(f"{name}:{_line_of(entries, word)}: {word}: {wrong}")
        return settings

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Keys whose values do not go together, each with what is wrong."""
        yield from ()

    def warn_idle(self) -> None:
        """Say in the log, in one line, which keys of the file have no effect yet."""
        idle = [name for name in self.idle_keys() if name in self.given]
        if idle:
            logger.warning("%s: these settings have no effect yet: %s", self.source, ", ".join(idle))

    @classmethod
    def shipped_text(cls) -> str:
        """The commented file that is installed: every key with its description and its default."""
        intro = (
            "Every key is optional. A key that is commented out shows its default, or an example where the default "
            "depends on the host. The syntax is libvirt's: this file may be used by libvirtd, too."
        )
        lines = [f"# {cls.title}", "#", *_comment(intro)]
        for key in cls.keys().values():
            lines += [*_section_lines(key.section), "", *_key_lines(key)]
        return "\n".join(lines) + "\n"


def _line_of(entries: dict[str, Entry], word: str) -> int:
    return entries[word].line if word in entries else 1


def _section_lines(section: str) -> list[str]:
    return ["", "", "#" * DOC_WIDTH, f"# {section}", "#" * DOC_WIDTH] if section else []


def _key_lines(key: Key) -> list[str]:
    doc = key.doc
    if key.choices:
        doc += f" One of: {', '.join(key.choices)}."
    if key.example is not None and key.default is not None:
        doc += f" Default: {format_value(key.kind.write(key.default))}."
    if not key.effective:
        doc += " Accepted, but without effect in this version."
    return [*_comment(doc), f"#{key.name} = {key.shown()}"]


def _comment(words: str) -> list[str]:
    return textwrap.wrap(words, DOC_WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


# The declaring functions. Each returns a dataclass field, typed as the value it holds.


def _key(
    kind: Kind, default: object, doc: str, example: object, section: str, effective: bool, choices: tuple[str, ...] = ()
) -> Any:
    if default is None:
        assert example is not None, doc
    return field(default=default, metadata={"key": Key("", kind, default, doc, example, section, choices, effective)})


def flag(default: bool, doc: str, *, example: bool | None = None, section: str = "", effective: bool = True) -> bool:
    """A key that is 0 or 1."""
    return cast("bool", _key(BOOL, default, doc, example, section, effective))


def maybe_flag(doc: str, *, example: bool, section: str = "", effective: bool = True) -> bool | None:
    """A key that is 0 or 1, and whose default depends on other keys."""
    return cast("bool | None", _key(BOOL, None, doc, example, section, effective))


def unsigned(
    default: int,
    doc: str,
    *,
    low: int = 0,
    high: int = UINT_MAX,
    example: int | None = None,
    section: str = "",
    effective: bool = True,
) -> int:
    """A key that is a number of 32 bits without sign."""
    return cast("int", _key(_number("an unsigned integer", low, high), default, doc, example, section, effective))


def signed(default: int, doc: str, *, example: int | None = None, section: str = "", effective: bool = True) -> int:
    """A key that is a number of 32 bits with sign."""
    kind = _number("a signed integer", -INT_MAX - 1, INT_MAX)
    return cast("int", _key(kind, default, doc, example, section, effective))


def text(
    default: str,
    doc: str,
    *,
    choices: tuple[str, ...] = (),
    example: str | None = None,
    section: str = "",
    effective: bool = True,
) -> str:
    """A key that is a string."""
    return cast("str", _key(TEXT, default, doc, example, section, effective, choices))


def maybe_text(
    doc: str, *, example: str, choices: tuple[str, ...] = (), section: str = "", effective: bool = True
) -> str | None:
    """A key that is a string, and None when it is not set."""
    return cast("str | None", _key(TEXT, None, doc, example, section, effective, choices))


def mode(default: int, doc: str, *, section: str = "", effective: bool = True) -> int:
    """A key that is a string of octal digits: permissions."""
    return cast("int", _key(MODE, default, doc, None, section, effective))


def maybe_mode(doc: str, *, example: int, section: str = "", effective: bool = True) -> int | None:
    """Permissions whose default depends on other keys."""
    return cast("int | None", _key(MODE, None, doc, example, section, effective))


def words(
    default: tuple[str, ...],
    doc: str,
    *,
    or_text: bool = False,
    choices: tuple[str, ...] = (),
    example: tuple[str, ...] | None = None,
    section: str = "",
    effective: bool = True,
) -> tuple[str, ...]:
    """A key that is a list of strings (or a single string, where libvirt takes that as well)."""
    kind = WORDS_OR_TEXT if or_text else WORDS
    return cast("tuple[str, ...]", _key(kind, default, doc, example, section, effective, choices))


def maybe_words(
    doc: str,
    *,
    example: tuple[str, ...],
    or_text: bool = False,
    choices: tuple[str, ...] = (),
    section: str = "",
    effective: bool = True,
) -> tuple[str, ...] | None:
    """A list of strings, and None when it is not set (which is not the empty list)."""
    kind = WORDS_OR_TEXT if or_text else WORDS
    return cast("tuple[str, ...] | None", _key(kind, None, doc, example, section, effective, choices))


def core_size(default: int, doc: str, *, example: int | None = None, section: str = "", effective: bool = True) -> int:
    """A number of bytes, or the word "unlimited", which is UNLIMITED here."""
    return cast("int", _key(CORE_SIZE, default, doc, example, section, effective))


def obsolete(doc: str, *, example: str, section: str = "") -> str | None:
    """A key of older libvirt releases: any value is accepted, kept as it was written, and never acted on."""
    return cast("str | None", _key(ANYTHING, None, doc, example, section, effective=False))


def _read_bool(value: Value) -> bool:
    if not isinstance(value, int) or value < 0:
        raise TypeError
    if value > 1:
        raise ValueError("0 or 1")
    return bool(value)


def _read_text(value: Value) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_words(value: Value) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(map(_read_text, value))


def _read_words_or_text(value: Value) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else _read_words(value)


def _read_mode(value: Value) -> int:
    word = _read_text(value)
    if not word or set(word) - set("01234567") or int(word, 8) > 0o7777:
        raise ValueError("permissions in octal digits")
    return int(word, 8)


def _read_core_size(value: Value) -> int:
    if value == "unlimited":
        return UNLIMITED
    if isinstance(value, str):
        raise ValueError("a number of bytes or unlimited")
    if not isinstance(value, int) or value < 0:
        raise TypeError
    if value > UNLIMITED:
        raise ValueError(f"in range 0:{UNLIMITED}")
    return value


def _number(expects: str, low: int, high: int) -> Kind:
    type_low = 0 if low >= 0 else low

    def read(value: Value) -> int:
        if not isinstance(value, int) or (value < 0 and type_low == 0):
            raise TypeError
        if not low <= value <= high:
            raise ValueError(f"in range {low}:{high}")
        return value

    return Kind(expects, read)


BOOL = Kind("a bool", _read_bool, int)
TEXT = Kind("a string", _read_text)
MODE = Kind("a string", _read_mode, lambda value: f"{value:04o}")
WORDS = Kind("a string list", _read_words, list)
WORDS_OR_TEXT = Kind("a string or string list", _read_words_or_text, list)
CORE_SIZE = Kind("an unsigned integer", _read_core_size, lambda v: "unlimited" if v == UNLIMITED else v)
ANYTHING = Kind("a value", format_value, int)
