"""Whether a document holds anything that its declarations do not know: the check of a host without libvirt's schemas.

Stricter than reading, which passes over what it does not know, as libvirt does. `find_unknown` gives the first place
that does not fit: an unknown element or attribute, a value that its type does not have, or a missing attribute.
"""

from typing import Any, NamedTuple

from pyvirtd.errors import VirtError
from pyvirtd.xml.document import Node, local_name
from pyvirtd.xml.element import Element, clark
from pyvirtd.xml.plan import Slot, flatten
from pyvirtd.xml.reader import xml_name
from pyvirtd.xml.types import unit_bytes


class Misfit(NamedTuple):
    """What does not fit, and the line of its element."""

    line: int
    text: str


class Outline:
    """What one element may hold: attributes, text and children, each with the slots that read it."""

    def __init__(self) -> None:
        self.attributes: dict[str, list[Slot]] = {}
        self.cases: set[str] | None = None  # words of the attribute that decides the class
        self.by = ""
        self.units = False
        self.text: Slot | None = None
        self.kids: dict[str, list[Slot | Outline]] = {}
        self.deciders: dict[str, Slot] = {}
        self.anything = False

    def inside(self, tag: str) -> "Outline":
        """The outline of a child that has no class of its own."""
        for known in self.kids.get(tag, []):
            if isinstance(known, Outline):
                return known
        made = Outline()
        self.kids.setdefault(tag, []).append(made)
        return made


_OUTLINES: dict[int, Outline] = {}  # by the class's identity; classes of documents are never dropped


def outline(kind: type[Element]) -> Outline:
    """What the declaration of a class allows; made once."""
    found = _OUTLINES.get(id(kind))
    if found is None:
        found = _OUTLINES[id(kind)] = _outline(kind)
    return found


def _outline(kind: type[Element]) -> Outline:
    made = Outline()
    if not issubclass(kind, Element):
        made.anything = True  # kept word for word, such as <metadata>
        return made
    made.by, made.cases = kind.by, set(kind.case)
    for slot in flatten(kind)[0]:
        _add(made, slot)
    return made


def _add(made: Outline, slot: Slot) -> None:
    field, name = slot.field, clark(xml_name(slot.field))
    match field.kind:
        case "attr":
            made.attributes.setdefault(name, []).append(slot)
            made.deciders[field.attribute] = slot
            made.units = made.units or bool(field.unit)
        case "content":
            made.text = slot
            made.units = made.units or bool(field.unit)
        case "via":
            inner = made.inside(clark(field.inside))
            inner.attributes.setdefault(name, []).append(slot)
            inner.units = inner.units or bool(field.unit)
        case "text" | "flag":
            made.kids.setdefault(name, []).append(slot)
        case "child" | "children":
            holder = made.inside(clark(field.wrap)) if field.wrap else made
            names = [field.name] if field.name else [kind.tag for kind in slot.shape.classes]
            for one in dict.fromkeys(clark(word) for word in (names or [xml_name(field)])):
                holder.kids.setdefault(one, []).append(slot)


def find_unknown(kind: type[Element], node: Node) -> Misfit | None:
    """The first part of the document that its declaration does not know."""
    return _compare(outline(kind), node)


def _compare(known: Outline, node: Node) -> Misfit | None:
    if known.anything:
        return None
    for name, value in node.items():
        wrong = _attribute(known, node, str(name), str(value))
        if wrong is not None:
            return wrong
    for slots in known.attributes.values():
        wrong = _absent(slots[0], node)
        if wrong is not None:
            return wrong
    if known.text is not None and len(node) == 0 and (node.text or "").strip():
        wrong = _value(known.text, node, node.text or "", "text")
        if wrong is not None:
            return wrong
    for kid in node:
        if not isinstance(kid.tag, str):
            continue
        wrong = _child(known, node, kid)
        if wrong is not None:
            return wrong
    return None


