"""A scope of systemd's for a guest, so that it is no part of the daemon's service: by machined where there is one.

https://www.freedesktop.org/software/systemd/man/org.freedesktop.machine1.html
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from pyvirtd.core.cgroup import path_in_unit, scope_name, slice_name
from pyvirtd.errors import InternalError
from pyvirtd.util.bus import Bus, BusError, Service, variant

log = logging.getLogger(__name__)

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
SCOPE_S = 10.0
POLL_S = 0.005
TASKS_MAX = 32768  # threads of one QEMU; the default for scopes is a share of the host's
SYSTEMD = Service("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
MACHINED = Service("org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager")


def runs() -> bool:
    """Whether systemd is this host's."""
    return BOOTED.is_dir()


async def make_scope(machine: str, uuid: UUID, pid: int, partition: str, nets: Sequence[int] = ()) -> str:
    """Put a process into a scope of its own, and register it with machined; the scope's path in the hierarchy.

    `nets` are the indexes of the guest's network interfaces. Raises InternalError.
    """
    scope, parent = scope_name(machine), slice_name(partition)
    try:
        async with await Bus.connect() as bus:
            properties = [
                ["Slice", variant("s", parent)],
                ["TasksMax", variant("t", TASKS_MAX)],
                ["Before", variant("as", ["virt-guest-shutdown.target"])],
            ]
            if not await _register(bus, machine, uuid, pid, nets, properties):
                own = [["PIDs", variant("au", [pid])], ["Delegate", variant("b", True)]]
                own.append(["Description", variant("s", f"Virtual Machine {machine}")])
                own.append(["CollectMode", variant("s", "inactive-or-failed")])
                arguments = [scope, "fail", own + properties, []]
                await bus.call(SYSTEMD, "StartTransientUnit", "ssa(sv)a(sa(sv))", arguments)
        return await _path_of(pid, scope)
    except (OSError, BusError, TimeoutError) as exc:
        raise InternalError(f"systemd makes no scope for '{machine}': {str(exc) or 'no answer'}") from exc


async def set_weight(unit: str, name: str, value: int) -> None:
    """A weight of a running unit (CPUShares, CPUWeight, IOWeight…), else set back by systemd. InternalError."""
    try:
        async with await Bus.connect() as bus:
            await bus.call(SYSTEMD, "SetUnitProperties", "sba(sv)", [unit, True, [[name, variant("t", value)]]])
    except BusError as exc:
        raise InternalError(f"systemd does not set {name} of '{unit}': {exc}") from exc


async def _register(
    bus: Bus, machine: str, uuid: UUID, pid: int, nets: Sequence[int], properties: list[list[Any]]
) -> bool:
    """Whether machined took the guest, and made its scope."""
    arguments = [machine, uuid.bytes, "libvirt-qemu", "vm", pid, "", list(nets), properties]
    try:
        await bus.call(MACHINED, "CreateMachineWithNetwork", "sayssusaia(sv)", arguments)
    except BusError as exc:
        if not exc.refusal:
            raise
        log.debug("machined does not register '%s': %s", machine, exc)
        return False
    return True


async def _path_of(pid: int, scope: str) -> str:
    """The scope's path, once the process is in it."""
    async with asyncio.timeout(SCOPE_S):
        while True:
            path = path_in_unit(pid, scope)
            if path is not None:
                return path
            await asyncio.sleep(POLL_S)
