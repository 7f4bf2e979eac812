"""-cpu and -smp, threads for I/O."""

from pyvirtd.drivers.qemu.command.address import on_off
from pyvirtd.drivers.qemu.command.context import Builder, Props, escape
from pyvirtd.drivers.qemu.cpu import describe_guest
from pyvirtd.drivers.qemu.cpu_features import NEVER_GIVEN, NOT_CONFIGURABLE, in_order, to_qemu
from pyvirtd.drivers.qemu.cpu_models import libvirt_features
from pyvirtd.model.cpu import CacheMode, Cpu, CpuMatch, CpuMode, FeaturePolicy, IothreadId, MaxPhysAddrMode
from pyvirtd.model.features import Features, HypervMode, Timer, TimerName, TlbFlush

_UNMIGRATABLE = {"invtsc"}  # never without being asked for: a guest that has it cannot be moved
_CHANGING = frozenset({"monitor", "npt"})  # QEMU took them out of models, or put them in, between versions
_REQUIRED = (FeaturePolicy.FORCE, FeaturePolicy.REQUIRE)


def build_cpu(build: Builder) -> None:
    """-cpu: model, features, and what the hypervisor adds"""
    cpu = build.definition.cpu
    words = _model(build, cpu) if cpu is not None and (cpu.mode is not None or cpu.model is not None) else []
    more = [*_timers(build), *_hypervisor_features(build)]
    if not words:
        if not more:
            return
        words = [_default_model(build)]
    build.command.add("-cpu", ",".join([*words, *more, *(_limits(cpu) if cpu else [])]))


def _default_model(build: Builder) -> str:
    machine = build.caps.machine(build.board.machine, build.definition.type)
    return (machine.default_cpu if machine else None) or "qemu64"


def _model(build: Builder, cpu: Cpu) -> list[str]:
    match cpu.mode:
        case CpuMode.HOST_PASSTHROUGH:
            words = ["host"]
            if cpu.migratable is not None:
                words.append(f"migratable={on_off(cpu.migratable)}")
        case CpuMode.MAXIMUM:
            words = ["max"]
            if cpu.migratable is not None:
                words.append(f"migratable={on_off(cpu.migratable)}")
        case CpuMode.HOST_MODEL:
            return _host_model(build, cpu)
        case _ if cpu.match is CpuMatch.MINIMUM and build.board.x86:
            return _host_model(build, cpu)  # at least that model: then all that the host has
        case _:
            if cpu.model is None or not cpu.model.name:
                return []
            words = [cpu.model.name]
            if cpu.model.vendor_id:
                words.append(f"vendor={cpu.model.vendor_id}")
    return words + [f"{name}={on_off(state)}" for name, state in _states(build, cpu).items()]


def _host_model(build: Builder, cpu: Cpu) -> list[str]:
    if build.board.ppc64:
        return ["host" + (f",compat={cpu.model.name}" if cpu.model and cpu.model.name else "")]
    if build.board.s390 or build.board.arm:
        return ["host"]
    found = describe_guest(build.caps, build.definition.type)
    if found is None or found.model is None:
        return ["host"]
    on = {feature.name for feature in found.features if feature.policy == "require"} | _implied(build, found.model)
    off = [feature.name for feature in found.features if feature.policy != "require"]
    states = {to_qemu(name): True for name in in_order(on) if name not in _UNMIGRATABLE}
    states |= {to_qemu(name): False for name in off}
    states |= _states(build, cpu)
    return [found.model, *(f"{name}={on_off(state)}" for name, state in states.items())]


def _implied(build: Builder, model: str) -> set[str]:
    """Features that the model has on this QEMU, and may lose on another."""
    side = build.caps.accelerator(build.definition.type)
    definition = build.caps.cpu_definition(model)
    if side is None or side.host_cpu is None or definition is None:
        return set()
    return set(_CHANGING & libvirt_features(side.host_cpu.features) & libvirt_features(definition.features))


