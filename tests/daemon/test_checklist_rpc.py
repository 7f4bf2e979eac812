"""Faults that libvirt once had in decoding and dispatching calls, each tried on ours. Numbered; with the CVE's name.

Where the fault was in a driver's method, it is tried on the QEMU driver, in a real session daemon.
"""

import asyncio
import gc
import os
import socket
import struct
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.rpc import ADMIN, EVENTS, KEEPALIVE, LXC, QEMU, REMOTE, Procedure, Shape
from pyvirtd.api.types import DomainRef, Hole, Stream
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.daemon.keepalive import Keepalive
from pyvirtd.errors import OperationFailed
from pyvirtd.util.threads import close_fds
from pyvirtd.wire.packet import PacketType, Status, frame
from pyvirtd.wire.xdr import Fmt, List, Struct
from tests.daemon.doubles import VOL, DoubleDriver
from tests.daemon.harness import (
    TEST,
    URI,
    Answered,
    RawClient,
    Serving,
    eventually,
    every_call,
    open_fds,
    procedure,
    serving,
)
from tests.daemon.test_bad_input import smallest
from tests.support.domains import bare_domain
from tests.support.host import SessionHost

Work = Callable[[Serving, DoubleDriver], Awaitable[None]]
DOMAINS = ("raw", "raw2", "raw3")  # that are off
EDGES = {
    "i": (-(2**31), -1, 0, 1, 2**31 - 1),
    "I": (0, 1, 2**31, 2**32 - 1),
    "q": (-(2**63), -1, 0, 2**63 - 1),
    "Q": (0, 2**63, 2**64 - 1),
}


@pytest.fixture(autouse=True)
def nothing_fails_here(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is our fault, in a call or in the loop, is in the log with its traceback."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if record.exc_info]


def run(folder: Path, work: Work, config: str = "") -> None:
    """Do `work` on a server of doubles, and prove that it serves afterwards."""

    async def main() -> None:
        async with serving(folder, config, [DoubleDriver]) as server:
            driver = server.host.drivers[0]
            assert isinstance(driver, DoubleDriver)
            await work(server, driver)
            await (await server.connect(opened=False)).call("auth_list")

    asyncio.run(main())


def talk(session: SessionHost, work: Callable[[RawClient, DomainRef], Awaitable[None]], flags: int = 0) -> None:
    """Do `work` with a raw connection to the session daemon and a domain that is off, and prove that it lives.

    That a call is answered says little: an index out of range is answered, too. The log tells them apart.
    """
    for name in DOMAINS:
        if name not in session.ok("list --all --name").split():
            session.define(bare_domain(name))
    dom = DomainRef("raw", uuid.UUID(session.ok("domuuid raw")).bytes, -1)

    async def main() -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(session.socket))
        client = RawClient(sock)
        await client.call("auth_list")
        await client.call("connect_open", session.uri, flags)
        try:
            await work(client, dom)
        finally:
            await client.close()

    asyncio.run(main())
    assert "raw" in session.ok("list --all --name")
    assert "Traceback" not in session.log()


async def outcome(client: RawClient, declared: Procedure, payload: bytes) -> int:
    """The code of a call's error, 0 for none."""
    error = await error_of(client, declared, payload)
    return error.code if error is not None else 0


async def error_of(client: RawClient, declared: Procedure, payload: bytes) -> Answered | None:
    packet = await client.reply(client.send_call(declared.number, payload, program=declared.program.number))
    assert packet is not None, f"{declared.name} closed the connection"
    return Answered(packet) if packet.status == Status.ERROR else None


def with_edges(declared: Procedure, dom: DomainRef) -> list[bytes]:
    """The smallest arguments, with each number at each of its edges in turn, and all of them at once."""
    base = list(declared.args.decode(smallest(declared.args.fields)))
    for at, (_, kind) in enumerate(declared.args.fields):
        if isinstance(kind, Struct) and kind.cls is DomainRef:
            base[at] = dom
    numbers = [
        (at, EDGES[kind.code])
        for at, (name, kind) in enumerate(declared.args.fields)
        if isinstance(kind, Fmt) and kind.code in EDGES and name != "flags"
    ]
    found = []
    for at, edges in numbers:
        for edge in edges:
            values = list(base)
            values[at] = edge
            found.append(declared.args.encode(*values))
    for end in (0, -1):
        values = list(base)
        for at, edges in numbers:
            values[at] = edges[end]
        found.append(declared.args.encode(*values))
    return found


