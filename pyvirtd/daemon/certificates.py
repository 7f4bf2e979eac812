"""The server's certificates: where they are, what must be right about them, the context made of them, and names.

https://libvirt.org/kbase/tlscerts.html
"""

import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, TypeVar

from cryptography import x509

from pyvirtd.config import DaemonConfig
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.daemon.distinguished_name import distinguished_name
from pyvirtd.daemon.tls_priority import apply_priority
from pyvirtd.errors import AuthFailed, InternalError, SystemError_, VirtError, from_os_error
from pyvirtd.paths import Paths, TlsPaths
from pyvirtd.util.wildcards import matches

DEFAULT_PRIORITY = "NORMAL"
SERVER_PURPOSE = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
ANY_PURPOSE = x509.ObjectIdentifier("2.5.29.37.0")  # RFC 5280 4.2.1.12 anyExtendedKeyUsage


ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)


@dataclass(frozen=True, kw_only=True)
class TlsServer:
    """What TLS connections are served with: made anew when certificates or the configuration are read again."""

    context: ssl.SSLContext
    allowed: tuple[str, ...] | None
    verify: bool

    def name_of(self, der: bytes | None) -> str:
        """The distinguished name of a client's verified certificate. Raises AuthFailed for one that is not let in."""
        if not self.verify:
            return ""
        assert der is not None  # OpenSSL lets no client pass without one
        name = distinguished_name(x509.load_der_x509_certificate(der).subject)
        if self.allowed is not None and not matches(name, self.allowed):
            raise AuthFailed(f"tls_allowed_dn_list does not name '{name}'", domain=From.RPC)
        return name


def tls_server(config: DaemonConfig, paths: Paths) -> TlsServer:
    """Read certificates and settings; blocks on files. Raises VirtError with the file that will not do."""
    files = credentials(config, paths)
    verify = not config.tls_no_verify_certificate
    if not config.tls_no_sanity_certificate:
        check_certificates(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A session taken up again would pass by the revocations that came since.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    apply_priority(context, config.tls_priority or DEFAULT_PRIORITY)
    _load_key(context, files)
    if verify:
        context.verify_mode = ssl.CERT_REQUIRED
        _load(context, "CA certificate", files.ca)
        if files.crl.exists():
            _load(context, "CRL", files.crl)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    return TlsServer(context=context, allowed=config.tls_allowed_dn_list, verify=verify)


# --- files -----------------------------------------------------------------------------------------------------------


def credentials(config: DaemonConfig, paths: Paths) -> TlsPaths:
    """The files to use: those of the configuration, else the user's, else the system's. Raises VirtError."""
    given = (config.ca_file, config.cert_file, config.key_file)
    if any(given):
        ca, cert, key = given
        if not ca:
            raise InternalError("No CA certificate path set to match server key/cert")
        if not cert:
            raise InternalError("No server certificate path set to match server key")
        if not key:
            raise InternalError("No server key path set to match server cert")
        files = TlsPaths(ca=Path(ca), cert=Path(cert), key=Path(key), crl=paths.tls.crl)
    else:
        files = paths.tls
        if not all(path.exists() for path in (files.ca, files.cert, files.key)):
            files = Paths.system().tls if not paths.privileged else files
    if config.crl_file:
        files = replace(files, crl=Path(config.crl_file))
        _readable("CA revocation list", files.crl)
    for what, path in (("CA certificate", files.ca), ("server certificate", files.cert), ("server key", files.key)):
        _readable(what, path)
    return files


def _readable(what: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as exc:
        raise from_os_error(exc, f"Cannot read {what} '{path}'") from exc


def _no_password() -> NoReturn:
    raise ValueError("it is encrypted")  # nobody is there to type


def _load_key(context: ssl.SSLContext, files: TlsPaths) -> None:
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (OSError, ValueError) as exc:
        text = f"Unable to load certificate '{files.cert}' with key '{files.key}': {_reason(exc)}"
        raise SystemError_(text, domain=From.RPC) from exc


def _load(context: ssl.SSLContext, what: str, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as exc:
        raise SystemError_(f"Unable to load {what} '{path}': {_reason(exc)}", domain=From.RPC) from exc


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return exc.reason.replace("_", " ").lower()
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)


# --- checks ----------------------------------------------------------------------------------------------------------


def check_certificates(files: TlsPaths) -> None:
    """Find what is wrong with the server's own certificates before a client does. Raises VirtError."""
    own, *_ = _read_certificates(files.cert)
    authorities = _read_certificates(files.ca)
    _check_times("server", own, files.cert)
    _check_server(own, files.cert)
    for authority in authorities:
        _check_times("CA", authority, files.ca)
        _check_authority(authority, files.ca)
    _check_chain(files)


def _read_certificates(path: Path) -> list[x509.Certificate]:
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise from_os_error(exc, f"Unable to import certificate {path}") from exc
    end = b"-----END CERTIFICATE-----"
    found = []
    for part in text.split(end)[:-1]:
        try:
            found.append(x509.load_pem_x509_certificate(part[part.find(b"-----BEGIN") :] + end))
        except ValueError as exc:
            raise _bad(f"Unable to import certificate {path}: {exc}") from exc
    if not found:
        raise _bad(f"Unable to import certificate {path}: it holds none")
    return found


def _check_times(role: str, cert: x509.Certificate, path: Path) -> None:
    now = datetime.now(UTC)
    if _utc(cert, "not_valid_after") < now:
        raise _bad(f"The {role} certificate {path} has expired")
    if _utc(cert, "not_valid_before") > now:
        raise _bad(f"The {role} certificate {path} is not yet active")


def _utc(cert: x509.Certificate, name: str) -> datetime:
    """A time of validity; older versions of the library have it without a zone."""
    aware = getattr(cert, f"{name}_utc", None)
    found: datetime = getattr(cert, name).replace(tzinfo=UTC) if aware is None else aware
    return found


def _check_authority(cert: x509.Certificate, path: Path) -> None:
    constraints = _extension(cert, x509.BasicConstraints)
    if constraints is None:
        raise _bad(f"The certificate {path} is missing basic constraints for a CA")
    if not constraints.ca:
        raise _bad(f"The certificate {path} basic constraints do not show a CA")
    usage = _extension(cert, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise _bad(f"Certificate {path} usage does not permit certificate signing")


def _check_server(cert: x509.Certificate, path: Path) -> None:
    constraints = _extension(cert, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise _bad(f"The certificate {path} basic constraints show a CA, but we need one for a server")
    usage = _extension(cert, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise _bad(f"Certificate {path} usage does not permit digital signature")
    purposes = _extension(cert, x509.ExtendedKeyUsage)
    if purposes is not None and SERVER_PURPOSE not in purposes and ANY_PURPOSE not in purposes:
        raise _bad(f"Certificate {path} purpose does not allow use for with a TLS server")


def _extension(cert: x509.Certificate, kind: type[ExtensionT]) -> ExtensionT | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_chain(files: TlsPaths) -> None:
    """Let OpenSSL judge as a client would: shake hands with ourselves. Raises VirtError."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_key(ours, files)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    _load(theirs, "CA certificate", files.ca)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ours.wrap_bio(there, back, server_side=True)
    client = theirs.wrap_bio(back, there)
    for end in (client, server, client):  # the client's verdict comes with its second part
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as exc:
            reason = exc.verify_message
            raise _bad(f"Our own certificate {files.cert} failed validation against {files.ca}: {reason}") from exc


def _bad(text: str) -> VirtError:
    return SystemError_(text, domain=From.RPC)
