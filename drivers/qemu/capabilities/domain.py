"""What an emulator offers a guest: <domainCapabilities>, worked out from its capabilities and the host's helpers.

The functions here check what a client asked for and write the document; finding and asking is `documents`.
Format: https://libvirt.org/formatdomaincaps.html
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.core.host import host_arch
from pyvirtd.drivers.qemu import cpu
from pyvirtd.drivers.qemu.capabilities import emulators
from pyvirtd.drivers.qemu.capabilities.firmware import DEFAULT_LOADERS, Firmware
from pyvirtd.drivers.qemu.capabilities.model import Machine, QemuCapabilities
from pyvirtd.errors import ConfigUnsupported, InvalidArg
from pyvirtd.model.capabilities import CapsEnum, CpuModelOffer, CpuModes, DomainCapabilities, Offer, VirtType

ARM = ("armv6l", "armv7l", "aarch64")
ALL_HYPERV = (
    "relaxed", "vapic", "spinlocks", "vpindex", "runtime", "synic", "stimer", "reset", "vendor_id", "frequencies",
    "reenlightenment", "tlbflush", "ipi", "evmcs", "avic",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostOffers:
    """What the host adds to an emulator's own abilities.

    `loaders` are those used where no firmware descriptor fits; `swtpm` the versions of TPM that swtpm can emulate
    (None: it is not installed); `sev_guests` how many guests of SEV and SEV-ES the processor takes.
    """

    firmware: tuple[Firmware, ...] = ()
    loaders: tuple[str, ...] = tuple(code for code, _ in DEFAULT_LOADERS)
    swtpm: tuple[str, ...] | None = None
    vfio: bool = False
    kvm_max_vcpus: int = 0
    sev_guests: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a request comes down to: an emulator, an architecture, a full machine name and a domain type."""

    caps: QemuCapabilities
    arch: str
    machine: Machine
    virt_type: VirtType


def wanted_virt_type(word: str | None) -> VirtType | None:
    """The domain type a client named; None if it left the choice. Raises InvalidArg."""
    if word is None:
        return None
    try:
        found = VirtType(word)
    except ValueError as exc:
        raise InvalidArg(f"unknown virttype: {word}", domain=ErrorDomain.QEMU) from exc
    return None if found is VirtType.NONE else found


def wanted_arch(word: str | None) -> str:
    """The architecture a client named, by default the host's. Raises InvalidArg."""
    if word is None:
        return host_arch()
    if word not in emulators.ARCHITECTURES:
        raise InvalidArg(f"unknown architecture: {word}", domain=ErrorDomain.QEMU)
    return word


def wanted_emulator(path: str | None, arch: str, installed: dict[str, str], used: Iterable[str] = ()) -> str:
    """The binary to ask. Raises ConfigUnsupported if there is none, and what `emulators.allowed` raises."""
    if path is not None:
        return emulators.allowed(path, frozenset(used))
    if arch not in installed:
        raise ConfigUnsupported(f"unable to find any emulator to serve '{arch}' architecture", domain=ErrorDomain.QEMU)
    return installed[arch]


def choose(caps: QemuCapabilities, arch: str, virt_type: VirtType | None, machine: str | None) -> Choice:
    """Check a request against an emulator, in libvirt's order and words. Raises InvalidArg."""
    if not emulators.same_family(caps.arch, arch):
        raise InvalidArg(
            f"architecture from emulator '{caps.arch}' doesn't match given architecture '{arch}'",
            domain=ErrorDomain.QEMU,
        )
    if virt_type is None:
        virt_type = next(iter(caps.virt_types()), VirtType.QEMU)
    elif virt_type is VirtType.KVM and caps.kvm is None:
        raise InvalidArg(f"the accel 'kvm' is not supported by '{caps.binary}' on this host", domain=ErrorDomain.QEMU)
    side = virt_type if caps.accelerator(virt_type) else None
    name = machine or caps.default_machine(side) or ""
    found = caps.machine(name, side)
    if found is None:
        raise InvalidArg(f"the machine '{name}' is not supported by emulator '{caps.binary}'", domain=ErrorDomain.QEMU)
    if not emulators.serves(caps.arch, arch):
        raise InvalidArg(f"Emulator '{caps.binary}' does not support arch '{arch}'", domain=ErrorDomain.QEMU)
    if caps.accelerator(virt_type) is None:
        raise InvalidArg(f"Emulator '{caps.binary}' does not support virt type '{virt_type}'", domain=ErrorDomain.QEMU)
    return Choice(caps, arch, found, virt_type)


