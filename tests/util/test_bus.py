"""The bus, with a real bus daemon of the test's own."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbus_fast import Message

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


def send(address: str, name: str, *words: str) -> None:
    """A signal to one connection, from a client of no name."""
    subprocess.run(["dbus-send", f"--bus={address}", "--type=signal", f"--dest={name}", *words], check=True)


def test_a_services_signals_are_heard_and_nobody_elses(daemon: "subprocess.Popen[str]") -> None:
    """Here all may send signals to all, as on the system's bus."""
    service = Service("org.example.A", "/a", "org.example.A")
    address = os.environ[SYSTEM_ADDRESS]

    async def work() -> list[Signal]:
        heard: asyncio.Queue[Signal] = asyncio.Queue()
        async with await Bus.connect() as bus, await Bus.connect() as owner:
            name, counted = bus._connection.unique_name, []
            await bus.listen(heard.put_nowait, service, "Prepare")
            await asyncio.to_thread(send, address, name, "/a", "org.example.A.Prepare", "boolean:true")
            await owner.call(THE_BUS, "RequestName", "su", [service.name, 0])
            counted.append(await asyncio.wait_for(heard.get(), 5))
            for path, word in (("/a", "Prepare"), ("/a", "Other")):
                await asyncio.to_thread(send, address, name, path, f"org.example.A.{word}", "boolean:true")
            message = Message.new_signal("/a", service.interface, "Prepare", "b", [True])
            await owner._connection.send(message)
            counted.append(await asyncio.wait_for(heard.get(), 5))
            await owner.call(THE_BUS, "ReleaseName", "s", [service.name])
            counted.append(await asyncio.wait_for(heard.get(), 5))
            await owner._connection.send(Message.new_signal("/a", service.interface, "Prepare", "b", [True]))
            await bus.call(THE_BUS, "GetId")
        assert heard.empty()
        return counted

    first, second, third = asyncio.run(work())
    assert (first.member, second, third.member) == (
        "NameOwnerChanged",
        Signal("org.example.A", "Prepare", [True]),
        "NameOwnerChanged",
    )


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
