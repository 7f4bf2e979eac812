"""Whatever a client sends, it gets an error reply or a closed connection, and nobody else notices."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pyvirtd.api.rpc import ADMIN, EVENTS, REMOTE
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.wire.packet import HEADER, MESSAGE_MAX, PacketType, Status, frame
from tests.daemon.harness import URI, Answered, RawClient, Serving, every_call, length_frame, procedure, serving

Work = Callable[[Serving, RawClient], Awaitable[None]]


def run(folder: Path, work: Work, config: str = "") -> None:
    """Do `work` with a client, and prove that another client is served before and after."""

    async def main() -> None:
        async with serving(folder, config) as server:
            other = await server.connect()
            await work(server, await server.connect())
            assert len(await other.call("connect_list_all_domains", 1, 0)) == 1

    asyncio.run(main())


async def error_of(client: RawClient, serial: int) -> Answered:
    packet = await client.reply(serial)
    assert packet is not None, "the connection was closed"
    assert packet.status == Status.ERROR
    return Answered(packet)


def test_numbers_that_are_no_call_get_an_rpc_error(tmp_path: Path) -> None:
    numbers = {m.number for m in EVENTS.values() if m.program is REMOTE}
    numbers |= {m.legacy for m in EVENTS.values() if m.legacy is not None}
    numbers |= {0, -1, 454, 1000, 2**31 - 1, -(2**31)}

    async def work(server: Serving, client: RawClient) -> None:
        for number in sorted(numbers):
            error = await error_of(client, client.send_call(number))
            assert error.code == ErrorNumber.RPC, number

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("program", "version", "kind", "status"),
    [
        (0x12345678, 1, PacketType.CALL, Status.OK),
        (ADMIN.number, 1, PacketType.CALL, Status.OK),
        (REMOTE.number, 2, PacketType.CALL, Status.OK),
        (REMOTE.number, 0, PacketType.CALL, Status.OK),
        (REMOTE.number, 1, PacketType.REPLY, Status.OK),
        (REMOTE.number, 1, PacketType.MESSAGE, Status.OK),
        (REMOTE.number, 1, 7, Status.OK),
        (REMOTE.number, 1, 2**32 - 1, Status.OK),
        (REMOTE.number, 1, PacketType.CALL, Status.ERROR),
        (REMOTE.number, 1, PacketType.CALL, Status.CONTINUE),
        (REMOTE.number, 1, PacketType.CALL, 77),
    ],
)
def test_wrong_header_words_get_an_rpc_error(
    tmp_path: Path, program: int, version: int, kind: int, status: int
) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        number = procedure("connect_get_hostname").number
        serial = client.send_call(number, program=program, version=version, kind=kind, status=status)
        assert (await error_of(client, serial)).code == ErrorNumber.RPC
        assert await client.call("connect_get_hostname") == "localhost"

    run(tmp_path, work)


def test_stream_packets_without_a_stream_are_dropped(tmp_path: Path) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        for kind in (PacketType.STREAM, PacketType.STREAM_HOLE):
            for status in (Status.OK, Status.ERROR, Status.CONTINUE):
                client.send(frame(REMOTE.number, 1, 201, kind, 5, status, b"data"))
        assert await client.call("connect_get_hostname") == "localhost"

    run(tmp_path, work)


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", b"\xff" * 64, b"\x7f" * 4096, bytes(3 * 4)], ids=repr)
def test_every_procedure_survives_a_payload_that_is_not_its_own(tmp_path: Path, payload: bytes) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        for declared in every_call():
            if declared.name == "connect_close":
                continue
            serial = client.send_call(declared.number, payload, program=declared.program.number)
            packet = await client.reply(serial)
            assert packet is not None, f"{declared.name} closed the connection"

    run(tmp_path, work)


def test_every_procedure_refuses_trailing_bytes(tmp_path: Path) -> None:
    """Valid arguments of each procedure, with four bytes too many."""

    async def work(server: Serving, client: RawClient) -> None:
        for declared in every_call():
            payload = smallest(declared.args.fields) + bytes(4)
            error = await error_of(client, client.send_call(declared.number, payload, program=declared.program.number))
            assert error.code == ErrorNumber.RPC, declared.name

    run(tmp_path, work)


def smallest(fields: object) -> bytes:
    """Zero words long enough for any list of fields: empty strings and lists, absent options."""
    from pyvirtd.wire.xdr import _least

    return bytes(sum(_least(kind) for _, kind in fields))  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", [0, 1, 27, MESSAGE_MAX + 5, 2**31, 2**32 - 1])
def test_a_broken_frame_closes_only_its_connection(tmp_path: Path, length: int) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        client.send(length_frame(length))
        assert await client.receive() is None

    run(tmp_path, work)


def test_a_truncated_frame_waits_and_costs_nothing(tmp_path: Path) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        client.send(length_frame(MESSAGE_MAX)[:20])
        await client.close()

    run(tmp_path, work)


def test_a_message_of_the_greatest_length_is_read(tmp_path: Path) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        payload = bytes(MESSAGE_MAX + 4 - HEADER.size)
        serial = client.send_call(procedure("connect_get_hostname").number, payload)
        assert (await error_of(client, serial)).code == ErrorNumber.RPC

    run(tmp_path, work)


@pytest.mark.parametrize("count", [-1, -(2**31), 2**31 - 1, 16385])
@pytest.mark.parametrize("name", ["connect_list_defined_domains", "connect_list_domains"])
def test_counts_out_of_bounds_are_refused(tmp_path: Path, name: str, count: int) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        with pytest.raises(Answered) as caught:
            await client.call(name, count)
        assert caught.value.code == ErrorNumber.RPC

    run(tmp_path, work)


def test_lists_are_cut_at_the_clients_count(tmp_path: Path) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        assert await client.call("connect_list_domains", 0) == []
        assert len(await client.call("connect_list_domains", 1)) == 1

    run(tmp_path, work)


@pytest.mark.parametrize("text", [b"te\0st", b"\xff\xfe\xfa\xfb", b"\xc3\x28aa"])
def test_strings_with_nul_or_broken_utf8_are_refused(tmp_path: Path, text: bytes) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        payload = struct.pack(">I", len(text)) + text + bytes(-len(text) % 4)
        error = await error_of(client, client.send_call(procedure("domain_lookup_by_name").number, payload))
        assert error.code == ErrorNumber.RPC

    run(tmp_path, work)


def test_a_huge_list_count_is_refused_before_allocation(tmp_path: Path) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        declared = procedure("connect_get_all_domain_stats")
        payload = struct.pack(">I", 16384) + bytes(8)
        error = await error_of(client, client.send_call(declared.number, payload))
        assert error.code == ErrorNumber.RPC

    run(tmp_path, work)


def test_calls_before_open_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as server:
            client = await server.connect(opened=False)
            with pytest.raises(Answered, match="connection not open"):
                await client.call("connect_list_all_domains", 1, 0)

    asyncio.run(main())


def test_announced_descriptors_that_never_come_get_an_error(tmp_path: Path) -> None:
    async def work(server: Serving, client: RawClient) -> None:
        payload = struct.pack(">I", 2)
        number = procedure("connect_get_hostname").number
        client.send(frame(REMOTE.number, 1, number, PacketType.CALL_WITH_FDS, 99, Status.OK, payload) + b"\0\0")
        assert (await error_of(client, 99)).code == ErrorNumber.RPC

    run(tmp_path, work)


def test_a_client_may_leave_at_any_byte(tmp_path: Path) -> None:
    declared = procedure("connect_open")
    whole = frame(REMOTE.number, 1, declared.number, PacketType.CALL, 1, Status.OK, declared.args.encode(URI, 0))

    async def work(server: Serving, client: RawClient) -> None:
        for end in range(len(whole) + 1):
            leaver = await server.connect(opened=False)
            leaver.send(whole[:end])
            await leaver.close()

    run(tmp_path, work)
