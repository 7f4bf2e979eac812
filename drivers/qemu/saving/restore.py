"""A guest back from a file: a start whose QEMU is filled with the saved state instead of booting."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.api.types import Caller, Consent
from pyvirtd.constants.domain import (
    DomainCreateFlags,
    DomainEventStartedDetailType,
    DomainEventSuspendedDetailType,
    DomainPausedReason,
    DomainSaveRestoreFlags,
)
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.hooks import DomainOp, HookDriver
from pyvirtd.drivers.qemu import process
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.incoming import RESTORED, Incoming
from pyvirtd.drivers.qemu.saving.document import VIEW, apply_cookie, read_document, replacement
from pyvirtd.drivers.qemu.saving.edit import finish_edit
from pyvirtd.drivers.qemu.saving.image import Image, IncompleteImage, claim, open_image, read_image
from pyvirtd.drivers.qemu.saving.managed import has_image, remove_image
from pyvirtd.drivers.qemu.saving.pipeline import Pipeline
from pyvirtd.drivers.qemu.saving.save import check_flags
from pyvirtd.drivers.qemu.saving.transfer import load_state
from pyvirtd.errors import OperationFailed, VirtError, from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

Flags = DomainSaveRestoreFlags
Create = DomainCreateFlags


@asynccontextmanager
async def opened(
    driver: "QemuDriver", path: Path, consent: Consent, *, write: bool = False, keep: bool = False
) -> AsyncIterator[tuple[int, Image]]:
    """A save image that the caller may use, and its open file; `keep`: nobody else may change it meanwhile.

    Raises VirtError, and to whom nothing of the image is to be known AccessDenied, whatever is at the path.
    """
    async with AsyncExitStack() as ours:
        try:
            fd = await in_thread(_open, driver.host.paths.image_edits, path, write)
            ours.push_async_callback(in_thread, os.close, fd)
            image = await in_thread(read_image, fd)
        except VirtError as exc:
            raise await consent.unfound(exc) from exc
        await consent.to_document(image.xml)
        if write or keep:
            try:
                await in_thread(claim, fd, write=write)
            except OSError as exc:
                raise _not_opened(path, exc) from exc
        yield fd, image


def _open(edits: Path, path: Path, write: bool) -> int:
    """Raises VirtError."""
    try:
        finish_edit(edits, path)
        return open_image(path, write=write)
    except OSError as exc:
        raise _not_opened(path, exc) from exc


def _not_opened(path: Path, exc: OSError) -> VirtError:
    return from_os_error(exc, f"Failed to open file '{path}'", domain=From.QEMU)


async def restore(driver: "QemuDriver", path: Path, consent: Consent, *, xml: str | None, flags: int) -> QemuDomain:
    """Start the guest of an image, which stays as it is. Raises VirtError; then nothing is left of the try."""
    check_flags(flags)
    async with opened(driver, path, consent, keep=True) as (fd, image):
        before = await read_document(driver, image.xml)
        definition = await replacement(driver, before, xml) if xml is not None else before
        definition = await _hooked(driver, definition)
        dom = await driver.domain_to_start(definition)
        start_flags = Create.RESET_NVRAM if flags & Flags.RESET_NVRAM else Create.NONE
        if not _runs(image, flags):
            start_flags |= Create.PAUSED
        incoming = _incoming(path, fd, image, definition, bypass=bool(flags & Flags.BYPASS_CACHE))
        await driver.start_domain(dom, start_flags, None, _with_cookie(image, definition), incoming)
    return dom


async def start_managed(driver: "QemuDriver", dom: QemuDomain, flags: int, caller: Caller | None) -> bool:
    """Start a domain from its managed image, if it has one, and remove that; `flags` are DomainCreateFlags.

    False where there is none to start from: so too where a save never ended, whose rest is removed. The caller holds
    the start job. Raises VirtError; then the image stays.
    """
    path = driver.host.paths.qemu.save_file(dom.name)
    if not await has_image(driver, dom):
        return False
    try:
        async with opened(driver, path, Consent(), keep=True) as (fd, image):
            definition = await read_document(driver, image.xml)
            _check_owner(dom, definition)
            pause = bool(flags & Create.PAUSED)
            incoming = _incoming(path, fd, image, definition, bypass=bool(flags & Create.BYPASS_CACHE), asked=pause)
            incoming = replace(incoming, used_up=True)
            if not image.running:
                flags |= Create.PAUSED
            await process.start(driver, dom, flags, caller, _with_cookie(image, definition), incoming)
    except IncompleteImage:
        log.warning("domain %s: its managed save image '%s' is incomplete and is removed", dom.name, path)
        await remove_image(driver, dom)
        return False
    try:
        await remove_image(driver, dom)
        dom.running.restored = None
        await driver.save_status(dom)
    except VirtError as exc:  # it is tried again when the guest ends
        log.error("domain %s runs, but its managed save image is still there: %s", dom.name, exc)
    return True


def _incoming(
    path: Path, fd: int, image: Image, definition: DomainDef, *, bypass: bool, asked: bool = False
) -> Incoming:
    """`asked`: the caller of the start wants the guest paused, not the image."""

    async def load(dom: QemuDomain) -> None:
        async with Pipeline.reading(fd, image.state_offset, image.format, bypass=bypass) as pipeline:
            try:
                await load_state(dom, pipeline.fd)
            except VirtError as exc:
                if (failure := await pipeline.failure()) is not None:
                    raise failure from exc
                raise

    details = DomainEventSuspendedDetailType
    return Incoming(
        load,
        DomainEventStartedDetailType.RESTORED,
        RESTORED,
        (DomainPausedReason.MIGRATION, details.PAUSED if asked else details.RESTORED),
        image=str(path),
        own_cpu=definition.cpu.copy() if definition.cpu is not None and image.cookie is not None else None,
    )


def _with_cookie(image: Image, definition: DomainDef) -> DomainDef:
    live = definition.copy()
    apply_cookie(image, live)
    return live


def _runs(image: Image, flags: int) -> bool:
    if flags & Flags.RUNNING:
        return True
    return image.running and not flags & Flags.PAUSED


async def _hooked(driver: "QemuDriver", definition: DomainDef) -> DomainDef:
    """The definition as the administrator's hook wants it."""
    text = await driver.host.hooks.domain(
        HookDriver.QEMU, definition.name, DomainOp.RESTORE, lambda: definition.format(VIEW)
    )
    return await replacement(driver, definition, text) if text and text.strip() else definition


def _check_owner(dom: QemuDomain, definition: DomainDef) -> None:
    if (definition.name, definition.uuid) != (dom.name, dom.uuid_text):
        raise OperationFailed(
            f"cannot restore domain '{dom.name}' uuid {dom.uuid_text} from a file which belongs to domain"
            f" '{definition.name}' uuid {definition.uuid}",
            domain=From.QEMU,
        )
