"""The syntax of libvirt's configuration files: text to entries with their lines. What the keys mean is elsewhere.

    key = "text" | 'text' | \"\"\"text over lines\"\"\" | number | [ "text", "text" ]     # comment

There are no escapes in strings, no comments inside lists, and ';' ends an entry as a line's end does.
"""

from dataclasses import dataclass
from typing import NoReturn

from pyvirtd.errors import ConfSyntax

Value = str | int | list["Value"]

BLANKS = " \t"
LINE_ENDS = "\r\n"
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
DIGITS = frozenset("0123456789")
NAME_CHARS = LETTERS | DIGITS | {"_"}
LONG_QUOTE = '"""'
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One key's value and the line on which the key stands."""

    value: Value
    line: int


def parse(text: str, name: str) -> dict[str, Entry]:
    """The entries of a file's text, the last of a repeated key. Raises ConfSyntax "NAME:LINE: what"."""
    return _Parser(text, name).entries()


def format_value(value: Value) -> str:
    """A value as it stands in a file, so that parse() gives it back."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[ " + ", ".join(map(format_value, value)) + " ]" if value else "[]"
    if not set(value) & {'"', "\n", "\r"}:
        return f'"{value}"'
    if not set(value) & {"'", "\n", "\r"}:
        return f"'{value}'"
    if LONG_QUOTE in value or value.endswith('"'):
        raise ValueError("no quotes fit around this text")
    return LONG_QUOTE + value + LONG_QUOTE


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.pos = 0
        self.line = 1

    def entries(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        self.skip_space()
        while self.pos < len(self.text):
            if self.here() == "#":
                self.skip_comment()
            else:
                line = self.line
                key = self.key()
                found[key] = Entry(self.assigned(), line)
            self.skip_space()
        return found

    def fail(self, what: str) -> NoReturn:
        raise ConfSyntax(f"{self.name}:{self.line}: {what}")

    def here(self) -> str:
        """The current character, "" at the end."""
        return self.text[self.pos : self.pos + 1]

    def skip_blanks(self) -> None:
        while self.here() and self.here() in BLANKS:
            self.pos += 1

    def skip_space(self) -> None:
        while (char := self.here()) and char in BLANKS + LINE_ENDS:
            self.pos += 1
            self.line += char == "\n"

    def skip_comment(self) -> None:
        while self.here() and self.here() not in LINE_ENDS:
            self.pos += 1

    def key(self) -> str:
        start = self.pos
        if self.here() not in LETTERS:
            self.fail("expecting a name")
        while self.here() in NAME_CHARS:
            self.pos += 1
        return self.text[start : self.pos]

    def assigned(self) -> Value:
        """The value after a key, up to the end of the entry."""
        self.skip_blanks()
        if self.here() != "=":
            self.fail("expecting an assignment")
        self.pos += 1
        self.skip_blanks()
        value = self.value(0)
        self.skip_blanks()
        if self.here() == "#":
            self.skip_comment()
        if self.here() and self.here() not in LINE_ENDS + ";":
            self.fail("expecting a separator")
        if self.here() == ";":
            self.pos += 1
        return value

    def value(self, depth: int) -> Value:
        char = self.here()
        if self.text.startswith(LONG_QUOTE, self.pos):
            return self.long_string()
        if char and char in "'\"":
            return self.string(char)
        if char == "[" and depth < MAX_DEPTH:
            return self.items(depth + 1)
        if char not in DIGITS | {"+", "-"}:
            self.fail("expecting a value")
        return self.number()

    def long_string(self) -> str:
        start = self.pos + len(LONG_QUOTE)
        end = self.text.find(LONG_QUOTE, start)
        if end < 0:
            self.fail("unterminated string")
        self.pos = end + len(LONG_QUOTE)
        found = self.text[start:end]
        self.line += found.count("\n")
        return found

    def string(self, quote: str) -> str:
        start = self.pos + 1
        self.pos = start
        while self.here() != quote:
            if not self.here() or self.here() in LINE_ENDS:
                self.fail("unterminated string")
            self.pos += 1
        self.pos += 1
        return self.text[start : self.pos - 1]

    def items(self, depth: int) -> list[Value]:
        found: list[Value] = []
        self.pos += 1
        self.skip_space()
        while self.here() != "]":
            found.append(self.value(depth))
            self.skip_space()
            if self.here() == ",":
                self.pos += 1
                self.skip_space()
            elif not self.here():
                self.fail("list is not closed with ]")
            elif self.here() != "]":
                self.fail("expecting a separator in list")
        self.pos += 1
        return found

    def number(self) -> int:
        start = self.pos
        if self.here() in "+-":
            self.pos += 1
        if self.here() not in DIGITS:
            self.fail("unterminated number")
        while self.here() in DIGITS:
            self.pos += 1
        return _integer(self.text[start : self.pos])


def _integer(digits: str) -> int:
    """The number, or one beyond every key's range where it is too long to convert cheaply."""
    return int(digits) if len(digits) <= 30 else int(digits[:30])
