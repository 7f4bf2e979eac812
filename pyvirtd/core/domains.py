"""What every hypervisor driver answers in the same way: look-up, lists, definitions on disk, description, autostart.

A driver derives `HypervisorDriver` and a part from `CommonDomains`, and adds what its guests need: parsing with its
own defaults, start, stop, state.
"""

import asyncio
import logging
import uuid as uuid_module
from abc import abstractmethod
from contextlib import AsyncExitStack
from typing import Any, ClassVar, Generic

from pyvirtd.api.domain import DomainGetStateReply, DomainPart
from pyvirtd.api.events import DomainEventLifecycle, DomainEventMetadataChange
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import Caller, DomainRef
from pyvirtd.constants.domain import (
    DomainDefineFlags,
    DomainDestroyFlagsValues,
    DomainEventDefinedDetailType,
    DomainEventType,
    DomainEventUndefinedDetailType,
    DomainModificationImpact,
    DomainXMLFlags,
)
from pyvirtd.constants.error import ErrorDomain
from pyvirtd.core import metadata
from pyvirtd.core.driver import Driver, Host
from pyvirtd.core.edits import change, one_target
from pyvirtd.core.jobs import Job
from pyvirtd.core.objects import ALL_FILTERS, Deferred, Dom, DomainList, filter_domains
from pyvirtd.core.store import Definitions, NameLocks, Stored
from pyvirtd.errors import InternalError, InvalidArg, NoDomainMetadata, OperationInvalid, VirtError, XmlError
from pyvirtd.model.domain import DomainDef, identity
from pyvirtd.xml.element import LIVE, MIGRATABLE, SECURE, View

log = logging.getLogger(__name__)

Impact = DomainModificationImpact
TEXTS_MAX = 64  # formatted definitions that are kept
CHECK_PAUSE_S = 0.002  # between two definitions, so that calls come first


