"""<capabilities> and <domainCapabilities> of the QEMU driver: reads what they rest on and keeps what can be kept.

One `CapabilityDocuments` per driver. Emulators that cannot be probed are left out of <capabilities>.
"""

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from pyvirtd.core.host import HostInfo, host_arch, kvm_max_vcpus
from pyvirtd.core.host_capabilities import HostDocument, HostIdentity
from pyvirtd.drivers.qemu import cpu, cpu_features
from pyvirtd.drivers.qemu.capabilities import domain, emulators, firmware
from pyvirtd.drivers.qemu.capabilities.cache import CapabilitiesCache
from pyvirtd.drivers.qemu.capabilities.descriptors import directories_key
from pyvirtd.drivers.qemu.capabilities.model import QemuCapabilities
from pyvirtd.errors import VirtError
from pyvirtd.model.capabilities import GuestDescription, GuestMachine, HostCpuDescription, VirtType, Writer
from pyvirtd.util.process import run

log = logging.getLogger(__name__)

HELPER_TIMEOUT_S = 10.0
MADE_MAX = 64
MIGRATION_TRANSPORTS = ("tcp", "rdma")


@dataclass(slots=True)
class _Guests:
    """The written <guest> elements and what they were written from."""

    made_from: tuple[tuple[str, QemuCapabilities], ...]
    text: str


@dataclass(slots=True)
class _Made:
    """A domain capabilities document and what it was made from."""

    caps: QemuCapabilities
    offers: domain.HostOffers
    text: str


class CapabilityDocuments:
    """Answers of ConnectGetCapabilities and ConnectGetDomainCapabilities.

    `nvram` is qemu.conf's setting ("CODE:VARIABLES" each; None: libvirt's default), `identity` what <host> says beyond
    what HostInfo reads.
    """

    def __init__(
        self, cache: CapabilitiesCache, host: HostInfo, identity: HostIdentity, nvram: Iterable[str] | None = None
    ) -> None:
        self.cache = cache
        self.host = host
        self._host_document = HostDocument(host, identity)
        default = domain.HostOffers().loaders
        self._loaders = default if nvram is None else tuple(pair.partition(":")[0] for pair in nvram)
        self._installed: dict[str, str] = {}
        self._installed_key: object = None
        self._guests: _Guests | None = None
        self._cpu: tuple[QemuCapabilities | None, HostCpuDescription] | None = None
        self._firmware: tuple[firmware.Firmware, ...] = ()
        self._firmware_key: object = None
        self._swtpm: tuple[str, ...] | None = None
        self._swtpm_key: object = None
        self._sev_guests: tuple[int, int] | None = None
        self._made: dict[tuple[str, ...], _Made] = {}

    async def host_xml(self) -> str:
        """<capabilities>."""
        found = await self._all_capabilities()
        if self._guests is None or self._guests.made_from != found:
            self._guests = _Guests(found, "".join(_guest_text(arch, caps) for arch, caps in found))
        native = next((caps for arch, caps in found if arch == host_arch()), None)
        host = await self._host_document.format(await self._host_cpu(native))
        return f"<capabilities>\n\n{host}\n{self._guests.text}</capabilities>\n"

    async def domain_xml(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        virt_type: str | None,
        used_emulators: Iterable[str] = (),
    ) -> str:
        """<domainCapabilities>. Raises InvalidArg or ConfigUnsupported with libvirt's words, or the probe's error.

        `used_emulators` are paths that definitions have; other paths must be ones that `emulators.allowed` accepts.
        """
        choice = await self.choice(emulator, arch, machine, virt_type, used_emulators)
        offers = await self._host_offers()
        key = (choice.caps.binary, choice.arch, choice.machine.name, choice.virt_type)
        made = self._made.get(key)
        if made is None or made.caps is not choice.caps or made.offers != offers:
            made = _Made(choice.caps, offers, await asyncio.to_thread(lambda: domain.build(choice, offers).format()))
            if len(self._made) >= MADE_MAX:
                self._made.clear()
            self._made[key] = made
        return made.text

    async def choice(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        virt_type: str | None,
        used_emulators: Iterable[str] = (),
    ) -> domain.Choice:
        """What a client's choice of emulator, architecture, machine and type comes down to. Raises as `domain_xml`."""
        wanted_type = domain.wanted_virt_type(virt_type)
        wanted_arch = domain.wanted_arch(arch)
        path = domain.wanted_emulator(emulator, wanted_arch, await self.installed(), used_emulators)
        return domain.choose(await self.cache.get(path), wanted_arch, wanted_type, machine)

    async def installed(self) -> dict[str, str]:
        """The default emulator of each architecture; looked for again after a program came or went."""
        key = directories_key(emulators.DIRECTORIES)
        if key != self._installed_key:
            self._installed = await asyncio.to_thread(emulators.installed)
            self._installed_key = key
        return self._installed

    async def native(self) -> QemuCapabilities | None:
        """The capabilities of the emulator for the host's own architecture, if it is installed."""
        path = (await self.installed()).get(host_arch())
        return await self.cache.get(path) if path else None

    async def _all_capabilities(self) -> tuple[tuple[str, QemuCapabilities], ...]:
        """Of every architecture whose emulator answers."""
        installed = await self.installed()
        known = {path: self.cache.cached(path) for path in set(installed.values())}
        missing = [path for path, caps in known.items() if caps is None]
        if missing:
            answers = await asyncio.gather(*(self.cache.get(path) for path in missing), return_exceptions=True)
            for path, answer in zip(missing, answers, strict=True):
                if isinstance(answer, QemuCapabilities):
                    known[path] = answer
                elif not isinstance(answer, VirtError):
                    raise answer
        return tuple((arch, caps) for arch, path in installed.items() if (caps := known[path]) is not None)

    async def _host_cpu(self, native: QemuCapabilities | None) -> HostCpuDescription:
        if self._cpu is None or self._cpu[0] is not native:
            self._cpu = (native, await asyncio.to_thread(_describe_host_cpu, native))
        return self._cpu[1]

    async def _host_offers(self) -> domain.HostOffers:
        key = directories_key(firmware.DIRECTORIES)
        if key != self._firmware_key:
            self._firmware = await asyncio.to_thread(firmware.read)
            self._firmware_key = key
        if self._sev_guests is None:
            self._sev_guests = await asyncio.to_thread(cpu_features.read_sev_guests)
        return domain.HostOffers(
            firmware=self._firmware,
            loaders=self._loaders,
            swtpm=await self._swtpm_versions(),
            vfio=os.access("/dev/vfio/vfio", os.F_OK) and await self.host.has_iommu(),
            kvm_max_vcpus=_kvm_max_vcpus(),
            sev_guests=self._sev_guests,
        )

    async def _swtpm_versions(self) -> tuple[str, ...] | None:
        """The versions swtpm emulates; None if it is not installed. Its helper is asked once per build of it."""
        helper = shutil.which("swtpm_setup")
        if helper is None or shutil.which("swtpm") is None:
            return None
        key = (helper, os.stat(helper).st_mtime_ns)
        if key != self._swtpm_key:
            self._swtpm = await _ask_swtpm(helper)
            self._swtpm_key = key
        return self._swtpm


