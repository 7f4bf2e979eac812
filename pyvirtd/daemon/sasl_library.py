"""The server's side of Cyrus SASL: a binding of what authentication needs of libsasl2, and a thread to call it.

The library reads /etc/sasl2/libvirt.conf, which says which mechanisms there are and where they find passwords and keys.
A step may wait (for a directory, for another daemon) and the library is not told how to lock: all steps of all
connections run one after the other in one thread. `encode` and `decode` touch their own connection only and wait for
nothing; the event loop calls them.
"""

import asyncio
import ctypes
import os
import queue
import re
import threading
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_void_p
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from pyvirtd.daemon.transport import Endpoints, LayerError

LIBRARY = "libsasl2.so.2"
SERVICE = b"libvirt"  # names the configuration file and the Kerberos service
CONF_PATH = "/etc/sasl2:/etc/sasl:/usr/lib/sasl2"  # where Debian's build looks
# sasl/sasl.h
OK, CONTINUE = 0, 1
SUCCESS_DATA = 4
USERNAME, SSF, MAXOUTBUF = 0, 1, 2
SSF_EXTERNAL, SEC_PROPS, AUTH_EXTERNAL = 100, 101, 102
SEC_NOPLAINTEXT, SEC_NOANONYMOUS = 0x01, 0x10

SSF_MAX = 100_000
BUFFER_MAX = 100_000  # bytes of one encoded message, either way

ResultT = TypeVar("ResultT")


class SaslError(Exception):
    """The library refused; the text is for the log, the peer must not learn it."""


class Outcome(NamedTuple):
    """What a step of an exchange gave; `data` is for the peer, and None is not the same as empty."""

    complete: bool
    data: bytes | None


class _SecurityProperties(ctypes.Structure):
    _fields_ = [
        ("min_ssf", c_uint),
        ("max_ssf", c_uint),
        ("maxbufsize", c_uint),
        ("security_flags", c_uint),
        ("property_names", c_void_p),
        ("property_values", c_void_p),
    ]


