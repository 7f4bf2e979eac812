"""The server's certificates: which files, what is wrong with them, names, priorities."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyvirtd.config import DaemonConfig
from pyvirtd.daemon.certificates import check_certificates, credentials, tls_server
from pyvirtd.daemon.distinguished_name import distinguished_name
from pyvirtd.daemon.tls_priority import apply_priority
from pyvirtd.errors import ConfigUnsupported, VirtError
from pyvirtd.paths import Paths, TlsPaths
from tests.support.pki import Authority, Issued, name_of

SERVER = name_of(CN="localhost")


def put(folder: Path, authority: Authority, server: Issued) -> TlsPaths:
    files = TlsPaths(ca=folder / "ca.pem", crl=folder / "crl.pem", cert=folder / "cert.pem", key=folder / "key.pem")
    files.ca.write_bytes(authority.cert_pem)
    files.cert.write_bytes(server.cert_pem)
    files.key.write_bytes(server.key_pem)
    return files


def configured(files: TlsPaths, more: str = "") -> DaemonConfig:
    text = f'ca_file = "{files.ca}"\ncert_file = "{files.cert}"\nkey_file = "{files.key}"\n'
    return DaemonConfig.parse(text + more, "libvirtd.conf")


# --- what is wrong with them -----------------------------------------------------------------------------------------


def test_certificates_in_order_pass(tmp_path: Path) -> None:
    authority = Authority()
    check_certificates(put(tmp_path, authority, authority.issue(SERVER)))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"days": (-9, -1)}, r"The server certificate .*cert\.pem has expired"),
        ({"days": (1, 9)}, r"The server certificate .*cert\.pem is not yet active"),
        ({"ca": True}, r"cert\.pem basic constraints show a CA, but we need one for a server"),
        ({"signs": False}, r"Certificate .*cert\.pem usage does not permit digital signature"),
        (
            {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]},
            r"cert\.pem purpose does not allow use for with a TLS server",
        ),
    ],
    ids=["expired", "not yet", "an authority", "no signatures", "a client's"],
)
def test_a_servers_certificate_that_will_not_do_is_refused(tmp_path: Path, how: dict[str, object], reason: str) -> None:
    authority = Authority()
    files = put(tmp_path, authority, authority.issue(SERVER, **how))  # type: ignore[arg-type]
    with pytest.raises(VirtError, match=reason):
        check_certificates(files)


@pytest.mark.parametrize(
    ("authority", "reason"),
    [
        (Authority(days=(-9, -1)), r"The CA certificate .*ca\.pem has expired"),
        (Authority(ca=False), r"The certificate .*ca\.pem basic constraints do not show a CA"),
    ],
    ids=["expired", "no authority"],
)
def test_an_authority_that_will_not_do_is_refused(tmp_path: Path, authority: Authority, reason: str) -> None:
    with pytest.raises(VirtError, match=reason):
        check_certificates(put(tmp_path, authority, authority.issue(SERVER)))


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    files = put(tmp_path, Authority(), Authority("Other").issue(SERVER))
    with pytest.raises(VirtError, match=r"Our own certificate .* failed validation against .*: unable to get local"):
        check_certificates(files)


def test_unchecked_certificates_may_be_expired(tmp_path: Path) -> None:
    authority = Authority()
    files = put(tmp_path, authority, authority.issue(SERVER, days=(-9, -1)))
    with pytest.raises(VirtError, match="has expired"):
        tls_server(configured(files), Paths.system(tmp_path))
    tls_server(configured(files, "tls_no_sanity_certificate = 1\n"), Paths.system(tmp_path))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("cert", "Unable to import certificate"),
        ("ca", "Unable to import certificate"),
        ("key", "Unable to load certificate"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, broken: str, reason: str) -> None:
    authority = Authority()
    files = put(tmp_path, authority, authority.issue(SERVER))
    getattr(files, broken).write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    with pytest.raises(VirtError, match=reason):
        tls_server(configured(files), Paths.system(tmp_path))


def test_a_key_that_is_not_the_certificates_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    files = put(tmp_path, authority, authority.issue(SERVER))
    files.key.write_bytes(authority.issue(SERVER).key_pem)
    with pytest.raises(VirtError, match="key values mismatch"):
        tls_server(configured(files), Paths.system(tmp_path))


# --- which files -----------------------------------------------------------------------------------------------------


def test_a_configured_file_needs_the_others(tmp_path: Path) -> None:
    for text, reason in (
        ('cert_file = "/c"\nkey_file = "/k"\n', "No CA certificate path set to match server key/cert"),
        ('ca_file = "/a"\nkey_file = "/k"\n', "No server certificate path set to match server key"),
        ('ca_file = "/a"\ncert_file = "/c"\n', "No server key path set to match server cert"),
    ):
        with pytest.raises(VirtError, match=reason):
            credentials(DaemonConfig.parse(text, "x"), Paths.system(tmp_path))


def test_a_users_own_files_come_first(tmp_path: Path) -> None:
    paths = Paths.session({"HOME": str(tmp_path)})
    if not Paths.system().tls.ca.exists():
        with pytest.raises(VirtError, match=r"Cannot read CA certificate '/etc/pki/CA/cacert\.pem': No such file"):
            credentials(DaemonConfig(), paths)
    paths.tls.cert.parent.mkdir(parents=True)
    for path in (paths.tls.ca, paths.tls.cert, paths.tls.key):
        path.touch()
    assert credentials(DaemonConfig(), paths) == paths.tls


def test_a_configured_revocation_list_must_be_there(tmp_path: Path) -> None:
    authority = Authority()
    files = put(tmp_path, authority, authority.issue(SERVER))
    with pytest.raises(VirtError, match="Cannot read CA revocation list '/nowhere'"):
        credentials(configured(files, 'crl_file = "/nowhere"\n'), Paths.system(tmp_path))


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_are_in_the_certificates_order_and_escaped() -> None:
    assert distinguished_name(name_of(C="GB", O='A, "B"+C', CN="#x ", EMAIL="a@b")) == (
        'C=GB,O=A\\, \\"B\\"\\+C,CN=\\#x\\ ,EMAIL=a@b'
    )
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, "x"), x509.NameAttribute(x509.ObjectIdentifier("1.2.3"), "y")]
    assert distinguished_name(x509.Name([x509.RelativeDistinguishedName(parts)])) == "CN=x+1.2.3=y"


# --- priorities ------------------------------------------------------------------------------------------------------


def ciphers(priority: str) -> tuple[ssl.SSLContext, set[str]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    apply_priority(context, priority)
    return context, {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}


def test_priorities_choose_versions_and_ciphers() -> None:
    context, usual = ciphers("NORMAL")
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert ciphers("NORMAL:-VERS-TLS1.3")[0].maximum_version is ssl.TLSVersion.TLSv1_2
    assert ciphers("NORMAL:-VERS-TLS-ALL:+VERS-TLS1.3")[0].minimum_version is ssl.TLSVersion.TLSv1_3
    assert "AES256-GCM-SHA384" in usual
    assert "AES256-GCM-SHA384" not in ciphers("NORMAL:-RSA")[1]
    assert not any("AES128" in name for name in ciphers("SECURE256:-VERS-TLS1.3:%SERVER_PRECEDENCE")[1])


@pytest.mark.parametrize(
    ("priority", "reason"),
    [
        ("NONE:+X", "'NONE' cannot be followed"),
        ("NORMAL:+ARCFOUR-128", r"'\+ARCFOUR-128' cannot be followed"),
        ("NORMAL:%COMPAT", "'%COMPAT' cannot be followed"),
        ("NORMAL:-AES-128-GCM", "'-AES-128-GCM' cannot be followed as long as TLS 1.3 is allowed"),
        ("SECURE256", "'SECURE256' cannot be followed as long as TLS 1.3 is allowed"),
        ("NORMAL:-VERS-ALL", "leaves no version"),
        ("NORMAL:+VERS-TLS1.0:-VERS-TLS1.2", "between two others"),
        ("NORMAL:+VERS-TLS1.1", "no longer safe"),
    ],
)
def test_a_priority_that_cannot_be_followed_is_refused(priority: str, reason: str) -> None:
    with pytest.raises(ConfigUnsupported, match=reason):
        ciphers(priority)
