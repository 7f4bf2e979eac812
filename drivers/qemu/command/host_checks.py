"""What a definition may say although this QEMU or this host cannot do it: refused only when the guest starts."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.backends import check_host_nodes
from pyvirtd.drivers.qemu.command.context import Builder
from pyvirtd.drivers.qemu.helpers.vhost_user import find_vhost_user
from pyvirtd.errors import ConfigUnsupported, InternalError, NoNetwork, VirtError, XmlError
from pyvirtd.model.chardev import (
    Channel,
    CharBackend,
    ChardevType,
    EgdBackend,
    SerialTargetType,
    SmartcardMode,
    XenTarget,
)
from pyvirtd.model.cpu import CpuMatch, CpuMode, Placement
from pyvirtd.model.devices import Shmem, ShmemModel
from pyvirtd.model.disk import DiskBus
from pyvirtd.model.domain import DomainType
from pyvirtd.model.graphics import (
    AddressListen,
    DbusGraphics,
    EglHeadlessGraphics,
    Graphics,
    NetworkListen,
    RdpGraphics,
    SdlGraphics,
    SpiceGraphics,
    VideoBackend,
    VncGraphics,
)
from pyvirtd.model.os import SmbiosMode, SmbiosSysinfo

VNC_PORTS = (5900, 65535)
_ONE_OF_EACH = (SdlGraphics, VncGraphics, SpiceGraphics, EglHeadlessGraphics, DbusGraphics)
_NOT_IN_QEMU = frozenset({"host", "max", "base"})  # names that are no models of a processor


def check_host(build: Builder) -> None:
    """Raises the first thing that cannot be."""
    _check_cpu(build)
    _check_placement(build)
    _check_smbios(build)
    _check_disks(build)
    _check_chardevs(build)
    _check_graphics(build)
    for video in build.definition.devices.video:
        if video.driver is not None and video.driver.name is VideoBackend.VHOSTUSER and build.context.standalone:
            find_vhost_user("gpu", "vhost-user-gpu")
    for shmem in build.definition.devices.shmem:
        _check_shmem(shmem)


def _unsupported(text: str) -> VirtError:
    return ConfigUnsupported(text, domain=ErrorDomain.QEMU)


def _internal(text: str) -> VirtError:
    return InternalError(text, domain=ErrorDomain.QEMU)


def _check_cpu(build: Builder) -> None:
    definition, cpu, arch = build.definition, build.definition.cpu, build.board.arch
    if cpu is None:
        return
    emulated = definition.type is not DomainType.KVM
    foreign = cpu.mode is CpuMode.HOST_MODEL and emulated and not build.board.x86
    if foreign or (cpu.mode is CpuMode.HOST_PASSTHROUGH and emulated):
        raise _unsupported(
            f"CPU mode '{cpu.mode}' for {arch} {definition.type} domain on {build.context.host_arch} host is not "
            "supported by hypervisor"
        )
    name = cpu.model.name if cpu.model is not None and cpu.mode is CpuMode.CUSTOM else None
    if cpu.match is CpuMatch.MINIMUM:
        return
    if name is not None and build.board.x86:
        known = {model.name for model in build.caps.cpu_models(definition.type)} - _NOT_IN_QEMU
        if known and name not in known:
            raise InternalError(f"Unknown CPU model {name}", domain=ErrorDomain.CPU)


def _check_placement(build: Builder) -> None:
    definition = build.definition
    numa = definition.numatune
    tune = numa.memory if numa is not None else None
    if tune is not None and tune.placement is Placement.AUTO and tune.nodeset is None:
        raise _internal("Advice from numad is needed in case of automatic numa placement")
    if numa is not None:
        bound = [*(node.nodeset for node in numa.memnode), tune.nodeset if tune is not None else None]
        check_host_nodes(build, {node for nodes in bound for node in nodes or ()})


def _check_smbios(build: Builder) -> None:
    definition = build.definition
    blocks = [info for info in definition.sysinfo if isinstance(info, SmbiosSysinfo)]
    boards = 0
    if definition.os.smbios is SmbiosMode.HOST:
        if build.context.sysinfo is None:
            raise _unsupported("Host SMBIOS information is not available")
        boards = sum(section.name == "baseBoard" for section in build.context.sysinfo.sections)
    if definition.os.smbios is SmbiosMode.SYSINFO:
        if not blocks:
            raise XmlError(f"Domain '{definition.name}' sysinfo are not available", domain=ErrorDomain.QEMU)
        boards = max(len(block.base_board) for block in blocks)
    if boards > 1:
        raise _unsupported("qemu does not support more than one entry to Type 2 in SMBIOS table")


def _check_disks(build: Builder) -> None:
    for disk in build.definition.devices.disk:
        bus = disk.target.bus
        if bus in (DiskBus.XEN, DiskBus.UML):
            raise _internal(f"unsupported disk bus '{bus}' with device setup")
        if bus is DiskBus.FDC and build.board.pseries:
            raise _unsupported("PowerPC pseries machines do not support floppy device")


def _check_chardevs(build: Builder) -> None:
    devices = build.definition.devices
    backends: list[CharBackend] = [*devices.serial, *devices.parallel, *devices.console, *devices.channel]
    backends += devices.redirdev
    backends += [card for card in devices.smartcard if card.mode is SmartcardMode.PASSTHROUGH]
    backends += [rng.backend for rng in devices.rng if isinstance(rng.backend, EgdBackend)]
    for backend in backends:
        if backend.type is ChardevType.NMDM:
            raise _unsupported(f"unsupported chardev '{backend.type}'")
        if isinstance(backend, Channel) and isinstance(backend.target, XenTarget):
            raise _unsupported("channels of target type 'xen' are not supported by QEMU")
    for serial in devices.serial:
        target = serial.target
        if target is not None and target.type is SerialTargetType.SYSTEM and target.model is None:
            raise _internal("Invalid target model for serial device")


def _check_graphics(build: Builder) -> None:
    graphics = build.definition.devices.graphics
    for kind in _ONE_OF_EACH:
        if sum(isinstance(one, kind) for one in graphics) > 1:
            raise _unsupported("only 1 graphics device of each type (sdl, vnc, spice, headless, dbus) is supported")
    for one in graphics:
        if isinstance(one, VncGraphics | SpiceGraphics | RdpGraphics):
            _check_listens(build, one)
        if isinstance(one, VncGraphics) and isinstance(one.listen[0] if one.listen else None, AddressListen):
            if not VNC_PORTS[0] <= (one.port or 0) <= VNC_PORTS[1]:
                raise _unsupported(f"vnc port must be in range [{VNC_PORTS[0]},{VNC_PORTS[1]}]")


def _check_listens(build: Builder, graphics: Graphics) -> None:
    listens = getattr(graphics, "listen", [])
    if len(listens) > 1:
        raise _unsupported("QEMU does not support multiple listens for one graphics device.")
    for listen in listens:
        if isinstance(listen, NetworkListen) and listen.address is None and not build.context.standalone:
            raise NoNetwork(f"no network with matching name '{listen.network}'", domain=ErrorDomain.NETWORK)


def _check_shmem(shmem: Shmem) -> None:
    size = shmem.size_mib
    if shmem.model is not ShmemModel.IVSHMEM_PLAIN or size is None:
        return
    if size < 1:
        raise XmlError("shmem size must be at least 1 MiB (1024 KiB)", domain=ErrorDomain.QEMU)
    if size & (size - 1):
        raise XmlError("shmem size must be a power of two", domain=ErrorDomain.QEMU)
