"""What has to be asked about a call before it runs, while it waits for the answer, and about its result.

Only for clients with rules (`Client.rules`): the others may do everything and none of this runs for them.

What a call is about is known before the check, and nothing more: of a document its name and uuid, of a reference the
object behind it or, where there is none, the reference itself. A driver that finds the object on the way asks by the
`Consent` that it is given. So who may not know of an object is refused in the same words whether it is there or not.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from pyvirtd.api import types
from pyvirtd.api.rpc import Procedure
from pyvirtd.api.types import Consent
from pyvirtd.core.access import Question, Rules
from pyvirtd.core.access.subjects import Described, described, details
from pyvirtd.core.driver import Driver, Handler
from pyvirtd.core.registry import driver_for_uri
from pyvirtd.errors import AccessDenied, InternalError, VirtError

if TYPE_CHECKING:
    from pyvirtd.daemon.client import Client

DOCUMENTS = ("xml", "xml_desc", "dom_xml")  # parameters that hold a whole document
LONG_DOCUMENT = 1 << 15  # characters that are not read on the loop
EVENTS_MAX = 16 << 20  # bytes of events that wait for a decision
# Typed parameters of calls that bring a domain: libvirt-domain.h VIR_MIGRATE_PARAM_DEST_...
BROUGHT_XML, BROUGHT_NAME = "destination_xml", "destination_name"
_OBJECTS: list[Any] = [cls for cls in vars(types).values() if hasattr(cls, "wire_type")]
_KINDS = {cls.wire_type: str(cls.access_class) for cls in _OBJECTS}


class Petition(Consent):
    """One call before the rules. Its connection is open, or it is the one that opens it."""

    def __init__(self, client: "Client", handler: Handler, values: list[Any], missing: list[VirtError]) -> None:
        """`values` are the call's arguments with the live objects; an object that is `missing` is a reference still."""
        assert client.rules is not None
        self._client = client
        self._rules: Rules = client.rules
        self._procedure: Procedure = handler.procedure
        self._values = values
        self._missing = missing
        self._arguments = dict(zip(self._procedure.wire_params, values, strict=True))
        self._driver = self._connection()
        self._needs = [need.permission for need in self._procedure.needs if need.applies(self._arguments)]
        self._consents = Consent in self._procedure.injected
        self._consented = False
        self._looked_up = self._about_result()
        self._later = self._about_unnamed() if self._consents else self._looked_up  # not asked for before the call
        self._brought: Any = None  # what the call's document is about

    def _connection(self) -> Driver | None:
        """The driver that the connection is to; None while it is to none."""
        if self._client.driver is not None or self._procedure.name != "connect_open":
            return self._client.driver
        return driver_for_uri(self._client.server.host, self._arguments["name"] or "")[0]

    # --- before ----------------------------------------------------------------------------------------------

    def settled(self) -> bool:
        """Whether the call may run at once: it is known to be allowed, and everything about its result, too."""
        if self._missing or self._procedure.list_filter or self._later or self._needs_document():
            return False
        return all(self._rules.known(question) for question in self.questions())

    async def plead(self) -> None:
        """Wait until the rules allow the call. Raises AccessDenied, or what is wrong with the call's document."""
        if self._needs_document():
            self._brought = await self._read_document()
        if not all(await self._rules.ask(self.questions())):
            raise denied(self._driver)
        if self._missing:
            raise self._missing[0]

    def same_as(self, other: "Petition") -> bool:
        """Whether both are about the same, as far as the rules can see."""
        self._brought = other._brought
        return self.questions() == other.questions() and bool(self._missing) == bool(other._missing)

    def questions(self) -> list[Question]:
        """What must be allowed before the call runs."""
        if self._driver is None:  # no connection yet, and nothing that could be somebody's
            return []
        name = self._driver.connect_driver
        about = {permission: kind_of(permission) for permission in self._needs if permission not in self._later}
        asked = [Question(permission, name, details(kind, self._subject(kind))) for permission, kind in about.items()]
        # An object that no permission is about must still be one that the client may know of.
        kinds = set(map(kind_of, self._needs))
        for obj in self._objects():
            if (kind := _kind_of_object(obj)) not in kinds:
                asked.append(Question(f"{kind}:getattr", name, details(kind, obj)))
        return asked

    # --- what it is about ------------------------------------------------------------------------------------

    def _objects(self) -> list[Any]:
        """The objects that the call names, or their references."""
        return [self._values[index] for index in self._procedure.ref_params if self._values[index] is not None]

    def _object(self, kind: str) -> Any:
        return next((obj for obj in self._objects() if _kind_of_object(obj) == kind), None)

    def _subject(self, kind: str) -> Any:
        if kind == "connect":
            return None
        if (found := self._object(kind)) is not None:
            return found
        if self._brought is not None:
            return self._brought
        return self._in_words(kind)

    def _in_words(self, kind: str) -> Described:
        """An object as the call's other arguments speak of it."""
        arguments = self._arguments
        name = arguments.get("dname" if kind == "domain" and "dname" in arguments else "name")
        uuid = arguments.get("uuid")
        return Described(
            name if isinstance(name, str) else "",
            uuid if isinstance(uuid, bytes) else None,
            next(iter(self._objects()), None),
            arguments.get("mac", ""),
            arguments.get("usage_type", 0),
            arguments.get("usage_id", ""),
        )

    def _needs_document(self) -> bool:
        """Whether what the call is about stands in a document."""
        kinds = {kind_of(permission) for permission in self._needs} - {"connect"}
        if all(self._object(kind) is not None for kind in kinds):
            return False
        return bool(self._document())

    def _document(self) -> str:
        words = (self._arguments.get(name) for name in DOCUMENTS)
        return next((word for word in words if word), "") or self._parameter(BROUGHT_XML)

    def _parameter(self, field: str) -> str:
        params = self._arguments.get("params") or ()
        return next((str(param.value[1]) for param in params if param.field == field), "")

    async def _read_document(self) -> Any:
        found = await _described(self._document(), next(iter(self._objects()), None))
        name = self._arguments.get("dname") or self._parameter(BROUGHT_NAME)
        return found._replace(name=name) if name else found

    # --- on the way ------------------------------------------------------------------------------------------

    async def to_document(self, xml: str) -> None:
        try:
            found = await _described(xml)
        except VirtError as exc:
            raise await self.unfound(exc) from exc
        for permission in self._later:
            await self._require(permission, found)
        self._consented = True

    async def unfound(self, exc: VirtError) -> VirtError:
        """`exc`, to who has the permissions for objects without a name, too; and no word of it to anybody else."""
        return await self._unless_denied(exc, self._later)

    # --- after -----------------------------------------------------------------------------------------------

    def _about_result(self) -> list[str]:
        """The permissions of a look-up, which are about what it finds."""
        return self._about_unnamed() if "_lookup_" in self._procedure.name else []

    def _about_unnamed(self) -> list[str]:
        """The permissions about objects that the call does not name."""
        kinds = {permission: kind_of(permission) for permission in self._needs}
        return [word for word, kind in kinds.items() if kind != "connect" and self._object(kind) is None]

    async def result(self, result: Any) -> Any:
        """The result as the client may see it. Raises AccessDenied."""
        if self._consents and not self._consented:
            raise InternalError(f"{self._procedure.name} has not asked whether the client may")
        for permission in self._looked_up:
            await self._require(permission, result)
        if self._procedure.list_filter and isinstance(result, list):
            assert self._driver is not None
            return await permitted(self._rules, self._driver, self._procedure.list_filter, result)
        return result

    async def failure(self, exc: VirtError) -> VirtError:
        """The error of a look-up as the client may see it: who may not know, is not told that there is nothing."""
        return await self._unless_denied(exc, self._looked_up)

    async def _unless_denied(self, exc: VirtError, permissions: list[str]) -> VirtError:
        try:
            for permission in permissions:
                await self._require(permission, self._in_words(kind_of(permission)))
        except AccessDenied as denial:
            return denial
        return exc

    async def _require(self, permission: str, subject: Any) -> None:
        assert self._driver is not None
        question = Question(permission, self._driver.connect_driver, details(kind_of(permission), subject))
        if not (await self._rules.ask([question]))[0]:
            raise denied(self._driver)


