"""SASL through virsh, whose side is Cyrus SASL too: mechanisms, users and security layers; as root."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import SystemHost
from tests.support.pki import Authority, client_folder, name_of

DATABASE = "/etc/libvirt/passwd.db"
KEYTAB = "/etc/libvirt/krb5.tab"
CONFIG = """
listen_tcp = 1
listen_tls = 1
auth_tcp = "sasl"
auth_tls = "sasl"
auth_unix_rw = "sasl"
auth_unix_ro = "none"
ca_file = "/etc/libvirt/cacert.pem"
cert_file = "/etc/libvirt/servercert.pem"
key_file = "/etc/libvirt/serverkey.pem"
"""
WITH_LAYER = ["digest-md5"]
WITHOUT_LAYER = ["scram-sha-256", "scram-sha-1", "plain"]
TCP = "qemu+tcp://localhost/system"
UNIX = "qemu:///system"


class SaslHost(SystemHost):
    """A host with users in a database of its own, and a client's certificate."""

    @property
    def env(self) -> dict[str, str]:
        kerberos = {
            "KRB5_CONFIG": "/etc/libvirt/krb5.conf",
            "KRB5_KDC_PROFILE": "/etc/libvirt/kdc.conf",
            "KRB5CCNAME": "FILE:/run/tickets",
        }
        return super().env | {"SASL_CONF_PATH": "/etc/libvirt/sasl2"} | kerberos

    @property
    def socket(self) -> Path:
        return super().socket.with_name("libvirt-sock-ro")

    def wait_ready(self, timeout: float = 30) -> None:
        self.uri = "qemu+unix:///system?socket=/run/libvirt/libvirt-sock-ro"
        super().wait_ready(timeout)

    def set_up(self) -> None:
        authority = Authority()
        server = authority.issue(name_of(CN="localhost"))
        self.write("/etc/libvirt/cacert.pem", authority.cert_pem)
        self.write("/etc/libvirt/servercert.pem", server.cert_pem)
        self.write("/etc/libvirt/serverkey.pem", server.key_pem)
        self.write("/etc/libvirt/libvirtd.conf", CONFIG)
        folder = client_folder(self.folder / "pki", authority, authority.issue(name_of(C="GB", CN="client1")))
        self.tls = f"qemu+tls://localhost/system?pkipath={folder}"
        self.add_user("fred", "secret")

    def add_user(self, name: str, password: str) -> None:
        command = ["saslpasswd2", "-p", "-c", "-a", "libvirt", "-f", DATABASE, name]
        done = self.run(command, text=f"{password}\n")
        assert done.returncode == 0, done.stderr

    def offer(self, *mechanisms: str, more: str = "") -> None:
        """Serve with these mechanisms from now on; with none named, with all that there are."""
        text = f"sasldb_path: {DATABASE}\nkeytab: {KEYTAB}\n"
        text += f"mech_list: {' '.join(mechanisms)}\n" if mechanisms else ""
        self.write("/etc/libvirt/sasl2/libvirt.conf", text)
        self.write("/etc/libvirt/libvirtd.conf", CONFIG + more)
        if self.pid:
            self.stop()
        self.start()

    def log_in(
        self, uri: str, name: str = "fred", password: str = "secret", command: str = "hostname"
    ) -> subprocess.CompletedProcess[str]:
        """Run virsh with a name and a password."""
        sections = "".join(f"[auth-libvirt-{host}]\ncredentials=mine\n" for host in ("localhost", self.hostname))
        text = f"[credentials-mine]\nauthname={name}\npassword={password}\n{sections}"
        auth = self.client_file("auth.conf", text)
        return self.run(["env", f"LIBVIRT_AUTH_FILE={auth}", "virsh", "-q", "-c", uri, command], timeout=20)

    def logged(self, text: str) -> None:
        """The log has the text, or gets it in a moment: a thread writes it."""
        deadline = time.monotonic() + 5
        while text not in self.log():
            assert time.monotonic() < deadline, text
            time.sleep(0.02)

    @property
    def hostname(self) -> str:
        return self.run(["hostname"]).stdout.strip()


@pytest.fixture(scope="module")
def made() -> Iterator[SaslHost]:
    if reason := SystemHost.missing():
        pytest.skip(reason)
    if not shutil.which("saslpasswd2"):
        pytest.skip("saslpasswd2 is not installed (package sasl2-bin)")
    with SaslHost(arguments=["--listen", "-v"]) as host:
        host.set_up()
        yield host


@pytest.mark.parametrize("mechanism", WITH_LAYER + WITHOUT_LAYER)
def test_the_right_password_lets_in_and_a_wrong_one_does_not(made: SaslHost, mechanism: str) -> None:
    made.offer(mechanism)
    uris = [made.tls, UNIX] + ([TCP] if mechanism in WITH_LAYER else [])
    for uri in uris:
        done = made.log_in(uri)
        assert done.stdout.strip() == made.hostname, (uri, done.stderr, made.log())
        done = made.log_in(uri, password="wrong")
        assert "authentication failed" in done.stderr, uri
        assert "authentication failed" in made.log_in(uri, "nobody").stderr


def test_users_and_passwords_count_as_soon_as_they_are_set(made: SaslHost) -> None:
    made.offer("scram-sha-256")
    assert made.log_in(UNIX).returncode == 0  # the library has looked into its database
    made.add_user("late", "first")
    assert made.log_in(UNIX, "late", "first").returncode == 0
    made.add_user("late", "second")
    assert made.log_in(UNIX, "late", "second").returncode == 0
    assert "authentication failed" in made.log_in(UNIX, "late", "first").stderr
    made.run(["saslpasswd2", "-d", "-a", "libvirt", "-f", DATABASE, "late"])
    assert "authentication failed" in made.log_in(UNIX, "late", "second").stderr


