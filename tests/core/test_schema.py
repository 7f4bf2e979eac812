"""Validation against the host's schemas."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvirtd.core import schema
from pyvirtd.errors import ConfigUnsupported, XmlInvalidSchema
from pyvirtd.model.domain import DomainDef

DOMAIN = "<domain type='qemu'><name>x</name><memory>1</memory>{}<os><type>hvm</type></os></domain>"

needs_schemas = pytest.mark.skipif(not schema.SCHEMAS.exists(), reason="libvirt's schemas are not installed")


@needs_schemas
def test_a_document_that_fits_passes() -> None:
    asyncio.run(schema.validate(DOMAIN.format(""), "domain"))


@needs_schemas
def test_an_unknown_element_is_refused() -> None:
    with pytest.raises(XmlInvalidSchema, match="line 1"):
        asyncio.run(schema.validate(DOMAIN.format("<nope/>"), "domain"))


@pytest.fixture
def no_schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host without libvirt's schemas."""
    monkeypatch.setattr(schema, "SCHEMAS", tmp_path)
    schema._schema.cache_clear()
    yield
    schema._schema.cache_clear()


@pytest.mark.usefixtures("no_schemas")
def test_a_host_without_the_schema_checks_by_the_declarations() -> None:
    asyncio.run(schema.validate(DOMAIN.format(""), "domain", DomainDef))
    with pytest.raises(XmlInvalidSchema, match="line 1: element 'domain' has no child 'nope'"):
        asyncio.run(schema.validate(DOMAIN.format("<nope/>"), "domain", DomainDef))


@pytest.mark.usefixtures("no_schemas")
def test_a_document_without_schema_and_declarations_cannot_be_validated() -> None:
    with pytest.raises(ConfigUnsupported, match="no schema"):
        asyncio.run(schema.validate(DOMAIN.format(""), "domain"))
