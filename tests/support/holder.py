"""Runs as a process of its own and holds one host: it makes the private directories, starts the daemon and reaps.

`--mode system` (in new mount and network namespaces): the folder's trees become the default directories, and /dev/kvm
is there only with `--kvm`. `--mode session` uses no default directory; with `--user` (in a new mount namespace) it
becomes that user. Commands come as JSON lines on standard input, an answer goes out for each:

    {"do": "start", "argv": [...], "env": {...}, "log": PATH}  ->  {"pid": N} or {"error": TEXT}
    {"do": "status", "pid": N}                                 ->  {"status": null or as Popen.returncode}

It is a subreaper, so that guests which outlive their daemon stay below it; when standard input ends, by `close` or
because the tests died, it kills all of them and ends.
"""

import argparse
import contextlib
import ctypes
import json
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18  # linux/mount.h
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
CLONE_NEWCGROUP = 0x02000000  # linux/sched.h
CGROUPS = "/sys/fs/cgroup"
# /run as a whole: the host's system bus, systemd and log daemons are then absent for every daemon alike.
LIBVIRT = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
# The TPM emulator's logs, and the authority that signs its certificates, which is its own user's.
PRIVATE = ("/run", *LIBVIRT, "/var/log/swtpm", "/var/lib/swtpm-localca")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", choices=("system", "session"), required=True)
    parser.add_argument("--kvm", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("--cgroups", help="give the daemon control groups: the name of a group to make and live in")
    options = parser.parse_args()
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if options.mode == "system":
        cut_off_mounts(options.folder)
        groups = enter_cgroups(options.cgroups) if options.cgroups else {}
        mount_private(options.folder)
        mount_cgroups(groups)
        if not options.kvm:
            mount_dev_without_kvm(options.folder / "dev")
    elif options.user:
        cut_off_mounts(options.folder)
        become(options.user, options.folder / "lock")
    ended: dict[int, int] = {}
    wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C is for the tests; they then end us
    answer({"ready": os.getpid()})
    buffer = b""
    while True:
        ready = select.select([0, wakeup_read], [], [])[0]
        if wakeup_read in ready:
            os.read(wakeup_read, 4096)
            reap(ended)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                answer(obey(json.loads(line), ended))
    kill_descendants(ended)


def libc_mount(source: str, target: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def cut_off_mounts(folder: Path) -> None:
    """Let no mount of ours reach other namespaces, also where `/` is a plain folder that somebody changed root to.

    Only the real root can be made private: get there (our working directory outside of a new root is the way up), and
    come back to a `/` that is a mount point, as daemons which make namespaces themselves expect.
    """
    os.chdir("/")
    own_root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chroot(folder)
    while os.stat("..").st_ino != os.stat(".").st_ino or os.stat("..").st_dev != os.stat(".").st_dev:
        os.chdir("..")
    os.chroot(".")
    libc_mount("none", "/", MS_REC | MS_PRIVATE)
    os.fchdir(own_root)
    os.close(own_root)
    if (path := os.getcwd()) != "/":
        libc_mount(path, path, MS_BIND | MS_REC)
        os.chdir(path)
        os.chroot(".")


def mount_private(folder: Path) -> None:
    for path in PRIVATE:
        source = folder / path.lstrip("/")
        source.mkdir(parents=True, exist_ok=True)
        Path(path).mkdir(parents=True, exist_ok=True)
        shutil.copystat(path, source)
        about = Path(path).stat()
        os.chown(source, about.st_uid, about.st_gid)
        run("mount", "--bind", str(source), path)
    # The bridges and interfaces in /sys are those of the network namespace in which it was mounted. Control groups are
    # left out: no daemon then makes any, and nothing stays behind in the host's.
    run("umount", "--lazy", "--recursive", "/sys")
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    for path in ("/run/lock", "/run/libvirt/common", "/var/lib/libvirt/images"):
        Path(path).mkdir(parents=True, exist_ok=True)
    run("ip", "link", "set", "lo", "up")


def enter_cgroups(name: str) -> dict[str, str]:
    """Make a group in every hierarchy, go there and make it the root of a namespace: mount point -> mount options."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split(" ")
        # A chroot that somebody left behind may show the same hierarchies once more.
        if kind not in ("cgroup", "cgroup2") or not Path(target).is_relative_to(CGROUPS):
            continue
        own = Path(target, name)
        own.mkdir(exist_ok=True)
        if kind == "cgroup2":
            for controller in Path(target, "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):
                    Path(target, "cgroup.subtree_control").write_text(f"+{controller}")
            found[target] = ""
        else:
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (own / file).exists():
                    (own / file).write_text(Path(target, file).read_text())
            generic = {"rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime"}
            words = [word for word in options.split(",") if word not in generic and not word.startswith("release_")]
            found[target] = ",".join(["none", *words] if any("=" in word for word in words) else words)
        (own / "cgroup.procs").write_text(str(os.getpid()))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWCGROUP) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    return found


def mount_cgroups(groups: dict[str, str]) -> None:
    """Mount the hierarchies where they were, with our groups as their roots."""
    if groups and CGROUPS not in groups:
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", CGROUPS)
    for target, options in groups.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        run("mount", "-t", *(["cgroup", "-o", options] if options else ["cgroup2"]), "cgroup", target)


def become(user: str, locks: Path) -> None:
    """Go on as another user, with a lock directory of our own.

    The console locks in it name processes; one that another namespace left behind would lock out ours for good.
    """
    locks.mkdir()
    locks.chmod(0o1777)
    run("mount", "--bind", str(locks), os.path.realpath("/var/lock"))
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def mount_dev_without_kvm(folder: Path) -> None:
    """Take /dev/kvm away: a KVM that is there and fails makes libvirtd probe QEMU again at nearly every call."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
    for path in Path("/dev").iterdir():
        copy, about = folder / path.name, path.lstat()
        if path.name == "kvm":
            continue
        if stat.S_ISLNK(about.st_mode):
            copy.symlink_to(path.readlink())
        elif stat.S_ISDIR(about.st_mode):
            copy.mkdir()
            run("mount", "--rbind", str(path), str(copy))
        elif stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
            os.mknod(copy, about.st_mode, about.st_rdev)
            copy.chmod(stat.S_IMODE(about.st_mode))
            os.chown(copy, about.st_uid, about.st_gid)
    run("mount", "--move", str(folder), "/dev")


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def answer(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def obey(command: dict[str, Any], ended: dict[int, int]) -> dict[str, Any]:
    if command["do"] == "status":
        reap(ended)
        return {"status": ended.get(command["pid"])}
    assert command["do"] == "start"
    with open(command["log"], "ab") as log:
        try:
            child = subprocess.Popen(
                command["argv"], env=command["env"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        except OSError as error:
            return {"error": str(error)}
    return {"pid": child.pid}


def reap(ended: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])


def kill_descendants(ended: dict[int, int]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (pids := descendants()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        reap(ended)


def descendants() -> list[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent ...: the name may hold anything, also parentheses.
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    wanted = {os.getpid()}
    while wanted:
        wanted = {pid for pid, parent in parents.items() if parent in wanted}
        found += wanted
    return found


if __name__ == "__main__":
    main()
