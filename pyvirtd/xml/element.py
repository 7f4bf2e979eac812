"""What a document model is declared with: `Element` and its fields (attr, content, text, flag, via, child, …).

A class is one element; its fields stand in the order libvirt prints them. The first use of a class compiles a plan
(`plan.py`), so a declaration may name classes that come later in its module as a quoted annotation.
"""

from collections.abc import Callable, Iterator
from enum import IntFlag
from typing import Any, ClassVar, Self, dataclass_transform

from pyvirtd.errors import VirtError
from pyvirtd.xml.document import Node, parse_document


class View(IntFlag):
    """For whom a document is read or written; without a bit it is the definition of an inactive object."""

    INACTIVE = 0
    LIVE = 1  # a running object: ids, aliases, paths chosen at start
    SECURE = 2  # with passwords
    STATUS = 4  # the daemon's own state file; implies what clients never see
    MIGRATABLE = 8  # what an older or other host must be able to read


INACTIVE, LIVE, SECURE, STATUS, MIGRATABLE = View.INACTIVE, View.LIVE, View.SECURE, View.STATUS, View.MIGRATABLE

NAMESPACES = {
    "qemu": "http://libvirt.org/schemas/domain/qemu/1.0",
    "lxc": "http://libvirt.org/schemas/domain/lxc/1.0",
}


def clark(name: str) -> str:
    """ "qemu:arg" as lxml names it, "{uri}arg"."""
    prefix, colon, local = name.partition(":")
    return f"{{{NAMESPACES[prefix]}}}{local}" if colon else name


class Field:
    """One declared field. Built by the functions below, completed by the plan."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind = kind
        self.attribute = ""  # the Python name; set when the class is made
        self.name: str = options.pop("name", "")
        self.inside: str = options.pop("inside", "")  # via: the element that carries the attribute
        self.default: Any = options.pop("default", None)
        self.required: bool | Callable[[str], VirtError] = options.pop("required", False)
        self.view: View = options.pop("view", View.INACTIVE)
        self.secure: bool = options.pop("secure", False)
        self.keep: Callable[[Any], bool] | None = options.pop("keep", None)
        self.show: Callable[[Any], bool] | None = options.pop("show", None)
        self.when: Callable[[Node], bool] | None = options.pop("when", None)
        self.omit: Any = options.pop("omit", None)
        self.bare: Any = options.pop("bare", None)
        self.ignore: tuple[str, ...] = options.pop("ignore", ())
        self.bad: str | Callable[[str], VirtError] = options.pop("bad", "")
        self.unit: str = options.pop("unit", "")
        self.assume: str = options.pop("assume", "")
        self.where: str = options.pop("where", "")
        self.switch: str = options.pop("switch", "")
        self.wrap: str = options.pop("wrap", "")
        self.empty: bool | None = options.pop("empty", None)
        assert not options, options


def attr(
    default: Any = None,
    *,
    name: str = "",
    required: bool | Callable[[str], VirtError] = False,
    view: View = INACTIVE,
    secure: bool = False,
    keep: Callable[[Any], bool] | None = None,
    show: Callable[[Any], bool] | None = None,
    when: Callable[[Node], bool] | None = None,
    omit: Any = None,
    ignore: tuple[str, ...] = (),
    bad: str | Callable[[str], VirtError] = "",
    unit: str = "",
) -> Any:
    """An attribute.

    view: exists in that view only, or also elsewhere when `keep(value)` says so. secure: printed in the SECURE view
    only. show: printed only if `show(owner)`. when: read only if `when(the owner's XML element)`, elsewhere not even
    checked. omit: this value is not printed. ignore: words that mean "absent".
    bad: libvirt's own sentence for a word it does not know ("{}" is the word).
    required: absence is an error, the usual one or what this function gives. unit: the number is scaled into this
    unit; the unit itself stands in a sibling attribute `unit`.
    """
    return Field(
        "attr", default=default, name=name, required=required, view=view, secure=secure, keep=keep, show=show,
        when=when, omit=omit, ignore=ignore, bad=bad, unit=unit,
    )  # fmt: skip


def content(default: Any = None, *, unit: str = "", where: str = "", bad: str | Callable[[str], VirtError] = "") -> Any:
    """The element's own text. With `unit` it is a size: the attribute `unit` is read, and printed as this unit."""
    return Field("content", default=default, unit=unit, where=where, bad=bad)


