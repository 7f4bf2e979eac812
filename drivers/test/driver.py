"""test:///default: domains that live in memory only and run nothing.

One domain, "test", runs from the start. What clients see is what libvirt's own driver of that name shows them.
"""

import time
import uuid
from typing import ClassVar

from pyvirtd.api.connect import ConnectPart, NodeGetInfoReply, NodePart
from pyvirtd.api.domain import DomainGetInfoReply
from pyvirtd.api.domain_save import SavePart
from pyvirtd.api.rpc import Part, accepts
from pyvirtd.api.types import Caller
from pyvirtd.constants.domain import (
    DomainCreateFlags,
    DomainEventResumedDetailType,
    DomainEventStartedDetailType,
    DomainEventStoppedDetailType,
    DomainEventSuspendedDetailType,
    DomainEventType,
    DomainPausedReason,
    DomainRebootFlagValues,
    DomainRunningReason,
    DomainShutdownFlagValues,
    DomainShutoffReason,
    DomainState,
    DomainUndefineFlagsValues,
)
from pyvirtd.constants.error import ErrorDomain
from pyvirtd.core import schema
from pyvirtd.core.domains import CommonDomains, HypervisorDriver, check_name
from pyvirtd.core.jobs import Job
from pyvirtd.core.objects import Deferred, DomainObject
from pyvirtd.errors import InternalError
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.os import BootDevice, OsBoot

VERSION = 2
DEFAULT = """<domain type='test'>
  <name>test</name>
  <uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
  <memory unit='KiB'>8388608</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu>2</vcpu>
  <os><type>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <source file='/guest/diskimage1'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='network'>
      <mac address='aa:bb:cc:dd:ee:ff'/>
      <source network='default'/>
      <target dev='testnet0'/>
    </interface>
  </devices>
</domain>
"""


class TestDomain(DomainObject):
    """A guest that only pretends."""

    __test__ = False  # no test class, whatever its name says
    started_at = 0.0


class Domains(CommonDomains[TestDomain]):
    """Life cycle without a guest."""

    driver: "TestDriver"

    def domain_get_os_type(self, dom: TestDomain) -> str:
        return "linux"

    def domain_get_info(self, dom: TestDomain) -> DomainGetInfoReply:
        shown = dom.shown
        running = int((time.monotonic() - dom.started_at) * 1e9) if dom.active else 0
        current_kib = shown.current_memory_kib or shown.memory.kib
        return DomainGetInfoReply(dom.state, shown.memory.kib, current_kib, shown.vcpu.count, running)

    @accepts(DomainCreateFlags.PAUSED | DomainCreateFlags.AUTODESTROY)
    async def domain_create_with_flags(self, dom: TestDomain, flags: int, caller: Caller) -> TestDomain:
        await self.driver.start_domain(dom, flags, caller)
        return dom

    @accepts(DomainCreateFlags.PAUSED | DomainCreateFlags.AUTODESTROY)
    async def domain_create_xml(self, xml_desc: str, flags: int, caller: Caller) -> TestDomain:
        definition = await self.driver.parse(xml_desc)
        dom = await self.driver.domain_to_start(definition)
        await self.driver.start_domain(dom, flags, caller, definition)
        return dom

    @accepts(DomainUndefineFlagsValues(0))
    async def domain_undefine_flags(self, dom: TestDomain, flags: int) -> None:
        await self.undefine(dom, flags)

    async def domain_suspend(self, dom: TestDomain) -> None:
        async with dom.jobs.hold(Job.SUSPEND, "DomainSuspend"):
            if dom.state is not DomainState.RUNNING:
                raise InternalError(f"domain '{dom.name}' not running")
            dom.set_state(DomainState.PAUSED, DomainPausedReason.USER)
            self.driver.emit_lifecycle(dom, DomainEventType.SUSPENDED, DomainEventSuspendedDetailType.PAUSED)

    async def domain_resume(self, dom: TestDomain) -> None:
        async with dom.jobs.hold(Job.SUSPEND, "DomainResume"):
            if dom.state is not DomainState.PAUSED:
                raise InternalError(f"domain '{dom.name}' not paused")
            dom.set_state(DomainState.RUNNING, DomainRunningReason.UNPAUSED)
            self.driver.emit_lifecycle(dom, DomainEventType.RESUMED, DomainEventResumedDetailType.UNPAUSED)

    async def domain_shutdown(self, dom: TestDomain) -> None:
        await self.domain_shutdown_flags(dom, 0)

    @accepts(DomainShutdownFlagValues(0))
    async def domain_shutdown_flags(self, dom: TestDomain, flags: int) -> None:
        if not dom.active:
            raise InternalError(f"domain '{dom.name}' not running")
        await self.driver.end(dom, DomainShutoffReason.SHUTDOWN, DomainEventStoppedDetailType.SHUTDOWN)

    @accepts(DomainRebootFlagValues(0))
    async def domain_reboot(self, dom: TestDomain, flags: int) -> None:
        dom.require_active()
        dom.set_state(DomainState.RUNNING, DomainRunningReason.BOOTED)
        dom.started_at = time.monotonic()


