"""Every directory and file name that the daemon and its drivers use, for the system and for the session daemon.

Nobody else spells a path. Names are libvirt's, so that either daemon finds what the other one left.
https://libvirt.org/files.html
"""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# The part of a domain's name that its runtime directories carry, in characters: socket paths are short.
SHORT_NAME_MAX = 20

DAEMON = "libvirtd"


PCI_NOTE = ".pci"
FUNCTIONS_NOTE = ".functions"
START_NOTE = ".start"


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory to make at the start. `guest_owned`: it belongs to the user that QEMU runs as."""

    path: Path
    mode: int
    guest_owned: bool = False


@dataclass(frozen=True, slots=True)
class FamilyPaths:
    """Where one family of objects (networks, storage pools, secrets…) keeps its files."""

    config: Path
    run: Path

    @property
    def autostart(self) -> Path:
        return self.config / "autostart"

    @property
    def autostarted_file(self) -> Path:
        """Present when autostart has been done since the host's boot."""
        return self.run / "autostarted"

    def config_file(self, name: str) -> Path:
        """The persistent definition of an object."""
        return self.config / f"{name}.xml"

    def autostart_link(self, name: str) -> Path:
        """The link to the definition that marks an object for autostart."""
        return self.autostart / f"{name}.xml"

    def autostart_once_link(self, name: str) -> Path:
        """The link that marks an object for the next autostart only."""
        return self.autostart / f"{name}.xml.once"

    def status_file(self, name: str) -> Path:
        """The state of a running object."""
        return self.run / f"{name}.xml"

    def pid_file(self, name: str) -> Path:
        """The pid of an object's process."""
        return self.run / f"{name}.pid"


