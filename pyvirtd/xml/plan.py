"""Compiles an `Element` class: resolves its annotations, then makes its reader and its printer. Once per class."""

import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple

from pyvirtd.xml.element import Element, Field
from pyvirtd.xml.types import Codec, codec_of


@dataclass
class Plan:
    """All that is known of a class once its annotations are resolved."""

    fields: list[Field]
    names: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()  # the same
    lists: tuple[str, ...] = ()  # fields that hold a list
    parts: tuple[str, ...] = ()  # fields that hold an element or a group
    fresh: list[tuple[str, Callable[[], Any]]] = dataclass_field(default_factory=list)  # made for every object


class Shape(NamedTuple):
    """What an annotation means."""

    optional: bool
    many: bool
    codec: Codec | None
    classes: tuple[Any, ...]


class Slot(NamedTuple):
    """A field, with the path of groups to the object that holds it ("" for the element itself)."""

    field: Field
    shape: Shape
    group: str

    @property
    def codec(self) -> Codec:
        """The scalar's codec; a declaration without one is a mistake of the model."""
        if self.shape.codec is None:
            raise TypeError(f"field {self.field.attribute!r} needs a scalar type")
        return self.shape.codec


def shape_of(annotation: Any) -> Shape:
    """Resolves `X | None`, `list[X]`, scalars and unions of element classes."""
    optional = False
    members: list[Any] = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        optional = len(members) != len(typing.get_args(annotation))
    if len(members) == 1:
        if typing.get_origin(members[0]) is list:
            return shape_of(typing.get_args(members[0])[0])._replace(many=True, optional=optional)
        if members[0] is Any:
            return Shape(True, False, None, ())
        codec = codec_of(members[0])
        if codec is not None:
            return Shape(optional, False, codec, ())
    return Shape(optional, False, None, tuple(members))


def ordered_fields(cls: type[Element]) -> list[Field]:
    """Inherited fields first, each where it was last declared."""
    found: dict[str, Field] = {}
    for base in reversed(cls.__mro__):
        for key, value in base.__dict__.get("own_fields", {}).items():
            found.pop(key, None)
            found[key] = value
    return list(found.values())


def flatten(cls: type[Element]) -> tuple[list[Slot], list[tuple[str, type[Element]]]]:
    """All fields of a class with those of its groups in place, and the groups with their dotted paths, outer first."""
    slots: list[Slot] = []
    groups: list[tuple[str, type[Element]]] = []

    def walk(one: type[Element], path: str) -> None:
        hints = typing.get_type_hints(one, include_extras=True)
        for field in ordered_fields(one):
            shape = shape_of(hints[field.attribute])
            if field.kind == "group":
                inner = f"{path}.{field.attribute}" if path else field.attribute
                groups.append((inner, shape.classes[0]))
                walk(shape.classes[0], inner)
            else:
                slots.append(Slot(field, shape, path))

    walk(cls, "")
    return slots, groups


def compile_plan(cls: type[Element]) -> Plan:
    """Puts plan, reader and printer into the class."""
    from pyvirtd.xml.printer import make_printer
    from pyvirtd.xml.reader import make_reader

    slots, groups = flatten(cls)
    own = [slot for slot in slots if not slot.group]
    own_groups = [(path, kind) for path, kind in groups if "." not in path]
    plan = Plan(ordered_fields(cls))
    plan.fields = [field for field in plan.fields if field.kind != "again"]
    plan.names = tuple(field.attribute for field in plan.fields)
    plan.known = frozenset(plan.names)
    plan.lists = tuple(slot.field.attribute for slot in own if slot.shape.many)
    plan.parts = tuple(
        slot.field.attribute
        for slot in own
        if slot.shape.classes and not slot.shape.many and slot.field.kind == "child"
    ) + tuple(path for path, _ in own_groups)
    plan.fresh = [*((name, list) for name in plan.lists), *always_there(own), *own_groups]
    cls.plan = plan
    cls._read = classmethod(make_reader(cls, slots, groups))  # type: ignore[method-assign, assignment]
    cls._print = make_printer(cls, slots, groups)  # type: ignore[method-assign]
    return plan


def always_there(slots: list[Slot]) -> list[tuple[str, Callable[[], Any]]]:
    """Children that exist in every object: those whose annotation is not optional."""
    return [
        (slot.field.attribute, slot.shape.classes[0])
        for slot in slots
        if slot.field.kind == "child" and not slot.shape.optional
    ]
