"""Confining guests: whom QEMU runs as, which files it is given, and what the documents say of it.

Only libvirt's `dac` model is there: file ownership, for the system daemon. Which files a guest needs is decided here
without looking at them; `ownership.py` gives them. https://libvirt.org/drvqemu.html#driver-security-architecture
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from pyvirtd.config import QemuConfig
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core import ownership
from pyvirtd.core.ownership import Label
from pyvirtd.errors import ConfigUnsupported, InvalidArg
from pyvirtd.model.capabilities import SecurityModelDescription
from pyvirtd.model.chardev import (
    AnyCharSource,
    Chardev,
    ChardevType,
    FileCharSource,
    PathSource,
    SocketMode,
    TpmPassthrough,
    UnixSource,
)
from pyvirtd.model.devices import MemoryModel
from pyvirtd.model.disk import Disk, DiskDevice
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import InputType
from pyvirtd.model.hostdev import UsbHostdevSource
from pyvirtd.model.os import FwcfgSysinfo
from pyvirtd.model.seclabel import DeviceSeclabel, Seclabel, SeclabelType
from pyvirtd.model.storage import AnySource, data_source, host_path
from pyvirtd.util.files import Owner, in_thread
from pyvirtd.util.process import Identity
from pyvirtd.util.users import identity

__all__ = ["Credentials", "Label", "apply_labels", "confine", "labels_of", "restore_labels", "security_models"]

DAC, NONE = "dac", "none"
DOI = "0"
GUEST_TYPES = ("kvm", "qemu")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom QEMU runs as."""

    identity: Identity
    privileged: bool

    @classmethod
    def of(cls, config: QemuConfig, *, privileged: bool) -> Self:
        """From qemu.conf; a session's guests run as its user. Raises InvalidArg naming an unknown user or group."""
        if not privileged:
            return cls(Identity(os.geteuid(), os.getegid(), tuple(os.getgroups())), privileged)
        return cls(identity(config.user, config.group), privileged)

    @property
    def owner(self) -> Owner:
        return Owner(self.identity.uid, self.identity.gid)

    @property
    def label(self) -> str:
        """As a security label of the dac model."""
        return f"+{self.identity.uid}:+{self.identity.gid}"


async def apply_labels(labels: Sequence[Label], given: Callable[[Label], None] | None = None) -> None:
    """Give the guest its files, a thread telling `given` of each; on an error none is changed. Raises VirtError."""
    if labels:
        await in_thread(ownership.apply, labels, given)


async def restore_labels(labels: Sequence[Label]) -> None:
    """Give the files back; what fails is only logged."""
    if labels:
        await in_thread(ownership.restore, labels)


async def domain_identity(definition: DomainDef, credentials: Credentials) -> Identity:
    """Whom this guest runs as: its own static label's user, else everybody's. Raises InvalidArg."""
    own = dac_seclabel(definition)
    if not credentials.privileged or own is None or own.type is not SeclabelType.STATIC or not own.label:
        return credentials.identity
    user, colon, group = own.label.partition(":")
    if not (user and colon and group):
        raise InvalidArg(f"Failed to parse uid and gid from '{own.label}'")
    return await in_thread(identity, user, group)


# --- documents ------------------------------------------------------------------------------------------------


def security_models(credentials: Credentials) -> tuple[SecurityModelDescription, ...]:
    """What <capabilities> tells: libvirt's word for no mandatory access control, then ownership."""
    nothing = SecurityModelDescription(NONE, DOI)
    if not credentials.privileged:
        return (nothing,)
    return nothing, SecurityModelDescription(DAC, DOI, tuple((kind, credentials.label) for kind in GUEST_TYPES))


def dac_seclabel(definition: DomainDef) -> Seclabel | None:
    """The domain's own <seclabel> of the dac model."""
    return next((item for item in definition.seclabel if item.model == DAC), None)


