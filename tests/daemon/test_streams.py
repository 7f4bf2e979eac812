"""Byte streams: both ways, holes, ends, aborts, flow control."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pyvirtd.api.types import Hole, Stream
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.daemon import streams as streams_module
from pyvirtd.daemon.streams import HOLE, IN_HIGH, OUT_HIGH
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.wire.packet import STREAM_PAYLOAD_MAX, Packet, PacketType, Status, frame
from tests.daemon.doubles import VOL, DoubleDriver
from tests.daemon.harness import Answered, RawClient, Serving, eventually, procedure, serving

Work = Callable[[Serving, DoubleDriver], Awaitable[None]]
SPARSE = 1
WHOLE = (0, 0, 0)  # offset, length, flags of a transfer


def run(folder: Path, work: Work) -> None:
    async def main() -> None:
        async with serving(folder, "", [DoubleDriver]) as server:
            driver = server.host.drivers[0]
            assert isinstance(driver, DoubleDriver)
            await work(server, driver)
            for client in list(server.server.clients):
                assert not client.streams

    asyncio.run(main())


class Transfer:
    """The client's side of one stream."""

    def __init__(self, client: RawClient, serial: int, name: str) -> None:
        self.client = client
        self.serial = serial
        self.declared = procedure(name)

    @classmethod
    async def open(cls, client: RawClient, name: str, flags: int = 0) -> "Transfer":
        serial = client.start(name, VOL, 0, 0, flags)
        await client.answer(serial, name)
        return cls(client, serial, name)

    def send(self, data: bytes, status: int = Status.CONTINUE, kind: int = PacketType.STREAM) -> None:
        declared = self.declared
        self.client.send(frame(declared.program.number, 1, declared.number, kind, self.serial, status, data))

    def hole(self, length: int) -> None:
        self.send(HOLE.encode(length, 0), kind=PacketType.STREAM_HOLE)

    def finish(self) -> None:
        self.send(b"", Status.OK)

    def abort(self) -> None:
        self.send(b"", Status.ERROR)

    async def packet(self) -> Packet:
        """The stream's next packet; those of others stay. Raises Answered when it is an error."""
        kept = []
        while True:
            packet = await self.client.receive()
            assert packet is not None, "the connection was closed"
            if packet.serial == self.serial:
                self.client.packets.extendleft(reversed(kept))
                assert packet.procedure == self.declared.number
                assert packet.type in (PacketType.STREAM, PacketType.STREAM_HOLE)
                if packet.status == Status.ERROR:
                    raise Answered(packet)
                return packet
            kept.append(packet)

    async def confirmed(self) -> None:
        """The answer to a finish or an abort."""
        packet = await self.packet()
        assert (packet.status, packet.payload) == (Status.OK, b"")

    async def data(self) -> bytes:
        """All data up to the end of file."""
        found = []
        while (packet := await self.packet()).payload:
            assert packet.status == Status.CONTINUE
            found.append(packet.payload)
        assert packet.status == Status.CONTINUE
        return b"".join(found)


class Sink:
    """A pump that takes all that the client sends."""

    def __init__(self) -> None:
        self.items: list[bytes | Hole] = []
        self.ended = False
        self.broken = False

    async def __call__(self, stream: Stream) -> None:
        try:
            while (item := await stream.read()) is not None:
                self.items.append(item)
            self.ended = True
        except (asyncio.CancelledError, VirtError):
            self.broken = True
            raise

    @property
    def data(self) -> bytes:
        return b"".join(item for item in self.items if isinstance(item, bytes))


# --- from the client --------------------------------------------------------------------------------------------------


