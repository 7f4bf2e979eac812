"""Rules of <features>, <clock>, <pm> and of what a guest's end leads to."""

from pyvirtd.drivers.qemu.postparse.refuse import qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.features import (
    Features,
    Hyperv,
    LifecycleAction,
    PvSecurity,
    SevSecurity,
    TickPolicy,
    Timer,
    TimerName,
    TimerTrack,
)

HYPERV_RETRIES_MIN = 4095
HYPERV_VENDOR_MAX = 12
RING_MIN, RING_MAX = 1024, 65536
MIB = 1 << 20
# Features of one kind of board: the field and libvirt's word.
_PSERIES = (
    ("hpt", "hpt"), ("htm", "htm"), ("nested_hv", "nested-hv"), ("ccf_assist", "ccf-assist"), ("cfpc", "cfpc"),
    ("sbbc", "sbbc"), ("ibs", "ibs"),
)  # fmt: skip


def check_features(scope: Scope) -> None:
    """What the board and the accelerator can do."""
    features = scope.definition.features
    if features is not None:
        _check_board(scope, features)
        if features.hyperv is not None:
            _check_hyperv(scope, features.hyperv)
        ring = features.kvm.dirty_ring if features.kvm else None
        if ring is not None and ring.size is not None and ring.state:
            if ring.size & (ring.size - 1) or not RING_MIN <= ring.size <= RING_MAX:
                raise xml(f"dirty ring must be power of 2 and ranges [{RING_MIN}, {RING_MAX}]")
        if features.tcg is not None and features.tcg.tb_cache_kib and features.tcg.tb_cache_kib % 1024:
            raise qemu_unsupported("tb-cache size must be an integer multiple of MiB")
    _check_security(scope)


def _check_board(scope: Scope, features: Features) -> None:
    board, caps = scope.board, scope.caps
    where = f"architecture '{board.arch}' or machine type '{board.machine}'"
    if not board.pseries:
        for field, word in _PSERIES:
            if getattr(features, field) is not None:
                raise qemu_unsupported(f"The '{word}' feature is not supported for {where}")
    if features.gic is not None and not board.arm_virt:
        raise qemu_unsupported(f"The 'gic' feature is not supported for {where}")
    if features.vmport is not None and not board.x86:
        raise qemu_unsupported("vmport is not available with this QEMU binary")
    if features.ras is not None and not board.arm_virt:
        raise qemu_unsupported(f"The 'ras' feature is not supported for {where}")
    if features.ps2 is not None and not board.x86:
        raise qemu_unsupported(f"The 'ps2' feature is not supported for {where}")
    if features.aia is not None and not (board.arch.startswith("riscv") and board.machine.startswith("virt")):
        raise qemu_unsupported(f"The 'aia' feature is not supported for {where}")
    smm = features.smm
    if smm is not None:
        if not board.x86:
            raise qemu_unsupported("smm is not available with this QEMU binary")
        if smm.tseg is not None and smm.state is not False:
            if not board.q35:
                raise qemu_unsupported("SMM TSEG is only supported with q35 machine type")
            if smm.tseg.bytes % MIB:
                raise qemu_unsupported("SMM TSEG size must be divisible by 1 MiB")
    if features.vmcoreinfo is not None and features.vmcoreinfo.state is not False:
        if not caps.has_device("vmcoreinfo"):
            raise qemu_unsupported("vmcoreinfo is not available with this QEMU binary")


def _check_hyperv(scope: Scope, hyperv: Hyperv) -> None:
    board = scope.board
    if not board.x86 and not board.arm:
        raise qemu_unsupported(
            f"Hyperv features are not supported for architecture '{board.arch}' or machine type '{board.machine}'"
        )
    spinlocks, vendor = hyperv.spinlocks, hyperv.vendor_id
    if spinlocks is not None and spinlocks.state and (spinlocks.retries or HYPERV_RETRIES_MIN) < HYPERV_RETRIES_MIN:
        raise xml(f"HyperV spinlock retry count must be at least {HYPERV_RETRIES_MIN}")
    if vendor is not None and vendor.state and vendor.value is not None:
        if len(vendor.value) > HYPERV_VENDOR_MAX:
            raise xml(f"HyperV vendor_id value must not be more than {HYPERV_VENDOR_MAX} characters.")
        if "," in vendor.value:
            raise xml("HyperV vendor_id value is invalid")


