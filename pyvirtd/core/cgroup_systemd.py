"""A scope of systemd's for a guest, so that it is no part of the daemon's service: by machined where there is one.

https://www.freedesktop.org/software/systemd/man/org.freedesktop.machine1.html
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from pyvirtd.core.cgroup import path_in_unit, scope_name, slice_name
from pyvirtd.errors import InternalError

log = logging.getLogger(__name__)

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
BUS_S = 10.0
SCOPE_S = 10.0
POLL_S = 0.005
TASKS_MAX = 32768  # threads of one QEMU; the default for scopes is a share of the host's
SYSTEMD, MACHINED = "org.freedesktop.systemd1", "org.freedesktop.machine1"


def runs() -> bool:
    """Whether systemd is this host's."""
    return BOOTED.is_dir()


async def make_scope(machine: str, uuid: UUID, pid: int, partition: str, nets: Sequence[int] = ()) -> str:
    """Put a process into a scope of its own, and register it with machined; the scope's path in the hierarchy.

    `nets` are the indexes of the guest's network interfaces. Raises InternalError.
    """
    scope, parent = scope_name(machine), slice_name(partition)
    properties = [
        ["Slice", Variant("s", parent)],
        ["TasksMax", Variant("t", TASKS_MAX)],
        ["Before", Variant("as", ["virt-guest-shutdown.target"])],
    ]
    try:
        async with asyncio.timeout(BUS_S):
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            try:
                if not await _register(bus, machine, uuid, pid, nets, properties):
                    own = [["PIDs", Variant("au", [pid])], ["Delegate", Variant("b", True)]]
                    own.append(["Description", Variant("s", f"Virtual Machine {machine}")])
                    own.append(["CollectMode", Variant("s", "inactive-or-failed")])
                    arguments = [scope, "fail", own + properties, []]
                    await _call(bus, SYSTEMD, "Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", arguments)
            finally:
                bus.disconnect()
        return await _path_of(pid, scope)
    except (OSError, DBusError, EOFError, TimeoutError) as exc:
        raise InternalError(f"systemd makes no scope for '{machine}': {str(exc) or 'no answer'}") from exc


async def set_weight(unit: str, name: str, value: int) -> None:
    """A weight of a running unit (CPUShares, CPUWeight, IOWeight…), else set back by systemd. InternalError."""
    try:
        async with asyncio.timeout(BUS_S):
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            try:
                arguments = [unit, True, [[name, Variant("t", value)]]]
                await _call(bus, SYSTEMD, "Manager", "SetUnitProperties", "sba(sv)", arguments)
            finally:
                bus.disconnect()
    except (OSError, DBusError, EOFError, TimeoutError) as exc:
        raise InternalError(f"systemd does not set {name} of '{unit}': {str(exc) or 'no answer'}") from exc


async def _register(
    bus: MessageBus, machine: str, uuid: UUID, pid: int, nets: Sequence[int], properties: list[list[Any]]
) -> bool:
    """Whether machined took the guest, and made its scope."""
    arguments = [machine, uuid.bytes, "libvirt-qemu", "vm", pid, "", list(nets), properties]
    try:
        await _call(bus, MACHINED, "Manager", "CreateMachineWithNetwork", "sayssusaia(sv)", arguments)
    except DBusError as exc:
        log.debug("machined does not register '%s': %s", machine, exc)
        return False
    return True


async def _call(bus: MessageBus, service: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
    message = Message(
        destination=service,
        path="/" + service.replace(".", "/"),
        interface=f"{service}.{interface}",
        member=member,
        signature=signature,
        body=body,
    )
    answer = await bus.call(message)
    if answer is None or answer.message_type is MessageType.ERROR:
        name = answer.error_name if answer is not None else None
        text = str(answer.body[0]) if answer is not None and answer.body else "no reason given"
        raise DBusError(name or "org.freedesktop.DBus.Error.Failed", text)


async def _path_of(pid: int, scope: str) -> str:
    """The scope's path, once the process is in it."""
    async with asyncio.timeout(SCOPE_S):
        while True:
            path = path_in_unit(pid, scope)
            if path is not None:
                return path
            await asyncio.sleep(POLL_S)
