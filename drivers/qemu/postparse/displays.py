"""Defaults of graphics, video cards and input devices."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.address import DeviceInfo
from pyvirtd.model.graphics import (
    AnyGraphics,
    Input,
    InputBus,
    InputType,
    Video,
    VideoModel,
    VideoModelType,
    VncGraphics,
)

DOMAIN = ErrorDomain.DOMAIN
QXL_RAM_KIB, QXL_VRAM_KIB, QXL_VGAMEM_KIB = 65536, 65536, 16384
U32_MAX = (1 << 32) - 1
_VRAM_KIB = {
    VideoModelType.VGA: 16384,
    VideoModelType.CIRRUS: 16384,
    VideoModelType.VMVGA: 16384,
    VideoModelType.BOCHS: 16384,
}


def complete_graphics(graphics: AnyGraphics) -> None:
    """Port -1 stands for one that is chosen at start."""
    if isinstance(graphics, VncGraphics) and graphics.autoport:
        graphics.port = -1


def add_default_video(scope: Scope) -> None:
    """Something to show where somebody looks."""
    devices = scope.devices
    if devices.graphics and not devices.video:
        devices.video.append(Video(model=VideoModel()))


def complete_videos(scope: Scope) -> None:
    """Models and memory, and one primary card at the head of the list."""
    videos = scope.devices.video
    for video in videos:
        complete_video(scope, video)
    primary = [video for video in videos if video.model and video.model.primary]
    if len(primary) > 1:
        raise ConfigUnsupported("Only one primary video device is supported", domain=DOMAIN)
    if not videos:
        return
    first = primary[0] if primary else videos[0]
    scope.devices.video = [first, *(video for video in videos if video is not first)]
    if first.model is not None and first.model.type is not VideoModelType.NONE:
        first.model.primary = True
    for video in scope.devices.video[1:]:
        if video.model is not None:
            video.model.primary = False


def complete_video(scope: Scope, video: Video) -> None:
    """The model, its memory sizes and screens."""
    model = video.model = video.model or VideoModel()
    if model.type is None:
        model.type = default_video_model(scope)
    if video.driver is not None:
        video.driver.vgaconf = None
    if model.type is VideoModelType.NONE:
        video.model, video.driver, video.info = VideoModel(type=model.type), None, DeviceInfo()
        return
    if model.vram:
        model.vram = power_of_two(model.vram) or None
    if model.type is VideoModelType.QXL:
        model.ram = power_of_two(model.ram or QXL_RAM_KIB) or QXL_RAM_KIB
        model.vram = model.vram or QXL_VRAM_KIB
        model.vgamem = model.vgamem or QXL_VGAMEM_KIB
        model.vram64 = (power_of_two(model.vram64) or model.vram64) if model.vram64 else None
    elif model.type in _VRAM_KIB:
        model.vram = model.vram or _VRAM_KIB[model.type]
    if model.heads is None:
        model.heads = 1


def power_of_two(kib: int) -> int:
    """The next power of two, which a PCI BAR must have; 0 where that does not fit 32 bits, as libvirt counts."""
    rounded = 1 << (kib - 1).bit_length()
    return rounded if rounded <= U32_MAX else 0


def default_video_model(scope: Scope) -> VideoModelType:
    """The card that most guests of the board have a driver for."""
    board, caps = scope.board, scope.caps
    if board.ppc64:
        return VideoModelType.VGA
    if board.arm_virt or board.riscv_virt or board.s390:
        return VideoModelType.VIRTIO
    for model, device in ((VideoModelType.CIRRUS, "cirrus-vga"), (VideoModelType.VGA, "VGA")):
        if caps.has_device(device):
            return model
    return VideoModelType.VGA


def complete_input(scope: Scope, device: Input) -> None:
    """The bus that the kind of device usually has."""
    if device.bus is not None:
        return
    if device.type is InputType.EVDEV:
        device.bus = InputBus.NONE
    elif device.type is InputType.PASSTHROUGH:
        device.bus = InputBus.VIRTIO
    elif device.type in (InputType.MOUSE, InputType.KEYBOARD) and scope.board.x86:
        device.bus = InputBus.PS2
    elif scope.board.s390:
        device.bus = InputBus.VIRTIO
    else:
        device.bus = InputBus.USB
