"""What <interface type='hostdev'> says of its virtual function: MAC, VLAN and virtualport, given and given back.

What a card kept a function to before is noted in a file before it is changed, so that a daemon that was killed
meanwhile gives it back when it is started again. What could not be given back stays noted: for a later daemon, or for
the next guest that gets the function. Cards are in `core.virtual_functions`; no test has one.
https://libvirt.org/formatdomain.html#pci-passthrough
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from pyvirtd.core import netlink, virtual_functions
from pyvirtd.core.host_pci import PciBus
from pyvirtd.core.virtual_functions import Function, PortRequest, PortResponse, Settings
from pyvirtd.drivers.qemu.assigned import host_nets
from pyvirtd.drivers.qemu.notes import keep_in_note, write_note
from pyvirtd.errors import ConfigUnsupported, InternalError, OperationTimeout, VirtError
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.net import Virtualport, VirtualportType, Vlan
from pyvirtd.paths import FUNCTIONS_NOTE, QemuPaths, short_name
from pyvirtd.util.files import in_thread
from pyvirtd.util.threads import in_own_thread

log = logging.getLogger(__name__)

T = TypeVar("T")

KERNEL_S = 10.0  # for a card to do as it is told
SWITCH_S = 10.0  # for a switch to answer
POLL_S = 0.125
NO_PROFILE = "-"


class Wanted(NamedTuple):
    """What one interface asks for; `profile`: of the switch's port."""

    device: str
    settings: Settings
    profile: str | None = None


class Kept(NamedTuple):
    """What a card kept a function to before, and the port that it was given."""

    function: Function
    settings: Settings
    profile: str | None
    instance: uuid.UUID


def wanted(live: DomainDef) -> list[Wanted]:
    """What a guest's interfaces ask of their functions. Raises ConfigUnsupported for what no card can do."""
    found = []
    for net, one, device in host_nets(live):
        mac = bytes.fromhex((net.mac.address if net.mac and net.mac.address else "").replace(":", ""))
        vlan, port = one.vlan or net.vlan, one.virtualport
        profile = _profile(port, vlan) if port is not None else None
        found.append(Wanted(device, Settings(mac, _tag(vlan)), profile))
    return found


def _profile(port: Virtualport, vlan: Vlan | None) -> str:
    kind = port.type or VirtualportType.NONE
    if vlan is not None:
        raise ConfigUnsupported(f"direct setting of the vlan tag is not allowed for hostdev devices using {kind} mode")
    if kind is not VirtualportType.QBH:
        raise ConfigUnsupported(f"virtualport type {kind} is currently not supported on interfaces of type hostdev")
    return (port.parameters.profileid if port.parameters is not None else None) or ""


def _tag(vlan: Vlan | None) -> int:
    if vlan is None:
        return 0
    if len(vlan.tag_) != 1 or vlan.trunk:
        raise ConfigUnsupported("vlan trunking is not supported by SR-IOV network devices")
    return vlan.tag_[0].id


