"""The patterns of libvirtd.conf's lists of names."""

import fnmatch
from collections.abc import Iterable


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches: * is any text, ? any character, and nothing else is special."""
    return any(fnmatch.fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns)