def test_uploaded_data_reaches_the_driver_in_order(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        transfer = await Transfer.open(await server.connect(), "storage_vol_upload")
        sent = [os.urandom(size) for size in (1, 3, 4, 70000, STREAM_PAYLOAD_MAX)]
        for data in sent:
            transfer.send(data)
        transfer.finish()
        await transfer.confirmed()
        assert sink.items == sent
        assert sink.ended

    run(tmp_path, work)


def test_data_sent_right_behind_the_call_is_not_lost(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        client = await server.connect()
        transfer = Transfer(client, client.start("storage_vol_upload", VOL, *WHOLE), "storage_vol_upload")
        transfer.send(b"early")
        transfer.finish()
        await client.answer(transfer.serial, "storage_vol_upload")
        await transfer.confirmed()
        assert sink.data == b"early"

    run(tmp_path, work)


def test_an_upload_is_confirmed_only_when_the_driver_is_done(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        written = asyncio.Event()

        async def pump(stream: Stream) -> None:
            while await stream.read() is not None:
                pass
            await written.wait()

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), "storage_vol_upload")
        transfer.send(b"data")
        transfer.finish()
        await asyncio.sleep(0.05)
        assert not transfer.client.packets
        written.set()
        await transfer.confirmed()

    run(tmp_path, work)


def test_a_finish_is_answered_by_the_error_of_the_last_write(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            while await stream.read() is not None:
                pass
            raise OSError(28, "No space left on device")

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), "storage_vol_upload")
        transfer.finish()
        with pytest.raises(Answered, match="No space left") as caught:
            await transfer.confirmed()
        assert caught.value.code == ErrorNumber.SYSTEM_ERROR

    run(tmp_path, work)


def test_an_empty_packet_ends_the_data_and_the_finish_is_answered_later(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        transfer = await Transfer.open(await server.connect(), "storage_vol_upload")
        transfer.send(b"data")
        transfer.send(b"")
        transfer.send(b"after the end")
        await eventually(lambda: sink.ended)
        assert sink.data == b"data"
        assert await transfer.data() == b""  # the driver's end
        transfer.finish()
        await transfer.confirmed()

    run(tmp_path, work)


def test_holes_come_as_holes_where_they_were_asked_for(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        transfer = await Transfer.open(await server.connect(), "storage_vol_upload", SPARSE)
        transfer.send(b"a")
        transfer.hole(1 << 40)
        transfer.send(b"b")
        transfer.finish()
        await transfer.confirmed()
        assert sink.items == [b"a", Hole(1 << 40), b"b"]

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("flags", "payload"),
    [(0, HOLE.encode(5, 0)), (SPARSE, HOLE.encode(-1, 0)), (SPARSE, b"\0" * 7), (SPARSE, b"\0" * 16)],
    ids=["not asked for", "negative", "too short", "too long"],
)
def test_bad_holes_abort_the_stream_alone(tmp_path: Path, flags: int, payload: bytes) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        client = await server.connect()
        transfer = await Transfer.open(client, "storage_vol_upload", flags)
        transfer.send(payload, kind=PacketType.STREAM_HOLE)
        with pytest.raises(Answered):
            await transfer.packet()
        await eventually(lambda: sink.broken)
        assert await client.call("connect_get_hostname") == "localhost"

    run(tmp_path, work)


# --- to the client ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, STREAM_PAYLOAD_MAX, STREAM_PAYLOAD_MAX + 1, 5_000_000])
def test_downloaded_data_arrives_in_pieces_that_every_peer_takes(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            await stream.write(content)

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), "storage_vol_download")
        assert await transfer.data() == content
        transfer.finish()
        await transfer.confirmed()

    run(tmp_path, work)


def test_no_packet_is_longer_than_every_peer_takes(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            await stream.write(bytes(600_000))

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), "storage_vol_download")
        sizes = [len((await transfer.packet()).payload) for _ in range(4)]
        assert sizes == [STREAM_PAYLOAD_MAX, STREAM_PAYLOAD_MAX, 600_000 - 2 * STREAM_PAYLOAD_MAX, 0]
        transfer.finish()
        await transfer.confirmed()

    run(tmp_path, work)


