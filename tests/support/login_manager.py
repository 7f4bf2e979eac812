"""A small program that speaks the interface of systemd's login manager on the bus that it finds as the system's.

What it is asked it prints, a line each. A line `shutdown` on its input announces a shutdown of the host; it prints
`released` once every delay lock that it gave out is closed.

https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html
"""

import asyncio
import os
import sys

from dbus_fast import BusType
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, dbus_method, dbus_signal

NAME, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"


class Manager(ServiceInterface):
    def __init__(self) -> None:
        super().__init__(f"{NAME}.Manager")
        self.locks: list[int] = []

    @dbus_method()
    def Inhibit(self, what: "s", who: "s", why: "s", mode: "s") -> "h":  # type: ignore[name-defined]  # noqa: F821
        tell(f"inhibit {what} {who} {mode}")
        ours, theirs = os.pipe()
        self.locks.append(ours)
        asyncio.get_running_loop().call_later(1, os.close, theirs)  # once it was sent
        return theirs

    @dbus_signal()
    def PrepareForShutdown(self, start: bool) -> "b":  # type: ignore[name-defined]  # noqa: F821
        return start

    @dbus_method()
    def CanSuspend(self) -> "s":  # type: ignore[name-defined]  # noqa: F821
        return "yes"

    @dbus_method()
    def CanHibernate(self) -> "s":  # type: ignore[name-defined]  # noqa: F821
        return "no"

    @dbus_method()
    def CanHybridSleep(self) -> "s":  # type: ignore[name-defined]  # noqa: F821
        return "no"

    @dbus_method()
    def Suspend(self, interactive: "b") -> None:  # type: ignore[name-defined]  # noqa: F821
        tell("suspend")


def tell(words: str) -> None:
    print(words, flush=True)


async def main() -> None:
    manager = Manager()
    bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
    bus.export(PATH, manager)
    await bus.request_name(NAME)
    tell("ready")
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line == "shutdown":
            manager.PrepareForShutdown(True)
            for lock in manager.locks:
                await asyncio.to_thread(os.read, lock, 1)
            tell("released")
        elif line == "quit":
            break
    bus.disconnect()


asyncio.run(main())
