"""What is limited and counted in a control group, in one language for both versions of control groups.

Values are libvirt's: memory in KiB with UNLIMITED_KIB for no limit, times in microseconds, a negative quota for no
limit. Everything raises SystemError_ with the file and the kernel's reason, and reads or writes files: for a thread.
"""

import os
import stat
from collections.abc import Set
from contextlib import suppress
from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.cgroup import Group
from pyvirtd.core.procstat import NS_PER_TICK
from pyvirtd.errors import InvalidArg, OperationInvalid, SystemError_, from_os_error
from pyvirtd.util.values import format_cpus

UNLIMITED_KIB = 9007199254740991  # VIR_DOMAIN_MEMORY_PARAM_UNLIMITED
PAGE_MAX = 1 << 20  # bytes; pages of Linux are smaller
PERIOD_RANGE = (1000, 1_000_000)
QUOTA_RANGE = (1000, 17592186044415)
# kernel: cpu.shares of version 1, cpu.weight of version 2
SHARES_RANGE = {False: (2, 262144), True: (1, 10000)}
MEMORY_FILES = {
    "hard_limit": ("memory.limit_in_bytes", "memory.max"),
    "soft_limit": ("memory.soft_limit_in_bytes", "memory.high"),
    "swap_hard_limit": ("memory.memsw.limit_in_bytes", "memory.swap.max"),
}
# Limit of a block device -> the file of version 1, the key in io.max.
DEVICE_LIMITS = {
    "read_iops_sec": ("blkio.throttle.read_iops_device", "riops"),
    "write_iops_sec": ("blkio.throttle.write_iops_device", "wiops"),
    "read_bytes_sec": ("blkio.throttle.read_bps_device", "rbps"),
    "write_bytes_sec": ("blkio.throttle.write_bps_device", "wbps"),
}
WEIGHT_FILES = {False: ("blkio.weight", "blkio.bfq.weight"), True: ("io.weight", "io.bfq.weight")}
DEVICE_WEIGHT_FILES = {False: ("blkio.weight_device",), True: ("io.weight",)}


# --- processors -------------------------------------------------------------------------------------------------


def shares(group: Group) -> int:
    """The group's weight among its siblings."""
    return int(group.read("cpu", "cpu.weight" if group.is_v2("cpu") else "cpu.shares"))


def set_shares(group: Group, value: int) -> None:
    """Raises InvalidArg for a value out of the version's range."""
    v2 = group.is_v2("cpu")
    low, high = SHARES_RANGE[v2]
    if not low <= value <= high:
        raise InvalidArg(f"shares '{value}' must be in range [{low}, {high}]")
    group.write("cpu", "cpu.weight" if v2 else "cpu.shares", value)


def bandwidth(group: Group) -> tuple[int, int]:
    """(period, quota) of processor time. Without a limit the quota is -1, and the highest one under version 2."""
    if group.is_v2("cpu"):
        quota, period = group.read("cpu", "cpu.max").split()
        return int(period), QUOTA_RANGE[1] if quota == "max" else int(quota)
    return int(group.read("cpu", "cpu.cfs_period_us")), int(group.read("cpu", "cpu.cfs_quota_us"))


def set_bandwidth(group: Group, period: int | None, quota: int | None) -> None:
    """Limit processor time to `quota` in each `period`; what is None or 0 stays."""
    if group.is_v2("cpu"):
        old_quota, old_period = group.read("cpu", "cpu.max").split()
        words = old_quota if not quota else str(quota) if 0 < quota < QUOTA_RANGE[1] else "max"
        group.write("cpu", "cpu.max", f"{words} {period or old_period}")
        return
    if period:
        group.write("cpu", "cpu.cfs_period_us", period)
    if quota:
        group.write("cpu", "cpu.cfs_quota_us", quota)


def set_cpus(group: Group, cpus: Set[int]) -> None:
    """The processors that the group's threads run on."""
    group.write("cpuset", "cpuset.cpus", format_cpus(cpus))


def set_memory_nodes(group: Group, nodes: Set[int]) -> None:
    """The NUMA nodes that the group's memory comes from."""
    group.write("cpuset", "cpuset.mems", format_cpus(nodes))


class CpuTimes(NamedTuple):
    """Processor time of a group and those below it."""

    total_ns: int
    user_ns: int
    system_ns: int


def cpu_times(group: Group) -> CpuTimes:
    """Since the group was made."""
    if group.is_v2("cpuacct"):
        words = dict(line.split() for line in group.read("cpuacct", "cpu.stat").splitlines())
        return CpuTimes(*(int(words.get(name, 0)) * 1000 for name in ("usage_usec", "user_usec", "system_usec")))
    ticks = dict(line.split() for line in group.read("cpuacct", "cpuacct.stat").splitlines())
    total = int(group.read("cpuacct", "cpuacct.usage"))
    return CpuTimes(total, int(ticks["user"]) * NS_PER_TICK, int(ticks["system"]) * NS_PER_TICK)