class HypervisorDriver(Driver, Generic[Dom]):
    """A driver with domains. `definitions` is None for one that keeps nothing on disk."""

    objects: ClassVar[tuple[type, ...]] = (DomainRef,)

    def __init__(self, host: Host) -> None:
        self.domains: DomainList[Dom] = DomainList()
        self.definitions: Definitions | None = None
        self.names = NameLocks()
        super().__init__(host)

    def resolve(self, ref: Any) -> Dom:
        return self.domains.resolve(ref)

    @abstractmethod
    async def parse(self, xml: str, *, validate: bool = False) -> DomainDef:
        """A client's document as a complete definition: defaults, addresses, rules. Raises XmlError and others."""

    async def load_definitions(self) -> None:
        """Know every domain on disk, at a glance; `check_definitions` looks into them later. For the start only."""
        assert self.definitions is not None
        await self.definitions.sweep()
        found = await self.definitions.load()
        for number, stored in enumerate(found):
            if number % 100 == 99:
                await asyncio.sleep(0)
            try:
                await self._know(stored)
            except VirtError as exc:
                if not await self._undo_rename(stored, found):
                    self.definitions.complain(stored.name, exc)

    async def reload(self) -> None:
        """Know the files that came or were edited since; each is read again when nobody else changes it."""
        if self.definitions is None:
            return
        for seen in await self.definitions.load():
            await asyncio.sleep(0)
            try:
                while not await self._take_in(self.definitions, seen):
                    pass
            except VirtError as exc:
                self.definitions.complain(seen.name, exc)

    async def _take_in(self, definitions: Definitions, seen: Stored) -> bool:
        """Take in a file as it is now. False where it became another domain's while that was waited for."""
        uuid = identity(seen.text).uuid
        dom = self._kept(seen.name)
        if dom is not None and dom.is_kept_as(seen.text):
            return True
        async with AsyncExitStack() as held:
            if dom is not None:
                await held.enter_async_context(dom.jobs.hold(Job.MODIFY, "reload"))
            await held.enter_async_context(self.names.hold(seen.name, uuid or ""))
            if self._kept(seen.name) is not dom:
                return False
            stored = await definitions.read(seen.name)
            if stored is not None and identity(stored.text).uuid == uuid:
                await self._renew(stored)
        return True

    def _kept(self, name: str) -> Dom | None:
        """The domain whose definition is in the file of a name."""
        dom = self.domains.get_name(name)
        return dom if dom is not None and dom.persistent else None

    async def _undo_rename(self, stored: Stored, found: list[Stored]) -> bool:
        """Take back a rename that the daemon's end cut short: the same definition is there under two names.

        Nobody was told of the new one, so the file that was written first stays. Whether it was such a case.
        """
        assert self.definitions is not None
        try:
            renamed = DomainDef.parse(stored.text)
            other = self.domains.by_uuid(uuid_module.UUID(renamed.uuid or "").bytes)
            twin = next(one for one in found if one.name == other.name)
            renamed.name = other.name
            if renamed != other.config:
                return False
            old, new = sorted((twin, stored), key=lambda one: one.written_ns)
            log.warning("domain %s: undoing its rename to %s, which was cut short", old.name, new.name)
            await self.definitions.remove(new.name)
            if new is twin:
                self.domains.remove(other)
                await self._know(stored)
        except (VirtError, ValueError, StopIteration):
            return False
        return True

    async def _know(self, stored: Stored) -> None:
        name, uuid = identity(stored.text)
        if name != stored.name:
            raise InternalError(f"it defines '{name}'")
        # One that was written by hand without a uuid is completed as if it were defined now.
        config = Deferred(name, uuid, stored.text) if uuid is not None else await self.parse(stored.text)
        if self.domains.match_new(config) is None:
            dom = self.new_domain(config, persistent=True)
            dom.autostart, dom.autostart_once = stored.autostart, stored.autostart_once
            self.domains.add(dom)

    async def _renew(self, stored: Stored) -> None:
        """Take a file for what its domain is from now on. As with libvirtd, only one that is new is told of.

        The caller holds the name, and a job of a domain that is kept.
        """
        dom = self.domains.get_name(stored.name)
        if dom is None or not dom.persistent:
            await self._know(stored)
            if dom is None and (dom := self.domains.get_name(stored.name)) is not None:
                self.emit_lifecycle(dom, DomainEventType.DEFINED, DomainEventDefinedDetailType.ADDED)
            return
        config = await self.parse(stored.text)
        if config.uuid != dom.uuid_text:
            raise InternalError(f"it gives '{dom.name}' another uuid than {dom.uuid_text}")
        if not dom.is_kept_as(stored.text):
            log.info("domain %s: its definition was edited on disk", dom.name)
            dom.config = config
            dom.keep_as_text(stored.text)

    async def check_definitions(self) -> None:
        """Look into the definitions nobody has used yet, a few at a time; a broken one is reported and let go."""
        assert self.definitions is not None
        for dom in self.domains:
            if (deferred := dom.deferred) is None:
                continue
            try:
                deferred.read()
            except VirtError as exc:
                self.definitions.complain(dom.name, exc)
                if not dom.active and dom.deferred is not None:
                    self.domains.remove(dom)
            await asyncio.sleep(CHECK_PAUSE_S)

    @abstractmethod
    def new_domain(self, definition: DomainDef | Deferred, *, persistent: bool) -> Dom:
        """A domain object of the driver's own class."""

    @abstractmethod
    async def start_domain(self, dom: Dom, flags: int, caller: Caller | None) -> None:
        """Start; `flags` are DomainCreateFlags."""

    @abstractmethod
    async def destroy_domain(self, dom: Dom, flags: int) -> None:
        """End at once."""

    async def domain_to_start(self, definition: DomainDef) -> Dom:
        """The domain that a definition is run as, a new transient one where there is none. Raises OperationInvalid."""
        async with self.names.hold(definition.name, definition.uuid or ""):
            dom = self.domains.match_new(definition)
            if dom is None:
                dom = self.new_domain(definition, persistent=False)
                self.domains.add(dom)
            elif dom.active:
                raise OperationInvalid(f"domain '{dom.name}' is already active")
            return dom

    async def save_config(self, dom: Dom, config: DomainDef) -> None:
        """Make `config` the persistent definition: on disk, where it outlasts a crash, and only then in memory."""
        if self.definitions is None:
            dom.config, dom.persistent = config, True
            return
        text = config.format(SECURE)
        dom.being_kept = True
        try:
            await self.definitions.save(config.name, text)
            dom.config, dom.persistent = config, True
            dom.keep_as_text(text)
        finally:
            dom.being_kept = False
            self.forget_if_transient(dom)

    async def save_status(self, dom: Dom) -> None:
        """Write the state of a running domain, for a daemon that starts anew."""

    async def undefine_extras(self, dom: Dom, flags: int) -> None:
        """Refuse to undefine what still has a save image, NVRAM…, or remove that as the flags say."""

    async def mark_autostart(self, dom: Dom, *, on: bool, once: bool) -> None:
        """Mark a domain for every autostart, or (`once`) for the next one only. Raises OperationInvalid."""
        async with self.names.hold(dom.name, dom.uuid_text):
            if not dom.persistent:
                raise OperationInvalid("cannot set autostart for transient domain")
            if (dom.autostart_once if once else dom.autostart) == on:
                return
            if self.definitions is not None:
                await self.definitions.set_autostart(dom.name, on=on, once=once)
            if once:
                dom.autostart_once = on
            else:
                dom.autostart = on

    def emit_lifecycle(self, dom: Dom, event: DomainEventType, detail: int) -> None:
        self.host.events.emit(self, DomainEventLifecycle(dom, event, detail))

    def forget_if_transient(self, dom: Dom) -> None:
        """A domain that is off and not on disk is no more; one that is being started or defined is asked again then."""
        if dom.persistent or dom.active or dom.removed or dom.being_kept or dom.jobs.starting:
            return
        self.domains.remove(dom)


