"""Makes the function that turns an lxml element into an object of one class: tables from names to small functions.

`into` is the list of the `__dict__`s being filled: the object's own, then those of its groups.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported, VirtError, XmlError
from pyvirtd.xml.document import Node, local_name, path_of, text_of
from pyvirtd.xml.element import Element, Field, View, clark
from pyvirtd.xml.plan import Slot, always_there
from pyvirtd.xml.types import ScalarError, integer, scale, unit_bytes

MAX_SHOWN = 1024

Into = list[dict[str, Any]]
ChildReader = Callable[[Node, Into, int], None]
Chooser = Callable[[Node, Into], Any]
_view = cache(View)  # a flag made of a number is slow


class Attribute(NamedTuple):
    """Where an attribute's value goes and how it is read."""

    where: int
    key: str
    parse: Callable[[str], Any]
    special: bool  # a view or a unit decides
    slot: Slot


def xml_name(field: Field) -> str:
    """The name in the document: as given, or the field's own without a trailing underscore."""
    return field.name or field.attribute.rstrip("_")


def make_reader(
    cls: type[Element], slots: list[Slot], groups: list[tuple[str, type[Element]]]
) -> Callable[[type[Element], Node, int], Element]:
    """The class's `_read`."""
    tables = _Tables(slots, [path for path, _ in groups])
    lookup, kid_lookup = tables.attributes.get, tables.kids.get
    contents, required = tables.contents, tables.required
    lists = [(tables.index(slot.group), slot.field.attribute) for slot in slots if slot.shape.many]
    late = [(tables.index(slot.group), name, make) for slot in slots for name, make in always_there([slot])]
    holders = [(tables.index(path.rpartition(".")[0]), path.rpartition(".")[2], kind) for path, kind in groups]
    hooked = [(holder, key) for holder, key, kind in holders if kind.parsed is not Element.parsed]
    refused, strict = cls.refused, cls.strict
    hook = cls.parsed is not Element.parsed

    def read(_: type[Element], node: Node, view: int) -> Element:
        self = object.__new__(cls)
        into: Into = [self.__dict__]
        for holder, key, kind in holders:
            part = object.__new__(kind)
            into[holder][key] = part
            into.append(part.__dict__)
        for holder, key in lists:
            into[holder][key] = []
        items: Any = node.items()
        for name, value in items:
            found = lookup(name)
            if found is None:
                if refused and "@" + name in refused:
                    raise _unmodelled(node, name)
                continue
            try:
                if found.special:
                    _special(node, value, found, into, view)
                else:
                    into[found.where][found.key] = found.parse(value)
            except ValueError as exc:
                raise _refuse(node, name, value, found.slot, exc) from None
        for name, slot in required:
            if node.get(name) is None:
                raise missing_attribute(node, name, slot)
        for fill in contents:
            fill(node, into, view)
        for kid in node:
            reader = kid_lookup(kid.tag)
            if reader is not None:
                reader(kid, into, view)
            elif refused and kid.tag in refused:
                raise _unmodelled(node, local_name(kid))
            elif strict and isinstance(kid.tag, str):
                raise ConfigUnsupported(strict.format(kid.tag), domain=ErrorDomain.DOMAIN)
        for holder, key, make in late:
            if key not in into[holder]:
                into[holder][key] = make()
        for holder, key in hooked:
            into[holder][key].parsed(node, _view(view))
        if hook:
            self.parsed(node, _view(view))
        return self

    return read


