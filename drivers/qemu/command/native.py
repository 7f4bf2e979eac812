"""A command line as text for people: virConnectDomainXMLToNative("qemu-argv") and the guest's log."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.command.context import Command

_SPECIAL = re.compile(r"[\r\t\n !\"#$&'()*;<>?\[\\\]^`{|}~]")


def quote(word: str) -> str:
    """A word as a shell reads it."""
    if word and not _SPECIAL.search(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def to_native(command: "Command") -> str:
    """Environment and arguments in one line, for a shell."""
    words = [f"{name}={quote(value)}" for name, value in command.environment.items()]
    return " ".join([*words, *map(quote, command.argv)])