def text(
    default: Any = None,
    *,
    name: str = "",
    view: View = INACTIVE,
    show: Callable[[Any], bool] | None = None,
    when: Callable[[Node], bool] | None = None,
    omit: Any = None,
    unit: str = "",
    assume: str = "",
    where: str = "",
    bad: str | Callable[[str], VirtError] = "",
) -> Any:
    """A child element that holds only text: <serial>…</serial>. With `unit`, a size: <size unit='KiB'>…</size>.

    where: what libvirt's message for a bad value calls the place, when it is not "./name". assume: the unit of a size
    that names none, where that is not `unit`; such a size is rounded down.
    """
    return Field(
        "text", default=default, name=name, view=view, show=show, when=when, omit=omit, unit=unit, assume=assume,
        where=where, bad=bad,
    )  # fmt: skip


def flag(*, name: str = "", view: View = INACTIVE) -> Any:
    """A child element that is there or not: <readonly/>."""
    return Field("flag", default=False, name=name, view=view)


def via(
    inside: str,
    name: str,
    default: Any = None,
    *,
    view: View = INACTIVE,
    keep: Callable[[Any], bool] | None = None,
    show: Callable[[Any], bool] | None = None,
    when: Callable[[Node], bool] | None = None,
    omit: Any = None,
    ignore: tuple[str, ...] = (),
    required: bool | Callable[[str], VirtError] = False,
    bare: Any = None,
    bad: str | Callable[[str], VirtError] = "",
    unit: str = "",
) -> Any:
    """A child element that holds only this attribute: via("alias", "name") is <alias name='…'/>.

    bare: the value when the child is there without the attribute.
    """
    return Field(
        "via", inside=inside, name=name, default=default, view=view, keep=keep, show=show, when=when, omit=omit,
        ignore=ignore, required=required, bare=bare, bad=bad, unit=unit,
    )  # fmt: skip


def child(
    *,
    name: str = "",
    switch: str = "",
    view: View = INACTIVE,
    show: Callable[[Any], bool] | None = None,
    when: Callable[[Node], bool] | None = None,
    empty: bool | None = None,
    required: bool | Callable[[str], VirtError] = False,
    bad: str | Callable[[str], VirtError] = "",
) -> Any:
    """A child element. One that is not optional by its annotation always exists.

    switch="^type": the parent's field `type` picks the class by its `case`. empty: printed even with nothing in it.
    required: the error where the child is there without the attribute that picks its class.
    """
    return Field(
        "child", name=name, switch=switch, view=view, show=show, when=when, empty=empty, required=required, bad=bad
    )  # fmt: skip


def children(
    *,
    name: str = "",
    switch: str = "",
    wrap: str = "",
    view: View = INACTIVE,
    show: Callable[[Any], bool] | None = None,
    when: Callable[[Node], bool] | None = None,
    empty: bool | None = None,
    bad: str | Callable[[str], VirtError] = "",
) -> Any:
    """Every child element of that name, in order: elements, or the texts of elements. wrap: they stand inside one."""
    return Field(
        "children", name=name, switch=switch, wrap=wrap, view=view, show=show, when=when, empty=empty, bad=bad
    )  # fmt: skip


def says(name: str, *words: str, default: str = "") -> Callable[[Node], bool]:
    """For `when`: the element's own attribute is one of these words; `default` stands for its absence."""
    return lambda node: node.get(name, default) in words


def parent_says(name: str, *words: str) -> Callable[[Node], bool]:
    """For `when`: the same of the element around."""

    def test(node: Node) -> bool:
        parent = node.getparent()
        return parent is None or parent.get(name) in words

    return test


def again(name: str, *, show: Callable[[Any], bool]) -> Any:
    """Another place where the field `name` is printed, when `show(owner)`; the field itself says when it is not."""
    return Field("again", name=name, show=show)


def group() -> Any:
    """A part that other elements have too; its fields stand in this element."""
    return Field("group")


