"""Command lines of definitions that are never started: what pure tests of argv share."""

import json
import re
from typing import Any, NamedTuple

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.command.build import standalone
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import Paths
from tests.drivers.qemu.definitions import emulator


class Words(NamedTuple):
    """What is said in JSON on a command line; `drives`: the nodes that the guest's devices use."""

    nodes: dict[str, dict[str, Any]]
    objects: list[dict[str, Any]]
    devices: list[dict[str, Any]]
    drives: list[str]


def words(definition: DomainDef) -> Words:
    """The command line of a complete definition, which gets what a start would write into it."""
    argv = standalone(definition, emulator("x86_64"), QemuConfig(), Paths.system().qemu).argv

    def after(option: str) -> list[dict[str, Any]]:
        places = (place + 1 for place, word in enumerate(argv) if word == option)
        return [json.loads(argv[place]) for place in places if argv[place].startswith("{")]

    nodes = {node["node-name"]: node for node in after("-blockdev")}
    return Words(nodes, after("-object"), after("-device"), re.findall(r'"drive":"([^"]*)"', " ".join(argv)))
