"""<metadata>: what other programs keep with a domain, any XML of a namespace of their own, kept as it came."""

from copy import deepcopy
from typing import Self

from lxml import etree

from pyvirtd.xml.document import Node


class Metadata:
    """The <metadata> element. Never changed in place: `with_element` and `without` give another."""

    tag = "metadata"
    empty = True
    case: tuple[str, ...] = ()
    by = ""

    def __init__(self, node: Node) -> None:
        self.node = node

    @classmethod
    def _read(cls, node: Node, view: int) -> Self:
        return cls(_detached(node))

    def get(self, uri: str) -> str | None:
        """The element of a namespace as text, or None."""
        for kid in self.node:
            if isinstance(kid.tag, str) and etree.QName(kid).namespace == uri:
                return etree.tostring(kid, pretty_print=True, with_tail=False, encoding="unicode")
        return None

    def with_element(self, uri: str, element: Node) -> Self:
        """A copy where `element` stands for the namespace."""
        copy = self.without(uri)
        copy.node.append(deepcopy(element))
        return copy

    def without(self, uri: str) -> Self:
        """A copy without the namespace's element."""
        node = deepcopy(self.node)
        for kid in list(node):
            if isinstance(kid.tag, str) and etree.QName(kid).namespace == uri:
                node.remove(kid)
        return type(self)(node)

    def copy(self) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Metadata):
            return NotImplemented
        return etree.tostring(self.node) == etree.tostring(other.node)

    __hash__ = None  # type: ignore[assignment]

    def _print(self, out: list[str], ind: str, view: int, tag: str, empty: bool) -> None:
        """libxml2's own formatting, at the depth where the element stands."""
        root = etree.Element("r")
        inner = root
        for _ in range(len(ind) // 2 - 1):
            inner = etree.SubElement(inner, "r")
        inner.append(deepcopy(self.node))
        text = etree.tostring(root, pretty_print=True, encoding="unicode")
        start = text.index("<metadata")
        end = text.rindex("</metadata>") + len("</metadata>") if "</metadata>" in text else text.index(">", start) + 1
        out.append(ind + text[start:end] + "\n")


def _detached(node: Node) -> Node:
    """A copy in a document of its own that holds one element a namespace and nothing else, as libvirt keeps it."""
    copy = deepcopy(node)
    copy.text = copy.tail = None
    seen: set[str] = set()
    for kid in list(copy):
        uri = etree.QName(kid).namespace if isinstance(kid.tag, str) else None
        if uri is None or uri in seen:
            copy.remove(kid)
        else:
            kid.tail = None
            seen.add(uri)
    return copy
