"""Validation against libvirt's own schemas, where the host has them: Debian's libvirt-clients depends on them."""

import functools
from pathlib import Path

from lxml import etree

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import ConfigUnsupported, XmlInvalidSchema
from pyvirtd.util.files import in_thread

SCHEMAS = Path("/usr/share/libvirt/schemas")


async def validate(xml: str, name: str) -> None:
    """Check a document against a schema such as "domain".

    Raises XmlInvalidSchema naming line and element, ConfigUnsupported where the host has no schemas.
    """
    await in_thread(_validate, xml, name)


def _validate(xml: str, name: str) -> None:
    schema = _schema(name)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    if schema.validate(etree.fromstring(xml.encode("utf-8", "replace"), parser)):
        return
    first = schema.error_log[0] if len(schema.error_log) else None
    place = f"line {first.line}: {first.message}" if first is not None else "it does not fit"
    raise XmlInvalidSchema(f"{name}.rng\n{place}", domain=From.XML)


@functools.lru_cache
def _schema(name: str) -> etree.RelaxNG:
    path = SCHEMAS / f"{name}.rng"
    if not path.exists():
        raise ConfigUnsupported(f"this host has no schema '{path}' to validate with", domain=From.XML)
    return etree.RelaxNG(etree.parse(str(path)))