class VirtualFunctions:
    """The virtual functions that guests have as interfaces."""

    def __init__(
        self, paths: QemuPaths, bus: PciBus, host: uuid.UUID, ask: virtual_functions.Ask = netlink.ask
    ) -> None:
        self._paths = paths
        self._bus = bus
        self._host = host
        self._ask = ask

    async def give(self, live: DomainDef) -> None:
        """Set up the functions of a guest that has them. Raises VirtError; then `take_back` undoes it."""
        asked = wanted(live)
        if not asked:
            return
        instance = uuid.UUID(live.uuid)
        note, kept = self._note(short_name(live.id or 0, live.name)), []
        for one in asked:
            function = await in_thread(virtual_functions.find, self._bus.device(one.device))
            before = await self._timed(function, partial(virtual_functions.read, function, self._ask))
            kept.append(Kept(function, before, one.profile, instance))
        await in_thread(_take_over, note, kept)
        for one, (function, *_) in zip(asked, kept, strict=True):
            if one.profile is not None:
                await self._connect(function, one.profile, instance)
            else:
                await self._set(function, one.settings)

    async def take_back(self, live: DomainDef) -> None:
        """Give the functions of a guest that is gone what they had before; what fails is logged."""
        await self.take_back_left(short_name(live.id or 0, live.name))

    async def take_back_left(self, number_and_name: str) -> None:
        """The same, of a guest of which no more is known."""
        note, failed = self._note(number_and_name), []
        for kept in await in_thread(_read, note):
            function, settings, profile, instance = kept
            try:
                if profile is not None:
                    await self._port(function, PortRequest.DISASSOCIATE, profile, instance)
                else:
                    await self._set(function, settings)
            except VirtError as exc:
                log.error("virtual function %d of '%s': %s", function.number, function.link, exc)
                failed.append(kept)
        await in_thread(keep_in_note, note, _lines(failed))

    # --- steps -------------------------------------------------------------------------------------------------

    async def _set(self, function: Function, settings: Settings) -> None:
        await self._timed(function, partial(virtual_functions.write, function, settings, self._ask))

    async def _port(self, function: Function, request: PortRequest, profile: str, instance: uuid.UUID) -> None:
        ids = instance.bytes, self._host.bytes
        await self._timed(
            function, partial(virtual_functions.connect_port, function, request, profile, *ids, self._ask)
        )

    async def _connect(self, function: Function, profile: str, instance: uuid.UUID) -> None:
        """Have the switch take a port. Raises VirtError where it refuses or does not answer."""
        await self._port(function, PortRequest.ASSOCIATE, profile, instance)
        response: int | None = PortResponse.IN_PROGRESS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SWITCH_S):
                while response in (None, PortResponse.IN_PROGRESS):
                    response = await self._timed(
                        function, partial(virtual_functions.port_response, function, self._ask)
                    )
                    await asyncio.sleep(POLL_S)
        port = f"port {function.number} of '{function.link}' with profile '{profile}'"
        if response in (None, PortResponse.IN_PROGRESS):
            raise OperationTimeout(f"the switch did not answer about {port} within {SWITCH_S:g} seconds")
        if response != PortResponse.SUCCESS:
            raise InternalError(f"error {response} during port-profile setlink: the switch refused {port}")

    async def _timed(self, function: Function, work: Callable[[], T]) -> T:
        """Have the kernel do something. It may keep the thread that asks for good. Raises VirtError."""
        try:
            return await in_own_thread(KERNEL_S, work)
        except TimeoutError:
            raise OperationTimeout(
                f"'{function.link}' did not answer about virtual function {function.number} within {KERNEL_S:g} seconds"
            ) from None

    def _note(self, short: str) -> Path:
        return self._paths.functions_note(short)


# --- the note: a line a function ----------------------------------------------------------------------------------


def _lines(kept: list[Kept]) -> list[str]:
    lines = []
    for (link, number), (mac, vlan, priority), profile, instance in kept:
        port = NO_PROFILE if profile is None else f"+{profile.encode().hex()}"
        lines.append(f"{link} {number} {mac.hex()} {vlan} {priority} {port} {instance}")
    return lines


def _take_over(own: Path, kept: list[Kept]) -> None:
    """Write a guest's note, to which goes what other notes say of its functions: it is still to be done.

    A function that they know is to have in the end what they say, not what their guest left it. Raises VirtError.
    """
    mine = {one.function for one in kept}
    others = {note: _read(note) for note in own.parent.glob(f"*{FUNCTIONS_NOTE}") if note != own}
    left = [one for note in others.values() for one in note if one.function in mine]
    settled = {one.function for one in left if one.profile is None}
    mine_now = [one for one in kept if one.profile is not None or one.function not in settled]
    write_note(own, _lines(mine_now + left))
    for note, rows in others.items():
        rest = [one for one in rows if one.function not in mine]
        if len(rest) < len(rows):
            keep_in_note(note, _lines(rest))


def _read(note: Path) -> list[Kept]:
    """Nothing where there is no note; lines that are cut off changed nothing yet."""
    try:
        lines = note.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            link, number, mac, vlan, priority, port, instance = line.split()
            profile = None if port == NO_PROFILE else bytes.fromhex(port[1:]).decode()
            settings = Settings(bytes.fromhex(mac), int(vlan), int(priority))
            found.append(Kept(Function(link, int(number)), settings, profile, uuid.UUID(instance)))
    return found
