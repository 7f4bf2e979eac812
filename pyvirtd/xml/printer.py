"""Makes the function that prints an object of one class, as libvirt prints it: single quotes, two spaces a level.

It is generated source: most fields of most objects are absent, and a straight run of tests is the cheapest way past
them.
"""

import re
from collections.abc import Callable
from copy import copy
from typing import Any

from pyvirtd.xml.element import NAMESPACES, SECURE, Element, View
from pyvirtd.xml.plan import Slot
from pyvirtd.xml.reader import xml_name

_SPECIAL = re.compile("[<>&'\"\x00-\x08\x0b\x0c\x0e-\x1f]").search
_ESCAPES: dict[int, str] = {
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord("&"): "&amp;",
    ord("'"): "&apos;",
    ord('"'): "&quot;",
}
_ESCAPES |= {code: "" for code in range(32) if chr(code) not in "\t\n\r"}


def escape(value: str) -> str:
    """Text as libvirt writes it, into content and attributes alike; control characters are left out."""
    return value.translate(_ESCAPES) if _SPECIAL(value) else value


def make_printer(cls: type[Element], slots: list[Slot], groups: list[tuple[str, type[Element]]]) -> Callable[..., None]:
    """The class's `_print(self, out, ind, view, tag, empty)`."""
    return _Source(cls, slots, groups).compile()