def _states(build: Builder, cpu: Cpu) -> dict[str, bool]:
    """The definition's own features, on or off. One that is optional follows the host."""
    states = {}
    for feature in cpu.feature:
        if feature.name in NOT_CONFIGURABLE:
            continue
        name = to_qemu(feature.name) if build.board.x86 else feature.name
        if feature.policy is FeaturePolicy.OPTIONAL:
            state = _host_has(build, name)
        else:
            state = feature.policy in _REQUIRED or feature.policy is None
        if state or feature.name not in NEVER_GIVEN:
            states[name] = state
    return states


def _host_has(build: Builder, name: str) -> bool:
    side = build.caps.accelerator(build.definition.type)
    return side is not None and side.host_cpu is not None and name in side.host_cpu.features


def _timers(build: Builder) -> list[str]:
    words = []
    for timer in build.definition.clock.timer:
        words += _timer(build, timer)
    return words


def _timer(build: Builder, timer: Timer) -> list[str]:
    match timer.name:
        case TimerName.KVMCLOCK if timer.present is not None and build.board.x86:
            return [f"kvmclock={on_off(timer.present)}"]
        case TimerName.HYPERVCLOCK if timer.present:
            return ["hv-time=on"]
        case TimerName.TSC if timer.frequency:
            return [f"tsc-frequency={timer.frequency}"]
        case TimerName.ARMVTIMER if timer.tickpolicy is not None:
            return [f"kvm-no-adjvtime={'on' if timer.tickpolicy == 'discard' else 'off'}"]
        case _:
            return []


def _hypervisor_features(build: Builder) -> list[str]:
    features = build.definition.features or Features()
    words = []
    if features.apic is not None and features.apic.eoi is not None:
        words.append(f"kvm-pv-eoi={on_off(features.apic.eoi)}")
    if features.pvspinlock is not None:
        words.append(f"kvm-pv-unhalt={on_off(features.pvspinlock.state is not False)}")
    words += _hyperv(features)
    words += [
        "hv-crash" for panic in build.definition.devices.panic if panic.model is not None and panic.model == "hyperv"
    ]
    words += _kvm(features)
    if features.pmu is not None:
        words.append(f"pmu={on_off(features.pmu.state is not False)}")
    return words


_HYPERV = (
    ("relaxed", "hv-relaxed"),
    ("vapic", "hv-vapic"),
    ("spinlocks", "hv-spinlocks"),
    ("vpindex", "hv-vpindex"),
    ("runtime", "hv-runtime"),
    ("synic", "hv-synic"),
    ("stimer", "hv-stimer"),
    ("reset", "hv-reset"),
    ("vendor_id", "hv-vendor-id"),
    ("frequencies", "hv-frequencies"),
    ("reenlightenment", "hv-reenlightenment"),
    ("tlbflush", "hv-tlbflush"),
    ("ipi", "hv-ipi"),
    ("evmcs", "hv-evmcs"),
    ("avic", "hv-avic"),
    ("emsr_bitmap", "hv-emsr-bitmap"),
    ("xmm_input", "hv-xmm-input"),
)


def _hyperv(features: Features) -> list[str]:
    hyperv = features.hyperv
    if hyperv is None:
        return []
    words = []
    if hyperv.mode is HypervMode.PASSTHROUGH:
        words.append("hv-passthrough=on")
    for field, option in _HYPERV:
        value = getattr(hyperv, field)
        if field == "spinlocks":
            if value is not None and value.state:
                words.append(f"hv-spinlocks=0x{value.retries or 4095:x}")
        elif field == "vendor_id":
            if value is not None and value.state:
                words.append(f"hv-vendor-id={escape(value.value or '')}")
        elif field == "stimer":
            if value is not None and value.state:
                words.append("hv-stimer=on")
                if value.direct:
                    words.append("hv-stimer-direct=on")
        elif field == "tlbflush":
            words += _tlb_flush(value)
        elif value:
            words.append(f"{option}=on")
    return words


