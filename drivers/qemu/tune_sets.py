"""Changes of memory, vcpus and lifecycle actions that need no control group."""

from typing import TYPE_CHECKING

from pyvirtd.api.domain_tune import TunePart
from pyvirtd.api.rpc import accepts
from pyvirtd.constants.domain import DomainLifecycle, DomainLifecycleAction, DomainVcpuFlags
from pyvirtd.constants.domain import DomainMemoryModFlags as Memory
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core import audit_records
from pyvirtd.core.edits import change
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.monitor import CommandRefused
from pyvirtd.drivers.qemu.tune_vcpus import set_max_vcpus, set_vcpus
from pyvirtd.errors import BadCall, ConfigUnsupported, InvalidArg, OperationInvalid, OperationUnsupported, Overflow
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.features import LifecycleAction

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

MEMORY_MAX_KIB = (2**64 - 1) // 1024
VCPU_FLAGS = (
    Impact.LIVE | Impact.CONFIG | DomainVcpuFlags.MAXIMUM | DomainVcpuFlags.GUEST | DomainVcpuFlags.HOTPLUGGABLE
)
NO_BALLOON = "Unable to change memory of active domain without the balloon device and guest OS balloon driver"
ACTIONS = {
    DomainLifecycleAction.DESTROY: LifecycleAction.DESTROY,
    DomainLifecycleAction.RESTART: LifecycleAction.RESTART,
    DomainLifecycleAction.RESTART_RENAME: LifecycleAction.RESTART_RENAME,
    DomainLifecycleAction.PRESERVE: LifecycleAction.PRESERVE,
    DomainLifecycleAction.COREDUMP_DESTROY: LifecycleAction.COREDUMP_DESTROY,
    DomainLifecycleAction.COREDUMP_RESTART: LifecycleAction.COREDUMP_RESTART,
}
CRASH_ONLY = (LifecycleAction.COREDUMP_DESTROY, LifecycleAction.COREDUMP_RESTART)


