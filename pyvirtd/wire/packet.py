"""Framing of the remote protocol, without I/O: bytes in, packets out; packets in, bytes out.

A frame is a 32-bit length (itself included), six 32-bit header words and the payload, all big-endian. A packet of a
`..._WITH_FDS` type starts its payload with a descriptor count; each descriptor follows the frame on one byte of its
own, which the framer takes from the stream.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

MESSAGE_MAX = 33554432  # protocol: VIR_NET_MESSAGE_MAX, the header included, the length word not
FRAME_MAX = MESSAGE_MAX + 4
HEADER = struct.Struct(">IIIiIII")  # length, program, version, procedure, type, serial, status
_WORD = struct.Struct(">I")
FDS_MAX = 32
STREAM_PAYLOAD_MAX = 262120  # protocol: VIR_NET_MESSAGE_LEGACY_PAYLOAD_MAX, what every peer accepts


class PacketType(IntEnum):
    CALL = 0
    REPLY = 1
    MESSAGE = 2
    STREAM = 3
    CALL_WITH_FDS = 4
    REPLY_WITH_FDS = 5
    STREAM_HOLE = 6


WITH_FDS = frozenset((4, 5))  # PacketType.CALL_WITH_FDS, REPLY_WITH_FDS; plain numbers compare faster


class Status(IntEnum):
    OK = 0
    ERROR = 1
    CONTINUE = 2


class FrameError(Exception):
    """The byte stream is broken: the connection can only be closed."""


class Packet(NamedTuple):
    """One message; `type` and `status` are as received and may be no member of their enums."""

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int
    payload: bytes
    fd_count: int = 0


class Framer:
    """Cuts a byte stream into packets of at most `limit` bytes. One that carries descriptors waits for their bytes."""

    def __init__(self, limit: int = FRAME_MAX) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._waiting: Packet | None = None

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    @property
    def wants_fds(self) -> bool:
        """Whether a packet waits for its descriptors."""
        return self._waiting is not None

    def feed(self, data: bytes) -> list[Packet]:
        """Packets completed by `data`. Raises FrameError for a length or descriptor count out of bounds."""
        if not self._buffer and self._waiting is None and len(data) >= HEADER.size:
            length, program, version, procedure, kind, serial, status = HEADER.unpack_from(data)
            if length == len(data) <= self.limit and kind not in WITH_FDS:  # one whole packet, as nearly always
                return [Packet(program, version, procedure, kind, serial, status, data[HEADER.size :])]
        self._buffer += data
        return self._cut()

    def _cut(self) -> list[Packet]:
        buffer = self._buffer
        packets: list[Packet] = []
        start = 0
        try:
            while True:
                waiting = self._waiting
                if waiting is not None:
                    if len(buffer) - start < waiting.fd_count:
                        return packets
                    start += waiting.fd_count
                    self._waiting = None
                    packets.append(waiting)
                if len(buffer) - start < 4:
                    return packets
                (length,) = _WORD.unpack_from(buffer, start)
                if not HEADER.size <= length <= self.limit:
                    raise FrameError(f"a frame of {length} bytes")
                if len(buffer) - start < length:
                    return packets
                packet = self._packet(buffer, start, length)
                start += length
                if packet.fd_count:
                    self._waiting = packet
                else:
                    packets.append(packet)
        finally:
            del buffer[:start]

    @staticmethod
    def _packet(buffer: bytearray, start: int, length: int) -> Packet:
        _, program, version, procedure, kind, serial, status = HEADER.unpack_from(buffer, start)
        body = start + HEADER.size
        count = 0
        if kind in WITH_FDS:
            if length < HEADER.size + 4:
                raise FrameError("no descriptor count")
            (count,) = _WORD.unpack_from(buffer, body)
            if count > FDS_MAX:
                raise FrameError(f"{count} descriptors")
            body += 4
        payload = bytes(memoryview(buffer)[body : start + length])
        return Packet(program, version, procedure, kind, serial, status, payload, count)


def frame(program: int, version: int, procedure: int, kind: int, serial: int, status: int, payload: bytes) -> bytes:
    """The bytes of one packet; for a `..._WITH_FDS` type the payload starts with the count (see `fd_count`)."""
    return HEADER.pack(HEADER.size + len(payload), program, version, procedure, kind, serial, status) + payload


def fd_count(count: int) -> bytes:
    """The word that leads the payload of a packet with descriptors."""
    return _WORD.pack(count)
