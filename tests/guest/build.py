"""Builds the tiny guest once per machine, into a cache directory named after a digest of everything that goes into it.

Debian's packages are fetched with `apt-get download` and unpacked there; nothing is installed.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.guest.cpio import Archive

KERNEL_META = "linux-image-cloud-amd64"
AGENT_PACKAGE = "qemu-guest-agent"
READY = "tiny guest ready"
PROMPT = "tiny# "

# What a guest that pyvirtd defines may have; the cloud kernel has the 8250 serial port, PCI hotplug and ext4 built in.
MODULES = (
    "button evdev virtio_pci virtio_net virtio_blk virtio_console virtio_balloon virtio-rng virtio_scsi sd_mod sr_mod "
    "pvpanic-mmio virtiofs"
)
APPLETS = (
    "acpid cat chmod cttyhack cut date dd df dmesg echo env false free fsfreeze grep halt head hexdump hostname id "
    "ifconfig insmod ip kill ln ls lsmod mkdir mke2fs mknod mount mv nc od ping poweroff ps readlink reboot rm sed seq "
    "setsid sh sha256sum sleep stty sync tail test touch tr true tty udhcpc umount uname uptime wc wget which"
)


class BuildError(Exception):
    """The guest cannot be built here; the text says what is missing."""


@dataclass(frozen=True)
class Guest:
    """A kernel and an initial RAM disk that boot to a shell on the serial console."""

    kernel: Path
    initrd: Path
    cmdline: str = "console=ttyS0 quiet mitigations=off net.ifnames=0 tsc=reliable no_timer_check"

    def copy_to(self, folder: Path) -> "Guest":
        """The same guest with its files in `folder`, for a daemon that changes the owner of what it is given."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [Path(shutil.copy(source, folder / source.name)) for source in (self.kernel, self.initrd)]
        return Guest(paths[0], paths[1], self.cmdline)


def cache_folder() -> Path:
    """$PYVIRTD_CACHE, else a place that QEMU's own user can reach too when root runs the tests."""
    if configured := os.environ.get("PYVIRTD_CACHE"):
        return Path(configured)
    if os.geteuid() == 0:
        return Path("/var/cache/pyvirtd-tests")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyvirtd-tests"


def tiny_guest(*, agent: bool = True) -> Guest:
    """The guest, built at the first call; with QEMU's guest agent in it where Debian's package can be had.

    Raises BuildError.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = cache / f"guest-{_digest(agent)}.json"
        if stamp.exists():
            made = json.loads(stamp.read_text())
        else:
            made = _build(cache, stamp.stem, agent)
            stamp.write_text(json.dumps(made))
    return Guest(Path(made["kernel"]), Path(made["initrd"]))


def agent_program() -> Path | None:
    """QEMU's guest agent from the unpacked package, for this machine to run; None where it cannot be had."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacked = sorted(cache.glob(f"{AGENT_PACKAGE}_*"))
        tree = unpacked[-1] if unpacked else _agent_tree(cache)
    return tree / "usr/sbin/qemu-ga" if tree else None


def _build(cache: Path, name: str, agent: bool) -> dict[str, str]:
    """Fetch and assemble; what the stamp file then remembers."""
    unpacked = _unpacked(cache, _kernel_package())
    kernel = next((unpacked / "boot").glob("vmlinuz-*"))
    initrd = cache / f"{name}.img"
    # Not compressed: under TCG unpacking costs a guest a second, loading ten megabytes costs nothing.
    initrd.write_bytes(_initrd(unpacked, _agent_tree(cache) if agent else None))
    return {"kernel": str(kernel), "initrd": str(initrd)}


def _kernel_package() -> str:
    """The name of the package that the cloud kernel's meta package stands for just now."""
    listed = _run(["apt-cache", "depends", KERNEL_META])
    found = re.search(r"Depends: (linux-image-\S+)", listed)
    if not found:
        raise BuildError(f"apt knows no {KERNEL_META}: run 'apt-get update' first")
    return found[1]


def _unpacked(cache: Path, package: str) -> Path:
    """The files of a Debian package of the version that apt would install."""
    version = re.search(r"^\s+Candidate: (\S+)", _run(["apt-cache", "policy", package]), re.MULTILINE)
    if not version or version[1] == "(none)":
        raise BuildError(f"apt knows no {package}: run 'apt-get update' first")
    target = cache / f"{package}_{version[1].replace(':', '%3a')}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        # As root apt drops to a user of its own, which must be able to write here.
        Path(scratch).chmod(0o777)
        _run(["apt-get", "download", "-q", package], cwd=scratch)
        Path(scratch).chmod(0o755)
        (deb,) = Path(scratch).glob("*.deb")
        _run(["dpkg-deb", "-x", str(deb), f"{scratch}/tree"])
        Path(scratch, "tree").rename(target)
    return target


