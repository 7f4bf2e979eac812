"""Which QEMU binaries exist, which architecture each serves, and which a client may name.

A path that a client names is run as a program, so it must be an emulator put where emulators belong (`PREFIX` or
`OTHER_NAMES` in one of `DIRECTORIES`, writable for its owner only) or one that a definition already uses. A read-only
client could otherwise have any program started.
"""

import os
import stat
from collections.abc import Container
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.core.host import host_arch
from pyvirtd.errors import InvalidArg, from_os_error

DIRECTORIES = (
    Path("/usr/bin"),
    Path("/usr/local/bin"),
    Path("/usr/libexec"),
    Path("/usr/sbin"),
    Path("/usr/local/sbin"),
    Path("/usr/lib/xen/bin"),
    Path("/opt/qemu/bin"),
)
PREFIX = "qemu-system-"
OTHER_NAMES = ("qemu-kvm", "kvm")

# Guest architectures as libvirt 9.0 lists them, in its order, with the size of their words.
ARCHITECTURES: dict[str, int] = {
    "alpha": 64, "armv6l": 32, "armv7l": 32, "armv7b": 32, "aarch64": 64, "cris": 32, "i686": 32, "ia64": 64,
    "itanium": 64, "lm32": 32, "m68k": 32, "microblaze": 32, "microblazeel": 32, "mips": 32, "mipsel": 32,
    "mips64": 64, "mips64el": 64, "openrisc": 32, "parisc": 32, "parisc64": 64, "ppc": 32, "ppc64": 64, "ppc64le":
    64, "ppcemb": 32, "riscv32": 32, "riscv64": 64, "s390": 32, "s390x": 64, "sh4": 32, "sh4eb": 64, "sparc": 32,
    "sparc64": 64, "unicore32": 32, "x86_64": 64, "xtensa": 32, "xtensaeb": 32,
}  # fmt: skip
_TARGET_OF_ARCH = {"i686": "i386", "armv6l": "arm", "armv7l": "arm", "armv7b": "armeb"}
# 64-bit emulators that run the 32-bit guests of their family too
_WIDER = {"i686": "x86_64", "armv7l": "aarch64", "armv6l": "aarch64", "ppc": "ppc64", "s390": "s390x"}


def default_emulator(arch: str) -> str | None:
    """The binary for guests of that architecture: the one named after it, else a native one that runs them too."""
    names = [PREFIX + _TARGET_OF_ARCH.get(arch, arch)]
    if _WIDER.get(arch) == host_arch():
        names.append(PREFIX + host_arch())
    if arch == host_arch() or _WIDER.get(arch) == host_arch():
        names += OTHER_NAMES
    return next((path for name in names if (path := _find(name))), None)


def installed() -> dict[str, str]:
    """The default emulator of each architecture that has one, in libvirt's order. Scans directories."""
    return {arch: path for arch in ARCHITECTURES if (path := default_emulator(arch))}


def same_family(emulator_arch: str, arch: str) -> bool:
    """The binary is for the same family of processors, so that a request for `arch` makes sense for it."""
    return emulator_arch == arch or any(emulator_arch in family and arch in family for family in _FAMILIES)


def serves(emulator_arch: str, arch: str) -> bool:
    """A binary built for `emulator_arch` runs guests of `arch`."""
    return emulator_arch == arch or arch in _RUNS_TOO.get(emulator_arch, ())


_FAMILIES = (
    {"i686", "x86_64"},
    {"armv6l", "armv7l", "armv7b", "aarch64"},
    {"ppc", "ppc64", "ppc64le", "ppcemb"},
    {"s390", "s390x"},
)
_RUNS_TOO = {"x86_64": {"i686"}, "aarch64": {"armv7l"}, "armv7l": {"armv6l"}, "ppc64": {"ppc64le"}}


def allowed(path: str, used_by_definitions: Container[str] = ()) -> str:
    """The path, if it may be run on a client's word. Raises InvalidArg, or SystemError_ if it is missing."""
    if path in used_by_definitions:
        return path
    try:
        if not os.path.isabs(path) or "\0" in path:
            raise FileNotFoundError(2, "No such file or directory")
        status = os.stat(path)
    except OSError as exc:
        raise from_os_error(exc, f"Cannot check QEMU binary {path}", domain=ErrorDomain.QEMU) from exc
    directory, name = os.path.split(path)
    known = Path(directory) in DIRECTORIES and (name.startswith(PREFIX) or name in OTHER_NAMES)
    if not known or not stat.S_ISREG(status.st_mode) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidArg(f"'{path}' is not a QEMU emulator that this host offers", domain=ErrorDomain.QEMU)
    return path


def _find(name: str) -> str | None:
    for directory in DIRECTORIES:
        path = directory / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None