def confine(live: DomainDef, credentials: Credentials, config: QemuConfig) -> None:
    """Write into a definition that is about to run what it runs as. Raises ConfigUnsupported."""
    _check_models(live, credentials)
    if config.security_require_confined and any(item.type is SeclabelType.NONE for item in live.seclabel):
        raise ConfigUnsupported("Unconfined guests are not allowed on this host", domain=From.SECURITY)
    if not credentials.privileged:
        return
    own = dac_seclabel(live)
    if own is None:
        if not config.security_default_confined:
            return
        own = Seclabel(type=SeclabelType.DYNAMIC, model=DAC, relabel=True)
        live.seclabel.append(own)
    if own.type is SeclabelType.DYNAMIC:
        own.label = own.imagelabel = credentials.label
    elif own.type is SeclabelType.STATIC and own.relabel:
        own.imagelabel = own.label


def domain_labels(live: DomainDef, credentials: Credentials) -> list[str]:
    """A running guest's label under each model of security_models(); "" where the model has none."""
    own = dac_seclabel(live)
    labels = {DAC: (own.label if own else None) or credentials.label}
    return [labels.get(model.model, "") for model in security_models(credentials)]


def _check_models(live: DomainDef, credentials: Credentials) -> None:
    known = {model.model for model in security_models(credentials)} | {NONE}
    if not live.seclabel:
        given: list[str | None] = []
    else:
        given = [item.model or NONE for item in live.seclabel if item.type is not None]
    given += [item.model for item in _device_seclabels(live) if item.label or item.relabel is False]
    for model in given:
        if model not in known:
            raise ConfigUnsupported(
                f"Security driver model '{model or '(null)'}' is not available", domain=From.SECURITY
            )


def _device_seclabels(live: DomainDef) -> Iterator[DeviceSeclabel]:
    for disk in live.devices.disk:
        if disk.source is not None:
            yield from disk.source.common.seclabel
    for chardev in _chardevs(live):
        for source in chardev.source:
            yield from source.seclabel


# --- which files ----------------------------------------------------------------------------------------------


class Rules(NamedTuple):
    """How this guest's files are labelled: the label, and whether former owners are noted."""

    label: str
    remember: bool

    def file(self, path: str, *, label: str | None = None, storage: bool = False) -> Label:
        """A file of this guest alone, given back afterwards."""
        return Label(path, label or self.label, remember=self.remember, storage=storage)

    def shared(self, path: str, *, label: str | None = None, storage: bool = False) -> Label:
        """A file that other guests, here or on other hosts, may be using: never given back."""
        return Label(path, label or self.label, remember=False, restore=False, storage=storage)

    def device(self, path: str) -> Label:
        """A node of the host that nobody else owns: root's afterwards."""
        return Label(path, self.label, remember=False, optional=True)


def labels_of(live: DomainDef, credentials: Credentials, config: QemuConfig, nodes: Sequence[str] = ()) -> list[Label]:
    """The files that a guest is given while it runs; `nodes`: more of /dev, as found. Pure: nothing is looked up."""
    own = dac_seclabel(live)
    if not credentials.privileged or not config.dynamic_ownership:
        return []
    if own is not None and (own.type is SeclabelType.NONE or own.relabel is False):
        return []
    label = (own.imagelabel or own.label) if own is not None else None
    rules = Rules(label or credentials.label, config.remember_owner)
    return [
        *(label for disk in live.devices.disk for label in disk_labels(disk, rules)),
        *(label for chardev in _chardevs(live) for label in _chardev_labels(chardev, rules)),
        *(rules.file(path) for path in _boot_files(live)),
        *(rules.file(path) for path in _memory_files(live)),
        *(rules.device(path) for path in (*_device_nodes(live), *nodes)),
    ]


def disk_labels(disk: Disk, rules: Rules) -> list[Label]:
    """The images of one disk: the top one is the guest's, those below it and read-only ones may serve others."""
    top = disk.source
    own = _dac_of(top.common.seclabel) if top is not None else None
    if own is not None and own.relabel is False:
        return []
    label = own.label if own is not None else None
    alone = not (disk.readonly or disk.shareable or disk.device is DiskDevice.CDROM)
    found = list(_image_labels(top, label, rules.file if alone else rules.shared))
    store = disk.backing_store
    while store is not None:
        found += _image_labels(store.source, label, rules.shared)
        store = store.backing_store
    return found


def _image_labels(image: AnySource | None, label: str | None, make: Callable[..., Label]) -> Iterator[Label]:
    """One image's files; `label`: the disk's, for those that have none of their own."""
    for source, path in _files_of(image):
        own = _dac_of(source.common.seclabel)
        if own is None or own.relabel is not False:
            yield make(path, label=(own.label if own else None) or label, storage=True)


