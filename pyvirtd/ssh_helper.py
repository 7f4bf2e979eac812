"""virt-ssh-helper: what libvirt's client runs at the other end of ssh, to be connected with the daemon there.

Standard input and output are tied to the daemon's socket that the URI means: the client need not know where it is.
https://libvirt.org/uri.html#proxy
"""

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pyvirtd.paths import Paths

PROGRAM = "virt-ssh-helper"
CHUNK = 65536
IDLE_S = 120  # after which a session daemon that was started for us ends
START_S = 30.0


class HelperError(Exception):
    """There is no connection; the text is for whoever runs the client."""


def main() -> int:
    """Run until one side is done; the exit status."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Tie standard input and output to a daemon.")
    parser.add_argument("-r", "--readonly", action="store_true", help="Connect read-only")
    parser.add_argument("-V", "--version", action="version", version=f"{PROGRAM} (libvirt)")
    parser.add_argument("uri", metavar="URI", help="What to open, such as qemu:///system")
    options = parser.parse_args()
    try:
        path, session = socket_of(options.uri, os.environ, read_only=options.readonly)
        with connected(path, start=session and os.environ.get("LIBVIRT_AUTOSTART") != "0") as sock:
            carry(sock)
    except (HelperError, OSError) as exc:
        print(f"{PROGRAM}: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def socket_of(uri: str, environ: Mapping[str, str], *, read_only: bool) -> tuple[Path, bool]:
    """The socket that a URI means, and whether it is a session's. Raises HelperError."""
    try:
        parts = urlsplit(uri)
    except ValueError as exc:
        raise HelperError(f"cannot read the URI '{uri}': {exc}") from None
    if not parts.scheme:
        raise HelperError(f"no scheme in the URI '{uri}'")
    if parts.netloc:
        raise HelperError(f"the URI '{uri}' names another host")
    session = parts.path == "/session" or (parts.path not in ("/system", "/session") and os.geteuid() != 0)
    if given := parse_qs(parts.query).get("socket"):
        return Path(given[0]), False
    paths = Paths.session(environ) if session else Paths.system()
    return (paths.socket_ro if read_only and paths.socket_ro else paths.socket_rw), session


def connected(path: Path, *, start: bool) -> socket.socket:
    """A connection to the daemon, which is started where it may be. Raises HelperError."""
    deadline = time.monotonic() + START_S
    started = False
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(path))
        except OSError as exc:
            sock.close()
            if not start or not isinstance(exc, FileNotFoundError | ConnectionRefusedError):
                raise HelperError(f"Failed to connect socket to '{path}': {exc.strerror}") from exc
            if time.monotonic() > deadline:
                raise HelperError(f"the daemon of the session was started, but serves no '{path}'") from exc
            if started:
                time.sleep(0.05)
            else:
                start_daemon()
                started = True
        else:
            return sock


def start_daemon() -> None:
    """Start the session's daemon in the background. Raises HelperError with what it says."""
    argv = [sys.executable, "-m", "pyvirtd", "--daemon", f"--timeout={IDLE_S}"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise HelperError("the daemon of the session does not start") from None
    # Another client's may have been faster: then ours cannot start, and theirs answers.
    if done.returncode != 0 and "pid file" not in done.stderr.lower():
        raise HelperError(done.stderr.strip() or "the daemon of the session does not start")


def carry(sock: socket.socket) -> None:
    """Move bytes both ways until the daemon closes or the client has gone. Raises OSError when nobody reads on."""

    def to_daemon() -> None:
        with suppress(OSError):
            while data := os.read(0, CHUNK):
                sock.sendall(data)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=to_daemon, daemon=True).start()
    while data := sock.recv(CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(main())
