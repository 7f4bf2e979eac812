"""Rules of sound: where it goes to, and which cards make it."""

from pyvirtd.drivers.qemu.postparse.refuse import qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.graphics import SpiceGraphics
from pyvirtd.model.sound import AudioIo, AudioType


def check_audio(scope: Scope) -> None:
    """Audio backends."""
    seen: set[int] = set()
    for audio in scope.devices.audio:
        if audio.id in seen:
            raise xml(f"audio ID {audio.id} is used multiple times")
        seen.add(audio.id)
        if audio.type is AudioType.SPICE:
            if not any(isinstance(graphics, SpiceGraphics) for graphics in scope.devices.graphics):
                raise qemu_unsupported("Spice audio is not supported without spice graphics")
        for direction in (audio.input, audio.output):
            if direction is not None:
                _check_direction(direction)
    for sound in scope.devices.sound:
        if sound.audio is not None and sound.audio not in seen:
            raise xml(f"no audio device with ID {sound.audio}")


def _check_direction(direction: AudioIo) -> None:
    if not direction.mixing_engine and direction.fixed_settings:
        raise unsupported("fixed audio settings requires mixing engine")
    settings = direction.settings
    if settings is not None and not direction.fixed_settings:
        if settings.frequency or settings.channels or settings.format_:
            raise unsupported("audio settings specified without fixed settings flag")
