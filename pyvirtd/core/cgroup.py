"""Control groups of guests: where the hierarchies are, and one group in all of them.

Version 1 (a hierarchy for each controller), version 2 (one for all) and both side by side. Files of the kernel are
read and written here and nothing else waits; still, joining a group may take milliseconds: callers use a thread.
What the values mean is `cgroup_limits`. https://libvirt.org/cgroups.html
"""

import errno
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pyvirtd.config.qemu import CGROUP_CONTROLLERS
from pyvirtd.errors import ConfigUnsupported, SystemError_, from_os_error

MOUNTS = Path("/proc/self/mounts")
V2_TYPE, V1_TYPE = "cgroup2", "cgroup"
V2_NAMES = {"io": "blkio"}  # version 2's name of a controller -> the one that version 1 and libvirt have
V1_NAMES = {"blkio": "io"}
# Controllers that the groups of a guest's threads have; threads of one process can differ in no others (version 2).
OF_THREADS = ("cpu", "cpuacct", "cpuset")
MACHINE_NAME_MAX = 64  # characters, as a host's name
NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
OWN_PARTITIONS = ("machine", "system", "user")  # a first component that bears no suffix
RESERVED = ("notify_on_release", "release_agent", "tasks")


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """What is mounted: `v1` by controller, `unified` with the controllers that it has beyond those."""

    v1: Mapping[str, Path] = field(default_factory=dict)
    unified: Path | None = None
    v2: frozenset[str] = frozenset()

    @classmethod
    def read(cls, wanted: Collection[str] | None = None, mounts: str | None = None) -> Self:
        """From the mount table, /proc/self/mounts; `wanted`: the only controllers to use (None: all)."""
        usable = CGROUP_CONTROLLERS if wanted is None else wanted
        v1: dict[str, Path] = {}
        unified: Path | None = None
        for line in (MOUNTS.read_text() if mounts is None else mounts).splitlines():
            _, target, kind, options, *_ = line.split(" ")
            path = Path(target.encode().decode("unicode_escape"))
            if kind == V2_TYPE:
                unified = unified or path
            elif kind == V1_TYPE:
                for name in set(options.split(",")) & set(usable):
                    v1.setdefault(name, path)
        v2 = _v2_controllers(unified) - set(v1) if unified is not None else set()
        return cls(v1, unified, frozenset(v2 & set(usable)))

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(self.v1) | self.v2

    def group(self, path: str) -> "Group":
        """The group at a path below the root of every hierarchy; it need not exist."""
        name = path.strip("/")
        v1 = {controller: mount / name for controller, mount in self.v1.items()}
        return Group(v1, self.unified / name if self.unified is not None else None, self.v2)

    def group_of(self, pid: int, name: str) -> "Group | None":
        """The group of this name that a process is in, itself or in a group below it; None where it is in none.

        Controllers whose hierarchy has the process elsewhere are left out. Raises ProcessLookupError.
        """
        v1: dict[str, Path] = {}
        unified: Path | None = None
        for controllers, path in _memberships(pid):
            found = _up_to(path, name)
            if found is None:
                continue
            if not controllers:
                unified = self.unified / found if self.unified is not None else None
            v1.update({one: self.v1[one] / found for one in controllers if one in self.v1})
        if not v1 and unified is None:
            return None
        return Group(v1, unified, self.v2 if unified is not None else frozenset())


def _v2_controllers(unified: Path) -> set[str]:
    """The controllers of version 2, by libvirt's names. Processor time is counted in every group of it."""
    with suppress(OSError):
        words = (unified / "cgroup.controllers").read_text().split()
        return {V2_NAMES.get(word, word) for word in words} | {"cpuacct"}
    return set()


def _memberships(pid: int) -> Iterator[tuple[list[str], str]]:
    """The controllers of each hierarchy (none: version 2) and the process's path in it. cgroups(7)."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        yield [one for one in controllers.split(",") if one], path


def path_in_unit(pid: int, unit: str) -> str | None:
    """Where systemd has put a process into a unit, in its own hierarchy or version 2's. Raises ProcessLookupError."""
    return next((path for _, path in _memberships(pid) if unit in path.split("/")), None)


def _up_to(path: str, name: str) -> str | None:
    """The path up to its component `name` (and the part that is delegated to us below a unit)."""
    parts = path.strip("/").split("/")
    if name not in parts:
        return None
    end = parts.index(name) + 1
    if parts[end : end + 1] == [DELEGATED]:
        end += 1
    return "/".join(parts[:end])


DELEGATED = "libvirt"  # the group below a unit of systemd's that is ours


