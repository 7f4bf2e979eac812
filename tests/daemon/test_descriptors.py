"""Descriptors both ways: in order, and closed wherever nobody takes them."""

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyvirtd.api.rpc import QEMU, REMOTE
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.daemon import call_queue
from pyvirtd.errors import OperationFailed
from pyvirtd.util import threads
from pyvirtd.util.threads import closers
from pyvirtd.wire.packet import FDS_MAX, PacketType, Status, frame
from tests.daemon.doubles import DoubleDriver
from tests.daemon.harness import TEST, Answered, Serving, eventually, open_fds, procedure, serving
from tests.support.descriptors import until_closed

Work = Callable[[Serving, DoubleDriver], Awaitable[None]]
COMMAND = "domain_monitor_command_with_files"


def run(folder: Path, work: Work, config: str = "") -> None:
    """Do `work`, and prove that no descriptor was left open."""

    async def main() -> None:
        async with serving(folder, config, [DoubleDriver]) as server:
            driver = server.host.drivers[0]
            assert isinstance(driver, DoubleDriver)
            await work(server, driver)

    asyncio.run(main())
    before = open_fds()
    asyncio.run(main())
    assert open_fds() == before


@contextmanager
def files(folder: Path, count: int) -> Iterator[list[int]]:
    """Open files with names of their own."""
    fds = [os.open(folder / f"file{number}", os.O_RDWR | os.O_CREAT, 0o600) for number in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def names(fds: list[int]) -> list[str]:
    return [os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) for fd in fds]


def close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("count", [1, 2, FDS_MAX])
def test_files_of_a_call_arrive_in_order(tmp_path: Path, count: int) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, count) as fds:
            await client.call("domain_open_graphics", TEST, 0, 0, fds=fds)
            assert names(driver.received) == [f"file{number}" for number in range(count)]
            assert not any(os.get_inheritable(fd) for fd in driver.received)
            close(driver.received)

    run(tmp_path, work)


@pytest.mark.parametrize("count", [1, 3, FDS_MAX])
def test_files_of_a_reply_arrive_in_order_and_are_closed_here(tmp_path: Path, count: int) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, count) as driver.given:
            serial = client.start("domain_open_graphics_fd", TEST, 0, 0)
            packet = await client.reply(serial)
            assert packet is not None
            assert (packet.type, packet.fd_count) == (PacketType.REPLY_WITH_FDS, count)
            fds = client.take_fds(count)
            assert names(fds) == [f"file{number}" for number in range(count)]
            close(fds)

    run(tmp_path, work)


def test_files_go_both_ways_in_one_call(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 3) as fds:
            driver.given = fds[2:]
            answer = await client.call(COMMAND, TEST, "{}", 0, program=QEMU, fds=fds[:2])
            assert [os.path.basename(path) for path in answer.split(",")] == ["file0", "file1"]
            back = client.take_fds(1)
            assert names(back) == ["file2"]
            close(back)

    run(tmp_path, work)


def test_replies_around_one_with_files_keep_their_order(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 2) as driver.given:
            serials = []
            for _ in range(20):
                serials.append(client.start("connect_get_hostname"))
                serials.append(client.start("domain_open_graphics_fd", TEST, 0, 0))
            for serial in serials:
                packet = await client.receive()
                assert packet is not None
                assert packet.serial == serial
                close(client.take_fds(packet.fd_count))

    run(tmp_path, work)


def test_files_that_a_method_leaves_are_closed(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 5) as fds:
            await client.call("connect_get_hostname", fds=fds)
            await client.call(COMMAND, TEST, "{}", 0, program=QEMU, fds=fds)

    run(tmp_path, work)


