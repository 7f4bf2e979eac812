"""Validation against the host's schemas."""

import asyncio
from pathlib import Path

import pytest

from pyvirtd.core import schema
from pyvirtd.errors import ConfigUnsupported, XmlInvalidSchema

DOMAIN = "<domain type='qemu'><name>x</name><memory>1</memory>{}<os><type>hvm</type></os></domain>"

needs_schemas = pytest.mark.skipif(not schema.SCHEMAS.exists(), reason="libvirt's schemas are not installed")


@needs_schemas
def test_a_document_that_fits_passes() -> None:
    asyncio.run(schema.validate(DOMAIN.format(""), "domain"))


@needs_schemas
def test_an_unknown_element_is_refused() -> None:
    with pytest.raises(XmlInvalidSchema, match="line 1"):
        asyncio.run(schema.validate(DOMAIN.format("<nope/>"), "domain"))


def test_a_host_without_the_schema_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SCHEMAS", tmp_path)
    schema._schema.cache_clear()
    with pytest.raises(ConfigUnsupported, match="no schema"):
        asyncio.run(schema.validate(DOMAIN.format(""), "domain"))
