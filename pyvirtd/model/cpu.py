"""The guest's CPU, its NUMA nodes, and what of the host they are tuned to: cputune, numatune, memtune, blkiotune, …

https://libvirt.org/formatdomain.html#cpu-model-and-topology
"""

from collections.abc import Set
from enum import StrEnum
from itertools import pairwise
from typing import Self, TypeVar

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported, InternalError, XmlDetail, XmlError
from pyvirtd.model.refusals import internal, unsupported, wrong
from pyvirtd.model.words import MemoryAccess
from pyvirtd.xml.bitmap import MAX_NUMBER, Bitmap
from pyvirtd.xml.document import Node, local_name
from pyvirtd.xml.element import LIVE, Element, View, attr, child, children, content, flag, text, via
from pyvirtd.xml.types import I64, U32, U64, Count32, CpuSet, LenientU32, OnOff, Positive32, YesNo, pretty_size, scale


class CpuMode(StrEnum):
    CUSTOM = "custom"
    HOST_MODEL = "host-model"
    HOST_PASSTHROUGH = "host-passthrough"
    MAXIMUM = "maximum"


class CpuMatch(StrEnum):
    MINIMUM = "minimum"
    EXACT = "exact"
    STRICT = "strict"


class CpuCheck(StrEnum):
    NONE = "none"
    PARTIAL = "partial"
    FULL = "full"


class CpuFallback(StrEnum):
    ALLOW = "allow"
    FORBID = "forbid"


class FeaturePolicy(StrEnum):
    FORCE = "force"
    REQUIRE = "require"
    OPTIONAL = "optional"
    DISABLE = "disable"
    FORBID = "forbid"


class CacheMode(StrEnum):
    EMULATE = "emulate"
    PASSTHROUGH = "passthrough"
    DISABLE = "disable"


class MaxPhysAddrMode(StrEnum):
    EMULATE = "emulate"
    PASSTHROUGH = "passthrough"


class CacheAssociativity(StrEnum):
    NONE = "none"
    DIRECT = "direct"
    FULL = "full"


class CachePolicy(StrEnum):
    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"


class LatencyType(StrEnum):
    ACCESS = "access"
    READ = "read"
    WRITE = "write"


class CpuModel(Element, tag="model"):
    fallback: CpuFallback | None = attr(bad=unsupported("Invalid fallback attribute", ErrorDomain.CPU))
    vendor_id: str | None = attr()
    name: str | None = content()

    def parsed(self, node: Node, view: View) -> None:
        if self.vendor_id and len(self.vendor_id) != 12:
            raise XmlError("vendor_id must be exactly 12 characters long", domain=ErrorDomain.CPU)


class CpuTopology(Element, tag="topology"):
    sockets: U32 = attr(1, required=True)
    dies: U32 = attr(1)
    clusters: U32 | None = attr()
    cores: U32 = attr(1, required=True)
    threads: U32 = attr(1, required=True)


class CpuCache(Element, tag="cache"):
    level: Count32 | None = attr()
    mode: CacheMode = attr(CacheMode.EMULATE, required=True)


class MaxPhysAddr(Element, tag="maxphysaddr"):
    mode: MaxPhysAddrMode = attr(MaxPhysAddrMode.EMULATE, required=True)
    bits: Count32 | None = attr(omit=0)
    limit: Count32 | None = attr(omit=0)


_NO_NAME = wrong("Invalid CPU feature name", ErrorDomain.CPU)


class CpuFeature(Element, tag="feature"):
    policy: FeaturePolicy = attr(FeaturePolicy.REQUIRE, bad=unsupported("Invalid CPU feature policy", ErrorDomain.CPU))
    name: str = attr("", required=_NO_NAME)

    def parsed(self, node: Node, view: View) -> None:
        if not self.name:
            raise _NO_NAME("")


class NumaSibling(Element, tag="sibling"):
    id: U32 = attr(0, required=True)
    value: U32 = attr(0, required=True)


class NumaCacheSize(Element):
    """A cache's size or line length; the unit is kept as it was given."""

    value: U32 = attr(0, required=True)
    unit: str | None = attr()


class NumaCache(Element, tag="cache"):
    level: U32 = attr(0, required=True)
    associativity: CacheAssociativity = attr(
        CacheAssociativity.NONE, required=True, bad=wrong("Invalid cache associativity '{}'")
    )
    policy: CachePolicy = attr(
        CachePolicy.NONE, required=wrong("Invalid cache policy '(null)'"), bad=wrong("Invalid cache policy '{}'")
    )
    size_kib: U64 | None = via("size", "value", unit="KiB", required=True)
    line_bytes: U64 | None = via("line", "value", unit="B", required=True)


