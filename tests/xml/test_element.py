"""The engine on small classes of its own: reading, printing, choosing classes, views, copies, errors."""

from enum import StrEnum
from typing import Any, Self

import pytest

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported, InvalidArg, Overflow, XmlError
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import (
    INACTIVE,
    LIVE,
    SECURE,
    STATUS,
    Element,
    View,
    again,
    attr,
    child,
    children,
    content,
    flag,
    group,
    text,
    via,
)
from pyvirtd.xml.types import U32, U64, OnOff, YesNo


class Kind(StrEnum):
    FILE = "file"
    BLOCK = "block"
    NONE = "none"


class Common(Element):
    index: U32 | None = attr(view=LIVE)
    label: list[str] = children()


class FileSource(Element, tag="source", case="file"):
    file: str | None = attr()
    common: Common = group()


class BlockSource(Element, tag="source", case="block"):
    dev: str | None = attr(required=True)
    common: Common = group()


class Place(Element, tag="place", by="type"):
    pass


class Shelf(Place, case="shelf"):
    row: U32 = attr(0)


class Floor(Place, case="floor"):
    pass


class Target(Element, tag="target", empty=True):
    dev: str | None = attr()


class Box(Element, tag="box", refused=("@later", "future")):
    type: Kind = attr(Kind.FILE, bad="unknown kind '{}'")
    size_kib: U64 | None = attr(name="size", unit="KiB")
    open_: YesNo | None = attr(name="open")
    password: str | None = attr(secure=True)
    id: U32 | None = attr(view=LIVE)
    source: FileSource | BlockSource | None = child(switch="^type")
    target: Target = child()
    note: str | None = text()
    limit_kib: U64 | None = text(name="limit", unit="KiB")
    sealed: bool = flag()
    alias: str | None = via("alias", "name", view=LIVE, keep=lambda name: str(name).startswith("ua-"))
    place: Shelf | Floor | None = child(bad="unknown place '{}'")
    inner: "list[Box]" = children(name="box", wrap="boxes")
    state: OnOff | None = via("state", "value", required=True)


FULL = """\
<box type='block' size='2048' unit='KiB' open='yes'>
  <source dev='/dev/a'>
    <label>one</label>
    <label>two</label>
  </source>
  <target dev='x'/>
  <note>a &lt;b&gt; &amp; &apos;c&apos; &quot;d&quot;</note>
  <limit unit='KiB'>1024</limit>
  <sealed/>
  <alias name='ua-1'/>
  <place type='shelf' row='3'/>
  <boxes>
    <box type='none'>
      <target/>
    </box>
  </boxes>
  <state value='off'/>
</box>
"""


def test_canonical_text_prints_to_itself() -> None:
    assert Box.parse(FULL).format() == FULL


def test_order_and_spacing_of_the_input_do_not_matter() -> None:
    box = Box.parse("<box><sealed/>  <target dev='x'/><!-- c --><source file='/f'/></box>")
    assert box.format() == "<box type='file'>\n  <source file='/f'/>\n  <target dev='x'/>\n  <sealed/>\n</box>\n"


def test_values_are_typed() -> None:
    box = Box.parse(FULL)
    assert (box.type, box.size_kib, box.open_, box.sealed, box.state) == (Kind.BLOCK, 2048, True, True, False)
    assert isinstance(box.source, BlockSource)
    assert box.source.common.label == ["one", "two"]
    assert isinstance(box.place, Shelf)


@pytest.mark.parametrize(("unit", "kib"), [("MiB", 2048), ("bytes", 1), ("k", 2), ("KB", 2), ("", 2), ("G", 2 << 20)])
def test_sizes_are_scaled_and_rounded_up(unit: str, kib: int) -> None:
    attribute = f" unit='{unit}'" if unit else ""
    assert Box.parse(f"<box size='2'{attribute}/>").size_kib == kib
    assert Box.parse(f"<box><limit{attribute}>2</limit></box>").limit_kib == kib


def test_an_unknown_unit_is_an_invalid_argument() -> None:
    with pytest.raises(InvalidArg, match="unknown suffix 'parsec'"):
        Box.parse("<box><limit unit='parsec'>2</limit></box>")


