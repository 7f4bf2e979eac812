"""Domains in memory: one object each, found by id, name and uuid; list filters."""

import uuid as uuid_module
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pyvirtd.api.types import Domain, DomainRef
from pyvirtd.constants.domain import ConnectListAllDomainsFlags as Filter
from pyvirtd.constants.domain import DomainShutoffReason, DomainState
from pyvirtd.constants.error import ErrorDomain
from pyvirtd.core.jobs import Jobs
from pyvirtd.errors import NoDomain, OperationFailed, OperationInvalid
from pyvirtd.model.domain import DomainDef


@dataclass(frozen=True, slots=True)
class Deferred:
    """A definition on disk of which only the identity is known: most are not looked into for a long time."""

    name: str
    uuid: str
    text: str

    def read(self) -> DomainDef:
        """The definition in full. Raises VirtError."""
        return DomainDef.parse(self.text)


class DomainObject(Domain):
    """A domain a driver knows. `config` is what the next start uses, `live` what runs now (None when off).

    A transient domain has no definition on disk; its `config` is what it was created from. `id` is -1 when off.
    """

    def __init__(self, config: "DomainDef | Deferred", *, persistent: bool) -> None:
        assert config.uuid is not None
        self.uuid_text = config.uuid
        self.uuid = uuid_module.UUID(config.uuid).bytes  # stays for life
        self.name = config.name
        # On disk as text, in memory as a definition, or both; see `config` and `keep_as_text`.
        self._text = config if isinstance(config, Deferred) else None
        self._config = None if isinstance(config, Deferred) else config
        self.revision = 0  # counts the changes of `config`
        self.live: DomainDef | None = None
        self.persistent = persistent
        self.autostart = False
        self.autostart_once = False
        self.updated = False
        self.id = -1
        self.state = DomainState.SHUTOFF
        self.reason: int = DomainShutoffReason.UNKNOWN
        self.jobs = Jobs()
        self.being_kept = False  # its definition is being written
        self.removed = False

    @property
    def config(self) -> DomainDef:
        """The definition, never changed in place. Raises VirtError where it still is text and not valid.

        Of all the domains whose text is at hand only those last asked for are kept as definitions: a definition takes
        ten times the memory.
        """
        if self._config is None:
            assert self._text is not None
            self._config = self._text.read()
        config = self._config
        self._use()
        return config

    @config.setter
    def config(self, config: DomainDef) -> None:
        self._config, self._text = config, None
        self.name = config.name
        self.revision += 1
        self._use()

    def keep_as_text(self, text: str) -> None:
        """The definition is on disk as `text`, and may be read from that again."""
        self._text = Deferred(self.name, self.uuid_text, text)
        self._use()

    def is_kept_as(self, text: str) -> bool:
        """Whether a file with this text, whatever comment begins it, says what is known of the definition."""
        return self._text is not None and text.endswith(self._text.text)

    def _use(self) -> None:
        """Of the definitions that could be read from text again, keep those last used."""
        if self._config is None or self._text is None:
            _in_use.pop(self, None)
            return
        _in_use[self] = None
        _in_use.move_to_end(self)
        if len(_in_use) > IN_USE_MAX:
            _in_use.popitem(last=False)[0]._config = None

    @property
    def deferred(self) -> "Deferred | None":
        """The definition's text, if it is nothing else now."""
        return self._text if self._config is None else None

    @property
    def listed_name(self) -> str:
        return self.name

    @property
    def active(self) -> bool:
        return self.id != -1

    @property
    def shown(self) -> DomainDef:
        """The definition clients see by default: the live one of a running domain."""
        return self.live or self.config

    def require_active(self) -> None:
        """Raises OperationInvalid when off."""
        if not self.active:
            raise OperationInvalid("domain is not running", domain=ErrorDomain.DOMAIN)

    def require_inactive(self) -> None:
        """Raises OperationInvalid when running."""
        if self.active:
            raise OperationInvalid("domain is already running")

    def forgotten(self) -> None:
        """The driver knows it no more."""

    def set_state(self, state: DomainState, reason: int) -> None:
        self.state, self.reason = state, int(reason)

    def __repr__(self) -> str:
        return f"<domain {self.name} {self.state.name.lower()}>"


IN_USE_MAX = 256
_in_use: OrderedDict[DomainObject, None] = OrderedDict()  # whose text was made a definition, the last used last

Dom = TypeVar("Dom", bound=DomainObject)


