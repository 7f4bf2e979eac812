"""Keepalive's clock for one client: asks a silent one whether it lives, ends the connection of one that stays silent.

https://libvirt.org/internals/rpc.html; the numbers are those of libvirtd.conf: after `interval` seconds of silence a
ping, up to `count` of them, and the end `interval` seconds after the last.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyvirtd.daemon.client import Client

log = logging.getLogger(__name__)


class Keepalive:
    """Runs from the moment a client says that it answers pings."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._pings = 0
        self._pinged_since = client.last_heard  # when the silence began that the pings are about
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def _wait(self) -> None:
        interval = self._client.server.keepalive_interval
        if interval > 0:
            due = self._pinged_since + interval * (self._pings + 1)
            self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        client = self._client
        if client.transport.paused:  # it may well be talking
            client.last_heard = asyncio.get_running_loop().time()
        if client.last_heard > self._pinged_since:
            self._pinged_since, self._pings = client.last_heard, 0
        elif self._pings >= client.server.keepalive_count:
            log.warning("conn=%d closed: no answer to %d keepalive messages", client.number, self._pings)
            client.transport.close()
            return
        else:
            self._pings += 1
            client.ping()
        if not client.gone:
            self._wait()

    def stop(self) -> None:
        """Ask no more."""
        if self._timer is not None:
            self._timer.cancel()
