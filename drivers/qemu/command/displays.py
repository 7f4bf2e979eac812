"""Graphics, video cards, sound, input."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.address import on_off, put_address, put_virtio, virtio_driver
from pyvirtd.drivers.qemu.command.chardev import DEFAULT_TLS
from pyvirtd.drivers.qemu.command.context import Builder, Json, Props, escape
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.graphics import (
    AddressListen,
    DbusGraphics,
    EglHeadlessGraphics,
    Input,
    InputBus,
    InputType,
    NetworkListen,
    NoneListen,
    SdlGraphics,
    SocketListen,
    SpiceChannelMode,
    SpiceGraphics,
    Video,
    VideoBackend,
    VideoModel,
    VideoModelType,
    VncGraphics,
)
from pyvirtd.model.sound import Audio, AudioIo, AudioType, Sound, SoundModel

QEMU = ErrorDomain.QEMU
VNC_BASE_PORT = 5900
KIB_PER_MIB = 1024


# Audio


_AUDIO_DRIVERS = {AudioType.PULSEAUDIO: "pa", AudioType.FILE: "wav"}


def build_audio(build: Builder) -> None:
    """-audiodev"""
    for audio in build.definition.devices.audio:
        build.command.add("-audiodev", _audio(audio).text())


def audio_id(build: Builder, number: int | None) -> str | None:
    """The audiodev that a device plays to: the one it names, else the first."""
    audios = build.definition.devices.audio
    if not audios:
        return None
    return f"audio{number if number is not None else audios[0].id}"


def _audio(audio: Audio) -> Props:
    props = Props(id=f"audio{audio.id}", driver=_AUDIO_DRIVERS.get(audio.type, str(audio.type)))
    props.put("timer-period", audio.timer_period or None)
    match audio.type:
        case AudioType.OSS:
            props.put("try-mmap", audio.try_mmap).put("exclusive", audio.exclusive)
            props.put("dsp-policy", audio.dsp_policy)
        case AudioType.PULSEAUDIO:
            props.put("server", audio.server_name)
        case AudioType.FILE:
            props.put("path", audio.path)
        case _:
            pass
    for name, direction in (("in", audio.input), ("out", audio.output)):
        if direction is not None and (values := _direction(audio, direction)):
            props.put(name, values)
    return props


def _direction(audio: Audio, io: AudioIo) -> Props:
    props = Props()
    props.put("mixing-engine", io.mixing_engine).put("fixed-settings", io.fixed_settings).put(
        "voices", io.voices or None
    )
    props.put("buffer-length", io.buffer_length or None)
    if io.settings is not None:
        props.put("frequency", io.settings.frequency or None).put("channels", io.settings.channels or None)
        props.put("format", str(io.settings.format_) if io.settings.format_ else None)
    match audio.type:
        case AudioType.ALSA | AudioType.OSS:
            props.put("dev", io.dev)
            if audio.type is AudioType.OSS:
                props.put("buffer-count", io.buffer_count or None)
            props.put("try-poll", io.try_poll)
        case AudioType.COREAUDIO | AudioType.SDL:
            props.put("buffer-count", io.buffer_count or None)
        case AudioType.JACK:
            props.put("server-name", io.server_name).put("client-name", io.client_name)
            props.put("connect-ports", io.connect_ports).put("exact-name", io.exact_name)
        case AudioType.PULSEAUDIO:
            props.put("name", io.name).put("stream-name", io.stream_name).put("latency", io.latency or None)
        case _:
            pass
    return props


# Graphics


def build_graphics(build: Builder) -> None:
    """-vnc, -spice, -display"""
    for graphics in build.definition.devices.graphics:
        match graphics:
            case VncGraphics():
                _vnc(build, graphics)
            case SpiceGraphics():
                _spice(build, graphics)
            case SdlGraphics():
                _sdl(build, graphics)
            case EglHeadlessGraphics():
                words = "egl-headless"
                if graphics.gl is not None and graphics.gl.rendernode:
                    words += f",rendernode={escape(graphics.gl.rendernode)}"
                build.command.add("-display", words)
            case DbusGraphics():
                _dbus(build, graphics)
            case _:
                raise ConfigUnsupported(f"unsupported graphics type '{graphics.case[0]}'", domain=QEMU)


def _vnc(build: Builder, graphics: VncGraphics) -> None:
    listen = graphics.listen[0] if graphics.listen else AddressListen()
    if isinstance(listen, NoneListen):
        words = ["none"]
    elif isinstance(listen, SocketListen):
        path = listen.socket or str(build.context.directory / "vnc.sock")
        words = [f"vnc=unix:{escape(path)}"]
    elif build.config.vnc_auto_unix_socket and isinstance(listen, AddressListen) and not listen.address:
        words = [f"vnc=unix:{escape(str(build.context.directory / 'vnc.sock'))}"]
    else:
        address = _address(listen) or build.config.vnc_listen
        host = f"[{address}]" if ":" in address else address
        words = [f"{host}:{(graphics.port or VNC_BASE_PORT) - VNC_BASE_PORT}"]
        if graphics.websocket is not None:
            words.append(f"websocket={graphics.websocket}")
    if graphics.share_policy is not None:
        words.append(f"share={graphics.share_policy}")
    if graphics.password.passwd or build.config.vnc_password:
        words.append("password=on")
    if build.config.vnc_tls:
        words.append(f"tls-creds={_vnc_credentials(build)}")
    if build.config.vnc_sasl:
        words.append("sasl=on")
        _sasl_directory(build, build.config.vnc_sasl_dir)
    if graphics.power_control is not None:
        words.append(f"power-control={on_off(graphics.power_control)}")
    if (audio := audio_id(build, graphics.audio)) is not None:
        words.append(f"audiodev={audio}")
    build.command.add("-vnc", ",".join(words))
    if graphics.keymap:
        build.command.add("-k", graphics.keymap)


def _vnc_credentials(build: Builder) -> str:
    """The object with the server's certificate."""
    config, name = build.config, "vnc-tls-creds0"
    directory = config.vnc_tls_x509_cert_dir or config.default_tls_x509_cert_dir or DEFAULT_TLS
    props = Props({"qom-type": "tls-creds-x509", "id": name, "dir": directory, "endpoint": "server"})
    build.object(props.put("verify-peer", config.tls_verify(config.vnc_tls_x509_verify, default=False)))
    return name


