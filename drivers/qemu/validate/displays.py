"""Rules of what the user sees and touches: graphics, video cards, input devices."""

from pyvirtd.drivers.qemu.postparse.refuse import internal, qemu_unsupported, qemu_xml, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.drivers.qemu.postparse.virtio import check_virtio_options
from pyvirtd.model.address import UsbAddress
from pyvirtd.model.graphics import (
    Connected,
    DbusGraphics,
    DesktopGraphics,
    EglHeadlessGraphics,
    Input,
    InputBus,
    InputType,
    RdpGraphics,
    SpiceGraphics,
    Video,
    VideoBackend,
    VideoDriver,
    VideoModel,
    VideoModelType,
    VncGraphics,
)
from pyvirtd.model.sound import AudioType
from pyvirtd.model.words import VirtioModel

VNC_PASSWORD_MAX = 8
_WITH_HEADLESS = (EglHeadlessGraphics, VncGraphics, SpiceGraphics)
VRAM_MIN_KIB = 1024
# QEMU's device for each model, primary or not.
_DEVICES: dict[VideoModelType, tuple[str, ...]] = {
    VideoModelType.VGA: ("VGA",),
    VideoModelType.CIRRUS: ("cirrus-vga",),
    VideoModelType.VMVGA: ("vmware-svga",),
    VideoModelType.QXL: ("qxl",),
    VideoModelType.VIRTIO: ("virtio-gpu-pci", "virtio-gpu-ccw", "virtio-gpu-device"),
    VideoModelType.BOCHS: ("bochs-display",),
    VideoModelType.RAMFB: ("ramfb",),
}
_SEVERAL_HEADS = (VideoModelType.QXL, VideoModelType.VIRTIO)
_SECONDARY = (VideoModelType.QXL, VideoModelType.VIRTIO)
_RESOLUTION = (VideoModelType.VGA, VideoModelType.QXL, VideoModelType.VIRTIO, VideoModelType.BOCHS)
_MEBIBYTES = (VideoModelType.VGA, VideoModelType.VMVGA)


def check_graphics(scope: Scope) -> None:
    """Every way to see the guest."""
    audios = {audio.id: audio.type for audio in scope.devices.audio}
    for graphics in scope.devices.graphics:
        match graphics:
            case VncGraphics():
                _check_vnc(graphics)
            case SpiceGraphics():
                _check_spice(scope, graphics)
            case DbusGraphics():
                if graphics.p2p and graphics.address:
                    raise xml("D-Bus p2p with an address is not supported")
            case RdpGraphics() | DesktopGraphics():
                raise qemu_unsupported(f"{graphics.case[0]} graphics are not supported with this QEMU")
            case _:
                pass
        if isinstance(graphics, EglHeadlessGraphics):
            others = [g for g in scope.devices.graphics if not isinstance(g, _WITH_HEADLESS)]
            if others:
                raise qemu_unsupported(
                    "graphics type 'egl-headless' is only supported with one of: 'vnc', 'spice' graphics types"
                )
        audio = getattr(graphics, "audio", None)
        if audio is None or not isinstance(graphics, VncGraphics | DbusGraphics):
            continue
        if audio not in audios:
            raise xml(f"no audio device with ID {audio}")
        if isinstance(graphics, DbusGraphics) and audios[audio] is not AudioType.DBUS:
            raise qemu_unsupported("The associated audio is not of 'dbus' kind.")


def _check_vnc(graphics: VncGraphics) -> None:
    password = graphics.password
    if password.passwd is not None and len(password.passwd) > VNC_PASSWORD_MAX:
        raise qemu_unsupported(
            f"VNC password is {len(password.passwd)} characters long, only {VNC_PASSWORD_MAX} permitted"
        )
    if password.connected is not None and password.connected is not Connected.KEEP:
        raise unsupported("VNC supports connected='keep' only")


def _check_spice(scope: Scope, graphics: SpiceGraphics) -> None:
    if graphics.tls_port is not None and graphics.tls_port > 0 and not scope.config.spice_tls:
        raise qemu_unsupported("spice TLS port set in XML configuration, but TLS is disabled in qemu.conf")
    if not scope.caps.has_option("spice"):
        raise qemu_unsupported("spice graphics are not supported with this QEMU")


