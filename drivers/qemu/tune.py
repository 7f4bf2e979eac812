"""What clients ask about tuning: schedulers, limits, pinning, IOThreads, labels. Nothing is changed here.

Limits that a control group enforces are those of the definition for a domain that is off, and the kernel's for a
running guest; where the controller is not mounted there are none.
"""

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pyvirtd.api.domain_tune import (
    DomainGetEmulatorPinInfoReply,
    DomainGetIOThreadInfoReply,
    DomainGetSchedulerTypeReply,
    DomainGetSecurityLabelListReply,
    DomainGetVcpuPinInfoReply,
    TunePart,
)
from pyvirtd.api.limits import CPUMAPS_MAX, DOMAIN_SCHEDULER_PARAMETERS_MAX, VCPUINFO_MAX
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import (
    IOThreadInfo,
    SecurityLabel,
    TypedParam,
    param_int,
    param_llong,
    param_string,
    param_uint,
    param_ullong,
)
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterFlags
from pyvirtd.core import cgroup_limits as limits
from pyvirtd.core.cgroup import Group
from pyvirtd.core.cgroup_limits import UNLIMITED_KIB
from pyvirtd.core.edits import one_target
from pyvirtd.core.security import domain_labels
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.stats_net import find_interface
from pyvirtd.drivers.qemu.tune_shared import BLKIO_DEVICE, NUMA_MODES, SCHEDULER, iothread_ids, live_group, need_system
from pyvirtd.errors import BadCall, ConfigUnsupported, InternalError, OperationUnsupported
from pyvirtd.model.cpu import BlkioDevice, CpuTune, Placement
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread
from pyvirtd.util.values import cpus_to_map, format_cpus

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

STRING_OKAY = TypedParameterFlags.STRING_OKAY
READ_FLAGS = Impact.LIVE | Impact.CONFIG
PARAM_FLAGS = READ_FLAGS | STRING_OKAY
BANDWIDTH = ("average", "peak", "burst", "floor")


