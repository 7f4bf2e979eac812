"""The machine itself: name, type, accelerator, firmware features, clock, power management, boot."""

from datetime import UTC, datetime

from pyvirtd.drivers.qemu.command.address import on_off
from pyvirtd.drivers.qemu.command.context import Builder, Props, escape
from pyvirtd.drivers.qemu.command.firmware import firmware_nodes
from pyvirtd.drivers.qemu.command.memory import default_memory_backend
from pyvirtd.model.capabilities import SysInfo
from pyvirtd.model.devices import IommuModel, MemoryModel
from pyvirtd.model.domain import DomainType
from pyvirtd.model.features import (
    ClockBasis,
    ClockOffset,
    Features,
    SevSecurity,
    TickPolicy,
    Timer,
    TimerName,
    TimerTrack,
)
from pyvirtd.model.os import FwcfgSysinfo, SmbiosMode, SmbiosSysinfo, SysinfoBlock


def build_name(build: Builder) -> None:
    """-name"""
    words = f"guest={escape(build.definition.name)}"
    if build.config.set_process_name:
        words += f",process=qemu:{escape(build.definition.name)}"
    build.command.add("-name", f"{words},debug-threads=on")


def build_machine(build: Builder) -> None:
    """-machine"""
    definition, board = build.definition, build.board
    features = definition.features or Features()
    words = [definition.os.type.machine or "none", "usb=off"]
    if features.vmport is not None:
        words.append(f"vmport={on_off(features.vmport.state is not False)}")
    if features.smm is not None:
        words.append(f"smm={on_off(features.smm.state is not False)}")
    if features.ioapic is not None:
        words.append(f"kernel_irqchip={'on' if features.ioapic == 'kvm' else 'split'}")
    words += [f"{cipher.name}-key-wrap={on_off(cipher.state)}" for cipher in definition.keywrap]
    if features.gic is not None and features.gic.version is not None and board.arm_virt and board.arch == "aarch64":
        words.append(f"gic-version={features.gic.version}")
    words += _board_switches(features)
    words += _iommu(build)
    words += _pseries(features)
    core = definition.memory.dump_core
    words.append(f"dump-guest-core={on_off(build.config.dump_guest_core if core is None else core)}")
    backing = definition.memory_backing
    if backing is not None and backing.nosharepages:
        words.append("mem-merge=off")
    if any(device.model is MemoryModel.NVDIMM for device in definition.devices.memory):
        words.append("nvdimm=on")
    if _has_hmat(build):
        words.append("hmat=on")
    if isinstance(definition.launch_security, SevSecurity):
        words.append("confidential-guest-support=lsec0")
    backend = default_memory_backend(build)
    if backend is not None:
        words.append(f"memory-backend={backend}")
    words += [f"pflash{number}={node}" for number, node in enumerate(firmware_nodes(build))]
    if definition.os.bios is not None and definition.os.bios.useserial:
        words.append("graphics=off")  # SeaBIOS and its like then talk to the first serial port
    build.command.add("-machine", ",".join(words))


def _board_switches(features: Features) -> list[str]:
    switches = (("ras", features.ras), ("i8042", features.ps2))
    words = [f"{name}={on_off(value)}" for name, value in switches if value is not None]
    return [*words, f"aia={features.aia}"] if features.aia is not None else words


def _iommu(build: Builder) -> list[str]:
    iommu = build.definition.devices.iommu
    return ["iommu=smmuv3"] if iommu is not None and iommu.model is IommuModel.SMMUV3 else []


def _pseries(features: Features) -> list[str]:
    words = []
    if features.hpt is not None:
        if features.hpt.resizing is not None:
            words.append(f"resize-hpt={features.hpt.resizing}")
        if features.hpt.maxpagesize_kib:
            words.append(f"cap-hpt-max-page-size={features.hpt.maxpagesize_kib}k")
    switches = (
        ("cap-htm", features.htm),
        ("cap-nested-hv", features.nested_hv),
        ("cap-ccf-assist", features.ccf_assist),
    )
    words += [f"{name}={on_off(value)}" for name, value in switches if value is not None]
    mitigations = (("cap-cfpc", features.cfpc), ("cap-sbbc", features.sbbc), ("cap-ibs", features.ibs))
    return words + [f"{name}={value}" for name, value in mitigations if value is not None]


def _has_hmat(build: Builder) -> bool:
    cpu = build.definition.cpu
    if cpu is None or cpu.numa is None:
        return False
    return bool(cpu.numa.interconnects) or any(cell.cache for cell in cpu.numa.cell)