@dataclass(frozen=True, slots=True)
class Group:
    """One group: its directory in each hierarchy."""

    v1: Mapping[str, Path]
    unified: Path | None
    v2: frozenset[str]

    def has(self, controller: str) -> bool:
        return controller in self.v1 or controller in self.v2

    def is_v2(self, controller: str) -> bool:
        return controller not in self.v1

    def directory(self, controller: str) -> Path:
        """Where a controller's files are; the group must have it."""
        directory = self.v1.get(controller) or self.unified
        assert directory is not None
        return directory

    def child(self, name: str) -> "Group":
        below = {controller: path / name for controller, path in self.v1.items()}
        return Group(below, self.unified / name if self.unified is not None else None, self.v2)

    def threads(self, name: str) -> "Group":
        """The group for threads below this one: it has only the controllers that threads may differ in."""
        group = self.child(name)
        return Group(
            {one: path for one, path in group.v1.items() if one in OF_THREADS},
            group.unified,
            frozenset(one for one in group.v2 if one in OF_THREADS),
        )

    def whole(self) -> "Group":
        """The same with only those controllers of version 1 that no thread's group has."""
        return Group({one: path for one, path in self.v1.items() if one not in OF_THREADS}, None, frozenset())

    # --- files -----------------------------------------------------------------------------------------------

    def read(self, controller: str, name: str) -> str:
        """A file of a controller, without the newline. Raises SystemError_."""
        path = self.directory(controller) / name
        try:
            return path.read_text().strip()
        except OSError as exc:
            raise from_os_error(exc, f"Unable to read from '{path}'") from exc

    def write(self, controller: str, name: str, value: object) -> None:
        """Write a file of a controller. Raises SystemError_."""
        path = self.directory(controller) / name
        try:
            _write(path, str(value))
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise from_os_error(exc, f"Invalid value '{value}' for '{name}'") from exc
            raise from_os_error(exc, f"Unable to write to '{path}'") from exc

    def exists(self, controller: str, name: str) -> bool:
        return (self.directory(controller) / name).exists()

    # --- life ------------------------------------------------------------------------------------------------

    def make(self, *, threaded: bool = False) -> None:
        """Make it in every hierarchy; its parent must exist. `threaded`: for threads of a process in its siblings.

        Raises VirtError.
        """
        try:
            for path in self.directories():
                path.mkdir(mode=0o755, exist_ok=True)
            if "cpuset" in self.v1:
                _inherit_cpuset(self.v1["cpuset"])
            if self.unified is not None and threaded:
                _write(self.unified / "cgroup.type", "threaded")
        except OSError as exc:
            where = exc.filename or self.unified
            raise from_os_error(exc, f"Unable to create control group '{where}'") from exc
        self.enable()

    def enable(self) -> None:
        """Have the controllers of version 2 in it, as far as its parent can give them: see `settled`.

        Not while the parent has processes of its own: those for threads could be had, and would make it the root of
        threads, below which no group can be used for anything else.
        """
        if self.unified is None or not self.v2 or _is_occupied(self.unified.parent):
            return
        control = self.unified.parent / "cgroup.subtree_control"
        with suppress(OSError):
            enabled = control.read_text().split()
            for name in sorted({V1_NAMES.get(one, one) for one in self.v2 if one != "cpuacct"}.difference(enabled)):
                with suppress(OSError):  # the parent has none, or has processes of its own
                    _write(control, f"+{name}")

    def settled(self) -> "Group":
        """The same without the controllers of version 2 that could not be had in it."""
        if self.unified is None:
            return self
        return Group(self.v1, self.unified, self.v2 & _v2_controllers(self.unified))

    def add_process(self, pid: int) -> None:
        """Put a process with all its threads into it, everywhere. Raises VirtError."""
        self._join("cgroup.procs", "cgroup.procs", pid)

    def add_thread(self, tid: int) -> None:
        """Put one thread into it; one that has ended needs none. Raises VirtError."""
        with suppress(_Gone):
            self._join("tasks", "cgroup.threads", tid)

    def _join(self, v1_name: str, v2_name: str, number: int) -> None:
        files = [path / v1_name for path in dict.fromkeys(self.v1.values())]
        if self.unified is not None:
            files.append(self.unified / v2_name)
        for path in files:
            try:
                _write(path, str(number))
            except ProcessLookupError as exc:
                raise _Gone(f"process {number} is gone") from exc
            except OSError as exc:
                raise from_os_error(exc, f"Unable to write to '{path}'") from exc

    def remove(self) -> bool:
        """Remove it and the groups below it, as far as they are empty; whether all of it is gone.

        Of a unit's own groups only those of version 1 are ours: systemd watches the other one, ends the unit when that
        is empty, and would take it for running for ever if it were gone first.
        """
        for path in self.directories():
            _remove_tree(path)
            if path.name == DELEGATED and path != self.unified:
                _remove_tree(path.parent)
        return not any(path.exists() for path in self.directories())

    def directories(self) -> list[Path]:
        paths = list(dict.fromkeys(self.v1.values()))
        return paths if self.unified is None else [*paths, self.unified]