class NumaCell(Element, tag="cell"):
    id: U32 | None = attr()
    cpus: CpuSet | None = attr()
    memory_kib: U64 | None = attr(name="memory", unit="KiB", required=True)
    mem_access: MemoryAccess | None = attr(name="memAccess")
    discard: YesNo | None = attr()
    distances: list[NumaSibling] = children(wrap="distances")
    cache: list[NumaCache] = children()

    def parsed(self, node: Node, view: View) -> None:
        if node.find("distances") is not None and not self.distances:
            raise XmlError("NUMA distances defined without siblings", domain=ErrorDomain.DOMAIN)


class NumaLatency(Element, tag="latency"):
    initiator: U32 = attr(0, required=True)
    target: U32 = attr(0, required=True)
    cache: U32 | None = attr(omit=0)
    type: LatencyType = attr(LatencyType.ACCESS, required=True)
    value: U64 = attr(0, required=True)


class NumaBandwidth(Element, tag="bandwidth"):
    initiator: U32 = attr(0, required=True)
    target: U32 = attr(0, required=True)
    cache: U32 | None = attr(omit=0)
    type: LatencyType = attr(LatencyType.ACCESS, required=True)
    value_kib: U64 = attr(0, name="value", unit="KiB", required=True)


class Numa(Element, tag="numa"):
    cell: list[NumaCell] = children()
    interconnects: list[NumaLatency | NumaBandwidth] = children(wrap="interconnects")


class Cpu(Element, tag="cpu"):
    mode: CpuMode | None = attr(bad=unsupported("Invalid mode attribute '{}'", ErrorDomain.CPU))
    match: CpuMatch | None = attr()
    check: CpuCheck | None = attr()
    migratable: OnOff | None = attr()
    deprecated_features: OnOff | None = attr()
    model: CpuModel | None = child()
    vendor: str | None = text()
    topology: CpuTopology | None = child()
    cache: CpuCache | None = child()
    maxphysaddr: MaxPhysAddr | None = child()
    feature: list[CpuFeature] = children()
    numa: Numa | None = child()

    def parsed(self, node: Node, view: View) -> None:
        """A CPU with a model and no mode is a custom one, matched exactly unless said otherwise; a custom one without
        a model says nothing, and a model says nothing where the host's CPU is passed through.
        """
        if self.model is not None and not self.model.name:
            self.model = None
        if self.model is not None and self.mode is None:
            self.mode = CpuMode.CUSTOM
        if self.mode in (CpuMode.HOST_PASSTHROUGH, CpuMode.MAXIMUM):
            self.model = None
        if self.mode != CpuMode.CUSTOM or self.model is None:
            self.match = None
        elif self.match is None:
            self.match = CpuMatch.EXACT
        if self.model is None and self.mode is CpuMode.CUSTOM:
            self.mode = None
        if self.model is not None and self.model.fallback is None:
            self.model.fallback = CpuFallback.ALLOW
        self._check()

    def _check(self) -> None:
        passed = self.mode in (CpuMode.HOST_PASSTHROUGH, CpuMode.MAXIMUM)
        if self.migratable is not None and not passed:
            raise ConfigUnsupported(
                "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode",
                domain=ErrorDomain.CPU,
            )
        if self.vendor is not None and self.model is None:
            raise XmlError("CPU vendor specified without CPU model", domain=ErrorDomain.CPU)
        if self.feature and self.model is None and self.mode is None:
            raise XmlError("Non-empty feature list specified without CPU model", domain=ErrorDomain.CPU)
        seen: set[str] = set()
        for feature in self.feature:
            if feature.name in seen:
                raise XmlError(f"CPU feature '{feature.name}' specified more than once", domain=ErrorDomain.CPU)
            seen.add(feature.name)


# Tuning


class SchedulerPolicy(StrEnum):
    BATCH = "batch"
    IDLE = "idle"
    FIFO = "fifo"
    RR = "rr"


def _some(node: Node, name: str, numbers: Set[int] | None) -> None:
    """Raises ConfigUnsupported for a list of numbers that takes out what it puts in."""
    if numbers is not None and not numbers:
        raise ConfigUnsupported(f"Invalid value of '{name}': {node.get(name)}", domain=ErrorDomain.DOMAIN)


class VcpuPin(Element, tag="vcpupin"):
    vcpu: U32 = attr(0, required=True)
    cpuset: CpuSet | None = attr(required=internal("missing cpuset for vcpupin"))


