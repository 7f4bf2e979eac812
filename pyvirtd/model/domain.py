"""The <domain> document.

https://libvirt.org/formatdomain.html. Models hold no policy: QEMU's defaults and rules are the driver's.
"""

from enum import StrEnum
from itertools import count
from typing import NamedTuple
from uuid import uuid4

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import InternalError, NoName, XmlDetail, XmlError
from pyvirtd.model.cpu import (
    Blkiotune,
    Cpu,
    CpuTune,
    DefaultIothread,
    Idmap,
    IothreadId,
    MaxMemory,
    Memory,
    MemoryBacking,
    Memtune,
    Numatune,
    Placement,
    Resource,
    Vcpu,
    VcpuState,
)
from pyvirtd.model.devices import Devices
from pyvirtd.model.disk import ThrottleGroup
from pyvirtd.model.features import (
    Clock,
    Features,
    KeywrapCipher,
    LifecycleAction,
    LockfailureAction,
    PerfEvent,
    Pm,
    PvSecurity,
    SevSecurity,
    SnpSecurity,
    TdxSecurity,
)
from pyvirtd.model.metadata import Metadata
from pyvirtd.model.namespaces import LxcNamespace, QemuCapabilities, QemuCommandline, QemuDeprecation, QemuOverride
from pyvirtd.model.os import FwcfgSysinfo, Os, SmbiosSysinfo
from pyvirtd.model.refusals import internal, wrong
from pyvirtd.model.seclabel import Seclabel, check_labels
from pyvirtd.xml.document import Node, parse_document, text_of
from pyvirtd.xml.element import LIVE, Element, View, attr, child, children, text
from pyvirtd.xml.types import I32, U32, U64, Uuid, parse_uuid


class DomainType(StrEnum):
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
    HVF = "hvf"


MAX_VCPUS = 1 << 14  # far above what any hypervisor takes; bounds what a document can make us build
MAX_IOTHREADS = 1 << 14