def lists() -> list[Procedure]:
    """The procedures that list or count something."""
    words = ("_list_", "_num_of_", "_list_all_")
    return [declared for declared in every_call() if any(word in declared.name for word in words)]


def test_1_cve_2026_18917_products_of_counts_allocate_nothing(session: SessionHost) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        most = 2**31 - 1
        for number in (most, 2**31, 2**32 - 1):
            free = procedure("node_get_free_pages")
            for pages in ([4], [4] * 64):
                serial = client.send_call(free.number, free.args.encode(pages, 0, number, 0))
                packet = await client.reply(serial)
                assert packet is not None
                assert len(packet.payload) < 4096  # as many counts as there are cells, or an error
            # Refused for their size, before anybody finds out that the domain is off.
            stats = procedure("domain_get_cpu_stats")
            for counts, words in {(number, 1): "nparams too large", (1, number): "ncpus too large"}.items():
                error = await error_of(client, stats, stats.args.encode(dom, counts[0], -1, counts[1], 0))
                assert error is not None
                assert words in error.message
        vcpus, pins = procedure("domain_get_vcpus"), procedure("domain_get_vcpu_pin_info")
        for counts in ((most, most), (most, 1), (1, most), (-1, -1), (65536, 65536), (16384, 131072)):
            for declared, rest in ((vcpus, ()), (pins, (0,))):
                error = await error_of(client, declared, declared.args.encode(dom, *counts, *rest))
                assert error is not None
                assert any(word in error.message for word in ("VCPUINFO_MAX", "CPUMAPS_MAX", "must ")), error
        pin = procedure("domain_pin_vcpu_flags")
        for vcpu in (2**31, 2**32 - 1):
            error = await error_of(client, pin, pin.args.encode(dom, vcpu, b"\xff" * 2048, 2))
            assert error is not None
            assert f"vcpu {vcpu} is out of range" in error.message
        assert await outcome(client, pin, pin.args.encode(dom, 0, b"", 2))

    talk(session, work)


@pytest.mark.parametrize("flags", [0, 1], ids=["read-write", "read-only"])
def test_2_cve_2024_2494_a_negative_or_excessive_number_of_items_is_refused(session: SessionHost, flags: int) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        tried = 0
        for declared in every_call():
            shaped = declared.shaped
            if shaped is None or shaped.shape not in (Shape.NAMES, Shape.IDS, Shape.SIZED):
                continue
            for count in (-1, -(2**31), shaped.limit + 1, 2**31 - 1):
                values = list(declared.args.decode(smallest(declared.args.fields)))
                values[declared.wanted_index] = count
                code = await outcome(client, declared, declared.args.encode(*values))
                assert code == ErrorNumber.RPC, f"{declared.name} {count}"
                tried += 1
        assert tried > 80

    talk(session, work, flags)


@pytest.mark.parametrize("flags", [0, 1], ids=["read-write", "read-only"])
def test_2_cve_2024_2494_every_count_at_its_edges_gets_an_answer(session: SessionHost, flags: int) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        tried = 0
        for declared in every_call():
            changing = ("destroy", "shutdown", "reboot", "suspend_for_duration", "connect_close", "undefine", "create")
            if any(word in declared.name for word in changing):
                continue
            for payload in with_edges(declared, dom):
                await outcome(client, declared, payload)
                tried += 1
        assert tried > 500

    talk(session, work, flags)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_3_cve_2024_1441_lists_never_exceed_the_clients_count(session: SessionHost, count: int) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        names = await client.call("connect_list_defined_domains", count)
        assert len(names) == min(count, len(DOMAINS))
        assert set(names) <= set(DOMAINS)
        assert await client.call("connect_list_domains", count) == []

    talk(session, work)


