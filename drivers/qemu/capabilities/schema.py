"""The QMP schema (query-qmp-schema) as a flat set of paths that code can ask about.

A path is a command or an event, then members joined by "/": `device_add`, `blockdev-add/driver=nvme` (a value of an
enumeration), `device_add!json-cli` (a feature of what stands before the mark), `query-migrate->blocked-reasons` (a
member of the reply). Variants of a union are members like any other. Arguments are followed two levels deep.
Format: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html#qmp-introspection
"""

from collections.abc import Iterable, Iterator
from typing import Any

ARGUMENT_DEPTH = 2
REPLY_DEPTH = 1


def paths(entities: Iterable[dict[str, Any]]) -> frozenset[str]:
    """All paths of a schema. Names that QEMU calls unstable ("x-...") are left out."""
    schema = _Schema({e["name"]: e for e in entities})
    return frozenset(schema.walk_all())


class _Schema:
    def __init__(self, types: dict[str, dict[str, Any]]) -> None:
        self.types = types

    def walk_all(self) -> Iterator[str]:
        for name, entity in self.types.items():
            if entity["meta-type"] not in ("command", "event"):
                continue
            yield name
            yield from _features(name, entity)
            yield from self.walk(name, "/", entity["arg-type"], ARGUMENT_DEPTH)
            if entity["meta-type"] == "command":
                yield from self.walk(name, "->", entity["ret-type"], REPLY_DEPTH)

    def walk(self, prefix: str, joint: str, type_name: str, depth: int) -> Iterator[str]:
        entity = self.types[type_name]
        match entity["meta-type"]:
            case "array":
                yield from self.walk(prefix, joint, entity["element-type"], depth)
            case "enum":
                # "members" came with QEMU 6.2, "values" is what older ones have
                for member in entity.get("members") or ({"name": value} for value in entity["values"]):
                    yield f"{prefix}={member['name']}"
                    yield from _features(f"{prefix}={member['name']}", member)
            case "alternate":
                for member in entity["members"]:
                    yield from self.walk(prefix, joint, member["type"], depth)
            case "object" if depth:
                yield from _features(prefix, entity)
                for member in entity["members"]:
                    yield from self.walk_member(prefix, joint, member, depth)
                for variant in entity.get("variants", ()):
                    yield from self.walk(prefix, joint, variant["type"], depth)

    def walk_member(self, prefix: str, joint: str, member: dict[str, Any], depth: int) -> Iterator[str]:
        if member["name"].startswith("x-"):
            return
        path = f"{prefix}{joint}{member['name']}"
        yield path
        yield from _features(path, member)
        yield from self.walk(path, "/", member["type"], depth - 1)


def _features(path: str, entity: dict[str, Any]) -> Iterator[str]:
    return (f"{path}!{name}" for name in entity.get("features", ()))