def test_a_hole_is_sent_as_one_or_as_zeros(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            await stream.write(b"a")
            await stream.write_hole(300_000)
            await stream.write(b"b")

        driver.pump = pump
        client = await server.connect()
        plain = await Transfer.open(client, "storage_vol_download")
        assert await plain.data() == b"a" + bytes(300_000) + b"b"
        plain.finish()
        await plain.confirmed()
        sparse = await Transfer.open(client, "storage_vol_download", SPARSE)
        packets = [await sparse.packet() for _ in range(4)]
        assert [packet.type for packet in packets] == [3, 6, 3, 3]
        assert HOLE.decode(packets[1].payload) == (300_000, 0)
        sparse.finish()
        await sparse.confirmed()

    run(tmp_path, work)


def test_nothing_is_sent_before_the_call_is_answered(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        answer = asyncio.Event()

        async def pump(stream: Stream) -> None:
            await stream.write(b"data")

        driver.pump = pump
        driver.before_answer = answer.wait  # type: ignore[method-assign, assignment]
        client = await server.connect()
        transfer = Transfer(client, client.start("storage_vol_download", VOL, *WHOLE), "storage_vol_download")
        await asyncio.sleep(0.05)
        assert not client.packets
        answer.set()
        await asyncio.sleep(0.05)
        assert [packet.type for packet in client.packets] == [1, 3, 3]
        await client.answer(transfer.serial, "storage_vol_download")
        assert await transfer.data() == b"data"
        transfer.abort()
        await transfer.confirmed()

    run(tmp_path, work)


def test_an_abort_before_the_answer_follows_it(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            raise OperationFailed("broken from the start")

        async def before_answer() -> None:
            await asyncio.sleep(0.02)

        driver.pump = pump
        driver.before_answer = before_answer  # type: ignore[method-assign]
        transfer = await Transfer.open(await server.connect(), "storage_vol_download")
        with pytest.raises(Answered, match="broken from the start"):
            await transfer.packet()

    run(tmp_path, work)


def test_a_call_that_fails_has_no_stream(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        broken = []

        async def pump(stream: Stream) -> None:
            try:
                await stream.write(b"data")
            except VirtError:
                broken.append(stream)
                raise

        async def before_answer() -> None:
            await asyncio.sleep(0.02)
            raise OperationFailed("no")

        driver.pump = pump
        driver.before_answer = before_answer  # type: ignore[method-assign]
        client = await server.connect()
        with pytest.raises(Answered, match="no"):
            await Transfer.open(client, "storage_vol_download")
        await eventually(lambda: broken)
        assert not client.packets

    run(tmp_path, work)


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["storage_vol_upload", "storage_vol_download"])
def test_a_clients_abort_cancels_the_pump_and_is_confirmed(tmp_path: Path, name: str) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        ends = []

        async def pump(stream: Stream) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ends.append(stream.closed)

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), name)
        transfer.abort()
        await transfer.confirmed()
        await eventually(lambda: ends == [True])

    run(tmp_path, work)


def test_a_finish_before_the_end_of_a_download_cancels_the_pump(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        ended = []

        async def pump(stream: Stream) -> None:
            try:
                await stream.write(b"first")
                await asyncio.sleep(60)
            finally:
                ended.append(1)

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), "storage_vol_download")
        assert (await transfer.packet()).payload == b"first"
        transfer.finish()
        await transfer.confirmed()
        await eventually(lambda: ended)

    run(tmp_path, work)


def test_a_driver_may_abort_from_anywhere(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        held = []

        async def pump(stream: Stream) -> None:
            held.append(stream)
            await stream.read()

        driver.pump = pump
        client = await server.connect()
        transfer = await Transfer.open(client, "storage_vol_upload")
        await eventually(lambda: held)
        held[0].abort(OperationFailed("another client took over"))
        with pytest.raises(Answered, match="another client took over"):
            await transfer.packet()
        assert held[0].closed
        with pytest.raises(OperationFailed):
            await held[0].write(b"late")

    run(tmp_path, work)


def test_a_pump_that_panics_aborts_and_only_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            raise ZeroDivisionError("secret of the inside")

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), "storage_vol_download")
        with pytest.raises(Answered) as caught:
            await transfer.packet()
        assert caught.value.code == ErrorNumber.INTERNAL_ERROR
        assert "secret" not in caught.value.message

    with caplog.at_level(logging.ERROR):
        run(tmp_path, work)
    assert "secret of the inside" in caplog.text