class TuneSets(TunePart[QemuDomain]):
    """The tuning procedures that change something."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    # --- memory ----------------------------------------------------------------------------------------------

    async def domain_set_memory(self, dom: QemuDomain, memory: int) -> None:
        await self._set_memory(dom, memory, Impact.LIVE, "virDomainSetMemory")

    async def domain_set_max_memory(self, dom: QemuDomain, memory: int) -> None:
        await self._set_memory(dom, memory, Memory.MAXIMUM, "virDomainSetMaxMemory")

    @accepts(Impact.LIVE | Impact.CONFIG | Memory.MAXIMUM)
    async def domain_set_memory_flags(self, dom: QemuDomain, memory: int, flags: int) -> None:
        await self._set_memory(dom, memory, flags, "virDomainSetMemoryFlags")

    async def _set_memory(self, dom: QemuDomain, memory: int, flags: int, function: str) -> None:
        if not memory:
            raise BadCall(f"memory in {function} must not be zero")
        if memory > MEMORY_MAX_KIB:
            raise Overflow(f"input too large: {memory}", domain=From.DOMAIN)
        maximum = bool(flags & Memory.MAXIMUM)

        def edit(definition: DomainDef, *, live: bool) -> None:
            if maximum:
                _set_max_memory(definition, memory, live=live)
                return
            if memory > definition.memory.kib:
                raise InvalidArg("cannot set memory higher than max memory")
            if not live:  # the live definition follows the balloon, by QEMU's event
                definition.current_memory_kib = memory

        async def tell_qemu() -> None:
            live = dom.live_def
            if live.devices.balloon is None:
                raise OperationInvalid(NO_BALLOON)
            now = live.memory.kib if live.current_memory_kib is None else live.current_memory_kib
            with self.driver.host.audit.outcome(audit_records.amount(live, "mem", now, memory)):
                await self._balloon(dom, memory)

        await change(self.driver, dom, flags & ~Memory.MAXIMUM, edit, tell_qemu)

    async def _balloon(self, dom: QemuDomain, memory_kib: int) -> None:
        try:
            await dom.monitor.execute("balloon", {"value": memory_kib * 1024})
        except CommandRefused as exc:
            if exc.qmp_class != "DeviceNotActive":
                raise
            raise OperationInvalid(NO_BALLOON) from exc

    # --- vcpus -----------------------------------------------------------------------------------------------

    async def domain_set_vcpus(self, dom: QemuDomain, nvcpus: int) -> None:
        await self._set_vcpus(dom, nvcpus, Impact.LIVE, "virDomainSetVcpus")

    @accepts(VCPU_FLAGS)
    async def domain_set_vcpus_flags(self, dom: QemuDomain, nvcpus: int, flags: int) -> None:
        await self._set_vcpus(dom, nvcpus, flags, "virDomainSetVcpusFlags")

    async def _set_vcpus(self, dom: QemuDomain, count: int, flags: int, function: str) -> None:
        maximum, by_guest = bool(flags & DomainVcpuFlags.MAXIMUM), bool(flags & DomainVcpuFlags.GUEST)
        if maximum and not flags & Impact.CONFIG:
            raise BadCall("Flag 'VIR_DOMAIN_AFFECT_CONFIG' is required by flag 'VIR_DOMAIN_VCPU_MAXIMUM'")
        if by_guest and flags & Impact.CONFIG:
            raise BadCall("Flags 'VIR_DOMAIN_VCPU_GUEST' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive")
        if not count:
            raise BadCall(f"nvcpus in {function} must not be zero")
        hotpluggable = bool(flags & DomainVcpuFlags.HOTPLUGGABLE)
        flags &= Impact.LIVE | Impact.CONFIG
        if by_guest:
            if dom.guest is None:
                raise OperationInvalid("domain is not running")
            raise OperationUnsupported("vcpus are not changed through the guest's agent yet")

        def edit(definition: DomainDef, *, live: bool) -> None:
            if live:
                _check_live_vcpus(definition, count, maximum=maximum)
            elif maximum:
                set_max_vcpus(definition, count)
            else:
                set_vcpus(definition, count, hotpluggable=hotpluggable)

        await change(self.driver, dom, flags, edit)

    # --- lifecycle -------------------------------------------------------------------------------------------

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_lifecycle_action(self, dom: QemuDomain, type: int, action: int, flags: int) -> None:
        event, word = _lifecycle(type, action)

        def edit(definition: DomainDef, *, live: bool) -> None:
            setattr(definition, f"on_{event.name.lower()}", word)
            if definition.on_reboot is LifecycleAction.DESTROY and definition.on_poweroff is LifecycleAction.RESTART:
                raise ConfigUnsupported(
                    "qemu driver doesn't support 'onReboot' set to 'destroy and 'onPoweroff' set to 'reboot'",
                    domain=From.QEMU,
                )

        async def tell_qemu() -> None:
            if event is DomainLifecycle.REBOOT and "set-action" in dom.running.caps.schema:
                reboot = "shutdown" if word is LifecycleAction.DESTROY else "reset"
                await dom.monitor.execute("set-action", {"reboot": reboot})

        await change(self.driver, dom, flags, edit, tell_qemu)


def _set_max_memory(definition: DomainDef, memory: int, *, live: bool) -> None:
    if live:
        raise OperationInvalid("cannot resize the maximum memory on an active domain")
    if definition.cpu is not None and definition.cpu.numa is not None and definition.cpu.numa.cell:
        raise OperationInvalid("initial memory size of a domain with NUMA nodes cannot be modified with this API")
    if definition.max_memory is not None and memory > definition.max_memory.kib:
        raise OperationInvalid("cannot set initial memory size greater than the maximum memory size")
    definition.memory.kib = memory
    current = definition.current_memory_kib
    if current is not None and current > memory:
        definition.current_memory_kib = memory


def _check_live_vcpus(definition: DomainDef, count: int, *, maximum: bool) -> None:
    """Raises for what cannot be done with a running guest; its vcpus do not come and go yet."""
    vcpu = definition.vcpu
    if maximum:
        raise OperationUnsupported("maximum vcpu count of a live domain can't be modified", domain=From.QEMU)
    if count > vcpu.count:
        raise InvalidArg(
            f"requested vcpus is greater than max allowable vcpus for the live domain: {count} > {vcpu.count}"
        )
    if count != (vcpu.current or vcpu.count):
        raise OperationUnsupported("vcpus of a running guest are not plugged in or out yet", domain=From.QEMU)


def _lifecycle(type_: int, action: int) -> tuple[DomainLifecycle, LifecycleAction]:
    """What happens and what is to be done then. Raises InvalidArg and ConfigUnsupported."""
    if type_ not in list(DomainLifecycle):
        raise InvalidArg(f"invalid lifecycle type '{type_}'", domain=From.DOMAIN)
    if action not in list(DomainLifecycleAction):
        raise InvalidArg(f"invalid lifecycle action '{action}'", domain=From.DOMAIN)
    event, word = DomainLifecycle(type_), ACTIONS[DomainLifecycleAction(action)]
    if event is not DomainLifecycle.CRASH and word in CRASH_ONLY:
        raise ConfigUnsupported(
            f"Lifecycle event '{event.name.lower()}' doesn't support '{word}' action", domain=From.DOMAIN
        )
    if word is LifecycleAction.RESTART_RENAME:
        raise ConfigUnsupported(
            f"qemu driver doesn't support the '{word}' action for 'on_reboot'/'on_poweroff'/'on_crash'",
            domain=From.QEMU,
        )
    if event is not DomainLifecycle.CRASH and word is LifecycleAction.PRESERVE:
        raise ConfigUnsupported(
            f"qemu driver doesn't support the '{word}' action for 'on_reboot'/'on_poweroff'", domain=From.QEMU
        )
    return event, word
