"""The control groups of guests: made at a start, found again after a restart, removed at the end.

Below the guest's group are those of its threads: emulator, vcpuN, iothreadN, as libvirtd has them. A session's guests
have none. Limits at the start are those of the definition; later ones are `tune_limits`.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core import audit_records, cgroup_systemd
from pyvirtd.core import cgroup_limits as limits
from pyvirtd.core.audit import Record
from pyvirtd.core.cgroup import DELEGATED, Group, Hierarchies, machine_name, make_partition, make_unit_group, scope_name
from pyvirtd.core.cgroup_limits import DeviceRule
from pyvirtd.core.security import opened_paths
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.drivers.qemu.tune_pins import iothread_tids
from pyvirtd.drivers.qemu.tune_shared import iothread_ids
from pyvirtd.errors import ConfigUnsupported, VirtError
from pyvirtd.model.cpu import CpuTune, NumaMode, Resource
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

PARTITION = "/machine"
REMOVE_TRIES, REMOVE_PAUSE_S = 50, 0.02
EMULATOR = "emulator"
SUFFIX = ".libvirt-qemu"
SCSI_GENERIC = DeviceRule("c", "21:*", "rw")
PTYS = DeviceRule("c", "136:*", "rw")  # linux: Documentation/admin-guide/devices.txt, Unix98 PTY slaves
BANDWIDTHS = ("", "global_", "emulator_", "iothread_")
SESSION_REFUSALS = (("blkiotune", "Block I/O"), ("memtune", "Memory"), ("cputune", "CPU"))
PINS = ("vcpupin", "emulatorpin", "iothreadpin")


def check_groups(live: DomainDef, hierarchies: Hierarchies, *, privileged: bool) -> None:
    """Refuse what a definition asks of control groups that are not to be had. Raises ConfigUnsupported."""
    if not privileged:
        for field, word in SESSION_REFUSALS:
            element = getattr(live, field)
            if element is not None and any(value for name, value in element.values() if name not in PINS):
                raise ConfigUnsupported(f"{word} tuning is not available in session mode", domain=From.QEMU)
    tune = live.cputune or CpuTune()
    given = any(getattr(tune, f"{who}{what}") for who in BANDWIDTHS for what in ("period", "quota"))
    if given and "cpu" not in hierarchies.controllers:
        raise ConfigUnsupported("cgroup cpu is required for scheduler tuning", domain=From.QEMU)


# --- a guest's life ---------------------------------------------------------------------------------------------


async def place(driver: "QemuDriver", live: DomainDef, number: int, pid: int) -> Group | None:
    """Make the group of a QEMU that was just started, with the definition's limits, and put it there. VirtError.

    None where the host has no control groups. The partition is noted in the live definition. When it fails, what was
    made is left to `remove_left`, once the process is gone.
    """
    hierarchies = driver.cgroups
    if not hierarchies.controllers:
        return None
    live.resource = live.resource or Resource()
    live.resource.partition = live.resource.partition or PARTITION
    partition, machine = live.resource.partition, machine_name(number, live.name)
    if cgroup_systemd.runs():
        path = await cgroup_systemd.make_scope(machine, UUID(live.uuid or ""), pid, partition)
        group = await in_thread(make_unit_group, hierarchies, path)
    else:
        group = await in_thread(_make_own, hierarchies, partition, machine)
    acl = [*driver.config.cgroup_device_acl, *await in_thread(driver.vfio_nodes, live)]
    group = await in_thread(_enter, group, live, pid, acl)
    driver.host.audit.send(await in_thread(_device_records, group, live, acl))
    shares = live.cputune.shares if live.cputune is not None and group.has("cpu") else None
    weight = live.blkiotune.weight if live.blkiotune is not None and group.has("blkio") else None
    await tell_weights(group, shares=shares, blkio=weight)
    return group


async def gather(group: Group | None, pids: Iterable[int]) -> None:
    """Put the guest's helpers beside its emulator: what they use counts as the guest's. VirtError."""
    if group is not None:
        for pid in pids:
            await in_thread(_gather, group, pid)


async def gather_helpers(guest: Guest) -> None:
    """The same, for all that run now. Raises VirtError."""
    await gather(guest.group, guest.helpers.pids)


def _gather(group: Group, pid: int) -> None:
    group.whole().add_process(pid)
    group.threads(EMULATOR).add_process(pid)


def _make_own(hierarchies: Hierarchies, partition: str, machine: str) -> Group:
    group = make_partition(hierarchies, partition).child(f"{machine}{SUFFIX}")
    group.make()
    return group


def _enter(group: Group, live: DomainDef, pid: int, acl: Iterable[str]) -> Group:
    """Put a process there and set the limits; the group with the controllers that it really has."""
    emulator = group.threads(EMULATOR)
    emulator.make(threaded=True)
    _limit_devices(group, live, acl)
    # A unit of systemd's can give its controllers to the group below it once no process is left in the unit itself.
    group.whole().add_process(pid)
    emulator.add_process(pid)
    Group({}, group.unified, group.v2).enable()
    group = group.settled()
    emulator = group.threads(EMULATOR)
    emulator.enable()
    _limit(group, live)
    tune = live.cputune or CpuTune()
    _limit_threads(emulator.settled(), live, tune.emulatorpin, tune.emulator_period, tune.emulator_quota)
    return group


def _limit(group: Group, live: DomainDef) -> None:
    """The limits of the guest as a whole. Without their controller all but those of processor time are left out."""
    if group.has("blkio") and live.blkiotune is not None:
        if live.blkiotune.weight:
            limits.set_weight(group, live.blkiotune.weight)
        for device in live.blkiotune.device:
            for name in ("weight", *limits.DEVICE_LIMITS):
                if value := getattr(device, name):
                    limits.set_device_limit(group, device.path or "", name, value)
    if group.has("memory") and live.memtune is not None:
        for name in limits.MEMORY_FILES:
            value = getattr(live.memtune, f"{name}_kib")
            if value is not None:
                limits.set_memory_limit(group, name, value)
    tune = live.cputune
    if tune is None or not group.has("cpu"):
        return
    if tune.shares:
        limits.set_shares(group, tune.shares)
    limits.set_bandwidth(group, tune.global_period, tune.global_quota)


def _limit_threads(group: Group, live: DomainDef, pin: Set[int] | None, period: int | None, quota: int | None) -> None:
    """The limits of some of a guest's threads."""
    if group.has("cpuset"):
        if cpus := pin or live.vcpu.cpuset:
            limits.set_cpus(group, cpus)
        if nodes := memory_nodes(live):
            limits.set_memory_nodes(group, nodes)
    if period or quota:
        if not group.has("cpu"):
            raise ConfigUnsupported("cgroup cpu is required for scheduler tuning", domain=From.QEMU)
        limits.set_bandwidth(group, period, quota)