class CommonDomains(DomainPart[Dom], Generic[Dom]):
    """The part of a hypervisor driver that needs no guest."""

    def __init__(self, driver: HypervisorDriver[Dom]) -> None:
        self.driver = driver
        self.domains = driver.domains
        self._texts: dict[tuple[Dom, View], tuple[int, str]] = {}

    # --- look-up and lists -----------------------------------------------------------------------------------

    def domain_lookup_by_id(self, id: int) -> Dom:
        return self.domains.by_id(id)

    def domain_lookup_by_name(self, name: str) -> Dom:
        return self.domains.by_name(name)

    def domain_lookup_by_uuid(self, uuid: bytes) -> Dom:
        return self.domains.by_uuid(uuid)

    @accepts(ALL_FILTERS)
    def connect_list_all_domains(self, flags: int) -> list[Dom]:
        return filter_domains(self.domains, flags, saved=self.has_save_image)

    def connect_num_of_domains(self) -> list[Dom]:
        return [dom for dom in self.domains if dom.active]

    def connect_list_domains(self) -> list[Dom]:
        return [dom for dom in self.domains if dom.active]

    def connect_num_of_defined_domains(self) -> list[Dom]:
        return [dom for dom in self.domains if not dom.active]

    def connect_list_defined_domains(self) -> list[Dom]:
        return [dom for dom in self.domains if not dom.active]

    def has_save_image(self, dom: Dom) -> bool:
        """Whether a managed save image waits for the next start."""
        return False

    # --- state -----------------------------------------------------------------------------------------------

    def domain_is_active(self, dom: Dom) -> int:
        return int(dom.active)

    def domain_is_persistent(self, dom: Dom) -> int:
        return int(dom.persistent)

    def domain_is_updated(self, dom: Dom) -> int:
        return int(dom.updated)

    @accepts(0)
    def domain_get_state(self, dom: Dom, flags: int) -> DomainGetStateReply:
        return DomainGetStateReply(dom.state, dom.reason)

    def domain_get_os_type(self, dom: Dom) -> str:
        return dom.shown.os.type.name or "hvm"

    def domain_get_max_memory(self, dom: Dom) -> int:
        return dom.shown.memory.kib

    @accepts(DomainXMLFlags.SECURE | DomainXMLFlags.INACTIVE | DomainXMLFlags.UPDATE_CPU | DomainXMLFlags.MIGRATABLE)
    def domain_get_xml_desc(self, dom: Dom, flags: int) -> str:
        view = View.INACTIVE
        if flags & DomainXMLFlags.SECURE:
            view |= SECURE
        if flags & DomainXMLFlags.MIGRATABLE:
            view |= MIGRATABLE | SECURE
        if dom.live is None or flags & DomainXMLFlags.INACTIVE:
            if dom.live is not None and not dom.persistent:
                return dom.live.format(view)
            return self._config_text(dom, view)
        return dom.live.format(view | LIVE)

    def _config_text(self, dom: Dom, view: View) -> str:
        """The persistent definition as a view shows it; the last ones asked for are kept."""
        kept = self._texts.get((dom, view))
        if kept is None or kept[0] != dom.revision:
            if len(self._texts) >= TEXTS_MAX:
                self._texts.pop(next(iter(self._texts)))
            kept = self._texts[dom, view] = dom.revision, dom.config.format(view)
        return kept[1]

    # --- definitions -----------------------------------------------------------------------------------------

    async def domain_define_xml(self, xml: str) -> Dom:
        return await self.domain_define_xml_flags(xml, 0)

    @accepts(DomainDefineFlags.VALIDATE)
    async def domain_define_xml_flags(self, xml: str, flags: int) -> Dom:
        driver = self.driver
        definition = await driver.parse(xml, validate=bool(flags & DomainDefineFlags.VALIDATE))
        async with driver.names.hold(definition.name, definition.uuid or ""):
            dom = self.domains.match_new(definition)
            if dom is None:
                return await self._define_new(definition)
            was_persistent = dom.persistent
            await driver.save_config(dom, definition)
            dom.updated = True
            detail = DomainEventDefinedDetailType
            driver.emit_lifecycle(dom, DomainEventType.DEFINED, detail.UPDATED if was_persistent else detail.ADDED)
            return dom

    async def _define_new(self, definition: DomainDef) -> Dom:
        dom = self.driver.new_domain(definition, persistent=True)
        await self.driver.save_config(dom, definition)
        self.domains.add(dom)
        self.driver.emit_lifecycle(dom, DomainEventType.DEFINED, DomainEventDefinedDetailType.ADDED)
        return dom

    async def domain_undefine(self, dom: Dom) -> None:
        await self.undefine(dom, 0)

    async def undefine(self, dom: Dom, flags: int) -> None:
        """Remove the persistent definition; a running domain goes on as a transient one."""
        driver = self.driver
        async with driver.names.hold(dom.name, dom.uuid_text):
            if not dom.persistent or dom.removed:
                raise OperationInvalid("cannot undefine transient domain")
            await driver.undefine_extras(dom, flags)
            if driver.definitions is not None:
                await driver.definitions.remove(dom.name)
            dom.persistent = dom.autostart = dom.autostart_once = False
            driver.emit_lifecycle(dom, DomainEventType.UNDEFINED, DomainEventUndefinedDetailType.REMOVED)
            driver.forget_if_transient(dom)

    @accepts(0)
    async def domain_rename(self, dom: Dom, new_name: str | None, flags: int) -> int:
        driver = self.driver
        new = new_name or ""
        if not new:
            raise InvalidArg("new name of the domain must not be empty")
        check_name(new)
        async with dom.jobs.hold(Job.MODIFY, "DomainRename"), driver.names.hold(dom.name, new, dom.uuid_text):
            self._check_rename(dom, new)
            old = dom.name
            renamed = dom.config.copy()
            renamed.name = new
            text = renamed.format(SECURE)
            if driver.definitions is not None:
                once = dom.autostart_once
                await driver.definitions.rename(old, new, text, autostart=dom.autostart, autostart_once=once)
            driver.emit_lifecycle(dom, DomainEventType.UNDEFINED, DomainEventUndefinedDetailType.RENAMED)
            dom.config = renamed
            if driver.definitions is not None:
                dom.keep_as_text(text)
            self.domains.rename(dom, old)
            driver.emit_lifecycle(dom, DomainEventType.DEFINED, DomainEventDefinedDetailType.RENAMED)
        return 0

    def _check_rename(self, dom: Dom, new: str) -> None:
        if dom.active:
            raise OperationInvalid("cannot rename active domain")
        if not dom.persistent:
            raise OperationInvalid("cannot rename a transient domain")
        if new == dom.name:
            raise OperationInvalid("Can't rename domain to itself")
        if self.domains.get_name(new) is not None:
            raise OperationInvalid(f"domain with name '{new}' already exists")

    # --- autostart -------------------------------------------------------------------------------------------

    def domain_get_autostart(self, dom: Dom) -> int:
        return int(dom.autostart)

    async def domain_set_autostart(self, dom: Dom, autostart: int) -> None:
        await self.driver.mark_autostart(dom, on=bool(autostart), once=False)

    def domain_get_autostart_once(self, dom: Dom) -> int:
        return int(dom.autostart_once)

    async def domain_set_autostart_once(self, dom: Dom, autostart: int) -> None:
        await self.driver.mark_autostart(dom, on=bool(autostart), once=True)

    # --- title, description, metadata ------------------------------------------------------------------------

    @accepts(Impact.LIVE | Impact.CONFIG)
    def domain_get_metadata(self, dom: Dom, type: int, uri: str | None, flags: int) -> str:
        kind = metadata.kind_of(type)
        metadata.check_read(kind, uri)
        text = metadata.get(one_target(dom, flags), kind, uri)
        if text is None:
            raise NoDomainMetadata("Requested metadata element is not present", domain=ErrorDomain.DOMAIN)
        return text

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_metadata(
        self, dom: Dom, type: int, text: str | None, key: str | None, uri: str | None, flags: int
    ) -> None:
        kind = metadata.kind_of(type)
        metadata.check_change(kind, text, key, uri)
        await change(
            self.driver, dom, flags, lambda definition, *, live: metadata.put(definition, kind, text, key, uri)
        )
        self.driver.host.events.emit(self.driver, DomainEventMetadataChange(dom, kind, uri))

    # --- start and stop in their plain forms -----------------------------------------------------------------

    async def domain_create(self, dom: Dom) -> None:
        await self.driver.start_domain(dom, 0, None)

    async def domain_destroy(self, dom: Dom) -> None:
        await self.driver.destroy_domain(dom, 0)

    @accepts(DomainDestroyFlagsValues.GRACEFUL | DomainDestroyFlagsValues.REMOVE_LOGS)
    async def domain_destroy_flags(self, dom: Dom, flags: int) -> None:
        await self.driver.destroy_domain(dom, flags)


def check_name(name: str) -> None:
    """The rules of a domain's name; it becomes a file's name. Raises XmlError."""
    if "/" in name:
        raise XmlError(f"name {name} cannot contain '/'", domain=ErrorDomain.DOMAIN)
    if name in (".", ".."):
        raise XmlError(f"name {name} is no name of a domain", domain=ErrorDomain.DOMAIN)
    if "\n" in name:
        raise XmlError("name cannot contain a line break", domain=ErrorDomain.DOMAIN)