def _sasl_directory(build: Builder, directory: str | None) -> None:
    """Where the SASL library finds how it authenticates QEMU's clients."""
    if directory is not None:
        build.command.environment["SASL_CONF_PATH"] = directory


def _address(listen: object) -> str | None:
    return listen.address if isinstance(listen, AddressListen | NetworkListen) else None


def _spice(build: Builder, graphics: SpiceGraphics) -> None:
    words = _spice_listen(build, graphics)
    if build.config.spice_sasl:
        words.append("sasl=on")
        _sasl_directory(build, build.config.spice_sasl_dir)
    if graphics.mouse is not None:
        words.append(f"agent-mouse={'off' if graphics.mouse == 'server' else 'on'}")
    if graphics.password.passwd or build.config.spice_password:
        pass
    else:
        words.append("disable-ticketing=on")
    if graphics.tls_port is not None and graphics.tls_port > 0:
        words.append(f"x509-dir={_spice_certificates(build)}")
    if graphics.default_mode is not None:
        words.append(f"{_SPICE_MODES[graphics.default_mode]}=default")
    for channel in graphics.channel:
        if channel.mode in _SPICE_MODES:
            words.append(f"{_SPICE_MODES[channel.mode]}={channel.name}")
    if graphics.image is not None:
        words.append(f"image-compression={graphics.image}")
    if graphics.jpeg is not None:
        words.append(f"jpeg-wan-compression={graphics.jpeg}")
    if graphics.zlib is not None:
        words.append(f"zlib-glz-wan-compression={graphics.zlib}")
    if graphics.playback is not None:
        words.append(f"playback-compression={on_off(graphics.playback)}")
    if graphics.streaming is not None:
        words.append(f"streaming-video={graphics.streaming}")
    if graphics.clipboard is False:
        words.append("disable-copy-paste=on")
    if graphics.filetransfer is False:
        words.append("disable-agent-file-xfer=on")
    if graphics.gl is not None and graphics.gl.enable:
        words.append("gl=on")
        if graphics.gl.rendernode:
            words.append(f"rendernode={escape(graphics.gl.rendernode)}")
    words.append("seamless-migration=on")
    build.command.add("-spice", ",".join(words))
    if graphics.keymap:
        build.command.add("-k", graphics.keymap)


_SPICE_MODES = {SpiceChannelMode.SECURE: "tls-channel", SpiceChannelMode.INSECURE: "plaintext-channel"}


