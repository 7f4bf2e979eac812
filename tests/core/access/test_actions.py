"""The policy files are what the declarations say, and what libvirt's say."""

import re
from pathlib import Path

import pytest

from pyvirtd.core.access.actions import SHIPPED, action_of, is_open, permissions, policy

CONF = Path(__file__).parents[3] / "conf"
INSTALLED = Path("/usr/share/polkit-1/actions")
ACTION = re.compile(
    r'<action id="(.*?)">.*?<allow_any>(\w+)<.*?<allow_inactive>(\w+)<.*?<allow_active>(\w+)<', re.DOTALL
)


@pytest.mark.parametrize("name", list(SHIPPED))
def test_the_shipped_files_are_up_to_date(name: str) -> None:
    assert (CONF / name).read_text() == policy(SHIPPED[name]()), "python -m pyvirtd.core.access.actions conf"


@pytest.mark.parametrize("name", list(SHIPPED))
def test_actions_and_their_defaults_are_libvirts(name: str) -> None:
    theirs = INSTALLED / name
    if not theirs.exists():
        pytest.skip("package libvirt-daemon-system is not installed")
    assert set(ACTION.findall((CONF / name).read_text())) == set(ACTION.findall(theirs.read_text()))


def test_names_of_actions_have_hyphens() -> None:
    assert action_of("storage_pool:search_storage_vols") == "org.libvirt.api.storage-pool.search-storage-vols"


def test_only_looking_is_open_to_everybody() -> None:
    assert {word.partition(":")[2].split("_")[0] for word in permissions() if is_open(word)} == {
        "getattr",
        "read",
        "search",
    }
    assert not is_open("domain:read_secure")
    assert not is_open("storage_pool:search_storage_vols")
