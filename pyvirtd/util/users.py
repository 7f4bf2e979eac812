"""Users and groups as configuration files and labels name them. Look-ups may ask the network: not for the loop."""

import grp
import os
import pwd

from pyvirtd.errors import InvalidArg
from pyvirtd.util.process import Identity

ID_MAX = 2**32 - 2


def user_id(text: str) -> int:
    """The number of a user: a name, else a number; after + always a number. Raises InvalidArg."""
    if not text.startswith("+"):
        try:
            return pwd.getpwnam(text).pw_uid
        except KeyError:
            pass
    return _number(text, "user")


def group_id(text: str) -> int:
    """The number of a group, written as a user is. Raises InvalidArg."""
    if not text.startswith("+"):
        try:
            return grp.getgrnam(text).gr_gid
        except KeyError:
            pass
    return _number(text, "group")


def identity(user: str, group: str) -> Identity:
    """Whom a process runs as that has this user and group: with the further groups of the user. Raises InvalidArg."""
    uid, gid = user_id(user), group_id(group)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return Identity(uid, gid, (gid,))
    return Identity(uid, gid, tuple(os.getgrouplist(name, gid)))


def _number(text: str, kind: str) -> int:
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or int(digits[:12]) > ID_MAX:
        raise InvalidArg(f"Failed to parse {kind} '{text}'")
    return int(digits)
