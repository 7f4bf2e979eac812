"""Log records: fields of their object, the line that libvirt would write, the journal's fields."""

import logging
import syslog
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from pyvirtd.errors import VirtError
from pyvirtd.log.syntax import LEVEL_WORDS, LEVELS

PACKAGE = "pyvirtd"
SYSLOG_NAME = "libvirtd"

# Attributes of records. An entry is for the journal whatever the levels are; one of JOURNAL_ONLY for nothing else.
ENTRY, JOURNAL_ONLY = "entry", "journal_only"

Fields = Mapping[str, object]


class ObjectLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for one object: its fields stand before each message, and in the journal under names of their own."""

    def __init__(self, logger: logging.Logger, fields: Fields) -> None:
        super().__init__(logger, {})
        self.fields = fields
        self._prefix = " ".join(f"{name}={value}" for name, value in fields.items()).replace("%", "%%")

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**kwargs.get("extra", {}), "fields": self.fields}
        return f"{self._prefix}: {msg}", kwargs


def adapter(logger: logging.Logger, **fields: object) -> ObjectLogger:
    """A logger whose messages begin with these fields: adapter(log, dom="web1") logs "dom=web1: started"."""
    return ObjectLogger(logger, fields)


def category(name: str) -> str:
    """What a filter's match is looked for in."""
    return name.removeprefix(f"{PACKAGE}.")


def format_record(record: logging.LogRecord) -> str:
    """One line as libvirt writes it; times are UTC. A prepared record's message holds its traceback."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created))
    word = next((name for name, level in LEVEL_WORDS.items() if record.levelno <= LEVELS[level]), "error")
    thread = getattr(record, "thread_id", record.process)
    where = f"{category(record.name)}:{record.funcName}:{record.lineno}"
    return f"{stamp}.{int(record.msecs):03d}+0000: {thread}: {word} : {where} : {record.getMessage()}\n"


def journal_fields(record: logging.LogRecord) -> dict[str, str]:
    """The journal's fields of a record, as libvirt names them, and the fields of its object."""
    error = getattr(record, "error", None)
    fields = {
        "PRIORITY": str(syslog_priority(record.levelno)),
        "SYSLOG_FACILITY": str(syslog.LOG_DAEMON >> 3),
        "SYSLOG_IDENTIFIER": SYSLOG_NAME,
        "LIBVIRT_SOURCE": "file" if error is None else "error",
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName,
    }
    if error is not None:
        fields |= {"LIBVIRT_DOMAIN": str(int(error.domain)), "LIBVIRT_CODE": str(int(error.code))}
    for name, value in getattr(record, "fields", {}).items():
        fields[f"{PACKAGE.upper()}_{name.upper()}"] = str(value)
    return fields


def syslog_priority(level: int) -> int:
    for limit, priority in ((logging.DEBUG, syslog.LOG_DEBUG), (logging.INFO, syslog.LOG_INFO)):
        if level <= limit:
            return priority
    return syslog.LOG_WARNING if level <= logging.WARNING else syslog.LOG_ERR


def prepare(record: logging.LogRecord) -> logging.LogRecord:
    """The record without references to anything that may change: message and traceback become text here."""
    text = record.getMessage()
    if record.exc_info:
        error = record.exc_info[1]
        if isinstance(error, VirtError):
            record.error = error
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    record.msg, record.args, record.exc_info = text, None, None
    record.thread_id = threading.get_native_id()
    return record
