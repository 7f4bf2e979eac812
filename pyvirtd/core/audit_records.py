"""The audit records of a guest: what it is, what it is given and when that changes, that it starts and stops. Pure.

Fields and their order are those of libvirt's records: https://libvirt.org/auditlog.html
"""

from collections.abc import Iterable, Iterator
from enum import Enum

from pyvirtd.core.audit import UNKNOWN, Record, RecordType, encode
from pyvirtd.core.cgroup_limits import DeviceRule
from pyvirtd.core.security import NONE
from pyvirtd.model.chardev import (
    EgdBackend,
    RandomBackend,
    Redirdev,
    Rng,
    Smartcard,
    SmartcardMode,
    Tpm,
    TpmEmulator,
    TpmExternal,
    TpmPassthrough,
)
from pyvirtd.model.devices import Filesystem, Shmem
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import InputType
from pyvirtd.model.hostdev import (
    Hostdev,
    MdevSource,
    PciHostdevSource,
    ScsiHostdevSource,
    UsbHostdevSource,
    VhostScsiSource,
)
from pyvirtd.model.net import Interface
from pyvirtd.model.storage import AnySource, BlockSource, DirSource, FileSource

STARTING = "start"  # the reason of every resource that a guest is started with
CHANGING = "update"  # and of one that changes while it runs
HOST_SMARTCARD = "nss-smartcard-device"
CERTIFICATES = "/etc/pki/nssdb"  # libvirt's default of <database>
REDIRECTED = "USB redirdev"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - named only


def machine_ids(live: DomainDef) -> Iterator[Record]:
    """The security labels of a guest about to start."""
    for one in live.seclabel:
        if one.model and one.model != NONE and one.label:
            labels = f"vm-ctx={_plain(one.label)} img-ctx={_plain(one.imagelabel)} model={_plain(one.model)}"
            yield Record(RecordType.MACHINE_ID, f"virt={live.type} {_who(live)} {labels}")


def started(live: DomainDef, reason: str, pid: int, *, success: bool, tpm_socket: str = "") -> Iterator[Record]:
    """A start and what it assigned; `reason` is booted, restored, migrated or from-snapshot, `pid` 0 if it failed."""
    yield from resources(live, tpm_socket)
    yield _control(live, "start", reason, pid, success=success)


def stopped(live: DomainDef, reason: str) -> Record:
    """The end of a run. Its process is gone and named no more, as with libvirtd."""
    return _control(live, "stop", reason, 0, success=True)


def resources(live: DomainDef, tpm_socket: str) -> Iterator[Record]:
    """What the host gives to a guest at its start; `tpm_socket` is where an emulated TPM listens."""
    devices = live.devices
    for disk in devices.disk:
        yield from _given(live, "disk", _disk_path(disk.source))
    for filesystem in devices.filesystem:
        yield from _given(live, "fs", _filesystem_path(filesystem))
    for interface in devices.interface:
        yield from _given(live, "net", _mac(interface))
    for hostdev in devices.hostdev:
        yield from _hostdev(live, hostdev)
    for redirdev in devices.redirdev:
        yield _redirected(live, redirdev)
    # The first console is the first serial port once more.
    consoles = devices.console[1:] if devices.serial else devices.console
    for chardev in (*devices.serial, *devices.parallel, *devices.channel, *consoles):
        yield from _given(live, "chardev", chardev.path)
    for card in devices.smartcard:
        yield from _given(live, "smartcard", _smartcard_path(card))
    for rng in devices.rng:
        yield from _given(live, "rng", _rng_path(rng))
    for tpm in devices.tpm:
        yield from _tpm(live, tpm, tpm_socket)
    for shmem in devices.shmem:
        yield _shmem(live, shmem)
    for one in devices.input:
        if one.source is not None:
            path = one.source.evdev if one.type is InputType.PASSTHROUGH else one.source.dev
            yield _resource(live, "evdev", f"path={_plain(path)}")
    yield amount(live, "mem", 0, live.memory.kib, STARTING)
    yield amount(live, "vcpu", 0, live.vcpu.current or live.vcpu.count, STARTING)
    if threads := len(live.iothreadids) or live.iothreads:
        yield amount(live, "iothread", 0, threads, STARTING)


def amount(live: DomainDef, kind: str, old: int, new: int, reason: str = CHANGING, *, success: bool = True) -> Record:
    """How much the guest has of something that is counted: mem in KiB, vcpu, iothread."""
    return _resource(live, kind, f"old-{kind}={old} new-{kind}={new}", reason, success=success)


def opened(
    live: DomainDef, interface: Interface, path: str, node: DeviceRule | None, *, success: bool = True
) -> Record:
    """What is opened for an interface's host end; `node` is what the path is on this host, if it is a device node."""
    number = _node_number(node) if node is not None else UNKNOWN
    fields = f"net={_mac(interface)} path={encode(path)} rdev={number}"
    return _resource(live, "net", fields, "open", success=success)