class IothreadPin(Element, tag="iothreadpin"):
    iothread: U32 = attr(0, required=True)
    cpuset: CpuSet | None = attr(required=internal("missing cpuset for iothreadpin"))


class Scheduler(Element):
    """A scheduling policy with its priority (fifo and rr only)."""

    scheduler: SchedulerPolicy = attr(SchedulerPolicy.BATCH, required=True)
    priority: int | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        """Only fifo and rr have a priority, and they must have one."""
        if self.scheduler not in (SchedulerPolicy.FIFO, SchedulerPolicy.RR):
            self.priority = None
        elif self.priority is None:
            raise XmlError(
                f"Missing required attribute 'priority' in element '{local_name(node)}'", domain=ErrorDomain.XML
            )


class VcpuSched(Scheduler, tag="vcpusched"):
    vcpus: CpuSet | None = attr(required=wrong("Missing attribute 'vcpus' in element 'vcpusched'"))
    scheduler: SchedulerPolicy = attr(SchedulerPolicy.BATCH, required=True)
    priority: int | None = attr()


class IothreadSched(Scheduler, tag="iothreadsched"):
    iothreads: CpuSet | None = attr(required=wrong("Missing attribute 'iothreads' in element 'iothreadsched'"))
    scheduler: SchedulerPolicy = attr(SchedulerPolicy.BATCH, required=True)
    priority: int | None = attr()


class CacheKind(StrEnum):
    BOTH = "both"
    CODE = "code"
    DATA = "data"


class CacheAllocation(Element, tag="cache"):
    id: U32 = attr(0, required=True)
    level: U32 = attr(0, required=True)
    type: CacheKind = attr(CacheKind.BOTH, required=True)
    size: U64 = attr(
        0, required=True, bad=wrong("Invalid value '{}' for element or attribute './@size'", ErrorDomain.XML)
    )
    unit: str | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        """The size is printed in the largest unit that fits; without a unit it is in KiB."""
        self.size, self.unit = pretty_size(scale(self.size, self.unit or "KiB", "B"))


class CacheMonitor(Element, tag="monitor"):
    level: U32 = attr(0, required=True)
    vcpus: CpuSet | None = attr(
        required=wrong("Missing monitor attribute 'vcpus'"), bad=wrong("Invalid monitor attribute 'vcpus' value '{}'")
    )


class CacheTune(Element, tag="cachetune"):
    vcpus: CpuSet | None = attr(
        required=wrong("Missing cachetune attribute 'vcpus'"),
        bad=wrong("Invalid cachetune attribute 'vcpus' value '{}'"),
    )
    id: str | None = attr(view=LIVE)
    cache: list[CacheAllocation] = children()
    monitor: list[CacheMonitor] = children()


class MemoryNode(Element, tag="node"):
    id: U32 = attr(0, required=True)
    bandwidth: U32 = attr(0, required=True)


class MemoryMonitor(Element, tag="monitor"):
    vcpus: CpuSet | None = attr(
        required=wrong("Missing monitor attribute 'vcpus'"), bad=wrong("Invalid monitor attribute 'vcpus' value '{}'")
    )


class MemoryTune(Element, tag="memorytune"):
    vcpus: CpuSet | None = attr(
        required=wrong("Missing memorytune attribute 'vcpus'"),
        bad=wrong("Invalid memorytune attribute 'vcpus' value '{}'"),
    )
    id: str | None = attr(view=LIVE)
    node: list[MemoryNode] = children()
    monitor: list[MemoryMonitor] = children()


class CpuTune(Element, tag="cputune"):
    shares: U64 | None = text(bad=wrong("can't parse cputune shares value"))
    period: U64 | None = text(omit=0, bad=wrong("can't parse cputune period value"))
    quota: I64 | None = text(omit=0, bad=wrong("can't parse cputune quota value"))
    global_period: U64 | None = text(omit=0, bad=wrong("can't parse cputune global period value"))
    global_quota: I64 | None = text(omit=0, bad=wrong("can't parse cputune global quota value"))
    emulator_period: U64 | None = text(omit=0, bad=wrong("can't parse cputune emulator period value"))
    emulator_quota: I64 | None = text(omit=0, bad=wrong("can't parse cputune emulator quota value"))
    iothread_period: U64 | None = text(omit=0, bad=wrong("can't parse cputune iothread period value"))
    iothread_quota: I64 | None = text(omit=0, bad=wrong("can't parse cputune iothread quota value"))
    vcpupin: list[VcpuPin] = children()
    emulatorpin: CpuSet | None = via("emulatorpin", "cpuset", required=internal("missing cpuset for emulatorpin"))
    iothreadpin: list[IothreadPin] = children()
    emulatorsched: Scheduler | None = child(name="emulatorsched")
    vcpusched: list[VcpuSched] = children()
    iothreadsched: list[IothreadSched] = children()
    cachetune: list[CacheTune] = children()
    memorytune: list[MemoryTune] = children()

    def parsed(self, node: Node, view: View) -> None:
        """Pins stand in the order of their numbers, schedulers one for each number."""
        self.vcpupin.sort(key=lambda pin: pin.vcpu)
        for first, second in pairwise(self.vcpupin):
            if first.vcpu == second.vcpu:
                raise InternalError(f"duplicate vcpupin for vcpu '{first.vcpu}'", domain=ErrorDomain.DOMAIN)
        self.iothreadpin.sort(key=lambda pin: pin.iothread)
        self.vcpusched = _one_each(self.vcpusched, "vcpusched", "vcpus")
        self.iothreadsched = _one_each(self.iothreadsched, "iothreadsched", "iothreads")


