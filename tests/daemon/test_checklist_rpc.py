"""Faults that libvirt once had in decoding and dispatching calls, each tried on ours. Numbered; with the CVE's name.

Where the fault was in a driver's method, it is tried on the QEMU driver, in a real session daemon.
"""

import asyncio
import socket
import struct
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.rpc import ADMIN, EVENTS, LXC, QEMU, REMOTE, Procedure
from pyvirtd.api.types import DomainRef
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.errors import OperationFailed
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
EDGES = {
    "i": (-(2**31), -1, 0, 1, 2**31 - 1),
    "I": (0, 1, 2**31, 2**32 - 1),
    "q": (-(2**63), -1, 0, 2**63 - 1),
    "Q": (0, 2**63, 2**64 - 1),
}


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
    """Do `work` with a raw connection to the session daemon and a domain that is off, and prove that it lives."""
    if "raw" not in session.ok("list --all --name"):
        session.define(bare_domain("raw"))
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


async def outcome(client: RawClient, declared: Procedure, payload: bytes) -> int:
    """The code of a call's error, 0 for none; that there is an answer at all is most of the tests here."""
    packet = await client.reply(client.send_call(declared.number, payload, program=declared.program.number))
    assert packet is not None, f"{declared.name} closed the connection"
    return Answered(packet).code if packet.status == Status.ERROR else 0


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
            stats = procedure("domain_get_cpu_stats")
            assert await outcome(client, stats, stats.args.encode(dom, number, -1, number, 0))
        for counts in ((most, most), (most, 1), (1, most), (-1, -1), (65536, 65536)):
            vcpus = procedure("domain_get_vcpus")
            assert await outcome(client, vcpus, vcpus.args.encode(dom, *counts))
        pin = procedure("domain_pin_vcpu_flags")
        for vcpu in (0, 2**31, 2**32 - 1):
            assert await outcome(client, pin, pin.args.encode(dom, vcpu, b"\xff" * 2048 if vcpu else b"", 2))

    talk(session, work)


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


@pytest.mark.parametrize("count", [0, 1])
def test_3_cve_2024_1441_lists_never_exceed_the_clients_count(session: SessionHost, count: int) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        for name in ("connect_list_defined_domains", "connect_list_domains"):
            assert len(await client.call(name, count)) <= count
        for name in ("connect_list_interfaces", "connect_list_defined_interfaces"):
            declared = procedure(name)
            await outcome(client, declared, declared.args.encode(count))

    talk(session, work)


def test_4_cve_2024_8235_every_list_and_number_with_no_room(session: SessionHost) -> None:
    async def work(client: RawClient, dom: DomainRef) -> None:
        assert len(lists()) > 20
        for declared in lists():
            values = list(declared.args.decode(smallest(declared.args.fields)))
            for room in (0, 1):
                for at, (name, _) in enumerate(declared.args.fields):
                    if name.startswith(("max", "need")):
                        values[at] = room
                await outcome(client, declared, declared.args.encode(*values))

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
    """What a client sends from the first byte to a stream, and a call with descriptors."""
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
    data += frame(REMOTE.number, 1, upload, PacketType.STREAM, len(calls) - 1, Status.CONTINUE, b"some bytes")
    graphics = procedure("domain_open_graphics")
    payload = struct.pack(">I", 1) + graphics.args.encode(TEST, 0, 0)
    return data + frame(REMOTE.number, 1, graphics.number, PacketType.CALL_WITH_FDS, 9, Status.OK, payload)


async def leave_after(server: Serving, driver: DoubleDriver, data: bytes, *, reset: bool) -> None:
    async def pump(stream: Any) -> None:
        async for _ in stream:
            pass

    driver.pump = pump
    before = len(server.server.clients)
    client = await server.connect(opened=False)
    client.send(data)
    await asyncio.sleep(0)
    if reset:
        client.transport._sock.shutdown(socket.SHUT_RDWR)
    await client.close()
    await eventually(lambda: len(server.server.clients) == before)


def test_10_cve_2014_1447_a_client_that_leaves_right_after_asking_for_keepalive(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        declared = procedure("connect_supports_feature")
        ask = frame(REMOTE.number, 1, declared.number, PacketType.CALL, 1, Status.OK, declared.args.encode(10))
        for _ in range(50):
            await leave_after(server, driver, ask, reset=True)

    run(tmp_path, work, "keepalive_interval = 1\n")


@pytest.mark.parametrize("reset", [False, True], ids=["close", "shutdown"])
def test_11_cve_2024_4418_a_client_that_leaves_at_any_byte(tmp_path: Path, reset: bool) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        whole = handshake()
        fds = open_fds()
        for end in range(len(whole) + 1):
            await leave_after(server, driver, whole[:end], reset=reset)
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
        async def pump(stream: Any) -> None:
            await asyncio.sleep(0.05)
            async for _ in stream:
                pass

        driver.pump = pump
        client = await server.connect()
        number = procedure("storage_vol_upload").number
        serial = client.start("storage_vol_upload", VOL, 0, 0, 1)
        for _ in range(2000):
            hole = struct.pack(">qI", 4096, 0)
            client.send(frame(REMOTE.number, 1, number, PacketType.STREAM_HOLE, serial, Status.CONTINUE, hole))
        assert await client.call("connect_get_hostname") == "localhost"

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
