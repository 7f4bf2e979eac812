"""Typed parameters that a client sends with a change: their names and types are checked before anything is done."""

from collections.abc import Iterable, Mapping
from typing import Any

from pyvirtd.api.types import TypedParam
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.errors import ArgumentUnsupported, InvalidArg


def checked(params: Iterable[TypedParam], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The values by name; `kinds` are the names there are. Raises ArgumentUnsupported and InvalidArg."""
    found: dict[str, Any] = {}
    for name, (kind, value) in params:
        if name not in kinds:
            raise ArgumentUnsupported(f"parameter '{name}' not supported")
        if kind != kinds[name]:
            given, wanted = Kind(kind).name.lower(), kinds[name].name.lower()
            raise InvalidArg(f"invalid type '{given}' for parameter '{name}', expected '{wanted}'")
        if name in found:
            raise InvalidArg(f"parameter '{name}' occurs multiple times")
        found[name] = value
    return found
