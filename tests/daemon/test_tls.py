"""TLS through virsh, whose TLS is GnuTLS; as root, in a network namespace of its own."""

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.host import SystemHost
from tests.support.pki import Authority, Issued, client_folder, name_of

CLIENT = name_of(C="GB", O="Example, Ltd", CN="client1")
FILES = """
listen_tls = 1
ca_file = "/etc/libvirt/pki/cacert.pem"
cert_file = "/etc/libvirt/pki/servercert.pem"
key_file = "/etc/libvirt/pki/serverkey.pem"
"""
URI = "qemu+tls://localhost/system"
# Says what the server says to a certificate; virsh itself refuses to show one that is not in order.
SHOW = """
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1] + "/cacert.pem")
context.load_cert_chain(sys.argv[1] + "/clientcert.pem", sys.argv[1] + "/clientkey.pem")
try:
    tls = context.wrap_socket(socket.create_connection(("localhost", 16514)), server_hostname="localhost")
    print(tls.recv(9))
except (ssl.SSLError, ConnectionError) as exc:
    print(type(exc).__name__)
"""


class Pki:
    """An authority and a server with its certificate; clients get theirs in folders."""

    def __init__(self, host: SystemHost) -> None:
        self.host = host
        self.authority = Authority()
        self.renew(self.authority.issue(name_of(CN="localhost")))
        self.client = self.authority.issue(CLIENT)
        self._folders = 0

    def renew(self, server: Issued) -> None:
        self.host.write("/etc/libvirt/pki/cacert.pem", self.authority.cert_pem)
        self.host.write("/etc/libvirt/pki/servercert.pem", server.cert_pem)
        self.host.write("/etc/libvirt/pki/serverkey.pem", server.key_pem)

    def uri(self, client: Issued | None) -> str:
        """The URI of a client with this certificate."""
        self._folders += 1
        folder = client_folder(self.host.folder / f"pki{self._folders}", self.authority, client)
        return f"{URI}?pkipath={folder}"

    def ask(self, client: Issued | None) -> str:
        """What virsh says to `uri`: its output, or its error."""
        done = self.host.run(["virsh", "-c", self.uri(client), "hostname"], timeout=20)
        return done.stdout + done.stderr

    def lets_in(self, client: Issued | None) -> bool:
        return self.ask(client).strip() == socket.gethostname()

    def confirms(self, client: Issued) -> bool:
        """Whether the server confirms that the certificate will do."""
        folder = self.uri(client).partition("pkipath=")[2]
        said = self.host.run([self.host._python, "-c", SHOW, folder], timeout=20).stdout.strip()
        assert said in (repr(b"\1"), repr(b""), "SSLError", "ConnectionResetError"), said
        return said == repr(b"\1")

    def configure(self, more: str = "") -> None:
        self.host.write("/etc/libvirt/libvirtd.conf", FILES + more)

    def logged(self, text: str) -> None:
        """The log has the text, or gets it in a moment: a thread writes it."""
        deadline = time.monotonic() + 5
        while text not in self.host.log():
            assert time.monotonic() < deadline, text
            time.sleep(0.02)

    def reload(self) -> None:
        """Make the daemon read everything again; it says when that is done, well or not."""
        before = self._reloads()
        os.kill(self.host.pid, signal.SIGHUP)
        deadline = time.monotonic() + 10
        while self._reloads() == before:
            assert time.monotonic() < deadline, self.host.log()
            time.sleep(0.02)

    def _reloads(self) -> int:
        text = self.host.log()
        return text.count("certificates for TLS read again") + text.count("the certificates stay as they were")


@pytest.fixture(scope="module")
def pki() -> Iterator[Pki]:
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost(arguments=["--listen", "-v"]) as host:
        host.run(["ip", "link", "set", "lo", "up"])
        made = Pki(host)
        made.configure()
        host.start()
        yield made


def test_a_certificate_lets_in(pki: Pki) -> None:
    code = "import libvirt, sys; conn = libvirt.open(sys.argv[1]); print(conn.isSecure())"
    done = pki.host.run([pki.host._python, "-c", code, pki.uri(pki.client)])
    assert done.stdout.strip() == "1", done.stderr


