"""Giving PCI devices of the host to guests and taking them back: each has one guest, with all of its IOMMU group.

A device that is to be managed is bound to a driver of the VFIO family before QEMU runs. Which ones are moved is noted
in a file before the first of them is, so that a daemon that was killed meanwhile gives them back when it is started
again; <origstates> of the live definition says the same to libvirtd, and is used where there is no such file. What
could not be given back stays noted: for a later daemon, or for the next guest that gets the device.
"""

import asyncio
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.host_pci import VFIO_PCI, Before, PciBus
from pyvirtd.core.virtual_functions import is_function
from pyvirtd.drivers.qemu.assigned import Assigned, assigned, note_moves, noted_moves
from pyvirtd.drivers.qemu.notes import keep_in_note, write_note
from pyvirtd.errors import (
    ConfigUnsupported,
    OperationFailed,
    OperationInvalid,
    OperationTimeout,
    VirtError,
)
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.hostdev import PciBackend
from pyvirtd.paths import PCI_NOTE, QemuPaths, short_name
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import run
from pyvirtd.util.threads import in_own_thread

log = logging.getLogger(__name__)

MOVE_S = 30.0  # for the kernel to move a device from one driver to another
LOAD_S = 30.0  # for a module to be loaded
MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


class PciOwners:
    """The PCI devices of all running guests."""

    def __init__(self, paths: QemuPaths, bus: PciBus | None = None) -> None:
        self._paths = paths
        self.bus = bus or PciBus()
        self._owners: dict[str, str] = {}  # PCI device -> domain

    async def give(self, live: DomainDef) -> None:
        """Give a guest that starts its devices. Raises VirtError; then it has none of them."""
        devices = assigned(live)
        if not devices:
            return
        await in_thread(self._check, devices)
        self._claim(live.name, devices, await in_thread(self._siblings, devices))
        try:
            plan = {device.name: await self._plan(device) for device in devices if device.managed}
            note = self._note(live)
            left = await in_thread(_left, note, {device.name for device in devices})
            moves = {name: left.get(name, before) for name, (_, before) in plan.items()}
            note_moves(live, moves)
            await in_thread(write_note, note, _lines(moves))
            await in_thread(_strike, note, {device.name for device in devices})
            for name, (driver, _) in plan.items():
                await self._timed(name, self.bus.bind, name, driver)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self.take_back(live)))
            raise

    async def take_back(self, live: DomainDef) -> None:
        """Give the devices of a guest that is gone back to their drivers; what fails is logged."""
        if devices := assigned(live):
            note = self._note(live)
            found = await in_thread(_read, note)
            moved = found if found is not None else noted_moves(live)
            mine = {name: before for name, before in moved.items() if self._owners.get(name, live.name) == live.name}
            await self._give_back(note, mine)
            for device in devices:
                if self._owners.get(device.name) == live.name:
                    del self._owners[device.name]

    async def take_back_left(self, number_and_name: str) -> None:
        """Give back what a run that is over had and nobody else has: its daemon was killed, or could not do it."""
        note = self._paths.pci_note(number_and_name)
        moved = await in_thread(_read, note) or {}
        await self._give_back(note, {name: before for name, before in moved.items() if name not in self._owners})

    def adopt(self, live: DomainDef) -> None:
        """Note whose the devices of a guest are that is found running."""
        for device in assigned(live):
            self._owners[device.name] = live.name

    # --- steps -------------------------------------------------------------------------------------------------

    def _check(self, devices: list[Assigned]) -> None:
        """The host can give each of these devices to a guest. Raises VirtError."""
        for device in devices:
            if device.source is None:
                self.bus.require(device.name)
            if device.backend == PciBackend.KVM:
                raise _unsupported(f"host doesn't support legacy PCI passthrough: PCI device {device.name}")
            if (why := self.bus.lacks()) is not None:
                what = (
                    "VFIO PCI passthrough" if device.backend == PciBackend.VFIO else "passthrough of host PCI devices"
                )
                raise _unsupported(f"host doesn't support {what}: PCI device {device.name} cannot be given away, {why}")
            self.bus.require(device.name)
            if device.is_interface and not is_function(self.bus.device(device.name)):
                words = "Interface type hostdev is currently supported on SR-IOV Virtual Functions only"
                raise ConfigUnsupported(f"{words}: PCI device {device.name} is none")
            if self.bus.group(device.name) is None:
                raise _unsupported(f"PCI device {device.name} is in no IOMMU group and cannot be given to a guest")
            if not device.managed and not self.bus.is_vfio(device.name):
                raise OperationInvalid(f"Unmanaged PCI device {device.name} must be manually detached from the host")

    def _siblings(self, devices: list[Assigned]) -> list[str]:
        return [name for device in devices for name in self.bus.siblings(device.name)]

    def _claim(self, name: str, devices: list[Assigned], siblings: list[str]) -> None:
        """Note a guest's devices as its own. Raises OperationInvalid naming the guest that has one of their groups."""
        for one in (*(device.name for device in devices), *siblings):
            if (owner := self._owners.get(one, name)) != name:
                raise OperationInvalid(f"PCI device {one} is in use by driver QEMU, domain {owner}", domain=From.NONE)
        self._owners |= {device.name: name for device in devices}

    async def _plan(self, device: Assigned) -> tuple[str, Before]:
        """By which driver a device is to be given, and what giving it back will have to do."""
        name = device.name
        former = await in_thread(self.bus.driver, name)
        if device.driver is None and former is not None and await in_thread(self.bus.is_vfio, name):
            return former, Before()
        driver = await self._find_driver(device)
        return driver, Before() if former == driver else Before(unbind=True, reprobe=former is not None)

    async def _find_driver(self, device: Assigned) -> str:
        """The driver that is asked for, or the best for the device; loaded. Raises OperationFailed."""
        if device.driver is not None:
            if not MODULE.fullmatch(device.driver):
                raise _unsupported(f"'{device.driver}' is no name of a driver, for PCI device {device.name}")
            wanted = [device.driver]
        else:
            best = await in_thread(self.bus.best_module, device.name)
            wanted = [best, VFIO_PCI] if best is not None else [VFIO_PCI]
        words = ""
        for module in wanted:
            if (found := await in_thread(self.bus.find_driver, module)) is not None:
                return found
            words = await _load(module)
            if (found := await in_thread(self.bus.find_driver, module)) is not None:
                return found
        raise OperationFailed(
            f"Failed to load PCI driver module {wanted[-1]} for PCI device {device.name}: {words or 'no such driver'}"
        )

    async def _give_back(self, note: Path, moved: Mapping[str, Before]) -> None:
        """Give devices back; those that could not be stay in the note."""
        failed = {}
        for name, before in reversed(list(moved.items())):
            try:
                await self._timed(name, self.bus.give_back, name, before)
            except VirtError as exc:
                log.error("%s", exc)
                failed[name] = before
        await in_thread(keep_in_note, note, _lines(failed))

    async def _timed(self, name: str, move: object, *arguments: object) -> None:
        """Have the kernel move a device. It may keep the thread that asks for good. Raises VirtError."""
        assert callable(move)
        try:
            await in_own_thread(MOVE_S, move, *arguments)
        except TimeoutError:
            raise OperationTimeout(f"PCI device {name} was not moved within {MOVE_S:g} seconds") from None

    def _note(self, live: DomainDef) -> Path:
        return self._paths.pci_note(short_name(live.id or 0, live.name))