def _check_security(scope: Scope) -> None:
    """Confidential guests: only where QEMU and the host have them."""
    security, caps = scope.definition.launch_security, scope.caps
    if security is None:
        return
    if isinstance(security, SevSecurity):
        if caps.sev is None:
            raise qemu_unsupported("SEV launch security is not supported with this QEMU binary")
    elif isinstance(security, PvSecurity):  # the kinds that need a later QEMU are refused at the start
        raise qemu_unsupported("S390 PV launch security is not supported with this QEMU binary")


# Time


def check_clock(scope: Scope) -> None:
    """Which timers a guest has, and how late ticks are treated."""
    for timer in scope.definition.clock.timer:
        _check_timer(timer)
        _check_timer_of_board(scope, timer)


def _check_timer(timer: Timer) -> None:
    if timer.name is not TimerName.TSC:
        if timer.frequency:
            raise unsupported(f"timer {timer.name} doesn't support setting of timer frequency")
        if timer.mode is not None:
            raise unsupported(f"timer {timer.name} doesn't support setting of timer mode")
    if timer.track is not None and timer.name not in (TimerName.PLATFORM, TimerName.RTC):
        raise unsupported(f"timer {timer.name} doesn't support setting of timer track")
    if timer.tickpolicy is not None and timer.name in (TimerName.KVMCLOCK, TimerName.HYPERVCLOCK):
        raise unsupported(f"timer {timer.name} doesn't support setting of timer tickpolicy")
    if (
        timer.catchup is not None
        and any(v for _, v in timer.catchup.values())
        and timer.tickpolicy is not TickPolicy.CATCHUP
    ):
        raise xml("setting of timer catchup policies is only supported with tickpolicy='catchup'")


def _check_timer_of_board(scope: Scope, timer: Timer) -> None:
    board, late = scope.board, timer.tickpolicy
    match timer.name:
        case TimerName.PLATFORM:
            raise qemu_unsupported(f"unsupported timer type (name) '{timer.name}'")
        case TimerName.TSC if timer.present and not board.x86:
            raise _no_timer(scope, timer)
        case TimerName.KVMCLOCK | TimerName.HYPERVCLOCK if timer.present is not False and not board.x86:
            raise _no_timer(scope, timer)
        case TimerName.ARMVTIMER if not (board.arch == "aarch64" and scope.kvm):
            raise _no_timer(scope, timer)
        case TimerName.RTC:
            if timer.track is TimerTrack.BOOT:
                raise qemu_unsupported(f"unsupported rtc timer track '{timer.track}'")
            if late in (TickPolicy.MERGE, TickPolicy.DISCARD):
                raise qemu_unsupported(f"unsupported rtc timer tickpolicy '{late}'")
        case TimerName.PIT if late is TickPolicy.MERGE:
            raise qemu_unsupported(f"unsupported pit tickpolicy '{late}'")
        case _:
            pass


def _no_timer(scope: Scope, timer: Timer) -> Exception:
    return qemu_unsupported(
        f"Configuring the '{timer.name}' timer is not supported for virtType={scope.definition.type} "
        f"arch={scope.board.arch} machine={scope.board.machine} guests"
    )


def check_power(scope: Scope) -> None:
    """Sleep states, and what follows the guest's end."""
    definition = scope.definition
    pm = definition.pm
    if pm is not None and not (scope.board.i440fx or scope.board.q35):
        if pm.suspend_to_mem is not None and not scope.caps.has_device("PIIX4_PM"):
            raise qemu_unsupported("setting ACPI S3 not supported")
        if pm.suspend_to_disk is not None and not scope.caps.has_device("PIIX4_PM"):
            raise qemu_unsupported("setting ACPI S4 not supported")
    ends = (("poweroff", definition.on_poweroff), ("reboot", definition.on_reboot), ("crash", definition.on_crash))
    for word, action in ends[:2]:
        if action in (LifecycleAction.COREDUMP_DESTROY, LifecycleAction.COREDUMP_RESTART):
            raise unsupported(f"Lifecycle event '{word}' doesn't support '{action}' action")
    for _, action in ends:
        if action is LifecycleAction.RESTART_RENAME:
            raise qemu_unsupported(
                f"qemu driver doesn't support the '{action}' action for 'on_reboot'/'on_poweroff'/'on_crash'"
            )
    for _, action in ends[:2]:
        if action is LifecycleAction.PRESERVE:
            raise qemu_unsupported(f"qemu driver doesn't support the '{action}' action for 'on_reboot'/'on_poweroff'")
    if definition.genid is not None and not scope.caps.has_device("vmgenid"):
        raise qemu_unsupported("this QEMU does not support the 'genid' capability")