@cache
def _library() -> ctypes.CDLL:
    """The initialised library. Raises SaslError where there is none."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as exc:
        raise SaslError(f"SASL is not installed: {exc}") from exc
    data = [POINTER(c_void_p), POINTER(c_uint)]
    for name, arguments in {
        "sasl_server_init": [c_void_p, c_char_p],
        "sasl_server_new": [*[c_char_p] * 5, c_void_p, c_uint, POINTER(c_void_p)],
        "sasl_server_start": [c_void_p, c_char_p, c_char_p, c_uint, *data],
        "sasl_server_step": [c_void_p, c_char_p, c_uint, *data],
        "sasl_listmech": [c_void_p, *[c_char_p] * 4, POINTER(c_char_p), c_void_p, c_void_p],
        "sasl_setprop": [c_void_p, c_int, c_void_p],
        "sasl_getprop": [c_void_p, c_int, POINTER(c_void_p)],
        "sasl_encode": [c_void_p, c_char_p, c_uint, *data],
        "sasl_decode": [c_void_p, c_char_p, c_uint, *data],
        "sasl_dispose": [POINTER(c_void_p)],
        "sasl_errdetail": [c_void_p],
    }.items():
        getattr(library, name).argtypes = arguments
    library.sasl_errdetail.restype = c_char_p
    library.sasl_dispose.restype = None
    if (code := library.sasl_server_init(None, SERVICE)) != OK:
        raise SaslError(f"SASL cannot be initialised ({code})")
    return library


@cache
def _external_named() -> bool:
    """Whether the configuration names mechanism EXTERNAL: without a list of mechanisms it must not come by itself."""
    for folder in os.environ.get("SASL_CONF_PATH", CONF_PATH).split(":"):
        try:
            text = Path(folder, f"{SERVICE.decode()}.conf").read_text(errors="replace")
        except OSError:
            continue
        return re.search(r"^\s*mech_list:.*\bexternal\b", text, re.IGNORECASE | re.MULTILINE) is not None
    return False


class SaslConnection:
    """One exchange and, once it is complete, the security layer it agreed on."""

    def __init__(self, endpoints: Endpoints | None) -> None:
        self._library = _library()
        self._conn = c_void_p()
        local, remote = (None, None) if endpoints is None else (one.encode() for one in endpoints)
        code = self._library.sasl_server_new(SERVICE, None, None, local, remote, None, SUCCESS_DATA, byref(self._conn))
        if code != OK:
            raise SaslError(f"no SASL exchange can be begun ({code})")

    def _checked(self, code: int, what: str) -> int:
        if code not in (OK, CONTINUE):
            detail = self._library.sasl_errdetail(self._conn) or b""
            raise SaslError(f"{what} ({code}): {detail.decode(errors='replace')}")
        return code

    def require(self, *, min_ssf: int, max_ssf: int, plaintext: bool) -> None:
        """Offer only mechanisms whose layer is this strong, in bits; `plaintext`: passwords may be sent as they are."""
        flags = SEC_NOANONYMOUS | (0 if plaintext else SEC_NOPLAINTEXT)
        wanted = _SecurityProperties(min_ssf, max_ssf, BUFFER_MAX, flags, None, None)
        self._checked(self._library.sasl_setprop(self._conn, SEC_PROPS, byref(wanted)), "bad SASL requirements")

    def protected_outside(self, ssf: int) -> None:
        """Something below, such as TLS, protects the bytes with this strength, in bits."""
        self._checked(self._library.sasl_setprop(self._conn, SSF_EXTERNAL, byref(c_uint(ssf))), "bad SASL strength")

    def known_outside(self, name: str) -> None:
        """Something else has proved that the peer has this name: mechanism EXTERNAL may use it where it is named."""
        if not _external_named():
            return
        self._checked(self._library.sasl_setprop(self._conn, AUTH_EXTERNAL, name.encode()), "bad SASL name")

    def mechanisms(self) -> str:
        """Names of the mechanisms to choose from, separated by commas. Raises SaslError where there is none."""
        names = c_char_p()
        code = self._library.sasl_listmech(self._conn, None, b"", b",", b"", byref(names), None, None)
        self._checked(code, "cannot list SASL mechanisms")
        if not names.value:
            raise SaslError("no SASL mechanism is left that this connection may use: see /etc/sasl2/libvirt.conf")
        return names.value.decode("ascii")

    def start(self, mechanism: str, data: bytes | None) -> Outcome:
        """Begin with a mechanism. Raises SaslError when it refuses."""
        return self._move(self._library.sasl_server_start, data, mechanism.encode())

    def step(self, data: bytes | None) -> Outcome:
        """Go on with what the peer answered. Raises SaslError when the mechanism refuses."""
        return self._move(self._library.sasl_server_step, data)

    def _move(self, function: Callable[..., int], data: bytes | None, *mechanism: bytes) -> Outcome:
        out, length = c_void_p(), c_uint()
        size = 0 if data is None else len(data)
        code = self._checked(
            function(self._conn, *mechanism, data, size, byref(out), byref(length)), "the SASL exchange fails"
        )
        return Outcome(code == OK, None if out.value is None else ctypes.string_at(out, length.value))

    def _property(self, number: int) -> int | None:
        """The address of a property."""
        value = c_void_p()
        self._checked(self._library.sasl_getprop(self._conn, number, byref(value)), "no such SASL property")
        return value.value

    def _number(self, number: int) -> int:
        address = self._property(number)
        return 0 if address is None else c_uint.from_address(address).value

    @property
    def user_name(self) -> str:
        """Who the peer proved to be. Raises SaslError for nobody."""
        address = self._property(USERNAME)
        name = b"" if address is None else ctypes.string_at(address)
        if not name:
            raise SaslError("the SASL mechanism gives no user name")
        return name.decode(errors="replace")

    @property
    def ssf(self) -> int:
        """The strength of the security layer, in bits; 0 for none."""
        return self._number(SSF)

    # --- the security layer ----------------------------------------------------------------------------------

    def encode(self, data: bytes) -> bytes:
        """See transport.Layer."""
        part = self._number(MAXOUTBUF) or BUFFER_MAX
        pieces = (data[start : start + part] for start in range(0, len(data), part))
        return b"".join(self._coded(self._library.sasl_encode, piece) for piece in pieces)

    def decode(self, data: bytes) -> bytes:
        """See transport.Layer."""
        return self._coded(self._library.sasl_decode, data)

    def _coded(self, function: Callable[..., int], data: bytes) -> bytes:
        out, length = c_void_p(), c_uint()
        try:
            self._checked(function(self._conn, data, len(data), byref(out), byref(length)), "SASL's layer breaks")
        except SaslError as exc:
            raise LayerError(str(exc)) from exc
        return b"" if out.value is None else ctypes.string_at(out, length.value)

    def __del__(self) -> None:
        if self._conn:
            self._library.sasl_dispose(byref(self._conn))


class SaslThread:
    """Runs the library's calls one after the other. It keeps no program from ending."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[..., ResultT], *arguments: object) -> ResultT:
        """The result of a call. A caller that gives up does not stop it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()

        def settle(result: ResultT | None, exc: Exception | None) -> None:
            if future.done():
                return
            if exc is not None:
                future.set_exception(exc)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result, failure = None, None
            try:
                result = function(*arguments)
            except Exception as exc:  # the caller's to handle
                failure = exc
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failure)

        self.later(work)
        return await future

    def later(self, function: Callable[[], None]) -> None:
        """Call when all that was asked for before is done; it must not fail."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sasl", daemon=True)
            self._thread.start()
        self._work.put(function)

    def _run(self) -> None:
        while True:
            self._work.get()()
