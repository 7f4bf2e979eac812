"""The syntax of log levels, filters and outputs, both ways. https://libvirt.org/logging.html"""

import fnmatch
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyvirtd.errors import InvalidArg

LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
DEFAULT_LEVEL = 3
LEVEL_WORDS = {"debug": 1, "info": 2, "warning": 3, "error": 4}
# Kinds of outputs, and whether they have a target.
KINDS = {"stderr": False, "journald": False, "syslog": True, "file": True}


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Records of loggers whose name holds the pattern are logged from this level on."""

    level: int
    match: str

    def __str__(self) -> str:
        return f"{self.level}:*{self.match}*"

    def applies(self, category: str) -> bool:
        return fnmatch.fnmatchcase(category, f"*{self.match}*")


@dataclass(frozen=True, slots=True)
class LogOutput:
    """A place that gets the records from this level on: stderr, journald, syslog with its name, file with its path."""

    level: int
    kind: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.level}:{self.kind}" + (f":{self.target}" if KINDS[self.kind] else "")


def parse_level(value: int) -> int:
    """A default level. Raises InvalidArg."""
    if value not in LEVELS:
        raise InvalidArg(f"Failed to set logging priority, argument '{value}' is invalid")
    return value


def parse_filters(text: str) -> tuple[LogFilter, ...]:
    """ "1:qemu 3:util.json": filters in the order in which they are tried. Raises InvalidArg."""
    return tuple(map(_parse_filter, text.split()))


def parse_outputs(text: str) -> tuple[LogOutput, ...]:
    """ "1:file:/p 3:syslog:id 2:stderr 1:journald". The last of outputs to one place counts. Raises InvalidArg."""
    found: dict[tuple[str, str], LogOutput] = {}
    for word in text.split():
        output = _parse_output(word)
        place = (output.kind, output.target)
        found.pop(place, None)
        found[place] = output
    return tuple(found.values())


def format_filters(filters: Iterable[LogFilter]) -> str:
    """The filters as an admin client is shown them, with libvirt's blank after each."""
    return "".join(f"{one} " for one in filters)


def format_outputs(outputs: Iterable[LogOutput]) -> str:
    """The outputs as an admin client is shown them."""
    return " ".join(map(str, outputs))


def _parse_filter(word: str) -> LogFilter:
    parts = word.split(":")
    if len(parts) < 2:
        raise InvalidArg(f"Malformed format for filter '{word}'")
    if parts[0] not in ("1", "2", "3", "4"):
        raise InvalidArg(f"Invalid priority '{parts[0]}' for filter '{word}'")
    match = parts[1].removeprefix("+")  # once asked for a stack trace with each record
    if not match:
        raise InvalidArg(f"Invalid match string '{match}'")
    return LogFilter(int(parts[0]), match)


def _parse_output(word: str) -> LogOutput:
    level, *rest = word.split(":", 2)
    if not rest:
        raise InvalidArg(f"Malformed format for log output '{word}'")
    if level not in ("1", "2", "3", "4"):
        raise InvalidArg(f"Invalid log priority '{level}' for log output '{word}'")
    kind = rest[0]
    if kind not in KINDS:
        raise InvalidArg(f"Invalid log destination '{kind}' for log output '{word}'")
    if (len(rest) > 1) != KINDS[kind]:
        raise InvalidArg(f"Log output '{word}' does not meet the format requirements for destination type '{kind}'")
    target = rest[1] if len(rest) > 1 else ""
    return LogOutput(int(level), kind, str(Path(target).absolute()) if kind == "file" else target)
