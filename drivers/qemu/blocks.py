"""What clients ask about disks beside their statistics: limits, errors, jobs, data."""

from typing import TYPE_CHECKING, Any

from pyvirtd.api.domain_block import BlockPart, DomainGetBlockJobInfoReply, DomainGetDiskErrorsReply
from pyvirtd.api.limits import DOMAIN_BLOCK_PEEK_BUFFER_MAX
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import DiskError, TypedParam, param_string, param_ullong
from pyvirtd.constants.domain import DomainBlockJobInfoFlags, DomainDiskErrorCode
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterFlags
from pyvirtd.core.edits import one_target
from pyvirtd.drivers.qemu.blocks_find import disk_format, find_disk, is_empty
from pyvirtd.drivers.qemu.blocks_limits import GROUP_NAME, IO_LIMITS
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.stats_image import Image, measure_one, peek, require_local
from pyvirtd.drivers.qemu.stats_qmp import device_alias
from pyvirtd.errors import BadCall, InternalError, InvalidArg, OperationUnsupported
from pyvirtd.model.disk import Disk, Iotune
from pyvirtd.model.storage import StorageFormat

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

STRING_OKAY = TypedParameterFlags.STRING_OKAY
IMAGE_S = 30.0
DISK_ERRORS = {"failed": DomainDiskErrorCode.UNSPEC, "nospace": DomainDiskErrorCode.NO_SPACE}


class Blocks(BlockPart[QemuDomain]):
    """The block procedures that only read."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(0)
    async def domain_block_peek(self, dom: QemuDomain, path: str, offset: int, size: int, flags: int) -> bytes:
        if size > DOMAIN_BLOCK_PEEK_BUFFER_MAX:
            raise InternalError("size > maximum buffer size", domain=From.RPC)
        if not path:
            raise BadCall("string disk in virDomainBlockPeek must not be empty")
        disk = _disk(dom, path)
        format_ = None if is_empty(disk) else disk_format(disk)
        if format_ is not StorageFormat.RAW:
            kind = "none" if format_ is None else str(format_)
            raise OperationUnsupported(
                f"peeking is only supported for disk with 'raw' format not '{kind}'", domain=From.QEMU
            )
        file = require_local(disk)
        length = (await measure_one(Image(file, format_), IMAGE_S, From.STORAGE)).physical
        if offset + size > length:
            available = max(length - offset, 0)
            raise InvalidArg(f"'{path}' starting from {offset} has only {available} bytes available")
        return await peek(file, offset, size, IMAGE_S)

    @accepts(0)
    async def domain_get_disk_errors(self, dom: QemuDomain, maxerrors: int, flags: int) -> DomainGetDiskErrorsReply:
        disks = dom.live_def.devices.disk
        if not maxerrors:
            return DomainGetDiskErrorsReply([], len(disks))
        states = {device_alias(drive): drive.get("io-status") for drive in await dom.monitor.execute("query-block")}
        errors = []
        for disk in disks:
            error = DISK_ERRORS.get(states.get(disk.info.alias or "") or "")
            if error is not None:
                errors.append(DiskError(disk.target.dev or "", error))
        errors = errors[:maxerrors]
        return DomainGetDiskErrorsReply(errors, len(errors))

    @accepts(DomainBlockJobInfoFlags.BANDWIDTH_BYTES)
    def domain_get_block_job_info(self, dom: QemuDomain, path: str, flags: int) -> DomainGetBlockJobInfoReply:
        dom.running  # noqa: B018 - raises for a domain that is off, before the disk is looked for
        _disk(dom, path)
        return DomainGetBlockJobInfoReply(0, 0, 0, 0, 0)

    @accepts(Impact.LIVE | Impact.CONFIG | STRING_OKAY)
    async def domain_get_block_io_tune(self, dom: QemuDomain, disk: str | None, flags: int) -> list[TypedParam]:
        definition = one_target(dom, flags)
        limits = _limits(None)
        if disk is not None:  # without one a client wants to know how many there are
            found = find_disk(definition, disk)
            if found is None:
                where = "not found in domain" if definition is dom.live else "was not found in the domain config"
                raise InvalidArg(f"disk '{disk}' {where}")
            limits = await self._live_limits(dom, found) if definition is dom.live else _limits(found.iotune)
        return [
            param_string(name, str(limits[name])) if name == GROUP_NAME else param_ullong(name, int(limits[name]))
            for name, _ in IO_LIMITS
            if name != GROUP_NAME or flags & STRING_OKAY
        ]

    async def _live_limits(self, dom: QemuDomain, disk: Disk) -> dict[str, int | str]:
        """The limits by name that QEMU keeps to."""
        for drive in await dom.monitor.execute("query-block"):
            if device_alias(drive) == disk.info.alias:
                inserted: dict[str, Any] | None = drive.get("inserted")
                if inserted is None:
                    raise InternalError("block_io_throttle inserted entry was not in expected format", domain=From.QEMU)
                return {name: inserted.get(key, _nothing(name)) for name, key in IO_LIMITS}
        raise InternalError(f"cannot find throttling info for device '{disk.info.alias}'", domain=From.QEMU)


def _disk(dom: QemuDomain, path: str) -> Disk:
    disk = find_disk(dom.shown, path)
    if disk is None:
        raise InvalidArg(f"disk '{path}' not found in domain")
    return disk


def _limits(iotune: Iotune | None) -> dict[str, int | str]:
    """The limits by name that a definition states."""
    return {name: getattr(iotune, name, None) or _nothing(name) for name, _ in IO_LIMITS}


def _nothing(name: str) -> int | str:
    return "" if name == GROUP_NAME else 0
