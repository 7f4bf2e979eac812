"""libvirtd.conf: the daemon's own settings. https://libvirt.org/daemons.html"""

from collections.abc import Iterator
from dataclasses import dataclass

from pyvirtd.config.keys import (
    Settings,
    flag,
    maybe_mode,
    maybe_text,
    maybe_words,
    mode,
    obsolete,
    signed,
    text,
    unsigned,
    words,
)

AUTH_SCHEMES = ("none", "sasl", "polkit")
NO_ACTIVATION = "Not used where systemd passes the sockets."


@dataclass(frozen=True, kw_only=True)
class DaemonConfig(Settings):
    """The settings of libvirtd.conf. A key without a default of its own is None: see the methods for those."""

    file_name = "libvirtd.conf"
    title = "Settings of the daemon: pyvirtd reads /etc/libvirt/libvirtd.conf, or the file given with --config."

    listen_tls: bool = flag(
        True,
        f"Listen for TLS connections when the daemon runs with --listen. {NO_ACTIVATION}",
        section="Sockets over the network",
    )
    listen_tcp: bool = flag(
        False, f"Listen for unencrypted TCP connections when the daemon runs with --listen. {NO_ACTIVATION}"
    )
    tls_port: str = text("16514", f"Port number or service name for TLS. {NO_ACTIVATION}")
    tcp_port: str = text("16509", f"Port number or service name for TCP. {NO_ACTIVATION}")
    listen_addr: str | None = maybe_text(
        f"Address or host name to listen on for TLS and TCP; all addresses when not set. {NO_ACTIVATION}",
        example="192.0.2.1",
    )

    unix_sock_group: str | None = maybe_text(
        f"Group that owns the unix sockets; the daemon's own group when not set. {NO_ACTIVATION}",
        example="libvirt",
        section="Unix sockets",
    )
    unix_sock_ro_perms: int = mode(0o777, f"Permissions of the read-only socket. {NO_ACTIVATION}")
    unix_sock_rw_perms: int | None = maybe_mode(
        f"Permissions of the read-write socket; 0777 where polkit decides who may use it, else 0700. {NO_ACTIVATION}",
        example=0o770,
    )
    unix_sock_admin_perms: int = mode(0o700, f"Permissions of the admin socket. {NO_ACTIVATION}")
    unix_sock_dir: str | None = maybe_text(
        f"Directory of the unix sockets. {NO_ACTIVATION}", example="/run/libvirt", effective=False
    )

    auth_unix_ro: str | None = maybe_text(
        "How clients of the read-only socket prove who they are; polkit in the system daemon when not set.",
        example="polkit",
        choices=AUTH_SCHEMES,
        section="Authentication and access",
    )
    auth_unix_rw: str | None = maybe_text(
        "How clients of the read-write socket prove who they are; polkit in the system daemon when not set. "
        "With none, the socket's permissions alone decide.",
        example="polkit",
        choices=AUTH_SCHEMES,
    )
    auth_tcp: str = text(
        "sasl", "How TCP clients prove who they are. Nothing is encrypted with none.", choices=AUTH_SCHEMES
    )
    auth_tls: str = text("none", "How TLS clients prove who they are beyond their certificate.", choices=AUTH_SCHEMES)
    tcp_min_ssf: int = unsigned(
        56, "Least strength of the SASL security layer over plain TCP, in bits.", low=56, example=112
    )
    access_drivers: tuple[str, ...] = words(
        (),
        "Who may do what once connected: with polkit each call is checked against its rules, with none all is allowed.",
        example=("polkit",),
        choices=("none", "polkit"),
    )

    key_file: str | None = maybe_text(
        "The server's private key.", example="/etc/pki/libvirt/private/serverkey.pem", section="TLS certificates"
    )
    cert_file: str | None = maybe_text("The server's certificate.", example="/etc/pki/libvirt/servercert.pem")
    ca_file: str | None = maybe_text(
        "The certificate authority that clients' certificates must come from.", example="/etc/pki/CA/cacert.pem"
    )
    crl_file: str | None = maybe_text(
        "Revoked certificates; none are known when not set.", example="/etc/pki/CA/crl.pem"
    )
    tls_no_sanity_certificate: bool = flag(False, "Do not check the server's own certificates at the start.")
    tls_no_verify_certificate: bool = flag(False, "Let clients in without looking at their certificates.")
    tls_allowed_dn_list: tuple[str, ...] | None = maybe_words(
        "Distinguished names of the clients let in, with * for any text; every verified client when not set, nobody "
        "when the list is empty.",
        example=("C=GB,O=Example,CN=*",),
    )
    tls_priority: str | None = maybe_text(
        "Ciphers and protocol versions, as a GnuTLS priority string of the words that OpenSSL can follow, too.",
        example="NORMAL",
    )
    sasl_allowed_username_list: tuple[str, ...] | None = maybe_words(
        "SASL user names let in, with * for any text; every authenticated user when not set, nobody when the list is "
        "empty.",
        example=("*@EXAMPLE.COM",),
    )

    max_clients: int = unsigned(
        5000,
        "Clients connected at a time; further ones are turned away. One user or host may have half of the places.",
        section="Limits",
    )
    max_queued_clients: int = unsigned(1000, "Length of a socket's queue of unaccepted connections.")
    max_anonymous_clients: int = unsigned(20, "Accepted clients that have not proved who they are; 0 for no limit.")
    min_workers: int = unsigned(5, "Worker threads at the start, for virt-admin to tell: calls here need none.")
    max_workers: int = unsigned(20, "Worker threads at most, as above.", low=1)
    prio_workers: int = unsigned(5, "Worker threads kept for urgent calls, as above.")
    max_client_requests: int = unsigned(5, "Calls of one client that run at a time; further ones wait their turn.")
    admin_min_workers: int = unsigned(5, "Admin interface: worker threads at the start.")
    admin_max_workers: int = unsigned(20, "Admin interface: worker threads at most.")
    admin_max_clients: int = unsigned(5000, "Admin interface: clients connected at a time.")
    admin_max_queued_clients: int = unsigned(20, "Admin interface: length of the queue.")
    admin_max_client_requests: int = unsigned(5, "Admin interface: calls of one client at a time.")

    log_level: int = unsigned(
        3,
        "What is logged: 4 errors, 3 warnings, 2 information, 1 everything. log_filters is the better choice for "
        "looking at one part of the daemon.",
        section="Logging",
        low=1,
        high=4,
    )
    log_filters: str = text(
        "",
        "Levels of parts of the daemon, in the order in which they are tried: LEVEL:MATCH, separated by spaces. "
        "MATCH is found anywhere in the logger's name and may hold the wildcards of a shell.",
        example="1:qemu 3:util.process",
    )
    log_outputs: str = text(
        "",
        "Where the log goes: LEVEL:stderr, LEVEL:file:PATH, LEVEL:syslog:NAME or LEVEL:journald, separated by spaces. "
        "When not set, the journal where there is one, else a file for a daemon in the background and stderr in the "
        "foreground.",
        example="3:syslog:libvirtd",
    )
    audit_level: int = unsigned(
        1,
        "Audit records: 0 never, 1 where the host has auditing, 2 also stops the start where it has not.",
        section="Auditing",
    )
    audit_logging: bool = flag(False, "Write audit records into the log, too.")

    host_uuid: str | None = maybe_text(
        "UUID of this host, when the one from host_uuid_source will not do. It must not be one digit repeated.",
        example="00000000-0000-0000-0000-000000000000",
        section="The host",
    )
    host_uuid_source: str = text(
        "smbios",
        "Where the host's UUID comes from: the firmware's tables or /etc/machine-id.",
        choices=("smbios", "machine-id"),
    )
    ovs_timeout: int = unsigned(5, "Seconds that a call of ovs-vsctl may take.", effective=False)

    keepalive_interval: int = signed(
        5,
        "Seconds of silence after which a client is asked whether it is alive; -1 to never ask.",
        section="Keepalive",
    )
    keepalive_count: int = unsigned(
        5,
        "Unanswered questions after which the connection is closed; with 0 it is closed after keepalive_interval "
        "without asking.",
    )
    admin_keepalive_interval: int = signed(5, "keepalive_interval of the admin interface.")
    admin_keepalive_count: int = unsigned(5, "keepalive_count of the admin interface.")
    keepalive_required: str | None = obsolete("Of older releases; a client cannot be made to answer.", example="1")
    admin_keepalive_required: str | None = obsolete("Of older releases, as the one above.", example="1")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.host_uuid is not None and len(set(self.host_uuid.replace("-", ""))) < 2:
            yield "host_uuid", "must not be one digit repeated"
        if self.max_anonymous_clients > self.max_clients:
            yield "max_anonymous_clients", "must not be more than max_clients"

    def unix_auth(self, *, readonly: bool, privileged: bool) -> str:
        """The authentication scheme of a unix socket: none, sasl or polkit."""
        given = self.auth_unix_ro if readonly else self.auth_unix_rw
        return given or ("polkit" if privileged else "none")

    def rw_perms(self, *, privileged: bool) -> int:
        """The permissions of the read-write socket."""
        if self.unix_sock_rw_perms is not None:
            return self.unix_sock_rw_perms
        return 0o777 if self.unix_auth(readonly=False, privileged=privileged) == "polkit" else 0o700