def test_files_of_a_call_that_fails_are_closed(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 2) as fds:
            driver.failures = [OperationFailed("no"), ZeroDivisionError()]
            for _ in range(2):
                with pytest.raises(Answered):
                    await client.call(COMMAND, TEST, "{}", 0, program=QEMU, fds=fds)
            with pytest.raises(Answered, match="unsupported flags"):
                await client.call(COMMAND, TEST, "{}", 8, program=QEMU, fds=fds)
            with pytest.raises(Answered, match="not supported"):
                await client.call("domain_managed_save", TEST, 0, fds=fds)
            with pytest.raises(Answered, match="Domain not found"):
                await client.call("domain_open_graphics", TEST._replace(uuid=bytes(16)), 0, 0, fds=fds)
            serial = client.send_call(9999, fds=fds)
            packet = await client.reply(serial)
            assert packet is not None

    run(tmp_path, work)


def test_files_of_a_result_that_cannot_be_sent_are_closed(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 2) as driver.given:
            driver.result = "nul\0nul"
            with pytest.raises(Answered, match="Unable to encode") as caught:
                await client.call(COMMAND, TEST, "{}", 0, program=QEMU)
            assert caught.value.code == ErrorNumber.RPC
            assert not client.transport.fds

    run(tmp_path, work)


def test_more_files_than_a_message_holds_are_an_error(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, FDS_MAX + 1) as driver.given:
            with pytest.raises(Answered, match="33 descriptors"):
                await client.call("domain_open_graphics_fd", TEST, 0, 0)
            assert await client.call("connect_get_hostname") == "localhost"

    run(tmp_path, work)


def test_files_for_a_client_that_is_gone_are_closed(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 2) as fds:
            driver.given = fds
            driver.gate.clear()
            client.start(COMMAND, TEST, "{}", 0, program=QEMU, fds=fds)
            await asyncio.sleep(0.02)
            await client.close()
            await eventually(lambda: not server.server.clients)
            driver.gate.set()
            await asyncio.sleep(0.02)

    run(tmp_path, work)


def test_files_that_a_client_does_not_fetch_are_closed(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        client.transport.pause()
        with files(tmp_path, FDS_MAX) as driver.given:
            for _ in range(40):
                client.start("domain_open_graphics_fd", TEST, 0, 0)
            await asyncio.sleep(0.05)
            await client.close()
            await eventually(lambda: not server.server.clients)

    run(tmp_path, work)


def test_files_of_calls_that_wait_stay_with_their_call(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 4) as fds:
            driver.gate.clear()
            serials = [client.start(COMMAND, TEST, "{}", 0, program=QEMU, fds=[fd]) for fd in fds]
            await asyncio.sleep(0.02)
            driver.gate.set()
            answers = [await client.answer(serial, COMMAND, QEMU) for serial in serials]
            assert [os.path.basename(path) for path in answers] == ["file0", "file1", "file2", "file3"]

    run(tmp_path, work, "max_client_requests = 1\n")


def test_files_of_calls_that_wait_end_with_their_client(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 2) as fds:
            driver.gate.clear()
            for _ in range(5):
                client.start(COMMAND, TEST, "{}", 0, program=QEMU, fds=fds)
            await asyncio.sleep(0.02)
            await client.close()
            await eventually(lambda: not server.server.clients)
            driver.gate.set()
            await asyncio.sleep(0.02)

    run(tmp_path, work, "max_client_requests = 1\n")


def test_files_of_a_call_that_may_not_wait_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_queue, "WAITING_MAX", 1000)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 2) as fds:
            driver.gate.clear()
            for _ in range(20):
                client.start(COMMAND, TEST, "{}", 0, program=QEMU, fds=fds)
            await asyncio.sleep(0.02)
            driver.gate.set()

    run(tmp_path, work, "max_client_requests = 1\n")


