"""The mark in an image beyond which a write is told to clients, so that thin storage grows in time."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyvirtd.api.domain_block import BlockPart
from pyvirtd.api.rpc import accepts
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu.blocks_find import local_path
from pyvirtd.drivers.qemu.command.block import Layer, every_layer
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import InvalidArg
from pyvirtd.model.disk import Disk
from pyvirtd.model.domain import DomainDef

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

_DEVICE = re.compile(r"([^\[\]]*)(?:\[(\d{1,9})\])?")


class BlockThreshold(BlockPart[QemuDomain]):
    """Setting the mark; `names_of` is how the event calls what was written to."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(0)
    async def domain_set_block_threshold(self, dom: QemuDomain, dev: str, threshold: int, flags: int) -> None:
        async with dom.jobs.hold(Job.MODIFY, "DomainSetBlockThreshold"):
            layer = find_layer(dom.live_def, dev)
            arguments = {"node-name": layer.storage, "write-threshold": threshold}
            await dom.monitor.execute("block-set-write-threshold", arguments)


def find_layer(definition: DomainDef, dev: str) -> Layer:
    """The image that a client names: `vda`, or one of its chain by its number, `vda[4]`. Raises InvalidArg."""
    matched = _DEVICE.fullmatch(dev)
    if matched is None:
        raise InvalidArg(f"failed to parse block device '{dev}'", domain=From.QEMU)
    target, number = matched[1], int(matched[2] or 0)
    disk = next((disk for disk in definition.devices.disk if disk.target.dev == target), None)
    if disk is not None and not number and disk.source is None:
        raise InvalidArg(f"disk '{dev}' does not currently have a source assigned", domain=From.QEMU)
    for layer in every_layer(disk) if disk is not None else ():
        if number in (0, layer.index):
            return layer
    raise InvalidArg(f"failed to find disk '{dev}'", domain=From.QEMU)


def names_of(definition: DomainDef, node: str) -> Iterator[tuple[str, str | None]]:
    """What clients call the image of a storage node, with its path: the first of a disk by the disk's name too."""
    for disk in definition.devices.disk:
        for place, layer in enumerate(every_layer(disk)):
            if node in (layer.storage, f"{layer.name}-storage"):
                yield from _names(disk, layer, first=place == 0)
                return


def _names(disk: Disk, layer: Layer, *, first: bool) -> Iterator[tuple[str, str | None]]:
    path = local_path(layer.source) or None
    if first:
        yield str(disk.target.dev), path
    yield f"{disk.target.dev}[{layer.index}]", path