class _Source:
    """The lines of one printing function and the objects they refer to."""

    def __init__(self, cls: type[Element], slots: list[Slot], groups: list[tuple[str, type[Element]]]) -> None:
        self.cls = cls
        self.slots = slots
        self.holders = {"": "self"} | {path: f"g{number}" for number, (path, _) in enumerate(groups)}
        self.names: dict[str, Any] = {"escape": escape}
        self.lines: list[str] = []

    def add(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def bind(self, value: Any) -> str:
        """A name for an object in the generated source."""
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name

    def compile(self) -> Callable[..., None]:
        self.add(0, "def _print(self, out, ind, view, tag, empty):")
        if self.cls.printed is not Element.printed:
            self.add(1, f"self = self.printed({self.bind(View)}(view))")
        for path, name in self.holders.items():
            if path:
                outer, _, key = path.rpartition(".")
                self.add(1, f"{name} = {self.holders[outer]}.{key}")

        self.add(1, "bare = head = ind + '<' + tag")
        if self.cls.by and self.cls.case and self.cls.case[0]:
            self.add(1, f"head += \" {self.cls.by}='{self.cls.case[0]}'\"")
        for slot in self.slots:
            if slot.field.kind == "attr":
                self._attribute(slot)
            elif slot.field.kind == "content" and slot.field.unit:
                self.add(1, f"if {self._value(slot)} is not None: head += \" unit='{slot.field.unit}'\"")
        self._namespaces()
        self.add(1, "start = len(out)")
        self.add(1, "out.append(head)")
        self.add(1, "deep = ind + '  '")
        for slot in self.slots:
            if slot.field.kind not in ("attr", "content"):
                getattr(self, f"_{slot.field.kind}")(slot)
        self._close()
        source = "\n".join(self.lines)
        exec(compile(source, f"<printer of {self.cls.__name__}>", "exec"), self.names)  # noqa: S102
        made: Callable[..., None] = self.names["_print"]
        return made

    def _namespaces(self) -> None:
        """Namespaces are declared on the element that has children in them, when it has some."""
        used: dict[str, list[str]] = {}
        for slot in self.slots:
            tag = slot.shape.classes[0].tag if slot.shape.classes else ""
            if ":" in tag and ":" not in self.cls.tag:
                used.setdefault(tag.partition(":")[0], []).append(f"{self._value(slot)} is not None")
        for prefix, tests in used.items():
            self.add(1, f"if {' or '.join(tests)}: head += \" xmlns:{prefix}='{NAMESPACES[prefix]}'\"")

    def _value(self, slot: Slot) -> str:
        return f"{self.holders[slot.group]}.{slot.field.attribute}"

    def _test(self, slot: Slot, *, value: str = "v", many: bool = False) -> str:
        """When the field is printed, given its value in `v`."""
        field = slot.field
        tests = [value if many or field.kind == "flag" else f"{value} is not None"]
        if field.omit is not None:
            tests.append(f"{value} != {self.bind(field.omit)}")
        if field.view:
            keep = f" or {self.bind(field.keep)}({value})" if field.keep is not None else ""
            tests.append(f"(view & {int(field.view)}{keep})")
        if field.secure:
            tests.append(f"view & {int(SECURE)}")
        if field.show is not None:
            tests.append(f"{self.bind(field.show)}({self.holders[slot.group]})")
        return " and ".join(tests)

    def _scalar(self, slot: Slot, value: str = "v") -> str:
        codec = slot.codec
        if codec.escape:
            return f"escape({value})"
        if codec.show is str:
            return f"str({value})"
        return f"{self.bind(codec.show)}({value})"

    def _attribute(self, slot: Slot) -> None:
        self.add(1, f"v = {self._value(slot)}")
        unit = f" unit='{slot.field.unit}'" if slot.field.unit else ""
        self.add(1, f"if {self._test(slot)}:")
        self.add(2, f'head += " {xml_name(slot.field)}=\'" + {self._scalar(slot)} + "\'{unit}"')

    def _again(self, slot: Slot) -> None:
        """A field that is printed here under one condition and elsewhere under another."""
        other = next(one for one in self.slots if one.field.attribute == slot.field.name and one is not slot)
        field = copy(other.field)
        field.show = slot.field.show
        getattr(self, f"_{field.kind}")(other._replace(field=field))

    def _flag(self, slot: Slot) -> None:
        self.add(1, f"if {self._test(slot, value=self._value(slot))}:")
        self.add(2, f"out.append(deep + '<{xml_name(slot.field)}/>\\n')")

    def _text(self, slot: Slot) -> None:
        name = xml_name(slot.field)
        unit = f" unit='{slot.field.unit}'" if slot.field.unit else ""
        self.add(1, f"v = {self._value(slot)}")
        self.add(1, f"if {self._test(slot)}:")
        self.add(2, f"out.append(deep + \"<{name}{unit}>\" + {self._scalar(slot)} + '</{name}>\\n')")

    def _via(self, slot: Slot) -> None:
        unit = f" unit='{slot.field.unit}'" if slot.field.unit else ""
        start = f"<{slot.field.inside} {xml_name(slot.field)}='"
        end = f"'{unit}/>\n"
        self.add(1, f"v = {self._value(slot)}")
        self.add(1, f"if {self._test(slot)}:")
        self.add(2, f"out.append(deep + {start!r} + {self._scalar(slot)} + {end!r})")

    def _child(self, slot: Slot) -> None:
        tag = repr(slot.field.name) if slot.field.name else "v.tag"
        empty = "v.empty" if slot.field.empty is None else str(slot.field.empty)
        self.add(1, f"v = {self._value(slot)}")
        self.add(1, f"if {self._test(slot)}:")
        self.add(2, f"v._print(out, deep, view, {tag}, {empty})")

    def _children(self, slot: Slot) -> None:
        self.add(1, f"v = {self._value(slot)}")
        self.add(1, f"if {self._test(slot, many=True)}:")
        depth = "deep"
        if slot.field.wrap:
            self.add(2, f"out.append(deep + '<{slot.field.wrap}>\\n')")
            depth = "deep + '  '"
        if slot.shape.codec is not None:
            name = xml_name(slot.field)
            self.add(2, "for i in v:")
            self.add(3, f"i = {self._scalar(slot, 'i')}")
            self.add(3, f"out.append({depth} + '<{name}>' + i + '</{name}>\\n')")
        else:
            tag = repr(slot.field.name) if slot.field.name else "i.tag"
            empty = "i.empty" if slot.field.empty is None else str(slot.field.empty)
            self.add(2, f"for i in v: i._print(out, {depth}, view, {tag}, {empty})")
        if slot.field.wrap:
            self.add(2, f"out.append(deep + '</{slot.field.wrap}>\\n')")

    def _close(self) -> None:
        text = next((slot for slot in self.slots if slot.field.kind == "content"), None)
        self.add(1, "if True:" if self.cls.unfolded else "if len(out) > start + 1:")
        self.add(2, "out[start] = head + '>\\n'")
        self.add(2, "out.append(ind + '</' + tag + '>\\n')")
        if text is not None:
            self.add(1, f"elif {self._value(text)} is not None:")
            self.add(2, f"out[start] = head + '>' + {self._scalar(text, self._value(text))} + '</' + tag + '>\\n'")
        self.add(1, "elif head is bare and not empty: out.pop()")
        self.add(1, "else: out[start] = head + '/>\\n'")