def build(choice: Choice, host: HostOffers) -> DomainCapabilities:
    """The document for a checked choice."""
    caps, arch, machine = choice.caps, choice.arch, choice.machine
    firmware = [f for f in host.firmware if f.fits(arch, machine.name)]
    return DomainCapabilities(
        path=caps.binary,
        virt_type=choice.virt_type,
        machine=machine.name,
        arch=arch,
        max_vcpus=max_vcpus(choice, host),
        iothreads=caps.has_device("iothread"),
        firmware=CapsEnum("firmware", tuple(k for k in ("bios", "efi") if any(k in f.kinds for f in firmware))),
        loader=_loader(firmware, host),
        cpu=_cpu(choice),
        memory_backing=_memory_backing(caps),
        devices=tuple(_devices(choice, host)),
        features=tuple(_features(choice, host)),
    )


def max_vcpus(choice: Choice, host: HostOffers) -> int:
    """What the machine takes, and KVM gives."""
    if choice.virt_type is VirtType.KVM and host.kvm_max_vcpus:
        return min(choice.machine.max_cpus, host.kvm_max_vcpus)
    return choice.machine.max_cpus


def _present(words: dict[str, bool]) -> tuple[str, ...]:
    return tuple(word for word, here in words.items() if here)


def _loader(firmware: list[Firmware], host: HostOffers) -> Offer:
    paths = [f.executable for f in firmware] or host.loaders
    secure = any(f.secure for f in firmware)
    return Offer(
        "loader",
        supported=True,
        values=tuple(dict.fromkeys(path for path in paths if os.path.exists(path))),
        enums=(
            CapsEnum("type", ("rom", "pflash")),
            CapsEnum("readonly", ("yes", "no")),
            CapsEnum("secure", ("yes", "no") if secure else ("no",)),
        ),
    )


def _cpu(choice: Choice) -> CpuModes:
    caps, arch, virt_type = choice.caps, choice.arch, choice.virt_type
    native = virt_type is VirtType.KVM and emulators.serves(host_arch(), arch)
    has_max = any(m.name == "max" for m in caps.cpu_models(virt_type))
    offers = tuple(
        CpuModelOffer(m.name, m.usable, cpu.vendor_of(caps, m.name, arch), m.deprecated)
        for m in cpu.usable_names(caps, virt_type, arch)
    )
    return CpuModes(
        host_passthrough=native,
        maximum=has_max and arch in (*cpu.X86, *ARM, "s390x"),
        host_model=cpu.describe_guest(caps, virt_type) if arch in cpu.X86 else None,
        models=offers or None,
    )


def _memory_backing(caps: QemuCapabilities) -> Offer:
    sources = _present(
        {
            "file": caps.has_device("memory-backend-file"),
            "anonymous": True,
            "memfd": caps.has_property("memory-backend-memfd", "hugetlb"),
        }
    )
    return Offer("memoryBacking", supported=True, enums=(CapsEnum("sourceType", sources),))


def _devices(choice: Choice, host: HostOffers) -> Iterable[Offer]:
    caps, has = choice.caps, choice.caps.has_device
    yield _disk(choice)
    yield Offer("graphics", supported=True, enums=(CapsEnum("type", _graphics(caps)),))
    video = {
        "vga": has("VGA"),
        "cirrus": has("cirrus-vga"),
        "vmvga": has("vmware-svga"),
        "qxl": has("qxl"),
        "virtio": any(has(f"virtio-gpu-{kind}") for kind in ("pci", "ccw", "device")),
        "none": True,
        "bochs": has("bochs-display"),
        "ramfb": has("ramfb"),
    }
    yield Offer("video", supported=True, enums=(CapsEnum("modelType", _present(video)),))
    yield _hostdev(caps, host)
    rng = {"random": has("rng-random"), "egd": has("rng-egd"), "builtin": has("rng-builtin")}
    models = _virtio_models(caps, "virtio-rng") if has("virtio-rng-device") else ()
    yield Offer("rng", supported=True, enums=(CapsEnum("model", models), CapsEnum("backendModel", _present(rng))))
    drivers = {"path": True, "handle": True, "virtiofs": has("vhost-user-fs-device")}
    yield Offer("filesystem", supported=True, enums=(CapsEnum("driverType", _present(drivers)),))
    yield _tpm(caps, host)
    yield Offer("redirdev", supported=has("usb-redir"), enums=(CapsEnum("bus", ("usb",)),))
    channels = {"pty": True, "unix": True, "spicevmc": caps.supports("query-spice")}
    yield Offer("channel", supported=True, enums=(CapsEnum("type", _present(channels)),))


def _disk(choice: Choice) -> Offer:
    caps, name = choice.caps, choice.machine.name
    # the pseries machines have no floppy controller
    floppy = not name.startswith("pseries")
    buses = {
        "ide": name.startswith(("pc-i440fx-", "pc-0.", "pc-1.")) or name in ("malta", "sun4u", "g3beige"),
        "fdc": floppy,
        "scsi": True,
        "virtio": True,
        "usb": caps.has_device("usb-storage"),
        "sata": caps.has_device("ich9-ahci"),
    }
    kinds = {"disk": True, "cdrom": True, "floppy": floppy, "lun": True}
    return Offer(
        "disk",
        supported=True,
        enums=(
            CapsEnum("diskDevice", _present(kinds)),
            CapsEnum("bus", _present(buses)),
            CapsEnum("model", _virtio_models(caps, "virtio-blk")),
        ),
    )