def _unsupported(text: str) -> VirtError:
    return ConfigUnsupported(text, domain=From.QEMU)


async def _load(module: str) -> str:
    """Have a module loaded; what that said where it failed."""
    try:
        result = await run(["modprobe", "-b", "--", module], timeout=LOAD_S)
    except (OSError, VirtError) as exc:
        return str(exc)
    return result.stderr.decode("utf-8", "replace").strip() if result.returncode else ""


# --- the note: a line a device, its name and what giving it back has to do ----------------------------------------


def _lines(moved: Mapping[str, Before]) -> list[str]:
    return [
        " ".join([name, *(word for word in Before._fields if getattr(before, word))]) for name, before in moved.items()
    ]


def _left(own: Path, names: Collection[str]) -> dict[str, Before]:
    """What other notes say of these devices, which no running guest has: it is still to be done."""
    notes = [_read(note) or {} for note in own.parent.glob(f"*{PCI_NOTE}") if note != own]
    return {name: before for moved in notes for name, before in moved.items() if name in names}


def _strike(own: Path, names: Collection[str]) -> None:
    """Remove these devices from all other notes."""
    for note in own.parent.glob(f"*{PCI_NOTE}"):
        moved = _read(note) or {}
        if note != own and not moved.keys().isdisjoint(names):
            rest = {name: before for name, before in moved.items() if name not in names}
            keep_in_note(note, _lines(rest))


def _read(note: Path) -> dict[str, Before] | None:
    """None where there is no note."""
    try:
        lines = note.read_text().splitlines()
    except OSError:
        return None
    rows = [line.split() for line in lines if line]
    return {name: Before(**dict.fromkeys(words, True)) for name, *words in rows}
