"""Hostile and broken documents: an error in libvirt's words, quickly, and nothing read from outside."""

import time
from pathlib import Path

import pytest

from pyvirtd.errors import VirtError, XmlDetail, XmlError
from pyvirtd.xml.document import MAX_ATTRIBUTES, MAX_BYTES, parse_document, path_of, text_of


def refused(document: str) -> str:
    began = time.perf_counter()
    with pytest.raises(VirtError) as caught:
        parse_document(document, root="domain")
    assert time.perf_counter() - began < 5
    return str(caught.value)


def test_external_entities_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    document = f"<!DOCTYPE d [<!ENTITY x SYSTEM 'file://{tmp_path}/secret'>]><domain><name>&x;</name></domain>"
    assert "entity declarations are not allowed" in refused(document)


def test_parameter_entities_and_external_subsets_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "d.dtd").write_text("<!ENTITY x 'loaded'>")
    document = f"<!DOCTYPE d SYSTEM 'file://{tmp_path}/d.dtd'><domain><name>&x;</name></domain>"
    assert "loaded" not in text_of(parse_document(document))
    refused(f"<!DOCTYPE d [<!ENTITY % p SYSTEM 'file://{tmp_path}/d.dtd'> %p;]><domain><name>&x;</name></domain>")


@pytest.mark.parametrize("where", ["<domain><name>&j;</name></domain>", "<domain type='&j;'/>"])
def test_an_entity_bomb_is_refused(where: str) -> None:
    levels = "".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(9))
    refused(f"<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'>{levels}]>{where}")


def test_a_plain_doctype_is_ignored() -> None:
    assert parse_document("<!DOCTYPE domain><domain/>", root="domain").tag == "domain"


def test_deep_nesting_is_refused() -> None:
    assert "Excessive depth" in refused("<domain>" + "<x>" * 5000 + "</x>" * 5000 + "</domain>")


def test_the_size_is_bounded() -> None:
    assert "larger than" in refused(f"<domain><name>{'x' * MAX_BYTES}</name></domain>")


def test_very_many_attributes_are_refused() -> None:
    names = " ".join(f"a{n}='>'" for n in range(MAX_ATTRIBUTES * 400))
    assert "more than" in refused(f"<domain {names}/>")
    fine = " ".join(f"a{n}='>'" for n in range(MAX_ATTRIBUTES))
    assert len(parse_document(f"<domain {fine}/>").attrib) == MAX_ATTRIBUTES


def test_text_that_looks_like_attributes_is_no_attribute() -> None:
    parse_document("<domain>" + " a='1'" * 10_000 + "</domain>")


def test_a_huge_attribute_is_read() -> None:
    assert len(parse_document(f"<domain name='{'x' * 1_000_000}'/>").get("name") or "") == 1_000_000


def test_xinclude_is_not_followed() -> None:
    root = parse_document("<domain><i:include xmlns:i='http://www.w3.org/2001/XInclude' href='/etc/passwd'/></domain>")
    assert text_of(root) == ""


@pytest.mark.parametrize("encoding", ["UTF-16", "IBM037", "UTF-7", "latin1"])
def test_the_documents_word_on_its_encoding_does_not_count(encoding: str) -> None:
    root = parse_document(f"<?xml version='1.0' encoding='{encoding}'?><domain>é</domain>")
    assert text_of(root) == "é"


@pytest.mark.parametrize(
    "document", ["", "  ", "hello", "<domain>", "<domain>\0</domain>", "<domain/><domain/>", "<a b=c/>"]
)
def test_what_is_not_well_formed_is_a_detail_error(document: str) -> None:
    with pytest.raises(XmlDetail):
        parse_document(document)


def test_the_error_shows_line_and_column() -> None:
    assert refused("<domain>\n<name>a</nam>\n</domain>") == (
        "(domain_definition):2: Opening and ending tag mismatch: name line 2 and nam\n<name>a</nam>\n-------------^"
    )


def test_another_root_is_refused() -> None:
    with pytest.raises(XmlError, match="unexpected root element <network>, expecting <domain>"):
        parse_document("<network/>", root="domain")


def test_bytes_that_are_no_text_are_refused() -> None:
    refused("<domain><name>\udc80</name></domain>")


def test_paths_name_elements_from_the_root() -> None:
    root = parse_document("<a><b><x:c xmlns:x='u'/></b></a>")
    assert path_of(root[0][0]) == "/a/b/c"