def _files_of(image: AnySource | None) -> Iterator[tuple[AnySource, str]]:
    """The file or device of an image, and the one that holds its data if that is another."""
    for source in (image, data_source(image)):
        if source is not None and (path := host_path(source)) is not None:
            yield source, path


def _dac_of(seclabels: Sequence[DeviceSeclabel]) -> DeviceSeclabel | None:
    return next((item for item in seclabels if item.model == DAC), None)


def _chardevs(live: DomainDef) -> Iterator[Chardev]:
    devices = live.devices
    yield from devices.serial
    yield from devices.parallel
    # The first console is the first serial port once more.
    yield from devices.console[1:] if devices.serial else devices.console
    yield from devices.channel


def _chardev_labels(chardev: Chardev, rules: Rules) -> Iterator[Label]:
    for source in chardev.source:
        own = _dac_of(source.seclabel)
        if own is not None and own.relabel is False:
            continue
        label = own.label if own is not None else None
        yield from _backend_labels(chardev.type, source, label, rules)


def _backend_labels(kind: ChardevType, source: AnyCharSource, label: str | None, rules: Rules) -> Iterator[Label]:
    text = label or rules.label
    match source:
        case FileCharSource(path=str(path)):
            yield Label(path, text, remember=rules.remember, create=True)
        case PathSource(path=str(path)) if kind is ChardevType.PIPE:
            # Two pipes, one for each direction, or a single one.
            for name in (f"{path}.in", f"{path}.out", path):
                yield Label(name, text, remember=rules.remember, optional=True)
        case PathSource(path=str(path)):
            yield Label(path, text, remember=rules.remember)
        case UnixSource(path=str(path), mode=SocketMode.CONNECT):
            yield Label(path, text, remember=rules.remember)
        case UnixSource(path=str(path)):
            # Made for this guest: there is nothing to give back.
            yield Label(path, text, remember=False, restore=False, optional=True)


def _boot_files(live: DomainDef) -> Iterator[str]:
    boot = live.os
    if boot.nvram is not None:
        path = boot.nvram.path or host_path(boot.nvram.source)
        if path:
            yield path
    for path in (boot.kernel, boot.initrd, boot.dtb, *(table.path for table in boot.acpi)):
        if path:
            yield path
    for block in live.sysinfo:
        if isinstance(block, FwcfgSysinfo):
            yield from (entry.file for entry in block.entry if entry.file)


def _memory_files(live: DomainDef) -> Iterator[str]:
    for memory in live.devices.memory:
        if memory.model in (MemoryModel.NVDIMM, MemoryModel.VIRTIO_PMEM) and memory.source and memory.source.path:
            yield memory.source.path


def opened_paths(live: DomainDef) -> Iterator[tuple[str, bool]]:
    """What a guest opens itself, whoever owns it, with whether it writes there. Pure: nothing is looked up."""
    for disk in live.devices.disk:
        yield from ((path, not disk.readonly) for _, path in _files_of(disk.source))
        store = disk.backing_store
        while store is not None:
            yield from ((path, False) for _, path in _files_of(store.source))
            store = store.backing_store
    for chardev in _chardevs(live):
        for source in chardev.source:
            if path := getattr(source, "path", None):
                yield str(path), True
    for rng in live.devices.rng:
        if path := getattr(rng.backend, "path", None):
            yield str(path), False
    yield from ((path, True) for path in (*_memory_files(live), *_device_nodes(live)))


def _device_nodes(live: DomainDef) -> Iterator[str]:
    """Nodes below /dev that only the guest uses. Those found by sysfs (VFIO, SCSI) are up to who opens them."""
    devices = live.devices
    for hostdev in devices.hostdev:
        if isinstance(hostdev.source, UsbHostdevSource) and hostdev.source.address is not None:
            address = hostdev.source.address
            yield f"/dev/bus/usb/{address.bus or 0:03d}/{address.device or 0:03d}"
    for item in devices.input:
        path = item.source and (item.source.evdev if item.type is InputType.PASSTHROUGH else item.source.dev)
        if path:
            yield path
    for tpm in devices.tpm:
        if isinstance(tpm.backend, TpmPassthrough) and tpm.backend.device:
            yield tpm.backend.device
