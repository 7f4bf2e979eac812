"""Where an emulated TPM keeps its state: the guest's own directory, or the directory or file that it names."""

import os
import re
import shutil
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import ConfigUnsupported, OperationFailed, from_os_error
from pyvirtd.model.chardev import TpmEmulator, TpmStateType, TpmVersion
from pyvirtd.paths import QemuPaths
from pyvirtd.util.files import Owner, make_directory

# swtpm(8): the states of TPM 1.2 and 2.0, and the file that is renamed to one.
STATE_FILE = re.compile(r"(tpm2?-|TMP2?-)\d\d\.(permall|volatilestate|savestate)")
LOCK_FILE = ".lock"
MAGIC = 0x737774706D6C696E.to_bytes(8, sys.byteorder)  # "swtpmlin", by which a file of state begins


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """A directory; `ours` is made below the daemon's own, and goes whole."""

    path: Path
    ours: bool

    @property
    def above(self) -> tuple[Path, ...]:
        """Directories of the daemon's that must be there first."""
        return (self.path.parent,) if self.ours else ()

    @property
    def option(self) -> str:
        """As `swtpm --tpmstate` takes it."""
        return f"dir={self.path},mode=0600"

    @property
    def argument(self) -> str:
        """As `swtpm_setup --tpm-state` takes it."""
        return str(self.path)

    def make(self, owner: Owner | None) -> None:
        """Make it, for the emulator's user alone. Raises OSError. What holds other things keeps its owner."""
        if self.ours:
            make_directory(self.path, 0o700, owner=owner)
            return
        with suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        if owner is not None and not self._strangers():
            os.chown(self.path, owner.uid, owner.gid, follow_symlinks=False)

    def is_new(self) -> bool:
        """No TPM has been made there yet."""
        return not any(STATE_FILE.fullmatch(name) for name in os.listdir(self.path))

    def discard(self) -> None:
        """Remove a TPM that was made by half, or is to be no more. Raises OSError."""
        if self.ours:
            shutil.rmtree(self.path.parent)
            return
        for name in os.listdir(self.path):
            if STATE_FILE.fullmatch(name) or name == LOCK_FILE:
                os.unlink(self.path / name)
        if not os.listdir(self.path):
            os.rmdir(self.path)

    def _strangers(self) -> bool:
        return any(not STATE_FILE.fullmatch(name) and name != LOCK_FILE for name in os.listdir(self.path))


@dataclass(frozen=True, slots=True)
class StateFile:
    """One file or block device."""

    path: Path
    above: ClassVar[tuple[Path, ...]] = ()

    @property
    def option(self) -> str:
        """As `swtpm --tpmstate` takes it."""
        return f"backend-uri=file://{self.path}"

    @property
    def argument(self) -> str:
        """As `swtpm_setup --tpm-state` takes it."""
        return f"file://{self.path}"

    def make(self, owner: Owner | None) -> None:
        """Make the file, for the emulator's user alone. Raises OSError."""
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if owner is not None:
            # A link is not followed: it may have been put there by the emulator's user.
            os.chown(self.path, owner.uid, owner.gid, follow_symlinks=False)

    def is_new(self) -> bool:
        """No TPM has been made there yet. Raises OperationFailed for a file with something else in it."""
        start = self._start()
        if _is_other(start):
            raise OperationFailed(f"'{self.path}' does not hold the state of a TPM", domain=From.QEMU)
        return start != MAGIC

    def fill(self, made: "StateFile") -> None:
        """Take over a TPM that was made elsewhere. Raises OSError. What it is known by comes last."""
        content = made.path.read_bytes()
        with open(self.path, "r+b") as file:
            for start, end in ((len(MAGIC), None), (0, len(MAGIC))):
                file.seek(start)
                file.write(content[start:end])
                file.flush()
                os.fsync(file.fileno())

    def discard(self) -> None:
        """Remove a TPM that was made by half, or is to be no more. Raises OSError. Anything else is left alone."""
        if _is_other(self._start()):
            return
        if stat.S_ISBLK(os.stat(self.path).st_mode):
            with open(self.path, "r+b") as device:
                device.write(bytes(len(MAGIC)))
        else:
            os.unlink(self.path)

    def _start(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read(len(MAGIC))


def _is_other(start: bytes) -> bool:
    """What a file begins with is neither a TPM's state nor nothing."""
    return start != MAGIC and bool(start.strip(b"\0"))


def state_of(backend: TpmEmulator, paths: QemuPaths, uuid: str) -> StateDirectory | StateFile:
    """Where the state of a definition's TPM is. Raises ConfigUnsupported for what the emulator cannot be told."""
    source = backend.source
    if source is None or not source.path:
        version = "tpm1.2" if backend.version is TpmVersion.V1_2 else "tpm2"
        return StateDirectory(paths.swtpm_state(uuid) / version, ours=True)
    if "," in source.path:
        raise ConfigUnsupported(f"a comma in the path of a TPM's state is not supported: '{source.path}'")
    path = Path(source.path)
    return StateFile(path) if source.type is TpmStateType.FILE else StateDirectory(path, ours=False)


def remove_state(backend: TpmEmulator, paths: QemuPaths, uuid: str) -> None:
    """Remove an emulated TPM's memory for good. Raises SystemError_ and ConfigUnsupported."""
    state = state_of(backend, paths, uuid)
    try:
        state.discard()
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise from_os_error(exc, f"cannot remove '{state.path}'") from exc
