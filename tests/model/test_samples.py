"""Our own samples: what libvirt prints is what we print; every declared field is met in one of them."""

import difflib
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.model.domain import DomainDef
from pyvirtd.model.status import STATUS_VIEW, DomStatus, read_status
from pyvirtd.xml.element import INACTIVE, LIVE, SECURE, Element
from pyvirtd.xml.plan import flatten

DATA = Path(__file__).parent / "data"
SAMPLES = sorted(path.name for path in DATA.glob("*.xml"))


def load(name: str) -> DomainDef | DomStatus:
    text = (DATA / name).read_text()
    if name.startswith("status"):
        return read_status(text)
    return DomainDef.parse(text, LIVE if name.startswith("live") else INACTIVE)


def view_of(name: str) -> Any:
    if name.startswith("status"):
        return STATUS_VIEW
    return LIVE | SECURE if name.startswith("live") else SECURE


@pytest.mark.parametrize("name", SAMPLES)
def test_canonical_text_prints_to_itself(name: str) -> None:
    expected = (DATA / name).read_text()
    printed = load(name).format(view_of(name))
    assert printed == expected, "\n".join(difflib.unified_diff(expected.splitlines(), printed.splitlines()))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_copy_is_equal_prints_the_same_and_shares_nothing_that_changes(name: str) -> None:
    first = load(name)
    copy = first.copy()
    assert copy == first
    assert copy.format(view_of(name)) == first.format(view_of(name))
    assert not set(map(id, elements(copy))) & set(map(id, elements(first)))


def elements(one: Element) -> list[Element]:
    found = [one]
    for _, value in one.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Element):
                found += elements(item)
    return found


def test_every_declared_field_is_met_in_a_sample() -> None:
    seen: set[tuple[str, str]] = set()
    for name in SAMPLES:
        for one in elements(load(name)):
            for field in one.fields():
                if getattr(one, field.attribute) not in (None, []):
                    seen.add((type(one).__name__, field.attribute))
    classes: set[type[Element]] = set()
    collect(DomStatus, classes)
    declared = {(kind.__name__, field.attribute) for kind in classes for field in kind.fields()}
    assert sorted(declared - seen) == []


def collect(kind: Any, into: set[type[Element]]) -> None:
    if kind in into or not (isinstance(kind, type) and issubclass(kind, Element)):
        return
    into.add(kind)
    slots, groups = flatten(kind)
    for _, group in groups:
        collect(group, into)
    for slot in slots:
        for inner in slot.shape.classes:
            collect(inner, into)