def cpu_times_each(group: Group) -> list[int]:
    """Nanoseconds on each processor, by its number; version 1 counts them, version 2 does not."""
    assert not group.is_v2("cpuacct")
    return [int(word) for word in group.read("cpuacct", "cpuacct.usage_percpu").split()]


# --- memory -----------------------------------------------------------------------------------------------------


def memory_limits(group: Group) -> dict[str, int]:
    """All limits in KiB; the limit of memory and swap together counts as none where the kernel has no swap limits."""
    return {name: _memory_limit(group, name) for name in MEMORY_FILES}


def _memory_limit(group: Group, name: str) -> int:
    v2 = group.is_v2("memory")
    file = MEMORY_FILES[name][v2]
    if name == "swap_hard_limit":
        if not group.exists("memory", file):
            return UNLIMITED_KIB
        if v2:  # which limits swap alone
            swap, memory = (group.read("memory", one) for one in (file, "memory.max"))
            return UNLIMITED_KIB if "max" in (swap, memory) else (int(swap) + int(memory)) // 1024
    value = group.read("memory", file)
    # Without a limit version 1 has the greatest number of whole pages.
    return UNLIMITED_KIB if value == "max" or int(value) >= 2**63 - PAGE_MAX else int(value) // 1024


def set_memory_limit(group: Group, name: str, kib: int) -> None:
    """One of the MEMORY_FILES' limits; UNLIMITED_KIB for none."""
    v2 = group.is_v2("memory")
    unlimited = kib >= UNLIMITED_KIB
    value: int | str = kib * 1024
    if unlimited:
        value = "max" if v2 else -1
    elif v2 and name == "swap_hard_limit":
        hard = _memory_limit(group, "hard_limit")
        if hard >= UNLIMITED_KIB or hard > kib:
            raise InvalidArg("memory hard_limit tunable value must be lower than or equal to swap_hard_limit")
        value = (kib - hard) * 1024
    group.write("memory", MEMORY_FILES[name][v2], value)


# --- block devices ----------------------------------------------------------------------------------------------


def weight(group: Group) -> int:
    """The group's weight in input and output."""
    return int(group.read("blkio", _weight_file(group)).split()[-1])


def set_weight(group: Group, value: int) -> None:
    group.write("blkio", _weight_file(group), value)


def _weight_file(group: Group) -> str:
    for name in WEIGHT_FILES[group.is_v2("blkio")]:
        if group.exists("blkio", name):
            return name
    raise OperationInvalid("blkio weight is valid only for bfq or cfq scheduler")


def set_device_limit(group: Group, path: str, name: str, value: int) -> None:
    """Limit a block device, or not any more with 0. Raises OperationInvalid for a weight that the kernel has not."""
    v2 = group.is_v2("blkio")
    file = _device_file(group, name)
    if file is None:
        raise OperationInvalid("blkio device weight is valid only for cfq scheduler")
    number = _device_number(path)
    words = str(value)
    if v2 and name != "weight":
        words = f"{DEVICE_LIMITS[name][1]}={value or 'max'}"
    elif v2 and not value:
        words = "default"
    group.write("blkio", file, f"{number} {words}")


def _device_file(group: Group, name: str) -> str | None:
    v2 = group.is_v2("blkio")
    if name != "weight":
        return "io.max" if v2 else DEVICE_LIMITS[name][0]
    return next((file for file in DEVICE_WEIGHT_FILES[v2] if group.exists("blkio", file)), None)


def _device_number(path: str) -> str:
    """MAJOR:MINOR of a block device."""
    try:
        about = os.stat(path)
    except OSError as exc:
        raise from_os_error(exc, f"Path '{path}' is not accessible") from exc
    if not stat.S_ISBLK(about.st_mode):
        raise SystemError_(f"Path '{path}' must be a block device: Invalid argument", domain=From.NONE)
    return f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"


# --- devices ----------------------------------------------------------------------------------------------------


class DeviceRule(NamedTuple):
    """Nodes that may be used: `kind` b or c, `number` MAJOR:MINOR (* for all), `access` of r, w, m."""

    kind: str
    number: str
    access: str


def device_rule(path: str, *, writable: bool = True) -> DeviceRule | None:
    """The rule for a device node; None for what is none."""
    with suppress(OSError):
        about = os.stat(path)
        kind = "b" if stat.S_ISBLK(about.st_mode) else "c" if stat.S_ISCHR(about.st_mode) else ""
        if kind:
            number = f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
            return DeviceRule(kind, number, "rw" if writable else "r")
    return None


def only_devices(group: Group, rules: Set[DeviceRule]) -> None:
    """Let the group use these devices and no others. Version 1 only."""
    group.write("devices", "devices.deny", "a")
    allow_devices(group, rules)


def allow_devices(group: Group, rules: Set[DeviceRule]) -> None:
    """Let it use these, too."""
    for rule in sorted(rules):
        group.write("devices", "devices.allow", " ".join(rule))
