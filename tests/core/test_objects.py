"""Domains in memory: look-up, ids, filters, what a new definition may replace."""

import uuid
from typing import Any

import pytest

from pyvirtd.api.types import DomainRef
from pyvirtd.constants.domain import ConnectListAllDomainsFlags as Filter
from pyvirtd.constants.domain import DomainState
from pyvirtd.core.objects import Deferred, DomainList, DomainObject, filter_domains
from pyvirtd.errors import NoDomain, OperationFailed, VirtError
from pyvirtd.model.domain import DomainDef

XML = "<domain type='test'><name>{}</name><uuid>{}</uuid><memory>8192</memory><os><type>hvm</type></os></domain>"


def identity(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def definition(name: str, number: int) -> DomainDef:
    return DomainDef.parse(XML.format(name, identity(number)))


def domain(name: str, number: int, *, persistent: bool = True) -> DomainObject:
    return DomainObject(definition(name, number), persistent=persistent)


def listed(*names: str) -> DomainList[DomainObject]:
    domains: DomainList[DomainObject] = DomainList()
    for number, name in enumerate(names):
        domains.add(domain(name, number))
    return domains


def test_a_domain_is_found_by_name_uuid_and_id() -> None:
    domains = listed("a", "b")
    b = domains.by_name("b")
    domains.set_id(b, domains.next_id())
    assert domains.by_uuid(b.uuid) is b
    assert domains.by_id(1) is b
    assert domains.resolve(DomainRef("renamed since", b.uuid, -1)) is b
    assert len(domains) == 2


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (lambda domains: domains.by_name("x"), "no domain with matching name 'x'"),
        (lambda domains: domains.by_id(7), "no domain with matching id 7"),
        (
            lambda domains: domains.by_uuid(bytes(16)),
            "no domain with matching uuid '00000000-0000-0000-0000-000000000000'",
        ),
        (
            lambda domains: domains.resolve(DomainRef("x", bytes(16), 1)),
            "no domain with matching uuid '00000000-0000-0000-0000-000000000000' (x)",
        ),
    ],
)
def test_what_there_is_not_is_named(look: Any, words: str) -> None:
    with pytest.raises(NoDomain) as caught:
        look(listed("a"))
    assert caught.value.detail == words


def test_ids_are_never_used_again() -> None:
    domains = listed("a", "b")
    a, b = domains
    domains.set_id(a, domains.next_id())
    domains.set_id(a, -1)
    assert not a.active
    domains.set_id(b, domains.next_id())
    assert (b.id, domains.next_id()) == (2, 3)


def test_adopted_ids_push_the_next_one_up() -> None:
    domains = listed("a")
    domains.set_id(domains.by_name("a"), 41)
    assert domains.next_id() == 42


def test_a_removed_domain_is_nowhere() -> None:
    domains = listed("a")
    a = domains.by_name("a")
    domains.set_id(a, 1)
    domains.remove(a)
    assert a.removed
    assert len(domains) == 0
    assert domains.get_name("a") is None
    with pytest.raises(NoDomain):
        domains.by_id(1)


def test_removing_leaves_a_namesake_alone() -> None:
    domains = listed("a")
    old = domains.by_name("a")
    newer = domain("a", 9)
    domains.add(newer)
    domains.remove(old)
    assert domains.by_name("a") is newer


def test_a_renamed_domain_is_found_by_its_new_name_only() -> None:
    domains = listed("a")
    a = domains.by_name("a")
    a.config = definition("z", 0)
    domains.rename(a, "a")
    assert domains.by_name("z") is a
    assert domains.get_name("a") is None


def test_a_definition_replaces_the_domain_with_its_name_and_uuid() -> None:
    domains = listed("a")
    assert domains.match_new(definition("a", 0)) is domains.by_name("a")
    assert domains.match_new(definition("new", 5)) is None
    with pytest.raises(OperationFailed, match=f"domain 'a' is already defined with uuid {identity(0)}"):
        domains.match_new(definition("other", 0))
    with pytest.raises(OperationFailed, match=f"domain 'a' already exists with uuid {identity(0)}"):
        domains.match_new(definition("a", 5))


def test_domains_may_come_and_go_while_they_are_gone_through() -> None:
    domains = listed("a", "b", "c")
    for dom in domains:
        domains.remove(dom)
    assert len(domains) == 0


def test_a_deferred_definition_is_read_when_it_is_needed() -> None:
    dom = DomainObject(Deferred("a", identity(0), XML.format("a", identity(0))), persistent=True)
    assert (dom.name, dom.uuid_text) == ("a", identity(0))
    assert dom.deferred is not None
    assert dom.config.memory.kib == 8192
    assert dom.deferred is None


def test_a_deferred_definition_that_is_broken_stays_deferred() -> None:
    dom = DomainObject(Deferred("a", identity(0), "<domain type='nothing'/>"), persistent=True)
    for _ in range(2):
        with pytest.raises(VirtError):
            _ = dom.config
    assert dom.deferred is not None


# --- filters --------------------------------------------------------------------------------------------------------


@pytest.fixture
def zoo() -> DomainList[DomainObject]:
    """One running and one paused domain, one that is off, a transient one that crashed; two with autostart."""
    domains = listed("run", "pause", "off", "odd")
    run, pause, off, odd = domains
    for dom, state in ((run, DomainState.RUNNING), (pause, DomainState.PAUSED), (odd, DomainState.CRASHED)):
        domains.set_id(dom, domains.next_id())
        dom.set_state(state, 0)
    odd.persistent = False
    run.autostart = off.autostart = True
    return domains


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (0, "run pause off odd"),
        (Filter.ACTIVE, "run pause odd"),
        (Filter.INACTIVE, "off"),
        (Filter.ACTIVE | Filter.INACTIVE, "run pause off odd"),
        (Filter.PERSISTENT, "run pause off"),
        (Filter.TRANSIENT, "odd"),
        (Filter.RUNNING, "run"),
        (Filter.PAUSED, "pause"),
        (Filter.SHUTOFF, "off"),
        (Filter.OTHER, "odd"),
        (Filter.RUNNING | Filter.OTHER, "run odd"),
        (Filter.AUTOSTART, "run off"),
        (Filter.NO_AUTOSTART, "pause odd"),
        (Filter.AUTOSTART | Filter.ACTIVE, "run"),
        (Filter.AUTOSTART | Filter.PAUSED, ""),
        (Filter.MANAGEDSAVE, "off"),
        (Filter.NO_MANAGEDSAVE, "run pause odd"),
        (Filter.HAS_SNAPSHOT, ""),
        (Filter.NO_SNAPSHOT | Filter.NO_CHECKPOINT, "run pause off odd"),
        (Filter.HAS_CHECKPOINT, ""),
    ],
)
def test_filters_of_a_list(zoo: DomainList[DomainObject], flags: int, names: str) -> None:
    found = filter_domains(zoo, flags, saved=lambda dom: dom.name == "off")
    assert [dom.name for dom in found] == names.split()
