"""Firmware variables of which there is only a template in another format: converted before they are put in place."""

import json
import os
from pathlib import Path

from pyvirtd.drivers.qemu.command.context import NewFile
from pyvirtd.drivers.qemu.qemu_img import qemu_img
from pyvirtd.drivers.qemu.run_files import make_file
from pyvirtd.util.files import Owner, in_thread


async def make(file: NewFile, owner: Owner | None) -> None:
    """Make a file that QEMU needs. Raises VirtError."""
    if file.convert is None or file.template is None or (file.keep and await in_thread(Path(file.path).exists)):
        await in_thread(make_file, file, owner)
        return
    # In memory: it has no name in a directory of the guest's user that could lead elsewhere.
    converted = os.memfd_create("variables", os.MFD_CLOEXEC)
    try:
        await _convert(file.template, file.convert, converted)
        await in_thread(make_file, file._replace(template=f"/proc/self/fd/{converted}"), owner)
    finally:
        os.close(converted)


async def _convert(template: str, formats: tuple[str, str], to: int) -> None:
    """Convert an image by itself: its name is nothing but a path, and nothing below it is looked at."""
    given, wanted = formats
    source: dict[str, object] = {"driver": str(given), "file": {"driver": "file", "filename": template}}
    if given != "raw":
        source["backing"] = None
    error = f"cannot convert '{template}' from {given} to {wanted}"
    words = ["convert", "-O", str(wanted), f"json:{json.dumps(source)}", f"/proc/self/fd/{to}"]
    await qemu_img(*words, error=error, pass_fds=(to,))