class DomainDef(Element, tag="domain"):
    type: DomainType = attr(
        DomainType.QEMU, required=internal("missing domain type attribute"), bad="invalid domain type {}"
    )
    id: I32 | None = attr(view=LIVE)
    name: str = text("")
    uuid: Uuid | None = text(bad=internal("malformed uuid element"))
    genid: Uuid | None = text(bad=internal("malformed genid element"))
    title: str | None = text()
    description: str | None = text()
    metadata: Metadata | None = child()
    max_memory: MaxMemory | None = child()
    memory: Memory = child()
    current_memory_kib: U64 | None = text(name="currentMemory", unit="KiB", where="./currentMemory[1]")
    blkiotune: Blkiotune | None = child()
    memtune: Memtune | None = child()
    memory_backing: MemoryBacking | None = child()
    vcpu: Vcpu = child()
    vcpus: list[VcpuState] = children(wrap="vcpus")
    iothreads: U32 | None = text(bad=wrong("invalid iothreads count '{}'"))
    iothreadids: list[IothreadId] = children(wrap="iothreadids")
    defaultiothread: DefaultIothread | None = child()
    throttlegroups: list[ThrottleGroup] = children(wrap="throttlegroups")
    cputune: CpuTune | None = child()
    numatune: Numatune | None = child()
    resource: Resource | None = child()
    sysinfo: list[SmbiosSysinfo | FwcfgSysinfo] = children()
    bootloader: str | None = text()
    bootloader_args: str | None = text()
    os: Os = child()
    idmap: Idmap | None = child()
    features: Features | None = child()
    cpu: Cpu | None = child()
    clock: Clock = child()
    on_poweroff: LifecycleAction = text(LifecycleAction.DESTROY, bad="unknown on_poweroff action: {}")
    on_reboot: LifecycleAction = text(LifecycleAction.RESTART, bad="unknown on_reboot action: {}")
    on_crash: LifecycleAction = text(LifecycleAction.DESTROY, bad="unknown on_crash action: {}")
    on_lockfailure: LockfailureAction | None = text(bad="unknown on_lockfailure action: {}")
    pm: Pm | None = child()
    perf: list[PerfEvent] = children(wrap="perf")
    devices: Devices = child()
    seclabel: list[Seclabel] = children()
    qemu_commandline: QemuCommandline | None = child()
    qemu_capabilities: QemuCapabilities | None = child()
    qemu_override: QemuOverride | None = child()
    qemu_deprecation: QemuDeprecation | None = child()
    lxc_namespace: LxcNamespace | None = child()
    keywrap: list[KeywrapCipher] = children(wrap="keywrap")
    launch_security: SevSecurity | SnpSecurity | TdxSecurity | PvSecurity | None = child()

    def parsed(self, node: Node, view: View) -> None:
        check_name(self.name)
        if self.title is not None and "\n" in self.title:
            raise XmlError("Domain title can't contain newlines", domain=ErrorDomain.DOMAIN)
        if self.os.type.name is None and self.bootloader is None:
            raise XmlError("an os <type> must be specified", domain=ErrorDomain.DOMAIN)
        if self.bootloader is None:
            self.bootloader_args = None
        if self.genid is None and node.find("genid") is not None:
            self.genid = str(uuid4())
        check_labels(self.seclabel)
        self._settle_memory()
        self._settle_vcpus()
        self._settle_iothreads()
        events = [event.name for event in self.perf]
        for name in events:
            if events.count(name) > 1:
                raise XmlError(f"perf event '{name}' was already specified", domain=ErrorDomain.DOMAIN)
        tune = self.numatune.memory if self.numatune is not None else None
        vcpu = node.find("vcpu")
        unplaced = self.vcpu.cpuset is None and (vcpu is None or vcpu.get("placement") is None)
        if tune is not None and tune.placement is Placement.AUTO and unplaced:
            self.vcpu.placement = Placement.AUTO

    def _settle_memory(self) -> None:
        if self.current_memory_kib == 0:
            self.current_memory_kib = None
        top = self.max_memory
        if top is not None and bool(top.slots) != bool(top.kib):
            raise XmlError(
                "both maximum memory size and memory slot count must be specified", domain=ErrorDomain.DOMAIN
            )
        if top is not None and not top.kib:
            self.max_memory = None

    def _settle_vcpus(self) -> None:
        """With single vcpus given there is one for each number, and those that are on make the current count."""
        vcpu = self.vcpu
        if self.vcpus:
            given = {one.id: one for one in self.vcpus if one.id < vcpu.count}
            self.vcpus = [
                given.get(number) or VcpuState(id=number, enabled=False, hotpluggable=True)
                for number in range(min(vcpu.count, MAX_VCPUS))
            ]
            vcpu.current = sum(one.enabled for one in self.vcpus)
        if vcpu.current == vcpu.count:
            vcpu.current = None
        if self.cputune is not None:
            self.cputune.vcpupin = [pin for pin in self.cputune.vcpupin if pin.vcpu < vcpu.count]

    def _settle_iothreads(self) -> None:
        """Threads that are counted but have no number get the lowest free ones."""
        numbers = [one.id for one in self.iothreadids]
        used = set(numbers)
        if len(used) != len(numbers):
            twice = next(number for number in numbers if numbers.count(number) > 1)
            raise XmlError(f"duplicate iothread id '{twice}' found", domain=ErrorDomain.DOMAIN)
        if not numbers:
            return
        wanted = min(max(self.iothreads or 0, len(numbers)), MAX_IOTHREADS)
        self.iothreads = wanted
        free = (number for number in count(1) if number not in used)
        self.iothreadids += [IothreadId(id=next(free)) for _ in range(wanted - len(numbers))]


def check_name(name: str) -> None:
    """What every hypervisor asks of a name. Raises NoName or XmlDetail."""
    if not name:
        raise NoName(domain=ErrorDomain.DOMAIN)
    if "\n" in name:
        raise XmlDetail("invalid char in name: \n", domain=ErrorDomain.XML)


class Identity(NamedTuple):
    """What access checks need before a document is read in full."""

    name: str
    uuid: str | None


def identity(text: str) -> Identity:
    """Name and uuid only, under the parser's limits: what an access check needs before anything else is read.

    Raises XmlDetail, XmlError and NoName.
    """
    root = parse_document(text, root="domain")
    name = root.find("name")
    uuid = root.find("uuid")
    try:
        parsed = parse_uuid(text_of(uuid)) if uuid is not None else None
    except ValueError:
        raise InternalError("malformed uuid element", domain=ErrorDomain.DOMAIN) from None
    found = text_of(name) if name is not None else ""
    check_name(found)
    return Identity(found, parsed)
