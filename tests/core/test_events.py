"""The event bus: who gets what, in which form."""

import struct
from typing import Any

import pytest

from pyvirtd.api.events import (
    DomainEventBalloonChange,
    DomainEventLifecycle,
    DomainEventPMWakeup,
    NodeDeviceEventUpdate,
    QemuMonitorEvent,
)
from pyvirtd.api.rpc import EVENTS, QEMU, REMOTE, EventMessage
from pyvirtd.api.types import DomainRef, NodeDeviceRef
from pyvirtd.core.events import EventBus, registrable
from pyvirtd.wire.packet import Framer, PacketType, Status

ONE = DomainRef("one", b"1" * 16, 1)
TWO = DomainRef("two", b"2" * 16, 2)
DRIVER = object()


class Sink:
    """Keeps what it is sent."""

    def __init__(self, bus: EventBus | None = None) -> None:
        self.packets: list[Any] = []
        self.objects: list[Any] = []

    def deliver(self, message: EventMessage, obj: Any, data: bytes) -> None:
        self.packets += Framer().feed(data)
        self.objects.append(obj)


def started(dom: DomainRef) -> DomainEventLifecycle:
    return DomainEventLifecycle(dom, 2, 0)


def test_a_callbacks_message_leads_with_its_id() -> None:
    bus, sink = EventBus(), Sink()
    bus.subscribe(Sink(), DRIVER, "domain", 0)
    subscription = bus.subscribe(sink, DRIVER, "domain", 0)
    bus.emit(DRIVER, started(ONE))
    (packet,) = sink.packets
    assert (packet.program, packet.version, packet.procedure) == (REMOTE.number, 1, 318)
    assert (packet.type, packet.serial, packet.status) == (PacketType.MESSAGE, 1, Status.OK)
    assert packet.payload[:4] == struct.pack(">i", subscription.callback_id)
    body = EVENTS[DomainEventLifecycle].body.decode(packet.payload, 4)
    assert body == (ONE, 2, 0)
    assert sink.objects == [ONE]


def test_the_old_message_is_the_body_alone() -> None:
    bus, sink = EventBus(), Sink()
    bus.subscribe(sink, DRIVER, "domain", 0, legacy=True)
    bus.emit(DRIVER, started(ONE))
    (packet,) = sink.packets
    assert packet.procedure == 107
    assert EVENTS[DomainEventLifecycle].body.decode(packet.payload) == (ONE, 2, 0)


def test_words_between_id_and_body_are_zero() -> None:
    bus, sink = EventBus(), Sink()
    wakeup = EVENTS[DomainEventPMWakeup]
    bus.subscribe(sink, DRIVER, "domain", wakeup.id or 0)
    bus.emit(DRIVER, DomainEventPMWakeup(ONE))
    assert sink.packets[0].payload == bytes(8) + wakeup.body.encode(ONE)


def test_every_registration_gets_every_event_in_order() -> None:
    bus, sinks = EventBus(), [Sink(), Sink()]
    for sink in sinks:
        bus.subscribe(sink, DRIVER, "domain", 0)
    for number in range(100):
        bus.emit(DRIVER, started(DomainRef(str(number), b"1" * 16, number)))
    for sink in sinks:
        assert [obj.name for obj in sink.objects] == [str(number) for number in range(100)]


def test_one_client_may_register_twice() -> None:
    bus, sink = EventBus(), Sink()
    first = bus.subscribe(sink, DRIVER, "domain", 0)
    second = bus.subscribe(sink, DRIVER, "domain", 0)
    bus.emit(DRIVER, started(ONE))
    ids = [struct.unpack(">i", packet.payload[:4])[0] for packet in sink.packets]
    assert ids == [first.callback_id, second.callback_id]


def test_other_events_other_objects_and_other_drivers_are_not_sent() -> None:
    bus, sink = EventBus(), Sink()
    bus.subscribe(sink, DRIVER, "domain", 0, about=ONE)
    bus.emit(DRIVER, DomainEventBalloonChange(ONE, 5))
    bus.emit(DRIVER, started(TWO))
    bus.emit(object(), started(ONE))
    assert not sink.packets
    bus.emit(DRIVER, started(ONE._replace(name="renamed")))
    assert len(sink.packets) == 1


def test_objects_without_a_uuid_are_told_apart_by_name() -> None:
    bus, sink = EventBus(), Sink()
    bus.subscribe(sink, DRIVER, "node_device", 1, about=NodeDeviceRef("net_eth0"))
    bus.emit(DRIVER, NodeDeviceEventUpdate(NodeDeviceRef("net_eth1")))
    bus.emit(DRIVER, NodeDeviceEventUpdate(NodeDeviceRef("net_eth0")))
    assert [obj.name for obj in sink.objects] == ["net_eth0"]


def test_a_pattern_chooses_by_the_body() -> None:
    bus, sink = EventBus(), Sink()
    bus.subscribe(sink, DRIVER, "qemu_monitor", 0, pattern=lambda body: body.event.startswith("BLOCK"))
    for name in ("RTC_CHANGE", "BLOCK_JOB_READY"):
        bus.emit(DRIVER, QemuMonitorEvent(ONE, name, 1, 2, None))
    (packet,) = sink.packets
    assert (packet.program, packet.procedure) == (QEMU.number, 6)


def test_nothing_is_sent_after_unsubscribing() -> None:
    bus, sink = EventBus(), Sink()
    subscription = bus.subscribe(sink, DRIVER, "domain", 0)
    assert bus.wanted("domain", 0)
    bus.unsubscribe(subscription)
    bus.emit(DRIVER, started(ONE))
    assert not sink.packets
    assert not bus.wanted("domain", 0)


def test_a_sink_may_unsubscribe_others_while_an_event_is_sent() -> None:
    bus = EventBus()

    class Leaver(Sink):
        def deliver(self, message: EventMessage, obj: Any, data: bytes) -> None:
            super().deliver(message, obj, data)
            bus.unsubscribe(mine)

    leaver, stayer = Leaver(), Sink()
    mine = bus.subscribe(leaver, DRIVER, "domain", 0)
    bus.subscribe(stayer, DRIVER, "domain", 0)
    bus.emit(DRIVER, started(ONE))
    bus.emit(DRIVER, started(ONE))
    assert (len(leaver.packets), len(stayer.packets)) == (1, 2)


@pytest.mark.parametrize("family", ["domain", "network", "storage_pool", "node_device", "secret"])
def test_events_that_there_are_not_cannot_be_registered(family: str) -> None:
    assert registrable(family, 0)
    assert not registrable(family, -1)
    assert not registrable(family, 99)


def test_the_old_calls_know_the_old_events_only() -> None:
    removed, tunable = 15, 17
    assert registrable("domain", removed, legacy=True)
    assert registrable("domain", tunable)
    assert not registrable("domain", tunable, legacy=True)
