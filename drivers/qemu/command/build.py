"""The whole command line, part by part in QEMU's order of creation."""

import re

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.addresses import assign_addresses
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.command import (
    block,
    chardev,
    controllers,
    devices,
    disks,
    displays,
    firmware,
    host_checks,
    hostdev,
    machine,
    memory,
    net,
    peripherals,
    processor,
    throttle,
)
from pyvirtd.drivers.qemu.command.boot import BootOrder
from pyvirtd.drivers.qemu.command.context import (
    STANDALONE_ID,
    Builder,
    Command,
    Context,
    Json,
    Props,
    qemu_environment,
)
from pyvirtd.drivers.qemu.command.firmware_select import select_firmware
from pyvirtd.drivers.qemu.command.host_facts import HostFacts
from pyvirtd.drivers.qemu.postparse import Scope, assign_aliases
from pyvirtd.drivers.qemu.postparse.board import Board
from pyvirtd.model.address import PciAddress, ZpciAddress
from pyvirtd.model.capabilities import SysInfo
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import SpiceChannelMode, SpiceGraphics, VncGraphics
from pyvirtd.model.hostdev import Hostdev, HostdevType
from pyvirtd.model.namespaces import PropertyType, QemuProperty
from pyvirtd.model.net import InterfaceType
from pyvirtd.paths import QemuPaths

SHOWN_VNC_PORT, SHOWN_SPICE_PORT = 5900, 5901


def build(live: DomainDef, context: Context) -> Command:
    """argv of a guest whose definition is complete and has aliases. Fills in sockets and block node numbers that the
    live definition shows. Raises ConfigUnsupported for what cannot be said to this QEMU.
    """
    if live.os.firmware_type is not None:
        select_firmware(live, context.host.firmware, context.paths)
    command = Command(argv=[live.devices.emulator or ""])
    command.environment = qemu_environment(context.directory, privileged=context.privileged)
    builder = Builder(live, context, command, Board.of(live), _overrides(live), _zpci(live))
    host_checks.check_host(builder)
    memory.align_memory(builder)
    block.number_nodes(live)
    chardev.complete_channel_paths(live, context.paths.channel_dir(context.domain_id, context.name))
    order = BootOrder(live)
    _build_machine(builder)
    _build_monitor(builder)
    machine.build_clock(builder)
    machine.build_power(builder)
    machine.build_boot(builder)
    _build_devices(builder, order)
    _build_rest(builder)
    return command


def _build_machine(builder: Builder) -> None:
    command, context = builder.command, builder.context
    machine.build_name(builder)
    command.add("-S")
    key = str(context.paths.master_key(context.domain_id, context.name))
    builder.object(Props({"qom-type": "secret", "id": "masterKey0", "format": "raw", "file": key}))
    firmware.build_firmware_nodes(builder)
    machine.build_machine(builder)
    machine.build_accelerator(builder)
    machine.build_tseg(builder)
    processor.build_cpu(builder)
    firmware.build_firmware(builder)
    memory.build_memory(builder)
    backing = builder.definition.memory_backing
    command.add("-overcommit", f"mem-lock={'on' if backing and backing.locked else 'off'}")
    processor.build_smp(builder)
    processor.build_iothreads(builder)
    throttle.build_throttle_groups(builder)
    memory.build_numa(builder)
    command.add("-uuid", builder.definition.uuid or "")
    machine.build_smbios(builder)
    machine.build_display(builder)
    command.add("-no-user-config", "-nodefaults")


def _build_monitor(builder: Builder) -> None:
    context = builder.context
    if context.monitor_fd is not None:
        where = f"fd={context.monitor_fd}"
    else:
        where = f"path={context.paths.monitor_socket(context.domain_id, context.name)}"
    builder.command.add("-chardev", f"socket,id=charmonitor,{where},server=on,wait=off")
    builder.command.add("-mon", "chardev=charmonitor,id=monitor,mode=control")


def _build_devices(builder: Builder, order: BootOrder) -> None:
    devices.build_iommu(builder)
    controllers.build_pci_hole(builder)
    controllers.build_controllers(builder, order)
    controllers.build_hubs(builder)
    memory.build_memory_devices(builder)
    disks.build_disks(builder, order)
    devices.build_filesystems(builder)
    net.build_interfaces(builder, order)
    chardev.build_smartcards(builder)
    chardev.build_chardevs(builder)
    devices.build_tpms(builder)
    displays.build_inputs(builder)
    displays.build_audio(builder)
    displays.build_graphics(builder)
    displays.build_videos(builder)
    displays.build_sounds(builder)
    devices.build_watchdogs(builder)
    chardev.build_redirdevs(builder)
    hostdev.build_hostdevs(builder, order)
    if builder.context.incoming:
        builder.command.add("-incoming", "defer")
    devices.build_memballoon(builder)
    devices.build_rngs(builder)
    devices.build_nvram(builder)
    machine.build_vmcoreinfo(builder)
    machine.build_genid(builder)
    devices.build_panics(builder)
    devices.build_shmems(builder)
    devices.build_vsock(builder)
    peripherals.build_cryptos(builder)
    peripherals.build_pstore(builder)