def test_a_size_beyond_64_bits_is_refused() -> None:
    with pytest.raises(Overflow):
        Box.parse("<box><limit unit='EiB'>99</limit></box>")


def test_parents_attribute_picks_the_class_also_by_its_default() -> None:
    assert isinstance(Box.parse("<box><source file='/f'/></box>").source, FileSource)
    assert isinstance(Box.parse("<box type='block'><source dev='/f'/></box>").source, BlockSource)


def test_a_child_that_is_nobodys_is_ignored() -> None:
    assert Box.parse("<box type='none'><source file='/f'/></box>").source is None


def test_own_attribute_picks_the_class_and_is_printed_first() -> None:
    assert "<place type='floor'/>" in Box(place=Floor()).format()


def test_an_unknown_case_is_refused_in_the_fields_words() -> None:
    with pytest.raises(ConfigUnsupported, match="unknown place 'roof'"):
        Box.parse("<box><place type='roof'/></box>")


def test_live_fields_exist_in_the_live_view_only() -> None:
    document = "<box id='4'><source file='/f' index='1'/><target/><alias name='box0'/></box>"
    assert Box.parse(document).format(LIVE) == "<box type='file'>\n  <source file='/f'/>\n  <target/>\n</box>\n"
    live = Box.parse(document, LIVE)
    assert "id='4'" in live.format(LIVE)
    assert "index='1'" in live.format(LIVE)
    assert "id=" not in live.format()


def test_a_kept_value_is_part_of_every_view() -> None:
    assert "<alias name='ua-1'/>" in Box.parse("<box><alias name='ua-1'/></box>").format()
    assert "alias" not in Box.parse("<box><alias name='box0'/></box>").format(LIVE)


def test_passwords_show_in_the_secure_view_only() -> None:
    box = Box.parse("<box password='p'/>")
    assert "password" not in box.format(LIVE | STATUS)
    assert "password='p'" in box.format(SECURE)


def test_the_first_of_two_children_counts() -> None:
    assert Box.parse("<box><note>a</note><note>b</note><target dev='1'/><target dev='2'/></box>").note == "a"
    assert Box.parse("<box><target dev='1'/><target dev='2'/></box>").target.dev == "1"


def test_comments_and_cdata_do_not_disturb_text() -> None:
    assert Box.parse("<box><note>a<!-- x -->b<![CDATA[<c>]]></note></box>").note == "ab<c>"


def test_control_characters_are_not_printed() -> None:
    assert Box(note="a\x01b\tc").format() == "<box type='file'>\n  <target/>\n  <note>ab\tc</note>\n</box>\n"


def test_a_bad_word_names_attribute_element_and_value() -> None:
    with pytest.raises(XmlError) as caught:
        Box.parse("<box open='maybe'/>")
    assert str(caught.value) == "XML error: Invalid value for attribute 'open' in element 'box': 'maybe'."
    assert caught.value.domain == ErrorDomain.XML


def test_a_bad_number_says_what_was_expected() -> None:
    with pytest.raises(XmlError) as caught:
        Box.parse("<box id='-1'/>", LIVE)
    assert str(caught.value) == (
        "XML error: Invalid value for attribute 'id' in element 'box': '-1'. Expected non-negative integer value"
    )


def test_a_field_may_have_words_of_its_own() -> None:
    with pytest.raises(ConfigUnsupported, match="unknown kind 'x'"):
        Box.parse("<box type='x'/>")


def test_a_missing_attribute_is_named() -> None:
    with pytest.raises(XmlError, match="Missing required attribute 'dev' in element 'source'"):
        Box.parse("<box type='block'><source/></box>")
    with pytest.raises(XmlError, match="Missing required attribute 'value' in element 'state'"):
        Box.parse("<box><state/></box>")


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(ConfigUnsupported) as caught:
        Box.parse(f"<box type='{'x' * 100_000}'/>")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("document", ["<box later='1'/>", "<box><future/></box>"])
