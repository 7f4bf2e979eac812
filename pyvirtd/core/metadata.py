"""Title, description and <metadata> of a domain, as calls read and change them one at a time.

An element of <metadata> belongs to the program that owns its namespace. That program sends and gets it without the
namespace's prefix; it stands in the definition with it. https://libvirt.org/formatdomain.html#general-metadata
"""

import re
from copy import deepcopy

from lxml import etree

from pyvirtd.constants.domain import DomainMetadataType as Kind
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import BadCall, InternalError, InvalidArg
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.metadata import Metadata
from pyvirtd.xml.document import Node, parse_document
from pyvirtd.xml.printer import escape

NC_NAME = re.compile(r"[^\W\d][\w.-]*")
RESERVED = ("xml", "xmlns")
TAG_NAME = re.compile(r"<[^\s/>]+")


def kind_of(number: int) -> Kind:
    """The kind of a call. Raises InvalidArg."""
    try:
        return Kind(number)
    except ValueError:
        raise InvalidArg(f"unknown metadata type '{number}'", domain=From.DOMAIN) from None


def check_read(kind: Kind, uri: str | None) -> None:
    """Refuse what cannot be asked for. Raises BadCall."""
    _check_uri(kind, uri, "virDomainGetMetadata")


def check_change(kind: Kind, text: str | None, key: str | None, uri: str | None) -> None:
    """Refuse what cannot be set. Raises BadCall."""
    function = "virDomainSetMetadata"
    if kind is Kind.TITLE and text and "\n" in text:
        raise BadCall("metadata title can't contain newlines")
    _check_uri(kind, uri, function)
    if kind is Kind.ELEMENT and text is not None and key is None:
        raise BadCall(f"key in {function} must not be NULL")
    if kind is not Kind.ELEMENT and key is not None:
        raise BadCall(f"key in {function} must be NULL")


def _check_uri(kind: Kind, uri: str | None, function: str) -> None:
    if kind is Kind.ELEMENT and not uri:
        raise BadCall(f"uri in {function} must not be NULL")
    if kind is not Kind.ELEMENT and uri is not None:
        raise BadCall(f"uri in {function} must be NULL")


def get(definition: DomainDef, kind: Kind, uri: str | None) -> str | None:
    """Title, description, or the element of a namespace as text; None where there is none."""
    if kind is Kind.TITLE:
        return definition.title
    if kind is Kind.DESCRIPTION:
        return definition.description
    if definition.metadata is None:
        return None
    found = next((kid for kid in definition.metadata.node if _namespace(kid) == uri), None)
    return None if found is None else _without_prefix(found, uri or "")


def put(definition: DomainDef, kind: Kind, text: str | None, key: str | None, uri: str | None) -> None:
    """Set title, description or the element of a namespace; None, or an empty title or description, removes it.

    Raises InternalError for a key that is no prefix, XmlDetail for a text that is no element.
    """
    if kind is Kind.TITLE:
        definition.title = text or None
    elif kind is Kind.DESCRIPTION:
        definition.description = text or None
    elif text is None:
        if definition.metadata is not None:
            definition.metadata = definition.metadata.without(uri or "")
    else:
        element = _with_prefix(text, key or "", uri or "")
        metadata = definition.metadata or Metadata(etree.Element("metadata"))
        definition.metadata = metadata.without(uri or "").with_element(uri or "", element)


def _namespace(node: Node) -> str | None:
    return etree.QName(node).namespace if isinstance(node.tag, str) else None


def _without_prefix(node: Node, uri: str) -> str:
    copy = deepcopy(node)
    for one in copy.iter():
        if _namespace(one) == uri:
            one.tag = etree.QName(one).localname
    etree.cleanup_namespaces(copy)
    return etree.tostring(copy, pretty_print=True, with_tail=False, encoding="unicode").removesuffix("\n")


def _with_prefix(text: str, key: str, uri: str) -> Node:
    """The element of a text; those of its elements that are in no namespace are put into this one."""
    root = parse_document(text)
    if not NC_NAME.fullmatch(key) or key in RESERVED:
        raise InternalError("failed to validate prefix for a new XML namespace", domain=From.XML)
    if key in root.nsmap:
        raise InternalError("failed to create a new XML namespace", domain=From.XML)
    plain = etree.tostring(root, encoding="unicode")
    name = TAG_NAME.match(plain)
    assert name is not None
    root = parse_document(f"{name[0]} xmlns:{key}='{escape(uri)}'{plain[name.end() :]}")
    for one in root.iter():
        if isinstance(one.tag, str) and _namespace(one) is None:
            one.tag = f"{{{uri}}}{one.tag}"
    return root
