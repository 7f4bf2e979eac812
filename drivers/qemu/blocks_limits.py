"""Limits of disks (<iotune>) that QEMU is told of when a guest starts.

https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, block_set_io_throttle
"""

from typing import Any

from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.stats_qmp import device_alias
from pyvirtd.model.disk import Iotune

GROUP_NAME = "group_name"
# The limits in libvirt's order: name of the parameter and of the field, name that QEMU has for it.
IO_LIMITS = (
    ("total_bytes_sec", "bps"),
    ("read_bytes_sec", "bps_rd"),
    ("write_bytes_sec", "bps_wr"),
    ("total_iops_sec", "iops"),
    ("read_iops_sec", "iops_rd"),
    ("write_iops_sec", "iops_wr"),
    ("total_bytes_sec_max", "bps_max"),
    ("read_bytes_sec_max", "bps_rd_max"),
    ("write_bytes_sec_max", "bps_wr_max"),
    ("total_iops_sec_max", "iops_max"),
    ("read_iops_sec_max", "iops_rd_max"),
    ("write_iops_sec_max", "iops_wr_max"),
    ("size_iops_sec", "iops_size"),
    (GROUP_NAME, "group"),
    ("total_bytes_sec_max_length", "bps_max_length"),
    ("read_bytes_sec_max_length", "bps_rd_max_length"),
    ("write_bytes_sec_max_length", "bps_wr_max_length"),
    ("total_iops_sec_max_length", "iops_max_length"),
    ("read_iops_sec_max_length", "iops_rd_max_length"),
    ("write_iops_sec_max_length", "iops_wr_max_length"),
)
REQUIRED = 6  # QEMU wants these of the limits each time


def throttle(iotune: Iotune) -> dict[str, Any]:
    """The limits as QEMU is told them; {} where there are none."""
    given = {key: getattr(iotune, name) for name, key in IO_LIMITS if getattr(iotune, name, None)}
    if not given:
        return {}
    return dict.fromkeys((key for _, key in IO_LIMITS[:REQUIRED]), 0) | given


async def apply_limits(dom: QemuDomain) -> None:
    """Tell QEMU the limits of a guest that starts. Raises VirtError."""
    limits = {
        disk.info.alias: found
        for disk in dom.live_def.devices.disk
        if disk.iotune is not None and (found := throttle(disk.iotune))
    }
    if not limits:
        return
    for drive in await dom.monitor.execute("query-block"):
        wanted = limits.get(device_alias(drive))
        if wanted and "inserted" in drive:
            await dom.monitor.execute("block_set_io_throttle", {"id": drive["qdev"]} | wanted)
