"""Rules of throttle groups and of the disks that pass them."""

import re
from itertools import product

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.throttle import limit_names
from pyvirtd.drivers.qemu.postparse.given_disks import doubly_limited
from pyvirtd.drivers.qemu.postparse.refuse import qemu_unsupported, unsupported
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ArgumentUnsupported
from pyvirtd.model.disk import Disk, DiskBus, DiskDevice, Iotune, ThrottleGroup

LIMIT_MAX = 10**15  # QEMU's THROTTLE_VALUE_MAX
_ID = re.compile(r"[A-Za-z0-9._-]+")  # of the rest of a QEMU id


def check_limits_max(tune: Iotune) -> None:
    """Raises ArgumentUnsupported for a limit that QEMU cannot count to."""
    if any(isinstance(value, int) and value > LIMIT_MAX for _, value in tune.values()):
        raise ArgumentUnsupported(
            f"block I/O throttle limit must be no more than {LIMIT_MAX} using QEMU", domain=ErrorDomain.QEMU
        )


def has_limits(tune: Iotune) -> bool:
    """Anything beside the group's name."""
    return any(getattr(tune, name) for name in limit_names())


def check_throttle_groups(scope: Scope) -> None:
    """The groups by themselves, and that each disk's are there."""
    names: set[str] = set()
    for group in scope.definition.throttlegroups:
        check_group(group)
        if group.group_name in names:
            raise unsupported(f"duplicate throttle group '{group.group_name}' found")
        names.add(group.group_name or "")
    for disk in scope.devices.disk:
        _check_filters(disk, names)


def check_group(group: ThrottleGroup) -> None:
    """One group: a name that QEMU takes, and limits that make sense together. Raises VirtError."""
    name = group.group_name
    if not name:
        raise unsupported("throttle group name is missing")
    if not _ID.fullmatch(name):
        raise qemu_unsupported(f"invalid throttle group name '{name}': only letters, digits and '-_.' are allowed")
    if not has_limits(group):
        raise qemu_unsupported(f"throttle group '{name}' has no limits")
    check_limits_max(group)
    if (kind := doubly_limited(group)) is not None:
        raise unsupported(f"total and read/write {kind} cannot be set at the same time in throttle group '{name}'")
    for part, kind in product(("total", "read", "write"), ("bytes", "iops")):
        _check_burst(group, f"{part}_{kind}_sec")
    if group.size_iops_sec and not (group.total_iops_sec or group.read_iops_sec or group.write_iops_sec):
        raise _needs(group, "size_iops_sec", "an iops limit")


def _check_burst(group: ThrottleGroup, base: str) -> None:
    """A burst is above the limit that it exceeds, and only a burst has a length."""
    limit, burst, seconds = (getattr(group, base + end) or 0 for end in ("", "_max", "_max_length"))
    if burst and not limit:
        raise _needs(group, f"{base}_max", f"'{base}'")
    if seconds and not burst:
        raise _needs(group, f"{base}_max_length", f"'{base}_max'")
    if burst and burst < limit:
        raise qemu_unsupported(
            f"value '{base}_max' cannot be smaller than '{base}' in throttle group '{group.group_name}'"
        )


def _needs(group: ThrottleGroup, name: str, other: str) -> Exception:
    return qemu_unsupported(
        f"value '{name}' cannot be set if {other} is not set in throttle group '{group.group_name}'"
    )


def _check_filters(disk: Disk, groups: set[str]) -> None:
    target, seen = disk.target.dev, set()
    if disk.throttlefilters and disk.iotune is not None:
        raise unsupported(f"iotune and throttlefilters cannot be used together for disk '{target}'")
    if disk.throttlefilters and (disk.target.bus is DiskBus.SD or disk.device is DiskDevice.LUN):
        kind = "an SD card" if disk.target.bus is DiskBus.SD else "a lun device"
        raise qemu_unsupported(f"throttlefilters are not supported for disk '{target}', which is {kind}")
    for one in disk.throttlefilters:
        if one.group_name not in groups:
            raise unsupported(f"throttle group '{one.group_name}' of disk '{target}' is not defined in the domain")
        if one.group_name in seen:
            raise unsupported(f"throttle group '{one.group_name}' is referenced more than once by disk '{target}'")
        seen.add(one.group_name)
