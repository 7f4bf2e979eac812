"""Defaults of the remaining devices, and the order in which all of them are completed."""

from pyvirtd.drivers.qemu.postparse import chardevs, displays, nets
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.chardev import RandomBackend, Rng
from pyvirtd.model.devices import (
    AccessMode,
    Filesystem,
    FilesystemType,
    MemballoonModel,
    Panic,
    PanicModel,
    Shmem,
    ShmemModel,
    ShmemMsi,
    Vsock,
    VsockCid,
)
from pyvirtd.model.sound import Audio, AudioType, SoundModel
from pyvirtd.model.words import VirtioModel

RANDOM_DEVICE = "/dev/random"
SHMEM_SIZE_MIB = 4


def complete_devices(scope: Scope) -> None:
    """Everything but disks, controllers and character devices."""
    devices = scope.devices
    for net in devices.interface:
        nets.complete_interface(scope, net)
    for graphics in devices.graphics:
        displays.complete_graphics(graphics)
    displays.add_default_video(scope)
    displays.complete_videos(scope)
    for sound in devices.sound:
        if sound.model not in _WITH_CODECS:
            sound.codec = []
    for audio in devices.audio:
        complete_audio(audio)
    for hostdev in devices.hostdev:
        nets.complete_hostdev(scope, hostdev)
    for filesystem in devices.filesystem:
        complete_filesystem(filesystem)
    for rng in devices.rng:
        complete_rng(rng)
    for tpm in devices.tpm:
        chardevs.complete_tpm(scope, tpm)
    for panic in devices.panic:
        complete_panic(scope, panic)
    for shmem in devices.shmem:
        complete_shmem(shmem)
    if devices.memballoon is not None and devices.memballoon.model is MemballoonModel.NONE:
        devices.memballoon.info.address = None
    if devices.vsock is not None:
        complete_vsock(devices.vsock)


_WITH_CODECS = (SoundModel.ICH6, SoundModel.ICH9)
# What a direction of each kind of audio may say beyond what all may.
_DIRECTION_WORDS: dict[AudioType, tuple[str, ...]] = {
    AudioType.ALSA: ("dev",),
    AudioType.COREAUDIO: ("buffer_count",),
    AudioType.JACK: ("server_name", "client_name", "connect_ports", "exact_name"),
    AudioType.OSS: ("dev", "buffer_count", "try_poll"),
    AudioType.PULSEAUDIO: ("name", "stream_name", "latency"),
    AudioType.SDL: ("buffer_count",),
}
_AUDIO_WORDS: dict[AudioType, tuple[str, ...]] = {
    AudioType.OSS: ("try_mmap", "exclusive", "dsp_policy"),
    AudioType.PULSEAUDIO: ("server_name",),
    AudioType.SDL: ("driver",),
    AudioType.FILE: ("path",),
}
_ALL_DIRECTION_WORDS = frozenset(word for words in _DIRECTION_WORDS.values() for word in words)
_ALL_AUDIO_WORDS = frozenset(word for words in _AUDIO_WORDS.values() for word in words)


def complete_audio(audio: Audio) -> None:
    """Settings of other kinds of audio are left out."""
    for word in _ALL_AUDIO_WORDS - set(_AUDIO_WORDS.get(audio.type, ())):
        setattr(audio, word, None)
    for direction in (audio.input, audio.output):
        if direction is not None:
            for word in _ALL_DIRECTION_WORDS - set(_DIRECTION_WORDS.get(audio.type, ())):
                setattr(direction, word, None)


def complete_filesystem(filesystem: Filesystem) -> None:
    """How owners and modes of the host are shown."""
    socket = filesystem.source.socket if filesystem.source is not None else None
    if filesystem.accessmode is None and filesystem.type is not FilesystemType.RAM and socket is None:
        filesystem.accessmode = AccessMode.PASSTHROUGH


def complete_rng(rng: Rng) -> None:
    """The host's device."""
    if isinstance(rng.backend, RandomBackend) and not rng.backend.path:
        rng.backend.path = RANDOM_DEVICE


def complete_panic(scope: Scope, panic: Panic) -> None:
    """The board's own model."""
    if panic.model is not None:
        return
    if scope.board.pseries:
        panic.model = PanicModel.PSERIES
    elif scope.board.s390:
        panic.model = PanicModel.S390
    else:
        panic.model = PanicModel.ISA


def complete_shmem(shmem: Shmem) -> None:
    """The plain model, and a size."""
    if shmem.model is None:
        shmem.model = ShmemModel.IVSHMEM
    if shmem.size_mib is None and shmem.model is ShmemModel.IVSHMEM_PLAIN:
        shmem.size_mib = SHMEM_SIZE_MIB
    if shmem.model is ShmemModel.IVSHMEM_DOORBELL and shmem.server is not None:
        shmem.msi = shmem.msi or ShmemMsi()
        if shmem.msi.ioeventfd is None:
            shmem.msi.ioeventfd = True


def complete_vsock(vsock: Vsock) -> None:
    """The model."""
    if vsock.model is None:
        vsock.model = VirtioModel.VIRTIO
    if vsock.cid is None:
        vsock.cid = VsockCid(auto=True)