class _Tables:
    """What each attribute, child and text of one class does."""

    def __init__(self, slots: list[Slot], groups: list[str]) -> None:
        self.groups = groups
        self.slots = slots
        self.attributes: dict[str, Attribute] = {}
        self.kids: dict[Any, ChildReader] = {}
        self.contents: list[ChildReader] = []
        self.required: list[tuple[str, Slot]] = []
        for slot in slots:
            if slot.field.kind == "attr":
                self._attribute(slot)
            elif slot.field.kind == "again":
                continue
            elif slot.field.kind == "content":
                self.contents.append(_text_reader(slot, self.index(slot.group)))
            else:
                names, reader = self._child(slot)
                for name in names:
                    self._add(clark(name), _if_wanted(slot.field, _in_view(slot.field, reader)))

    def index(self, group: str) -> int:
        """Position of a group's dict in `into`."""
        return self.groups.index(group) + 1 if group else 0

    def _attribute(self, slot: Slot) -> None:
        field, name = slot.field, clark(xml_name(slot.field))
        special = bool(field.view or field.unit or field.when)
        where = self.index(slot.group)
        self.attributes[name] = Attribute(where, field.attribute, _converter(slot), special, slot)
        if field.required:
            self.required.append((name, slot))

    def _add(self, name: str, reader: ChildReader) -> None:
        """Several fields may read the same child element; all of them see it."""
        other = self.kids.get(name)
        if other is None:
            self.kids[name] = reader
            return

        def both(node: Node, into: Into, view: int) -> None:
            other(node, into, view)
            reader(node, into, view)

        self.kids[name] = both

    def _child(self, slot: Slot) -> tuple[list[str], ChildReader]:
        field, where = slot.field, self.index(slot.group)
        if field.kind == "flag":
            return [xml_name(field)], _flag_reader(where, field.attribute)
        if field.kind == "text":
            return [xml_name(field)], _text_reader(slot, where)
        if field.kind == "via":
            return [field.inside], _via_reader(slot, where)
        if slot.shape.codec is not None:
            names, reader = [xml_name(field)], _texts_reader(slot, where)
        else:
            names = [field.name] if field.name else list(dict.fromkeys(kind.tag for kind in slot.shape.classes))
            reader = _elements_reader(slot, where, self._chooser(slot))
        if not field.wrap:
            return names, reader
        return [field.wrap], _wrapped({clark(name): reader for name in names})

    def _chooser(self, slot: Slot) -> Chooser:
        """What picks the class of a child. It gives None for a child that is nobody's."""
        classes = slot.shape.classes
        table = {case: kind for kind in classes for case in kind.case}
        if slot.field.switch:
            return self._by_parent(slot.field.switch.removeprefix("^"), table)
        if len(classes) == 1 and not classes[0].by:
            return lambda node, into: classes[0]
        if not classes[0].by:
            tags = {clark(kind.tag): kind for kind in classes}
            return lambda node, into: tags[node.tag]
        return _by_own(classes[0].by, table, slot)

    def _by_parent(self, key: str, table: dict[str, Any]) -> Chooser:
        decider = next(slot for slot in self.slots if slot.field.attribute == key)
        where, default, rest = self.index(decider.group), decider.field.default, table.get("*")
        return lambda node, into: table.get(into[where].get(key, default), rest)


def _by_own(by: str, table: dict[str, Any], slot: Slot) -> Chooser:
    fallback = table.get("")

    def choose(node: Node, into: Into) -> Any:
        word = node.get(by)
        if word is None:
            if fallback is None:
                raise missing_attribute(node, by, slot)
            return fallback
        found = table.get(word)
        if found is None:
            raise _refuse(node, by, word, slot, ValueError(word))
        return found

    return choose


def _converter(slot: Slot) -> Callable[[str], Any]:
    parse, ignored = slot.codec.parse, frozenset(slot.field.ignore)
    if not ignored:
        return parse
    return lambda word: None if word in ignored else parse(word)


def _special(node: Node, value: str, found: Attribute, into: Into, view: int) -> None:
    field = found.slot.field
    if field.view and not view & field.view and field.keep is None:
        return
    if field.when is not None and not field.when(node):
        return
    parsed = _sized(node, value, found.slot) if field.unit else found.parse(value)
    if not field.view or view & field.view or (field.keep is not None and field.keep(parsed)):
        into[found.where][found.key] = parsed


def _sized(node: Node, value: str, slot: Slot) -> int:
    """A number with the unit of the sibling attribute; without one it is in the field's unit."""
    field = slot.field
    try:
        number = integer(value, 0, (1 << 64) - 1)
    except ValueError:
        raise _refuse_text(node, value, slot) from None
    try:
        if field.assume:
            return scale(number, node.get("unit") or field.assume, "B") // unit_bytes(field.unit)
        return scale(number, node.get("unit") or field.unit, field.unit)
    except VirtError as exc:
        raise _own_words(slot, value) or exc from None


def _in_view(field: Field, reader: ChildReader) -> ChildReader:
    wanted = int(field.view)
    if not wanted or field.keep is not None:
        return reader

    def only(node: Node, into: Into, view: int) -> None:
        if view & wanted:
            reader(node, into, view)

    return only


def _if_wanted(field: Field, reader: ChildReader) -> ChildReader:
    when = field.when
    if when is None:
        return reader

    def only(node: Node, into: Into, view: int) -> None:
        owner = node.getparent()
        if owner is None or when(owner):
            reader(node, into, view)

    return only


def _flag_reader(where: int, key: str) -> ChildReader:
    def read(node: Node, into: Into, view: int) -> None:
        into[where][key] = True

    return read


