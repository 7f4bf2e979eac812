"""What a command line depends on that only the host knows: looked up before, so that building one reads nothing."""

import os
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.capabilities.firmware import Firmware
from pyvirtd.drivers.qemu.command.firmware_select import installed
from pyvirtd.errors import InternalError, from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.hostdev import ScsiHostdevSource, ScsiProtocol
from pyvirtd.xml.bitmap import Bitmap

SCSI_DEVICES = Path("/sys/bus/scsi/devices")
VHOST_SCSI = "/dev/vhost-scsi"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host as one definition sees it."""

    nodes: Set[int] = frozenset({0})  # NUMA nodes
    huge_pages: tuple[tuple[int, str], ...] = ()  # sizes in KiB and where they are mounted
    firmware: tuple[Firmware, ...] = ()  # for a definition that asks for a kind of it
    scsi_devices: Mapping[str, str] = field(default_factory=dict)  # paths of the host's, by alias of the guest's
    vhost_scsi: bool = False  # targets of the host's kernel

    @classmethod
    def look_up(cls, live: DomainDef, config: QemuConfig) -> Self:
        """The facts for a definition that has aliases. Blocks. Raises VirtError for a device that is not there."""
        sources = ((one.info.alias or "", one.source) for one in live.devices.hostdev)
        return cls(
            online_nodes(),
            huge_page_mounts(config),
            installed() if live.os.firmware_type is not None else (),
            {
                alias: generic_device(source)
                for alias, source in sources
                if isinstance(source, ScsiHostdevSource) and source.protocol is not ScsiProtocol.ISCSI
            },
            os.path.exists(VHOST_SCSI),
        )


def online_nodes() -> Set[int]:
    """NUMA nodes of this host."""
    try:
        return Bitmap.parse(Path("/sys/devices/system/node/online").read_text().strip())
    except (OSError, ValueError):
        return frozenset({0})


def huge_page_mounts(config: QemuConfig) -> tuple[tuple[int, str], ...]:
    """Where huge pages are mounted, and their sizes in KiB: what qemu.conf says, else what the host has."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, options, *_ = line.split()
        if kind != "hugetlbfs" or (config.hugetlbfs_mount is not None and path not in config.hugetlbfs_mount):
            continue
        match = re.search(r"pagesize=(\d+)([KMG])", options)
        found.append((int(match[1]) << {"K": 0, "M": 10, "G": 20}[match[2]] if match else 0, path))
    return tuple(found)


def generic_device(source: ScsiHostdevSource) -> str:
    """The character device through which a SCSI device of the host is reached. Raises where it is not there."""
    adapter, address = source.adapter or "", source.address
    number = adapter.removeprefix("scsi_host")
    if not number.isdigit() or number == adapter:
        raise InternalError(f"Cannot parse adapter '{adapter}'", domain=ErrorDomain.NONE)
    place = f"{number}:{address.bus}:{address.target}:{address.unit}" if address is not None else number
    folder = f"{SCSI_DEVICES}/{place}/scsi_generic"
    try:
        return f"/dev/{sorted(os.listdir(folder))[0]}"
    except OSError as exc:
        raise from_os_error(exc, f"cannot open directory '{folder}'") from None
    except IndexError:
        raise InternalError(f"'{folder}' is empty", domain=ErrorDomain.NONE) from None