def memory_nodes(live: DomainDef) -> Set[int] | None:
    """The nodes that all of the guest's memory must come from."""
    memory = live.numatune.memory if live.numatune is not None else None
    if memory is None or memory.mode not in (NumaMode.STRICT, NumaMode.RESTRICTIVE):
        return None
    return memory.nodeset or None


async def place_threads(dom: QemuDomain) -> None:
    """Give each vcpu and IOThread of a guest that starts its own group. Raises VirtError."""
    guest, live = dom.running, dom.live_def
    if guest.group is None:
        return
    iothreads = await iothread_tids(guest) if iothread_ids(live) else {}
    await in_thread(_place_threads, guest.group, live, guest.vcpu_threads, iothreads)


def _place_threads(group: Group, live: DomainDef, vcpus: Mapping[int, int], iothreads: Mapping[int, int]) -> None:
    tune = live.cputune or CpuTune()
    vcpu_pins = {pin.vcpu: pin.cpuset for pin in tune.vcpupin}
    iothread_pins = {pin.iothread: pin.cpuset for pin in tune.iothreadpin}
    for number, tid in vcpus.items():
        _place_thread(group, f"vcpu{number}", tid, live, vcpu_pins.get(number), tune.period, tune.quota)
    for number, tid in iothreads.items():
        pin = iothread_pins.get(number)
        _place_thread(group, f"iothread{number}", tid, live, pin, tune.iothread_period, tune.iothread_quota)


def _place_thread(
    group: Group,
    name: str,
    tid: int,
    live: DomainDef,
    pin: Set[int] | None,
    period: int | None,
    quota: int | None,
) -> None:
    own = group.threads(name)
    own.make(threaded=True)
    own = own.settled()
    _limit_threads(own, live, pin, period, quota)
    own.add_thread(tid)


async def add_thread(dom: QemuDomain, kind: str, number: int, tid: int) -> None:
    """Give a vcpu or iothread (`kind`) that came while the guest runs its group. Raises VirtError."""
    guest, live = dom.running, dom.live_def
    if guest.group is not None:
        new = {number: tid}
        vcpus, iothreads = (new, {}) if kind == "vcpu" else ({}, new)
        await in_thread(_place_threads, guest.group, live, vcpus, iothreads)