def _describe_host_cpu(native: QemuCapabilities | None) -> HostCpuDescription:
    """What the processor says; only x86 says enough to name it."""
    arch = host_arch()
    if arch not in cpu.X86:
        return HostCpuDescription(arch)
    host = cpu_features.read_host()
    return HostCpuDescription(
        arch,
        cpu.describe_host(native, host),
        microcode=host.microcode,
        signature=(host.family, host.model, host.stepping),
        physical_bits=host.physical_bits,
    )


def _guest_text(arch: str, caps: QemuCapabilities) -> str:
    out = Writer(depth=1)
    types = [t for t in (VirtType.QEMU, VirtType.KVM) if caps.accelerator(t) is not None]
    GuestDescription(
        arch=arch,
        word_size=emulators.ARCHITECTURES[arch],
        emulator=caps.binary,
        machines=tuple(_guest_machines(caps)),
        domain_types=tuple(types),
        pae=arch == "i686",
        acpi=arch in (*cpu.X86, "aarch64"),
        apic=arch in cpu.X86,
    ).write(out)
    return out.take() + "\n"


def _guest_machines(caps: QemuCapabilities) -> Iterable[GuestMachine]:
    """The default machine first, each alias behind its machine."""
    default = caps.default_machine()
    for machine in sorted(caps.machines(), key=lambda m: m.name != default):
        yield GuestMachine(machine.name, None, machine.max_cpus, machine.deprecated)
        if machine.alias:
            yield GuestMachine(machine.alias, machine.name, machine.max_cpus, machine.deprecated)


def _kvm_max_vcpus() -> int:
    try:
        return kvm_max_vcpus()
    except VirtError:
        return 0


async def _ask_swtpm(helper: str) -> tuple[str, ...]:
    """Versions in the helper's list of features; none if it does not answer."""
    try:
        answer = await run([helper, "--print-capabilities"], timeout=HELPER_TIMEOUT_S)
        features = json.loads(answer.stdout)["features"]
    except (OSError, VirtError, ValueError, KeyError, TypeError) as exc:
        log.info("Cannot ask %s for its abilities: %r", helper, exc)
        return ()
    return tuple(version for version in ("1.2", "2.0") if f"tpm-{version}" in features)