def allowed_devices(
    live: DomainDef, group: str, paths: Iterable[tuple[str, DeviceRule]], kinds: Iterable[tuple[str, DeviceRule]]
) -> Iterator[Record]:
    """What the devices controller grants: single nodes by their paths, and all nodes of a major number by a name.

    `group` is the directory of the guest's control group.
    """
    yield _group(live, "deny", group, "all")
    for path, rule in paths:
        yield _group(live, "allow", group, f"path path={encode(path)} rdev={_node_number(rule)} acl={rule.access}")
    for name, rule in kinds:
        major = int(rule.number.partition(":")[0])
        yield _group(live, "allow", group, f"major category={name} maj={major:02X} acl={rule.access}")


def word(reason: Enum) -> str:
    """The name of a reason as records have it."""
    return reason.name.lower().replace("_", "-")


# --- one record -------------------------------------------------------------------------------------------------


def _who(live: DomainDef) -> str:
    return f"vm={encode(live.name)} uuid={live.uuid}"


def _plain(value: str | None) -> str:
    """A value that has no quotes as long as it cannot be taken for other fields."""
    encoded = encode(value or UNKNOWN)
    return encoded.strip('"')


def _control(live: DomainDef, operation: str, reason: str, pid: int, *, success: bool) -> Record:
    text = f"virt={live.type} op={operation} reason={reason} {_who(live)} vm-pid={pid}"
    return Record(RecordType.CONTROL, text, success)


def _resource(live: DomainDef, kind: str, fields: str, reason: str = STARTING, *, success: bool = True) -> Record:
    text = f"virt={live.type} resrc={kind} reason={reason} {_who(live)} {fields}"
    return Record(RecordType.RESOURCE, text, success)


def _group(live: DomainDef, reason: str, group: str, what: str) -> Record:
    return _resource(live, "cgroup", f"cgroup={encode(f'{group}/')} class={what}", reason)


def _node_number(rule: DeviceRule) -> str:
    major, minor = (int(part) for part in rule.number.split(":"))
    return f"{major:02X}:{minor:02X}"


def _given(live: DomainDef, kind: str, what: str | None) -> Iterator[Record]:
    """Something of the host that has a name; nothing is told of what has none."""
    if what:
        yield _resource(live, kind, f"old-{kind}={encode(UNKNOWN)} new-{kind}={encode(what)}")


# --- what the kinds of devices are known by ---------------------------------------------------------------------


def _mac(interface: Interface) -> str | None:
    return interface.mac.address if interface.mac is not None else None


def _disk_path(source: AnySource | None) -> str | None:
    match source:
        case FileSource(file=path) | BlockSource(dev=path) | DirSource(dir=path):
            return path
    return None


def _filesystem_path(filesystem: Filesystem) -> str | None:
    source = filesystem.source
    return (source.dir or source.file or source.dev or source.name) if source is not None else None


def _hostdev(live: DomainDef, hostdev: Hostdev) -> Iterator[Record]:
    if (device := _host_address(hostdev)) is not None:
        yield _resource(live, "dev", f"bus={hostdev.type} device={encode(device)}")


def _host_address(hostdev: Hostdev) -> str | None:
    match hostdev.source:
        case PciHostdevSource(address=at) if at is not None:
            return f"{at.domain:04x}:{at.bus:02x}:{at.slot:02x}.{at.function:x}"
        case UsbHostdevSource(address=on) if on is not None:
            return f"{on.bus or 0:03}.{on.device or 0:03}"
        case ScsiHostdevSource(adapter=adapter, address=unit) if unit is not None:
            return f"{adapter}:{unit.bus}:{unit.target}:{unit.unit}"
        case ScsiHostdevSource(name=name):
            return name
        case VhostScsiSource(wwpn=wwpn):
            return wwpn
        case MdevSource(address=mdev) if mdev is not None:
            return mdev.uuid
    return None


def _redirected(live: DomainDef, redirdev: Redirdev) -> Record:
    return _resource(live, "dev", f"bus={redirdev.bus} device={encode(REDIRECTED)}")


def _smartcard_path(card: Smartcard) -> str | None:
    match card.mode:
        case SmartcardMode.HOST:
            return HOST_SMARTCARD
        case SmartcardMode.HOST_CERTIFICATES:
            return card.database or CERTIFICATES
    return card.path


def _rng_path(rng: Rng) -> str | None:
    match rng.backend:
        case RandomBackend(path=path) | EgdBackend(path=path):
            return path
    return None


def _tpm(live: DomainDef, tpm: Tpm, emulator: str) -> Iterator[Record]:
    match tpm.backend:
        case TpmPassthrough(device=device):
            yield _resource(live, "tpm", f"device={encode(device or UNKNOWN)}")
        case TpmEmulator():
            yield _resource(live, "tpm-emulator", f"device={encode(emulator or UNKNOWN)}")
        case TpmExternal(source=source):
            path = source.path if source is not None else None
            yield _resource(live, "tpm-external", f"device={encode(path or UNKNOWN)}")


def _shmem(live: DomainDef, shmem: Shmem) -> Record:
    if shmem.server is not None:
        return _resource(live, "ivshmem-socket", f"path={_plain(shmem.server.path)}")
    return _resource(
        live, "shmem", f"size={(shmem.size_mib or 0) << 20} path={_plain(f'{SHARED_MEMORY}/{shmem.name}')}"
    )