async def remove_thread(dom: QemuDomain, kind: str, number: int) -> None:
    """The thread is gone: remove its group."""
    if (group := dom.running.group) is not None:
        await remove(group.threads(f"{kind}{number}"))


def thread_groups(dom: QemuDomain, kind: str) -> list[Group]:
    """The groups of a running guest's threads: of its vcpus, IOThreads, its emulator or all; global is its own."""
    guest = dom.running
    if guest.group is None:
        return []
    if kind == "global":
        return [guest.group]
    names = {
        "vcpu": [f"vcpu{number}" for number in guest.vcpu_threads],
        "iothread": [f"iothread{number}" for number in iothread_ids(dom.live_def)],
        EMULATOR: [EMULATOR],
    }
    wanted = names[kind] if kind in names else [name for some in names.values() for name in some]
    return [guest.group.threads(name) for name in wanted]


async def find(driver: "QemuDriver", live: DomainDef, pid: int) -> Group | None:
    """The group that an earlier daemon put a guest into; None where it has none."""
    hierarchies = driver.cgroups
    if not hierarchies.controllers:
        return None
    machine = machine_name(live.id or 0, live.name)
    for name in (f"{machine}{SUFFIX}", scope_name(machine)):
        with suppress(ProcessLookupError):
            found = await in_thread(hierarchies.group_of, pid, name)
            if found is not None:
                return found.settled()
    return None


async def remove(group: Group | None) -> None:
    """The guest is gone. A process that nobody has waited for yet is in its group for a moment more."""
    for _ in range(REMOVE_TRIES):
        if group is None or await in_thread(group.remove):
            return
        await asyncio.sleep(REMOVE_PAUSE_S)
    if group is not None:
        log.warning("a control group is left behind: %s", next(iter(group.directories())))


async def remove_left(driver: "QemuDriver", live: DomainDef) -> None:
    """Remove the group of a guest that is gone, and that nobody has noted. A unit of systemd's goes by itself."""
    if driver.cgroups.controllers and not cgroup_systemd.runs():
        partition = live.resource.partition if live.resource is not None else None
        with suppress(VirtError):
            above = make_partition(driver.cgroups, partition or PARTITION)
            await remove(above.child(f"{machine_name(live.id or 0, live.name)}{SUFFIX}"))


async def tell_weights(group: Group, *, shares: int | None = None, blkio: int | None = None) -> None:
    """Weights count between units of systemd's, and it is systemd that sets those: the group below one has no rival."""
    unit = unit_of(group)
    if unit is None:
        return
    if shares:
        await cgroup_systemd.set_weight(unit, "CPUWeight" if group.is_v2("cpu") else "CPUShares", shares)
    if blkio:
        await cgroup_systemd.set_weight(unit, "IOWeight" if group.is_v2("blkio") else "BlockIOWeight", blkio)


def unit_of(group: Group) -> str | None:
    """The unit of systemd's that a group is of."""
    path = next(iter(group.directories()))
    return path.parent.name if path.name == DELEGATED else None


# --- devices ----------------------------------------------------------------------------------------------------


def _limit_devices(group: Group, live: DomainDef, acl: Iterable[str]) -> None:
    """Let the guest use its own devices only, where version 1's controller is; version 2 has none without a program."""
    if "devices" in group.v1:
        rules = {rule for path in acl if (rule := limits.device_rule(path)) is not None}
        limits.only_devices(group, {PTYS} | rules | device_rules(live))


def _device_records(group: Group, live: DomainDef, acl: Iterable[str]) -> list[Record]:
    """What `_limit_devices` did, for the audit trail."""
    if "devices" not in group.v1:
        return []
    paths = [*((path, True) for path in acl), *opened_paths(live)]
    rules = [(path, limits.device_rule(path, writable=writable)) for path, writable in paths]
    kinds = [("pty", PTYS), *([("scsi-generic", SCSI_GENERIC)] if live.devices.hostdev else [])]
    found = [(path, rule) for path, rule in rules if rule is not None]
    return list(audit_records.allowed_devices(live, str(group.v1["devices"]), found, kinds))


def device_rules(live: DomainDef) -> set[DeviceRule]:
    """What a definition's devices are on this host."""
    rules = {limits.device_rule(path, writable=writable) for path, writable in opened_paths(live)}
    if live.devices.hostdev:
        rules.add(SCSI_GENERIC)
    return {rule for rule in rules if rule is not None}
