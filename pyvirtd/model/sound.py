"""What the user hears: sound cards and where their sound goes.

https://libvirt.org/formatdomain.html#sound-devices
"""

from enum import StrEnum

from pyvirtd.model.address import Device, DeviceInfo
from pyvirtd.model.refusals import wrong
from pyvirtd.xml.element import Element, attr, child, children, group, parent_says, says, via
from pyvirtd.xml.types import Count32, Positive32, YesNo


class SoundModel(StrEnum):
    SB16 = "sb16"
    ES1370 = "es1370"
    PCSPK = "pcspk"
    AC97 = "ac97"
    ICH6 = "ich6"
    ICH7 = "ich7"
    ICH9 = "ich9"
    USB = "usb"
    VIRTIO = "virtio"


class CodecType(StrEnum):
    DUPLEX = "duplex"
    MICRO = "micro"
    OUTPUT = "output"


class SoundCodec(Element, tag="codec"):
    type: CodecType = attr(CodecType.DUPLEX, bad="unknown codec type '{}'")


class Sound(Device, tag="sound"):
    model: SoundModel = attr(SoundModel.SB16, required=True)
    multichannel: YesNo | None = attr(when=says("model", "usb"))
    streams: Positive32 | None = attr(when=says("model", "virtio"))
    codec: list[SoundCodec] = children()
    audio: Positive32 | None = via("audio", "id", required=True)
    info: DeviceInfo = group()


class AudioType(StrEnum):
    NONE = "none"
    ALSA = "alsa"
    COREAUDIO = "coreaudio"
    JACK = "jack"
    OSS = "oss"
    PULSEAUDIO = "pulseaudio"
    SDL = "sdl"
    SPICE = "spice"
    FILE = "file"
    DBUS = "dbus"
    PIPEWIRE = "pipewire"


class AudioFormat(StrEnum):
    S8 = "s8"
    U8 = "u8"
    S16 = "s16"
    U16 = "u16"
    S32 = "s32"
    U32 = "u32"
    F32 = "f32"


class SdlAudioDriver(StrEnum):
    ESD = "esd"
    ALSA = "alsa"
    ARTS = "arts"
    PULSEAUDIO = "pulseaudio"


class AudioSettings(Element, tag="settings"):
    frequency: Positive32 | None = attr()
    channels: Positive32 | None = attr()
    format_: AudioFormat | None = attr(ignore=("default",))


_JACK, _PULSE = parent_says("type", "jack"), parent_says("type", "pulseaudio", "pipewire")
_OSS = says("type", "oss")


class AudioIo(Element):
    """One direction; the attributes after `buffer_length` belong to certain audio types."""

    mixing_engine: YesNo | None = attr(name="mixingEngine")
    fixed_settings: YesNo | None = attr(name="fixedSettings")
    voices: Positive32 | None = attr()
    buffer_length: Positive32 | None = attr(name="bufferLength")
    dev: str | None = attr(when=parent_says("type", "alsa", "oss"))
    buffer_count: Positive32 | None = attr(name="bufferCount", when=parent_says("type", "coreaudio", "oss", "sdl"))
    try_poll: YesNo | None = attr(name="tryPoll", when=parent_says("type", "oss"))
    server_name: str | None = attr(name="serverName", when=_JACK)
    client_name: str | None = attr(name="clientName", when=_JACK)
    connect_ports: str | None = attr(name="connectPorts", when=_JACK)
    exact_name: YesNo | None = attr(name="exactName", when=_JACK)
    name: str | None = attr(when=_PULSE)
    stream_name: str | None = attr(name="streamName", when=_PULSE)
    latency: Positive32 | None = attr(when=_PULSE)
    settings: AudioSettings | None = child()


class Audio(Element, tag="audio"):
    id: Positive32 = attr(1, required=True)
    type: AudioType = attr(AudioType.NONE, required=True)
    timer_period: Positive32 | None = attr(name="timerPeriod")
    server_name: str | None = attr(name="serverName", when=says("type", "pulseaudio"))
    runtime_dir: str | None = attr(name="runtimeDir", when=says("type", "pipewire"))
    driver: SdlAudioDriver | None = attr(when=says("type", "sdl"))
    path: str | None = attr(when=says("type", "file"))
    try_mmap: YesNo | None = attr(name="tryMMap", when=_OSS)
    exclusive: YesNo | None = attr(when=_OSS)
    dsp_policy: Count32 | None = attr(name="dspPolicy", when=_OSS, bad=wrong("cannot parse 'dspPolicy' value '{}'"))
    input: AudioIo | None = child(name="input")
    output: AudioIo | None = child(name="output")