def _misfit(node: Node, text: str) -> Misfit:
    line: Any = node.sourceline
    return Misfit(line or 0, text)


def _attribute(known: Outline, node: Node, name: str, value: str) -> Misfit | None:
    slots = known.attributes.get(name)
    if slots:
        found = [_value(slot, node, value, f"attribute '{name}'") for slot in slots]
        return None if any(one is None for one in found) else found[0]
    if name == known.by:
        return None  # the choice of the class has read it
    if name == "unit" and known.units:
        return _unit(node, value)
    return _misfit(node, f"element '{local_name(node)}' has no attribute '{name}'")


def _unit(node: Node, value: str) -> Misfit | None:
    try:
        unit_bytes(value)
    except ValueError:
        return _misfit(node, f"'{value}' is no unit (element '{local_name(node)}')")
    return None


def _value(slot: Slot, node: Node, value: str, what: str) -> Misfit | None:
    if value in slot.field.ignore or slot.shape.codec is None:
        return None
    try:
        slot.codec.parse(value)
    except (ValueError, VirtError):
        return _misfit(node, f"{what} of element '{local_name(node)}' cannot be '{value[:80]}'")
    return None


def _absent(slot: Slot, node: Node) -> Misfit | None:
    name = clark(xml_name(slot.field))
    if not slot.field.required or node.get(name) is not None:
        return None
    return _misfit(node, f"element '{local_name(node)}' lacks attribute '{name}'")


def _child(known: Outline, node: Node, kid: Node) -> Misfit | None:
    """Fits when one of those who read this child knows all of it."""
    options = known.kids.get(str(kid.tag))
    if not options:
        return _misfit(kid, f"element '{local_name(node)}' has no child '{local_name(kid)}'")
    first: Misfit | None = None
    for option in options:
        wrong = _compare(option, kid) if isinstance(option, Outline) else _slot(known, option, node, kid)
        if wrong is None:
            return None
        first = first or wrong
    return first


def _slot(known: Outline, slot: Slot, node: Node, kid: Node) -> Misfit | None:
    field = slot.field
    if field.kind == "flag" or not slot.shape.classes:
        return _plain(slot, kid)
    found = _chosen(known, slot, node, kid)
    if not found:
        return _misfit(kid, f"element '{local_name(kid)}' is of no known kind")
    first: Misfit | None = None
    for kind in found:
        wrong = _compare(outline(kind), kid)
        if wrong is None:
            return None
        first = first or wrong
    return first


def _plain(slot: Slot, kid: Node) -> Misfit | None:
    """A child of nothing but text; a size may have a unit."""
    attributes: Any = kid.items()
    for name, value in attributes:
        if name != "unit" or not slot.field.unit:
            return _misfit(kid, f"element '{local_name(kid)}' has no attribute '{name}'")
        wrong = _unit(kid, str(value))
        if wrong is not None:
            return wrong
    for inner in kid:
        if isinstance(inner.tag, str):
            return _misfit(inner, f"element '{local_name(kid)}' has no child '{local_name(inner)}'")
    text = kid.text or ""
    if slot.field.kind == "flag" or not text.strip():
        return None
    return _value(slot, kid, text.strip(), "text")


def _chosen(known: Outline, slot: Slot, node: Node, kid: Node) -> list[Any]:
    """The classes that a child may be of."""
    classes = [kind for kind in slot.shape.classes if slot.field.name or clark(kind.tag) == kid.tag]
    if slot.field.switch:
        decider = known.deciders.get(slot.field.switch.removeprefix("^"))
        if decider is None:
            return classes
        word = node.get(clark(xml_name(decider.field)), str(decider.field.default or ""))
        fitting = [kind for kind in classes if word in kind.case]
        return fitting or [kind for kind in classes if "*" in kind.case]
    by = classes[0].by if classes else ""
    if not by:
        return classes
    own = kid.get(by) or ""
    return [kind for kind in classes if own in kind.case]