def test_4_cve_2024_8235_every_list_and_number_with_no_room(session: SessionHost) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        answered: set[str] = set()
        assert len(lists()) > 20
        for declared in lists():
            values = list(declared.args.decode(smallest(declared.args.fields)))
            for room in (0, 1):
                for at, (name, _) in enumerate(declared.args.fields):
                    if name.startswith(("max", "need")):
                        values[at] = room
                call = client.send_call(declared.number, declared.args.encode(*values))
                packet = await client.reply(call)
                assert packet is not None
                if packet.status == Status.OK and declared.shaped is not None:
                    answered.add(declared.name)
                    first, *count = declared.reply.decode(packet.payload)
                    if declared.shaped.shape is Shape.LISTED:
                        assert len(first) == (count[0] if room else 0), declared.name
                    elif declared.shaped.shape in (Shape.NAMES, Shape.IDS):
                        assert len(first) <= room, declared.name
        assert {"connect_list_all_domains", "connect_list_defined_domains", "connect_list_domains"} <= answered

    talk(session, work)


def test_5_cve_2012_4423_no_number_but_a_calls_is_dispatched(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        known = {(p.program.number, p.number) for p in every_call()}
        events = {(m.program.number, m.number) for m in EVENTS.values()}
        for program in (REMOTE, QEMU, LXC, ADMIN):
            numbers = {*range(480), *(2**bit for bit in range(31)), -1, -(2**31), 2**31 - 1}
            for number in sorted(numbers):
                if (program.number, number) in known:
                    continue
                packet = await client.reply(client.send_call(number, program=program.number))
                assert packet is not None
                assert Answered(packet).code == ErrorNumber.RPC
        assert events
        assert not events & known
        good = procedure("connect_get_hostname")
        for change in (
            {"version": 2},
            {"version": 0},
            {"kind": PacketType.REPLY},
            {"kind": PacketType.MESSAGE},
            {"kind": 2**32 - 1},
            {"status": Status.ERROR},
            {"status": 2**32 - 1},
            {"program": 0x12345678},
        ):
            packet = await client.reply(client.send_call(good.number, **change))
            assert packet is not None
            assert Answered(packet).code == ErrorNumber.RPC, change
        assert await client.call("connect_get_hostname") == "localhost"

    run(tmp_path, work)


def typed_lists() -> list[Procedure]:
    """The procedures with a list among their arguments."""
    return [declared for declared in every_call() if any(isinstance(kind, List) for _, kind in declared.args.fields)]


def test_6_cve_2012_3445_empty_lists_of_parameters(session: SessionHost) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        for declared in typed_lists():
            values = list(declared.args.decode(smallest(declared.args.fields)))
            for at, (_, kind) in enumerate(declared.args.fields):
                if isinstance(kind, Struct) and kind.cls is DomainRef:
                    values[at] = dom
            await outcome(client, declared, declared.args.encode(*values))

    assert len(typed_lists()) > 20
    talk(session, work)


@pytest.mark.parametrize("count", [2**31 - 1, 2**31, 2**32 - 1, 1 << 20])
def test_7_cve_2013_4292_a_list_that_claims_more_than_there_is(tmp_path: Path, count: int) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        for declared in typed_lists():
            payload = b""
            for _, kind in declared.args.fields:
                if isinstance(kind, List):
                    payload += struct.pack(">I", count)
                    break
                payload += smallest([("", kind)])
            assert await outcome(client, declared, payload) == ErrorNumber.RPC, declared.name

    run(tmp_path, work)


def test_7_cve_2013_4292_a_list_of_one_more_than_allowed(tmp_path: Path) -> None:
    """With all that it claims behind the count."""

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client, tried = await server.connect(), 0
        for declared in typed_lists():
            payload = b""
            for _, kind in declared.args.fields:
                if isinstance(kind, List):
                    item = smallest([("", kind.item)])
                    if len(item) * kind.limit > 1 << 20:
                        break
                    payload += struct.pack(">I", kind.limit + 1) + item * (kind.limit + 1)
                    tried += 1
                else:
                    payload += smallest([("", kind)])
            else:
                assert await outcome(client, declared, payload) == ErrorNumber.RPC, declared.name
        assert tried > 20

    run(tmp_path, work)


@pytest.mark.parametrize("cut", [1, 4, 5, 8, 20])
def test_8_cve_2013_4296_arguments_cut_short_are_an_error(session: SessionHost, cut: int) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        for declared in every_call():
            payload = smallest(declared.args.fields)
            if len(payload) >= cut and declared.name != "connect_close":
                assert await outcome(client, declared, payload[:-cut]) == ErrorNumber.RPC, declared.name

    talk(session, work)


def test_8_cve_2014_8135_a_path_that_is_left_out(session: SessionHost) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        for declared in every_call():
            optional = [at for at, (_, kind) in enumerate(declared.args.fields) if "Optional" in type(kind).__name__]
            if optional and "destroy" not in declared.name:
                values = list(declared.args.decode(smallest(declared.args.fields)))
                for at, (_, kind) in enumerate(declared.args.fields):
                    if isinstance(kind, Struct) and kind.cls is DomainRef:
                        values[at] = dom
                await outcome(client, declared, declared.args.encode(*values))

    talk(session, work)


def test_9_cve_2013_0170_a_call_that_fails_leaves_nothing_in_the_queue(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        number = procedure("domain_lookup_by_name").number
        broken = [client.send_call(number, b"\xff\xff\xff\xff") for _ in range(50)]
        good = [client.start("connect_get_hostname") for _ in range(50)]
        for serial in broken:
            packet = await client.reply(serial)
            assert packet is not None
            assert packet.status == Status.ERROR
        assert {await client.answer(serial, "connect_get_hostname") for serial in good} == {"localhost"}
        assert not client.packets

    run(tmp_path, work)


def handshake() -> bytes:
    """What a client sends from the first byte to a stream."""
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("auth_list", ()),
        ("connect_supports_feature", (10,)),
        ("connect_open", (URI, 0)),
        ("connect_domain_event_callback_register_any", (0, None)),
        ("storage_vol_upload", (VOL, 0, 0, 0)),
    ]
    data = b""
    for serial, (name, values) in enumerate(calls):
        declared = procedure(name)
        data += frame(
            REMOTE.number, 1, declared.number, PacketType.CALL, serial, Status.OK, declared.args.encode(*values)
        )
    upload = procedure("storage_vol_upload").number
    return data + frame(REMOTE.number, 1, upload, PacketType.STREAM, len(calls) - 1, Status.CONTINUE, b"some bytes")


def with_descriptors(count: int) -> bytes:
    """A call that announces descriptors."""
    graphics = procedure("domain_open_graphics")
    payload = struct.pack(">I", count) + graphics.args.encode(TEST, 0, 0)
    return frame(REMOTE.number, 1, graphics.number, PacketType.CALL_WITH_FDS, 9, Status.OK, payload)


async def take_all(stream: Stream) -> None:
    while await stream.read() is not None:
        pass


async def leave_after(
    server: Serving, driver: DoubleDriver, data: bytes, *, reset: bool, stream: bool = False, fds: int | None = None
) -> None:
    """Connect, send, and leave without waiting; the server has seen that when this returns.

    With a `stream`, or the number of descriptors to send, the connection is open before.
    """
    driver.pump = take_all
    clients, seen = len(server.server.clients), server.server._serial
    client = await server.connect(opened=stream or fds is not None)
    if stream:
        await client.call("storage_vol_upload", VOL, 0, 0, 0)
    client.send(data)
    for _ in range(fds or 0):
        client.transport.write_fd(os.dup(0))
    await eventually(lambda: not client.transport._out)
    if reset:
        client.transport._sock.shutdown(socket.SHUT_RDWR)
    await client.close()
    await eventually(lambda: server.server._serial > seen and len(server.server.clients) == clients)


def test_10_cve_2014_1447_a_client_that_leaves_right_after_asking_for_keepalive(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        declared = procedure("connect_supports_feature")
        ask = frame(REMOTE.number, 1, declared.number, PacketType.CALL, 1, Status.OK, declared.args.encode(10))
        for _ in range(50):
            await leave_after(server, driver, ask, reset=True)
        staying = await server.connect()
        await staying.call("connect_supports_feature", 10)
        await asyncio.sleep(1.2)  # until who is there is asked, and the others would be
        assert [packet.program for packet in staying.packets] == [KEEPALIVE.number]
        gc.collect()
        assert sum(isinstance(one, Keepalive) for one in gc.get_objects()) == 1

    run(tmp_path, work, "keepalive_interval = 1\n")


@pytest.mark.parametrize("reset", [False, True], ids=["close", "shutdown"])
def test_11_cve_2024_4418_a_client_that_leaves_at_any_byte(tmp_path: Path, reset: bool) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        fds = open_fds()
        whole = handshake()
        for end in range(len(whole) + 1):
            await leave_after(server, driver, whole[:end], reset=reset)
        upload = procedure("storage_vol_upload").number
        piece = frame(REMOTE.number, 1, upload, PacketType.STREAM, 3, Status.CONTINUE, b"some bytes")
        for end in range(len(piece) + 1):
            await leave_after(server, driver, piece[:end], reset=reset, stream=True)
        call = with_descriptors(1)
        for end in range(len(call) + 1):
            await leave_after(server, driver, call[:end], reset=reset, fds=0)
        await leave_after(server, driver, with_descriptors(2), reset=reset, fds=1)
        assert not driver.received  # what the calls announced never came
        for sent in (1, 2):  # as many as it announced, and one more
            await leave_after(server, driver, call, reset=reset, fds=sent)
            assert len(driver.received) == 1
            close_fds(driver.received)
            driver.received = []
        await eventually(lambda: open_fds() <= fds)

    run(tmp_path, work)


def test_12_half_authenticated_clients_leave_nothing_behind(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        fds = open_fds()
        for _ in range(500):
            client = await server.connect(opened=False)
            client.start("auth_list")
            client.start("auth_sasl_init")
            await client.close()
        await eventually(lambda: not server.server.clients)
        await eventually(lambda: open_fds() <= fds)
        assert not server.server.anonymous

    run(tmp_path, work, 'auth_unix_rw = "sasl"\nmax_anonymous_clients = 0\n')


def test_12_many_holes_do_not_stop_the_reading_of_a_client(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        holes = 0

        async def pump(stream: Stream) -> None:
            nonlocal holes
            await asyncio.sleep(0.05)
            while (item := await stream.read()) is not None:
                holes += isinstance(item, Hole)

        driver.pump = pump
        client = await server.connect()
        number = procedure("storage_vol_upload").number
        serial = client.start("storage_vol_upload", VOL, 0, 0, 1)
        for _ in range(2000):
            hole = struct.pack(">qI", 4096, 0)
            client.send(frame(REMOTE.number, 1, number, PacketType.STREAM_HOLE, serial, Status.CONTINUE, hole))
        assert await client.call("connect_get_hostname") == "localhost"
        await eventually(lambda: holes == 2000)

    run(tmp_path, work)


def test_13_cve_2011_1486_two_that_fail_at_once_see_their_own_error(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        clients = [await server.connect() for _ in range(10)]
        driver.gate.clear()
        driver.failures = [OperationFailed(f"of {at}") for at in range(len(clients))]
        serials = [client.start("domain_set_user_password", TEST, None, None, 0) for client in clients]
        await asyncio.sleep(0.02)
        driver.gate.set()
        for at, (client, serial) in enumerate(zip(clients, serials, strict=True)):
            with pytest.raises(Answered, match=f"^{ErrorNumber.OPERATION_FAILED}: operation failed: of {at}$"):
                await client.answer(serial, "domain_set_user_password")

    run(tmp_path, work)
