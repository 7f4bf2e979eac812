"""Everything that libvirt's own schema knows is modelled: nothing of a user's definition can silently vanish."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from pyvirtd.model.chardev import ConsoleTargetType, SerialTargetType
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import Element, clark
from pyvirtd.xml.plan import flatten

SCHEMAS = Path("/usr/share/libvirt/schemas")
RNG = "{http://relaxng.org/ns/structure/1.0}"

# Known to the schema, and ignored by libvirt 9.0 itself or by every hypervisor that we have.
IGNORED: set[str] = {
    "domain/devices/console/target/model",  # the schema shares one pattern among all character devices
    "domain/devices/parallel/@tty",
    "domain/devices/parallel/target/@type",
    "domain/devices/parallel/target/model",
    "domain/devices/serial/@tty",
    "domain/devices/smartcard/target",
    "domain/devices/hostdev/source/adapter/@managed",  # of storage pools' adapters
    "domain/devices/hostdev/source/adapter/@parent",
    "domain/devices/hostdev/source/adapter/@parent_fabric_wwn",
    "domain/devices/hostdev/source/adapter/@parent_wwnn",
    "domain/devices/hostdev/source/adapter/@parent_wwpn",
    "domain/devices/hostdev/source/adapter/@type",
    "domain/devices/hostdev/source/adapter/@wwnn",
    "domain/devices/hostdev/source/adapter/@wwpn",
    "domain/devices/hostdev/source/adapter/parentaddr",
    "domain/launchSecurity/handle",
    "domain/{http://libvirt.org/schemas/domain/bhyve/1.0}commandline",
    "domain/{http://libvirt.org/schemas/domain/vmware/1.0}datacenterpath",
    "domain/{http://libvirt.org/schemas/domain/xen/1.0}commandline",
}
IGNORED |= {f"domain/devices/console/target/@type={word}" for word in SerialTargetType}
IGNORED |= {f"domain/devices/serial/target/@type={word}" for word in ConsoleTargetType}
ENDINGS = ("/privateData", "/source/address/@multifunction", "/reservations/source/reconnect")


class Grammar:
    """The defines of a schema and its includes; an included file's define is replaced by a later one."""

    def __init__(self, name: str) -> None:
        self.defines: dict[str, list[Any]] = {}
        self._load(SCHEMAS / name)

    def _load(self, path: Path) -> None:
        for node in etree.parse(str(path)).getroot():
            if node.tag == RNG + "include":
                self._load(path.parent / node.get("href"))
                for own in node.findall(RNG + "define"):
                    self.defines[own.get("name")] = [own]
            elif node.tag == RNG + "define":
                if node.get("combine"):
                    self.defines.setdefault(node.get("name"), []).append(node)
                else:
                    self.defines[node.get("name")] = [node]

    def words(self, pattern: Any) -> set[str] | None:
        """The words that a pattern allows, or None when it allows other text too."""
        found: set[str] = set()
        for node in pattern:
            if not isinstance(node.tag, str):
                continue
            inner: set[str] | None = None
            if node.tag == RNG + "value":
                inner = {(node.text or "").strip()}
            elif node.tag in (RNG + "choice", RNG + "group"):
                inner = self.words(node)
            elif node.tag == RNG + "ref":
                defines = self.defines.get(node.get("name"), [])
                inner = self.words(defines[0]) if len(defines) == 1 else None
            if inner is None:
                return None
            found |= inner
        return found

    def parts(self, pattern: Any) -> Iterator[Any]:
        """The elements and attributes directly inside a pattern, references followed."""
        for node in pattern:
            if node.tag in (RNG + "element", RNG + "attribute"):
                yield node
            elif node.tag == RNG + "ref":
                for define in self.defines.get(node.get("name"), []):
                    yield from self.parts(define)
            elif isinstance(node.tag, str):
                yield from self.parts(node)


def xml_name_of(node: Any) -> str:
    """A name with its namespace, which RELAX NG inherits from outer patterns."""
    inherited = (outer.get("ns") for outer in (node, *node.iterancestors()))
    uri = next((ns for ns in inherited if ns), "") if node.tag == RNG + "element" else ""
    return f"{{{uri}}}{node.get('name')}" if uri else str(node.get("name"))


