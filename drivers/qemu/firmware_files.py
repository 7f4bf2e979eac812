"""Firmware variables of which there is only a template in another format: converted before they are put in place."""

import contextlib
import json
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.command.context import NewFile
from pyvirtd.drivers.qemu.helpers.base import find_program
from pyvirtd.drivers.qemu.run_files import make_file
from pyvirtd.errors import InternalError, from_os_error
from pyvirtd.util.files import Owner, in_thread
from pyvirtd.util.process import run

CONVERT_S = 60.0


async def make(file: NewFile, directory: Path, owner: Owner | None) -> None:
    """Make a file that QEMU needs; `directory`: the guest's own. Raises VirtError."""
    if file.convert is None or file.template is None or (file.keep and await in_thread(Path(file.path).exists)):
        await in_thread(make_file, file, owner)
        return
    converted = directory / f"{Path(file.path).name}.new"
    try:
        await _convert(file.template, file.convert, converted)
        await in_thread(make_file, file._replace(template=str(converted)), owner)
    finally:
        with contextlib.suppress(OSError):
            await in_thread(converted.unlink, missing_ok=True)


async def _convert(template: str, formats: tuple[str, str], to: Path) -> None:
    """Convert an image by itself: its name is nothing but a path, and nothing below it is looked at."""
    given, wanted = formats
    source: dict[str, object] = {"driver": str(given), "file": {"driver": "file", "filename": template}}
    if given != "raw":
        source["backing"] = None
    try:
        argv = [find_program("qemu-img"), "convert", "-O", str(wanted), f"json:{json.dumps(source)}", str(to)]
        result = await run(argv, timeout=CONVERT_S)
    except OSError as exc:
        raise from_os_error(exc, "cannot run 'qemu-img'", domain=From.QEMU) from exc
    if result.returncode:
        words = result.stderr.decode("utf-8", "replace").strip()
        raise InternalError(f"cannot convert '{template}' from {given} to {wanted}: {words}", domain=From.QEMU)
