"""Users and groups as configuration files name them."""

import grp
import os
import pwd

import pytest

from pyvirtd.errors import InvalidArg
from pyvirtd.util import users


def test_names_and_numbers_are_found() -> None:
    assert users.user_id("root") == 0
    assert users.user_id("54321") == 54321
    assert users.user_id("+54321") == 54321
    assert users.group_id("root") == 0
    assert users.group_id("+7") == 7


@pytest.mark.parametrize("text", ["no such user", "", "+", "+root", "-1", "4294967295", "9" * 400, "٣"])
def test_what_is_neither_name_nor_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidArg, match=r"^invalid argument: Failed to parse user '"):
        users.user_id(text)
    with pytest.raises(InvalidArg, match=r"^invalid argument: Failed to parse group '"):
        users.group_id(text)


def test_identity_has_the_groups_of_its_user() -> None:
    member = next((name for group in grp.getgrall() for name in group.gr_mem), None)
    if member is None:
        pytest.skip("no user is in a further group here")
    found = users.identity(member, "+54321")
    assert found.uid == pwd.getpwnam(member).pw_uid
    assert found.gid == 54321
    assert set(found.groups) == set(os.getgrouplist(member, 54321))


def test_identity_of_an_unknown_number_has_its_group_only() -> None:
    assert users.identity("+54321", "+54322") == (54321, 54322, (54322,))
