"""Events from drivers to subscribed clients, in order, never waiting for a client."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from pyvirtd.api.rpc import EVENTS, VERSION, EventMessage
from pyvirtd.wire.packet import PacketType, Status, frame

EVENT_SERIAL = 1  # the serial of every event message


class Sink(Protocol):
    """A client as the bus sees it."""

    def deliver(self, message: EventMessage, obj: Any, data: bytes) -> None:
        """Queue one framed event about `obj`; drops the client when its queue is full."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One registration. `about`: the one object it is for; `legacy`: by the old calls, whose messages carry no id."""

    sink: Sink
    driver: object
    family: str
    event_id: int
    callback_id: int
    about: object
    legacy: bool
    pattern: Callable[[Any], bool] | None


_IDS: dict[str, set[int]] = {}  # event ids of each family
for _message in EVENTS.values():
    _IDS.setdefault(_message.family, set()).add(_message.id or 0)
LEGACY_IDS = frozenset(message.id for message in EVENTS.values() if message.legacy is not None)


def registrable(family: str, event_id: int, *, legacy: bool = False) -> bool:
    """Whether there is such an event, and the old registration calls know it where they are used."""
    return event_id in (LEGACY_IDS if legacy else _IDS[family])


def identity(obj: Any) -> object:
    """What tells an object from the others of its family: its uuid, else its name."""
    return getattr(obj, "uuid", None) or obj.name


class EventBus:
    """Subscriptions by family and event id."""

    def __init__(self) -> None:
        self._subscriptions: dict[tuple[str, int], list[Subscription]] = {}
        self._ids = count()

    def subscribe(
        self,
        sink: Sink,
        driver: object,
        family: str,
        event_id: int,
        *,
        about: Any = None,
        legacy: bool = False,
        pattern: Callable[[Any], bool] | None = None,
    ) -> Subscription:
        """Register for a `registrable` event of `driver`'s objects: of one object where `about` is given, and only
        bodies that `pattern` takes."""
        assert registrable(family, event_id, legacy=legacy)
        whom = None if about is None else identity(about)
        subscription = Subscription(sink, driver, family, event_id, next(self._ids), whom, legacy, pattern)
        self._subscriptions.setdefault((family, event_id), []).append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a registration."""
        self._subscriptions[subscription.family, subscription.event_id].remove(subscription)

    def wanted(self, family: str, event_id: int) -> bool:
        """Whether anybody listens."""
        return bool(self._subscriptions.get((family, event_id)))

    def emit(self, driver: object, body: Any) -> None:
        """Send an event of `driver` (a NamedTuple of pyvirtd.api.events) to all who subscribed. Never blocks."""
        message = EVENTS[type(body)]
        subscriptions = self._subscriptions.get((message.family, message.id or 0))
        if not subscriptions:
            return
        subject = body[0]
        whom = identity(subject)
        payload: bytes | None = None
        for subscription in list(subscriptions):
            if subscription.driver is not driver or subscription.about not in (None, whom):
                continue
            if subscription.pattern is not None and not subscription.pattern(body):
                continue
            if payload is None:
                payload = message.body.encode_checked(*body)
            subscription.sink.deliver(message, subject, _frame(message, subscription, payload))


def _frame(message: EventMessage, subscription: Subscription, payload: bytes) -> bytes:
    number = message.number
    if subscription.legacy:
        assert message.legacy is not None
        number = message.legacy
    else:
        payload = struct.pack(">i", subscription.callback_id) + bytes(4 * message.lead_words) + payload
    program = message.program.number
    return frame(program, VERSION, number, PacketType.MESSAGE, EVENT_SERIAL, Status.OK, payload)
