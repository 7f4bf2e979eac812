"""How the host can sleep, told by a login manager that is not there."""

import asyncio
from collections.abc import Sequence

import pytest

from pyvirtd.constants.host import NodeSuspendTarget
from pyvirtd.core import host_power
from pyvirtd.core.host_power import HostSleep
from pyvirtd.errors import ArgumentUnsupported, InvalidArg, OperationFailed, OperationInvalid, VirtError
from pyvirtd.util.bus import BusError, Reply, Service
from pyvirtd.util.process import Result


class Manager:
    """Stands for the system bus; `answers` maps a member to the manager's word, or to what went wrong."""

    def __init__(self, answers: dict[str, str | BusError] | None) -> None:
        self.answers = answers
        self.open = False

    async def connect(self, *, timeout: float) -> "Manager":
        if self.answers is None:
            raise BusError("Could not connect: No such file or directory")
        self.open = True
        return self

    async def call(
        self, service: Service, member: str, signature: str = "", body: Sequence[object] = (), *, timeout: float
    ) -> Reply:
        assert self.answers is not None
        assert service.name == "org.freedesktop.login1"
        word = self.answers.get(member, BusError("no such method", refusal=True))
        if isinstance(word, BusError):
            raise word
        return Reply([word], [])

    async def __aenter__(self) -> "Manager":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open = False


def ask(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str | BusError] | None) -> tuple[tuple[str, ...], Manager]:
    bus = Manager(answers)
    monkeypatch.setattr(host_power, "Bus", bus)
    return asyncio.run(host_power.suspend_targets()), bus


def test_only_what_needs_no_question_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found, bus = ask(monkeypatch, {"CanSuspend": "yes", "CanHibernate": "challenge", "CanHybridSleep": "na"})
    assert found == ("suspend_mem",)
    assert not bus.open


def test_manager_without_the_call_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, {"CanHibernate": "yes"})[0] == ("suspend_disk",)


def test_host_without_a_bus_cannot_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, None)[0] == ()


def test_manager_that_keeps_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found, bus = ask(monkeypatch, {"CanSuspend": BusError("no answer within 5 s"), "CanHibernate": "yes"})
    assert found == ()
    assert not bus.open


# --- sleep --------------------------------------------------------------------------------------------------------


def sleep(monkeypatch: pytest.MonkeyPatch, target: int, duration_s: int, *, clock: int = 0) -> list[str]:
    """What the host is told, in order; the clock's program ends with `clock`."""
    told: list[str] = []

    class Told(Manager):
        async def call(
            self, service: Service, member: str, signature: str = "", body: Sequence[object] = (), *, timeout: float
        ) -> Reply:
            told.append(member)
            return await super().call(service, member, timeout=timeout)

    async def run(argv: list[str], *, timeout: float) -> Result:
        told.append(" ".join(argv))
        return Result(clock, b"", b"no such clock")

    monkeypatch.setattr(host_power, "Bus", Told({"CanSuspend": "yes", "Suspend": ""}))
    monkeypatch.setattr(host_power, "run", run)
    monkeypatch.setattr(host_power, "DELAY_S", 0.01)

    async def work() -> None:
        tasks: list[asyncio.Task[None]] = []
        host = HostSleep(lambda work, name: tasks.append(asyncio.create_task(work, name=name)))
        await host.suspend(target, duration_s)
        with pytest.raises(OperationInvalid, match="already in progress"):
            await host.suspend(target, duration_s)
        await asyncio.gather(*tasks)

    asyncio.run(work())
    return told


def test_the_clock_is_set_before_the_host_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    told = sleep(monkeypatch, NodeSuspendTarget.MEM, 60)
    assert told == ["CanSuspend", "CanHibernate", "CanHybridSleep", "rtcwake -m no -s 60", "Suspend"]


@pytest.mark.parametrize(
    ("target", "duration_s", "clock", "error", "text"),
    [
        (9, 60, 0, InvalidArg, "Invalid suspend target"),
        (NodeSuspendTarget.DISK, 60, 0, ArgumentUnsupported, "Suspend-to-Disk"),
        (NodeSuspendTarget.MEM, 59, 0, InvalidArg, "Suspend duration is too short"),
        (NodeSuspendTarget.MEM, 60, 1, OperationFailed, "cannot be set to wake it: no such clock"),
    ],
)
def test_a_host_that_is_not_to_sleep(
    monkeypatch: pytest.MonkeyPatch, target: int, duration_s: int, clock: int, error: type[VirtError], text: str
) -> None:
    with pytest.raises(error, match=text):
        sleep(monkeypatch, target, duration_s, clock=clock)
