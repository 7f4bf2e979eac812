"""Whether a changed definition still describes the same guest, as a guest that runs or is saved would see it.

A definition that comes with a saved or a migrating guest may move files, networks and consoles on the host; it may
not change the machine that the guest already knows. Every field of the domain's document counts as seen by the guest
unless HOST_SIDE says otherwise, so a field that is new to the model is compared from the start.
"""

from typing import Any, NamedTuple

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model import address, chardev, cpu, devices, disk, features, graphics, hostdev, net, os, sound
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import Element, Field
from pyvirtd.xml.plan import flatten

_BACKEND = {"type", "source", "protocol", "log"}

# What only the host knows: paths, limits, placement, policies, and what the guest meets at its next boot.
HOST_SIDE: dict[type[Element], set[str]] = {
    DomainDef: {
        "id", "title", "description", "metadata", "blkiotune", "memtune", "vcpus", "iothreads", "iothreadids",
        "defaultiothread", "cputune", "numatune", "resource", "bootloader", "bootloader_args", "idmap", "on_poweroff",
        "on_reboot", "on_crash", "on_lockfailure", "pm", "perf", "seclabel", "qemu_commandline", "qemu_capabilities",
        "qemu_override", "qemu_deprecation", "lxc_namespace", "throttlegroups",
    },
    cpu.Memory: {"dump_core"},
    cpu.MemoryBacking: {"hugepages", "nosharepages", "locked", "access", "allocation", "discard"},
    cpu.Vcpu: {"placement", "cpuset", "current"},
    cpu.Cpu: {"match"},
    cpu.CpuModel: {"fallback"},
    cpu.NumaCell: {"mem_access", "discard"},
    os.Os: {
        "firmware_type", "init", "initarg", "initenv", "initdir", "inituser", "initgroup", "firmware", "loader",
        "nvram", "kernel", "initrd", "cmdline", "dtb", "root", "acpi", "boot", "bootmenu", "bios",
    },
    os.SysinfoEntry: {"file"},
    features.Features: {"msrs", "tcg"},
    features.Clock: {"offset", "adjustment", "basis", "timezone", "start"},
    features.Timer: {"tickpolicy", "track", "catchup"},
    devices.Devices: {"emulator", "lease", "graphics", "audio"},
    address.DeviceInfo: {"boot", "rom", "alias"},
    address.PciAddress: {"multifunction"},
    disk.Disk: {
        "type", "rawio", "sgio", "snapshot", "auth", "source", "backing_store", "backenddomain", "mirror", "iotune",
        "throttlefilters", "shareable", "transient", "encryption", "private_data",
    },
    disk.DiskDriver: {
        "name", "type", "cache", "error_policy", "rerror_policy", "io", "ioeventfd", "copy_on_read", "discard",
        "iothread", "detect_zeroes", "metadata_cache",
    },
    disk.DiskTarget: {"tray"},
    devices.Controller: {"pcihole64_kib"},
    devices.ControllerDriver: {"ioeventfd", "iothread", "cmd_per_lun", "max_sectors"},
    devices.Filesystem: {
        "type", "accessmode", "multidevs", "fmode", "dmode", "binary", "source", "space_hard_limit",
        "space_soft_limit",
    },
    devices.FilesystemDriver: {"format_", "wrpolicy"},
    net.Interface: {
        "type", "managed", "trust_guest_rx_filters", "source", "vlan", "virtualport", "bandwidth", "isolated", "ip",
        "route", "port_forward", "script", "downscript", "backenddomain", "target", "guest", "backend", "filterref",
        "tune", "link", "coalesce",
    },
    net.InterfaceMac: {"type", "check"},
    net.InterfaceDriver: {"name", "txmode", "ioeventfd"},
    chardev.Smartcard: {*_BACKEND, "certificate", "database"},
    chardev.Chardev: _BACKEND,
    chardev.Redirdev: {"source", "protocol", "log"},
    chardev.Rng: {"rate", "backend"},
    chardev.TpmPassthrough: {"device"},
    chardev.TpmEmulator: {"persistent_state", "encryption", "active_pcr_banks", "debug", "source"},
    chardev.TpmExternal: {"source"},
    sound.Sound: {"audio"},
    graphics.VideoDriver: {"name"},
    graphics.VideoModel: {"primary"},
    graphics.Acceleration: {"rendernode"},
    graphics.Input: {"source"},
    hostdev.Hostdev: {"managed", "sgio", "rawio", "driver", "source", "ip", "route", "readonly", "shareable"},
    devices.Watchdog: {"action"},
    devices.Memballoon: {"stats_period"},
    devices.Shmem: {"name"},
    devices.ShmemServer: {"path"},
    devices.MemoryDevice: {"access", "discard"},
    devices.MemoryDeviceSource: {"path", "nodemask", "pagesize_kib"},
    devices.Vsock: {"cid"},
}  # fmt: skip