def _agent_tree(cache: Path) -> Path | None:
    """QEMU's guest agent unpacked, or None where it or a library that it needs is not to be had."""
    try:
        tree = _unpacked(cache, AGENT_PACKAGE)
        _libraries(tree / "usr/sbin/qemu-ga")
    except BuildError:
        return None
    return tree


def _libraries(program: Path) -> list[Path]:
    """The shared libraries that a program loads, the loader too. Raises BuildError where one is missing."""
    listed = _run(["ldd", str(program)])
    if "not found" in listed:
        raise BuildError(f"libraries of {program.name} are missing")
    return [Path(found) for found in re.findall(r"(/\S+\.so\S*)", listed)]


def _digest(agent: bool) -> str:
    """Names the result: of our own sources and of the busybox that goes in. A newer kernel alone rebuilds nothing."""
    here = Path(__file__).parent
    own = b"".join((here / name).read_bytes() for name in ("build.py", "cpio.py", "init.sh", "udhcpc.sh"))
    return hashlib.sha256(own + f"{agent} {_busybox().stat().st_mtime_ns}".encode()).hexdigest()[:16]


def _busybox() -> Path:
    for candidate in ("/bin/busybox", "/usr/bin/busybox"):
        if Path(candidate).exists() and b"ld-linux" not in Path(candidate).read_bytes()[:4096]:
            return Path(candidate)
    raise BuildError("no static busybox: install busybox-static")


def _initrd(unpacked: Path, agent_tree: Path | None) -> bytes:
    here = Path(__file__).parent
    archive = Archive()
    for folder in ("dev", "proc", "sys", "run", "tmp", "mnt"):
        archive.directory(folder)
    archive.device("dev/console", 5, 1)
    archive.copy("bin/busybox", _busybox())
    for applet in APPLETS.split():
        archive.link(f"bin/{applet}", "busybox")
    archive.link("sbin", "bin")
    archive.file("etc/passwd", b"root::0:0:root:/:/bin/sh\n")
    archive.file("etc/group", b"root:x:0:\n")
    archive.file("etc/os-release", b'NAME=tiny\nID=tiny\nVERSION_ID=1\nPRETTY_NAME="Tiny guest"\n')
    archive.file("etc/udhcpc.sh", (here / "udhcpc.sh").read_bytes(), 0o755)
    # The name is the event's and the value's in hexadecimal, as busybox acpid looks them up.
    archive.file("etc/acpi/PWRF/00000080", b"#!/bin/sh\nexec /bin/poweroff -f\n", 0o755)
    # The guest agent calls this with -h -P, -h -H or -r.
    archive.file(
        "bin/shutdown", b'#!/bin/sh\ncase "$*" in *-r*) exec reboot -f ;; *) exec poweroff -f ;; esac\n', 0o755
    )
    archive.file("init", (here / "init.sh").read_bytes(), 0o755)
    order = _module_order(unpacked)
    for module in order:
        archive.file(f"modules/{module.name}", module.read_bytes())
    archive.file("modules/order", "".join(f"{module.name}\n" for module in order).encode())
    if agent_tree:
        program = agent_tree / "usr/sbin/qemu-ga"
        archive.copy("bin/qemu-ga", program)
        for library in _libraries(program):
            archive.copy(str(library), library)
    return archive.to_bytes()


def _module_order(unpacked: Path) -> list[Path]:
    """The modules and what they depend on, each after its dependencies; the unpacked package has no modules.dep yet."""
    available = {path.stem.replace("-", "_"): path for path in (unpacked / "lib/modules").rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = available.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        found = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for dependency in (found[1].decode() if found else "").split(","):
            add(dependency)
        order.append(path)

    for name in MODULES.split():
        add(name)
    return order


def _run(argv: list[str], cwd: str | None = None) -> str:
    try:
        done = subprocess.run(
            argv, cwd=cwd, check=True, capture_output=True, text=True, timeout=300, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError as error:
        raise BuildError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(argv)} did not end") from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{' '.join(argv)}: {error.stderr.strip()}") from error
    return done.stdout