def test_much_goes_through(pki: Pki) -> None:
    done = pki.host.run(["virsh", "-q", "-c", pki.uri(pki.client), "; ".join(["capabilities"] * 40)], timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<capabilities>") == 40


def test_nobody_gets_in_without_a_certificate(pki: Pki) -> None:
    assert "TLS" in pki.ask(None)
    pki.logged("peer did not return a certificate")


@pytest.mark.parametrize(
    ("days", "reason"), [((-9, -1), "certificate has expired"), ((1, 9), "certificate is not yet valid")]
)
def test_a_certificate_out_of_its_time_lets_nobody_in(pki: Pki, days: tuple[int, int], reason: str) -> None:
    assert not pki.confirms(pki.authority.issue(CLIENT, days=days))
    pki.logged(reason)


def test_a_certificate_of_another_authority_lets_nobody_in(pki: Pki) -> None:
    assert pki.confirms(pki.client)
    assert not pki.confirms(Authority("Another CA").issue(CLIENT))
    pki.logged("unable to get local issuer certificate")


def test_one_who_took_the_name_of_the_authority_lets_nobody_in(pki: Pki) -> None:
    assert not pki.confirms(Authority().issue(CLIENT))


def test_only_named_clients_get_in_and_a_reload_is_enough(pki: Pki) -> None:
    pki.configure('tls_allowed_dn_list = ["C=GB,O=Example*,CN=client?"]\n')
    pki.reload()
    assert pki.lets_in(pki.client)
    other = name_of(C="GB", O="Example, Ltd", CN="other1")
    assert "TLS" in pki.ask(pki.authority.issue(other))
    pki.logged("tls_allowed_dn_list does not name 'C=GB,O=Example\\, Ltd,CN=other1'")
    pki.configure("tls_allowed_dn_list = []\n")
    pki.reload()
    assert not pki.lets_in(pki.client)
    pki.configure()
    pki.reload()
    assert pki.lets_in(pki.client)


def test_a_revoked_certificate_lets_nobody_in_after_a_reload(pki: Pki) -> None:
    lost = pki.authority.issue(CLIENT)
    pki.host.write("/etc/libvirt/pki/crl.pem", pki.authority.revoke())
    pki.configure('crl_file = "/etc/libvirt/pki/crl.pem"\n')
    pki.reload()
    assert pki.lets_in(lost)
    pki.host.write("/etc/libvirt/pki/crl.pem", pki.authority.revoke(lost))
    pki.reload()
    assert not pki.lets_in(lost)
    assert pki.lets_in(pki.client)
    pki.logged("certificate revoked")
    pki.configure()
    pki.reload()


def test_a_reload_with_bad_certificates_keeps_the_old_ones(pki: Pki) -> None:
    pki.renew(pki.authority.issue(name_of(CN="localhost"), days=(-9, -1)))
    pki.reload()
    assert pki.lets_in(pki.client)
    pki.logged("servercert.pem has expired")
    pki.renew(pki.authority.issue(name_of(CN="localhost")))
    pki.reload()
    assert pki.lets_in(pki.client)


def test_unverified_clients_get_in_where_that_is_configured(pki: Pki) -> None:
    pki.configure("tls_no_verify_certificate = 1\n")
    pki.reload()
    assert pki.lets_in(None)
    assert pki.confirms(Authority("Another CA").issue(CLIENT))
    pki.configure()
    pki.reload()
    assert not pki.lets_in(None)


def test_versions_of_the_protocol_follow_the_priority(pki: Pki) -> None:
    pki.configure('tls_priority = "NORMAL:-VERS-TLS1.3"\n')
    pki.reload()
    assert pki.lets_in(pki.client)
    only_13 = f"{pki.uri(pki.client)}&tls_priority=NORMAL:-VERS-ALL:+VERS-TLS1.3"
    done = pki.host.run(["virsh", "-c", only_13, "hostname"])
    assert done.returncode != 0
    pki.configure()
    pki.reload()
    assert pki.host.run(["virsh", "-c", only_13, "hostname"]).returncode == 0
