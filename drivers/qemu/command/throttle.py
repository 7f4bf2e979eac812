"""Throttle groups of a domain, and the filter nodes through which a disk's data passes them.

A disk's first filter is on its image (or its copy-on-read node), each further one on the one before; the guest's
device uses the last. https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, ThrottleLimits
"""

import re
from collections.abc import Iterator

from pyvirtd.drivers.qemu.command.context import Builder, Props
from pyvirtd.model.disk import Disk, DiskPrivateData, Iotune, ThrottleGroup
from pyvirtd.model.storage import NodeName

GROUP_NAME = "group_name"
NODE_TYPE = "throttle-filter"  # what the status file calls them
_LIMIT = re.compile(r"(total|read|write)_(bytes|iops)_sec((?:_max)?(?:_length)?)")
_NODE = re.compile(r"libvirt-(\d{1,9})-filter")


def object_id(group: str | None) -> str:
    """The id of a group's object in QEMU. Groups of <iotune>, which are no objects of ours, have other names."""
    return f"throttle-{group}"


def limit_names() -> tuple[str, ...]:
    """The names of all limits, as fields and parameters have them."""
    return tuple(name for name, _ in Iotune().values() if name != GROUP_NAME)


def qemu_name(limit: str) -> str:
    """QEMU's name of a limit: bps-total-max for total_bytes_sec_max."""
    if (matched := _LIMIT.fullmatch(limit)) is None:
        return "iops-size"
    kind = "bps" if matched[2] == "bytes" else "iops"
    return f"{kind}-{matched[1]}{matched[3].replace('_', '-')}"


def limits(group: ThrottleGroup, *, every: bool = False) -> Props:
    """A group's limits as QEMU is told them; `every`: those that are not set as well, to take them back."""
    found = Props()
    for name in limit_names():
        value = getattr(group, name) or 0
        if value or every:
            # QEMU's own value of a length that nobody set is one second, and it takes no other for "none".
            found[qemu_name(name)] = value or int(name.endswith("_length"))
    return found


def build_throttle_groups(build: Builder) -> None:
    """-object of every group"""
    for group in build.definition.throttlegroups:
        build.object(group_props(group))


def group_props(group: ThrottleGroup) -> Props:
    """The object of a group."""
    return Props({"qom-type": "throttle-group", "id": object_id(group.group_name), "limits": limits(group)})


def build_filters(build: Builder, disk: Disk, below: str) -> None:
    """-blockdev of a disk's filters, above the node `below`"""
    for name, one in zip(filter_nodes(disk), disk.throttlefilters, strict=True):
        props = Props({"driver": "throttle", "node-name": name, "throttle-group": object_id(one.group_name)})
        props.put("file", below).put("read-only", disk.readonly or None).put("discard", "unmap")
        build.command.add("-blockdev", props.text())
        below = name


def filter_nodes(disk: Disk) -> list[str]:
    """The names of a numbered disk's filters, the lowest first."""
    noted = disk.private_data.nodenames if disk.private_data is not None else ()
    return [node.name or "" for node in noted if node.type == NODE_TYPE]


def number_filters(disk: Disk, number: int) -> int:
    """Name a disk's filters, unless they have names, by the numbers that follow; the last number used."""
    if not disk.throttlefilters or filter_nodes(disk):
        return number
    data = disk.private_data = disk.private_data or DiskPrivateData()
    for _ in disk.throttlefilters:
        number += 1
        data.nodenames.append(NodeName(type=NODE_TYPE, name=f"libvirt-{number}-filter"))
    return number


def filter_numbers(disk: Disk) -> Iterator[int]:
    """The numbers in the names of a disk's filters."""
    for name in filter_nodes(disk):
        if (matched := _NODE.fullmatch(name)) is not None:
            yield int(matched[1])
