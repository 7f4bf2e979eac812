"""Every document that a real libvirtd gave back reads and prints to itself."""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvirtd.errors import VirtError
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.check import find_unknown
from pyvirtd.xml.document import parse_document
from pyvirtd.xml.element import SECURE

FAMILIES = ("domain", "generic", "lxc")


def records(reference: Path, family: str) -> Iterator[dict[str, str]]:
    with (reference / "corpus" / f"{family}.jsonl").open() as lines:
        yield from map(json.loads, lines)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_libvirtd_printed_prints_to_itself(reference: Path, family: str) -> None:
    wrong = []
    for record in records(reference, family):
        expected = record.get("xml")
        if expected is not None and DomainDef.parse(expected).format(SECURE) != expected:
            wrong.append(record["name"])
    assert wrong == []


@pytest.mark.parametrize("family", FAMILIES)
def test_what_libvirtd_took_is_read(reference: Path, family: str) -> None:
    refused = {}
    for record in records(reference, family):
        if "xml" in record:
            try:
                DomainDef.parse(record["in"])
            except VirtError as error:
                refused[record["name"]] = str(error)
    assert refused == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_twice_changes_nothing(reference: Path, family: str) -> None:
    """What is read from a user's document and printed is already canonical."""
    for record in records(reference, family):
        if "xml" in record:
            once = DomainDef.parse(record["in"]).format(SECURE)
            twice = DomainDef.parse(once).format(SECURE)
            assert once == twice, "\n".join(difflib.unified_diff(once.splitlines(), twice.splitlines()))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_libvirtd_took_also_validates_by_the_declarations(reference: Path, family: str) -> None:
    refused = {}
    for record in records(reference, family):
        if "xml" in record:
            wrong = find_unknown(DomainDef, parse_document(record["xml"]))
            if wrong is not None:
                refused[record["name"]] = wrong.text
    assert refused == {}
