"""Turning clients away with an error instead of silence, and the rule that says whom."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable

from pyvirtd.core.access import Identity
from pyvirtd.daemon.transport import Transport
from pyvirtd.errors import RpcError, VirtError
from pyvirtd.wire.packet import FrameError, Framer, Packet, PacketType

TURNED_AWAY_MAX = 64  # that are told why at the same time; more are closed at once
TELL_S = 5.0  # that a client has to ask, which is when it can be told
FRAME_MAX = 4096  # bytes of its first message

Peer = int | str


def peer_of(identity: Identity) -> Peer | None:
    """Whose connection it is, a user's or a host's; None for root and the daemon's own user, who are not counted."""
    if identity.uid is not None:
        return None if identity.uid in (0, os.geteuid()) else identity.uid
    return identity.address.rpartition(":")[0] or None


class Crowd:
    """Who is connected how often. No user and no host may take more than half of the places."""

    def __init__(self) -> None:
        self.places = 0
        self._total = 0
        self._of: Counter[Peer] = Counter()

    def enter(self, identity: Identity) -> Callable[[], None]:
        """Count a connection until the returned function is called. Raises RpcError when there is no place for it."""
        peer = peer_of(identity)
        if self._total >= self.places:
            raise RpcError(f"Too many active clients ({self._total}), dropping connection from {_words(peer)}")
        if peer is not None:
            if self._of[peer] >= max(1, self.places // 2):
                raise RpcError(f"Too many active clients of {_words(peer)} ({self._of[peer]}), dropping connection")
            self._of[peer] += 1
        self._total += 1

        def leave() -> None:
            self._total -= 1
            if peer is not None:
                self._of[peer] -= 1
                if not self._of[peer]:
                    del self._of[peer]

        return leave


def _words(peer: Peer | None) -> str:
    if peer is None:
        return "this host"
    return f"uid {peer}" if isinstance(peer, int) else peer


class Refusal:
    """A transport's owner that answers the first call with an error and closes."""

    def __init__(self, error: VirtError, reply: Callable[[Packet, VirtError], bytes], gone: Callable[[], None]) -> None:
        self._error = error
        self._reply = reply
        self._gone = gone
        self._framer = Framer(FRAME_MAX)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Transport | None = None

    def take(self, transport: Transport) -> None:
        """Own a connection from now on."""
        self._transport = transport
        transport.receiver = self
        self._timer = asyncio.get_running_loop().call_later(TELL_S, transport.close)

    def received(self, data: bytes) -> None:
        """The first call is answered, whatever it asks for."""
        assert self._transport is not None
        try:
            packets = self._framer.feed(data)
        except FrameError:
            self._transport.close()
            return
        for packet in packets:
            if packet.type in (PacketType.CALL, PacketType.CALL_WITH_FDS):
                self._transport.write(self._reply(packet, self._error))
                self._transport.close_when_sent()
                return

    def writable(self) -> None:
        """Nothing waits for it."""

    def lost(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._gone()