class Saving(SavePart[TestDomain]):
    """Nothing is ever saved."""

    def __init__(self, driver: "TestDriver") -> None:
        self.driver = driver

    @accepts(0)
    def domain_has_managed_save_image(self, dom: TestDomain, flags: int) -> int:
        return 0


class Connect(ConnectPart):
    """A host that is none."""

    def __init__(self, driver: "TestDriver") -> None:
        self.driver = driver

    def connect_get_type(self) -> str:
        return "TEST"

    def connect_get_version(self) -> int:
        return VERSION

    def connect_get_hostname(self) -> str:
        return "localhost"

    def connect_get_max_vcpus(self, type: str | None) -> int:
        return 32

    def connect_get_capabilities(self) -> str:
        return (
            "<capabilities>\n\n  <host>\n    <cpu>\n      <arch>i686</arch>\n    </cpu>\n  </host>\n\n"
            "  <guest>\n    <os_type>hvm</os_type>\n    <arch name='i686'>\n      <wordsize>32</wordsize>\n"
            "      <domain type='test'/>\n    </arch>\n  </guest>\n\n</capabilities>\n"
        )


class Node(NodePart):
    """Numbers of libvirt's test host."""

    def __init__(self, driver: "TestDriver") -> None:
        self.driver = driver

    def node_get_info(self) -> NodeGetInfoReply:
        return NodeGetInfoReply(b"i686", 3145728, 16, 1400, 2, 2, 2, 2)


class TestDriver(HypervisorDriver[TestDomain]):
    """Domains in memory."""

    __test__ = False
    name = "test"
    schemes = ("test",)
    error_domain = ErrorDomain.TEST
    parts: ClassVar[tuple[type[Part], ...]] = (Domains, Saving, Connect, Node)

    @property
    def uri_path(self) -> str:
        return "/default"

    async def start(self) -> None:
        dom = self.new_domain(await self.parse(DEFAULT), persistent=True)
        self.domains.add(dom)
        self._run(dom, dom.config)
        dom.reason = DomainRunningReason.UNKNOWN

    async def parse(self, xml: str, *, validate: bool = False) -> DomainDef:
        if validate:
            await schema.validate(xml, "domain", DomainDef)
        definition = DomainDef.parse(xml)
        check_name(definition.name)
        definition.uuid = definition.uuid or str(uuid.uuid4())
        if definition.current_memory_kib is None:
            definition.current_memory_kib = definition.memory.kib
        definition.os.type.arch = definition.os.type.arch or "i686"
        if not definition.os.boot:
            definition.os.boot = [OsBoot(dev=BootDevice.HD)]
        return definition

    def new_domain(self, definition: DomainDef | Deferred, *, persistent: bool) -> TestDomain:
        return TestDomain(definition, persistent=persistent)

    def _run(self, dom: TestDomain, definition: DomainDef) -> None:
        dom.live = definition.copy()
        self.domains.set_id(dom, self.domains.next_id())
        dom.live.id = dom.id
        dom.started_at = time.monotonic()
        dom.set_state(DomainState.RUNNING, DomainRunningReason.BOOTED)

    async def start_domain(
        self, dom: TestDomain, flags: int, caller: Caller | None, definition: DomainDef | None = None
    ) -> None:
        async with dom.jobs.hold(Job.MODIFY, "DomainCreate"):
            dom.require_inactive()
            self._run(dom, definition or dom.config)
            self.emit_lifecycle(dom, DomainEventType.STARTED, DomainEventStartedDetailType.BOOTED)
            if flags & DomainCreateFlags.PAUSED:
                dom.set_state(DomainState.PAUSED, DomainPausedReason.USER)
                self.emit_lifecycle(dom, DomainEventType.SUSPENDED, DomainEventSuspendedDetailType.PAUSED)
            if flags & DomainCreateFlags.AUTODESTROY and caller is not None:
                caller.on_close(lambda: self._stop(dom, DomainShutoffReason.DESTROYED))

    async def destroy_domain(self, dom: TestDomain, flags: int) -> None:
        await self.end(dom, DomainShutoffReason.DESTROYED, DomainEventStoppedDetailType.DESTROYED)

    async def end(self, dom: TestDomain, reason: DomainShutoffReason, detail: DomainEventStoppedDetailType) -> None:
        """Stop a running domain."""
        async with dom.jobs.hold(Job.DESTROY, "DomainDestroy"):
            dom.require_active()
            self._stop(dom, reason, detail)

    def _stop(
        self,
        dom: TestDomain,
        reason: DomainShutoffReason,
        detail: DomainEventStoppedDetailType = DomainEventStoppedDetailType.DESTROYED,
    ) -> None:
        if not dom.active:
            return
        self.domains.set_id(dom, -1)
        dom.live = None
        dom.set_state(DomainState.SHUTOFF, reason)
        self.emit_lifecycle(dom, DomainEventType.STOPPED, detail)
        self.forget_if_transient(dom)
