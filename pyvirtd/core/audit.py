"""The host's audit trail: records go to the kernel over the audit netlink, and into the log if so configured.

`audit_records` words them. https://libvirt.org/auditlog.html, linux: include/uapi/linux/audit.h, netlink(7).
"""

import logging
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from pyvirtd.errors import InternalError

log = logging.getLogger(__name__)

NEVER, REQUIRED = 0, 2  # of audit_level
NETLINK_AUDIT = 9
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 1, 4, 2
HEADER, ERROR = struct.Struct("=IHHII"), struct.Struct("=i")
TEXT_MAX = 8560  # the kernel's AUDIT_MESSAGE_TEXT_MAX
CAP_AUDIT_WRITE = 29
ANSWER_S = 5.0
UNKNOWN = "?"


class RecordType(IntEnum):
    CONTROL = 2500
    RESOURCE = 2501
    MACHINE_ID = 2502


class Record(NamedTuple):
    """`text`: the fields that say what happened, without those that every record ends with."""

    type: RecordType
    text: str
    success: bool = True


def encode(value: str) -> str:
    """A value that somebody else chose: in quotes, or in hexadecimal if it could be taken for other fields."""
    raw = value.encode("utf-8", "surrogateescape")
    if any(byte < 0x21 or byte > 0x7E or byte == ord('"') for byte in raw):
        return raw.hex().upper()
    return f'"{value}"'


def message(record: Record, program: str) -> bytes:
    """What the kernel is sent; `program` is the daemon's path. What does not fit is cut before the result."""
    result = "success" if record.success else "failed"
    end = f" exe={encode(program)} hostname=? addr=? terminal=? res={result}".encode()
    return record.text.encode()[: TEXT_MAX - len(end) - 1] + end + b"\0"


def packet(kind: int, number: int, payload: bytes) -> bytes:
    """A netlink message to the kernel that asks for an answer."""
    return HEADER.pack(HEADER.size + len(payload), kind, NLM_F_REQUEST | NLM_F_ACK, number, 0) + payload


class Audit:
    """Where records go. The kernel makes a sender wait while its queue is full, so a thread of our own sends them."""

    def __init__(self) -> None:
        self._logging = False
        self._socket: socket.socket | None = None
        self._number = 0
        self._program = os.path.abspath(sys.argv[0])
        self._sender = ThreadPoolExecutor(1, "audit")

    def open(self, level: int, *, logging: bool) -> None:
        """Begin, as audit_level and audit_logging say. Raises InternalError where auditing must be and is not."""
        self._logging = logging
        if level == NEVER:
            return
        try:
            if not _may_write():
                raise PermissionError("CAP_AUDIT_WRITE is missing")
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT)
            self._socket.settimeout(ANSWER_S)
        except OSError as exc:
            if level >= REQUIRED:
                raise InternalError(f"Unable to initialize audit layer: {exc}") from exc
            log.info("no audit records are sent: %s", exc)

    def send(self, records: Iterable[Record]) -> None:
        """Hand records over, in this order; returns at once."""
        for record in records:
            if self._logging:
                level = logging.INFO if record.success else logging.WARNING
                log.log(level, "success=%s %s", "yes" if record.success else "no", record.text)
            if self._socket is not None:
                self._sender.submit(self._send, self._socket, record)

    @contextmanager
    def outcome(self, record: Record) -> Iterator[None]:
        """Leave a record of what is done in here, and of whether that failed."""
        try:
            yield
        except BaseException:
            self.send([record._replace(success=False)])
            raise
        self.send([record])

    def close(self) -> None:
        """What was handed over is still sent."""
        if self._socket is not None:
            self._sender.submit(self._socket.close)
            self._socket = None
        self._sender.shutdown(wait=False)

    def _send(self, netlink: socket.socket, record: Record) -> None:
        self._number += 1
        try:
            netlink.send(packet(record.type, self._number, message(record, self._program)))
            _answer(netlink, self._number)
        except OSError as exc:
            log.warning("Failed to send audit message %s: %s", record.text, exc)


def _answer(netlink: socket.socket, number: int) -> None:
    """Wait for the kernel's word on a message. Raises OSError."""
    while True:
        data = netlink.recv(TEXT_MAX)
        _, kind, _, answered, _ = HEADER.unpack_from(data)
        if kind == NLMSG_ERROR and answered == number:
            (error,) = ERROR.unpack_from(data, HEADER.size)
            if error:
                raise OSError(-error, os.strerror(-error))
            return


def _may_write() -> bool:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_AUDIT_WRITE & 1)
    return False