def _tlb_flush(flush: TlbFlush | None) -> list[str]:
    if flush is None or not flush.state:
        return []
    more = (("direct", flush.direct), ("ext", flush.extended))
    return ["hv-tlbflush=on", *(f"hv-tlbflush-{name}=on" for name, on in more if on)]


def _kvm(features: Features) -> list[str]:
    kvm = features.kvm
    if kvm is None:
        return []
    words = []
    if kvm.hidden:
        words.append("kvm=off")
    if kvm.hint_dedicated:
        words.append("kvm-hint-dedicated=on")
    if kvm.poll_control:
        words.append("kvm-poll-control=on")
    if kvm.pv_ipi is not None:
        words.append(f"kvm-pv-ipi={on_off(kvm.pv_ipi)}")
    return words


def _limits(cpu: Cpu) -> list[str]:
    words = []
    if cpu.cache is not None:
        without_host = ["host-cache-info=off"] if cpu.mode in (CpuMode.HOST_PASSTHROUGH, CpuMode.MAXIMUM) else []
        if cpu.cache.mode is CacheMode.EMULATE:
            words += ["l3-cache=on", *without_host]
        elif cpu.cache.mode is CacheMode.PASSTHROUGH:
            words += ["host-cache-info=on", "l3-cache=off"]
        else:
            words += [*without_host, "l3-cache=off"]
    if cpu.maxphysaddr is not None:
        if cpu.maxphysaddr.mode is MaxPhysAddrMode.EMULATE:
            words.append(f"phys-bits={cpu.maxphysaddr.bits}")
        else:
            words.append("host-phys-bits=on")
            limit = cpu.maxphysaddr.limit or cpu.maxphysaddr.bits
            if limit:
                words.append(f"host-phys-bits-limit={limit}")
    return words


def build_smp(build: Builder) -> None:
    """-smp"""
    definition = build.definition
    vcpu, topology = definition.vcpu, definition.cpu.topology if definition.cpu else None
    present = vcpu.current or vcpu.count
    states = {state.id: state for state in definition.vcpus}
    if states:
        # vcpus that may be unplugged are plugged in later, when QEMU is up
        present = sum(
            1 for n in range(vcpu.count) if n not in states or (states[n].enabled and not states[n].hotpluggable)
        )
        present = present or 1
    words = [str(present)]
    if present < vcpu.count:
        words.append(f"maxcpus={vcpu.count}")
    if topology is not None:
        words += [f"sockets={topology.sockets}"]
        if build.board.x86 or build.board.ppc64 or build.board.arm or build.board.s390:
            words += [f"dies={topology.dies}"]
        if (topology.clusters or 1) > 1:
            words += [f"clusters={topology.clusters}"]
        words += [f"cores={topology.cores}", f"threads={topology.threads}"]
    else:
        words += [f"sockets={vcpu.count}", "cores=1", "threads=1"]
    build.command.add("-smp", ",".join(words))


def build_iothreads(build: Builder) -> None:
    """-object iothread"""
    threads = build.definition.iothreadids
    for thread in threads or [IothreadId(id=number + 1) for number in range(build.definition.iothreads or 0)]:
        props = Props({"qom-type": "iothread", "id": f"iothread{thread.id}"})
        if thread.thread_pool_min is not None and thread.thread_pool_min >= 0:
            props.put("thread-pool-min", thread.thread_pool_min)
        if thread.thread_pool_max is not None and thread.thread_pool_max >= 0:
            props.put("thread-pool-max", thread.thread_pool_max)
        build.object(props)
    default = build.definition.defaultiothread
    if default is not None:
        props = Props({"qom-type": "main-loop", "id": "main-loop"})
        props.put("thread-pool-min", default.thread_pool_min).put("thread-pool-max", default.thread_pool_max)
        build.object(props)
