"""What is asked about a call, for the calls that no driver of the tests implements."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from pyvirtd.api.types import DomainRef, StoragePoolRef, TypedParam
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.daemon.permissions import Petition
from tests.daemon.doubles import Refusing
from tests.daemon.harness import procedure

UUID = bytes(range(16))
DOMAIN = DomainRef("web1", UUID, -1)
POOL = StoragePoolRef("pool", UUID)
XML = "<domain><name>told</name></domain>"


def asked(name: str, *values: Any) -> list[tuple[str, str | None]]:
    """What is asked of a client that may do nothing: permissions, with the first name among their details."""
    rules = Refusing("")
    driver = SimpleNamespace(connect_driver="QEMU")
    client: Any = SimpleNamespace(rules=rules, driver=driver)
    handler: Any = SimpleNamespace(procedure=procedure(name), method=None)
    asyncio.run(Petition(client, handler, list(values), []).plead())
    return rules.asked


@pytest.mark.parametrize(
    ("name", "values", "subject"),
    [
        ("domain_migrate_prepare3", (b"", None, 0, None, 0, XML), "told"),
        ("domain_migrate_prepare3", (b"", None, 0, "other", 0, XML), "other"),
        ("domain_migrate_finish3", ("web2", b"", None, None, 0, 0), "web2"),
        (
            "domain_migrate_prepare3_params",
            ([TypedParam("destination_xml", (Kind.STRING, XML))], b"", 0),
            "told",
        ),
        (
            "domain_migrate_prepare3_params",
            (
                [
                    TypedParam("destination_xml", (Kind.STRING, XML)),
                    TypedParam("destination_name", (Kind.STRING, "new")),
                ],
                b"",
                0,
            ),
            "new",
        ),
        ("node_device_dettach", ("pci_0000_00_01_0",), "pci_0000_00_01_0"),
        ("network_define_xml", ("<network><name>lan</name></network>",), "lan"),
        ("storage_vol_create_xml", (POOL, "<volume><name>v</name></volume>", 0), "pool"),
        ("domain_restore", ("/a/file",), ""),
    ],
)
def test_a_call_is_about_what_its_arguments_say(name: str, values: tuple[Any, ...], subject: str) -> None:
    found = asked(name, *values)
    assert {need.permission for need in procedure(name).needs} == {word for word, _ in found} - {"storage_pool:getattr"}
    assert {about for _, about in found} == {subject}


def test_an_object_that_no_permission_is_about_must_still_be_one_to_know_of() -> None:
    found = asked("connect_domain_event_callback_register_any", 0, DOMAIN)
    assert ("domain:getattr", "web1") in found


def test_before_a_connection_is_open_nothing_is_asked() -> None:
    rules = Refusing("")
    client: Any = SimpleNamespace(rules=rules, driver=None)
    handler: Any = SimpleNamespace(procedure=procedure("connect_supports_feature"), method=None)
    assert Petition(client, handler, [10], []).settled()
    assert rules.asked == []
