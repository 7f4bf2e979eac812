"""The QEMU driver: its parts, its start, and what its parts share."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, TypeAlias, TypeVar

from pyvirtd.api.rpc import Part
from pyvirtd.api.types import Caller
from pyvirtd.constants.domain import (
    DomainCreateFlags,
    DomainDestroyFlagsValues,
    DomainEventResumedDetailType,
    DomainJobOperation,
    DomainPausedReason,
    DomainRunningReason,
    DomainState,
)
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core import schema
from pyvirtd.core.cgroup import Hierarchies
from pyvirtd.core.domains import HypervisorDriver, check_name
from pyvirtd.core.driver import Host
from pyvirtd.core.hooks import DomainOp, HookDriver
from pyvirtd.core.host import host_arch, host_uuid
from pyvirtd.core.host_capabilities import HostIdentity
from pyvirtd.core.job_stats import JobStats
from pyvirtd.core.jobs import Job, LongJob
from pyvirtd.core.objects import Deferred
from pyvirtd.core.security import Credentials, Label, labels_of, security_models
from pyvirtd.core.store import Definitions
from pyvirtd.drivers.qemu import adopt, autoshutdown, autostart, dump_auto, leftovers, process, status_file
from pyvirtd.drivers.qemu.assigned import locked_memory, vfio_groups
from pyvirtd.drivers.qemu.autoshutdown import Policy
from pyvirtd.drivers.qemu.capabilities import CapabilitiesCache, QemuCapabilities, RunAs, probe
from pyvirtd.drivers.qemu.capabilities.documents import MIGRATION_TRANSPORTS, CapabilityDocuments
from pyvirtd.drivers.qemu.command import disk_node
from pyvirtd.drivers.qemu.domain import DESTROYED, Ending, Phase, QemuDomain
from pyvirtd.drivers.qemu.functions import VirtualFunctions
from pyvirtd.drivers.qemu.helpers import Run
from pyvirtd.drivers.qemu.incoming import Incoming
from pyvirtd.drivers.qemu.parts import PARTS
from pyvirtd.drivers.qemu.pause import resume
from pyvirtd.drivers.qemu.pci_owners import PciOwners
from pyvirtd.drivers.qemu.ports import GraphicsPorts
from pyvirtd.drivers.qemu.postparse import choose_emulator, complete
from pyvirtd.drivers.qemu.saving import managed
from pyvirtd.drivers.qemu.saving.edit import finish_edits
from pyvirtd.drivers.qemu.saving.restore import start_managed
from pyvirtd.drivers.qemu.validate import validate
from pyvirtd.errors import ConfigUnsupported, NoDomain, OperationInvalid, VirtError
from pyvirtd.model.capabilities import SecurityModelDescription, SysInfo
from pyvirtd.model.chardev import VirtioTarget
from pyvirtd.model.disk import Disk
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.os import SmbiosMode
from pyvirtd.util.files import in_thread, make_directory
from pyvirtd.util.process import Identity
from pyvirtd.xml.element import LIVE, SECURE

log = logging.getLogger(__name__)

LONG_DOCUMENT = 64 << 10  # characters of XML above which its parsing and checking leave the loop to others

Result = TypeVar("Result")
Runner: TypeAlias = Callable[..., Awaitable[Any]]


async def _at_once(work: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """`in_thread` for what is done sooner than a thread could begin."""
    return work(*arguments, **named)


class QemuDriver(HypervisorDriver[QemuDomain]):
    """Guests under QEMU."""

    name = "qemu"
    schemes = ("qemu",)
    access_name = "QEMU"
    error_domain = From.QEMU
    parts: ClassVar[tuple[type[Part], ...]] = PARTS
    # TYPED_PARAM_STRING, XML_MIGRATABLE: protocol's VIR_DRV_FEATURE numbers.
    features = frozenset((9, 11))

    def __init__(self, host: Host) -> None:
        self.config = host.qemu_config
        self.no_user: VirtError | None = None  # why no guest can start
        try:
            self.credentials = Credentials.of(host.qemu_config, privileged=host.privileged)
        except VirtError as exc:
            log.error("no guest will start: qemu.conf: %s", exc)
            self.no_user = exc
            self.credentials = Credentials(Identity(0, 0), host.privileged)
        self.capabilities = CapabilitiesCache(host.paths.qemu.capabilities, self._probe)
        # A session has no right to any: its guests stay where its daemon is.
        self.cgroups = Hierarchies.read(self.config.cgroup_controllers) if host.privileged else Hierarchies()
        self.ports = GraphicsPorts(host.qemu_config)
        self.pci = PciOwners(host.paths.qemu)
        self.images = managed.Images(host.paths.qemu)
        self.arch = host_arch()
        identity = HostIdentity(
            host_uuid(host.daemon_config.host_uuid or "", host.daemon_config.host_uuid_source),
            security_models=self.security_models(),
            transports=MIGRATION_TRANSPORTS,
        )
        self.functions = VirtualFunctions(host.paths.qemu, self.pci.bus, identity.uuid)
        self.documents = CapabilityDocuments(self.capabilities, host.info, identity, host.qemu_config.nvram)
        super().__init__(host)

    # --- the daemon's side -----------------------------------------------------------------------------------

    def serves_path(self, path: str) -> bool:
        return path == "/session" or super().serves_path(path)  # the system's daemon answers to both, as libvirtd does

    async def start(self) -> None:
        paths = self.host.paths.qemu
        owner = self.credentials.owner if self.host.privileged else None
        for directory in paths.directories():
            mine = owner if directory.guest_owned else None
            make_directory(directory.path, directory.mode if self.host.privileged else 0o700, owner=mine)
        self.definitions = Definitions(paths, "edit")
        await self.load_definitions()
        await self.images.read()
        await adopt.adopt_all(self)
        self.host.tasks.start(finish_edits(self.host.paths.image_edits), "edits of save images")
        self.host.tasks.start(self.check_definitions(), "check of definitions")

    async def autostart(self) -> None:
        await autostart.start_marked(self)

    async def host_shutdown(self) -> None:
        await autoshutdown.leave_none_running(self, Policy.of(self.config, privileged=self.host.privileged))

    async def stop(self) -> None:
        for dom in self.domains:
            if dom.guest is not None:
                await dom.guest.monitor.close()
                dom.guest.process.close()
        await self.capabilities.close()

    # --- definitions -----------------------------------------------------------------------------------------

    async def _probe(self, binary: str) -> QemuCapabilities:
        return await probe(binary, run_as=self.probe_identity())

    def probe_identity(self) -> RunAs | None:
        """Who an emulator runs as while it is only asked; None: the daemon's own user."""
        identity = self.credentials.identity if self.host.privileged else None
        return RunAs(identity.uid, identity.gid) if identity else None

    async def parse(self, xml: str, *, validate: bool = False) -> DomainDef:
        if validate:
            await schema.validate(xml, "domain", DomainDef)
        run = in_thread if len(xml) > LONG_DOCUMENT else _at_once
        definition = await run(DomainDef.parse, xml)
        check_name(definition.name)
        caps = await self.complete(definition, run=run)
        await run(self.check, definition, caps)
        return definition

    async def complete(self, definition: DomainDef, *, new: bool = True, run: Runner | None = None) -> QemuCapabilities:
        """Fill in what a definition leaves to us; `new`: what the guest sees may be chosen freely.

        `run` runs the part that takes time, elsewhere than on the loop if the document is long.
        """
        choose_emulator(definition, self.arch)
        caps = await self.capabilities.get(definition.devices.emulator or "")
        await (run or _at_once)(
            complete,
            definition,
            caps,
            self.config,
            privileged=self.host.privileged,
            host_arch=self.arch,
            new=new,
            paths=self.host.paths.qemu,
        )
        return caps

    def check(self, definition: DomainDef, caps: QemuCapabilities) -> None:
        """Refuse what QEMU could not run. Raises ConfigUnsupported and others."""
        validate(definition, caps, self.config, privileged=self.host.privileged)

    def new_domain(self, definition: DomainDef | Deferred, *, persistent: bool) -> QemuDomain:
        return QemuDomain(definition, persistent=persistent)

    async def undefine_extras(self, dom: QemuDomain, flags: int) -> None:
        await leftovers.check_undefine(self, dom, flags)
        await managed.check_undefine(self, dom, flags)
        await leftovers.remove_undefined(self, dom, flags)

    # --- status files ----------------------------------------------------------------------------------------

    async def save_status(self, dom: QemuDomain) -> None:
        await status_file.save_status(self, dom)

    # --- life ------------------------------------------------------------------------------------------------

    async def start_domain(
        self,
        dom: QemuDomain,
        flags: int,
        caller: Caller | None,
        definition: DomainDef | None = None,
        incoming: Incoming | None = None,
    ) -> None:
        """Start: from this definition, where one is given, else from a managed image, else from the domain's own."""
        if self.no_user is not None:
            raise self.no_user
        try:
            async with dom.jobs.long(LongJob.START, "DomainCreate", Job.QUERY | Job.DESTROY) as job:
                if dom.active:
                    raise OperationInvalid("domain is already running")
                if dom.removed:
                    raise NoDomain(f"no domain with matching uuid '{dom.uuid_text}' ({dom.name})")
                if incoming is not None:
                    job.stats = JobStats(DomainJobOperation.RESTORE)
                elif flags & DomainCreateFlags.FORCE_BOOT:
                    await managed.remove_image(self, dom)
                elif definition is None and await start_managed(self, dom, flags, caller):
                    return
                await process.start(self, dom, flags, caller, definition, incoming)
        except BaseException:
            self.forget_if_transient(dom)
            raise

    def end(self, dom: QemuDomain, ending: Ending) -> None:
        """Make a guest end, in the background."""
        if dom.guest is not None and dom.guest.phase is not Phase.FINISHED:
            self.host.tasks.start(process.end(dom, dom.guest, ending), f"end of {dom.name}")

    async def destroy_domain(self, dom: QemuDomain, flags: int) -> None:
        guest = dom.running
        graceful = bool(flags & DomainDestroyFlagsValues.GRACEFUL)
        await process.end(dom, guest, DESTROYED, graceful=graceful)
        await process.finish(self, dom, guest)
        if flags & DomainDestroyFlagsValues.REMOVE_LOGS:
            await in_thread(self.host.paths.qemu.log_file(dom.name).unlink, missing_ok=True)

    async def finish_reboot(self, dom: QemuDomain) -> None:
        """The guest powered off to be started again: reset it and let it run."""
        guest = dom.running
        await guest.monitor.execute("system_reset")
        if guest.rebooting:
            await guest.monitor.execute("cont")
            guest.fake_reboot = guest.rebooting = False
            await self.save_status(dom)
            return
        crashed = dom.state is DomainState.CRASHED
        reason = DomainRunningReason.CRASHED if crashed else DomainRunningReason.BOOTED
        dom.set_state(DomainState.PAUSED, DomainPausedReason.CRASHED if crashed else DomainPausedReason.SHUTTING_DOWN)
        await resume(self, dom, (reason, DomainEventResumedDetailType.UNPAUSED))

    def dump_panicked(self, dom: QemuDomain, *, restart: bool) -> None:
        """Dump a guest that panicked, in the background, and then start it again or end it."""
        self.host.tasks.start(dump_auto.after_panic(self, dom, restart=restart), f"dump of {dom.name}")

    def dump_watched(self, dom: QemuDomain) -> None:
        """Dump a guest whose watchdog barked, in the background, and let it go on."""
        self.host.tasks.start(dump_auto.after_watchdog(self, dom), f"dump of {dom.name}")

    def security_models(self) -> tuple[SecurityModelDescription, ...]:
        return security_models(self.credentials)

    # --- shared by parts -------------------------------------------------------------------------------------

    async def hook(self, dom: QemuDomain, operation: DomainOp, live: DomainDef) -> None:
        """Run the qemu hook scripts with a domain's document. Raises HookFailed."""
        await self.host.hooks.domain(HookDriver.QEMU, dom.name, operation, lambda: live.format(LIVE | SECURE))

    async def ending_hooks(
        self, dom: QemuDomain, live: DomainDef, between: Coroutine[Any, Any, None] | None = None
    ) -> None:
        """The hooks of a guest's end, which cannot be stopped any more; `between`: what is done between the two."""
        for operation, after in ((DomainOp.STOPPED, between), (DomainOp.RELEASE, None)):
            with contextlib.suppress(VirtError):
                await self.hook(dom, operation, live)
            if after is not None:
                await after

    def labels(self, live: DomainDef) -> list[Label]:
        """The files whose owner changes while a guest runs."""
        return labels_of(live, self.credentials, self.config, vfio_groups(live, self.pci.bus))

    def vfio_nodes(self, live: DomainDef) -> list[str]:
        """All nodes by which a guest has devices of the host."""
        groups = vfio_groups(live, self.pci.bus)
        return [str(self.pci.bus.control), *groups] if groups else []

    def helper_run(self, live: DomainDef, number: int, identity: Identity) -> Run:
        """A run of a guest as its helpers see it; `identity`: whom QEMU runs as."""
        return Run(live, number, self.host.paths.qemu, self.config, identity if self.host.privileged else None)

    async def shown_sysinfo(self, definition: DomainDef) -> SysInfo | None:
        """What the host's firmware tells, for a guest that sees it; None where it tells nothing."""
        if definition.os.smbios is SmbiosMode.HOST:
            with contextlib.suppress(ConfigUnsupported):
                return await self.host.info.sysinfo()
        return None

    def limits(self, live: DomainDef) -> dict[str, int | None]:
        """QEMU's resource limits: those of qemu.conf, and what the guest's devices need."""
        config = self.config
        limits: dict[str, int | None] = {}
        if config.max_processes:
            limits["NPROC"] = config.max_processes
        if config.max_files:
            limits["NOFILE"] = config.max_files
        if (locked := locked_memory(live)) != 0:
            limits["MEMLOCK"] = locked
        return limits

    def find_disk(self, dom: QemuDomain, device: str, path: str, node: object) -> Disk | None:
        """The disk that QEMU names by drive alias, device id or QOM path, or block node."""
        for disk in dom.live_def.devices.disk:
            alias = disk.info.alias or ""
            if alias and (device in (alias, f"drive-{alias}") or f"/{alias}/" in f"{path}/" or path == alias):
                return disk
            if node and node in disk_node(disk):
                return disk
        return None

    def disk_path(self, disk: Disk) -> str:
        """Where a disk's data is: a file or device, "" for other kinds."""
        source = disk.source
        return str(getattr(source, "file", None) or getattr(source, "dev", None) or "")

    def find_channel(self, dom: QemuDomain, alias: str) -> VirtioTarget | None:
        """What the virtio channel of an alias is to the guest."""
        for channel in dom.live_def.devices.channel:
            if channel.info.alias == alias and isinstance(channel.target, VirtioTarget):
                return channel.target
        return None

    async def agent_changed(self, dom: QemuDomain, *, connected: bool) -> None:
        """The guest's agent came or went."""
        dom.running.agent_connected = connected
        if not connected:
            await self.drop_agent(dom)

    async def drop_agent(self, dom: QemuDomain) -> None:
        """The agent we spoke with is gone; a shutdown that it was asked for has come true."""
        agent, dom.running.agent = dom.running.agent, None
        if agent is not None:
            await agent.close()
