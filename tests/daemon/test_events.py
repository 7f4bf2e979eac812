"""Subscriptions of clients: both kinds of registration, whose they are, how they end."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.api.events import DomainEventLifecycle
from pyvirtd.api.rpc import EVENTS
from pyvirtd.api.types import DomainRef
from pyvirtd.constants.domain import DomainEventType
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.wire.packet import Packet
from tests.daemon.doubles import Refusing, rule
from tests.daemon.harness import TEST, Answered, RawClient, Serving, eventually, serving

Work = Callable[[Serving, RawClient], Awaitable[None]]
REGISTER = "connect_domain_event_callback_register_any"
DEREGISTER = "connect_domain_event_callback_deregister_any"
LIFECYCLE = 0
OTHER = "<domain type='test'><name>other</name><memory>8192</memory><os><type>hvm</type></os></domain>"


def run(folder: Path, work: Work) -> None:
    """Do `work` with a client that makes things happen."""

    async def main() -> None:
        async with serving(folder) as server:
            await work(server, await server.connect())

    asyncio.run(main())


async def blink(client: RawClient, dom: DomainRef = TEST) -> None:
    """Two events of a domain."""
    await client.call("domain_suspend", dom)
    await client.call("domain_resume", dom)


def kinds(packets: list[Packet], *, legacy: bool = False) -> list[int]:
    """The types of lifecycle events."""
    return [EVENTS[DomainEventLifecycle].body.decode(p.payload, 0 if legacy else 4)[1] for p in packets]


BLINK = [DomainEventType.SUSPENDED, DomainEventType.RESUMED]


def test_events_of_another_client_arrive_in_order(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        watcher = await server.connect()
        callback = await watcher.call(REGISTER, LIFECYCLE, None)
        for _ in range(50):
            await blink(actor)
        packets = await watcher.events(100)
        assert kinds(packets) == BLINK * 50
        assert {struct.unpack(">i", packet.payload[:4])[0] for packet in packets} == {callback}

    run(tmp_path, work)


def test_the_event_of_a_call_comes_before_its_reply(tmp_path: Path) -> None:
    """So that who waits for the reply has seen what the call did."""

    async def work(server: Serving, actor: RawClient) -> None:
        await actor.call(REGISTER, LIFECYCLE, None)
        serial = actor.start("domain_suspend", TEST)
        first, second = await actor.receive(), await actor.receive()
        assert first is not None
        assert second is not None
        assert (first.procedure, second.serial) == (318, serial)

    run(tmp_path, work)


@pytest.mark.parametrize("old", [True, False])
def test_the_old_registrations_get_the_old_messages(tmp_path: Path, *, old: bool) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        watcher = await server.connect()
        if old:
            assert await watcher.call("connect_domain_event_register") == 1
        else:
            await watcher.call("connect_domain_event_register_any", LIFECYCLE)
        await blink(actor)
        packets = await watcher.events(2)
        assert [packet.procedure for packet in packets] == [107, 107]
        assert kinds(packets, legacy=True) == BLINK
        if old:
            assert await watcher.call("connect_domain_event_deregister") == 0
        else:
            await watcher.call("connect_domain_event_deregister_any", LIFECYCLE)
        await blink(actor)
        assert await watcher.call("connect_get_hostname") == "localhost"
        assert not watcher.packets

    run(tmp_path, work)


def test_a_client_may_use_old_and_new_registrations_at_once(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        watcher = await server.connect()
        await watcher.call("connect_domain_event_register_any", LIFECYCLE)
        await watcher.call(REGISTER, LIFECYCLE, None)
        await actor.call("domain_suspend", TEST)
        assert sorted(packet.procedure for packet in await watcher.events(2)) == [107, 318]

    run(tmp_path, work)


def test_an_old_registration_is_made_once(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        await actor.call("connect_domain_event_register_any", LIFECYCLE)
        with pytest.raises(Answered, match="event callback already tracked") as caught:
            await actor.call("connect_domain_event_register_any", LIFECYCLE)
        assert caught.value.code == ErrorNumber.INVALID_ARG

    run(tmp_path, work)


def test_a_registration_for_one_domain_gets_its_events_alone(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        other = await actor.call("domain_create_xml", OTHER, 0)
        watcher = await server.connect()
        await watcher.call(REGISTER, LIFECYCLE, other)
        await blink(actor)
        await blink(actor, other)
        packets = await watcher.events(2)
        assert {EVENTS[DomainEventLifecycle].body.decode(p.payload, 4)[0].name for p in packets} == {"other"}
        assert await watcher.call("connect_get_hostname") == "localhost"
        assert not watcher.packets

    run(tmp_path, work)


def test_a_deregistered_callback_hears_no_more_and_others_do(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        watcher = await server.connect()
        first = await watcher.call(REGISTER, LIFECYCLE, None)
        second = await watcher.call(REGISTER, LIFECYCLE, None)
        await watcher.call(DEREGISTER, first)
        await actor.call("domain_suspend", TEST)
        (packet,) = await watcher.events(1)
        assert struct.unpack(">i", packet.payload[:4])[0] == second
        with pytest.raises(Answered, match=f"domain event callback {first} not registered"):
            await watcher.call(DEREGISTER, first)

    run(tmp_path, work)


def test_nobody_deregisters_what_is_anothers(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        watcher = await server.connect()
        callback = await watcher.call(REGISTER, LIFECYCLE, None)
        for number in (callback, callback + 1, -1, -1 - LIFECYCLE):
            with pytest.raises(Answered, match=f"domain event callback {number} not registered"):
                await actor.call(DEREGISTER, number)
        with pytest.raises(Answered, match=f"network event callback {callback} not registered"):
            await watcher.call("connect_network_event_deregister_any", callback)
        await actor.call("domain_suspend", TEST)
        await watcher.events(1)

    run(tmp_path, work)


OLD = "connect_domain_event_register_any"


@pytest.mark.parametrize(("name", "event_id"), [(REGISTER, 99), (REGISTER, -1), (OLD, 99), (OLD, 17), (OLD, -1)])
def test_events_that_there_are_not_are_refused(tmp_path: Path, name: str, event_id: int) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        values: list[Any] = [event_id, None] if name == REGISTER else [event_id]
        with pytest.raises(Answered) as caught:
            await actor.call(name, *values)
        assert caught.value.message == f"internal error: unsupported event ID {event_id}"

    run(tmp_path, work)


@pytest.mark.parametrize("family", ["Network", "StoragePool", "NodeDevice", "Secret"])
def test_families_that_no_driver_has_are_not_supported(tmp_path: Path, family: str) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        words = {"StoragePool": "storage_pool", "NodeDevice": "node_device"}.get(family, family.lower())
        with pytest.raises(Answered, match=f"virConnect{family}EventRegisterAny") as caught:
            await actor.call(f"connect_{words}_event_register_any", 0, None)
        assert caught.value.code == ErrorNumber.NO_SUPPORT

    run(tmp_path, work)


@pytest.mark.parametrize("way", ["disconnect", "close"])
def test_subscriptions_end_with_the_connection(tmp_path: Path, way: str) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        watcher = await server.connect()
        await watcher.call(REGISTER, LIFECYCLE, None)
        await watcher.call("connect_domain_event_register_any", LIFECYCLE)
        bus = server.host.events
        assert bus.wanted("domain", LIFECYCLE)
        if way == "close":
            await watcher.call("connect_close")
        else:
            await watcher.close()
        await eventually(lambda: not bus.wanted("domain", LIFECYCLE))
        await blink(actor)

    run(tmp_path, work)


def test_events_about_what_a_client_may_not_see_are_kept_from_it(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        watcher = await server.connect()
        await watcher.call(REGISTER, LIFECYCLE, None)
        rule(server.server, Refusing("domain:getattr"))
        await actor.call("domain_suspend", TEST)
        assert await watcher.call("connect_get_hostname") == "localhost"
        assert not watcher.packets

    run(tmp_path, work)


def test_events_that_wait_for_a_decision_come_in_order(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        watcher = await server.connect()
        await watcher.call(REGISTER, LIFECYCLE, None)
        rules = Refusing("nothing")
        peer = server.peers()[1]
        peer.rules = rules
        rules.gate.clear()
        for _ in range(20):
            await blink(actor)
        assert not watcher.packets
        rules.gate.set()
        assert kinds(await watcher.events(40)) == BLINK * 20

    run(tmp_path, work)


def test_autodestroyed_domains_end_with_their_client(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        await actor.call(REGISTER, LIFECYCLE, None)
        maker = await server.connect()
        await maker.call("domain_create_xml", OTHER, 2)
        await actor.events(1)
        await maker.close()
        assert kinds(await actor.events(1)) == [DomainEventType.STOPPED]
        assert await actor.call("connect_num_of_domains") == 1

    run(tmp_path, work)


def test_a_callback_at_the_close_that_fails_keeps_no_other_from_running(tmp_path: Path) -> None:
    async def work(server: Serving, actor: RawClient) -> None:
        ran: list[int] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: ran.append(1))

        def fail() -> None:
            raise ZeroDivisionError

        peer = server.peers()[0]
        peer.on_close(fail)
        peer.on_close(lambda: ran.append(2))
        forget = peer.on_close(lambda: ran.append(3))
        forget()
        await actor.close()
        await eventually(lambda: ran == [1, 2])
        assert not server.server.clients

    run(tmp_path, work)