def test_calls_that_wait_hold_few_files(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client, other = await server.connect(), await server.connect()
        with files(tmp_path, 16) as fds:
            driver.gate.clear()
            before = open_fds()
            serials = [client.start(COMMAND, TEST, "{}", 0, program=QEMU, fds=fds) for _ in range(20)]
            await other.call("connect_get_hostname")
            await eventually(lambda: not client.transport.queued)
            # Those of the call that runs are its own; the client has a copy of each until it is sent.
            await eventually(lambda: open_fds() - before <= call_queue.FILES_MAX + len(fds))
            plain = client.start("connect_get_hostname")  # without any it waits as ever
            driver.gate.set()
            answered = [await client.reply(serial) for serial in serials]
            refused = [Answered(packet).message for packet in answered if packet and packet.status == Status.ERROR]
            assert len(refused) == 20 - 1 - call_queue.FILES_MAX // len(fds)
            assert all("too many calls" in message for message in refused)
            assert await client.answer(plain, "connect_get_hostname") == "localhost"

    run(tmp_path, work, "max_client_requests = 1\n")


def test_a_file_whose_closing_takes_long_holds_up_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, close_now = threading.Event(), os.close

    def slow(fd: int) -> None:
        gate.wait(5)
        close_now(fd)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 1) as fds:
            gate.clear()
            serial = client.start("connect_get_hostname", fds=fds)
            await asyncio.sleep(0.05)  # the client's own copy is closed by now
            assert await client.answer(serial, "connect_get_hostname") == "localhost"
            assert await client.call("connect_get_hostname") == "localhost"
            assert not closers.idle
            gate.set()
            until_closed()

    monkeypatch.setattr(threads.os, "close", lambda fd: (slow if on_closer() else close_now)(fd))
    run(tmp_path, work)


def on_closer() -> bool:
    return threading.current_thread().name == "closer"


def test_files_that_no_call_announced_are_dropped_and_shift_nothing(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        sock = socket.socket(socket.AF_UNIX)
        client = await server.connect()
        sock.close()
        declared = procedure("connect_get_hostname")
        with files(tmp_path, 3) as fds:
            # On the bytes of a plain call, and on a part of one.
            whole = frame(REMOTE.number, 1, declared.number, PacketType.CALL, 90, 0, b"")
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fds[0]))]
            client.transport._sock.sendmsg([whole], rights)
            client.transport._sock.sendmsg([whole[:5]], rights)
            client.transport._sock.sendmsg([whole[5:]], rights)
            for _ in range(2):
                packet = await client.reply(90)
                assert packet is not None
            await client.call("domain_open_graphics", TEST, 0, 0, fds=fds[1:])
            assert names(driver.received) == ["file1", "file2"]
            close(driver.received)

    run(tmp_path, work)


def test_fewer_files_than_announced_are_an_error_and_closed(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        declared = procedure("domain_open_graphics")
        with files(tmp_path, 2) as fds:
            payload = struct.pack(">I", 2) + declared.args.encode(TEST, 0, 0)
            client.send(frame(REMOTE.number, 1, declared.number, PacketType.CALL_WITH_FDS, 70, 0, payload))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fds[0]))]
            client.transport._sock.sendmsg([b"\0"], rights)
            client.transport._sock.send(b"\0")
            packet = await client.reply(70)
            assert packet is not None
            assert "fewer descriptors" in Answered(packet).message
            await client.call("domain_open_graphics", TEST, 0, 0, fds=fds)
            assert names(driver.received) == ["file0", "file1"]
            close(driver.received)

    run(tmp_path, work)


@pytest.mark.parametrize("count", [FDS_MAX + 1, 200])
def test_too_many_files_at_once_close_the_connection(tmp_path: Path, count: int) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with files(tmp_path, 1) as fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fds[0]) * count)]
            client.transport._sock.sendmsg([b"\0"], rights)
            assert await client.receive() is None

    run(tmp_path, work)


def test_a_call_announced_with_too_many_files_closes_the_connection(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        payload = struct.pack(">I", FDS_MAX + 1)
        client.send(frame(REMOTE.number, 1, 59, PacketType.CALL_WITH_FDS, 70, 0, payload))
        assert await client.receive() is None

    run(tmp_path, work)