class DomainList(Generic[Dom]):
    """A driver's domains."""

    def __init__(self) -> None:
        self._by_uuid: dict[bytes, Dom] = {}
        self._by_name: dict[str, Dom] = {}
        self._by_id: dict[int, Dom] = {}
        self._last_id = 0

    def __iter__(self) -> Iterator[Dom]:
        return iter(list(self._by_uuid.values()))

    def __len__(self) -> int:
        return len(self._by_uuid)

    def add(self, dom: Dom) -> None:
        """Take a new domain; its name and uuid are free (`match_new`)."""
        self._by_uuid[dom.uuid] = dom
        self._by_name[dom.name] = dom

    def remove(self, dom: Dom) -> None:
        """Forget a domain."""
        dom.removed = True
        dom.forgotten()
        _in_use.pop(dom, None)
        self._by_uuid.pop(dom.uuid, None)
        if self._by_name.get(dom.name) is dom:
            del self._by_name[dom.name]
        self._by_id.pop(dom.id, None)

    def rename(self, dom: Dom, old: str) -> None:
        """The domain's name changed."""
        self._by_name.pop(old, None)
        self._by_name[dom.name] = dom

    def next_id(self) -> int:
        """A number no domain had since the daemon's start."""
        self._last_id += 1
        return self._last_id

    def set_id(self, dom: Dom, number: int) -> None:
        """Give a starting domain its id, or -1 when it ended."""
        self._by_id.pop(dom.id, None)
        dom.id = number
        if number != -1:
            self._by_id[number] = dom
            self._last_id = max(self._last_id, number)

    # --- look-up ---------------------------------------------------------------------------------------------

    def by_name(self, name: str) -> Dom:
        dom = self._by_name.get(name)
        if dom is None:
            raise NoDomain(f"no domain with matching name '{name}'")
        return dom

    def get_name(self, name: str) -> Dom | None:
        return self._by_name.get(name)

    def by_uuid(self, uuid: bytes) -> Dom:
        dom = self._by_uuid.get(uuid)
        if dom is None:
            raise NoDomain(f"no domain with matching uuid '{uuid_module.UUID(bytes=uuid)}'")
        return dom

    def by_id(self, number: int) -> Dom:
        dom = self._by_id.get(number)
        if dom is None:
            raise NoDomain(f"no domain with matching id {number}")
        return dom

    def resolve(self, ref: DomainRef) -> Dom:
        """The object of a client's reference: by uuid, as the name may have changed since."""
        dom = self._by_uuid.get(ref.uuid)
        if dom is None:
            raise NoDomain(f"no domain with matching uuid '{uuid_module.UUID(bytes=ref.uuid)}' ({ref.name})")
        return dom

    def match_new(self, definition: DomainDef | Deferred) -> Dom | None:
        """The domain a new definition replaces, if any. Raises where it takes another one's name or uuid."""
        uuid = uuid_module.UUID(definition.uuid or "").bytes
        dom = self._by_uuid.get(uuid)
        if dom is not None:
            if dom.name != definition.name:
                raise OperationFailed(f"domain '{dom.name}' is already defined with uuid {dom.uuid_text}")
            return dom
        other = self._by_name.get(definition.name)
        if other is not None:
            raise OperationFailed(f"domain '{other.name}' already exists with uuid {other.uuid_text}")
        return None


# What a domain is, as the two flags that ask for it and for the opposite, and how to tell.
_PAIRS: tuple[tuple[int, int, Callable[[Any, Any], bool]], ...] = (
    (Filter.ACTIVE, Filter.INACTIVE, lambda dom, saved: dom.active),
    (Filter.PERSISTENT, Filter.TRANSIENT, lambda dom, saved: dom.persistent),
    (Filter.AUTOSTART, Filter.NO_AUTOSTART, lambda dom, saved: dom.autostart),
    (Filter.MANAGEDSAVE, Filter.NO_MANAGEDSAVE, lambda dom, saved: bool(saved and saved(dom))),
    (Filter.HAS_SNAPSHOT, Filter.NO_SNAPSHOT, lambda dom, saved: False),
    (Filter.HAS_CHECKPOINT, Filter.NO_CHECKPOINT, lambda dom, saved: False),
)
_STATES = int(Filter.RUNNING | Filter.PAUSED | Filter.SHUTOFF | Filter.OTHER)
_STATE_FLAGS: dict[int, int] = {
    DomainState.RUNNING: int(Filter.RUNNING),
    DomainState.PAUSED: int(Filter.PAUSED),
    DomainState.SHUTOFF: int(Filter.SHUTOFF),
}
ALL_FILTERS = _STATES
for _yes, _no, _ in _PAIRS:
    ALL_FILTERS |= _yes | _no


def filter_domains(domains: Iterable[Dom], flags: int, *, saved: Any = None) -> list[Dom]:
    """The domains that pass libvirt's list filters; of each group no bit means all. `saved(dom)`: has a save image."""
    flags = int(flags)  # a flag's own operators are a hundred times slower
    wanted = [(tell, bool(flags & yes)) for yes, no, tell in _PAIRS if bool(flags & yes) != bool(flags & no)]
    found = list(domains)
    for tell, want in wanted:
        found = [dom for dom in found if bool(tell(dom, saved)) is want]
    states = flags & _STATES
    if states:
        found = [dom for dom in found if states & _STATE_FLAGS.get(dom.state, int(Filter.OTHER))]
    return found