@dataclass_transform(kw_only_default=True)
class Element:
    """One XML element. Class arguments:

    tag: its name. case: the values of the deciding attribute that it stands for. by: that attribute, when it is the
    element's own; it is then printed first. empty: printed even with nothing in it. unfolded: never printed as <x/>.
    strict: the error for a child that is not known, which is otherwise ignored. refused: names of attributes "@x" and
    children "y" that libvirt knows and this class does not model yet.
    """

    tag: ClassVar[str] = ""
    case: ClassVar[tuple[str, ...]] = ()
    by: ClassVar[str] = ""
    empty: ClassVar[bool] = False
    unfolded: ClassVar[bool] = False
    refused: ClassVar[frozenset[str]] = frozenset()
    strict: ClassVar[str] = ""
    own_fields: ClassVar[dict[str, Field]] = {}
    plan: ClassVar[Any] = None

    def __init_subclass__(
        cls,
        *,
        tag: str | None = None,
        case: str | tuple[str, ...] | None = None,
        by: str | None = None,
        empty: bool | None = None,
        unfolded: bool | None = None,
        strict: str | None = None,
        refused: tuple[str, ...] | None = None,
    ) -> None:
        super().__init_subclass__()
        for key, value in (("tag", tag), ("by", by), ("empty", empty), ("unfolded", unfolded), ("strict", strict)):
            if value is not None:
                setattr(cls, key, value)
        if case is not None:
            cls.case = (case,) if isinstance(case, str) else case
        if refused is not None:
            cls.refused = frozenset(refused)
        own: dict[str, Field] = {}
        for key, value in list(cls.__dict__.items()):
            if isinstance(value, Field):
                if hasattr(Element, key):
                    raise TypeError(f"{cls.__name__}.{key} hides an attribute of Element")
                value.attribute = key
                own[key] = value
                setattr(cls, key, value.default)
        cls.own_fields = own
        cls.plan = None
        cls._print = _first_print  # type: ignore[method-assign]
        cls._read = classmethod(_first_read)  # type: ignore[method-assign, assignment]

    def __init__(self, **values: Any) -> None:
        plan = _plan(type(self))
        mine = self.__dict__
        for key, make in plan.fresh:
            if key not in values:
                mine[key] = make()
        if values:
            if not values.keys() <= plan.known:
                raise TypeError(f"{type(self).__name__} has no field {min(values.keys() - plan.known)!r}")
            mine.update(values)

    @classmethod
    def parse(cls, source: str | Node, view: View = INACTIVE) -> Self:
        """The object of a document or of one lxml element.

        Raises XmlDetail for text that is not well formed, XmlError or ConfigUnsupported naming element, attribute and
        value for what is no valid element.
        """
        if isinstance(source, str):
            source = parse_document(source, root=cls.tag)
        return cls._read(source, view)

    def format(self, view: View = INACTIVE, indent: int = 0) -> str:
        """The element as libvirt prints it, indented by `indent` spaces, ending in a newline."""
        out: list[str] = []
        self._print(out, " " * indent, int(view), self.tag, True)
        return "".join(out)

    def copy(self) -> Self:
        """A deep copy that shares nothing that can change."""
        plan = _plan(type(self))
        twin = object.__new__(type(self))
        mine = dict(self.__dict__)
        for key in plan.parts:
            value = mine.get(key)
            if value is not None:
                mine[key] = value.copy()
        for key in plan.lists:
            mine[key] = [item.copy() if isinstance(item, Element) else item for item in mine[key]]
        twin.__dict__.update(mine)
        return twin

    @classmethod
    def fields(cls) -> tuple[Field, ...]:
        """The fields in printing order; a group counts as one."""
        return tuple(_plan(cls).fields)

    def values(self) -> Iterator[tuple[str, Any]]:
        """Name and value of every field in printing order."""
        for field in _plan(type(self)).fields:
            yield field.attribute, getattr(self, field.attribute)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _plan(type(self)).names)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = (f"{key}={value!r}" for key, value in self.values() if value not in (None, [], False))
        return f"{type(self).__name__}({', '.join(shown)})"

    def parsed(self, node: Node, view: View) -> None:
        """Called after an element was read: for old spellings that a field cannot express."""

    def printed(self, view: View) -> Self:
        """What is printed for this object: itself, or a changed shallow copy where the view asks for other values."""
        return self

    def shallow(self) -> Self:
        """A copy that shares what it holds; for `printed`."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def _print(self, out: list[str], ind: str, view: int, tag: str, empty: bool) -> None:
        raise NotImplementedError

    @classmethod
    def _read(cls, node: Node, view: int) -> Self:
        raise NotImplementedError


def _plan(cls: type[Element]) -> Any:
    plan = cls.plan  # every class has one of its own, or None
    if plan is None:
        from pyvirtd.xml.plan import compile_plan

        plan = compile_plan(cls)
    return plan


def _first_print(self: Element, out: list[str], ind: str, view: int, tag: str, empty: bool) -> None:
    _plan(type(self))
    self._print(out, ind, view, tag, empty)


def _first_read(cls: type[Element], node: Node, view: int) -> Element:
    _plan(cls)
    return cls._read(node, view)
