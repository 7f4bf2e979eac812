"""An authentication agent for one process: says over standard output what it is asked, and declines when told to.

python polkit_agent.py PID: prints "ready", "asked ACTION", "cancelled"; "decline" or "wait" as a second word.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

AUTHORITY = "org.freedesktop.PolicyKit1"
AGENT = "org.freedesktop.PolicyKit1.AuthenticationAgent"
PATH = "/agent"


def subject(pid: int) -> dict[str, Variant]:
    """A process as polkit knows it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    uid = int(Path(f"/proc/{pid}/status").read_text().partition("Uid:")[2].split()[0])
    return {"pid": Variant("u", pid), "start-time": Variant("t", int(fields[19])), "uid": Variant("i", uid)}


async def main(process: dict[str, Variant], what: str) -> None:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()

    def asked(message: Message) -> Any:
        if message.message_type is not MessageType.METHOD_CALL or message.interface != AGENT:
            return None
        if message.member == "CancelAuthentication":
            print("cancelled", flush=True)
            return Message.new_method_return(message)
        print("asked", message.body[0], flush=True)
        if what == "decline":
            return Message.new_error(message, f"{AUTHORITY}.Error.Cancelled", "no")
        return True  # the answer never comes

    bus.add_message_handler(asked)
    reply = await bus.call(
        Message(
            destination=AUTHORITY,
            path=f"/{AUTHORITY.replace('.', '/')}/Authority",
            interface=f"{AUTHORITY}.Authority",
            member="RegisterAuthenticationAgent",
            signature="(sa{sv})ss",
            body=[["unix-process", process], "C", PATH],
        )
    )
    assert reply is not None
    assert reply.message_type is MessageType.METHOD_RETURN, reply.body
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(subject(int(sys.argv[1])), sys.argv[2]))
