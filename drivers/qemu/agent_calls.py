"""What the guest's agent is asked, and its answers as values.

https://www.qemu.org/docs/master/interop/qemu-ga-ref.html. The agent is the guest's: a field of the wrong type or out
of range counts as missing, text is made fit for the wire, and what is needed but missing is an error.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pyvirtd.api.types import DomainInterface, IPAddress
from pyvirtd.constants.domain import DomainState
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.network import IPAddrType
from pyvirtd.drivers.qemu.agent import Agent
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.runtime import AGENT_CHANNEL
from pyvirtd.errors import AgentUnresponsive, ArgumentUnsupported, InternalError, OperationInvalid
from pyvirtd.model.chardev import ChardevType, VirtioTarget

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

VCPU_MAX = 4096  # no guest has more; bounds what a bitmap of its vcpus may take
U32 = (1 << 32) - 1
U64 = (1 << 64) - 1


# --- the agent --------------------------------------------------------------------------------------------------


def agent_of(dom: QemuDomain) -> Agent:
    """The guest's agent, ready to be asked.

    Raises OperationInvalid for a guest that does not run, ArgumentUnsupported where no agent is configured,
    AgentUnresponsive where none answers.
    """
    guest = dom.guest
    if guest is None or dom.live is None or dom.state is not DomainState.RUNNING:
        raise OperationInvalid("domain is not running", domain=From.QEMU)
    channel = next(
        (
            channel
            for channel in dom.live.devices.channel
            if isinstance(channel.target, VirtioTarget) and channel.target.name == AGENT_CHANNEL
        ),
        None,
    )
    if channel is None:
        raise ArgumentUnsupported("QEMU guest agent is not configured", domain=From.QEMU)
    if channel.type is not ChardevType.UNIX or channel.path is None:
        raise AgentUnresponsive("QEMU guest agent is not available due to an error", domain=From.QEMU)
    if not guest.agent_connected:
        raise AgentUnresponsive("QEMU guest agent is not connected", domain=From.QEMU)
    if guest.agent is None:
        guest.agent = Agent(channel.path, dom.agent_timeout)
    return guest.agent


async def ask(dom: QemuDomain, command: str, arguments: dict[str, Any] | None = None) -> Any:
    """The agent's answer to a command, of whatever type it is."""
    return await agent_of(dom).execute(command, arguments)


async def shutdown(driver: "QemuDriver", dom: QemuDomain, mode: str) -> None:
    """Ask the guest to power down or reboot; success has no answer but the event that follows."""
    await agent_of(dom).shutdown(mode)


