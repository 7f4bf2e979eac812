"""Defining, starting, pausing, shutting down and ending QEMU guests."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pyvirtd.api.domain import DomainGetControlInfoReply, DomainGetInfoReply
from pyvirtd.api.rpc import Files, accepts
from pyvirtd.api.types import Caller
from pyvirtd.constants.domain import (
    DomainControlState,
    DomainCreateFlags,
    DomainEventSuspendedDetailType,
    DomainMessageType,
    DomainPausedReason,
    DomainRebootFlagValues,
    DomainShutdownFlagValues,
    DomainState,
    DomainUndefineFlagsValues,
    DomainXMLFlags,
)
from pyvirtd.core.domains import CommonDomains
from pyvirtd.core.jobs import Job
from pyvirtd.core.procstat import cpu_time_ns
from pyvirtd.drivers.qemu import agent_calls, cpu_live, taint
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.pause import UNPAUSED, pause, resume
from pyvirtd.drivers.qemu.saving.document import portable, sorted_controllers
from pyvirtd.errors import InvalidArg, OperationInvalid
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import INACTIVE, SECURE

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

Create = DomainCreateFlags
CREATE_FLAGS = Create.PAUSED | Create.AUTODESTROY | Create.BYPASS_CACHE | Create.FORCE_BOOT | Create.RESET_NVRAM
XML_FLAGS = DomainXMLFlags.SECURE | DomainXMLFlags.INACTIVE | DomainXMLFlags.UPDATE_CPU | DomainXMLFlags.MIGRATABLE
CREATE_XML_FLAGS = Create.PAUSED | Create.AUTODESTROY | Create.VALIDATE | Create.RESET_NVRAM
Undefine = DomainUndefineFlagsValues
UNDEFINE_FLAGS = (
    Undefine.MANAGED_SAVE
    | Undefine.SNAPSHOTS_METADATA
    | Undefine.CHECKPOINTS_METADATA
    | Undefine.NVRAM
    | Undefine.KEEP_NVRAM
    | Undefine.TPM
    | Undefine.KEEP_TPM
)


class Domains(CommonDomains[QemuDomain]):
    """The domain procedures of the QEMU driver."""

    driver: "QemuDriver"

    def has_save_image(self, dom: QemuDomain) -> bool:
        return not dom.active and dom.name in self.driver.images

    @accepts(XML_FLAGS)
    def domain_get_xml_desc(self, dom: QemuDomain, flags: int) -> str:
        off = dom.live is None or bool(flags & DomainXMLFlags.INACTIVE)
        if flags & DomainXMLFlags.MIGRATABLE:
            own_cpu = None if off or dom.guest is None else dom.guest.own_cpu
            definition = self._with_cpu(dom.config, flags) if off and dom.persistent else dom.shown
            return portable(self.driver, dom, definition, own_cpu)
        if off and dom.persistent and (definition := self._with_cpu(dom.config, flags)) is not dom.config:
            return definition.format(SECURE if flags & DomainXMLFlags.SECURE else INACTIVE)
        return super().domain_get_xml_desc(dom, flags)

    def _with_cpu(self, definition: DomainDef, flags: int) -> DomainDef:
        """The definition, or a copy that names what the CPU would be on this host."""
        if not flags & DomainXMLFlags.UPDATE_CPU or definition.cpu is None:
            return definition
        caps = self.driver.capabilities.cached(definition.devices.emulator or "")
        if caps is None:
            return definition
        definition = definition.copy()
        if definition.cpu is not None:
            cpu_live.expand(definition.cpu, caps, definition.type)
        definition.devices.controller = sorted_controllers(definition.devices.controller)
        return definition

    # --- start -----------------------------------------------------------------------------------------------

    @accepts(CREATE_FLAGS)
    async def domain_create_with_flags(self, dom: QemuDomain, flags: int, caller: Caller) -> QemuDomain:
        await self.driver.start_domain(dom, flags, caller)
        return dom

    @accepts(CREATE_FLAGS)
    async def domain_create_with_files(self, dom: QemuDomain, flags: int, files: Files, caller: Caller) -> QemuDomain:
        _no_files(files)
        return await self.domain_create_with_flags(dom, flags, caller)

    @accepts(CREATE_XML_FLAGS)
    async def domain_create_xml(self, xml_desc: str, flags: int, caller: Caller) -> QemuDomain:
        driver = self.driver
        definition = await driver.parse(xml_desc, validate=bool(flags & Create.VALIDATE))
        dom = await driver.domain_to_start(definition)
        await driver.start_domain(dom, flags, caller, definition)
        return dom

    @accepts(CREATE_XML_FLAGS)
    async def domain_create_xml_with_files(self, xml_desc: str, flags: int, files: Files, caller: Caller) -> QemuDomain:
        _no_files(files)
        return await self.domain_create_xml(xml_desc, flags, caller)

    @accepts(UNDEFINE_FLAGS)
    async def domain_undefine_flags(self, dom: QemuDomain, flags: int) -> None:
        if flags & Undefine.NVRAM and flags & Undefine.KEEP_NVRAM:
            raise OperationInvalid("cannot both keep and delete nvram")
        if flags & Undefine.TPM and flags & Undefine.KEEP_TPM:
            raise OperationInvalid("cannot both keep and delete TPM")
        await self.undefine(dom, flags)

    # --- state -----------------------------------------------------------------------------------------------

    def domain_get_info(self, dom: QemuDomain) -> DomainGetInfoReply:
        shown = dom.shown
        memory = shown.current_memory_kib if shown.current_memory_kib is not None else shown.memory.kib
        vcpus = shown.vcpu.current or shown.vcpu.count
        cpu_time = 0
        if dom.guest is not None:
            with contextlib.suppress(ProcessLookupError):
                cpu_time = cpu_time_ns(dom.guest.process.pid)
        return DomainGetInfoReply(dom.state, shown.memory.kib, memory, vcpus, cpu_time)

    @accepts(0)
    def domain_get_control_info(self, dom: QemuDomain, flags: int) -> DomainGetControlInfoReply:
        monitor = dom.monitor
        if monitor.busy_since is not None:
            busy_ms = int((asyncio.get_running_loop().time() - monitor.busy_since) * 1000)
            return DomainGetControlInfoReply(DomainControlState.OCCUPIED, 0, busy_ms)
        job = dom.jobs.normal
        if job is not None:
            busy_ms = int((asyncio.get_running_loop().time() - job.since) * 1000)
            return DomainGetControlInfoReply(DomainControlState.JOB, 0, busy_ms)
        return DomainGetControlInfoReply(DomainControlState.OK, 0, 0)

    @accepts(DomainMessageType.DEPRECATION | DomainMessageType.TAINTING)
    def domain_get_messages(self, dom: QemuDomain, flags: int) -> list[str]:
        if dom.guest is None or (flags and not flags & DomainMessageType.TAINTING):
            return []
        return taint.messages(dom.guest.taints)

    # --- pause and go on -------------------------------------------------------------------------------------

    async def domain_suspend(self, dom: QemuDomain) -> None:
        async with dom.jobs.hold(Job.SUSPEND, "DomainSuspend"):
            dom.require_active()
            if dom.state is DomainState.PMSUSPENDED:
                raise OperationInvalid("domain is pmsuspended")
            if dom.state is DomainState.PAUSED:
                return
            await pause(self.driver, dom, (DomainPausedReason.USER, DomainEventSuspendedDetailType.PAUSED))

    async def domain_resume(self, dom: QemuDomain) -> None:
        async with dom.jobs.hold(Job.SUSPEND, "DomainResume"):
            dom.require_active()
            if dom.state is DomainState.PMSUSPENDED:
                raise OperationInvalid("domain is pmsuspended")
            if dom.state is DomainState.RUNNING:
                raise OperationInvalid("domain is already running")
            if dom.state is DomainState.CRASHED:
                dom.set_state(DomainState.PAUSED, DomainPausedReason.CRASHED)
            await resume(self.driver, dom, UNPAUSED)

    # --- shut down, reboot, reset ----------------------------------------------------------------------------

    async def domain_shutdown(self, dom: QemuDomain) -> None:
        await self.domain_shutdown_flags(dom, 0)

    @accepts(DomainShutdownFlagValues.ACPI_POWER_BTN | DomainShutdownFlagValues.GUEST_AGENT)
    async def domain_shutdown_flags(self, dom: QemuDomain, flags: int) -> None:
        await self._power(dom, flags, "powerdown", DomainShutdownFlagValues.GUEST_AGENT)

    @accepts(DomainRebootFlagValues.ACPI_POWER_BTN | DomainRebootFlagValues.GUEST_AGENT)
    async def domain_reboot(self, dom: QemuDomain, flags: int) -> None:
        await self._power(dom, flags, "reboot", DomainRebootFlagValues.GUEST_AGENT)

    async def _power(self, dom: QemuDomain, flags: int, mode: str, agent_flag: int) -> None:
        """Ask the guest by its agent where the flags say so or it is there, else press its power button."""
        guest = dom.running
        reboot = mode == "reboot"
        by_agent = bool(flags & agent_flag) or (not flags and bool(guest.agent_connected))
        by_acpi = not flags or bool(flags & ~agent_flag)
        if by_agent:
            try:
                guest.fake_reboot = False
                await agent_calls.shutdown(self.driver, dom, mode)
                return
            except Exception:
                if not by_acpi:
                    raise
        async with dom.jobs.hold(Job.MODIFY, "DomainReboot" if reboot else "DomainShutdown"):
            if dom.state not in (DomainState.RUNNING, DomainState.PAUSED):
                raise OperationInvalid("domain is not running")
            if dom.running.fake_reboot is not reboot:
                dom.running.fake_reboot = reboot
                await self.driver.save_status(dom)
            await dom.monitor.execute("system_powerdown")

    @accepts(0)
    async def domain_reset(self, dom: QemuDomain, flags: int) -> None:
        async with dom.jobs.hold(Job.MODIFY, "DomainReset"):
            guest = dom.running
            await guest.monitor.execute("system_reset")
            guest.fake_reboot = False
            if dom.state is DomainState.CRASHED:
                dom.set_state(DomainState.PAUSED, DomainPausedReason.CRASHED)


def _no_files(files: Files) -> None:
    """Descriptors are for containers' init only; QEMU guests take none."""
    if files:
        raise InvalidArg("a QEMU guest takes no descriptors at start")