def _text_reader(slot: Slot, where: int) -> ChildReader:
    """Text of a child, or of the element itself. Empty text is no value."""
    key, unit, parse, free = slot.field.attribute, slot.field.unit, _converter(slot), slot.codec.escape

    def read(node: Node, into: Into, view: int) -> None:
        target = into[where]
        if key in target:
            return
        word = (node.text or "") if not len(node) else text_of(node)
        if not word or (not free and not word.strip()):
            return
        try:
            target[key] = _sized(node, word, slot) if unit else parse(word)
        except ValueError:
            raise _refuse_text(node, word, slot) from None

    return read


def _via_reader(slot: Slot, where: int) -> ChildReader:
    field, parse = slot.field, _converter(slot)
    key, name, wanted, keep = field.attribute, clark(xml_name(field)), int(field.view), field.keep

    def read(node: Node, into: Into, view: int) -> None:
        value = node.get(name)
        if value is None:
            if field.required:
                raise missing_attribute(node, name, slot)
            if field.bare is not None:
                into[where].setdefault(key, field.bare)
            return
        if key in into[where]:
            return
        try:
            parsed = _sized(node, value, slot) if field.unit else parse(value)
        except ValueError as exc:
            raise _refuse(node, name, value, slot, exc) from None
        if not wanted or view & wanted or (keep is not None and keep(parsed)):
            into[where][key] = parsed

    return read


def _elements_reader(slot: Slot, where: int, choose: Chooser) -> ChildReader:
    key = slot.field.attribute

    def read_first(node: Node, into: Into, view: int) -> None:
        if key not in into[where]:
            kind = choose(node, into)
            if kind is not None:
                into[where][key] = kind._read(node, view)

    def read_all(node: Node, into: Into, view: int) -> None:
        kind = choose(node, into)
        if kind is not None:
            into[where][key].append(kind._read(node, view))

    return read_all if slot.shape.many else read_first


def _texts_reader(slot: Slot, where: int) -> ChildReader:
    key, parse = slot.field.attribute, slot.codec.parse

    def read(node: Node, into: Into, view: int) -> None:
        word = text_of(node)
        try:
            into[where][key].append(parse(word))
        except ValueError:
            raise _refuse_text(node, word, slot) from None

    return read


def _wrapped(inside: dict[str, ChildReader]) -> ChildReader:
    def read(node: Node, into: Into, view: int) -> None:
        for kid in node:
            reader = inside.get(kid.tag)
            if reader is not None:
                reader(kid, into, view)

    return read


# Errors, in libvirt's words


def _clipped(value: str) -> str:
    """A refused value as messages show it; they go to logs and clients."""
    return value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"


def _own_words(slot: Slot, value: str) -> VirtError | None:
    bad, codec = slot.field.bad, slot.shape.codec
    if callable(bad):
        return bad(value)
    if bad:
        return ConfigUnsupported(bad.format(value), domain=ErrorDomain.DOMAIN)
    return codec.refusal(value) if codec is not None and codec.refusal is not None else None


def _refuse(node: Node, name: str, value: str, slot: Slot, exc: ValueError) -> VirtError:
    value = _clipped(value)
    own = _own_words(slot, value)
    if own is not None:
        return own
    what = f"Invalid value for attribute '{name}' in element '{local_name(node)}'"
    if isinstance(exc, ScalarError):
        return XmlError(f"{what}: {exc}", domain=ErrorDomain.XML)
    expects = slot.shape.codec.expects if slot.shape.codec else ""
    return XmlError(f"{what}: '{value}'.{' ' if expects else ''}{expects}", domain=ErrorDomain.XML)


def _refuse_text(node: Node, value: str, slot: Slot) -> VirtError:
    value = _clipped(value)
    own = _own_words(slot, value)
    if own is not None:
        return own
    return XmlError(f"Invalid value '{value}' for element or attribute '{_xpath(slot)}'", domain=ErrorDomain.XML)


def _xpath(slot: Slot) -> str:
    """How libvirt's reader finds the value, seen from the element that holds the field."""
    field = slot.field
    if field.where:
        return field.where
    name = {"attr": "@" + xml_name(field), "via": f"{field.inside}/@{xml_name(field)}"}.get(field.kind)
    return "./" + (name or xml_name(field))


def missing_attribute(node: Node, name: str, slot: Slot) -> VirtError:
    """The error for a required attribute that is not there."""
    if callable(slot.field.required):
        return slot.field.required("")
    if slot.field.unit:
        return XmlError(f"missing element or attribute '{_xpath(slot)}'", domain=ErrorDomain.XML)
    return XmlError(f"Missing required attribute '{name}' in element '{local_name(node)}'", domain=ErrorDomain.XML)


def _unmodelled(node: Node, name: str) -> VirtError:
    return ConfigUnsupported(f"'{name}' in {path_of(node)} is not supported", domain=ErrorDomain.DOMAIN)