class TuneReads(TunePart[QemuDomain]):
    """The tuning procedures that only read."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    # --- control groups --------------------------------------------------------------------------------------

    def domain_get_scheduler_type(self, dom: QemuDomain) -> DomainGetSchedulerTypeReply:
        need_system(self.driver, OperationUnsupported, "CPU")
        if dom.guest is not None:
            live_group(dom, "cpu")
        return DomainGetSchedulerTypeReply("posix", len(SCHEDULER))

    async def domain_get_scheduler_parameters(self, dom: QemuDomain, nparams: int) -> list[TypedParam]:
        return await self._scheduler(dom, nparams, 0, "virDomainGetSchedulerParameters")

    @accepts(PARAM_FLAGS)
    async def domain_get_scheduler_parameters_flags(
        self, dom: QemuDomain, nparams: int, flags: int
    ) -> list[TypedParam]:
        return await self._scheduler(dom, nparams, flags & ~STRING_OKAY, "virDomainGetSchedulerParametersFlags")

    async def _scheduler(self, dom: QemuDomain, nparams: int, flags: int, function: str) -> list[TypedParam]:
        if nparams > DOMAIN_SCHEDULER_PARAMETERS_MAX:
            raise InternalError("nparams too large", domain=From.RPC)
        if nparams < 0:
            raise BadCall(f"nparams in {function} must be zero or greater")
        if not nparams:
            raise BadCall(f"params in {function} must not be NULL")
        need_system(self.driver, OperationUnsupported, "CPU")
        definition = one_target(dom, flags)
        if definition is dom.live:
            group = live_group(dom, "cpu")
            values = await in_thread(_live_scheduler, group, definition)
        else:
            tune = definition.cputune or CpuTune()
            values = {name: getattr(tune, field) or 0 for name, field in SCHEDULER}
        return [
            (param_llong if name.endswith("quota") else param_ullong)(name, values[name])
            for name, _ in SCHEDULER[:nparams]
        ]

    @accepts(PARAM_FLAGS)
    async def domain_get_memory_parameters(self, dom: QemuDomain, flags: int) -> list[TypedParam]:
        need_system(self.driver, OperationUnsupported, "Memory")
        definition = one_target(dom, flags)
        if definition is dom.live:
            found = await in_thread(limits.memory_limits, live_group(dom, "memory"))
        else:
            given = {name: getattr(definition.memtune, f"{name}_kib", None) for name in limits.MEMORY_FILES}
            found = {name: UNLIMITED_KIB if value is None else value for name, value in given.items()}
        return [param_ullong(name, value) for name, value in found.items()]

    @accepts(PARAM_FLAGS)
    async def domain_get_blkio_parameters(self, dom: QemuDomain, flags: int) -> list[TypedParam]:
        need_system(self.driver, ConfigUnsupported, "Block I/O")
        definition = one_target(dom, flags)
        tune = definition.blkiotune
        weight = (tune.weight if tune is not None else None) or 0
        if definition is dom.live:
            weight = await in_thread(limits.weight, live_group(dom, "blkio"))
        params = [param_uint("weight", weight)]
        if flags & STRING_OKAY:
            devices = tune.device if tune is not None else []
            params += [param_string(f"device_{name}", _of_devices(devices, name)) for name in BLKIO_DEVICE]
        return params

    # --- definitions -----------------------------------------------------------------------------------------

    @accepts(PARAM_FLAGS)
    def domain_get_numa_parameters(self, dom: QemuDomain, flags: int) -> list[TypedParam]:
        tune = one_target(dom, flags).numatune
        memory = tune.memory if tune is not None else None
        mode = memory.mode if memory is not None else None
        params = [param_int("numa_mode", NUMA_MODES[mode] if mode is not None else 0)]
        if flags & STRING_OKAY:
            chosen = memory is not None and memory.placement is not Placement.AUTO
            nodes = (memory.nodeset if memory is not None and chosen else None) or ()
            params.append(param_string("numa_nodeset", format_cpus(nodes)))
        return params

    @accepts(PARAM_FLAGS)
    def domain_get_interface_parameters(self, dom: QemuDomain, device: str, flags: int) -> list[TypedParam]:
        bandwidth = find_interface(one_target(dom, flags), device).bandwidth
        params = []
        for way, names in (("inbound", BANDWIDTH), ("outbound", BANDWIDTH[:3])):
            rate = getattr(bandwidth, way, None)
            params += [param_uint(f"{way}.{name}", getattr(rate, name, None) or 0) for name in names]
        return params

    # --- pinning ---------------------------------------------------------------------------------------------

    @accepts(READ_FLAGS)
    async def domain_get_vcpu_pin_info(
        self, dom: QemuDomain, ncpumaps: int, maplen: int, flags: int
    ) -> DomainGetVcpuPinInfoReply:
        function = "virDomainGetVcpuPinInfo"
        if ncpumaps > VCPUINFO_MAX:
            raise InternalError("ncpumaps > REMOTE_VCPUINFO_MAX", domain=From.RPC)
        if ncpumaps * maplen > CPUMAPS_MAX:
            raise InternalError("ncpumaps * maplen > REMOTE_CPUMAPS_MAX", domain=From.RPC)
        if ncpumaps <= 0:
            raise BadCall(f"ncpumaps in {function} must be greater than zero")
        if maplen <= 0:
            raise BadCall(f"cpumaps in {function} must not be NULL")
        host = await self._host_cpus()
        definition = one_target(dom, flags)
        pins = {pin.vcpu: pin.cpuset for pin in definition.cputune.vcpupin} if definition.cputune is not None else {}
        default = definition.vcpu.cpuset or host
        count = min(definition.vcpu.count, ncpumaps)
        maps = b"".join(cpus_to_map(pins.get(vcpu) or default, maplen) for vcpu in range(count))
        return DomainGetVcpuPinInfoReply(maps.ljust(ncpumaps * maplen, b"\0"), count)

    @accepts(READ_FLAGS)
    async def domain_get_emulator_pin_info(
        self, dom: QemuDomain, maplen: int, flags: int
    ) -> DomainGetEmulatorPinInfoReply:
        if maplen > CPUMAPS_MAX:
            raise InternalError("maplen > REMOTE_CPUMAPS_MAX", domain=From.RPC)
        if maplen <= 0:
            raise BadCall("cpumap in virDomainGetEmulatorPinInfo must not be NULL")
        host = await self._host_cpus()
        definition = one_target(dom, flags)
        pinned = definition.cputune.emulatorpin if definition.cputune is not None else None
        return DomainGetEmulatorPinInfoReply(cpus_to_map(pinned or definition.vcpu.cpuset or host, maplen), 1)

    @accepts(READ_FLAGS)
    async def domain_get_iothread_info(self, dom: QemuDomain, flags: int) -> DomainGetIOThreadInfoReply:
        definition = one_target(dom, flags)
        if definition is dom.live:
            threads = await self._live_iothreads(dom)
        else:
            host = await self._host_cpus()
            tune = definition.cputune
            pins = {pin.iothread: pin.cpuset for pin in tune.iothreadpin} if tune is not None else {}
            default = definition.vcpu.cpuset or host
            threads = [
                IOThreadInfo(number, cpus_to_map(pins.get(number) or default)) for number in iothread_ids(definition)
            ]
        return DomainGetIOThreadInfoReply(threads, len(threads))

    async def _live_iothreads(self, dom: QemuDomain) -> list[IOThreadInfo]:
        """The threads as they are, where the kernel lets them run."""
        threads = []
        for thread in await dom.monitor.execute("query-iothreads"):
            number = str(thread["id"]).removeprefix("iothread")
            with suppress(ProcessLookupError):
                cpus = os.sched_getaffinity(thread["thread-id"])
                if number.isdigit():
                    threads.append(IOThreadInfo(int(number), cpus_to_map(cpus)))
        return threads

    async def _host_cpus(self) -> frozenset[int]:
        return (await self.driver.host.info.topology()).online

    # --- security --------------------------------------------------------------------------------------------

    def domain_get_security_label(self, dom: QemuDomain) -> SecurityLabel:
        return (self._labels(dom) or [SecurityLabel(b"\0", 0)])[0]

    def domain_get_security_label_list(self, dom: QemuDomain) -> DomainGetSecurityLabelListReply:
        labels = self._labels(dom)
        return DomainGetSecurityLabelListReply(labels, len(labels))

    def _labels(self, dom: QemuDomain) -> list[SecurityLabel]:
        """The label of the guest's process in each security model; none while it is off."""
        if dom.live is None:
            return []
        labels = domain_labels(dom.live, self.driver.credentials)
        return [SecurityLabel(label.encode() + b"\0", 0) for label in labels]


def _live_scheduler(group: Group, definition: DomainDef) -> dict[str, int]:
    """What is in effect: of all threads of a kind what the first one has."""
    found = {"cpu_shares": limits.shares(group)}
    first = iothread_ids(definition)[:1]
    places = {
        "vcpu": group.threads("vcpu0"),
        "emulator": group.threads("emulator"),
        "global": group,
        "iothread": group.threads(f"iothread{first[0]}") if first else None,
    }
    for name, place in places.items():
        period, quota = limits.bandwidth(place) if place is not None else (0, 0)
        found |= {f"{name}_period": period, f"{name}_quota": quota}
    return found


def _of_devices(devices: list[BlkioDevice], name: str) -> str:
    """One limit of all devices, "PATH,LIMIT,PATH,LIMIT", without those that have none."""
    words = []
    for device in devices:
        if limit := getattr(device, name):
            words += [device.path or "", str(limit)]
    return ",".join(words)