def check_videos(scope: Scope) -> None:
    """Every card."""
    videos = scope.devices.video
    if len(videos) > 1 and any(video.model and video.model.type is VideoModelType.NONE for video in videos):
        raise unsupported("a 'none' video type must be the only video device defined for the domain")
    for number, video in enumerate(videos):
        model = video.model or VideoModel()
        if model.type is not VideoModelType.NONE:
            _check_parts(video, model)
        if model.type is None or model.type is VideoModelType.NONE:
            continue
        _check_support(scope, video, model)
        if number and model.type not in _SECONDARY:
            raise qemu_unsupported(f"video type '{model.type}' is only valid as primary video device")


def _check_parts(video: Video, model: VideoModel) -> None:
    driver, kind = video.driver or VideoDriver(), model.type
    vhost = driver.name is VideoBackend.VHOSTUSER
    if vhost and kind is not VideoModelType.VIRTIO:
        raise unsupported("'vhostuser' driver is only supported with 'virtio' device")
    if kind is not VideoModelType.VIRTIO:
        check_virtio_options(driver.virtio)
    acceleration = model.acceleration
    if acceleration is not None and acceleration.rendernode is not None and not vhost:
        raise unsupported("unsupported rendernode accel attribute without 'vhostuser'")
    if model.resolution is not None and not (model.resolution.x and model.resolution.y):
        raise unsupported("video resolution values must be greater than 0")
    if kind is VideoModelType.RAMFB and video.info.address is not None:
        raise unsupported("address not supported for video type ramfb")


def _check_support(scope: Scope, video: Video, model: VideoModel) -> None:
    kind, caps = model.type, scope.caps
    vhost = video.driver is not None and video.driver.name is VideoBackend.VHOSTUSER
    names = _DEVICES.get(kind, ()) if kind is not None else ()
    if vhost:
        names = ("vhost-user-gpu", "vhost-user-vga")
    if not any(caps.has_device(name) for name in names):
        raise qemu_unsupported(f"domain configuration does not support video model '{kind}'")
    if kind not in _SEVERAL_HEADS and (model.heads or 1) > 1:
        raise qemu_unsupported(f"video type '{kind}' doesn't support multiple 'heads'")
    if kind is VideoModelType.QXL:
        _check_qxl(model)
    if kind in _MEBIBYTES and model.vram is not None and model.vram < VRAM_MIN_KIB:
        raise qemu_unsupported(f"value for 'vram' must be at least 1 MiB ({VRAM_MIN_KIB} KiB)")
    acceleration = model.acceleration
    if acceleration is not None:
        if acceleration.accel2d:
            raise qemu_unsupported("qemu does not support the accel2d setting")
        if acceleration.accel3d and kind is not VideoModelType.VIRTIO:
            raise qemu_unsupported("3d acceleration is supported only with 'virtio' video device")
    if model.resolution is not None and kind not in _RESOLUTION:
        raise qemu_xml("model resolution is not supported")


def _check_qxl(model: VideoModel) -> None:
    if model.vgamem is not None and model.vgamem < VRAM_MIN_KIB:
        raise qemu_unsupported(f"value for 'vgamem' must be at least 1 MiB ({VRAM_MIN_KIB} KiB)")
    if model.vgamem is not None and model.vgamem & (model.vgamem - 1):
        raise qemu_unsupported("value for 'vgamem' must be power of two")


# Input


def check_inputs(scope: Scope) -> None:
    """Every mouse, tablet and keyboard."""
    for device in scope.devices.input:
        _check_bus(scope, device)
        if device.type is InputType.PASSTHROUGH and device.bus is not InputBus.VIRTIO:
            raise unsupported(f"only bus 'virtio' is supported for '{device.type}' input devices")
        if device.type is InputType.EVDEV and device.bus is not InputBus.NONE:
            raise unsupported(f"input {device.type} doesn't support bus element")
        if device.bus is not InputBus.VIRTIO:
            if device.model is not None:
                raise unsupported(f"only bus 'virtio' is supported for input model '{device.model}'")
        elif device.model in (VirtioModel.TRANSITIONAL, VirtioModel.NON_TRANSITIONAL):
            raise qemu_unsupported(f"virtio (non-)transitional models are not supported for input type={device.type}")


def _check_bus(scope: Scope, device: Input) -> None:
    kind, bus = device.type, device.bus
    if bus is InputBus.PS2:
        if kind not in (InputType.MOUSE, InputType.KEYBOARD):
            raise internal(f"ps2 bus does not support {kind} input device")
        if not scope.caps.has_device("i8042"):
            raise qemu_unsupported("ps2 is not supported by this QEMU binary")
    elif bus is InputBus.XEN:
        raise internal(f"unsupported input bus {bus}")
    if bus is InputBus.USB and device.info.address is not None and not isinstance(device.info.address, UsbAddress):
        raise xml("Invalid address for a USB device")
