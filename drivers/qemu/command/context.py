"""What a command line is built from beside the definition, and what comes out of it."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.command.host_facts import HostFacts
from pyvirtd.drivers.qemu.postparse.board import Board
from pyvirtd.errors import InvalidArg, VirtError
from pyvirtd.model.address import ZpciAddress
from pyvirtd.model.capabilities import SysInfo
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import Paths, QemuPaths

Json = bool | int | str | None | Mapping[str, "Json"] | list["Json"]
STANDALONE_ID = -1  # the id of a domain whose command line is only shown


@dataclass(slots=True)
class NetBackend:
    """Descriptors of one interface: `taps` and `vhosts` have one for each queue; without a tap none."""

    taps: list[int] = field(default_factory=list)
    vhosts: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Context:
    """Everything beside the definition. Descriptors are numbers in the child; where none is given QEMU opens the path
    itself. `nets` and `chardevs` are keyed by alias."""

    caps: QemuCapabilities
    paths: QemuPaths
    config: QemuConfig
    privileged: bool
    domain_id: int
    name: str
    monitor_fd: int | None = None
    nets: dict[str, NetBackend] = field(default_factory=dict)
    chardevs: dict[str, int] = field(default_factory=dict)  # listening unix sockets
    files: dict[str, int] = field(default_factory=dict)  # files that character devices write to
    logs: dict[str, int] = field(default_factory=dict)  # log files of character devices
    lent: Mapping[str, Sequence[int]] = field(default_factory=dict)  # images, by the name of their group
    vhost_user: dict[str, int] = field(default_factory=dict)  # sockets of programs that serve a device, by its alias
    incoming: bool = False  # the guest's state comes over the monitor
    reset_nvram: bool = False  # begin with the firmware's own variables again
    vhost_vsock_fd: int = -1
    standalone: bool = False
    host_arch: str = field(default_factory=lambda: os.uname().machine)
    host: HostFacts = field(default_factory=HostFacts)
    secrets: Mapping[tuple[str, str | None, str | None], bytes] = field(default_factory=dict)  # by `SecretUse`
    sysinfo: SysInfo | None = None  # what the host's firmware tells, for a guest that is to see it

    @classmethod
    def for_start(
        cls,
        caps: QemuCapabilities,
        paths: Paths,
        config: QemuConfig,
        privileged: bool,
        domain_id: int,
        live: DomainDef,
    ) -> Self:
        """The context of a guest that is about to run; `host` and descriptors are added before `build`."""
        return cls(caps, paths.qemu, config, privileged, domain_id, live.name)

    @property
    def fds(self) -> list[int]:
        """All descriptors the child must inherit but the monitor's."""
        found = [*self.chardevs.values(), *self.files.values(), *self.logs.values(), *self.vhost_user.values()]
        found += [fd for group in self.lent.values() for fd in group]
        for backend in self.nets.values():
            found += [*backend.taps, *backend.vhosts]
        if self.vhost_vsock_fd >= 0:
            found.append(self.vhost_vsock_fd)
        return found

    @property
    def directory(self) -> Path:
        """The guest's own directory."""
        return self.paths.domain_dir(self.domain_id, self.name)


class Props(dict[str, Json]):
    """Properties of a device or an object, in the order they are given to QEMU. None is left out."""

    def put(self, name: str, value: Json) -> Self:
        """Add a property; None is no value."""
        if value is not None:
            self[name] = value
        return self

    def merge(self, other: Mapping[str, Json]) -> Self:
        """Add all of another's."""
        self.update(other)
        return self

    def text(self) -> str:
        return json.dumps(self, separators=(",", ":"), ensure_ascii=False)


class NewFile(NamedTuple):
    """A file that must be there before QEMU starts: with this content, else a copy of `template`. One that exists
    already is left alone where `keep` is set. `variables_of`: the firmware whose variables it holds, and which cannot
    do without a template. `convert`: the format of the template and the one that is wanted, where they differ."""

    path: str
    content: bytes = b""
    template: str | None = None
    keep: bool = False
    variables_of: str | None = None
    convert: tuple[str, str] | None = None


