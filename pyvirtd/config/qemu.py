"""qemu.conf: the QEMU driver's settings. https://libvirt.org/drvqemu.html"""

from collections.abc import Iterator
from dataclasses import dataclass

from pyvirtd.config.keys import (
    Settings,
    core_size,
    flag,
    maybe_flag,
    maybe_text,
    maybe_words,
    obsolete,
    signed,
    text,
    unsigned,
    words,
)

PORT_MAX = 65535
VNC_PORT_BASE = 5900
WEBSOCKET_PORT_BASE = 5700
ZERO_UUID = "00000000-0000-0000-0000-000000000000"
CGROUP_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "net_cls", "perf_event")
SCOPES = ("none", "persistent", "transient", "all")
BASIC_DEVICES = ("/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/ptmx", "/dev/kvm")

CERT_DIR = "Directory of the certificates for {}; default_tls_x509_cert_dir when not set."
VERIFY = "Let only clients with a certificate of our authority use {}; default_tls_x509_verify when not set, else {}."
SECRET = "UUID of the secret that decrypts the private key for {}; default_tls_x509_secret_uuid when not set."  # noqa: S105
HOST_AUDIO = "Leave QEMU's own sound output on for guests with {}."
SASL_DIR = "Directory of the SASL configuration for {}."


@dataclass(frozen=True, kw_only=True)
class QemuConfig(Settings):
    """The settings of qemu.conf. A key without a default of its own is None."""

    file_name = "qemu.conf"
    title = "Settings of the QEMU driver: pyvirtd reads /etc/libvirt/qemu.conf."

    default_tls_x509_cert_dir: str | None = maybe_text(
        "Directory of the certificates for all that has no directory of its own below.",
        example="/etc/pki/qemu",
        section="TLS certificates",
    )
    default_tls_x509_verify: bool | None = maybe_flag(
        "Let only clients with a certificate of our authority in, wherever no key of its own says otherwise.",
        example=True,
    )
    default_tls_x509_secret_uuid: str | None = maybe_text(
        "UUID of the secret that decrypts the private key.", example=ZERO_UUID, effective=False
    )

    vnc_listen: str = text(
        "127.0.0.1",
        "Address on which VNC listens where the domain names none.",
        example="0.0.0.0",  # noqa: S104
        section="Graphics",
    )
    vnc_auto_unix_socket: bool = flag(False, "Serve VNC on a unix socket where the domain names no address.")
    vnc_tls: bool = flag(False, "Encrypt VNC with TLS.")
    vnc_tls_x509_cert_dir: str | None = maybe_text(CERT_DIR.format("VNC"), example="/etc/pki/libvirt-vnc")
    vnc_tls_x509_secret_uuid: str | None = maybe_text(SECRET.format("VNC"), example=ZERO_UUID, effective=False)
    vnc_tls_x509_verify: bool | None = maybe_flag(VERIFY.format("VNC", 0), example=True)
    vnc_password: str | None = maybe_text(
        "VNC password of domains that set none; only eight bytes count.", example="XYZ12345"
    )
    vnc_sasl: bool = flag(False, "Authenticate VNC users with SASL.")
    vnc_sasl_dir: str | None = maybe_text(SASL_DIR.format("VNC"), example="/etc/sasl2")
    vnc_allow_host_audio: bool = flag(False, HOST_AUDIO.format("VNC"), effective=False)
    spice_listen: str = text(
        "127.0.0.1",
        "Address on which SPICE listens where the domain names none.",
        example="0.0.0.0",  # noqa: S104
    )
    spice_tls: bool = flag(False, "Encrypt SPICE with TLS.")
    spice_tls_x509_cert_dir: str | None = maybe_text(CERT_DIR.format("SPICE"), example="/etc/pki/libvirt-spice")
    spice_auto_unix_socket: bool = flag(False, "Serve SPICE on a unix socket where the domain names no address.")
    spice_password: str | None = maybe_text("SPICE password of domains that set none.", example="XYZ12345")
    spice_sasl: bool = flag(False, "Authenticate SPICE users with SASL.")
    spice_sasl_dir: str | None = maybe_text(SASL_DIR.format("SPICE"), example="/etc/sasl2")
    nographics_allow_host_audio: bool = flag(False, HOST_AUDIO.format("no graphics"), effective=False)
    remote_display_port_min: int = unsigned(
        VNC_PORT_BASE,
        "First port for VNC and SPICE.",
        low=VNC_PORT_BASE,
        high=PORT_MAX,
    )
    remote_display_port_max: int = unsigned(PORT_MAX, "Last port for VNC and SPICE.", low=VNC_PORT_BASE, high=PORT_MAX)
    remote_websocket_port_min: int = unsigned(
        WEBSOCKET_PORT_BASE,
        "First port for VNC over WebSocket.",
        low=WEBSOCKET_PORT_BASE,
        high=PORT_MAX,
    )
    remote_websocket_port_max: int = unsigned(
        PORT_MAX, "Last port for VNC over WebSocket.", low=WEBSOCKET_PORT_BASE, high=PORT_MAX
    )

    chardev_tls: bool = flag(
        False, "Encrypt TCP character devices with TLS.", section="TLS of devices, disks and migration"
    )
    chardev_tls_x509_cert_dir: str | None = maybe_text(
        CERT_DIR.format("character devices"), example="/etc/pki/libvirt-chardev"
    )
    chardev_tls_x509_verify: bool | None = maybe_flag(VERIFY.format("character devices", 1), example=True)
    chardev_tls_x509_secret_uuid: str | None = maybe_text(
        SECRET.format("character devices"), example=ZERO_UUID, effective=False
    )
    vxhs_tls: bool = flag(False, "Encrypt VxHS disks with TLS.", effective=False)
    vxhs_tls_x509_cert_dir: str | None = maybe_text(
        CERT_DIR.format("VxHS disks"), example="/etc/pki/libvirt-vxhs", effective=False
    )
    vxhs_tls_x509_secret_uuid: str | None = maybe_text(SECRET.format("VxHS disks"), example=ZERO_UUID, effective=False)
    nbd_tls: bool = flag(False, "Encrypt NBD disks with TLS where the disk does not say otherwise.", effective=False)
    nbd_tls_x509_cert_dir: str | None = maybe_text(CERT_DIR.format("NBD disks"), example="/etc/pki/libvirt-nbd")
    nbd_tls_x509_secret_uuid: str | None = maybe_text(SECRET.format("NBD disks"), example=ZERO_UUID, effective=False)
    migrate_tls_x509_cert_dir: str | None = maybe_text(
        CERT_DIR.format("migration"), example="/etc/pki/libvirt-migrate", effective=False
    )
    migrate_tls_x509_verify: bool | None = maybe_flag(VERIFY.format("migration", 1), example=True, effective=False)
    migrate_tls_x509_secret_uuid: str | None = maybe_text(
        SECRET.format("migration"), example=ZERO_UUID, effective=False
    )
    migrate_tls_force: bool = flag(False, "Refuse migrations that do not ask for TLS.", effective=False)
    backup_tls_x509_cert_dir: str | None = maybe_text(
        CERT_DIR.format("backups"), example="/etc/pki/libvirt-backup", effective=False
    )
    backup_tls_x509_verify: bool | None = maybe_flag(VERIFY.format("backups", 1), example=True, effective=False)
    backup_tls_x509_secret_uuid: str | None = maybe_text(SECRET.format("backups"), example=ZERO_UUID, effective=False)

    user: str = text(
        "libvirt-qemu",
        "User that QEMU runs as in the system daemon: a name, else a number; a number after + is never a name.",
        section="Who QEMU runs as, and what it may touch",
    )
    group: str = text("libvirt-qemu", "Group that QEMU runs as, written as user is.")
    dynamic_ownership: bool = flag(True, "Give files to QEMU's user while a domain uses them.")
    remember_owner: bool = flag(True, "Remember a file's former owner and restore it afterwards.")
    security_driver: tuple[str, ...] | None = maybe_words(
        "Security drivers beside file ownership, which is always used; found on the host when not set. A list, or one "
        "name; none stands alone.",
        example=("selinux", "apparmor"),
        or_text=True,
        choices=("none", "selinux", "apparmor"),
        effective=False,
    )
    security_default_confined: bool = flag(True, "Confine domains that say nothing about it.")
    security_require_confined: bool = flag(False, "Refuse domains that ask not to be confined.")
    seccomp_sandbox: int = signed(1, "Run QEMU with its filter of system calls: 1 on, 0 off.")
    namespaces: tuple[str, ...] | None = maybe_words(
        "Namespaces made for each QEMU of the system daemon; mount when not set, none when the list is empty.",
        example=("mount",),
        choices=("mount",),
        effective=False,
    )
    cgroup_controllers: tuple[str, ...] | None = maybe_words(
        "Control group controllers to use; all that the host has when not set.",
        example=("cpu", "devices", "memory", "blkio", "cpuset", "cpuacct"),
        choices=CGROUP_CONTROLLERS,
    )
    cgroup_device_acl: tuple[str, ...] = words(
        BASIC_DEVICES,
        "Devices that every domain may use, beside those in its definition. Only control groups of version 1 hold it "
        "to that.",
    )
    relaxed_acs_check: bool = flag(False, "Assign PCI devices below switches without ACS, too.", effective=False)
    mac_filter: bool = flag(False, "Filter on bridge ports by the guest's MAC address.", effective=False)
    sched_core: str = text(
        "none",
        "What shares a core's threads with nobody else.",
        choices=("none", "vcpus", "emulator", "full"),
        effective=False,
    )

    max_processes: int = unsigned(0, "Processes of QEMU's user; 0 leaves the host's limit.", section="Limits of QEMU")
    max_files: int = unsigned(0, "Open files of a QEMU; 0 leaves the host's limit.")
    max_threads_per_process: int = unsigned(0, "Threads of a QEMU; 0 leaves the host's limit.", effective=False)
    max_core: int = core_size(
        0,
        "Size in bytes of the core file of a QEMU that crashed, or unlimited; 0 for none.",
        example=2**30,
        effective=False,
    )
    dump_guest_core: bool = flag(False, "Include the guest's memory in that core file.")
    set_process_name: bool = flag(False, "Show QEMU as qemu:NAME in lists of processes.")
    max_queued: int = unsigned(
        0, "Calls that may wait for one domain; further ones fail; 0 for no limit.", effective=False
    )

    save_image_format: str = text(
        "raw",
        "Format of saved guests: raw, or compressed with zstd, lzop, gzip, bzip2 or xz.",
        section="Saved guests, dumps and memory",
    )
    dump_image_format: str = text("raw", "Format of memory dumps, as above.")
    snapshot_image_format: str = text("raw", "Format of the memory in external snapshots, as above.", effective=False)
    auto_dump_path: str | None = maybe_text(
        "Directory of the dumps of domains that panic, or whose watchdog asks for one.",
        example="/var/lib/libvirt/qemu/dump",
    )
    auto_dump_bypass_cache: bool = flag(False, "Write those dumps past the page cache.")
    auto_start_bypass_cache: bool = flag(
        False, "Read saved guests past the page cache when domains start with the daemon."
    )
    auto_start_delay: int = unsigned(0, "Milliseconds between two starts of domains that start with the daemon.")
    hugetlbfs_mount: tuple[str, ...] | None = maybe_words(
        "Mount points of huge pages, one or a list; found on the host when not set, none when empty.",
        example=("/dev/hugepages",),
        or_text=True,
    )
    memory_backing_dir: str | None = maybe_text(
        "Directory of guest memory that is kept in files.", example="/var/lib/libvirt/qemu/ram"
    )
    nvram: tuple[str, ...] | None = maybe_words(
        "Firmware images and the templates of their variables, as FIRMWARE:VARIABLES. Not used where the host has "
        "firmware descriptors.",
        example=("/usr/share/OVMF/OVMF_CODE.fd:/usr/share/OVMF/OVMF_VARS.fd",),
    )

    auto_shutdown_try_save: str | None = maybe_text(
        "Guests that are saved when the host shuts down or the user's session ends. Not set: none for the system "
        "daemon, persistent for a session's.",
        example="persistent",
        choices=("none", "persistent"),
        section="Shutdown of the host",
    )
    auto_shutdown_try_shutdown: str | None = maybe_text(
        "Guests of those not saved that are asked to power off then. Not set: none for the system daemon, all for a "
        "session's.",
        example="all",
        choices=SCOPES,
    )
    auto_shutdown_poweroff: str | None = maybe_text(
        "Guests that are ended if they run on even then. Not set: none for the system daemon, all for a session's.",
        example="all",
        choices=SCOPES,
    )
    auto_shutdown_wait: int = unsigned(
        30,
        "Seconds for guests to power off; 0 is 30. The login manager waits no longer than its InhibitDelayMaxSec.",
    )
    auto_shutdown_restore: bool = flag(True, "Start the guests that ran again at the host's next boot.")
    auto_save_bypass_cache: bool = flag(False, "Write guests saved at the host's shutdown past the page cache.")

    migration_address: str | None = maybe_text(
        "Address on which incoming migrations are awaited; all addresses when not set.",
        example="0.0.0.0",  # noqa: S104
        section="Migration",
        effective=False,
    )
    migration_host: str | None = maybe_text(
        "Name by which the source of a migration reaches this host; its own name when not set.",
        example="host.example.com",
        effective=False,
    )
    migration_port_min: int = unsigned(
        49152, "First port of incoming migrations.", low=1, high=PORT_MAX, effective=False
    )
    migration_port_max: int = unsigned(
        49215, "Last port of incoming migrations.", low=1, high=PORT_MAX, effective=False
    )
    keepalive_interval: int = signed(
        5, "Seconds of silence after which the other daemon is asked whether it is alive.", effective=False
    )
    keepalive_count: int = unsigned(5, "Unanswered questions after which it is given up.", effective=False)

    bridge_helper: str | None = maybe_text(
        "Program that makes tap devices for the session daemon; found on the host when not set.",
        example="/usr/lib/qemu/qemu-bridge-helper",
        section="Helpers",
    )
    pr_helper: str = text("/usr/bin/qemu-pr-helper", "Program for persistent reservations.")
    slirp_helper: str = text("/usr/bin/slirp-helper", "Program for user networking outside of QEMU.", effective=False)
    dbus_daemon: str = text("/usr/bin/dbus-daemon", "The D-Bus daemon for a domain's own bus.")
    swtpm_user: str = text("tss", "User that the TPM emulator runs as.")
    swtpm_group: str = text("tss", "Group that the TPM emulator runs as.")
    lock_manager: str | None = maybe_text(
        "Lock manager that keeps two domains off one disk: lockd or sanlock.", example="lockd", effective=False
    )

    stdio_handler: str = text(
        "logd",
        "Who writes what QEMU prints: logd keeps each domain's log from filling the disk, file lets QEMU write.",
        choices=("logd", "file"),
        section="Logs and debugging",
        effective=False,
    )
    log_timestamp: bool = flag(True, "Let QEMU put the time before its messages.")
    gluster_debug_level: int = unsigned(4, "Verbosity of QEMU's GlusterFS client, 0 to 9.")
    virtiofsd_debug: bool = flag(False, "Let virtiofsd write debugging messages.")
    capability_filters: tuple[str, ...] = words(
        (), "Capabilities of QEMU that are not to be used; for tests.", example=("capname",), effective=False
    )
    deprecation_behavior: str = text(
        "none",
        "What QEMU does about deprecated commands: none, omit, reject or crash; for tests.",
    )
    clear_emulator_capabilities: str | None = obsolete("Of older releases.", example="1")
    allow_disk_format_probing: str | None = obsolete("Of older releases; formats are never guessed.", example="0")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for name in ("remote_display_port", "remote_websocket_port", "migration_port"):
            low: int = getattr(self, f"{name}_min")
            if getattr(self, f"{name}_max") < low:
                yield f"{name}_max", f"port must be between the minimal port {low} and {PORT_MAX}"
        if self.security_driver is not None and "none" in self.security_driver and len(self.security_driver) > 1:
            yield "security_driver", "none stands alone"

    def tls_verify(self, own: bool | None, *, default: bool) -> bool:
        """Whether peers are verified: what the user of TLS has set itself, else the common key, else its default."""
        if own is not None:
            return own
        return default if self.default_tls_x509_verify is None else self.default_tls_x509_verify
