"""TLS between a transport's socket and its owner. The certificates are in certificates.py.

OpenSSL works on memory, never on the socket: what a transport promises about queues and pauses holds as without it.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from pyvirtd.daemon.transport import READ_SIZE, Receiver, Transport
from pyvirtd.errors import VirtError

log = logging.getLogger(__name__)

HANDSHAKE_S = 30.0  # from the connection to the end of the handshake
CONFIRMATION = b"\1"  # what a client waits for after its certificate was looked at

# Gets the peer's certificate (DER; None without one) before the client may speak. Raises VirtError to send it away.
Verdict = Callable[[bytes | None], None]


class TlsTransport(Transport):
    """The server's side of a TLS connection; its owner hears nothing before the handshake and the verdict."""

    def __init__(self, sock: socket.socket, receiver: Receiver, context: ssl.SSLContext, verdict: Verdict) -> None:
        super().__init__(sock, receiver)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._verdict = verdict
        self._open = False
        self._deadline: asyncio.TimerHandle = self._loop.call_later(HANDSHAKE_S, self._too_late)

    @property
    def secure(self) -> bool:
        return True

    @property
    def strength(self) -> int:
        cipher = self._tls.cipher()
        return cipher[2] if cipher else 0

    def _too_late(self) -> None:
        log.warning("a TLS client is dropped: no handshake within %g s", HANDSHAKE_S)
        self.close()

    # --- in --------------------------------------------------------------------------------------------------

    def _arrived(self, data: bytes) -> None:
        self._incoming.write(data)
        self._pump()

    def resume(self) -> None:
        super().resume()
        self._loop.call_soon(self._pump)  # what was decrypted already makes no socket readable

    def _pump(self) -> None:
        """Hand on what can be decrypted."""
        if not self._open and not self._closing:
            self._shake_hands()
        while self._open and self._reading and not self._closing:
            try:
                data = self._tls.read(READ_SIZE)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as exc:
                self._broken(exc)
                return
            if not data:
                self.close()
                return
            self.receiver.received(data)
        self._send_encrypted()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as exc:
            self._broken(exc)
            return
        try:
            self._verdict(self._tls.getpeercert(binary_form=True))
        except VirtError as exc:
            log.warning("a TLS client is sent away: %s", exc)
            self.close_when_sent()
            return
        self._deadline.cancel()
        self._open = True
        self.write(CONFIRMATION)

    def _broken(self, exc: ssl.SSLError) -> None:
        """End a session in which the peer did something wrong; the alert that says so still goes out."""
        if not isinstance(exc, ssl.SSLZeroReturnError):
            reason = getattr(exc, "verify_message", "") or exc.reason.replace("_", " ").lower()
            log.warning("a TLS session ends: %s", reason)
        self.close_when_sent()

    # --- out -------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._closing or not self._open:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as exc:
            self._broken(exc)
            return
        self._send_encrypted()

    def _send_encrypted(self) -> None:
        if self._outgoing.pending:
            super().write(self._outgoing.read())

    # --- end -------------------------------------------------------------------------------------------------

    def close_when_sent(self) -> None:
        if not self._closing:
            if self._open:
                with suppress(ssl.SSLError):  # that the peer has not said goodbye yet
                    self._tls.unwrap()
            self._send_encrypted()
        super().close_when_sent()

    def close(self) -> None:
        self._deadline.cancel()
        super().close()
