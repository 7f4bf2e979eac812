"""Hypervisor features, clock and timers, power management, performance events.

https://libvirt.org/formatdomain.html#hypervisor-features
"""

import re
from enum import StrEnum

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported, InternalError, XmlError
from pyvirtd.model.refusals import internal, wrong
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import Element, View, attr, child, children, content, flag, says, text, via
from pyvirtd.xml.types import I64, U32, U64, Hex16, HexShort, OnOff, YesNo, pretty_size, scale


class HypervMode(StrEnum):
    CUSTOM = "custom"
    PASSTHROUGH = "passthrough"


class CapabilitiesPolicy(StrEnum):
    DEFAULT = "default"
    ALLOW = "allow"
    DENY = "deny"


class GicVersion(StrEnum):
    HOST = "host"
    V2 = "2"
    V3 = "3"


class IoapicDriver(StrEnum):
    QEMU = "qemu"
    KVM = "kvm"


class AiaMode(StrEnum):
    """The interrupt controllers of a RISC-V board."""

    NONE = "none"
    APLIC = "aplic"
    APLIC_IMSIC = "aplic-imsic"


class HptResizing(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"
    REQUIRED = "required"


class MsrsUnknown(StrEnum):
    IGNORE = "ignore"
    FAULT = "fault"


class Mitigation(StrEnum):
    """Strength of a POWER speculation barrier (cfpc, sbbc)."""

    BROKEN = "broken"
    WORKAROUND = "workaround"
    FIXED = "fixed"


class IbsMitigation(StrEnum):
    BROKEN = "broken"
    WORKAROUND = "workaround"
    FIXED_IBS = "fixed-ibs"
    FIXED_CCD = "fixed-ccd"
    FIXED_NA = "fixed-na"


class XenPassthroughMode(StrEnum):
    SYNC_PT = "sync_pt"
    SHARE_PT = "share_pt"


class Spinlocks(Element, tag="spinlocks"):
    state: OnOff | None = attr(required=True)
    retries: U32 | None = attr(when=says("state", "on"))

    def parsed(self, node: Node, view: View) -> None:
        if self.state and self.retries is None:
            raise XmlError("Missing required attribute 'retries' in element 'spinlocks'", domain=ErrorDomain.XML)
        if not self.state:
            self.retries = None


class Stimer(Element, tag="stimer"):
    """Its features are looked at only when it is on."""

    state: OnOff | None = attr(required=True)
    direct: OnOff | None = via("direct", "state", required=True, when=says("state", "on"))

    def parsed(self, node: Node, view: View) -> None:
        strange = [kid.tag for kid in node if isinstance(kid.tag, str) and kid.tag != "direct"]
        if self.state and strange:
            raise ConfigUnsupported(f"unsupported Hyper-V stimer feature: {strange[0]}", domain=ErrorDomain.DOMAIN)


class VendorId(Element, tag="vendor_id"):
    state: OnOff | None = attr(required=True)
    value: str | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        if not self.state:
            self.value = None
        elif self.value is None:
            raise XmlError("missing 'value' attribute for HyperV feature 'vendor_id'", domain=ErrorDomain.DOMAIN)


class TlbFlush(Element, tag="tlbflush"):
    state: OnOff | None = attr(required=True)
    direct: OnOff | None = via("direct", "state", required=True)
    extended: OnOff | None = via("extended", "state", required=True)

    def parsed(self, node: Node, view: View) -> None:
        if not self.state:
            self.direct = self.extended = None


class Hyperv(Element, tag="hyperv", unfolded=True, strict="unsupported HyperV Enlightenment feature: {}"):
    mode: HypervMode | None = attr()
    relaxed: OnOff | None = via("relaxed", "state", required=True)
    vapic: OnOff | None = via("vapic", "state", required=True)
    spinlocks: Spinlocks | None = child()
    vpindex: OnOff | None = via("vpindex", "state", required=True)
    runtime: OnOff | None = via("runtime", "state", required=True)
    synic: OnOff | None = via("synic", "state", required=True)
    stimer: Stimer | None = child()
    reset: OnOff | None = via("reset", "state", required=True)
    vendor_id: VendorId | None = child()
    frequencies: OnOff | None = via("frequencies", "state", required=True)
    reenlightenment: OnOff | None = via("reenlightenment", "state", required=True)
    tlbflush: TlbFlush | None = child()
    ipi: OnOff | None = via("ipi", "state", required=True)
    evmcs: OnOff | None = via("evmcs", "state", required=True)
    avic: OnOff | None = via("avic", "state", required=True)
    emsr_bitmap: OnOff | None = via("emsr_bitmap", "state", required=True)
    xmm_input: OnOff | None = via("xmm_input", "state", required=True)

    def parsed(self, node: Node, view: View) -> None:
        if self.mode is None:
            self.mode = HypervMode.CUSTOM


class DirtyRing(Element, tag="dirty-ring"):
    state: OnOff | None = attr(required=True)
    size: U32 | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        if self.state and self.size is None:
            raise XmlError("Missing required attribute 'size' in element 'dirty-ring'", domain=ErrorDomain.XML)
        if not self.state:
            self.size = None


class Kvm(Element, tag="kvm", unfolded=True, strict="unsupported KVM feature: {}"):
    hidden: OnOff | None = via("hidden", "state", required=True)
    hint_dedicated: OnOff | None = via("hint-dedicated", "state", required=True)
    poll_control: OnOff | None = via("poll-control", "state", required=True)
    pv_ipi: OnOff | None = via("pv-ipi", "state", required=True)
    dirty_ring: DirtyRing | None = child()


class XenPassthrough(Element, tag="passthrough"):
    state: OnOff | None = attr(required=True)
    mode: XenPassthroughMode | None = attr()


class Xen(Element, tag="xen", unfolded=True, strict="unsupported Xen feature: {}"):
    e820_host: OnOff | None = via("e820_host", "state", required=True)
    passthrough: XenPassthrough | None = child()


class FeatureCapabilities(Element, tag="capabilities", strict="unexpected capability feature '{}'"):
    """Linux capabilities that a container keeps or loses."""

    policy: CapabilitiesPolicy = attr(CapabilitiesPolicy.DEFAULT)
    audit_control: OnOff | None = via("audit_control", "state", bare=True)
    audit_write: OnOff | None = via("audit_write", "state", bare=True)
    block_suspend: OnOff | None = via("block_suspend", "state", bare=True)
    chown: OnOff | None = via("chown", "state", bare=True)
    dac_override: OnOff | None = via("dac_override", "state", bare=True)
    dac_read_search: OnOff | None = via("dac_read_search", "state", bare=True)
    fowner: OnOff | None = via("fowner", "state", bare=True)
    fsetid: OnOff | None = via("fsetid", "state", bare=True)
    ipc_lock: OnOff | None = via("ipc_lock", "state", bare=True)
    ipc_owner: OnOff | None = via("ipc_owner", "state", bare=True)
    kill: OnOff | None = via("kill", "state", bare=True)
    lease: OnOff | None = via("lease", "state", bare=True)
    linux_immutable: OnOff | None = via("linux_immutable", "state", bare=True)
    mac_admin: OnOff | None = via("mac_admin", "state", bare=True)
    mac_override: OnOff | None = via("mac_override", "state", bare=True)
    mknod: OnOff | None = via("mknod", "state", bare=True)
    net_admin: OnOff | None = via("net_admin", "state", bare=True)
    net_bind_service: OnOff | None = via("net_bind_service", "state", bare=True)
    net_broadcast: OnOff | None = via("net_broadcast", "state", bare=True)
    net_raw: OnOff | None = via("net_raw", "state", bare=True)
    setgid: OnOff | None = via("setgid", "state", bare=True)
    setfcap: OnOff | None = via("setfcap", "state", bare=True)
    setpcap: OnOff | None = via("setpcap", "state", bare=True)
    setuid: OnOff | None = via("setuid", "state", bare=True)
    sys_admin: OnOff | None = via("sys_admin", "state", bare=True)
    sys_boot: OnOff | None = via("sys_boot", "state", bare=True)
    sys_chroot: OnOff | None = via("sys_chroot", "state", bare=True)
    sys_module: OnOff | None = via("sys_module", "state", bare=True)
    sys_nice: OnOff | None = via("sys_nice", "state", bare=True)
    sys_pacct: OnOff | None = via("sys_pacct", "state", bare=True)
    sys_ptrace: OnOff | None = via("sys_ptrace", "state", bare=True)
    sys_rawio: OnOff | None = via("sys_rawio", "state", bare=True)
    sys_resource: OnOff | None = via("sys_resource", "state", bare=True)
    sys_time: OnOff | None = via("sys_time", "state", bare=True)
    sys_tty_config: OnOff | None = via("sys_tty_config", "state", bare=True)
    syslog: OnOff | None = via("syslog", "state", bare=True)
    wake_alarm: OnOff | None = via("wake_alarm", "state", bare=True)


class Switch(Element, empty=True):
    """A feature with a state; present without one it is on."""

    state: OnOff | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        if self.state is None:
            self.state = True


class Apic(Element, tag="apic", empty=True):
    eoi: OnOff | None = attr()


class Gic(Element, tag="gic", empty=True):
    version: GicVersion | None = attr()


class Smm(Element, tag="smm", empty=True):
    state: OnOff | None = attr()
    tseg: "Tseg | None" = child()

    def parsed(self, node: Node, view: View) -> None:
        if self.state is None:
            self.state = True
        if not self.state:
            self.tseg = None


class Tseg(Element, tag="tseg"):
    """Size of the SMM segment, printed in the largest unit that fits."""

    unit: str | None = attr()
    size: U64 = content(
        0, bad=wrong("Invalid value '{}' for element or attribute 'string(./features/smm/tseg)'", ErrorDomain.XML)
    )

    def parsed(self, node: Node, view: View) -> None:
        self.size, self.unit = pretty_size(scale(self.size, self.unit or "MiB", "B"))

    @property
    def bytes(self) -> int:
        return scale(self.size, self.unit or "MiB", "B")


class Hpt(Element, tag="hpt"):
    resizing: HptResizing | None = attr()
    maxpagesize_kib: U64 | None = text(name="maxpagesize", unit="KiB", bad="Unable to parse HPT maxpagesize setting")


class Features(Element, tag="features", strict="unexpected feature '{}'"):
    acpi: bool = flag()
    apic: Apic | None = child()
    pae: bool = flag()
    hap: Switch | None = child(name="hap")
    viridian: bool = flag()
    privnet: bool = flag()
    hyperv: Hyperv | None = child()
    kvm: Kvm | None = child()
    pvspinlock: Switch | None = child(name="pvspinlock")
    capabilities: FeatureCapabilities | None = child()
    pmu: Switch | None = child(name="pmu")
    vmport: Switch | None = child(name="vmport")
    gic: Gic | None = child()
    smm: Smm | None = child()
    ioapic: IoapicDriver | None = via("ioapic", "driver")
    hpt: Hpt | None = child()
    vmcoreinfo: Switch | None = child(name="vmcoreinfo")
    htm: OnOff | None = via("htm", "state", required=True)
    nested_hv: OnOff | None = via("nested-hv", "state", required=True)
    msrs: MsrsUnknown | None = via("msrs", "unknown", required=True)
    ccf_assist: OnOff | None = via("ccf-assist", "state", required=True)
    xen: Xen | None = child()
    cfpc: Mitigation | None = via("cfpc", "value")
    sbbc: Mitigation | None = via("sbbc", "value")
    ibs: IbsMitigation | None = via("ibs", "value")
    tcg: "TcgFeatures | None" = child()
    async_teardown: YesNo | None = via("async-teardown", "enabled", bare=True)
    ras: OnOff | None = via("ras", "state", required=True)
    ps2: OnOff | None = via("ps2", "state", required=True)
    aia: AiaMode | None = via("aia", "value", required=True)

    def parsed(self, node: Node, view: View) -> None:
        if self.capabilities == FeatureCapabilities():
            self.capabilities = None


class TcgFeatures(Element, tag="tcg"):
    tb_cache_kib: U64 | None = text(name="tb-cache", unit="KiB")


class ClockOffset(StrEnum):
    UTC = "utc"
    LOCALTIME = "localtime"
    VARIABLE = "variable"
    TIMEZONE = "timezone"
    ABSOLUTE = "absolute"


class ClockBasis(StrEnum):
    UTC = "utc"
    LOCALTIME = "localtime"


class TimerName(StrEnum):
    PLATFORM = "platform"
    PIT = "pit"
    RTC = "rtc"
    HPET = "hpet"
    TSC = "tsc"
    KVMCLOCK = "kvmclock"
    HYPERVCLOCK = "hypervclock"
    ARMVTIMER = "armvtimer"


class TimerTrack(StrEnum):
    BOOT = "boot"
    GUEST = "guest"
    WALL = "wall"
    REALTIME = "realtime"


class TickPolicy(StrEnum):
    DELAY = "delay"
    CATCHUP = "catchup"
    MERGE = "merge"
    DISCARD = "discard"


class TimerMode(StrEnum):
    AUTO = "auto"
    NATIVE = "native"
    EMULATE = "emulate"
    PARAVIRT = "paravirt"
    SMPSAFE = "smpsafe"


class Catchup(Element, tag="catchup"):
    threshold: U64 | None = attr()
    slew: U64 | None = attr()
    limit: U64 | None = attr()


class Timer(Element, tag="timer"):
    name: TimerName = attr(TimerName.RTC, required=True)
    present: YesNo | None = attr()
    tickpolicy: TickPolicy | None = attr()
    track: TimerTrack | None = attr()
    frequency: U64 | None = attr()
    mode: TimerMode | None = attr()
    catchup: Catchup | None = child()


class Clock(Element, tag="clock"):
    """`adjustment` is a number of seconds, or "reset" for a clock that starts at utc or localtime each time."""

    offset: ClockOffset = attr(ClockOffset.UTC, bad="unknown clock offset '{}'")
    adjustment: str | None = attr()
    basis: ClockBasis | None = attr(bad="unknown clock basis '{}'")
    timezone: str | None = attr()
    start: I64 | None = attr(bad=internal("missing 'start' attribute for clock with offset='absolute'"))
    timer: list[Timer] = children()

    def parsed(self, node: Node, view: View) -> None:
        """A clock with an adjustment is a variable one; what does not belong to the offset is dropped."""
        adjustment, offset = self.adjustment, self.offset
        if adjustment is not None and not re.fullmatch(r"reset|[+-]?[0-9]{1,18}", adjustment):
            raise XmlError(f"unknown clock adjustment '{adjustment}'", domain=ErrorDomain.DOMAIN)
        if offset in (ClockOffset.UTC, ClockOffset.LOCALTIME) and adjustment not in (None, "reset"):
            self.offset, self.basis = ClockOffset.VARIABLE, ClockBasis(offset.value)
        if self.offset == ClockOffset.VARIABLE:
            self.adjustment = str(int(adjustment)) if adjustment not in (None, "reset") else "0"
            self.basis = self.basis or ClockBasis.UTC
        else:
            self.basis = None
            if self.offset in (ClockOffset.TIMEZONE, ClockOffset.ABSOLUTE):
                self.adjustment = None
        self._own_attribute(ClockOffset.TIMEZONE, "timezone")
        self._own_attribute(ClockOffset.ABSOLUTE, "start")

    def _own_attribute(self, offset: ClockOffset, name: str) -> None:
        if self.offset != offset:
            setattr(self, name, None)
        elif getattr(self, name) is None:
            raise InternalError(
                f"missing '{name}' attribute for clock with offset='{offset}'", domain=ErrorDomain.DOMAIN
            )


class LifecycleAction(StrEnum):
    DESTROY = "destroy"
    RESTART = "restart"
    RESTART_RENAME = "rename-restart"
    PRESERVE = "preserve"
    COREDUMP_DESTROY = "coredump-destroy"
    COREDUMP_RESTART = "coredump-restart"


class LockfailureAction(StrEnum):
    POWEROFF = "poweroff"
    RESTART = "restart"
    PAUSE = "pause"
    IGNORE = "ignore"


class Pm(Element, tag="pm"):
    suspend_to_mem: YesNo | None = via("suspend-to-mem", "enabled")
    suspend_to_disk: YesNo | None = via("suspend-to-disk", "enabled")


class PerfEventName(StrEnum):
    CMT = "cmt"
    MBMT = "mbmt"
    MBML = "mbml"
    CPU_CYCLES = "cpu_cycles"
    INSTRUCTIONS = "instructions"
    CACHE_REFERENCES = "cache_references"
    CACHE_MISSES = "cache_misses"
    BRANCH_INSTRUCTIONS = "branch_instructions"
    BRANCH_MISSES = "branch_misses"
    BUS_CYCLES = "bus_cycles"
    STALLED_CYCLES_FRONTEND = "stalled_cycles_frontend"
    STALLED_CYCLES_BACKEND = "stalled_cycles_backend"
    REF_CPU_CYCLES = "ref_cpu_cycles"
    CPU_CLOCK = "cpu_clock"
    TASK_CLOCK = "task_clock"
    PAGE_FAULTS = "page_faults"
    CONTEXT_SWITCHES = "context_switches"
    CPU_MIGRATIONS = "cpu_migrations"
    PAGE_FAULTS_MIN = "page_faults_min"
    PAGE_FAULTS_MAJ = "page_faults_maj"
    ALIGNMENT_FAULTS = "alignment_faults"
    EMULATION_FAULTS = "emulation_faults"


class PerfEvent(Element, tag="event"):
    name: PerfEventName = attr(PerfEventName.CMT, required=True)
    enabled: YesNo = attr(False, required=True)


class KeywrapCipherName(StrEnum):
    AES = "aes"
    DEA = "dea"


class KeywrapCipher(Element, tag="cipher"):
    name: KeywrapCipherName = attr(KeywrapCipherName.AES, required=True)
    state: OnOff = attr(False, required=True)


class LaunchSecurity(Element, tag="launchSecurity", by="type"):
    """Base of the kinds of confidential guests."""


class SevSecurity(LaunchSecurity, case="sev"):
    kernel_hashes: YesNo | None = attr(name="kernelHashes")
    cbitpos: U32 | None = text(bad=wrong("Invalid format for launch security cbitpos"))
    reduced_phys_bits: U32 | None = text(
        name="reducedPhysBits", bad=wrong("Invalid format for launch security reduced-phys-bits")
    )
    policy: Hex16 | None = text(bad=wrong("failed to get launch security policy"))
    dh_cert: str | None = text(name="dhCert")
    session: str | None = text()


class SnpSecurity(LaunchSecurity, case="sev-snp"):
    kernel_hashes: YesNo | None = attr(name="kernelHashes")
    author_key: YesNo | None = attr(name="authorKey")
    vcek: YesNo | None = attr()
    cbitpos: U32 | None = text()
    reduced_phys_bits: U32 | None = text(name="reducedPhysBits")
    policy: HexShort | None = text()
    guest_visible_workarounds: str | None = text(name="guestVisibleWorkarounds")
    id_block: str | None = text(name="idBlock")
    id_auth: str | None = text(name="idAuth")
    host_data: str | None = text(name="hostData")


class QuoteGenerationService(Element, tag="quoteGenerationService", empty=True):
    path: str | None = attr()


class TdxSecurity(LaunchSecurity, case="tdx"):
    policy: HexShort | None = text()
    mr_config_id: str | None = text(name="mrConfigId")
    mr_owner: str | None = text(name="mrOwner")
    mr_owner_config: str | None = text(name="mrOwnerConfig")
    quote_generation_service: QuoteGenerationService | None = child(name="quoteGenerationService")


class PvSecurity(LaunchSecurity, case="s390-pv"):
    pass
