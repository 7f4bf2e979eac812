"""Limits: clients, calls, bytes, descriptors, silence."""

import asyncio
import errno
import logging
import resource
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from pyvirtd.api.rpc import KEEPALIVE
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.core.access import Identity
from pyvirtd.daemon import call_queue, refusal
from pyvirtd.daemon import client as client_module
from pyvirtd.daemon import server as server_module
from pyvirtd.daemon import transport as transport_module
from pyvirtd.daemon.client import PING, PONG
from pyvirtd.daemon.transport import UnixTransport
from pyvirtd.wire.packet import FRAME_MAX, PacketType, frame
from tests.daemon.doubles import DoubleDriver
from tests.daemon.harness import TEST, Answered, RawClient, Serving, eventually, length_frame, open_fds, serving

Work = Callable[[Serving, DoubleDriver], Awaitable[None]]
STRANGER = Identity(1, 65534, 65534)
PING_FRAME = frame(KEEPALIVE.number, 1, PING, PacketType.MESSAGE, 0, 0, b"")
PONG_FRAME = frame(KEEPALIVE.number, 1, PONG, PacketType.MESSAGE, 0, 0, b"")


def run(folder: Path, work: Work, config: str = "") -> None:
    async def main() -> None:
        async with serving(folder, config, [DoubleDriver]) as server:
            driver = server.host.drivers[0]
            assert isinstance(driver, DoubleDriver)
            await work(server, driver)

    asyncio.run(main())


# --- clients --------------------------------------------------------------------------------------------------------


def test_clients_over_the_limit_are_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        first, second = await server.connect(), await server.connect()
        third = await server.connect(opened=False)
        with pytest.raises(Answered, match=r"Too many active clients \(2\), dropping connection") as caught:
            await third.call("auth_list")
        assert caught.value.code == ErrorNumber.RPC
        assert await third.receive() is None
        assert await second.call("connect_get_hostname") == "localhost"
        await first.close()
        fourth = await server.connect()
        assert await fourth.call("connect_get_hostname") == "localhost"

    run(tmp_path, work, "max_clients = 2\nmax_anonymous_clients = 2\n")
    assert "Too many active clients" in caplog.text


def test_who_finds_no_place_and_asks_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "TELL_S", 0.05)
    monkeypatch.setattr(server_module, "TURNED_AWAY_MAX", 2)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        await server.connect()
        silent = [await server.connect(opened=False) for _ in range(4)]
        await eventually(lambda: sum(client.gone for client in silent) == 2)
        await eventually(lambda: all(client.gone for client in silent))
        assert len(server.server.clients) == 1

    run(tmp_path, work, "max_clients = 1\nmax_anonymous_clients = 0\n")


