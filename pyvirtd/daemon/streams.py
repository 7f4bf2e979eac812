"""Byte streams bound to a call: data, holes, finish and abort both ways, with flow control.

The driver's side is `Stream` of pyvirtd.api.types. Towards the client a writer waits while the connection's queue is
long; from the client reading of the connection pauses while the driver is behind, and a stream whose driver takes
nothing for STALL_S seconds is aborted so that the connection goes on.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from pyvirtd.api.types import Hole, Stream
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.daemon.faults import client_error
from pyvirtd.errors import InternalError, OperationFailed, VirtError
from pyvirtd.wire.packet import STREAM_PAYLOAD_MAX, Packet, PacketType, Status, frame
from pyvirtd.wire.xdr import Hyper, UInt, XdrError, codec

if TYPE_CHECKING:
    from pyvirtd.daemon.client import Client

HOLE = codec([("length", Hyper), ("flags", UInt)])
OUT_HIGH = 1 << 20  # bytes queued towards the client above which a writer waits
IN_HIGH = 1 << 20  # bytes queued from the client above which the connection is not read
ITEM_COST = 64  # bytes that a queued item takes beside its data
STALL_S = 10.0


class ClientStream(Stream):
    """One stream of one client. Nothing goes out before the call is answered (`start`)."""

    def __init__(self, client: "Client", call: Packet, *, sparse: bool) -> None:
        self._client = client
        self._call = call
        self._sparse = sparse
        self._in: deque[bytes | Hole] = deque()
        self._in_bytes = 0
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._early: list[bytes] = []  # what was sent before the answer
        self._pump: asyncio.Task[None] | None = None
        self._reads = False  # the pump reads what the client sends
        self._pump_done = False
        self._eof_seen = False  # no more data from the client
        self._eof_sent = False
        self._finishing = False  # the client waits for the answer to its finish
        self._failed: VirtError | None = None
        self._closed = False  # off the client's table

    # --- the driver's side -----------------------------------------------------------------------------------

    def serve(self, pump: Coroutine[Any, Any, None], *, reads: bool) -> None:
        assert self._pump is None, "a stream has one pump"
        self._reads = reads
        self._pump = self._client.server.host.tasks.start(self._run(pump), f"stream {self._call.procedure}")
        if self._closed:  # lost while the call ran: the pump's first step finds out
            self._cancel_pump()

    async def _run(self, pump: Coroutine[Any, Any, None]) -> None:
        try:
            await pump
        except Exception as exc:
            if not self._closed:
                self.abort(client_error(exc, f"conn={self._client.number} stream {self._call.procedure}"))
            return
        self._pump_done = True
        self._drop_input()
        if self._finishing:
            self._confirm()
        else:
            self.send_eof()

    async def read(self) -> bytes | Hole | None:
        while True:
            if self._closed:
                raise self._over()
            if self._in:
                item = self._in.popleft()
                self._in_bytes -= ITEM_COST + (len(item) if isinstance(item, bytes) else 0)
                if self._in_bytes < IN_HIGH:
                    self._client.stream_caught_up(self)
                return item
            if self._eof_seen:
                return None
            self._wake.clear()
            await self._wake.wait()

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), STREAM_PAYLOAD_MAX):
            await self._writable()
            self._send(PacketType.STREAM, Status.CONTINUE, data[start : start + STREAM_PAYLOAD_MAX])

    async def write_hole(self, length: int) -> None:
        if self._sparse:
            await self._writable()
            self._send(PacketType.STREAM_HOLE, Status.CONTINUE, HOLE.encode(length, 0))
            return
        zeros = bytes(min(length, STREAM_PAYLOAD_MAX))
        while length > 0:
            await self.write(zeros[:length])
            length -= len(zeros)

    async def _writable(self) -> None:
        assert not self._eof_sent, "data after the end"
        await self._answered.wait()
        await self._client.queue_below(OUT_HIGH)
        if self._closed:
            raise self._over()

    def _over(self) -> VirtError:
        return self._failed or OperationFailed("stream is closed", domain=From.STREAMS)

    def send_eof(self) -> None:
        if not self._closed and not self._eof_sent:
            self._eof_sent = True
            self._send(PacketType.STREAM, Status.CONTINUE, b"")

    def abort(self, error: VirtError) -> None:
        if not self._closed:
            self._send(PacketType.STREAM, Status.ERROR, self._client.error_payload(error))
            self._close(error)

    @property
    def closed(self) -> bool:
        return self._closed

    # --- the connection's side -------------------------------------------------------------------------------

    @property
    def key(self) -> tuple[int, int, int]:
        return self._call.program, self._call.procedure, self._call.serial

    def start(self) -> None:
        """The call was answered: what waited to be sent goes."""
        if self._pump is None:
            self.abort(InternalError("nobody serves the stream", domain=From.STREAMS))
        early, self._early = self._early, []
        for data in early:
            self._client.send(data)
        self._answered.set()

    def packet(self, packet: Packet) -> None:
        """A stream packet from the client."""
        if packet.status == Status.CONTINUE:
            self._data(packet)
        elif packet.status == Status.OK:
            self._finish()
        else:
            self._send(PacketType.STREAM, Status.OK, b"")
            self._close(OperationFailed("stream aborted at client request", domain=From.STREAMS))

    def _data(self, packet: Packet) -> None:
        item: bytes | Hole = packet.payload
        if packet.type == PacketType.STREAM_HOLE:
            try:
                length, _ = HOLE.decode(packet.payload)
            except XdrError as exc:
                self.abort(exc)
                return
            if not self._sparse or length < 0:
                self.abort(InternalError("unexpected stream hole", domain=From.STREAMS))
                return
            item = Hole(length)
        if self._eof_seen or self._pump_done or not self._reads:
            return
        if item == b"":
            self._eof_seen = True
        else:
            self._in.append(item)
            self._in_bytes += ITEM_COST + len(packet.payload)
            if self._in_bytes > IN_HIGH:
                self._client.stream_behind(self, STALL_S)
        self._wake.set()

    def _finish(self) -> None:
        """The client finishes: a pump that reads does so to the end, and its return answers; any other is done."""
        self._eof_seen = self._finishing = True
        self._wake.set()
        if self._pump_done or not self._reads:
            self._confirm()

    def _confirm(self) -> None:
        self._send(PacketType.STREAM, Status.OK, b"")
        self._close(None)

    def stalled(self) -> None:
        """The driver took nothing for too long."""
        self.abort(OperationFailed("the other end of the stream takes no data", domain=From.STREAMS))

    def lost(self) -> None:
        """The call failed, or the client is gone: there is nobody to tell."""
        self._close(OperationFailed("client went away", domain=From.STREAMS))

    # --- both --------------------------------------------------------------------------------------------------

    def _send(self, kind: PacketType, status: Status, payload: bytes) -> None:
        call = self._call
        data = frame(call.program, call.version, call.procedure, kind, call.serial, status, payload)
        if self._answered.is_set():
            self._client.send(data)
        else:
            self._early.append(data)

    def _drop_input(self) -> None:
        self._in.clear()
        self._in_bytes = 0
        self._client.stream_caught_up(self)

    def _close(self, why: VirtError | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._failed = why
        self._drop_input()
        self._client.stream_closed(self)
        self._wake.set()
        self._answered.set()
        self._cancel_pump()

    def _cancel_pump(self) -> None:
        """Cancel the pump, but after its first step: one that never began could not clean up."""
        if self._pump is not None and self._pump is not asyncio.current_task():
            asyncio.get_running_loop().call_soon(self._pump.cancel)