@dataclass(frozen=True, slots=True)
class QemuPaths(FamilyPaths):
    """Where the QEMU driver keeps its files: `state` what must last, `lib` what belongs to running guests."""

    state: Path
    lib: Path
    cache: Path
    log: Path
    swtpm: Path
    swtpm_log: Path

    @property
    def save(self) -> Path:
        return self.state / "save"

    @property
    def snapshot(self) -> Path:
        return self.state / "snapshot"

    @property
    def checkpoint(self) -> Path:
        return self.state / "checkpoint"

    @property
    def nvram(self) -> Path:
        return self.state / "nvram"

    @property
    def dump(self) -> Path:
        return self.state / "dump"

    @property
    def ram(self) -> Path:
        """Guest memory that is kept in files."""
        return self.state / "ram"

    @property
    def channel_target(self) -> Path:
        return self.state / "channel" / "target"

    @property
    def capabilities(self) -> Path:
        """What QEMU binaries can do, one file each."""
        return self.cache / "capabilities"

    @property
    def slirp(self) -> Path:
        return self.run / "slirp"

    @property
    def passt(self) -> Path:
        return self.run / "passt"

    @property
    def dbus(self) -> Path:
        return self.run / "dbus"

    def log_file(self, name: str) -> Path:
        """What QEMU printed, over all the runs of a domain."""
        return self.log / f"{name}.log"

    def save_file(self, name: str) -> Path:
        """The managed save image."""
        return self.save / f"{name}.save"

    def nvram_file(self, name: str, format_: str = "raw") -> Path:
        """The firmware's variables, in a format that QEMU knows by that name."""
        return self.nvram / f"{name}_VARS.{'fd' if format_ == 'raw' else format_}"

    def domain_dir(self, domain_id: int, name: str) -> Path:
        """The directory of a running guest: monitor socket, keys."""
        return self.lib / runtime_name(domain_id, name)

    def monitor_socket(self, domain_id: int, name: str) -> Path:
        return self.domain_dir(domain_id, name) / "monitor.sock"

    def master_key(self, domain_id: int, name: str) -> Path:
        return self.domain_dir(domain_id, name) / "master-key.aes"

    def channel_dir(self, domain_id: int, name: str) -> Path:
        """The sockets of a running guest's channels, each named as its target."""
        return self.channel_target / runtime_name(domain_id, name)

    def swtpm_state(self, uuid: str) -> Path:
        """The emulated TPM's memory."""
        return self.swtpm / uuid

    def swtpm_workshop(self, uuid: str) -> Path:
        """Where an emulated TPM is made that is to be kept in a file elsewhere."""
        return self.swtpm / f"{uuid}.new"

    @property
    def swtpm_run(self) -> Path:
        """Sockets and pids of running TPM emulators."""
        return self.run / "swtpm"

    def swtpm_log_file(self, name: str) -> Path:
        return self.swtpm_log / f"{name}-swtpm.log"

    def swtpm_socket(self, domain_id: int, name: str) -> Path:
        return self.swtpm_run / f"{short_name(domain_id, name)}-swtpm.sock"

    def swtpm_pid(self, domain_id: int, name: str) -> Path:
        return self.swtpm_run / f"{short_name(domain_id, name)}-swtpm.pid"

    def pci_note(self, short: str) -> Path:
        """Which PCI devices of the host were taken from their drivers for a guest; `short`: as `short_name` says."""
        return self.run / f"{short}{PCI_NOTE}"

    def functions_note(self, short: str) -> Path:
        """What the virtual functions that a guest has as interfaces were kept to before."""
        return self.run / f"{short}{FUNCTIONS_NOTE}"

    def start_note(self, short: str) -> Path:
        """What a start that is under way has done to files that are not the guest's alone."""
        return self.run / f"{short}{START_NOTE}"

    def vhost_user_gpu_pid(self, domain_id: int, name: str, alias: str) -> Path:
        return self.run / f"{short_name(domain_id, name)}-{alias}-vhost-user-gpu.pid"

    def nbdkit_file(self, domain_id: int, name: str, node: str, kind: str) -> Path:
        """`kind`: socket, password."""
        return self.domain_dir(domain_id, name) / f"nbdkit-{node}-storage.{kind}"

    def nbdkit_pid(self, domain_id: int, name: str, node: str) -> Path:
        return self.run / f"{short_name(domain_id, name)}-nbdkit-{node}-storage.pid"

    def virtiofs_socket(self, domain_id: int, name: str, alias: str) -> Path:
        return self.domain_dir(domain_id, name) / f"{alias}-fs.sock"

    def virtiofs_pid(self, domain_id: int, name: str, alias: str) -> Path:
        return self.run / f"{short_name(domain_id, name)}-{alias}-fs.pid"

    def virtiofs_log(self, name: str, alias: str) -> Path:
        return self.log / f"{name}-{alias}-virtiofsd.log"

    def dbus_file(self, domain_id: int, name: str, kind: str) -> Path:
        """Of a guest's own D-Bus daemon: its `sock`, its `conf`, its `pid`."""
        return self.dbus / f"{short_name(domain_id, name)}-dbus.{kind}"

    def pr_helper_socket(self, domain_id: int, name: str) -> Path:
        return self.domain_dir(domain_id, name) / "pr-helper0.sock"

    def pr_helper_pid(self, domain_id: int, name: str) -> Path:
        return self.run / f"{short_name(domain_id, name)}-pr-helper0.pid"

    def passt_file(self, domain_id: int, name: str, alias: str, kind: str) -> Path:
        """Of an interface's passt: its `socket`, its `pid`."""
        return self.passt / f"{short_name(domain_id, name)}-{alias}.{kind}"

    def gpu_pid(self, domain_id: int, name: str, alias: str) -> Path:
        return self.run / f"{short_name(domain_id, name)}-{alias}-vhost-user-gpu.pid"

    def directories(self) -> tuple[Directory, ...]:
        """What must exist before the driver starts, parents first."""
        ours = [self.config, self.autostart, self.run, self.log, self.cache, self.capabilities]
        guests = [self.state, self.lib, self.save, self.snapshot, self.checkpoint, self.nvram, self.dump, self.ram]
        guests += [self.channel_target.parent, self.channel_target, self.slirp, self.passt]
        wanted = {path: Directory(path, 0o755, guest_owned=True) for path in guests}
        wanted |= {path: Directory(path, 0o755) for path in ours}
        wanted[self.dbus] = Directory(self.dbus, 0o770, guest_owned=True)
        return tuple(sorted(wanted.values(), key=lambda directory: directory.path.parts))