async def _described(xml: str, owner: Any = None) -> Described:
    """What a document says of itself; a long one does not stop the loop."""
    if len(xml) < LONG_DOCUMENT:
        return described(xml, owner)
    return await asyncio.to_thread(described, xml, owner)


async def permitted(rules: Rules, driver: Driver, permission: str, items: list[Any]) -> list[Any]:
    """Of a list's items those that the client may know of."""
    kind = kind_of(permission)
    questions = [
        Question(permission, driver.connect_driver, details(kind, getattr(item, "dom", item))) for item in items
    ]
    answers = await rules.ask(questions)
    return [item for item, allowed in zip(items, answers, strict=True) if allowed]


class Undecided:
    """Events of one client that wait, in order, until it is known whether the client may be told of them."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._waiting: deque[tuple[Question, bytes]] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, rules: Rules, permission: str, obj: Any, data: bytes) -> None:
        """An event about an object, as it is now. A client whose events wait without end is dropped."""
        driver = self._client.driver
        if driver is None:
            return
        question = Question(permission, driver.connect_driver, details(kind_of(permission), obj))
        known = rules.known(question)
        if known is not None and not self._waiting:
            if known:
                self._client.send(data)
            return
        self._waiting.append((question, data))
        self._bytes += len(data)
        if self._bytes > EVENTS_MAX:
            self._client.transport.close()
        elif self._task is None:
            self._task = self._client.server.host.tasks.start(self._decide(rules), "events")

    async def _decide(self, rules: Rules) -> None:
        try:
            while self._waiting:
                batch = list(self._waiting)
                answers = await rules.ask([question for question, _ in batch])
                for (_, data), allowed in zip(batch, answers, strict=True):
                    self._waiting.popleft()
                    self._bytes -= len(data)
                    if allowed:
                        self._client.send(data)
        finally:
            self._task = None

    def close(self) -> None:
        """The client is gone."""
        if self._task is not None:
            self._task.cancel()
        self._waiting.clear()


def denied(driver: Driver | None) -> AccessDenied:
    """libvirt's words: nothing about why."""
    return AccessDenied(f"'{driver.connect_driver}' denied access" if driver is not None else "")


def kind_of(permission: str) -> str:
    """The kind of object that a permission is about."""
    return permission.partition(":")[0]


def _kind_of_object(obj: Any) -> str:
    """The kind of a live object or of a client's reference."""
    return str(getattr(obj, "access_class", "") or _KINDS[type(obj)])
