"""Validation that refuses what reading would pass over: by libvirt's own schemas where the host has them (Debian's
libvirt-clients depends on them), else by our declarations of the same documents.
"""

import functools
from pathlib import Path

from lxml import etree

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import ConfigUnsupported, XmlInvalidSchema
from pyvirtd.util.files import in_thread
from pyvirtd.xml.check import find_unknown
from pyvirtd.xml.document import parse_document
from pyvirtd.xml.element import Element

SCHEMAS = Path("/usr/share/libvirt/schemas")


async def validate(xml: str, name: str, model: type[Element] | None = None) -> None:
    """Check a document against a schema such as "domain", or against the class that reads it.

    Raises XmlInvalidSchema naming line and element, ConfigUnsupported where the host has no schemas and there is no
    class, and what `parse_document` raises.
    """
    await in_thread(_validate, xml, name, model)


def _validate(xml: str, name: str, model: type[Element] | None) -> None:
    top = parse_document(xml)
    schema = _schema(name)
    if schema is None:
        if model is None:
            raise ConfigUnsupported(f"this host has no schema '{SCHEMAS / name}.rng' to validate with", domain=From.XML)
        wrong = find_unknown(model, top)
        if wrong is not None:
            raise XmlInvalidSchema(f"Unable to validate <{name}>\nline {wrong.line}: {wrong.text}", domain=From.XML)
        return
    if schema.validate(top):
        return
    first = schema.error_log[0] if len(schema.error_log) else None
    place = f"line {first.line}: {first.message}" if first is not None else "it does not fit"
    raise XmlInvalidSchema(f"Unable to validate doc against {SCHEMAS / name}.rng\n{place}", domain=From.XML)


@functools.lru_cache
def _schema(name: str) -> etree.RelaxNG | None:
    path = SCHEMAS / f"{name}.rng"
    return etree.RelaxNG(etree.parse(str(path))) if path.exists() else None
