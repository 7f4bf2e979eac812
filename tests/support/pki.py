"""Certificates for tests: an authority, and what it signs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
USUAL_DAYS = (-1, 30)


class Issued:
    """A certificate and its key."""

    def __init__(self, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.cert = cert
        self.key = key

    @property
    def cert_pem(self) -> bytes:
        return self.cert.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """Signs certificates. `days`: validity from and to, counted from now."""

    def __init__(self, name: str = "Test CA", *, ca: bool = True, days: tuple[int, int] = USUAL_DAYS) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name_of(CN=name)
        usage = key_usage(key_cert_sign=True, crl_sign=True)
        self.cert = self._sign(self._name, self._key, ca=ca, days=days, extensions=[(usage, True)]).cert

    @property
    def cert_pem(self) -> bytes:
        return self.cert.public_bytes(Encoding.PEM)

    def issue(
        self,
        subject: x509.Name,
        *,
        days: tuple[int, int] = USUAL_DAYS,
        ca: bool = False,
        signs: bool = True,
        purposes: Sequence[x509.ObjectIdentifier] = PURPOSES,
    ) -> Issued:
        """A certificate for a server on this host or a client."""
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.SubjectAlternativeName(names), False),
            # libvirt 9.0 asks for key encipherment, whatever the kind of key.
            (key_usage(digital_signature=signs, key_encipherment=True), True),
            (x509.ExtendedKeyUsage(purposes), False),
        ]
        return self._sign(subject, ec.generate_private_key(ec.SECP256R1()), ca=ca, days=days, extensions=extensions)

    def revoke(self, *issued: Issued) -> bytes:
        """The list of revoked certificates, in PEM."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - timedelta(days=1)).next_update(now + timedelta(days=30))
        for one in issued:
            revoked = x509.RevokedCertificateBuilder().serial_number(one.cert.serial_number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now - timedelta(days=1)).build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        ca: bool,
        days: tuple[int, int],
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
    ) -> Issued:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + timedelta(days=days[0])).not_valid_after(now + timedelta(days=days[1]))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return Issued(builder.sign(self._key, hashes.SHA256()), key)


def name_of(**parts: str) -> x509.Name:
    """A subject, in the order given: C, O, OU, CN."""
    oids = {
        "C": NameOID.COUNTRY_NAME,
        "O": NameOID.ORGANIZATION_NAME,
        "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
        "CN": NameOID.COMMON_NAME,
        "EMAIL": NameOID.EMAIL_ADDRESS,
    }
    return x509.Name([x509.NameAttribute(oids[kind], value) for kind, value in parts.items()])


def key_usage(**wanted: bool) -> x509.KeyUsage:
    """Key usage with only what is named."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
        " encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in every.split()})


def client_folder(path: Path, authority: Authority, issued: Issued | None) -> Path:
    """What a client's `pkipath` names; without a certificate it has only the authority's."""
    path.mkdir(parents=True)
    path.joinpath("cacert.pem").write_bytes(authority.cert_pem)
    if issued is not None:
        path.joinpath("clientcert.pem").write_bytes(issued.cert_pem)
        path.joinpath("clientkey.pem").write_bytes(issued.key_pem)
    return path