def _spice_certificates(build: Builder) -> str:
    config = build.config
    return config.spice_tls_x509_cert_dir or config.default_tls_x509_cert_dir or "/etc/pki/qemu"


def _spice_listen(build: Builder, graphics: SpiceGraphics) -> list[str]:
    listen = graphics.listen[0] if graphics.listen else AddressListen()
    if isinstance(listen, SocketListen):
        return ["unix", f"addr={escape(listen.socket or str(build.context.directory / 'spice.sock'))}"]
    if isinstance(listen, AddressListen) and not listen.address and build.config.spice_auto_unix_socket:
        return ["unix", f"addr={escape(str(build.context.directory / 'spice.sock'))}"]
    if isinstance(listen, NoneListen):
        return ["port=0"]
    words = []
    if graphics.port and graphics.port > 0:
        words.append(f"port={graphics.port}")
    if graphics.tls_port and graphics.tls_port > 0:
        words.append(f"tls-port={graphics.tls_port}")
    if not isinstance(listen, AddressListen | NetworkListen):
        return words or ["port=0"]
    return [*(words or ["port=0"]), f"addr={_address(listen) or build.config.spice_listen}"]


def _sdl(build: Builder, graphics: SdlGraphics) -> None:
    if graphics.xauth:
        build.command.environment["XAUTHORITY"] = graphics.xauth
    if graphics.display:
        build.command.environment["DISPLAY"] = graphics.display
    words = "sdl"
    if graphics.gl is not None and graphics.gl.enable is not None:
        words += f",gl={on_off(graphics.gl.enable)}"
    build.command.add("-display", words)
    if graphics.fullscreen:
        build.command.add("-full-screen")


def _dbus(build: Builder, graphics: DbusGraphics) -> None:
    words = ["dbus"]
    if graphics.p2p:
        words.append("p2p=on")
    else:
        name = build.context.directory.name.removeprefix("domain-")
        default = f"unix:path={build.context.paths.dbus}/{name}-dbus.sock"
        words.append(f"addr={escape(graphics.address or default)}")
    if graphics.gl is not None and graphics.gl.enable is not None:
        words.append(f"gl={on_off(graphics.gl.enable)}")
        if graphics.gl.rendernode:
            words.append(f"rendernode={escape(graphics.gl.rendernode)}")
    if graphics.audio is not None:
        words.append(f"audiodev=audio{graphics.audio}")
    build.command.add("-display", ",".join(words))


# Video


_PRIMARY = {
    VideoModelType.VGA: "VGA",
    VideoModelType.CIRRUS: "cirrus-vga",
    VideoModelType.VMVGA: "vmware-svga",
    VideoModelType.QXL: "qxl-vga",
    VideoModelType.BOCHS: "bochs-display",
    VideoModelType.RAMFB: "ramfb",
}


def build_videos(build: Builder) -> None:
    """-device of every video card"""
    for video in build.definition.devices.video:
        if video.model is not None and video.model.type is not VideoModelType.NONE:
            build.device(video_props(build, video))


