"""The documents <capabilities>, <domainCapabilities> and <sysinfo>: values in, libvirt's text out.

Formats: https://libvirt.org/formatcaps.html, https://libvirt.org/formatdomaincaps.html,
https://libvirt.org/formatdomain.html#smbios-system-information
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

from pyvirtd.xml.printer import escape


class VirtType(StrEnum):
    """Words of <domain type='…'>; which of them work is up to the drivers."""

    NONE = "none"
    QEMU = "qemu"
    KQEMU = "kqemu"
    KVM = "kvm"
    XEN = "xen"
    LXC = "lxc"
    UML = "uml"
    OPENVZ = "openvz"
    TEST = "test"
    VMWARE = "vmware"
    HYPERV = "hyperv"
    VBOX = "vbox"
    PHYP = "phyp"
    PARALLELS = "parallels"
    BHYVE = "bhyve"
    VZ = "vz"


class Writer:
    """Lines of XML as libvirt lays them out: two spaces a level, single quotes. Attributes of None are left out."""

    def __init__(self, depth: int = 0) -> None:
        self._lines: list[str] = []
        self._indent = "  " * depth

    def empty(self, tag: str, **attributes: object) -> None:
        """<tag .../>"""
        self._lines.append(f"{self._indent}<{tag}{_attributes(attributes)}/>")

    def text(self, tag: str, value: object, **attributes: object) -> None:
        """<tag ...>value</tag>"""
        self._lines.append(f"{self._indent}<{tag}{_attributes(attributes)}>{escape(str(value))}</{tag}>")

    @contextmanager
    def element(self, tag: str, **attributes: object) -> Iterator[None]:
        """An element with children; it is written as open and close even if there are none."""
        self.open(tag, **attributes)
        yield
        self.close(tag)

    def open(self, tag: str, **attributes: object) -> None:
        """The start of an element whose end is written elsewhere."""
        self._lines.append(f"{self._indent}<{tag}{_attributes(attributes)}>")
        self._indent += "  "

    def close(self, tag: str) -> None:
        """The end that belongs to `open`."""
        self._indent = self._indent[:-2]
        self._lines.append(f"{self._indent}</{tag}>")

    def take(self) -> str:
        """The document, with the end of its last line."""
        return "\n".join(self._lines) + "\n"


def yes_no(value: bool) -> str:
    """The words of most of libvirt's switches."""
    return "yes" if value else "no"


def _attributes(attributes: dict[str, object]) -> str:
    # Python's own words as attribute names end in an underscore here (`class_`)
    return "".join(f" {n.rstrip('_')}='{escape(str(v))}'" for n, v in attributes.items() if v is not None)


class CpuFeaturePolicy(NamedTuple):
    """A feature and what is wanted of it: "require" or "disable"."""

    name: str
    policy: str


class NamedCpu(NamedTuple):
    """A CPU as a model and its differences from it, in libvirt's order. Without a model it is its features alone."""

    model: str | None
    vendor: str | None
    features: tuple[CpuFeaturePolicy, ...]


class HostCpuDescription(NamedTuple):
    """<host><cpu>: what the host's processors are. Numbers that this machine does not tell are None."""

    arch: str
    cpu: NamedCpu | None = None
    microcode: int | None = None
    signature: tuple[int, int, int] | None = None  # family, model, stepping
    tsc_hz: int | None = None
    tsc_scaling: bool | None = None
    sockets: int = 1
    cores: int = 1
    threads: int = 1
    physical_bits: int | None = None
    page_sizes_kib: tuple[int, ...] = ()

    def write(self, out: Writer) -> None:
        with out.element("cpu"):
            out.text("arch", self.arch)
            if self.cpu and self.cpu.model:
                out.text("model", self.cpu.model)
            if self.cpu and self.cpu.vendor:
                out.text("vendor", self.cpu.vendor)
            if self.microcode:
                out.empty("microcode", version=self.microcode)
            if self.signature:
                family, model, stepping = self.signature
                out.empty("signature", family=family, model=model, stepping=stepping)
            if self.tsc_hz:
                scaling = None if self.tsc_scaling is None else yes_no(self.tsc_scaling)
                out.empty("counter", name="tsc", frequency=self.tsc_hz, scaling=scaling)
            out.empty("topology", sockets=self.sockets, dies=1, cores=self.cores, threads=self.threads)
            if self.physical_bits:
                out.empty("maxphysaddr", mode="emulate", bits=self.physical_bits)
            for feature in self.cpu.features if self.cpu else ():
                out.empty("feature", name=feature.name)
            for size in self.page_sizes_kib:
                out.empty("pages", unit="KiB", size=size)


class SecurityModelDescription(NamedTuple):
    """<secmodel>: `labels` are (domain type, label) of guests that bring none of their own."""

    model: str
    doi: str
    labels: tuple[tuple[str, str], ...] = ()

    def write(self, out: Writer) -> None:
        with out.element("secmodel"):
            out.text("model", self.model)
            out.text("doi", self.doi)
            for virt_type, label in self.labels:
                out.text("baselabel", label, type=virt_type)


class GuestMachine(NamedTuple):
    """<machine> in <guest>; an alias names its full machine as canonical."""

    name: str
    canonical: str | None
    max_cpus: int
    deprecated: bool