# Elements that say nothing by being there: one without values is as good as none.
_TRANSPARENT: tuple[type[Element], ...] = (
    address.VirtioDriver,
    cpu.MemoryBacking,
    devices.ControllerDriver,
    devices.FilesystemDriver,
    devices.IommuDriver,
    devices.MemoryDeviceSource,
    disk.Blockio,
    disk.DiskDriver,
    disk.Geometry,
    graphics.VideoDriver,
    net.GuestOffload,
    net.HostOffload,
    net.InterfaceDriver,
)

# What messages call an element; others go by their place in the document.
_NOUNS: dict[type[Element], str] = {
    cpu.Cpu: "CPU",
    net.Interface: "network card",
    graphics.Video: "video card",
    graphics.VideoModel: "video card",
    sound.Sound: "sound card",
    graphics.Input: "input device",
    chardev.Serial: "serial port",
    chardev.Parallel: "parallel port",
    chardev.Redirdev: "redirected device",
    chardev.Rng: "RNG device",
    chardev.Tpm: "TPM device",
    devices.Hub: "hub device",
    devices.Memballoon: "balloon",
    devices.Shmem: "shared memory device",
    devices.MemoryDevice: "memory device",
    devices.Iommu: "IOMMU device",
    devices.Panic: "panic device",
    hostdev.Redirfilter: "USB redirection filter",
    hostdev.Hostdev: "host device",
}

# What messages call a field; others go by their names in the document.
_WORDS: dict[tuple[type[Element], str], str] = {
    (DomainDef, "type"): "domain virt type",
    (DomainDef, "current_memory_kib"): "domain current memory",
    (cpu.Memory, "kib"): "domain max memory",
    (cpu.MaxMemory, "slots"): "domain memory slots count",
    (cpu.MaxMemory, "kib"): "maximum memory size",
    (cpu.Vcpu, "count"): "domain vCPU max",
    (cpu.Cpu, "model"): "CPU model",
    (cpu.CpuModel, "name"): "CPU model",
    (os.OsType, "arch"): "domain architecture",
    (os.OsType, "machine"): "domain machine type",
    (os.OsType, "name"): "domain OS type",
    (os.Os, "smbios"): "domain SMBIOS mode",
    (disk.DiskTarget, "dev"): "disk",
    (disk.DiskTarget, "bus"): "disk bus",
    (disk.Disk, "readonly"): "disk access mode",
    (net.InterfaceMac, "address"): "network card mac",
    (net.Interface, "mtu"): "network card MTU",
    (graphics.VideoModel, "type"): "video card model",
    (address.DeviceInfo, "acpi_index"): "ACPI index",
}

_FEATURES: dict[type[Element], str] = {
    features.Features: "feature",
    features.Hyperv: "HyperV enlightenment feature",
    features.Kvm: "KVM feature",
    features.Xen: "Xen feature",
}

_DOMAINS: dict[type[Element], ErrorDomain] = {
    cpu.Cpu: ErrorDomain.CPU,
    os.SmbiosSysinfo: ErrorDomain.SYSINFO,
    os.FwcfgSysinfo: ErrorDomain.SYSINFO,
}


class Place(NamedTuple):
    """Where in the documents we are, in words for a message, and which part of libvirt such an error comes from."""

    subject: str
    domain: ErrorDomain

    def into(self, kind: type[Element], name: str) -> "Place":
        """The place of a child."""
        if issubclass(kind, devices.Devices):
            return self
        general = "" if self.subject == "domain" else self.subject + " "
        own = "" if issubclass(kind, address.Device) else general
        return Place(_NOUNS.get(kind) or own + name, _DOMAINS.get(kind, self.domain))


def check_abi(old: DomainDef, new: DomainDef) -> None:
    """Refuse `new` where the guest of `old` would notice the difference. Both are complete definitions.

    Raises ConfigUnsupported that names the field and both values.
    """
    if _online(old) != _online(new):
        first = min(_online(old) ^ _online(new))
        raise ConfigUnsupported(
            f"State of vCPU '{first}' differs between source and destination definitions", domain=ErrorDomain.DOMAIN
        )
    _compare(old, new, Place("domain", ErrorDomain.DOMAIN))


