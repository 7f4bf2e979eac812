"""Firmware variables of which there is only a template in another format: converted before they are put in place."""

import contextlib
import json
from pathlib import Path

from pyvirtd.drivers.qemu.command.context import NewFile
from pyvirtd.drivers.qemu.qemu_img import qemu_img
from pyvirtd.drivers.qemu.run_files import make_file
from pyvirtd.util.files import Owner, in_thread


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
    error = f"cannot convert '{template}' from {given} to {wanted}"
    await qemu_img("convert", "-O", str(wanted), f"json:{json.dumps(source)}", str(to), error=error)
