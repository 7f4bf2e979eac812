"""The procedures of saved guests: save, restore, managed save, and the documents in the images."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.api.domain_save import SavePart
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import Consent, TypedParam
from pyvirtd.constants.domain import DomainSaveImageXMLFlags, DomainSaveRestoreFlags
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.params import checked
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.saving import managed
from pyvirtd.drivers.qemu.saving.document import VIEW, read_document, replacement
from pyvirtd.drivers.qemu.saving.edit import rewrite
from pyvirtd.drivers.qemu.saving.restore import opened, restore
from pyvirtd.drivers.qemu.saving.save import Saving, check_flags, save, save_format
from pyvirtd.errors import ArgumentUnsupported, InvalidArg, OperationInvalid
from pyvirtd.util.files import in_thread
from pyvirtd.xml.element import SECURE, View

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

Flags = DomainSaveRestoreFlags
SAVE_FLAGS = Flags.BYPASS_CACHE | Flags.RUNNING | Flags.PAUSED
RESTORE_FLAGS = SAVE_FLAGS | Flags.RESET_NVRAM
STATE_FLAGS = Flags.RUNNING | Flags.PAUSED
SECURE_FLAG = DomainSaveImageXMLFlags.SECURE

# Names and kinds of the parameters: VIR_DOMAIN_SAVE_PARAM_... of libvirt-domain.h, the last two since 11.2.
FILE, DXML, FORMAT, CHANNELS = "file", "dxml", "image_format", "parallel.channels"
SAVE_PARAMS = {FILE: Kind.STRING, DXML: Kind.STRING, FORMAT: Kind.STRING, CHANNELS: Kind.INT}
RESTORE_PARAMS = {FILE: Kind.STRING, DXML: Kind.STRING, CHANNELS: Kind.INT}


class Saved(SavePart[QemuDomain]):
    """Saved guests."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    # --- files -----------------------------------------------------------------------------------------------

    async def domain_save(self, dom: QemuDomain, to: str) -> None:
        await self.domain_save_flags(dom, to, None, 0)

    @accepts(SAVE_FLAGS)
    async def domain_save_flags(self, dom: QemuDomain, to: str, dxml: str | None, flags: int) -> None:
        wanted = Saving(Path(to), flags, dxml, save_format(self.driver, None))
        await self._save(dom, wanted, "DomainSaveFlags")

    @accepts(SAVE_FLAGS)
    async def domain_save_params(self, dom: QemuDomain, params: list[TypedParam], flags: int) -> None:
        given = _given(params, SAVE_PARAMS)
        path = Path(given[FILE]) if FILE in given else self._managed(dom)
        wanted = Saving(path, flags, given.get(DXML), save_format(self.driver, given.get(FORMAT)))
        await self._save(dom, wanted, "DomainSaveParams")

    async def domain_restore(self, from_: str, consent: Consent) -> None:
        await self.domain_restore_flags(from_, None, 0, consent)

    @accepts(RESTORE_FLAGS, function="qemuDomainRestoreInternal")
    async def domain_restore_flags(self, from_: str, dxml: str | None, flags: int, consent: Consent) -> None:
        await restore(self.driver, Path(from_), consent, xml=dxml, flags=flags)

    @accepts(RESTORE_FLAGS, function="qemuDomainRestoreInternal")
    async def domain_restore_params(self, params: list[TypedParam], flags: int, consent: Consent) -> None:
        given = _given(params, RESTORE_PARAMS)
        if FILE not in given:
            raise InvalidArg("missing path to restore from", domain=From.QEMU)
        await restore(self.driver, Path(given[FILE]), consent, xml=given.get(DXML), flags=flags)

    @accepts(SECURE_FLAG)
    async def domain_save_image_get_xml_desc(self, file: str, flags: int, consent: Consent) -> str:
        return await self._document(Path(file), flags, consent)

    @accepts(STATE_FLAGS)
    async def domain_save_image_define_xml(self, file: str, dxml: str, flags: int, consent: Consent) -> None:
        await self._redefine(Path(file), dxml, flags, consent)

    # --- managed images --------------------------------------------------------------------------------------

    @accepts(SAVE_FLAGS)
    async def domain_managed_save(self, dom: QemuDomain, flags: int) -> None:
        wanted = Saving(self._managed(dom), flags, None, save_format(self.driver, None))
        await self._save(dom, wanted, "DomainManagedSave")

    async def _save(self, dom: QemuDomain, wanted: Saving, call: str) -> None:
        if wanted.path != self.driver.host.paths.qemu.save_file(dom.name):
            await save(self.driver, dom, wanted, call)
            return
        await managed.make_room(self.driver, dom, call)
        self.driver.images.note(dom.name, there=True)  # it counts from when the guest is gone
        try:
            await save(self.driver, dom, wanted, call)
        except BaseException:
            await asyncio.shield(managed.has_image(self.driver, dom))
            raise

    def _managed(self, dom: QemuDomain) -> Path:
        """Where a running domain's managed image goes. Raises OperationInvalid."""
        dom.require_active()
        if not dom.persistent:
            raise OperationInvalid("cannot do managed save for transient domain", domain=From.QEMU)
        return self.driver.host.paths.qemu.save_file(dom.name)

    @accepts(0)
    async def domain_has_managed_save_image(self, dom: QemuDomain, flags: int) -> int:
        return int(await managed.has_image(self.driver, dom))

    @accepts(0)
    async def domain_managed_save_remove(self, dom: QemuDomain, flags: int) -> None:
        await managed.remove_image(self.driver, dom)

    @accepts(SECURE_FLAG)
    async def domain_managed_save_get_xml_desc(self, dom: QemuDomain, flags: int) -> str:
        await managed.require_image(self.driver, dom)
        return await self._document(self.driver.host.paths.qemu.save_file(dom.name), flags, Consent())

    @accepts(STATE_FLAGS)
    async def domain_managed_save_define_xml(self, dom: QemuDomain, dxml: str | None, flags: int) -> None:
        await managed.require_image(self.driver, dom)
        await self._redefine(self.driver.host.paths.qemu.save_file(dom.name), dxml or "", flags, Consent())

    # --- the document in an image ----------------------------------------------------------------------------

    async def _document(self, path: Path, flags: int, consent: Consent) -> str:
        async with opened(self.driver, path, consent) as (_, image):
            definition = await read_document(self.driver, image.xml)
        return definition.format(SECURE if flags & SECURE_FLAG else View.INACTIVE)

    async def _redefine(self, path: Path, xml: str, flags: int, consent: Consent) -> None:
        check_flags(flags)
        async with opened(self.driver, path, consent, write=True) as (fd, image):
            before = await read_document(self.driver, image.xml)
            definition = await replacement(self.driver, before, xml)
            running = bool(flags & Flags.RUNNING) if flags else image.running
            edited = image.edited(definition.format(VIEW), running=running)
            if edited != image:
                await in_thread(rewrite, self.driver.host.paths.image_edits, path, fd, edited)


def _given(params: list[TypedParam], kinds: dict[str, Kind]) -> dict[str, str]:
    """The words of a client's parameters. Raises InvalidArg, and ArgumentUnsupported for several channels."""
    given = checked(params, kinds)
    # Only a file that several streams write side by side (mapped-ram, QEMU 9) can have more.
    if given.pop(CHANNELS, 1) != 1:
        raise ArgumentUnsupported(f"parameter '{CHANNELS}': an image has one channel", domain=From.QEMU)
    return given