def _online(definition: DomainDef) -> set[int]:
    if definition.vcpus:
        return {one.id for one in definition.vcpus if one.enabled}
    return set(range(definition.vcpu.current or definition.vcpu.count))


def host_side(kind: type[Element]) -> frozenset[str]:
    """The fields of a class that the guest does not see, its bases' included."""
    return frozenset().union(*(HOST_SIDE.get(base, ()) for base in kind.__mro__ if issubclass(base, Element)))


def _compare(old: Element, new: Element, place: Place) -> None:
    kind = type(old)
    hidden = host_side(kind)
    for field in kind.fields():
        name = field.attribute
        if name in hidden or field.view:  # what exists in one run only is no part of a definition
            continue
        before, after = _value(old, name), _value(new, name)
        if field.kind == "group":
            _compare(before, after, place)
        elif isinstance(before, list):
            _compare_lists(kind, field, before, after, place)
        elif isinstance(before, Element) or isinstance(after, Element):
            _compare_children(kind, field, before, after, place)
        elif before != after:
            raise _mismatch(kind, field, before, after, place)


def _value(owner: Element, name: str) -> Any:
    value = getattr(owner, name)
    if isinstance(owner, DomainDef) and name == "current_memory_kib":
        return value or owner.memory.kib
    return value


def _compare_children(kind: type[Element], field: Field, before: Any, after: Any, place: Place) -> None:
    present = before if before is not None else after
    if isinstance(present, _TRANSPARENT):
        before = before if before is not None else type(present)()
        after = after if after is not None else type(present)()
    if type(before) is not type(after):
        raise _mismatch(kind, field, before, after, place)
    if isinstance(before, address.Address):
        if _place_words(before) != _place_words(after):
            raise ConfigUnsupported(
                f"Target device {before.case[0]} address {_place_words(after)} does not match source"
                f" {_place_words(before)}",
                domain=place.domain,
            )
        return
    _compare(before, after, place.into(type(before), _name(field)))


def _compare_lists(kind: type[Element], field: Field, before: list[Any], after: list[Any], place: Place) -> None:
    if len(before) != len(after):
        noun = next((_NOUNS[type(one)] for one in [*before, *after] if type(one) in _NOUNS), _name(field))
        raise ConfigUnsupported(
            f"Target {place.subject} {noun} count {len(after)} does not match source {len(before)}",
            domain=place.domain,
        )
    for first, second in zip(before, after, strict=True):
        if isinstance(first, Element) and type(first) is type(second):
            _compare(first, second, place.into(type(first), _name(field)))
        elif first != second:
            raise _mismatch(kind, field, first, second, place)


def _place_words(place: Element) -> str:
    """An address by the numbers that the guest sees: "0000:00:02.0" on PCI."""
    if isinstance(place, address.PciAddress) and place.zpci is None:
        return f"{place.domain:04x}:{place.bus:02x}:{place.slot:02x}.{place.function}"
    hidden = host_side(type(place))
    shown = [(field, getattr(place, field.attribute)) for field in type(place).fields()]
    return ":".join(_word(type(place), field, value) for field, value in shown if field.attribute not in hidden)


def _name(field: Field) -> str:
    return field.inside or field.name or field.attribute.rstrip("_").replace("_", " ")


def _codecs(kind: type[Element]) -> dict[str, Any]:
    return {slot.field.attribute: slot.shape.codec for slot in flatten(kind)[0] if not slot.group}


def _word(kind: type[Element], field: Field, value: Any) -> str:
    if value is None:
        return "none"
    codec = _codecs(kind).get(field.attribute)
    if field.kind == "flag" or codec is None:
        return "on" if value else "default"
    return str(codec.show(value))


def _mismatch(kind: type[Element], field: Field, before: Any, after: Any, place: Place) -> ConfigUnsupported:
    family = _FEATURES.get(kind)
    if family is not None:
        old, new = (_word(kind, field, one) if one is not None else "default" for one in (before, after))
        return ConfigUnsupported(
            f"State of {family} '{_name(field)}' differs: source: '{old}', destination: '{new}'", domain=place.domain
        )
    subject = _WORDS.get((kind, field.attribute)) or f"{place.subject} {_name(field)}"
    if isinstance(before, Element) or isinstance(after, Element) or field.kind == "flag":
        return ConfigUnsupported(f"Target {subject} does not match source", domain=place.domain)
    old, new = _word(kind, field, before), _word(kind, field, after)
    if new == old:
        return ConfigUnsupported(f"Target {subject} does not match source", domain=place.domain)
    return ConfigUnsupported(f"Target {subject} {new} does not match source {old}", domain=place.domain)