def _build_rest(builder: Builder) -> None:
    """What the definition says to QEMU directly, the sandbox, and time stamps in the log."""
    command, extra = builder.command, builder.definition.qemu_commandline
    if extra is not None:
        command.add(*(argument.value or "" for argument in extra.arg))
        for variable in extra.env:
            if variable.name:
                command.environment[variable.name] = variable.value or ""
    deprecation = builder.definition.qemu_deprecation
    behavior = (
        str(deprecation.behavior) if deprecation and deprecation.behavior else builder.config.deprecation_behavior
    )
    _deprecation(command, behavior)
    if builder.config.seccomp_sandbox:
        command.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
    if builder.config.log_timestamp:
        command.add("-msg", "timestamp=on")


def _deprecation(command: Command, behavior: str) -> None:
    words = {
        "omit": "deprecated-input=accept,deprecated-output=hide",
        "reject": "deprecated-input=reject,deprecated-output=hide",
        "crash": "deprecated-input=crash,deprecated-output=hide",
    }
    if behavior in words:
        command.add("-compat", words[behavior])


def _overrides(live: DomainDef) -> dict[str, dict[str, Json]]:
    """Properties of devices that the definition sets by hand, by alias; None removes one."""
    if live.qemu_override is None:
        return {}
    return {
        device.alias or "": {prop.name or "": _override(prop) for prop in device.frontend}
        for device in live.qemu_override.device
    }


def _zpci(live: DomainDef) -> dict[str, ZpciAddress]:
    """The s390 part of PCI addresses; mediated devices have it within."""
    found = {}
    for device in live.devices.all():
        address, mediated = device.info.address, isinstance(device, Hostdev) and device.type is HostdevType.MDEV
        if isinstance(address, PciAddress) and address.zpci is not None and not mediated:
            found[device.info.alias or ""] = address.zpci
    return found


def _override(prop: QemuProperty) -> Json:
    value = prop.value or ""
    match prop.type:
        case PropertyType.BOOL:
            return value == "true"
        case PropertyType.SIGNED | PropertyType.UNSIGNED if re.fullmatch(r"-?[0-9]+", value):
            return int(value)
        case PropertyType.REMOVE:
            return None
        case _:
            return value


def standalone(
    definition: DomainDef,
    caps: QemuCapabilities,
    config: QemuConfig,
    paths: QemuPaths,
    *,
    privileged: bool = True,
    host_arch: str = "x86_64",
    sysinfo: SysInfo | None = None,
) -> Command:
    """The command line of a definition as virConnectDomainXMLToNative shows it: complete, with nothing of the host
    opened, interfaces as if somebody else had made their tap devices. Looks at the host, and blocks."""
    context = Context(
        caps,
        paths,
        config,
        privileged,
        STANDALONE_ID,
        definition.name,
        standalone=True,
        host_arch=host_arch,
        sysinfo=sysinfo,
    )
    devices = definition.devices
    assigned = [hostdev.of_interface(one) for one in devices.interface if one.type is InterfaceType.HOSTDEV]
    devices.hostdev = [*assigned, *devices.hostdev]
    devices.interface = [net.as_ethernet(interface) for interface in devices.interface]
    assign_addresses(Scope(definition, caps, config, privileged, host_arch, new=False))
    _shown_ports(definition)
    assign_aliases(definition)
    context.host = HostFacts.look_up(definition, config)
    return build(definition, context)


def _shown_ports(definition: DomainDef) -> None:
    for graphics in definition.devices.graphics:
        if isinstance(graphics, VncGraphics) and graphics.autoport:
            graphics.port = SHOWN_VNC_PORT
        elif isinstance(graphics, SpiceGraphics):
            secure = SpiceChannelMode.SECURE
            wants_tls = graphics.default_mode is secure or any(channel.mode is secure for channel in graphics.channel)
            if graphics.autoport or graphics.port == -1:
                graphics.port = SHOWN_SPICE_PORT
            if (graphics.autoport and wants_tls) or graphics.tls_port == -1:
                graphics.tls_port = SHOWN_SPICE_PORT + 1
