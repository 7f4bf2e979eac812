"""Small files of one run of a guest: its key, its secrets, its firmware's variables, its memory, its log."""

import contextlib
import os
import platform
import secrets
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.command.backends import memory_base
from pyvirtd.drivers.qemu.command.context import Command, NewFile
from pyvirtd.drivers.qemu.command.host_facts import huge_page_mounts
from pyvirtd.errors import OperationFailed, from_os_error
from pyvirtd.paths import QemuPaths, short_name
from pyvirtd.util.files import Owner, make_directory, read_file, write_file

TEMPLATE_MAX = 64 << 20  # bytes of firmware variables
LAST_WORDS = 1024  # characters of QEMU's log that an error carries
# What QEMU prints although nothing is wrong.
CHATTER = "char device redirected to "


def write_key(path: Path, owner: Owner | None) -> None:
    """The key that QEMU decrypts its secrets with: 32 random bytes."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, secrets.token_bytes(32))
        if owner is not None:
            os.fchown(fd, owner.uid, owner.gid)
    finally:
        os.close(fd)


def make_file(file: NewFile, owner: Owner | None) -> None:
    """A file that QEMU needs: a secret, or firmware variables copied from their template. Raises VirtError."""
    path = Path(file.path)
    if file.keep and path.exists():
        return
    if file.variables_of is not None and file.template is None:
        raise OperationFailed(f"unable to find any master var store for loader: {file.variables_of}", domain=From.QEMU)
    try:
        content = read_file(Path(file.template), TEMPLATE_MAX, follow=True) if file.template else file.content
        write_file(path, content, 0o600, owner=owner)
    except OSError as exc:
        raise from_os_error(exc, f"cannot make '{path}'") from exc


def write_pid(path: Path, pid: int) -> None:
    """The pid for administrators' scripts; the daemon itself goes by the status file."""
    path.write_text(f"{pid}")


def open_log(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def stamp() -> str:
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d}+0000"


def log_header(command: Command, caps: QemuCapabilities) -> str:
    version = f"{caps.version // 1_000_000}.{caps.version // 1000 % 1000}.{caps.version % 1000}"
    words = " ".join(f"{name}={value}" for name, value in command.environment.items())
    argv = " \\\n".join(command.lines())
    return (
        f"{stamp()}: starting up, qemu version: {version}{caps.package}, kernel: {platform.release()},"
        f" hostname: {platform.node()}\n{words} \\\n{argv}\n"
    )


def log_end(path: Path, reason: str) -> None:
    with contextlib.suppress(OSError):
        fd = open_log(path)
        try:
            os.write(fd, f"{stamp()}: shutting down, reason={reason}\n".encode())
        finally:
            os.close(fd)


def tail(path: Path, start: int) -> str:
    """The end of a log from `start`, without the time that QEMU puts before its messages."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(start, size - 4 * LAST_WORDS))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = (line for line in text.splitlines() if not line.startswith(CHATTER))
    return "\n".join(lines).strip()[-LAST_WORDS:]


def make_memory_directories(directories: Iterable[str], owner: Owner | None) -> None:
    """Directories for guest memory in files, which only the guest may enter. Raises SystemError_."""
    for directory in dict.fromkeys(directories):
        path = Path(directory)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            make_directory(path, 0o700, owner=owner)
        except OSError as exc:
            raise from_os_error(exc, f"Unable to create {path}") from exc


def remove_memory_directories(config: QemuConfig, paths: QemuPaths, number: int, name: str) -> None:
    """What a guest's memory was kept in, wherever that was."""
    bases = [memory_base(config, paths), *(Path(mount) / "libvirt/qemu" for _, mount in huge_page_mounts(config))]
    for base in bases:
        shutil.rmtree(base / short_name(number, name), ignore_errors=True)