class GuestDescription(NamedTuple):
    """<guest>: one architecture of fully virtualized guests and the emulator for it."""

    arch: str
    word_size: int
    emulator: str
    machines: tuple[GuestMachine, ...]
    domain_types: tuple[VirtType, ...]
    pae: bool
    acpi: bool
    apic: bool

    def write(self, out: Writer) -> None:
        with out.element("guest"):
            out.text("os_type", "hvm")
            with out.element("arch", name=self.arch):
                out.text("wordsize", self.word_size)
                out.text("emulator", self.emulator)
                for machine in self.machines:
                    deprecated = "yes" if machine.deprecated else None
                    shape = {"canonical": machine.canonical, "maxCpus": machine.max_cpus or None}
                    out.text("machine", machine.name, **shape, deprecated=deprecated)
                for virt_type in self.domain_types:
                    out.empty("domain", type=virt_type)
            with out.element("features"):
                if self.pae:
                    out.empty("pae")
                    out.empty("nonpae")
                if self.acpi:
                    out.empty("acpi", default="on", toggle="yes")
                if self.apic:
                    out.empty("apic", default="on", toggle="no")
                out.empty("cpuselection")
                out.empty("deviceboot")
                out.empty("disksnapshot", default="on", toggle="no")


class CapsEnum(NamedTuple):
    """<enum name='…'> and its values; without values it is still shown."""

    name: str
    values: tuple[str, ...]

    def write(self, out: Writer) -> None:
        if not self.values:
            out.empty("enum", name=self.name)
            return
        with out.element("enum", name=self.name):
            for value in self.values:
                out.text("value", value)


class Offer(NamedTuple):
    """An element of the domain capabilities that is offered or not, and its choices: <disk supported='yes'>…</disk>.

    `values` stand before the enumerations, `numbers` are child elements (name, value, unit).
    """

    tag: str
    supported: bool
    enums: tuple[CapsEnum, ...] = ()
    values: tuple[str, ...] = ()
    numbers: tuple[tuple[str, str, str | None], ...] = ()

    def write(self, out: Writer) -> None:
        if not self.supported or not (self.enums or self.values or self.numbers):
            out.empty(self.tag, supported=yes_no(self.supported))
            return
        with out.element(self.tag, supported="yes"):
            for value in self.values:
                out.text("value", value)
            for enum in self.enums:
                enum.write(out)
            for name, number, unit in self.numbers:
                out.text(name, number, unit=unit)


class CpuModelOffer(NamedTuple):
    """<model> of the mode "custom"; `usable` None where nobody knows."""

    name: str
    usable: bool | None
    vendor: str | None
    deprecated: bool


class CpuModes(NamedTuple):
    """<cpu>: the modes a definition may choose. `host_model` or `models` None: the mode is not supported."""

    host_passthrough: bool
    maximum: bool
    host_model: NamedCpu | None
    models: tuple[CpuModelOffer, ...] | None

    def write(self, out: Writer) -> None:
        with out.element("cpu"):
            self._write_mode(out, "host-passthrough", "hostPassthroughMigratable", self.host_passthrough)
            self._write_mode(out, "maximum", "maximumMigratable", self.maximum)
            if self.host_model is None:
                out.empty("mode", name="host-model", supported="no")
            else:
                self._write_host_model(out, self.host_model)
            if self.models is None:
                out.empty("mode", name="custom", supported="no")
                return
            with out.element("mode", name="custom", supported="yes"):
                for model in self.models:
                    usable = "unknown" if model.usable is None else yes_no(model.usable)
                    deprecated = "yes" if model.deprecated else None
                    vendor = model.vendor or "unknown"
                    out.text("model", model.name, usable=usable, deprecated=deprecated, vendor=vendor)

    @staticmethod
    def _write_mode(out: Writer, name: str, enum: str, supported: bool) -> None:
        if not supported:
            out.empty("mode", name=name, supported="no")
            return
        with out.element("mode", name=name, supported="yes"):
            CapsEnum(enum, ("on", "off")).write(out)

    @staticmethod
    def _write_host_model(out: Writer, cpu: NamedCpu) -> None:
        with out.element("mode", name="host-model", supported="yes"):
            if cpu.model:
                out.text("model", cpu.model, fallback="forbid")
            if cpu.vendor:
                out.text("vendor", cpu.vendor)
            for feature in cpu.features:
                out.empty("feature", policy=feature.policy, name=feature.name)


class DomainCapabilities(NamedTuple):
    """<domainCapabilities>: what one emulator offers for one architecture, machine and domain type."""

    path: str
    virt_type: VirtType
    machine: str
    arch: str
    max_vcpus: int
    iothreads: bool
    firmware: CapsEnum
    loader: Offer
    cpu: CpuModes
    memory_backing: Offer
    devices: tuple[Offer, ...]
    features: tuple[Offer, ...]

    def format(self) -> str:
        out = Writer()
        with out.element("domainCapabilities"):
            out.text("path", self.path)
            out.text("domain", self.virt_type)
            out.text("machine", self.machine)
            out.text("arch", self.arch)
            out.empty("vcpu", max=self.max_vcpus)
            out.empty("iothreads", supported=yes_no(self.iothreads))
            with out.element("os", supported="yes"):
                self.firmware.write(out)
                self.loader.write(out)
            self.cpu.write(out)
            self.memory_backing.write(out)
            with out.element("devices"):
                for device in self.devices:
                    device.write(out)
            with out.element("features"):
                for feature in self.features:
                    feature.write(out)
        return out.take()


class SysInfoSection(NamedTuple):
    """One table of the firmware: its element and its entries (an entry of oemStrings has no name)."""

    name: str
    entries: tuple[tuple[str, str], ...]


class SysInfo(NamedTuple):
    """<sysinfo type='smbios'>, sections in the order they are shown."""

    sections: tuple[SysInfoSection, ...]

    def format(self) -> str:
        out = Writer()
        with out.element("sysinfo", type="smbios"):
            for section in self.sections:
                with out.element(section.name):
                    for name, value in section.entries:
                        out.text("entry", value, **({"name": name} if name else {}))
        return out.take()