def test_what_is_known_but_not_modelled_is_refused_with_its_path(document: str) -> None:
    with pytest.raises(ConfigUnsupported, match=r"'(later|future)' in /box is not supported"):
        Box.parse(document)


def test_what_nobody_knows_is_ignored() -> None:
    assert Box.parse("<box bogus='1'><bogus/><x:y xmlns:x='u'/></box>") == Box()


def test_constructor_takes_fields_only() -> None:
    assert Box(type=Kind.NONE, note="n").note == "n"
    with pytest.raises(TypeError, match="no field 'nope'"):
        Box(nope=1)  # type: ignore[call-arg]


def test_lists_and_parts_are_not_shared_between_objects() -> None:
    first, second = Box(), Box()
    first.inner.append(second)
    first.target.dev = "x"
    assert second.inner == []
    assert second.target.dev is None


def test_a_copy_is_deep_and_equal() -> None:
    box = Box.parse(FULL)
    copy = box.copy()
    assert copy == box
    assert copy.source is not None
    copy.source.common.label.append("three")
    copy.inner[0].note = "x"
    assert copy != box
    assert box.format() == FULL


def test_fields_in_printing_order() -> None:
    names = [field.attribute for field in Box.fields()]
    assert names[:3] == ["type", "size_kib", "open_"]
    assert names[-1] == "state"
    assert dict(Box(note="n").values())["note"] == "n"


class Strict(Element, tag="strict", strict="unexpected thing '{}'"):
    known: bool = flag()


def test_a_strict_element_refuses_unknown_children() -> None:
    assert Strict.parse("<strict><known/></strict>").known
    with pytest.raises(ConfigUnsupported, match="unexpected thing 'other'"):
        Strict.parse("<strict><other/></strict>")


class Unfolded(Element, tag="unfolded", unfolded=True):
    pass


def test_an_unfolded_element_keeps_its_closing_tag() -> None:
    assert Unfolded().format() == "<unfolded>\n</unfolded>\n"


class Moved(Element, tag="moved"):
    early: bool = attr(False, show=lambda one: False)
    again_here: Any = again("late", show=lambda one: one.early)
    middle: bool = flag()
    late: str | None = text(show=lambda one: not one.early)


def test_a_field_can_have_two_places() -> None:
    assert Moved(middle=True, late="x").format() == "<moved>\n  <middle/>\n  <late>x</late>\n</moved>\n"
    assert Moved(middle=True, late="x", early=True).format() == "<moved>\n  <late>x</late>\n  <middle/>\n</moved>\n"


class Spaced(Element, tag="qemu:spaced"):
    word: str | None = attr()


class Outer(Element, tag="outer"):
    spaced: Spaced | None = child()


def test_a_namespace_is_declared_where_it_is_used() -> None:
    uri = "http://libvirt.org/schemas/domain/qemu/1.0"
    printed = f"<outer xmlns:qemu='{uri}'>\n  <qemu:spaced word='w'/>\n</outer>\n"
    assert Outer(spaced=Spaced(word="w")).format() == printed
    assert Outer.parse(f"<outer xmlns:q='{uri}'><q:spaced word='w'/></outer>").format() == printed
    assert Outer.parse("<outer xmlns:q='other'><q:spaced word='w'/></outer>").spaced is None
    assert Outer().format() == "<outer/>\n"


class Hooked(Element, tag="hooked"):
    size: U32 = content(0)
    shown: U32 | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        self.size += 1

    def printed(self, view: View) -> Self:
        twin = self.shallow()
        twin.shown = 7 if view & LIVE else None
        return twin


def test_hooks_see_what_was_read_and_what_is_printed() -> None:
    hooked = Hooked.parse("<hooked>4</hooked>")
    assert hooked.size == 5
    assert hooked.format(LIVE) == "<hooked shown='7'>5</hooked>\n"
    assert hooked.format(INACTIVE) == "<hooked>5</hooked>\n"


def test_a_field_must_not_hide_the_engine() -> None:
    with pytest.raises(TypeError, match="hides an attribute"):
        type("Bad", (Element,), {"copy": attr(), "__annotations__": {"copy": str}})