def video_props(build: Builder, video: Video) -> Props:
    """The device of one card."""
    model = video.model or VideoModel()
    props = Props(driver=_video_driver(build, video, model))
    if model.type is VideoModelType.VIRTIO and video.driver is not None:
        put_virtio(props, video.driver.virtio)
    props.put("id", video.info.alias)
    match model.type:
        case VideoModelType.VIRTIO if _drawn_apart(video):
            props.put("max_outputs", model.heads or None).put("chardev", _gpu_socket(build, video))
        case VideoModelType.VIRTIO:
            props.put("max_outputs", model.heads or None).put("blob", model.blob)
        case VideoModelType.QXL:
            props.put("max_outputs", model.heads or None)
            props.put("ram_size", (model.ram or 0) * 1024).put("vram_size", (model.vram or 0) * 1024)
            props.put("vram64_size_mb", (model.vram64 or 0) // KIB_PER_MIB)
            props.put("vgamem_mb", (model.vgamem or 0) // KIB_PER_MIB)
        case VideoModelType.VGA | VideoModelType.VMVGA:
            props.put("vgamem_mb", (model.vram or 0) // KIB_PER_MIB or None)
        case VideoModelType.BOCHS:
            props.put("vgamem", (model.vram or 0) * 1024 or None)
        case _:
            pass
    if model.resolution is not None and model.resolution.x and model.resolution.y:
        props.put("xres", model.resolution.x).put("yres", model.resolution.y)
    put_address(build, props, video.info)
    return props


def _drawn_apart(video: Video) -> bool:
    """A program beside QEMU draws it."""
    return video.driver is not None and video.driver.name is VideoBackend.VHOSTUSER


def _gpu_socket(build: Builder, video: Video) -> str:
    """-chardev of the way to the program that draws, of which there is none where nothing is started."""
    name, fd = f"chr-vu-{video.info.alias}", build.context.vhost_user.get(video.info.alias or "")
    build.command.add("-chardev", f"null,id={name}" if fd is None else f"socket,id={name},fd={fd}")
    return name


def _video_driver(build: Builder, video: Video, model: VideoModel) -> str:
    if model.type is VideoModelType.QXL:
        return "qxl-vga" if model.primary else "qxl"
    if model.type is VideoModelType.VIRTIO:
        if _drawn_apart(video):
            alone = not model.primary or not build.caps.has_device("vhost-user-vga")
            return virtio_driver(build, "vhost-user-gpu", video) if alone else "vhost-user-vga"
        accelerated = model.acceleration is not None and bool(model.acceleration.accel3d)
        gl = "-gl" if accelerated else ""
        if model.primary and build.caps.has_device("virtio-vga"):
            return f"virtio-vga{gl}"
        return virtio_driver(build, f"virtio-gpu{gl}", video)
    return _PRIMARY.get(model.type, "VGA") if model.type else "VGA"


# Sound


def build_sounds(build: Builder) -> None:
    """-device of every sound card"""
    for sound in build.definition.devices.sound:
        _sound(build, sound)


_SOUND = {
    SoundModel.ES1370: "ES1370",
    SoundModel.AC97: "AC97",
    SoundModel.ICH6: "intel-hda",
    SoundModel.ICH9: "ich9-intel-hda",
    SoundModel.SB16: "sb16",
    SoundModel.USB: "usb-audio",
}


def _sound(build: Builder, sound: Sound) -> None:
    audio = audio_id(build, sound.audio)
    if sound.model is SoundModel.PCSPK:
        build.command.add("-machine", f"pcspk-audiodev={audio}")
        return
    codecs = sound.model in (SoundModel.ICH6, SoundModel.ICH9)
    props = Props(driver=_SOUND.get(sound.model, str(sound.model)), id=sound.info.alias)
    if not codecs:
        props.put("audiodev", audio).put("multi", sound.multichannel)
    put_address(build, props, sound.info)
    build.device(props)
    if codecs:
        kinds = [str(codec.type) for codec in sound.codec] or ["duplex"]
        for number, kind in enumerate(kinds):
            alias = f"{sound.info.alias}-codec{number}"
            codec = Props(driver=f"hda-{kind}", id=alias, bus=f"{sound.info.alias}.0", cad=number)
            build.device(codec.put("audiodev", audio))


# Input


_USB_INPUT = {InputType.MOUSE: "usb-mouse", InputType.TABLET: "usb-tablet", InputType.KEYBOARD: "usb-kbd"}


def build_inputs(build: Builder) -> None:
    """-device of input devices; the PS/2 ones are the board's"""
    for device in build.definition.devices.input:
        if device.bus is InputBus.USB:
            props = Props(driver=_USB_INPUT[device.type], id=device.info.alias)
            put_address(build, props, device.info)
            build.device(props)
        elif device.bus is InputBus.VIRTIO:
            build.device(_virtio_input(build, device))
        elif device.type is InputType.EVDEV:
            _evdev(build, device)


def _virtio_input(build: Builder, device: Input) -> Props:
    names = {InputType.PASSTHROUGH: "virtio-input-host"}
    base = names.get(device.type, f"virtio-{device.type}")
    props = Props(driver=virtio_driver(build, base, device, device.model))
    put_virtio(props, device.driver.virtio if device.driver else None)
    props.put("id", device.info.alias)
    if device.type is InputType.PASSTHROUGH and device.source is not None:
        props.put("evdev", device.source.evdev)
    put_address(build, props, device.info)
    return props


def _evdev(build: Builder, device: Input) -> None:
    source = device.source
    props = Props({"qom-type": "input-linux", "id": device.info.alias})
    if source is not None:
        props.put("evdev", source.dev)
        props.put("grab_all", True if source.grab == "all" else None).put("repeat", source.repeat)
        props.put("grab-toggle", str(source.grab_toggle) if source.grab_toggle else None)
    build.object(props)


__all__ = ["Json", "build_audio", "build_graphics", "build_inputs", "build_sounds", "build_videos"]