def build_accelerator(build: Builder) -> None:
    """-accel"""
    if build.definition.type is DomainType.KVM:
        features = build.definition.features
        ring = features.kvm.dirty_ring if features and features.kvm else None
        words = f",dirty-ring-size={ring.size}" if ring and ring.state and ring.size else ""
        build.command.add("-accel", f"kvm{words}")
        return
    tcg = build.definition.features.tcg if build.definition.features else None
    size = f",tb-size={tcg.tb_cache_kib // 1024}" if tcg and tcg.tb_cache_kib else ""
    build.command.add("-accel", f"tcg{size}")


def build_tseg(build: Builder) -> None:
    """The size of the memory that system management mode keeps for itself."""
    features = build.definition.features
    if features is not None and features.smm is not None and features.smm.tseg is not None:
        build.command.add("-global", f"mch.extended-tseg-mbytes={features.smm.tseg.bytes >> 20}")


def build_smbios(build: Builder) -> None:
    """-smbios and -fw_cfg"""
    definition = build.definition
    if definition.os.smbios is SmbiosMode.HOST and build.context.sysinfo is not None:
        _host_smbios(build, build.context.sysinfo)
    if definition.os.smbios is SmbiosMode.SYSINFO:
        for info in definition.sysinfo:
            if isinstance(info, SmbiosSysinfo):
                _smbios(build, info)
    for info in definition.sysinfo:
        if isinstance(info, FwcfgSysinfo):
            for entry in info.entry:
                what = f"file={escape(entry.file)}" if entry.file else f"string={escape(entry.value or '')}"
                build.command.add("-fw_cfg", f"name={escape(entry.name or '')},{what}")


_OEM = 11  # the table of strings that the maker may fill
_BIOS = (("vendor", "vendor"), ("version", "version"), ("date", "date"), ("release", "release"))
_SYSTEM = (
    ("manufacturer", "manufacturer"), ("product", "product"), ("version", "version"), ("serial", "serial"),
    ("uuid", "uuid"), ("sku", "sku"), ("family", "family"),
)  # fmt: skip
_BOARD = (
    ("manufacturer", "manufacturer"), ("product", "product"), ("version", "version"), ("serial", "serial"),
    ("asset", "asset"), ("location", "location"),
)  # fmt: skip
_CHASSIS = (
    ("manufacturer", "manufacturer"), ("version", "version"), ("serial", "serial"), ("asset", "asset"), ("sku", "sku"),
)  # fmt: skip


def _smbios(build: Builder, info: SmbiosSysinfo) -> None:
    blocks: list[tuple[int, SysinfoBlock | None, tuple[tuple[str, str], ...]]] = [
        (0, info.bios, _BIOS),
        (1, info.system, _SYSTEM),
        *((2, board, _BOARD) for board in info.base_board),
        (3, info.chassis, _CHASSIS),
    ]
    for number, block, names in blocks:
        if block is not None:
            _add_smbios(build, number, [(option, value) for name, option in names if (value := block.get(name))])
    _add_smbios(build, _OEM, [("value", text) for text in info.oem_strings])


def _host_smbios(build: Builder, info: SysInfo) -> None:
    """What the host's own firmware says, but for its uuid, which must be the guest's own."""
    tables = {"bios": (0, _BIOS), "system": (1, _SYSTEM), "baseBoard": (2, _BOARD), "chassis": (3, _CHASSIS)}
    for name, (number, names) in tables.items():
        for section in (section for section in info.sections if section.name == name):
            values = dict(section.entries)
            options = [(option, values[key]) for key, option in names if values.get(key) and key != "uuid"]
            _add_smbios(build, number, options)
    strings = [
        ("value", text) for section in info.sections if section.name == "oemStrings" for _, text in section.entries
    ]
    _add_smbios(build, _OEM, strings)


def _add_smbios(build: Builder, number: int, options: list[tuple[str, str]]) -> None:
    if options:
        words = [f"{name}={escape(value)}" for name, value in options]
        build.command.add("-smbios", ",".join([f"type={number}", *words]))


def build_display(build: Builder) -> None:
    """Without a window of its own or a remote display, none."""
    if not build.definition.devices.graphics:
        build.command.add("-display", "none")


