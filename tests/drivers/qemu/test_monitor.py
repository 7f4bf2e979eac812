"""The monitor against a server that misbehaves as no real QEMU will on demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.drivers.qemu.monitor import CommandRefused, Monitor, MonitorClosed
from pyvirtd.errors import InternalError, OperationTimeout

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}
Answer = Callable[["FakeQemu", dict[str, Any]], Awaitable[None]]


class FakeQemu:
    """Greets, negotiates, then answers as the test says."""

    def __init__(self, answer: Answer, *, greets: bool = True) -> None:
        self._answer = answer
        self._greets = greets
        self.writer: asyncio.StreamWriter

    def send(self, message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\r\n")

    def reply(self, request: dict[str, Any], value: Any) -> None:
        self.send({"return": value} | ({"id": request["id"]} if "id" in request else {}))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        if not self._greets:
            await reader.read()
            writer.close()
            return
        self.send(GREETING)
        text = ""
        while data := await reader.read(65536):  # messages end where their JSON does, as for QEMU
            text += data.decode()
            while text:
                try:
                    request, end = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                if request["execute"] == "qmp_capabilities":
                    self.reply(request, {})
                else:
                    await self._answer(self, request)
        writer.close()


@asynccontextmanager
async def connected(folder: Path, answer: Answer) -> AsyncIterator[tuple[Monitor, FakeQemu]]:
    qemu = FakeQemu(answer)
    server = await asyncio.start_unix_server(qemu.serve, str(folder / "m"), limit=1 << 24)
    monitor = Monitor("guest")
    await monitor.connect(folder / "m")
    try:
        yield monitor, qemu
    finally:
        await monitor.close()
        server.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work(), 20)

    asyncio.run(main())


async def silent(qemu: FakeQemu, request: dict[str, Any]) -> None:
    pass


def test_a_refusal_carries_qemus_words(tmp_path: Path) -> None:
    async def refuse(qemu: FakeQemu, request: dict[str, Any]) -> None:
        qemu.send({"error": {"class": "GenericError", "desc": "no such thing"}, "id": request["id"]})

    async def work() -> None:
        async with connected(tmp_path, refuse) as (monitor, _):
            with pytest.raises(CommandRefused, match="unable to execute QEMU command 'stop': no such thing"):
                await monitor.execute("stop")

    run(work)


def test_silence_ends_at_the_deadline_and_costs_no_later_command(tmp_path: Path) -> None:
    async def answer(qemu: FakeQemu, request: dict[str, Any]) -> None:
        if request["execute"] != "stop":
            qemu.reply(request, {"status": "running"})

    async def work() -> None:
        async with connected(tmp_path, answer) as (monitor, _):
            with pytest.raises(OperationTimeout, match="stop"):
                await monitor.execute("stop", timeout=0.1)
            assert await monitor.execute("query-status") == {"status": "running"}

    run(work)


def test_a_late_answer_goes_to_nobody_else(tmp_path: Path) -> None:
    late: list[dict[str, Any]] = []

    async def answer(qemu: FakeQemu, request: dict[str, Any]) -> None:
        if request["execute"] == "slow":
            late.append(request)
            return
        qemu.reply(late[0], "late")
        qemu.reply(request, "mine")

    async def work() -> None:
        async with connected(tmp_path, answer) as (monitor, _):
            with pytest.raises(OperationTimeout):
                await monitor.execute("slow", timeout=0.1)
            assert await monitor.execute("next") == "mine"

    run(work)


def test_commands_overlap_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    held: list[dict[str, Any]] = []

    async def answer(qemu: FakeQemu, request: dict[str, Any]) -> None:
        held.append(request)
        if len(held) == 3:
            for item in reversed(held):
                qemu.reply(item, item["execute"])

    async def work() -> None:
        async with connected(tmp_path, answer) as (monitor, _):
            answers = await asyncio.gather(*(monitor.execute(name) for name in ("a", "b", "c")))
            assert answers == ["a", "b", "c"]

    run(work)


def test_a_monitor_that_closes_fails_who_waits(tmp_path: Path) -> None:
    async def close(qemu: FakeQemu, request: dict[str, Any]) -> None:
        qemu.writer.close()

    async def work() -> None:
        async with connected(tmp_path, close) as (monitor, _):
            monitor.start(_ignore)
            with pytest.raises(MonitorClosed):
                await monitor.execute("stop")
            await asyncio.wait_for(monitor.closed.wait(), 5)
            with pytest.raises(MonitorClosed):
                await monitor.execute("stop")

    run(work)


async def _ignore(message: dict[str, Any]) -> None:
    pass


@pytest.mark.parametrize(
    "junk", [b"{not json}\r\n", b"[1, 2]\r\n", b'"text"\r\n', b"\xff\xfe\r\n", b'{"x": ' * 50 + b"\r\n"]
)
def test_junk_closes_the_monitor_and_nothing_else(tmp_path: Path, junk: bytes) -> None:
    async def answer(qemu: FakeQemu, request: dict[str, Any]) -> None:
        qemu.writer.write(junk)

    async def work() -> None:
        async with connected(tmp_path, answer) as (monitor, _):
            monitor.start(_ignore)
            with pytest.raises((MonitorClosed, OperationTimeout)):
                await monitor.execute("stop", timeout=1)

    run(work)


def test_a_line_without_end_is_bounded(tmp_path: Path) -> None:
    async def answer(qemu: FakeQemu, request: dict[str, Any]) -> None:
        for _ in range(20):
            qemu.writer.write(b"x" * (1 << 20))

    async def work() -> None:
        async with connected(tmp_path, answer) as (monitor, _):
            monitor.start(_ignore)
            with pytest.raises((MonitorClosed, OperationTimeout)):
                await monitor.execute("stop", timeout=3)

    run(work)


def test_events_come_in_order_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    seen: list[str] = []

    async def handler(message: dict[str, Any]) -> None:
        seen.append(message["event"])
        if message["event"] == "B":
            raise ValueError("handler")

    async def answer(qemu: FakeQemu, request: dict[str, Any]) -> None:
        for name in ("A", "B", "C"):
            qemu.send({"event": name, "timestamp": {"seconds": 1, "microseconds": 2}})
        qemu.reply(request, {})

    async def work() -> None:
        async with connected(tmp_path, answer) as (monitor, _):
            monitor.start(handler)
            await monitor.execute("go")
            await monitor.drain(0.2)
            assert seen == ["A", "B", "C"]

    run(work)


def test_no_greeting_is_reported_in_time(tmp_path: Path) -> None:
    async def work() -> None:
        server = await asyncio.start_unix_server(FakeQemu(silent, greets=False).serve, str(tmp_path / "m"))
        monitor = Monitor("guest")
        with pytest.raises(InternalError, match="'guest' does not answer"):
            await monitor.connect(tmp_path / "m", timeout=0.2)
        await monitor.close()
        server.close()

    run(work)


def test_no_socket_is_reported(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(InternalError, match="failed to connect to monitor socket"):
            await Monitor("guest").connect(tmp_path / "none")

    run(work)


def test_control_info_sees_a_pending_command(tmp_path: Path) -> None:
    async def work() -> None:
        async with connected(tmp_path, silent) as (monitor, _):
            task = asyncio.create_task(monitor.execute("stop", timeout=0.3))
            await asyncio.sleep(0.1)
            assert monitor.busy_since is not None
            await asyncio.gather(task, return_exceptions=True)
            assert monitor.busy_since is None

    run(work)