def test_packets_after_the_end_are_ignored(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            raise OperationFailed("over")

        driver.pump = pump
        client = await server.connect()
        transfer = await Transfer.open(client, "storage_vol_upload")
        with pytest.raises(Answered, match="over"):
            await transfer.packet()
        for status in (Status.CONTINUE, Status.OK, Status.ERROR):
            transfer.send(b"late", status)
        transfer.hole(5)
        assert await client.call("connect_get_hostname") == "localhost"
        assert not client.packets

    run(tmp_path, work)


def test_a_lost_client_cancels_the_pump_mid_stream(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        client = await server.connect()
        transfer = await Transfer.open(client, "storage_vol_upload")
        transfer.send(b"data")
        await eventually(lambda: sink.items)
        await client.close()
        await eventually(lambda: sink.broken)

    run(tmp_path, work)


def test_a_closed_connection_ends_its_streams(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        client = await server.connect()
        await Transfer.open(client, "storage_vol_upload")
        await asyncio.sleep(0)
        await client.call("connect_close")
        await eventually(lambda: sink.broken)

    run(tmp_path, work)


def test_a_pump_always_gets_to_its_first_step(tmp_path: Path) -> None:
    """So that what it holds is released even when the client is gone before it begins."""

    async def work(server: Serving, driver: DoubleDriver) -> None:
        released = []

        async def pump(stream: Stream) -> None:
            try:
                await stream.read()
            finally:
                released.append(1)

        driver.pump = pump
        client = await server.connect()
        transfer = Transfer(client, client.start("storage_vol_upload", VOL, *WHOLE), "storage_vol_upload")
        transfer.abort()
        await client.answer(transfer.serial, "storage_vol_upload")
        await transfer.confirmed()
        await eventually(lambda: released)

    run(tmp_path, work)


def test_a_serial_in_use_is_refused(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = Sink()
        client = await server.connect()
        transfer = await Transfer.open(client, "storage_vol_upload")
        client.serial -= 1
        with pytest.raises(Answered, match="serial"):
            await client.call("storage_vol_upload", VOL, *WHOLE)
        transfer.send(b"still there")
        transfer.finish()
        await transfer.confirmed()

    run(tmp_path, work)


def test_two_streams_at_once_do_not_mix(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        sinks = []

        def pump(stream: Stream) -> Awaitable[None]:
            sinks.append(Sink())
            return sinks[-1](stream)

        driver.pump = pump  # type: ignore[assignment]
        client = await server.connect()
        one = await Transfer.open(client, "storage_vol_upload")
        two = await Transfer.open(client, "storage_vol_upload")
        for number in range(50):
            one.send(b"1%d" % number)
            two.send(b"2%d" % number)
        two.finish()
        await two.confirmed()
        one.finish()
        await one.confirmed()
        assert sinks[0].data == b"".join(b"1%d" % number for number in range(50))
        assert sinks[1].data == b"".join(b"2%d" % number for number in range(50))

    run(tmp_path, work)


# --- flow control -----------------------------------------------------------------------------------------------------


def test_a_slow_client_makes_the_writer_wait(tmp_path: Path) -> None:
    total = 16 << 20

    async def work(server: Serving, driver: DoubleDriver) -> None:
        written = 0

        async def pump(stream: Stream) -> None:
            nonlocal written
            while written < total:
                await stream.write(bytes(65536))
                written += 65536

        driver.pump = pump
        client = await server.connect()
        peer = server.peers()[0]
        transfer = await Transfer.open(client, "storage_vol_download")
        client.transport.pause()
        await asyncio.sleep(0.1)
        before = written
        assert peer.transport.queued <= OUT_HIGH + STREAM_PAYLOAD_MAX
        await asyncio.sleep(0.1)
        assert written == before < total
        client.transport.resume()
        assert len(await transfer.data()) == total
        transfer.finish()
        await transfer.confirmed()

    run(tmp_path, work)


def test_calls_are_answered_beside_a_download_that_waits(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            await stream.write(bytes(8 << 20))

        driver.pump = pump
        client = await server.connect()
        transfer = await Transfer.open(client, "storage_vol_download")
        assert await client.call("connect_get_hostname") == "localhost"
        assert len(await transfer.data()) == 8 << 20
        transfer.finish()
        await transfer.confirmed()

    run(tmp_path, work)


def held_back(driver: DoubleDriver) -> tuple[asyncio.Event, Sink]:
    """Have the driver take nothing of a stream until the event is set."""
    go, sink = asyncio.Event(), Sink()

    async def pump(stream: Stream) -> None:
        await go.wait()
        await sink(stream)

    driver.pump = pump
    return go, sink


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_slow_driver_pauses_the_connection_and_all_arrives(tmp_path: Path, size: int) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        go, sink = held_back(driver)
        client = await server.connect()
        peer = server.peers()[0]
        transfer = await Transfer.open(client, "storage_vol_upload")
        count = (4 << 20) // size
        for _ in range(count):
            transfer.send(bytes(size))
        transfer.finish()
        await eventually(lambda: peer.transport.paused)
        stream = next(iter(peer.streams.values()))
        await asyncio.sleep(0.05)
        assert stream._in_bytes < IN_HIGH + 200_000
        go.set()
        await transfer.confirmed()
        assert len(sink.data) == count * size
        assert not peer.transport.paused

    run(tmp_path, work)


def test_a_connection_with_two_reasons_to_pause_is_read_again_when_both_are_gone(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        go, sink = held_back(driver)
        client = await server.connect()
        peer = server.peers()[0]
        transfer = await Transfer.open(client, "storage_vol_upload")
        for _ in range(40):
            transfer.send(bytes(100_000))
        transfer.finish()
        await eventually(lambda: peer.transport.paused)
        peer.hold()
        peer.go_on()
        assert peer.transport.paused  # the stream is behind still
        peer.hold()
        go.set()
        await eventually(lambda: len(sink.data) > IN_HIGH)
        assert not next(iter(peer.streams.values()))._in
        assert peer.transport.paused  # it is held still
        peer.go_on()
        await transfer.confirmed()
        assert len(sink.data) == 4_000_000

    run(tmp_path, work)


def test_a_stalled_driver_is_given_up_and_the_connection_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "STALL_S", 0.1)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            await asyncio.sleep(60)

        driver.pump = pump
        client = await server.connect()
        transfer = await Transfer.open(client, "storage_vol_upload")
        for _ in range(30):
            transfer.send(bytes(100_000))
        with pytest.raises(Answered, match="takes no data"):
            await transfer.packet()
        assert await client.call("connect_get_hostname") == "localhost"

    run(tmp_path, work)


def test_a_driver_that_progresses_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "STALL_S", 0.3)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        taken = 0

        async def pump(stream: Stream) -> None:
            nonlocal taken
            while (item := await stream.read()) is not None:
                taken += len(item)
                await asyncio.sleep(0.03)

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), "storage_vol_upload")
        for _ in range(30):
            transfer.send(bytes(100_000))
        transfer.finish()
        await transfer.confirmed()
        assert taken == 3_000_000

    run(tmp_path, work)


def test_holes_count_against_a_slow_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "STALL_S", 0.1)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            await asyncio.sleep(60)

        driver.pump = pump
        transfer = await Transfer.open(await server.connect(), "storage_vol_upload", SPARSE)
        for _ in range(30000):
            transfer.hole(1)
        with pytest.raises(Answered, match="takes no data"):
            await transfer.packet()

    run(tmp_path, work)


def test_a_client_is_not_dropped_as_silent_while_it_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        go = asyncio.Event()
        sink = Sink()

        async def pump(stream: Stream) -> None:
            await go.wait()
            await sink(stream)

        driver.pump = pump
        client = await server.connect()
        transfer = await Transfer.open(client, "storage_vol_upload")
        server.server.keepalive_interval, server.server.keepalive_count = 0.05, 1  # type: ignore[assignment]
        await client.call("connect_supports_feature", 10)
        for _ in range(30):
            transfer.send(bytes(100_000))
        transfer.finish()
        await asyncio.sleep(0.3)
        go.set()
        await transfer.confirmed()

    run(tmp_path, work)