S = TypeVar("S", VcpuSched, IothreadSched)


def _one_each(found: list[S], element: str, attribute: str) -> list[S]:
    by_number: dict[int, S] = {}
    for one in found:
        for number in getattr(one, attribute) or ():
            if number in by_number:
                raise XmlDetail(f"'{element}' attributes '{attribute}' must not overlap", domain=ErrorDomain.DOMAIN)
            single = one.shallow()
            setattr(single, attribute, Bitmap([number]))
            by_number[number] = single
    return [by_number[number] for number in sorted(by_number)]


class NumaMode(StrEnum):
    STRICT = "strict"
    PREFERRED = "preferred"
    INTERLEAVE = "interleave"
    RESTRICTIVE = "restrictive"


class Placement(StrEnum):
    STATIC = "static"
    AUTO = "auto"


class NumatuneMemory(Element, tag="memory"):
    mode: NumaMode | None = attr(bad="Unsupported NUMA memory tuning mode '{}'")
    nodeset: CpuSet | None = attr()
    placement: Placement | None = attr(bad="Unsupported NUMA memory placement mode '{}'")

    def parsed(self, node: Node, view: View) -> None:
        """Static placement is what a nodeset means; automatic placement has none."""
        _some(node, "nodeset", self.nodeset)
        self.mode = self.mode or NumaMode.STRICT
        if self.placement is Placement.AUTO:
            self.nodeset = None
        elif self.nodeset is not None:
            self.placement = None

    def printed(self, view: View) -> Self:
        """Which nodes were chosen automatically is nobody's choice."""
        if self.placement is not Placement.AUTO or self.nodeset is None:
            return self
        twin = self.shallow()
        twin.nodeset = None
        return twin


class MemNode(Element, tag="memnode"):
    cellid: U32 = attr(0, required=True)
    mode: NumaMode = attr(NumaMode.STRICT)
    nodeset: CpuSet | None = attr(required=wrong("Missing required nodeset attribute in memnode element"))

    def parsed(self, node: Node, view: View) -> None:
        _some(node, "nodeset", self.nodeset)


class Numatune(Element, tag="numatune"):
    memory: NumatuneMemory | None = child()
    memnode: list[MemNode] = children()


UNLIMITED_KIB = 9007199254740991  # libvirt-domain.h VIR_DOMAIN_MEMORY_PARAM_UNLIMITED


class Memtune(Element, tag="memtune"):
    hard_limit_kib: U64 | None = text(name="hard_limit", unit="KiB", where="./memtune/hard_limit[1]")
    soft_limit_kib: U64 | None = text(name="soft_limit", unit="KiB", where="./memtune/soft_limit[1]")
    min_guarantee_kib: U64 | None = text(name="min_guarantee", unit="KiB", where="./memtune/min_guarantee[1]")
    swap_hard_limit_kib: U64 | None = text(name="swap_hard_limit", unit="KiB", where="./memtune/swap_hard_limit[1]")

    def parsed(self, node: Node, view: View) -> None:
        for name, value in self.values():
            if value is not None and value >= UNLIMITED_KIB:
                setattr(self, name, None)


class BlkioDevice(Element, tag="device"):
    path: str | None = text()
    weight: U32 | None = text(omit=0, bad="could not parse weight {}")
    read_iops_sec: U32 | None = text(omit=0, bad="could not parse read iops sec {}")
    write_iops_sec: U32 | None = text(omit=0, bad="could not parse write iops sec {}")
    read_bytes_sec: U64 | None = text(omit=0, bad="could not parse read bytes sec {}")
    write_bytes_sec: U64 | None = text(omit=0, bad="could not parse write bytes sec {}")