def _virtio_models(caps: QemuCapabilities, device: str) -> tuple[str, ...]:
    split = caps.has_device(f"{device}-pci-non-transitional")
    return ("virtio", "virtio-transitional", "virtio-non-transitional") if split else ("virtio",)


def _graphics(caps: QemuCapabilities) -> tuple[str, ...]:
    return _present(
        {
            "sdl": caps.supports("query-display-options->type=sdl"),
            "vnc": caps.supports("query-vnc"),
            "spice": caps.supports("query-spice"),
            "egl-headless": caps.supports("query-display-options->type=egl-headless"),
            "dbus": caps.supports("query-display-options->type=dbus"),
        }
    )


def _hostdev(caps: QemuCapabilities, host: HostOffers) -> Offer:
    kinds = {"usb": caps.has_device("usb-host"), "pci": True, "scsi": True}
    backends = ("default", "vfio") if host.vfio and caps.has_device("vfio-pci") else ()
    return Offer(
        "hostdev",
        supported=True,
        enums=(
            CapsEnum("mode", ("subsystem",)),
            CapsEnum("startupPolicy", ("default", "mandatory", "requisite", "optional")),
            CapsEnum("subsysType", _present(kinds)),
            CapsEnum("capsType", ()),
            CapsEnum("pciBackend", backends),
        ),
    )


def _tpm(caps: QemuCapabilities, host: HostOffers) -> Offer:
    models = {
        "tpm-tis": "tpm-tis" in caps.tpm_models or caps.has_device("tpm-tis-device"),
        "tpm-crb": "tpm-crb" in caps.tpm_models,
        "tpm-spapr": "tpm-spapr" in caps.tpm_models,
        "spapr-tpm-proxy": caps.has_device("spapr-tpm-proxy"),
    }
    emulated = "emulator" in caps.tpm_types
    backends = {
        "passthrough": "passthrough" in caps.tpm_types,
        "emulator": emulated and host.swtpm is not None,
        "external": emulated,
    }
    versions = host.swtpm or () if emulated else ()
    enums = (
        CapsEnum("model", _present(models)),
        CapsEnum("backendModel", _present(backends)),
        CapsEnum("backendVersion", versions),
    )
    return Offer("tpm", supported=bool(_present(models)) and bool(caps.tpm_types), enums=enums)


def _features(choice: Choice, host: HostOffers) -> Iterable[Offer]:
    caps, arch = choice.caps, choice.arch
    gic: tuple[str, ...] = ()
    if arch in ARM and (choice.machine.name == "virt" or choice.machine.name.startswith("virt-")):
        kvm = choice.virt_type is VirtType.KVM
        gic = tuple(sorted({str(g.version) for g in caps.gic if (g.kernel if kvm else g.emulated)}))
    yield Offer("gic", supported=bool(gic), enums=(CapsEnum("version", gic),))
    yield Offer("vmcoreinfo", supported=caps.has_device("vmcoreinfo"))
    yield Offer("genid", supported=caps.has_device("vmgenid"))
    yield Offer("backingStoreInput", supported=True)
    yield Offer("backup", supported=caps.supports("blockdev-reopen"))
    if arch == "s390x":
        yield Offer("s390-pv", supported=False)
    yield _sev(caps, host)
    yield _sgx(caps)
    if arch in cpu.X86:
        side = caps.accelerator(choice.virt_type)
        known = side.host_cpu.hyperv if side and side.host_cpu else frozenset()
        names = tuple(name for name in ALL_HYPERV if name in known)
        yield Offer("hyperv", supported=bool(names), enums=(CapsEnum("features", names),))


def _sev(caps: QemuCapabilities, host: HostOffers) -> Offer:
    if caps.sev is None:
        return Offer("sev", supported=False)
    plain, encrypted_state = host.sev_guests
    numbers = (
        ("cbitpos", str(caps.sev.cbitpos), None),
        ("reducedPhysBits", str(caps.sev.reduced_phys_bits), None),
        ("maxGuests", str(plain), None),
        ("maxESGuests", str(encrypted_state), None),
    )
    return Offer("sev", supported=True, numbers=numbers)


def _sgx(caps: QemuCapabilities) -> Offer:
    if caps.sgx is None:
        return Offer("sgx", supported=False)
    sgx = caps.sgx
    switches = (("flc", sgx.flc), ("sgx1", sgx.sgx1), ("sgx2", sgx.sgx2))
    numbers = [(name, "yes" if on else "no", None) for name, on in switches]
    return Offer("sgx", supported=True, numbers=(*numbers, ("section_size", str(sgx.section_size_kib), "KiB")))
