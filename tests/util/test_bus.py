"""The bus, with a real bus daemon of the test's own."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvirtd.util.bus import SESSION_ADDRESS, SYSTEM_ADDRESS, THE_BUS, Bus, BusError, Service, Signal, variant

OTHER = Service("org.example.Nobody", "/", "org.example.Nobody")


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    if not shutil.which("dbus-daemon"):
        pytest.skip("dbus-daemon is not installed")
    address = f"unix:path={tmp_path}/bus"
    command = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}", "--print-address=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setenv(SESSION_ADDRESS, address)
        monkeypatch.setenv(SYSTEM_ADDRESS, address)
        yield process
        process.send_signal(signal.SIGCONT)
        process.kill()


def test_a_method_answers(daemon: "subprocess.Popen[str]") -> None:
    async def work() -> None:
        async with await Bus.connect() as bus:
            reply = await bus.call(THE_BUS, "GetNameOwner", "s", [THE_BUS.name])
            assert reply.body == [THE_BUS.name]
        assert not bus.connected

    asyncio.run(work())


def test_a_refusal_says_so(daemon: "subprocess.Popen[str]") -> None:
    async def work() -> None:
        async with await Bus.connect(session=True) as bus:
            with pytest.raises(BusError, match=r"org\.example\.Nobody") as caught:
                await bus.call(OTHER, "Frob", "v", [variant("s", "word")])
            assert caught.value.refusal
            assert bus.connected

    asyncio.run(work())


def test_signals_are_heard(daemon: "subprocess.Popen[str]") -> None:
    async def work() -> list[Signal]:
        heard: asyncio.Queue[Signal] = asyncio.Queue()
        async with await Bus.connect() as bus:
            await bus.listen(
                heard.put_nowait, f"sender='{THE_BUS.name}',member='NameOwnerChanged',arg0='org.example.A'"
            )
            await bus.call(THE_BUS, "RequestName", "su", ["org.example.A", 0])
            found = [await asyncio.wait_for(heard.get(), 5)]
            while found[-1].member != "NameOwnerChanged":
                found.append(await asyncio.wait_for(heard.get(), 5))
            return found

    last = asyncio.run(work())[-1]
    assert (last.interface, last.body[:2]) == (THE_BUS.interface, ["org.example.A", ""])


def test_a_bus_that_keeps_silent_is_not_waited_for(daemon: "subprocess.Popen[str]") -> None:
    async def work() -> None:
        async with await Bus.connect() as bus:
            daemon.send_signal(signal.SIGSTOP)
            with pytest.raises(BusError, match="no answer within 0 s") as caught:
                await bus.call(THE_BUS, "GetId", timeout=0.1)
            assert not caught.value.refusal
            with pytest.raises(BusError, match="Could not connect: TimeoutError"):
                await Bus.connect(timeout=0.1)

    asyncio.run(work())


def test_the_end_of_the_bus_is_noticed(daemon: "subprocess.Popen[str]") -> None:
    async def work() -> None:
        async with await Bus.connect() as bus:
            closed = asyncio.ensure_future(bus.wait_closed())
            await asyncio.sleep(0)
            daemon.kill()
            await asyncio.wait_for(closed, 5)
            with pytest.raises(BusError):
                await bus.call(THE_BUS, "GetId", timeout=1)

    asyncio.run(work())


def test_a_host_without_a_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SYSTEM_ADDRESS, f"unix:path={tmp_path}/none")
    with pytest.raises(BusError, match="Could not connect: No such file or directory"):
        asyncio.run(Bus.connect())
    assert os.listdir(tmp_path) == []
