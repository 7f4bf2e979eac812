"""What is asked about a call, for the calls that no driver of the tests implements."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyvirtd.api.types import DomainRef, StoragePoolRef, TypedParam
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.access import Access, Question
from pyvirtd.daemon.permissions import Petition
from tests.daemon.doubles import DoubleDriver, Refusing, rule
from tests.daemon.harness import Answered, procedure, serving

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


# --- calls whose object the driver finds on the way -----------------------------------------------------------------

IMAGES = {"mine": "<domain><name>mine</name></domain>", "other": "<domain><name>other</name></domain>", "broken": "<"}


class NamedOnly(Refusing):
    """Allows what is about "mine", and what is about nothing but the connection."""

    def answer(self, question: Question) -> bool:
        super().answer(question)
        return not question.details or ("domain_name", "mine") in question.details


def outcomes(folder: Path, rules: Access | None, call: str, files: Sequence[str], *rest: int) -> list[tuple[int, str]]:
    """Code and words of a call's error for each file; 0 and the answer where there is none."""
    found: list[tuple[int, str]] = []

    async def main() -> None:
        async with serving(folder, "", [DoubleDriver]) as server:
            driver = server.host.drivers[0]
            assert isinstance(driver, DoubleDriver)
            driver.images = IMAGES
            client = await server.connect()
            if rules is not None:
                rule(server.server, rules)
            for file in files:
                try:
                    found.append((0, await client.call(call, file, *rest)))
                except Answered as error:
                    found.append((error.code, error.message))

    asyncio.run(main())
    return found


DENIED = (ErrorNumber.ACCESS_DENIED, "access denied: 'test' denied access")


def test_who_may_restore_one_domain_learns_nothing_of_other_files(tmp_path: Path) -> None:
    rules = NamedOnly("")
    found = outcomes(tmp_path, rules, "domain_restore", ["mine", "other", "broken", "none"])
    assert found == [(ErrorNumber.OPERATION_FAILED, "operation failed: so far"), DENIED, DENIED, DENIED]
    assert ("domain:start", "mine") in rules.asked
    assert ("domain:write", "mine") in rules.asked


@pytest.mark.parametrize("permission", ["domain:start", "domain:write"])
def test_each_permission_of_a_restore_is_needed(tmp_path: Path, permission: str) -> None:
    assert outcomes(tmp_path, Refusing(permission), "domain_restore", IMAGES) == [DENIED] * len(IMAGES)


def test_who_may_restore_whatever_it_is_called_is_told_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    for rules in (None, Refusing("")):
        found = outcomes(tmp_path, rules, "domain_restore", ["none"])
        assert found == [(ErrorNumber.OPERATION_FAILED, "operation failed: no none")]
    code, _ = outcomes(tmp_path, Refusing(""), "domain_restore", ["broken"])[0]
    assert code == ErrorNumber.XML_DETAIL


def test_a_method_that_does_not_ask_gives_no_answer(tmp_path: Path) -> None:
    (code, text), *_ = outcomes(tmp_path, Refusing(""), "domain_save_image_get_xml_desc", ["mine"], 0)
    assert (code, "has not asked" in text) == (ErrorNumber.INTERNAL_ERROR, True)
    assert outcomes(tmp_path, None, "domain_save_image_get_xml_desc", ["mine"], 0) == [(0, IMAGES["mine"])]