# --- reading answers --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fields:
    """An object in the answer to a command."""

    command: str
    values: dict[str, Any]

    def text(self, name: str) -> str:
        """Raises InternalError where it is missing."""
        found = self.maybe_text(name)
        if found is None:
            raise self.missing(name)
        return found

    def maybe_text(self, name: str) -> str | None:
        value = self.values.get(name)
        return clean(value) if isinstance(value, str) else None

    def number(self, name: str, low: int = 0, high: int = U64) -> int:
        """Raises InternalError where it is missing or not within the bounds."""
        found = self.maybe_number(name, low, high)
        if found is None:
            raise self.missing(name)
        return found

    def maybe_number(self, name: str, low: int = 0, high: int = U64) -> int | None:
        value = self.values.get(name)
        return value if type(value) is int and low <= value <= high else None

    def truth(self, name: str) -> bool:
        """Raises InternalError where it is missing."""
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self.missing(name)
        return value

    def inner(self, name: str) -> "Fields | None":
        value = self.values.get(name)
        return Fields(self.command, value) if isinstance(value, dict) else None

    def inners(self, name: str) -> "list[Fields]":
        """The objects of a list; none where there is no list."""
        value = self.values.get(name)
        items = value if isinstance(value, list) else []
        return [Fields(self.command, item) for item in items if isinstance(item, dict)]

    def texts(self, name: str) -> list[str]:
        """The texts of a list; none where there is no list."""
        value = self.values.get(name)
        return [clean(item) for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def missing(self, name: str) -> InternalError:
        return InternalError(f"'{name}' missing in reply of {self.command}", domain=From.QEMU)


def clean(text: str) -> str:
    """Text of the guest's that the wire can carry: valid UTF-8 without NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def an_object(command: str, answer: Any) -> Fields:
    """Raises InternalError where the answer is no object."""
    if not isinstance(answer, dict):
        raise InternalError(f"{command} reply was missing return data", domain=From.QEMU)
    return Fields(command, answer)


def objects(command: str, answer: Any) -> list[Fields]:
    """Raises InternalError where the answer is no list of objects."""
    if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
        raise InternalError(f"{command} reply was missing return data", domain=From.QEMU)
    return [Fields(command, item) for item in answer]


def _number(answer: Any) -> int:
    if type(answer) is not int or not 0 <= answer <= U64:
        raise InternalError("malformed return value", domain=From.QEMU)
    return answer


# --- file systems and disks -------------------------------------------------------------------------------------


class DiskPlace(NamedTuple):
    """Where a disk sits, as the guest sees it: the PCI device, and the place on the bus behind it."""

    pci: tuple[int, ...]
    bus: int
    target: int
    unit: int


class GuestDisk(NamedTuple):
    """`place` is None for a disk that is on no bus."""

    name: str
    partition: bool
    dependencies: list[str]
    alias: str | None
    serial: str | None
    place: DiskPlace | None


class FileSystemDisk(NamedTuple):
    serial: str | None
    device: str | None
    place: DiskPlace | None


class FileSystem(NamedTuple):
    name: str
    mountpoint: str
    fstype: str
    total_bytes: int | None
    used_bytes: int | None
    disks: list[FileSystemDisk]


def _place(address: Fields | None) -> DiskPlace | None:
    pci = address.inner("pci-controller") if address is not None else None
    if address is None or pci is None:
        return None
    numbers = [pci.maybe_number(name) for name in ("domain", "bus", "slot", "function")]
    drive = [address.maybe_number(name) for name in ("bus", "target", "unit")]
    found = [number for number in numbers if number is not None]
    if len(found) < len(numbers):
        return None
    return DiskPlace(tuple(found), *(number or 0 for number in drive))


async def file_systems(dom: QemuDomain) -> list[FileSystem]:
    """What is mounted, in the order of mounting, which is the reverse of the agent's."""
    command = "guest-get-fsinfo"
    found = []
    for item in reversed(objects(command, await ask(dom, command))):
        disks = [
            FileSystemDisk(disk.maybe_text("serial"), disk.maybe_text("dev"), _place(disk))
            for disk in item.inners("disk")
        ]
        found.append(
            FileSystem(
                mountpoint=item.text("mountpoint"),
                name=item.text("name"),
                fstype=item.text("type"),
                used_bytes=item.maybe_number("used-bytes"),
                total_bytes=item.maybe_number("total-bytes"),
                disks=disks,
            )
        )
    return found


async def disks(dom: QemuDomain) -> list[GuestDisk]:
    """The guest's block devices, partitions too."""
    command = "guest-get-disks"
    found = []
    for item in objects(command, await ask(dom, command)):
        address = item.inner("address")
        serial = address.maybe_text("serial") if address is not None else None
        found.append(
            GuestDisk(
                item.text("name"),
                item.truth("partition"),
                item.texts("dependencies"),
                item.maybe_text("alias"),
                serial,
                _place(address),
            )
        )
    return found


async def freeze(dom: QemuDomain, mountpoints: list[str]) -> int:
    """Freeze all file systems or those mounted there; how many."""
    if mountpoints:
        return _number(await ask(dom, "guest-fsfreeze-freeze-list", {"mountpoints": mountpoints}))
    return _number(await ask(dom, "guest-fsfreeze-freeze"))


async def thaw(dom: QemuDomain) -> int:
    """Thaw all file systems; how many."""
    return _number(await ask(dom, "guest-fsfreeze-thaw"))


# --- vcpus ------------------------------------------------------------------------------------------------------


class GuestVcpu(NamedTuple):
    number: int
    online: bool
    offlinable: bool


async def vcpus(dom: QemuDomain) -> list[GuestVcpu]:
    """The guest's processors."""
    command = "guest-get-vcpus"
    return [
        GuestVcpu(item.number("logical-id", high=VCPU_MAX - 1), item.truth("online"), item.truth("can-offline"))
        for item in objects(command, await ask(dom, command))
    ]


async def set_vcpus(dom: QemuDomain, numbers: Iterable[int], *, online: bool) -> None:
    """Bring processors online or take them offline. The agent may do only some at a time."""
    rest = [{"logical-id": number, "online": online} for number in numbers]
    while rest:
        done = _number(await ask(dom, "guest-set-vcpus", {"vcpus": rest}))
        if not 0 < done <= len(rest):
            raise InternalError("guest agent failed to change the state of vcpus", domain=From.QEMU)
        rest = rest[done:]


# --- network ----------------------------------------------------------------------------------------------------

FAMILIES = {"ipv4": IPAddrType.IPV4, "ipv6": IPAddrType.IPV6}


async def interfaces(dom: QemuDomain) -> list[DomainInterface]:
    """The guest's network interfaces; addresses of an alias such as eth0:1 are counted to eth0."""
    command = "guest-network-get-interfaces"
    found: dict[str, DomainInterface] = {}
    for item in objects(command, await ask(dom, command)):
        name = item.text("name").partition(":")[0]
        interface = found.setdefault(name, DomainInterface(name, item.maybe_text("hardware-address"), []))
        for address in item.inners("ip-addresses"):
            family = FAMILIES.get(address.text("ip-address-type"))
            if family is None:
                raise address.missing("ip-address-type")
            interface.addrs.append(IPAddress(family, address.text("ip-address"), address.number("prefix", high=U32)))
    return list(found.values())


# --- identity, time, users --------------------------------------------------------------------------------------


class GuestUser(NamedTuple):
    name: str
    domain: str | None
    login_ms: int


async def host_name(dom: QemuDomain) -> str | None:
    """What the guest calls itself, None where it does not say."""
    command = "guest-get-host-name"
    answer = await ask(dom, command)
    return Fields(command, answer).maybe_text("host-name") if isinstance(answer, dict) else None


async def users(dom: QemuDomain) -> list[GuestUser]:
    """Who is logged in."""
    command = "guest-get-users"
    found = []
    for item in objects(command, await ask(dom, command)):
        login = item.values.get("login-time")
        if isinstance(login, bool) or not isinstance(login, int | float) or not 0 <= login < U64 // 1000:
            raise item.missing("login-time")
        found.append(GuestUser(item.text("user"), item.maybe_text("domain"), int(login * 1000)))
    return found


async def time_ns(dom: QemuDomain) -> int:
    """The guest's clock: nanoseconds since 1970."""
    return _number(await ask(dom, "guest-get-time"))


async def set_time(dom: QemuDomain, nanoseconds: int | None) -> None:
    """Set the guest's clock; None sets it from its hardware clock."""
    await ask(dom, "guest-set-time", None if nanoseconds is None else {"time": nanoseconds})


async def set_password(dom: QemuDomain, user: str, password: str, *, encrypted: bool) -> None:
    """Set a user's password."""
    secret = base64.b64encode(password.encode()).decode()
    await ask(dom, "guest-set-user-password", {"crypted": encrypted, "username": user, "password": secret})


async def ssh_keys(dom: QemuDomain, user: str) -> list[str]:
    """A user's authorized keys."""
    command = "guest-ssh-get-authorized-keys"
    answer = an_object(command, await ask(dom, command, {"username": user}))
    if not isinstance(answer.values.get("keys"), list):
        raise InternalError("qemu agent didn't return an array of keys", domain=From.QEMU)
    return answer.texts("keys")


async def add_ssh_keys(dom: QemuDomain, user: str, keys: list[str], *, reset: bool) -> None:
    """Add authorized keys for a user, to what is there or instead of it."""
    await ask(dom, "guest-ssh-add-authorized-keys", {"username": user, "keys": keys, "reset": reset})


async def remove_ssh_keys(dom: QemuDomain, user: str, keys: list[str]) -> None:
    """Remove authorized keys of a user."""
    await ask(dom, "guest-ssh-remove-authorized-keys", {"username": user, "keys": keys})