class _Gone(SystemError_):
    """The process or thread that was to join a group has ended."""


def _is_occupied(path: Path) -> bool:
    """Whether a group of version 2 has processes itself; the root's do not matter, and those of a root of threads."""
    with suppress(OSError):  # the root has no type
        if (path / "cgroup.type").read_text().strip() == "domain":
            return bool((path / "cgroup.procs").read_text().strip())
    return False


def _write(path: Path, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _inherit_cpuset(path: Path) -> None:
    """A new group of version 1 has neither processors nor memory, and takes no process until it has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (path / name).read_text().strip():
            _write(path / name, (path.parent / name).read_text().strip())
    _write(path / "cpuset.memory_migrate", "1")


def _remove_tree(path: Path) -> None:
    with suppress(OSError):  # gone already, or somebody is still in it
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(Path(entry.path))
        path.rmdir()


# --- names ------------------------------------------------------------------------------------------------------


def machine_name(number: int, name: str) -> str:
    """A guest's name for machined and for its group: qemu-ID-NAME with only what a host's name may have."""
    kept = f"qemu-{number}-"
    for character in name:
        if character in NAME_CHARACTERS or (character in "-." and kept[-1] not in "-."):
            kept += character
        if len(kept) == MACHINE_NAME_MAX:
            break
    return kept.rstrip("-.")


def partition_path(partition: str) -> str:
    """The path of a <partition>: components of an administrator's end in .partition. Raises VirtError."""
    check_partition(partition)
    parts = [part for part in partition.split("/") if part]
    rest = parts[1:] if parts[:1] and parts[0] in OWN_PARTITIONS else parts
    own = parts[: len(parts) - len(rest)]
    return "/".join([*own, *(escaped(f"{part}.partition") for part in rest)])


def check_partition(partition: str) -> None:
    """Raises ConfigUnsupported for a path that names no place below the root."""
    if not partition.startswith("/"):
        raise ConfigUnsupported(f"Resource partition '{partition}' must start with '/'")
    if {".", ".."} & set(partition.split("/")):
        raise ConfigUnsupported(f"Resource partition '{partition}' may not hold '.' or '..'")


def escaped(name: str) -> str:
    """A name that no file of a group can have."""
    controllers = tuple(f"{one}." for one in CGROUP_CONTROLLERS)
    if name.startswith(("_", ".", "cgroup.", *controllers)) or name in RESERVED:
        return f"_{name}"
    return name


def slice_name(partition: str) -> str:
    """The unit of systemd's for a partition: /machine/production is machine-production.slice."""
    check_partition(partition)
    parts = [_unit_escaped(part) for part in partition.split("/") if part]
    return f"{'-'.join(parts)}.slice" if parts else "-.slice"


def scope_name(machine: str) -> str:
    """The unit of a guest: machine-NAME.scope, as machined calls it."""
    return f"machine-{_unit_escaped(machine)}.scope"


def _unit_escaped(word: str) -> str:
    """systemd.unit(5), STRING ESCAPING FOR INCLUSION IN UNIT NAMES."""
    out = ""
    for number, byte in enumerate(word.encode()):
        character = chr(byte)
        if (byte < 128 and character.isalnum()) or character in ":_" or (character == "." and number):
            out += character
        elif character == "/":
            out += "-"
        else:
            out += f"\\x{byte:02x}"
    return out


def make_partition(hierarchies: Hierarchies, partition: str) -> Group:
    """The group of a partition. The hosts' own, /machine, is made; an administrator's must be there. VirtError."""
    group = hierarchies.group(partition_path(partition))
    if partition.strip("/") == OWN_PARTITIONS[0]:
        group.make()
        return group.settled()
    for path in group.directories():
        if not path.is_dir():
            missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            raise from_os_error(missing, f"Unable to use control group '{path}'")
    return group.settled()


def make_unit_group(hierarchies: Hierarchies, path: str) -> Group:
    """The group below a unit of systemd's that is ours. In version 1 systemd makes the unit's own only where it wants.

    Raises VirtError.
    """
    parts = path.strip("/").split("/")
    for length in range(1, len(parts) + 1):
        above = hierarchies.group("/".join(parts[:length]))
        Group(above.v1, None, frozenset()).make()
    group = hierarchies.group(path).child(DELEGATED)
    group.make()
    return group
