"""The daemon's log: libvirt's levels, filters and outputs, over Python's logging. https://libvirt.org/logging.html

Loggers are Python's, named after their modules; a filter's match is looked for in that name without "pyvirtd.".
A record is only queued where it arises: a thread writes it, so that no slow disk or terminal holds up the loop.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pyvirtd.errors import VirtError
from pyvirtd.log.records import ENTRY, JOURNAL_ONLY, ObjectLogger, adapter, category, prepare
from pyvirtd.log.syntax import (
    DEFAULT_LEVEL,
    LEVEL_WORDS,
    LEVELS,
    LogFilter,
    LogOutput,
    format_filters,
    format_outputs,
    parse_filters,
    parse_level,
    parse_outputs,
)
from pyvirtd.log.writers import WRITERS, Writer, Writing

__all__ = [
    "ENTRY",
    "LogFilter",
    "LogOutput",
    "Logs",
    "ObjectLogger",
    "adapter",
    "close",
    "format_filters",
    "format_outputs",
    "logs",
    "parse_filters",
    "parse_level",
    "parse_outputs",
    "setup",
]

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")


class _QueueingHandler(logging.Handler):
    """The only handler of the root logger: lets through what the filters want, and queues it."""

    def __init__(self, logs: "Logs") -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < LEVELS[self._logs.level_of(record.name)]:
            if not getattr(record, ENTRY, False):
                return
            setattr(record, JOURNAL_ONLY, True)
        try:
            self._logs.writing.put(prepare(record))
        except Exception:  # a message that does not fit its arguments must not stop the caller
            self.handleError(record)


class LogSettings(Protocol):
    """What is read of the daemon's configuration."""

    @property
    def log_level(self) -> int: ...
    @property
    def log_filters(self) -> str: ...
    @property
    def log_outputs(self) -> str: ...


class LogPaths(Protocol):
    """What is read of the daemon's paths."""

    @property
    def log_file(self) -> Path: ...


class Logs:
    """The logging of a process: level, filters and outputs, each replaceable while it runs."""

    def __init__(self) -> None:
        self.level = DEFAULT_LEVEL
        self.filters: tuple[LogFilter, ...] = ()
        self.default_outputs: tuple[LogOutput, ...] = (LogOutput(DEFAULT_LEVEL, "stderr"),)
        self.writing = Writing()
        self._levels: dict[str, int] = {}
        self._handler = _QueueingHandler(self)

    @property
    def outputs(self) -> tuple[LogOutput, ...]:
        return tuple(output for output, _ in self.writing.outputs)

    def level_of(self, name: str) -> int:
        """The level from which on a logger's records are logged: the first filter's that applies, else the default."""
        if (found := self._levels.get(name)) is None:
            fits = (one.level for one in self.filters if one.applies(category(name)))
            found = self._levels[name] = next(fits, self.level)
        return found

    def attach(self) -> None:
        """Take the records of all loggers."""
        logging.getLogger().addHandler(self._handler)
        self._apply()

    def set_filters(self, text: str) -> None:
        """Replace all filters; none when the text is empty. Raises InvalidArg and changes nothing then."""
        self.filters = parse_filters(text)
        self._apply()

    def set_outputs(self, text: str) -> None:
        """Replace all outputs; the default ones when the text is empty. Raises VirtError and changes nothing then."""
        wanted = parse_outputs(text) or self.default_outputs
        opened: list[tuple[LogOutput, Writer]] = []
        try:
            for output in wanted:
                opened.append((output, WRITERS[output.kind](output.target)))
        except VirtError:
            for _, writer in opened:
                writer.close()
            raise
        old, self.writing.outputs = self.writing.outputs, tuple(opened)
        self.writing.flush()
        for _, writer in old:
            writer.close()

    def close(self) -> None:
        """Write what is queued, close the outputs and let go of the root logger."""
        self.writing.flush()
        outputs, self.writing.outputs = self.writing.outputs, ()
        for _, writer in outputs:
            writer.close()
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(logging.WARNING)
        for logger in _loggers():
            logger.setLevel(logging.NOTSET)

    def _apply(self) -> None:
        """Let loggers refuse early what nobody wants; those that come later are refused by the handler."""
        self._levels = {}
        lowest = min((self.level, *(one.level for one in self.filters)))
        logging.getLogger().setLevel(LEVELS[lowest])
        for logger in _loggers():
            logger.setLevel(LEVELS[self.level_of(logger.name)])


def _loggers() -> list[logging.Logger]:
    return [one for one in logging.getLogger().manager.loggerDict.values() if isinstance(one, logging.Logger)]


logs = Logs()
os.register_at_fork(before=lambda: logs.writing.flush(), after_in_child=lambda: logs.writing.after_fork())


def setup(
    config: LogSettings,
    paths: LogPaths,
    *,
    verbose: bool = False,
    foreground: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Log as the environment, the options and the configuration say, in this order. Raises VirtError.

    Without outputs: the journal unless this is somebody's terminal, else stderr or, in the background, a file.
    """
    level = parse_level(config.log_level)
    if verbose:
        level = min(level, LEVEL_WORDS["info"])
    word = environ.get("LIBVIRT_DEBUG", "")
    level = LEVEL_WORDS.get(word, int(word) if word in ("1", "2", "3", "4") else level)
    logs.level = level
    logs.default_outputs = (_default_output(level, paths, foreground=foreground),)
    logs.filters = parse_filters(environ.get("LIBVIRT_LOG_FILTERS") or config.log_filters)
    logs.set_outputs(environ.get("LIBVIRT_LOG_OUTPUTS") or config.log_outputs)
    logs.attach()


def close() -> None:
    """End the logging that setup() began."""
    logs.close()


def _default_output(level: int, paths: LogPaths, *, foreground: bool) -> LogOutput:
    terminal = foreground and os.isatty(0)
    if not terminal and os.access(JOURNAL_SOCKET, os.W_OK):
        return LogOutput(level, "journald")
    return LogOutput(level, "stderr") if foreground else LogOutput(level, "file", str(paths.log_file))
