"""The QMP schema flattened to paths."""

from typing import Any

import pytest

from pyvirtd.drivers.qemu.capabilities.schema import paths

SCHEMA: list[dict[str, Any]] = [
    {"name": "device_add", "meta-type": "command", "arg-type": "1", "ret-type": "0", "features": ["json-cli"]},
    {"name": "POWERDOWN", "meta-type": "event", "arg-type": "0"},
    {"name": "query-mice", "meta-type": "command", "arg-type": "0", "ret-type": "[5]"},
    {"name": "0", "meta-type": "object", "members": []},
    {
        "name": "1",
        "meta-type": "object",
        "members": [
            {"name": "driver", "type": "2"},
            {"name": "old", "type": "str", "features": ["deprecated"]},
            {"name": "x-secret", "type": "str"},
            {"name": "source", "type": "6"},
        ],
        "tag": "driver",
        "variants": [{"case": "nvme", "type": "3"}],
    },
    {
        "name": "2",
        "meta-type": "enum",
        "members": [{"name": "nvme", "features": ["unstable"]}, {"name": "nbd"}],
        "values": [],
    },
    {"name": "3", "meta-type": "object", "members": [{"name": "namespace", "type": "4"}]},
    {"name": "4", "meta-type": "enum", "values": ["one"]},
    {"name": "[5]", "meta-type": "array", "element-type": "5"},
    {
        "name": "5",
        "meta-type": "object",
        "members": [{"name": "absolute", "type": "str"}, {"name": "deep", "type": "3"}],
    },
    {"name": "6", "meta-type": "alternate", "members": [{"type": "str"}, {"type": "1"}]},
    {"name": "str", "meta-type": "builtin", "json-type": "string"},
]
FOUND = paths(SCHEMA)


@pytest.mark.parametrize(
    "path",
    [
        "device_add",
        "device_add!json-cli",
        "POWERDOWN",
        "device_add/driver",
        "device_add/driver=nvme",
        "device_add/driver=nvme!unstable",
        "device_add/old!deprecated",
        "device_add/namespace",  # of a variant
        "device_add/namespace=one",  # an enumeration of an older QEMU
        "device_add/source/driver",  # behind an alternate
        "query-mice->absolute",
    ],
)
def test_path_is_found(path: str) -> None:
    assert path in FOUND


@pytest.mark.parametrize(
    "path", ["device_add/x-secret", "query-mice->deep/namespace", "device_add/source/source/driver"]
)
def test_unstable_and_deep_members_are_left_out(path: str) -> None:
    assert path not in FOUND