def build_clock(build: Builder) -> None:
    """-rtc, and the timers whose behaviour is told by globals"""
    clock = build.definition.clock
    timers = {timer.name: timer for timer in clock.timer}
    words = [f"base={_clock_base(build)}"]
    rtc = timers.get(TimerName.RTC)
    if rtc is not None:
        if rtc.track is TimerTrack.GUEST:
            words.append("clock=vm")
        elif rtc.track is TimerTrack.WALL:
            words.append("clock=host")
        elif rtc.track is TimerTrack.REALTIME:
            words.append("clock=rt")
        if rtc.tickpolicy is TickPolicy.CATCHUP:
            words.append("driftfix=slew")
    build.command.add("-rtc", ",".join(words))
    _pit(build, timers.get(TimerName.PIT))
    hpet = timers.get(TimerName.HPET)
    if hpet is not None and hpet.present is False and build.board.x86:
        build.command.add("-no-hpet")


def _pit(build: Builder, timer: Timer | None) -> None:
    if timer is None:
        return
    if timer.tickpolicy is TickPolicy.DELAY and build.caps.has_device("kvm-pit"):
        build.command.add("-global", "kvm-pit.lost_tick_policy=delay")
    elif timer.tickpolicy is TickPolicy.DISCARD and build.caps.has_device("kvm-pit"):
        build.command.add("-global", "kvm-pit.lost_tick_policy=discard")


def _clock_base(build: Builder) -> str:
    clock = build.definition.clock
    if clock.offset is ClockOffset.LOCALTIME or clock.offset is ClockOffset.TIMEZONE:
        return "localtime"
    if clock.offset is ClockOffset.ABSOLUTE:
        return datetime.fromtimestamp(clock.start or 0, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if clock.offset is ClockOffset.VARIABLE:
        local = clock.basis is ClockBasis.LOCALTIME
        now = datetime.now().astimezone() if local else datetime.now(UTC)
        adjustment = int(clock.adjustment) if clock.adjustment and clock.adjustment != "reset" else 0
        return datetime.fromtimestamp(now.timestamp() + adjustment, now.tzinfo).strftime("%Y-%m-%dT%H:%M:%S")
    return "utc"


def build_power(build: Builder) -> None:
    """What a reset or a power-off by the guest does, and whether it may sleep."""
    definition, command = build.definition, build.command
    if definition.features is not None and definition.features.async_teardown:
        command.add("-async-teardown")
    command.add("-no-shutdown")  # what a reset or a power-off leads to is told with set-action once QEMU runs
    with_acpi = build.board.x86 or build.board.arch == "aarch64"
    if with_acpi and not (definition.features and definition.features.acpi):
        command.add("-no-acpi")
    _sleep(build)


def _sleep(build: Builder) -> None:
    pm = build.definition.pm
    if pm is None:
        return
    device = "ICH9-LPC" if build.board.q35 else "PIIX4_PM"
    for name, value in (("disable_s3", pm.suspend_to_mem), ("disable_s4", pm.suspend_to_disk)):
        if value is not None:
            build.command.add("-global", f"{device}.{name}={0 if value else 1}")


def build_boot(build: Builder) -> None:
    """-boot, and the kernel that is started without the guest's boot loader"""
    os, words = build.definition.os, []
    if os.bootmenu is not None and os.bootmenu.enable is not None:
        words.append(f"menu={on_off(os.bootmenu.enable)}")
        if os.bootmenu.enable and os.bootmenu.timeout is not None:
            words.append(f"splash-time={os.bootmenu.timeout}")
    if os.bios is not None and os.bios.reboot_timeout is not None:
        words.append(f"reboot-timeout={os.bios.reboot_timeout}")
    build.command.add("-boot", ",".join([*words, "strict=on"]))
    for option, value in (
        ("-kernel", os.kernel),
        ("-initrd", os.initrd),
        ("-append", os.cmdline),
        ("-dtb", os.dtb),
    ):
        if value:
            build.command.add(option, value)
    for table in os.acpi:
        build.command.add("-acpitable", f"sig=SLIC,file={escape(table.path or '')}")


def build_genid(build: Builder) -> None:
    """The device that tells the guest it was cloned."""
    if build.definition.genid is not None:
        build.device(Props(driver="vmgenid", guid=build.definition.genid, id="vmgenid0"))


def build_vmcoreinfo(build: Builder) -> None:
    """The device through which a guest's kernel tells where its crash notes are."""
    features = build.definition.features
    if features is not None and features.vmcoreinfo is not None and features.vmcoreinfo.state is not False:
        build.command.add("-device", Props(driver="vmcoreinfo").text())