def model_names(kinds: tuple[Any, ...]) -> tuple[set[str], dict[str, list[Any]]]:
    """Attributes, and children with their classes, of all `kinds` together."""
    attributes: set[str] = set()
    kids: dict[str, list[Any]] = {}
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Element)):
            continue
        attributes |= {kind.by} - {""}
        for slot in flatten(kind)[0]:
            field = slot.field
            name = field.name or field.attribute.rstrip("_")
            if field.kind in ("attr", "content") and field.unit:
                attributes.add("unit")
            if field.kind == "attr":
                attributes.add(clark(name))
            elif field.kind == "via":
                kids.setdefault(clark(field.inside), []).append((name, field.unit, slot))
            elif field.kind in ("text", "flag"):
                kids.setdefault(clark(name), []).append(("unit", "") if field.unit else ("", ""))
            elif field.kind in ("child", "children"):
                names = [field.name] if field.name else [inner.tag for inner in slot.shape.classes]
                for one in names or [name]:
                    found = kids.setdefault(clark(field.wrap or one or name), [])
                    if field.wrap:
                        found.append((clark(one or name), slot.shape.classes))
                    elif slot.shape.codec is None:
                        found.extend(c for c in slot.shape.classes if field.name or c.tag == one)
    return attributes, kids


def refused_words(grammar: Grammar, node: Any, kinds: list[Any]) -> set[str]:
    """Words of an attribute that no class of `kinds` reads."""
    words = grammar.words(node)
    if words is None:
        return set()
    name, accepted = node.get("name"), set()
    slots = [slot for kind in kinds if isinstance(kind, type) for slot in flatten(kind)[0]]
    slots += [one[2] for one in kinds if isinstance(one, tuple) and len(one) > 2]
    for slot in slots:
        field = slot.field
        if field.kind in ("attr", "via") and (field.name or field.attribute.rstrip("_")) == name:
            accepted |= set(field.ignore) | {word for word in words if reads(slot, word)}
    accepted |= {case for kind in kinds if isinstance(kind, type) and kind.by == name for case in kind.case}
    return words - accepted


def reads(slot: Any, word: str) -> bool:
    try:
        slot.codec.parse(word)
    except ValueError:
        return False
    return True


def compare(grammar: Grammar, nodes: list[Any], kinds: list[Any], path: str, seen: set[Any], missing: set[str]) -> None:
    """Adds to `missing` what the schema allows below `path` and the classes do not have."""
    key = (tuple(id(n) for n in nodes), tuple(str(k) for k in kinds))
    if key in seen or path in IGNORED:
        return
    seen.add(key)
    attributes, kids = model_names(tuple(kinds))
    attributes |= {one[0] for one in kinds if isinstance(one, tuple)}
    attributes |= {"unit" for one in kinds if isinstance(one, tuple) and one[1] and isinstance(one[1], str)}
    for wrapped in (one for one in kinds if isinstance(one, tuple) and isinstance(one[1], tuple)):
        kids.setdefault(wrapped[0], []).extend(wrapped[1])
    verbatim = any(isinstance(kind, type) and not issubclass(kind, Element) for kind in kinds)
    wanted: dict[str, list[Any]] = {}
    for node in nodes:
        for part in grammar.parts(node):
            if part.tag == RNG + "attribute":
                name = part.get("name")
                if name is None or verbatim:
                    continue
                if name not in attributes:
                    missing.add(f"{path}/@{name}")
                else:
                    missing |= {f"{path}/@{name}={word}" for word in refused_words(grammar, part, kinds)}
            elif part.get("name") is not None:
                wanted.setdefault(xml_name_of(part), []).append(part)
    for name, parts in wanted.items():
        where = f"{path}/{name}"
        if name not in kids:
            if not verbatim:
                missing.add(where)
            continue
        compare(grammar, parts, kids[name], where, seen, missing)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="libvirt's schemas are not installed")
def test_every_element_and_attribute_of_the_schema_is_modelled() -> None:
    grammar = Grammar("domaincommon.rng")
    top = [part for define in grammar.defines["domain"] for part in grammar.parts(define)]
    missing: set[str] = set()
    compare(grammar, top, [DomainDef], "domain", set(), missing)
    assert sorted(path for path in missing - IGNORED if not path.endswith(ENDINGS)) == []
