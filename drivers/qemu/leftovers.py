"""What a guest keeps beside its definition: its firmware's variables and its emulated TPM's memory."""

from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.constants.domain import DomainUndefineFlagsValues as Undefine
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.helpers import tpm, tpm_state
from pyvirtd.errors import OperationInvalid, from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.os import FirmwareFormat, LoaderType
from pyvirtd.model.storage import FileSource, host_path
from pyvirtd.paths import QemuPaths
from pyvirtd.util.files import durable_unlink, in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver


def nvram_files(definition: DomainDef, paths: QemuPaths) -> list[Path]:
    """Where the firmware's variables may be; none where a definition has none, or has them elsewhere than in a file."""
    os = definition.os
    if os.nvram is not None and os.nvram.source is not None:
        source = os.nvram.source
        path = host_path(source) if isinstance(source, FileSource) else None
        return [Path(path)] if path else []
    if os.nvram is not None and os.nvram.path:
        return [Path(os.nvram.path)]
    loader = os.loader
    if os.firmware_type is None or (loader is not None and (loader.stateless or loader.type is LoaderType.ROM)):
        return []
    # The firmware that the last start chose decided.
    return [paths.nvram_file(definition.name, format_) for format_ in FirmwareFormat]


async def check_undefine(driver: "QemuDriver", dom: QemuDomain, flags: int) -> None:
    """Undefining neither loses variables nor leaves them lying about unasked. Raises OperationInvalid."""
    if flags & (Undefine.NVRAM | Undefine.KEEP_NVRAM):
        return
    if await in_thread(_any_exists, nvram_files(dom.config, driver.host.paths.qemu)):
        raise OperationInvalid("cannot undefine domain with nvram", domain=From.QEMU)


def _any_exists(paths: list[Path]) -> bool:
    return any(path.exists() for path in paths)


async def remove_undefined(driver: "QemuDriver", dom: QemuDomain, flags: int) -> None:
    """Remove what the flags say. A TPM that is in use is removed when its guest has ended."""
    paths = driver.host.paths.qemu
    for path in nvram_files(dom.config, paths) if flags & Undefine.NVRAM else ():
        try:
            await durable_unlink(path, missing_ok=True)
        except OSError as exc:
            raise from_os_error(exc, f"failed to remove nvram: {path}", domain=From.QEMU) from exc
    if not dom.active:
        await remove_tpm(driver, dom.config, flags)


async def remove_tpm(driver: "QemuDriver", definition: DomainDef, flags: int = 0) -> None:
    """Remove the TPM of a domain that is no more, unless it or the flags say that it is kept."""
    emulated = tpm.emulated(definition)
    if emulated is None or flags & Undefine.KEEP_TPM:
        return
    if flags & Undefine.TPM or not emulated.persistent_state:
        await in_thread(tpm_state.remove_state, emulated, driver.host.paths.qemu, definition.uuid or "")
