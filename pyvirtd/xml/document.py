"""Text to lxml tree, with limits: no entities, no network, bounded size and depth (libxml2's 256 levels).

Errors carry libvirt's words.
"""

import copy
import re
from collections.abc import Collection
from typing import Any, NoReturn, cast

from lxml import etree

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import XmlDetail, XmlError

Node = etree._Element

MAX_BYTES = 10 << 20  # the largest configuration file libvirtd reads
MAX_ATTRIBUTES = 256  # of one element: libxml2 compares each with all others

_LONG_PIECE = re.compile(rb"<([^<]{%d,}+)" % (2 * MAX_ATTRIBUTES + 1))  # a shorter one cannot hold more
_ATTRIBUTES = re.compile(rb"[^\s>/]++(?>\s++[^\s=>]++\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+')){%d}" % (MAX_ATTRIBUTES + 1))


# A document's own word on its encoding does not count: what comes over the wire and from files is UTF-8, and another
# encoding could hide from the checks below.
_OPTIONS: dict[str, Any] = {
    "encoding": "utf-8",
    "resolve_entities": False,
    "no_network": True,
    "huge_tree": False,
    "load_dtd": False,
    "dtd_validation": False,
    "remove_blank_text": True,
    "strip_cdata": False,
    "remove_pis": False,
}
_CHUNK = 1 << 16  # bytes of a document that are read before a look at what is in them


def _parser() -> etree.XMLParser:
    """A new parser: lxml's keep the error log of their last document."""
    return etree.XMLParser(**_OPTIONS)


def parse_document(text: str, *, root: str = "", domain: ErrorDomain = ErrorDomain.DOMAIN, what: str = "") -> Node:
    """The root element of `text`, which must be named `root` when that is given. `what` is its name in messages.

    Raises XmlDetail with line and excerpt when it is not well formed, XmlError when it breaks a limit.
    """
    what = f"({what or f'{root}_definition'.lstrip('_')})"
    data = _checked(text, domain)
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


def read_top(
    text: str, names: Collection[str], *, domain: ErrorDomain = ErrorDomain.DOMAIN
) -> tuple[Node, dict[str, Node]]:
    """The root element, and the first of its children of each name; nothing else is kept, nor read once all are found.

    For what has to be known of a document before it is worth a full look. Raises XmlDetail and XmlError.
    """
    data = _checked(text, domain)
    parser = etree.XMLPullParser(events=("start", "end"), **_OPTIONS)
    top: Node | None = None
    found: dict[str, Node] = {}
    try:
        for at in range(0, len(data), _CHUNK):
            parser.feed(data[at : at + _CHUNK])
            for event, item in parser.read_events():
                node = cast("Node", item)
                if top is None:
                    top = node
                elif event == "end" and node.getparent() is top and node.tag in names:
                    found.setdefault(str(node.tag), copy.deepcopy(node))
                _forget_before(node)
            if top is not None and len(found) == len(names):
                return top, found
        parser.close()
    except etree.XMLSyntaxError as exc:
        _not_well_formed(exc, data, "(definition)", domain)
    assert top is not None
    return top, found


def _forget_before(node: Node) -> None:
    """Let go of a node's elder brother, which is read in full."""
    parent, elder = node.getparent(), node.getprevious()
    if parent is not None and elder is not None:
        parent.remove(elder)


def _checked(text: str, domain: ErrorDomain) -> bytes:
    """The bytes of a document that keeps the limits a parser does not. Raises XmlError."""
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > MAX_BYTES:
        raise XmlError(f"document of {len(data)} bytes is larger than {MAX_BYTES}", domain=domain)
    for piece in _LONG_PIECE.finditer(data):
        if _ATTRIBUTES.match(piece[1]):
            raise XmlError(f"an element has more than {MAX_ATTRIBUTES} attributes", domain=domain)
    return data


def _not_well_formed(exc: etree.XMLSyntaxError, data: bytes, what: str, domain: ErrorDomain) -> NoReturn:
    """libvirt's form: where and why, the line, and a mark under the column."""
    line, column = exc.position
    lines = data.split(b"\n")
    excerpt = lines[line - 1].decode("utf-8", "replace")[:256] if 0 < line <= len(lines) else ""
    excerpt = excerpt if data else "(null)"
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
