"""Where log records go: open outputs, and the thread that writes to them."""

import io
import logging
import os
import socket
import sys
import syslog
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from queue import SimpleQueue
from typing import ClassVar, Protocol

from pyvirtd.errors import from_os_error
from pyvirtd.log.records import ENTRY, JOURNAL_ONLY, PACKAGE, format_record, journal_fields, syslog_priority
from pyvirtd.log.syntax import LEVELS, LogOutput

# Records that wait for the writing thread; further ones are counted and dropped.
QUEUE_MAX = 20_000
FLUSH_S = 5.0


class Writer(Protocol):
    """An open output. Used by the writing thread only."""

    def write(self, record: logging.LogRecord) -> None: ...

    def close(self) -> None: ...


class StreamWriter:
    """Lines to stderr or to a file."""

    def __init__(self, fd: int, *, owned: bool) -> None:
        self._file = io.FileIO(fd, "w", closefd=owned)
        self._begun = False

    @classmethod
    def stderr(cls, _target: str) -> "StreamWriter":
        return cls(2, owned=False)

    @classmethod
    def file(cls, target: str) -> "StreamWriter":
        try:
            fd = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
        except OSError as exc:
            raise from_os_error(exc, f"failed to open {target}") from exc
        return cls(fd, owned=True)

    def write(self, record: logging.LogRecord) -> None:
        text = format_record(record)
        if not self._begun:
            self._begun = True
            text = _opening(record) + text
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            data = data[self._file.write(data) or 0 :]

    def close(self) -> None:
        self._file.close()


class SyslogWriter:
    """Messages to the system's log by the C library, which drops them where there is none."""

    # The C library keeps one name for the process.
    _named: ClassVar[str | None] = None

    def __init__(self, target: str) -> None:
        self._target = target

    def write(self, record: logging.LogRecord) -> None:
        if SyslogWriter._named != self._target:
            syslog.openlog(self._target, syslog.LOG_PID, syslog.LOG_DAEMON)
            SyslogWriter._named = self._target
        text = record.getMessage().encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        syslog.syslog(syslog_priority(record.levelno), text)

    def close(self) -> None:
        """The connection is the process's."""


class JournalWriter:
    """Messages with fields to systemd's journal."""

    def __init__(self, _target: str) -> None:
        from systemd.journal import send  # only where it is wanted: sessions may do without

        self._send = send

    def write(self, record: logging.LogRecord) -> None:
        text = record.getMessage().encode("utf-8", "backslashreplace").decode()
        fields = journal_fields(record)
        self._send(text, CODE_LINE=int(fields.pop("CODE_LINE")), **fields)

    def close(self) -> None:
        """Nothing stays open."""


WRITERS: dict[str, Callable[[str], Writer]] = {
    "stderr": StreamWriter.stderr,
    "file": StreamWriter.file,
    "syslog": SyslogWriter,
    "journald": JournalWriter,
}


def _wants(output: LogOutput, record: logging.LogRecord) -> bool:
    if output.kind == "journald" and getattr(record, ENTRY, False):
        return True
    return record.levelno >= LEVELS[output.level] and not getattr(record, JOURNAL_ONLY, False)


def _opening(record: logging.LogRecord) -> str:
    """The lines with which an output begins."""
    try:
        ours = version(PACKAGE)
    except PackageNotFoundError:
        ours = "unknown"
    lines = (f"{PACKAGE} version: {ours}, python: {sys.version.split()[0]}", f"hostname: {socket.gethostname()}")
    head = format_record(record).split(": ", 2)
    return "".join(f"{head[0]}: {head[1]}: info : {line}\n" for line in lines)


class Writing:
    """The queue, and the thread that empties it into the outputs. Begun by the first record, and again after a fork."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[logging.LogRecord | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._dropped = 0
        self.outputs: tuple[tuple[LogOutput, Writer], ...] = ()

    def put(self, record: logging.LogRecord) -> None:
        if self._queue.qsize() >= QUEUE_MAX:
            self._dropped += 1
            return
        if self._dropped:
            record.msg = f"({self._dropped} messages before this one were lost) {record.msg}"
            self._dropped = 0
        self._queue.put(record)
        self._begin()

    def flush(self, timeout: float = FLUSH_S) -> None:
        """Wait until what was put before is written."""
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            self._queue.put(done)
            done.wait(timeout)

    def after_fork(self) -> None:
        self._queue = SimpleQueue()
        self._thread = None
        self._lock = threading.Lock()

    def _begin(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            for output, writer in self.outputs:
                if _wants(output, item):
                    self._write(writer, item)

    @staticmethod
    def _write(writer: Writer, record: logging.LogRecord) -> None:
        # There is nowhere to report a full disk or a closed terminal to; the other outputs still get the record.
        try:
            writer.write(record)
        except (OSError, ValueError):
            return