def test_a_reloaded_limit_holds_at_once(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        await server.connect()
        with pytest.raises(Answered):
            await server.connect()
        server.server.apply(server.server.config.parse("max_clients = 9\nmax_anonymous_clients = 0\n", "x"))
        await server.connect()

    run(tmp_path, work, "max_clients = 1\nmax_anonymous_clients = 0\n")


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects seems to be nobody."""
    monkeypatch.setattr(UnixTransport, "identity", lambda self: STRANGER)


@pytest.mark.usefixtures("stranger")
def test_anonymous_clients_over_the_limit_wait(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        first = await server.connect(opened=False)
        assert await first.call("auth_list") == [2]
        second = await server.connect(opened=False)
        serial = second.start("auth_list")
        await asyncio.sleep(0.02)
        assert not second.packets
        server.peers()[0].let_in()
        assert await second.answer(serial, "auth_list") == [2]

    run(tmp_path, work, "max_anonymous_clients = 1\n")


@pytest.mark.usefixtures("stranger")
def test_strangers_that_do_nothing_keep_nobody_out_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STRANGER_IDLE_S", 0.1)
    monkeypatch.setattr(server_module, "STRANGER_LOOK_S", 0.05)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        idle = [await server.connect(opened=False) for _ in range(2)]
        other = await server.connect(opened=False)
        serial = other.start("auth_list")
        assert await other.answer(serial, "auth_list") == [2]
        await eventually(lambda: all(client.gone for client in idle))

    run(tmp_path, work, "max_anonymous_clients = 2\n")


HALF_WAY = 2000


@pytest.fixture
def room_for_many() -> Iterator[None]:
    """Descriptors for both ends of as many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * HALF_WAY + 500
    if hard < wanted:
        pytest.skip(f"no {wanted} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("room_for_many")
def test_thousands_half_way_through_authentication_slow_nobody_down_and_have_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "AUTH_S", 4.0)
    given_back = threading.Event()
    monkeypatch.setattr(server_module, "give_back", given_back.set)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        other = await server.connect(read_only=True)
        fds = open_fds()
        held: list[RawClient] = []
        slowest = 0.0
        while len(held) < HALF_WAY:
            batch = [await server.connect(opened=False) for _ in range(100)]
            serials = [client.start("auth_sasl_init") for client in batch]
            held += batch
            begun = time.monotonic()
            assert await other.call("connect_get_hostname") == "localhost"
            slowest = max(slowest, time.monotonic() - begun)
            for client, serial in zip(batch, serials, strict=True):
                await client.reply(serial)
        assert slowest < 1
        await eventually(lambda: all(client.gone for client in held), 20)
        assert await other.call("connect_get_hostname") == "localhost"
        assert not server.server.anonymous
        assert open_fds() <= fds
        await eventually(given_back.is_set)

    run(tmp_path, work, 'auth_unix_rw = "sasl"\nauth_unix_ro = "none"\nmax_clients = 5000\nmax_anonymous_clients = 0\n')


@pytest.mark.usefixtures("stranger")
def test_strangers_are_refused_where_polkit_decides(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        for read_only in (False, True):
            client = await server.connect(read_only=read_only, opened=False)
            assert await client.call("auth_list") == [2]
            with pytest.raises(Answered) as caught:
                await client.call("auth_polkit")
            assert caught.value.code == ErrorNumber.AUTH_FAILED
            with pytest.raises(Answered, match="authentication required"):
                await client.call("connect_open", "test:///default", 0)

    run(tmp_path, work)


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize(("read_only", "key"), [(False, "auth_unix_rw"), (True, "auth_unix_ro")])
def test_strangers_pass_where_the_socket_asks_for_nothing(tmp_path: Path, key: str, *, read_only: bool) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect(read_only=read_only)
        assert await client.call("connect_get_hostname") == "localhost"
        other = await server.connect(read_only=not read_only, opened=False)
        assert await other.call("auth_list") == [2]

    run(tmp_path, work, f'{key} = "none"\n')


def test_closing_the_connection_object_gives_no_place_away(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        await client.call("connect_close")
        with pytest.raises(Answered, match="Too many active clients"):
            await server.connect()
        await client.close()
        await eventually(lambda: not server.server.clients)
        await server.connect()

    run(tmp_path, work, "max_clients = 1\nmax_anonymous_clients = 0\n")


def test_who_leaves_replies_untouched_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "STALL_S", 0.2)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        peer = server.peers()[0]
        client.transport.pause()
        for _ in range(4000):
            client.start("connect_get_capabilities")
            if peer.transport.queued:
                break
            await asyncio.sleep(0)
        assert peer.transport.queued
        await eventually(lambda: peer.gone)

    run(tmp_path, work)


@pytest.mark.usefixtures("stranger")
def test_no_user_takes_more_than_half_of_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        first, _ = await server.connect(), await server.connect()
        with pytest.raises(Answered, match=r"Too many active clients of uid 65534 \(2\)"):
            await server.connect()
        monkeypatch.setattr(UnixTransport, "identity", lambda self: Identity(1, 0, 0))
        await server.connect()
        monkeypatch.setattr(UnixTransport, "identity", lambda self: STRANGER)
        await first.close()
        await eventually(lambda: len(server.server.clients) == 2)
        await server.connect()

    run(tmp_path, work, 'max_clients = 4\nmax_anonymous_clients = 0\nauth_unix_rw = "none"\n')


@pytest.mark.usefixtures("stranger")
def test_who_never_says_who_he_is_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "AUTH_S", 0.1)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect(opened=False)
        assert await client.call("auth_list") == [2]
        server.peers()[0].authenticating = True
        await asyncio.sleep(0.15)
        assert not client.gone
        server.peers()[0].authenticating = False
        await eventually(lambda: client.gone)

    run(tmp_path, work)


def test_sasl_lets_nobody_in_unasked_not_even_root(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect(opened=False)
        assert await client.call("auth_list") == [1]
        with pytest.raises(Answered, match="authentication required"):
            await client.call("connect_open", "test:///default", 0)

    run(tmp_path, work, 'auth_unix_rw = "sasl"\n')


def test_root_needs_no_polkit(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        with pytest.raises(Answered, match="authentication failed"):
            await client.call("auth_polkit")

    run(tmp_path, work)


@pytest.mark.usefixtures("stranger")
def test_a_stranger_may_not_send_long_messages(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect(opened=False)
        client.send(length_frame(FRAME_MAX))
        assert await client.receive() is None

    run(tmp_path, work)


def test_running_out_of_descriptors_rests_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Exhausted:
        """The listening socket, of which every accept fails; sockets cannot be patched."""

        tries = 0

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def fileno(self) -> int:
            return self.sock.fileno()

        def accept(self) -> tuple[socket.socket, object]:
            if monkeypatched:
                Exhausted.tries += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock.accept()

        def close(self) -> None:
            self.sock.close()

    monkeypatched = [True]

    async def work(server: Serving, driver: DoubleDriver) -> None:
        inner = server.server
        first = await server.connect()
        loop = asyncio.get_running_loop()
        for sock in list(inner._listeners):
            loop.remove_reader(sock)
        inner._listeners = {Exhausted(sock): held for sock, held in inner._listeners.items()}  # type: ignore[misc]
        inner._accepting = False
        inner._watch_listeners()
        second = await server.connect(opened=False)
        serial = second.start("auth_list")
        await asyncio.sleep(0.22)
        assert 2 <= Exhausted.tries <= 6
        assert await first.call("connect_get_hostname") == "localhost"
        monkeypatched.clear()
        assert await second.answer(serial, "auth_list") == [0]

    monkeypatch.setattr(server_module, "REST_S", 0.05)
    with caplog.at_level(logging.ERROR):
        run(tmp_path, work)
    assert "Too many open files" in caplog.text


def test_a_real_shortage_of_descriptors_costs_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import resource

    async def work(server: Serving, driver: DoubleDriver) -> None:
        first = await server.connect()
        second = socket.socket(socket.AF_UNIX)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        old = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        fillers = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):  # noqa: PT012 - until they run out
                while True:
                    fillers.append(os.dup(0))
            second.setblocking(False)
            second.connect(str(server.path))
            start = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - start < 0.1
            assert await first.call("connect_get_hostname") == "localhost"
        finally:
            for fd in fillers:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (old, hard))
        await eventually(lambda: len(server.server.clients) == 2)
        second.close()

    monkeypatch.setattr(server_module, "REST_S", 0.1)
    run(tmp_path, work)


# --- calls ----------------------------------------------------------------------------------------------------------


def test_calls_beyond_the_limit_wait_and_all_are_answered(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.gate.clear()
        waiting = [client.start("domain_get_hostname", TEST, 0) for _ in range(10)]
        quick = [client.start("connect_get_hostname") for _ in range(200)]
        await eventually(lambda: driver.running == 3)
        await asyncio.sleep(0.02)
        assert not client.packets
        driver.gate.set()
        serials = []
        for _ in range(210):
            packet = await client.receive()
            assert packet is not None
            serials.append(packet.serial)
        assert [serial for serial in serials if serial in waiting] == waiting
        assert [serial for serial in serials if serial in quick] == quick
        assert driver.most_running == 3

    run(tmp_path, work, "max_client_requests = 3\n")


def test_calls_run_one_by_one_are_answered_in_order(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.gate.clear()
        names = ["domain_get_hostname", "connect_get_hostname"] * 100
        serials = [client.start(name, *([TEST, 0] if name.startswith("domain") else [])) for name in names]
        await asyncio.sleep(0.02)
        driver.gate.set()
        for serial in serials:
            packet = await client.receive()
            assert packet is not None
            assert packet.serial == serial

    run(tmp_path, work, "max_client_requests = 1\n")


def test_keepalive_is_answered_while_calls_wait(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.gate.clear()
        for _ in range(4):
            client.start("domain_get_hostname", TEST, 0)
        client.send(PING_FRAME)
        packet = await client.receive()
        assert packet is not None
        assert (packet.program, packet.procedure) == (KEEPALIVE.number, PONG)
        driver.gate.set()

    run(tmp_path, work, "max_client_requests = 1\n")


def test_other_clients_do_not_wait_for_a_busy_one(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        busy, other = await server.connect(), await server.connect()
        driver.gate.clear()
        for _ in range(20):
            busy.start("domain_get_hostname", TEST, 0)
        assert await other.call("connect_get_hostname") == "localhost"
        driver.gate.set()

    run(tmp_path, work, "max_client_requests = 1\n")


def test_waiting_calls_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_queue, "WAITING_MAX", 20000)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.gate.clear()
        first = client.start("domain_get_hostname", TEST, 0)
        calls = [client.start("connect_get_hostname") for _ in range(100)]
        refused = await client.receive()
        assert refused is not None
        assert "too many calls" in Answered(refused).message
        driver.gate.set()
        for serial in calls:
            if serial != refused.serial and serial < refused.serial:
                assert await client.answer(serial, "connect_get_hostname") == "localhost"
        assert await client.answer(first, "domain_get_hostname") == "test"
        assert await client.call("connect_get_hostname") == "localhost"

    run(tmp_path, work, "max_client_requests = 1\n")


def test_a_limit_of_no_calls_still_serves(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        assert await client.call("domain_get_hostname", TEST, 0) == "test"

    run(tmp_path, work, "max_client_requests = 0\n")


def test_a_call_outlives_its_client(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.gate.clear()
        client.start("domain_get_hostname", TEST, 0)
        await eventually(lambda: driver.running == 1)
        await client.close()
        await eventually(lambda: not server.server.clients)
        assert driver.running == 1
        driver.gate.set()
        await eventually(lambda: driver.running == 0)

    run(tmp_path, work)


def test_calls_that_wait_end_with_their_client(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.gate.clear()
        for _ in range(3):
            client.start("domain_get_hostname", TEST, 0)
        await eventually(lambda: driver.running == 1)
        await client.close()
        await eventually(lambda: not server.server.clients)
        driver.gate.set()
        await eventually(lambda: driver.running == 0)
        await asyncio.sleep(0.02)
        assert driver.most_running == 1

    run(tmp_path, work, "max_client_requests = 1\n")


def test_an_ending_daemon_answers_the_calls_in_flight(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        driver.gate.clear()
        serial = client.start("domain_get_hostname", TEST, 0)
        await eventually(lambda: driver.running == 1)
        closing = asyncio.create_task(server.server.close())
        await asyncio.sleep(0.02)
        driver.gate.set()
        assert await client.answer(serial, "domain_get_hostname") == "test"
        await closing
        assert await client.receive() is None

    run(tmp_path, work)


# --- a client that does not read ------------------------------------------------------------------------------------


def test_a_client_that_reads_no_events_is_dropped_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "UNREAD_MAX", 100_000)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        deaf, listener, worker = [await server.connect() for _ in range(3)]
        for client in (deaf, listener):
            await client.call("connect_domain_event_callback_register_any", 0, None)
        deaf.transport.pause()
        count = 0
        while len(server.server.clients) == 3:
            await worker.call("domain_suspend", TEST)
            await worker.call("domain_resume", TEST)
            count += 2
            assert count < 20000
        await listener.events(count)
        assert await worker.call("connect_get_hostname") == "localhost"

    run(tmp_path, work)


def test_a_client_that_reads_no_replies_has_its_calls_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "REPLIES_HIGH", 50_000)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        peer = server.peers()[0]
        client.transport.pause()
        serials = [client.start("domain_get_xml_desc", TEST, 0) for _ in range(5000)]
        await eventually(lambda: peer.waiting)
        await asyncio.sleep(0.05)
        assert peer.transport.queued < 60_000
        client.transport.resume()
        for serial in serials:
            packet = await client.receive()
            assert packet is not None
            assert packet.serial == serial

    run(tmp_path, work)


# --- keepalive ------------------------------------------------------------------------------------------------------


async def silence(server: Serving, client: RawClient) -> list[float]:
    """When pings came, and at last the end of the connection, in seconds."""
    start = time.monotonic()
    found = []
    while (packet := await client.receive()) is not None:
        assert (packet.program, packet.procedure) == (KEEPALIVE.number, PING)
        found.append(time.monotonic() - start)
    return [*found, time.monotonic() - start]


def quick_keepalive(server: Serving, count: int = 2) -> None:
    server.server.keepalive_interval, server.server.keepalive_count = 0.1, count  # type: ignore[assignment]


def test_a_silent_client_is_asked_and_dropped(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        quick_keepalive(server)
        client = await server.connect()
        assert await client.call("connect_supports_feature", 10) == 1
        assert await silence(server, client) == pytest.approx([0.1, 0.2, 0.3], abs=0.05)

    run(tmp_path, work)


def test_with_a_count_of_none_a_silent_client_is_dropped_unasked(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        quick_keepalive(server, 0)
        client = await server.connect()
        await client.call("connect_supports_feature", 10)
        assert await silence(server, client) == pytest.approx([0.1], abs=0.05)

    run(tmp_path, work)


def test_a_client_that_never_asked_is_left_alone(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        quick_keepalive(server, 1)
        client = await server.connect()
        await asyncio.sleep(0.4)
        assert not client.packets
        assert not client.gone

    run(tmp_path, work)


@pytest.mark.parametrize("sign", [PONG_FRAME, PING_FRAME, b"\0"], ids=["pong", "ping", "a byte"])
def test_any_byte_is_a_sign_of_life(tmp_path: Path, sign: bytes) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        quick_keepalive(server, 1)
        client = await server.connect()
        await client.call("connect_supports_feature", 10)
        for _ in range(10 if sign != b"\0" else 4):
            await asyncio.sleep(0.08)
            client.send(sign)
        assert not client.gone

    run(tmp_path, work)


def test_keepalive_that_is_off_is_not_offered(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        client = await server.connect()
        assert await client.call("connect_supports_feature", 10) == 0

    run(tmp_path, work, "keepalive_interval = -1\n")


# --- the end when idle ----------------------------------------------------------------------------------------------


def test_an_idle_server_calls_back_but_not_while_a_client_or_a_guest_is_there(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        called: list[float] = []
        guest = object()
        client = await server.connect()
        server.host.inhibit.add(guest)
        server.server.end_when_idle(0.05, lambda: called.append(time.monotonic()))  # type: ignore[arg-type]
        await asyncio.sleep(0.15)
        await client.close()
        await asyncio.sleep(0.15)
        assert not called
        server.host.inhibit.discard(guest)
        await eventually(lambda: called, 1)

    run(tmp_path, work)
