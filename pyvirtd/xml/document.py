"""Text to lxml tree, with limits: no entities, no network, bounded size and depth (libxml2's 256 levels).

Errors carry libvirt's words.
"""

import re
from typing import Any, NoReturn

from lxml import etree

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import XmlDetail, XmlError

Node = etree._Element

MAX_BYTES = 10 << 20  # the largest configuration file libvirtd reads
MAX_ATTRIBUTES = 256  # of one element: libxml2 compares each with all others

_LONG_TAG = 2 * MAX_ATTRIBUTES  # a shorter piece cannot hold more
_ATTRIBUTES = re.compile(rb"[^\s>/]++(?>\s++[^\s=>]++\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+')){%d}" % (MAX_ATTRIBUTES + 1))


def _parser() -> etree.XMLParser:
    """A new parser: lxml's keep the error log of their last document. A document's own word on its encoding does not
    count: what comes over the wire and from files is UTF-8, and another encoding could hide from the checks below.
    """
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        dtd_validation=False,
        remove_blank_text=True,
        strip_cdata=False,
        remove_pis=False,
    )


def parse_document(text: str, *, root: str = "", domain: ErrorDomain = ErrorDomain.DOMAIN) -> Node:
    """The root element of `text`, which must be named `root` when that is given.

    Raises XmlDetail with line and excerpt when it is not well formed, XmlError when it breaks a limit.
    """
    what = f"({root}_definition)" if root else "(definition)"
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > MAX_BYTES:
        raise XmlError(f"document of {len(data)} bytes is larger than {MAX_BYTES}", domain=domain)
    for piece in data.split(b"<"):
        if len(piece) > _LONG_TAG and _ATTRIBUTES.match(piece):
            raise XmlError(f"an element has more than {MAX_ATTRIBUTES} attributes", domain=domain)
    try:
        top = etree.fromstring(data, _parser())
    except etree.XMLSyntaxError as exc:
        _not_well_formed(exc, data, what, domain)
    except ValueError as exc:
        raise XmlDetail(f"{what}: {exc}", domain=domain) from exc
    dtd: Any = top.getroottree().docinfo.internalDTD
    if dtd is not None and any(True for _ in dtd.iterentities()):
        raise XmlError("entity declarations are not allowed", domain=domain)
    if root and top.tag != root:
        raise XmlError(f"unexpected root element <{local_name(top)}>, expecting <{root}>", domain=domain)
    return top


def _not_well_formed(exc: etree.XMLSyntaxError, data: bytes, what: str, domain: ErrorDomain) -> NoReturn:
    """libvirt's form: where and why, the line, and a mark under the column."""
    line, column = exc.position
    lines = data.split(b"\n")
    excerpt = lines[line - 1].decode("utf-8", "replace")[:256] if 0 < line <= len(lines) else ""
    reason = (exc.msg or "not well formed").split(", line ")[0]
    mark = "-" * max(0, min(column, 256) - 1) + "^"
    raise XmlDetail(f"{what}:{line}: {reason}\n{excerpt}\n{mark}", domain=domain) from exc


def path_of(node: Node) -> str:
    """Where an element stands, "/domain/devices/disk"."""
    names = [local_name(node)]
    names += [local_name(parent) for parent in node.iterancestors()]
    return "/" + "/".join(reversed(names))


def local_name(node: Node) -> str:
    """The element's name without its namespace."""
    tag = node.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else "#"


def text_of(node: Node) -> str:
    """All text inside an element, comments left out, as XPath's string() gives it."""
    if len(node) == 0:
        return node.text or ""
    return str(node.xpath("string()"))
