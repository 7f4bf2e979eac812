"""The order in which libvirt walks over a guest's devices, which is not that of the document."""

from collections.abc import Iterator

from pyvirtd.model.address import Device
from pyvirtd.model.devices import Devices


def walk(devices: Devices) -> Iterator[Device]:
    """Every device that may have an address. Who comes first takes the lower place where places are given out."""
    lists: tuple[list[Device] | None, ...] = (
        [*devices.disk], [*devices.interface], [*devices.sound], [*devices.hostdev], [*devices.video],
        [*devices.controller], [*devices.smartcard], [*devices.serial], [*devices.parallel], [*devices.channel],
        [*devices.console], [*devices.input], [*devices.filesystem], [*devices.watchdog],
        [devices.memballoon] if devices.memballoon is not None else None, [*devices.rng],
        [devices.nvram] if devices.nvram is not None else None, [*devices.hub], [*devices.shmem], [*devices.tpm],
        [*devices.panic], [*devices.memory], [*devices.redirdev],
        [devices.iommu] if devices.iommu is not None else None,
        [devices.vsock] if devices.vsock is not None else None, [*devices.crypto],
        [devices.pstore] if devices.pstore is not None else None,
    )  # fmt: skip
    for group in lists:
        yield from group or ()
