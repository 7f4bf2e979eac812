"""Calls of one client that wait, because as many as are allowed run or its replies are not read."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from pyvirtd.daemon import dispatch
from pyvirtd.util.threads import close_fds
from pyvirtd.wire.packet import FDS_MAX, Packet

if TYPE_CHECKING:
    from pyvirtd.daemon.client import Client

WAITING_MAX = 64 << 20  # bytes of calls that wait for their turn
FILES_MAX = 4 * FDS_MAX  # descriptors that came with them
CALL_COST = 256  # bytes that a waiting call takes beside its payload
AT_ONCE = 64  # waiting calls that run before others get a turn


class CallQueue:
    """They run in the order in which they came."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self.calls: deque[tuple[Packet, list[int] | None]] = deque()
        self._bytes = self._files = 0
        self._turn: asyncio.Handle | None = None

    def add(self, packet: Packet, fds: list[int] | None) -> bool:
        """Take a call; False, and its descriptors are closed, where too many wait already."""
        cost = len(packet.payload) + CALL_COST
        files = len(fds or ())
        if self._bytes + cost > WAITING_MAX or self._files + files > FILES_MAX:
            close_fds(fds or ())
            return False
        self.calls.append((packet, fds))
        self._bytes += cost
        self._files += files
        return True

    def wake(self) -> None:
        """There may be room for a call again: look in the loop's next turn."""
        if self.calls and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        """Run as many as the limits allow; a long queue not at once."""
        self._turn = None
        client = self._client
        for _ in range(AT_ONCE):
            if not self.calls or client.busy or client.ending:
                return
            packet, fds = self.calls.popleft()
            self._bytes -= len(packet.payload) + CALL_COST
            self._files -= len(fds or ())
            dispatch.call(client, packet, fds)
        self.wake()

    def clear(self) -> None:
        """The client is gone."""
        for _, fds in self.calls:
            close_fds(fds or ())
        self.calls.clear()
        self._bytes = self._files = 0