class Blkiotune(Element, tag="blkiotune"):
    weight: LenientU32 | None = text(omit=0)
    device: list[BlkioDevice] = children()

    def parsed(self, node: Node, view: View) -> None:
        """Devices without any limit say nothing."""
        for device in self.device:
            if device.path is None:
                raise ConfigUnsupported("missing per-device path", domain=ErrorDomain.DOMAIN)
        self.device = [one for one in self.device if any(value for name, value in one.values() if name != "path")]


class HugePage(Element, tag="page"):
    size_kib: U64 | None = attr(name="size", unit="KiB", required=True)
    nodeset: CpuSet | None = attr()


class HugePages(Element, tag="hugepages", empty=True):
    page: list[HugePage] = children()


class MemorySource(StrEnum):
    FILE = "file"
    ANONYMOUS = "anonymous"
    MEMFD = "memfd"


class AllocationMode(StrEnum):
    IMMEDIATE = "immediate"
    ONDEMAND = "ondemand"


class Allocation(Element, tag="allocation"):
    mode: AllocationMode | None = attr(bad="unknown memoryBacking/allocation/mode '{}'")
    threads: U32 | None = attr(omit=0, bad=wrong("Failed to parse memory allocation threads"))


class MemoryBacking(Element, tag="memoryBacking"):
    hugepages: HugePages | None = child()
    nosharepages: bool = flag()
    locked: bool = flag()
    source: MemorySource | None = via("source", "type", bad="unknown memoryBacking/source/type '{}'")
    access: MemoryAccess | None = via("access", "mode", bad="unknown memoryBacking/access/mode '{}'")
    allocation: Allocation | None = child()
    discard: bool = flag()


class Memory(Element, tag="memory"):
    dump_core: OnOff | None = attr(name="dumpCore")
    kib: U64 = content(0, unit="KiB", where="./memory[1]")


class MaxMemory(Element, tag="maxMemory"):
    slots: U32 = attr(0, bad=wrong("Failed to parse memory slot count"))
    kib: U64 = content(0, unit="KiB", where="./maxMemory[1]")


class Vcpu(Element, tag="vcpu"):
    """Number of virtual CPUs: `count` at most, `current` at start."""

    placement: Placement = attr(Placement.STATIC)
    cpuset: CpuSet | None = attr()
    current: U32 | None = attr()
    count: U32 = content(1, bad=wrong("maximum vcpus count must be an integer"))

    def parsed(self, node: Node, view: View) -> None:
        """With automatic placement, or all CPUs, there is no set."""
        _some(node, "cpuset", self.cpuset)
        if self.placement is Placement.AUTO or (self.cpuset is not None and len(self.cpuset) > MAX_NUMBER):
            self.cpuset = None

    def printed(self, view: View) -> Self:
        """Which CPUs were chosen automatically is nobody's choice."""
        if self.placement is not Placement.AUTO or self.cpuset is None:
            return self
        twin = self.shallow()
        twin.cpuset = None
        return twin


class VcpuState(Element, tag="vcpu"):
    id: U32 = attr(0, required=True)
    enabled: YesNo = attr(False, required=True)
    hotpluggable: YesNo | None = attr()
    order: U32 | None = attr(omit=0)

    def parsed(self, node: Node, view: View) -> None:
        """What is off at the start must be pluggable."""
        if self.hotpluggable is None:
            self.hotpluggable = not self.enabled


class IothreadId(Element, tag="iothread"):
    id: Positive32 = attr(0, required=True)
    thread_pool_min: int | None = attr()
    thread_pool_max: int | None = attr()


class DefaultIothread(Element, tag="defaultiothread"):
    thread_pool_min: int | None = attr()
    thread_pool_max: int | None = attr()


class Resource(Element, tag="resource"):
    partition: str | None = text()
    fibrechannel: str | None = via("fibrechannel", "appid")


_bad_idmap = wrong("invalid idmap start/target/count settings")


class IdMap(Element):
    start: U32 = attr(0, required=_bad_idmap, bad=_bad_idmap)
    target: U32 = attr(0, required=_bad_idmap, bad=_bad_idmap)
    count: U32 = attr(0, required=_bad_idmap, bad=_bad_idmap)


class Idmap(Element, tag="idmap"):
    uid: list[IdMap] = children(name="uid")
    gid: list[IdMap] = children(name="gid")

    def parsed(self, node: Node, view: View) -> None:
        for ids in (self.uid, self.gid):
            if ids and not any(one.start == 0 for one in ids):
                raise ConfigUnsupported("You must map the root user of container", domain=ErrorDomain.DOMAIN)