def test_everything_goes_through_the_layer(made: SaslHost) -> None:
    made.offer("digest-md5")
    done = made.log_in(TCP, command="; ".join(["capabilities"] * 40))
    assert done.stdout.count("<capabilities>") == 40, done.stderr
    made.logged("is 'fred")


@pytest.mark.parametrize("mechanism", WITHOUT_LAYER)
def test_plain_tcp_needs_a_mechanism_with_a_layer(made: SaslHost, mechanism: str) -> None:
    made.offer(mechanism)
    assert "authentication failed" in made.log_in(TCP).stderr
    made.logged("no SASL mechanism is left")


def test_the_layer_must_be_strong_enough(made: SaslHost) -> None:
    made.offer("digest-md5", more="tcp_min_ssf = 256\n")
    assert "authentication failed" in made.log_in(TCP).stderr


def test_only_listed_users_get_in(made: SaslHost) -> None:
    made.offer("digest-md5", more='sasl_allowed_username_list = ["joe", "f?ed*"]\n')
    made.add_user("mary", "hers")
    for uri in (TCP, made.tls):
        assert made.log_in(uri).returncode == 0
        assert "authentication failed" in made.log_in(uri, "mary", "hers").stderr
    made.logged("sasl_allowed_username_list does not name 'mary")


def peer(host: SaslHost, *how: str) -> list[str]:
    done = host.run([host._python, "-m", "tests.daemon.digest_peer", *how], timeout=30)
    assert not done.stderr
    return done.stdout.splitlines()


def test_nothing_sent_in_the_clear_counts_as_the_users(made: SaslHost) -> None:
    made.offer("digest-md5")
    assert peer(made, "part") == ["error 69", "closed"]
    assert peer(made, "call") == ["error 1", "reply 69"]
    assert peer(made, "clear") == ["reply 69", "closed"]
    assert made.log_in(TCP).returncode == 0


def test_who_fails_three_times_has_to_go(made: SaslHost) -> None:
    made.offer("digest-md5")
    assert peer(made, "again")[-1] == "closed"


def test_clients_that_leave_halfway_cost_nothing(made: SaslHost) -> None:
    made.offer("digest-md5", more="max_anonymous_clients = 2\n")
    fds = made.run(["ls", f"/proc/{made.pid}/fd"]).stdout.count("\n")
    for _ in range(6):
        assert peer(made, "hang up") == []
    assert made.log_in(TCP).returncode == 0
    assert made.run(["ls", f"/proc/{made.pid}/fd"]).stdout.count("\n") <= fds + 1


def test_a_certificate_is_enough_only_where_external_is_named(made: SaslHost) -> None:
    folder = made.tls.partition("pkipath=")[2]
    made.offer("digest-md5", "external")
    assert peer(made, "external", folder) == [
        "DIGEST-MD5,EXTERNAL",
        "AuthSASLStartReply(complete=1, nil=1, data=b'')",
    ]
    made.logged("is 'C=GB,CN=client1' by SASL")
    made.offer()
    mechanisms, answer = peer(made, "external", folder)
    assert "DIGEST-MD5" in mechanisms
    assert "EXTERNAL" not in mechanisms
    assert "authentication failed" in answer


KRB5_CONF = """
[libdefaults]
 default_realm = TEST
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
 ignore_acceptor_hostname = true
[realms]
 TEST = {
  kdc = 127.0.0.1:8888
 }
"""
KDC_CONF = """
[kdcdefaults]
 kdc_listen = 127.0.0.1:8888
 kdc_tcp_listen = 127.0.0.1:8888
[realms]
 TEST = {
  database_name = /run/kdc/principal
  key_stash_file = /run/kdc/stash
 }
[logging]
 kdc = FILE:/run/kdc/log
"""


@pytest.fixture
def realm(made: SaslHost) -> Iterator[SaslHost]:
    """A Kerberos realm with a user and this host's service."""
    missing = [name for name in ("krb5kdc", "kdb5_util", "kadmin.local", "kinit") if not shutil.which(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (packages krb5-kdc, krb5-admin-server, krb5-user)")
    made.write("/etc/libvirt/krb5.conf", KRB5_CONF)
    made.write("/etc/libvirt/kdc.conf", KDC_CONF)
    made.path("/run/kdc").mkdir()
    for command in (
        ["kdb5_util", "create", "-s", "-r", "TEST", "-P", "master"],
        ["kadmin.local", "-q", "addprinc -pw secret alice"],
        ["kadmin.local", "-q", "addprinc -randkey libvirt/localhost"],
        ["kadmin.local", "-q", f"ktadd -k {KEYTAB} libvirt/localhost"],
    ):
        done = made.run(command)
        assert done.returncode == 0, done.stderr
    kdc = made.popen(["krb5kdc", "-n"])
    try:
        yield made
    finally:
        kdc.terminate()
        kdc.communicate(timeout=10)


def test_a_kerberos_ticket_lets_in(realm: SaslHost) -> None:
    realm.offer("gssapi")
    virsh = ["virsh", "-q", "-c", TCP]
    assert "authentication failed" in realm.run([*virsh, "hostname"], timeout=20).stderr
    for _ in range(50):  # until the key distribution centre listens
        done = realm.run(["kinit", "alice"], text="secret\n")
        if done.returncode == 0:
            break
        time.sleep(0.1)
    assert done.returncode == 0, done.stderr
    done = realm.run([*virsh, "; ".join(["capabilities"] * 5)], timeout=20)
    assert done.stdout.count("<capabilities>") == 5, done.stderr
    realm.logged("is 'alice' by SASL")
