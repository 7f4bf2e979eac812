"""The QEMU side program: a client's own words to a guest's monitor and agent, and QEMU's own events."""

import json
import re
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from pyvirtd.api.events import QemuMonitorEvent
from pyvirtd.api.programs import QemuPart
from pyvirtd.api.rpc import Files, accepts
from pyvirtd.api.types import Caller
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.qemu import ConnectDomainQemuMonitorEventRegisterFlags as Register
from pyvirtd.constants.qemu import DomainQemuAgentCommandTimeoutValues as AgentTimeout
from pyvirtd.constants.qemu import DomainQemuMonitorCommandFlags as Command
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu.agent_calls import agent_of
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.monitor import CommandRefused
from pyvirtd.drivers.qemu.taint import Taint, taint
from pyvirtd.errors import InternalError, InvalidArg

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

COMMAND_S = 600.0  # commands such as savevm take their time
# QEMU's parser takes at most 2^21 tokens (qobject/json-streamer.c); a shorter text cannot have more.
COMMAND_MAX = 1 << 21
SHOWN_MAX = 1024
MONITOR_FAMILY = "qemu_monitor"


class Program(QemuPart[QemuDomain]):
    """The procedures of the QEMU program."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver
        self._numbers = count(1)

    # --- monitor ---------------------------------------------------------------------------------------------

    @accepts(Command.HMP, function="qemuDomainQemuMonitorCommandWithFiles")
    async def domain_monitor_command(self, dom: QemuDomain, cmd: str, flags: int) -> str:
        return await self._command(dom, cmd, flags, None)

    @accepts(Command.HMP)
    async def domain_monitor_command_with_files(self, dom: QemuDomain, cmd: str, flags: int, files: Files) -> str:
        # QEMU's monitor hands out no descriptors: none ever goes back.
        if len(files) > 1:
            raise InvalidArg("at most 1 fd can be passed to qemu along with a command", domain=From.QEMU)
        return await self._command(dom, cmd, flags, files[0] if files else None)

    async def _command(self, dom: QemuDomain, cmd: str, flags: int, fd: int | None) -> str:
        async with dom.jobs.hold(Job.QUERY, "DomainQemuMonitorCommand"):
            monitor = dom.monitor
            await taint(self.driver, dom, Taint.CUSTOM_MONITOR)
            if flags & Command.HMP:
                command: dict[str, Any] = {"execute": "human-monitor-command", "arguments": {"command-line": cmd}}
            else:
                command = parse_command(cmd)
            if (refusal := refusal_of(command)) is not None:
                return _compact(refusal)
            command["id"] = f"libvirt-{next(self._numbers)}"
            reply = await monitor.raw(json.dumps(command), fd, COMMAND_S)
        if not flags & Command.HMP:
            return _compact(reply)
        if (error := reply.get("error")) is not None:
            raise CommandRefused("human-monitor-command", str(error.get("class")), str(error.get("desc")))
        return str(reply["return"])

    # --- agent -----------------------------------------------------------------------------------------------

    @accepts(0)
    async def domain_agent_command(self, dom: QemuDomain, cmd: str, timeout: int, flags: int) -> str:
        _ = dom.running
        agent = agent_of(dom)
        await taint(self.driver, dom, Taint.CUSTOM_GA_COMMAND)
        if timeout < AgentTimeout.BLOCK:
            raise InvalidArg(f"guest agent timeout '{timeout}' is less than the minimum '-2'", domain=From.QEMU)
        return await agent.raw(cmd, timeout)

    # --- events ----------------------------------------------------------------------------------------------

    @accepts(Register.REGEX | Register.NOCASE, function="virDomainQemuMonitorEventStateRegisterID")
    def connect_domain_monitor_event_register(
        self, dom: QemuDomain | None, event: str | None, flags: int, caller: Caller
    ) -> int:
        return caller.subscribe(self.driver, MONITOR_FAMILY, 0, about=dom, pattern=event_filter(event, flags))

    def connect_domain_monitor_event_deregister(self, callback_id: int, caller: Caller) -> None:
        caller.unsubscribe(MONITOR_FAMILY, callback_id)


# --- commands ---------------------------------------------------------------------------------------------------


def parse_command(text: str) -> Any:
    """A client's JSON. Raises InternalError for what is none, or what QEMU would not even take for a message."""
    if len(text) > COMMAND_MAX:
        raise InternalError(f"a monitor command of {len(text)} characters", domain=From.QEMU)
    try:
        command = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        json.dumps(command, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise InternalError(f"cannot parse json {text[:SHOWN_MAX]}: {exc}") from None
    if isinstance(command, dict) and "id" in command:
        raise InternalError("Unable to append command 'id' string", domain=From.QEMU)
    return command


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _finite(word: str) -> float:
    number = float(word)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number {word} is too big")
    return number


def refusal_of(command: Any) -> dict[str, Any] | None:
    """QEMU's answer to what is no command, None for a command.

    Given here, as QEMU's own comes without the command's id and could not be told from that to another command.
    """
    if not isinstance(command, dict):
        return _refusal("QMP input must be a JSON object")
    for name, value in command.items():
        if name == "execute":
            if not isinstance(value, str):
                return _refusal("QMP input member 'execute' must be a string")
        elif name == "arguments":
            if not isinstance(value, dict):
                return _refusal("QMP input member 'arguments' must be an object")
        else:
            return _refusal(f"QMP input member '{name}' is unexpected")
    return None if "execute" in command else _refusal("QMP input lacks member 'execute'")


def _refusal(text: str) -> dict[str, Any]:
    return {"error": {"class": "GenericError", "desc": text}}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# --- events -----------------------------------------------------------------------------------------------------


def event_filter(name: str | None, flags: int) -> Callable[[QemuMonitorEvent], bool] | None:
    """Whether an event is wanted, by its name or a regular expression found in it; None wants all.

    Raises InvalidArg for what is no regular expression.
    """
    if name is None:
        return None
    if flags & Register.REGEX:
        try:
            pattern = re.compile(name, re.IGNORECASE if flags & Register.NOCASE else 0)
        except (re.error, OverflowError, RecursionError) as exc:
            raise InvalidArg(f"failed to compile regex '{name[:SHOWN_MAX]}': {exc}") from None
        return lambda body: pattern.search(body.event) is not None
    if flags & Register.NOCASE:
        lower = name.lower()
        return lambda body: body.event.lower() == lower
    return lambda body: body.event == name
