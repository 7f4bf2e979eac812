"""The check that refuses what reading passes over."""

from enum import StrEnum

import pytest

from pyvirtd.xml.check import find_unknown
from pyvirtd.xml.document import parse_document
from pyvirtd.xml.element import Element, attr, child, children, content, flag, says, text, via
from pyvirtd.xml.types import U8, U64


class Kind(StrEnum):
    FILE = "file"
    BLOCK = "block"


class FileSource(Element, tag="source", case="file"):
    file: str | None = attr(required=True)


class BlockSource(Element, tag="source", case="block"):
    dev: str | None = attr()


class Listen(Element, tag="listen", by="type"):
    pass


class AddressListen(Listen, case="address"):
    address: str | None = attr()


class NoListen(Listen, case="none"):
    pass


class Size(Element, tag="size"):
    kib: U64 = content(0, unit="KiB")


class Box(Element, tag="box"):
    type: Kind = attr(Kind.FILE)
    number: U8 | None = attr()
    readonly: bool = flag()
    serial: str | None = text()
    limit_kib: U64 | None = text(name="limit", unit="KiB")
    alias: str | None = via("alias", "name")
    size: Size | None = child()
    source: FileSource | BlockSource | None = child(switch="^type")
    listen: list[AddressListen | NoListen] = children()
    names: list[str] = children(name="name", wrap="names")
    extra: str | None = attr(when=says("type", "block"))


def misfit(inner: str, *, attributes: str = "") -> str | None:
    wrong = find_unknown(Box, parse_document(f"<box{attributes}>\n{inner}</box>"))
    return None if wrong is None else f"{wrong.line}: {wrong.text}"


def test_a_document_of_known_parts_fits() -> None:
    assert misfit(
        "<readonly/><serial>s</serial><limit unit='MiB'>1</limit><alias name='a'/><size unit='GiB'>2</size>"
        "<source file='/x'/><listen type='address' address='h'/><listen type='none'/>"
        "<names><name>a</name><name>b</name></names><!-- said -->",
        attributes=" type='file' number='7'",
    ) is None  # fmt: skip


def test_absent_attributes_have_their_defaults() -> None:
    assert misfit("<source file='/x'/>") is None


@pytest.mark.parametrize(
    ("inner", "attributes", "found"),
    [
        ("<nope/>", "", "2: element 'box' has no child 'nope'"),
        ("", " nope='1'", "1: element 'box' has no attribute 'nope'"),
        ("", " type='dir'", "1: attribute 'type' of element 'box' cannot be 'dir'"),
        ("", " number='256'", "1: attribute 'number' of element 'box' cannot be '256'"),
        ("<limit unit='parsec'>1</limit>", "", "2: 'parsec' is no unit (element 'limit')"),
        ("<limit>many</limit>", "", "2: text of element 'limit' cannot be 'many'"),
        ("<size unit='parsec'>1</size>", "", "2: 'parsec' is no unit (element 'size')"),
        ("<size>x</size>", "", "2: text of element 'size' cannot be 'x'"),
        ("<serial a='1'>s</serial>", "", "2: element 'serial' has no attribute 'a'"),
        ("<serial><b/></serial>", "", "2: element 'serial' has no child 'b'"),
        ("<readonly a='1'/>", "", "2: element 'readonly' has no attribute 'a'"),
        ("<alias nom='a'/>", "", "2: element 'alias' has no attribute 'nom'"),
        ("<source/>", "", "2: element 'source' lacks attribute 'file'"),
        ("<source dev='/x'/>", "", "2: element 'source' has no attribute 'dev'"),
        ("<listen type='address' port='1'/>", "", "2: element 'listen' has no attribute 'port'"),
        ("<listen type='socket'/>", "", "2: element 'listen' is of no known kind"),
        ("<names><nom>a</nom></names>", "", "2: element 'names' has no child 'nom'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_line(inner: str, attributes: str, found: str) -> None:
    assert misfit(inner, attributes=attributes) == found


def test_the_parents_word_decides_which_attributes_a_child_has() -> None:
    assert misfit("<source dev='/x'/>", attributes=" type='block'") is None
    assert misfit("<source file='/x'/>", attributes=" type='block'") == "2: element 'source' has no attribute 'file'"