@dataclass(frozen=True, slots=True)
class TlsPaths:
    """Where the daemon looks for its certificates."""

    ca: Path
    crl: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Paths:
    """All paths of one daemon. `privileged`: the system daemon's, else a user's session."""

    privileged: bool
    config: Path
    run: Path
    state: Path
    cache: Path
    log: Path
    data: Path
    sockets: Path
    pid_file: Path
    hooks: Path
    tls: TlsPaths
    qemu_certs: Path
    qemu: QemuPaths
    networks: FamilyPaths
    storage: FamilyPaths
    secrets: FamilyPaths
    nwfilter: FamilyPaths
    nwfilter_binding: FamilyPaths
    nodedev: FamilyPaths
    interface: FamilyPaths

    @classmethod
    def system(cls, root: Path = Path("/")) -> Self:
        """The paths of qemu:///system; below another root for tests."""
        config, run = root / "etc/libvirt", root / "run/libvirt"
        state, cache, log = root / "var/lib/libvirt", root / "var/cache/libvirt", root / "var/log/libvirt"
        pki = root / "etc/pki"
        return cls(
            privileged=True,
            config=config,
            run=run,
            state=state,
            cache=cache,
            log=log,
            data=state,
            sockets=run,
            pid_file=root / f"run/{DAEMON}.pid",
            hooks=config / "hooks",
            tls=TlsPaths(
                ca=pki / "CA/cacert.pem",
                crl=pki / "CA/cacrl.pem",
                cert=pki / "libvirt/servercert.pem",
                key=pki / "libvirt/private/serverkey.pem",
            ),
            qemu_certs=pki / "qemu",
            qemu=QemuPaths(
                config=config / "qemu",
                run=run / "qemu",
                state=state / "qemu",
                lib=state / "qemu",
                cache=cache / "qemu",
                log=log / "qemu",
                swtpm=state / "swtpm",
                swtpm_log=root / "var/log/swtpm/libvirt/qemu",
            ),
            networks=FamilyPaths(config / "qemu/networks", run / "network"),
            storage=FamilyPaths(config / "storage", run / "storage"),
            secrets=FamilyPaths(config / "secrets", run / "secrets"),
            nwfilter=FamilyPaths(config / "nwfilter", run / "nwfilter"),
            nwfilter_binding=FamilyPaths(run / "nwfilter-binding", run / "nwfilter-binding"),
            nodedev=FamilyPaths(config / "nodedev", run / "nodedev"),
            interface=FamilyPaths(config / "interface", run / "interface"),
        )

    @classmethod
    def session(cls, environ: Mapping[str, str], root: Path = Path("/")) -> Self:
        """The paths of qemu:///session of the user whose environment this is; `root` holds the host's hooks."""
        home = Path(environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "libvirt"
        cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "libvirt"
        data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / "libvirt"
        runtime = environ.get("XDG_RUNTIME_DIR")
        run = Path(runtime) / "libvirt" if runtime else cache
        pki = home / ".pki"
        return cls(
            privileged=False,
            config=config,
            run=run,
            state=config,
            cache=cache,
            log=cache,
            data=data,
            sockets=run,
            pid_file=run / f"{DAEMON}.pid",
            hooks=root / "etc/libvirt/hooks",
            tls=TlsPaths(
                ca=pki / "libvirt/cacert.pem",
                crl=pki / "libvirt/cacrl.pem",
                cert=pki / "libvirt/servercert.pem",
                key=pki / "libvirt/serverkey.pem",
            ),
            qemu_certs=pki / "qemu",
            qemu=QemuPaths(
                config=config / "qemu",
                run=run / "qemu/run",
                state=config / "qemu",
                lib=config / "qemu/lib",
                cache=cache / "qemu/cache",
                log=cache / "qemu/log",
                swtpm=config / "qemu/swtpm",
                swtpm_log=cache / "qemu/log",
            ),
            networks=FamilyPaths(config / "qemu/networks", run / "network/lib"),
            storage=FamilyPaths(config / "storage", run / "storage/run"),
            secrets=FamilyPaths(config / "secrets", run / "secrets/run"),
            nwfilter=FamilyPaths(config / "nwfilter", run / "nwfilter/run"),
            nwfilter_binding=FamilyPaths(run / "nwfilter-binding/run", run / "nwfilter-binding/run"),
            nodedev=FamilyPaths(config / "nodedev", run / "nodedev/run"),
            interface=FamilyPaths(config / "interface", run / "interface/run"),
        )

    @classmethod
    def for_user(cls, uid: int, environ: Mapping[str, str]) -> Self:
        """The paths of a daemon that runs as this user: root has the system's."""
        return cls.system() if uid == 0 else cls.session(environ)

    @property
    def daemon_config(self) -> Path:
        return self.config / f"{DAEMON}.conf"

    @property
    def qemu_config(self) -> Path:
        return self.config / "qemu.conf"

    @property
    def log_file(self) -> Path:
        """The daemon's own log, where there is no journal."""
        return self.log / f"{DAEMON}.log"

    @property
    def socket_rw(self) -> Path:
        return self.sockets / "libvirt-sock"

    @property
    def socket_ro(self) -> Path | None:
        """The read-only socket; a session has none."""
        return self.sockets / "libvirt-sock-ro" if self.privileged else None

    @property
    def socket_admin(self) -> Path:
        return self.sockets / "libvirt-admin-sock"

    @property
    def system_token(self) -> Path:
        """The secret by which the host's daemons know each other."""
        return self.run / "common" / "system.token"

    @property
    def image_edits(self) -> Path:
        """Notes of edits of save images that are under way."""
        return self.state / "image-edits"

    @property
    def images(self) -> Path:
        """The default storage pool."""
        return self.data / "images"

    @property
    def boot(self) -> Path:
        """Kernels and initial RAM disks that virt-install downloads."""
        return self.data / "boot"

    def directories(self) -> tuple[Directory, ...]:
        """What must exist before the daemon listens, parents first; a session's are for its user only."""
        mode = 0o755 if self.privileged else 0o700
        wanted = (self.config, self.run, self.sockets, self.state, self.cache, self.log, self.system_token.parent)
        return (*(Directory(path, mode) for path in dict.fromkeys(wanted)), Directory(self.image_edits, 0o700))


def runtime_name(domain_id: int, name: str) -> str:
    """The directory name of a running guest: id and the beginning of its name."""
    return f"domain-{short_name(domain_id, name)}"


def short_name(domain_id: int, name: str) -> str:
    """What the files of a running guest's helpers begin with."""
    return f"{domain_id}-{name[:SHORT_NAME_MAX]}"