@dataclass(slots=True)
class Command:
    """QEMU's argv and environment. `files`: what must be made before; `memory_dirs`: directories for guest memory
    in files."""

    argv: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    files: list[NewFile] = field(default_factory=list)
    memory_dirs: list[str] = field(default_factory=list)
    fdsets: int = 0  # sets of inherited descriptors

    def add(self, *words: str) -> None:
        self.argv.extend(words)

    def add_fd(self, fd: int, what: str) -> str:
        """-add-fd: a set of an inherited descriptor; the path that QEMU opens it by."""
        return self.add_fds({what: fd})

    def add_fds(self, fds: Mapping[str, int]) -> str:
        """-add-fd: a set of inherited descriptors by their notes; QEMU takes the one that is open as it needs."""
        number = self.fdsets
        self.fdsets += 1
        for what, fd in fds.items():
            self.add("-add-fd", f"set={number},fd={fd},opaque={what}")
        return f"/dev/fdset/{number}"

    def lines(self) -> Iterator[str]:
        """The command line as it is logged: an option and its value a line, quoted for a shell."""
        from pyvirtd.drivers.qemu.command.native import quote

        words = self.argv
        place = 1
        yield words[0]
        while place < len(words):
            line = quote(words[place])
            place += 1
            while place < len(words) and not words[place].startswith("-"):
                line += f" {quote(words[place])}"
                place += 1
            yield line


@dataclass(slots=True)
class Builder:
    """One build under way: what every part of it needs."""

    definition: DomainDef
    context: Context
    command: Command
    board: Board
    overrides: dict[str, dict[str, Json]] = field(default_factory=dict)
    zpci: dict[str, ZpciAddress] = field(default_factory=dict)  # by alias
    objects: set[str] = field(default_factory=set)  # ids given so far
    lent_paths: dict[str, str] = field(default_factory=dict)  # of the groups given so far

    @property
    def caps(self) -> QemuCapabilities:
        return self.context.caps

    @property
    def config(self) -> QemuConfig:
        return self.context.config

    def device(self, props: Props) -> None:
        """-device; the user's overrides of that device's properties win. On s390 a PCI device has one before it that
        tells the guest's firmware of it."""
        alias = props.get("id")
        zpci = self.zpci.get(str(alias))
        if zpci is not None:
            twin = Props(driver="zpci", uid=zpci.uid, fid=zpci.fid, target=alias, id=f"zpci{zpci.uid}")
            self.command.add("-device", twin.text())
        for name, value in self.overrides.get(str(alias), {}).items() if alias is not None else ():
            if value is None:
                props.pop(name, None)
            else:
                props[name] = value
        self.command.add("-device", props.text())

    def object(self, props: Props) -> None:
        """-object"""
        self.objects.add(str(props.get("id")))
        self.command.add("-object", props.text())

    def lent_path(self, group: str, node: str) -> str:
        """The path by which QEMU opens an image that is had as descriptors. Raises InvalidArg where none are lent."""
        if group not in self.lent_paths:
            fds = self.context.lent.get(group)
            if fds is None:
                raise not_lent(group)
            self.lent_paths[group] = self.command.add_fds({f"{node}{place}": fd for place, fd in enumerate(fds)})
        return self.lent_paths[group]

    def secret(self, name: str, content: bytes) -> None:
        """A secret object; its content travels in a file of the guest's directory."""
        path = str(self.context.directory / f"{name}.secret")
        self.command.files.append(NewFile(path, content))
        self.object(Props({"qom-type": "secret", "id": name, "format": "raw", "file": path}))


def not_lent(group: str) -> VirtError:
    """The error for descriptors that nobody lent."""
    return InvalidArg(f"file descriptor group '{group}' was not associated with the domain", domain=From.QEMU)


def escape(value: str) -> str:
    """A value within an option of the form key=value: commas are doubled."""
    return value.replace(",", ",,")


def qemu_environment(directory: Path, *, privileged: bool) -> dict[str, str]:
    """What a QEMU of the system daemon sees: nothing of the daemon's own home; a session's sees the user's."""
    environment = {"LC_ALL": "C"}
    if path := os.environ.get("PATH"):
        environment["PATH"] = path
    if privileged:
        environment["HOME"] = str(directory)
        environment["XDG_DATA_HOME"] = str(directory / ".local/share")
        environment["XDG_CACHE_HOME"] = str(directory / ".cache")
        environment["XDG_CONFIG_HOME"] = str(directory / ".config")
    else:
        names = ("HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR")
        environment.update({name: value for name in names if (value := os.environ.get(name)) is not None})
        environment["XDG_CACHE_HOME"] = str(directory / ".cache")
    return environment
