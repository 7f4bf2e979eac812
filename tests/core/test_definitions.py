"""Domains on disk, as a driver finds them at its start: known at a glance, looked into later, broken ones let go."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pyvirtd.config import DaemonConfig, QemuConfig
from pyvirtd.constants.domain import DomainMetadataType
from pyvirtd.core import objects
from pyvirtd.core.driver import Host
from pyvirtd.core.hooks import Hooks
from pyvirtd.core.store import Definitions
from pyvirtd.drivers.test.driver import Domains, TestDriver
from pyvirtd.paths import Paths

GOOD = (
    """<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>1</memory><os><type>hvm</type></os></domain>"""
)
UUID = "c7a5fdbd-cdaf-9455-926a-d65c16db18{:02x}"


def run(folder: Path, files: dict[str, str], work: Callable[[TestDriver], Awaitable[None]]) -> None:
    async def main() -> None:
        paths = Paths.system(folder)
        paths.qemu.config.mkdir(parents=True)
        for number, (name, text) in enumerate(files.items()):
            path = paths.qemu.config / f"{name}.xml"
            path.write_text(text)
            os.utime(path, ns=(0, number))
        host = Host(paths, True, DaemonConfig.parse("", "d"), QemuConfig.parse("", "q"), Hooks(paths))
        driver = TestDriver(host)
        driver.definitions = Definitions(paths.qemu, "edit")
        await driver.load_definitions()
        await work(driver)

    asyncio.run(main())


def good(number: int, name: str) -> str:
    return GOOD.format(name=name, uuid=UUID.format(number))


def test_domains_are_known_before_they_are_looked_into(tmp_path: Path) -> None:
    async def work(driver: TestDriver) -> None:
        dom = driver.domains.by_name("a")
        assert dom.deferred is not None
        assert dom.uuid_text == UUID.format(1)
        assert dom.config.memory.kib == 1
        assert dom.deferred is None

    run(tmp_path, {"a": good(1, "a")}, work)


BROKEN = {
    "no-xml": "<domain",
    "other-root": "<network/>",
    "other-name": good(2, "another"),
    "bad-uuid": good(3, "bad-uuid").replace("c7a5", "zzzz"),
    "empty": "",
}


def test_broken_files_are_reported_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(driver: TestDriver) -> None:
        assert [dom.name for dom in driver.domains] == ["good"]
        assert driver.definitions is not None
        for name, text in BROKEN.items():
            assert driver.definitions.paths.config_file(name).read_text() == text

    with caplog.at_level(logging.ERROR):
        run(tmp_path, BROKEN | {"good": good(1, "good")}, work)
    assert sorted(Path(record.args[0]).stem for record in caplog.records) == sorted(BROKEN)  # type: ignore[arg-type, index]


def test_a_definition_broken_inside_is_found_by_the_check_and_let_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inside = good(2, "inside").replace("<memory>1<", "<memory>much<")

    async def work(driver: TestDriver) -> None:
        await driver.check_definitions()
        assert [dom.name for dom in driver.domains] == ["good"]
        assert driver.domains.by_name("good").deferred is not None

    with caplog.at_level(logging.ERROR):
        run(tmp_path, {"inside": inside, "good": good(1, "good")}, work)
    assert "inside.xml is left alone" in caplog.text
    assert (tmp_path / "etc/libvirt/qemu/inside.xml").read_text() == inside


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a")])
def test_a_rename_that_was_cut_short_is_undone(tmp_path: Path, old: str, new: str) -> None:
    async def work(driver: TestDriver) -> None:
        assert [dom.name for dom in driver.domains] == [old]
        assert [path.name for path in driver.host.paths.qemu.config.glob("*.xml")] == [f"{old}.xml"]

    run(tmp_path, {old: good(1, old), new: good(1, new)}, work)


def test_two_different_definitions_with_one_uuid_are_both_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(driver: TestDriver) -> None:
        assert [dom.name for dom in driver.domains] == ["a"]
        assert len(list(driver.host.paths.qemu.config.glob("*.xml"))) == 2

    with caplog.at_level(logging.ERROR):
        run(tmp_path, {"a": good(1, "a"), "b": good(1, "b").replace("<memory>1<", "<memory>2<")}, work)
    assert "b.xml is left alone" in caplog.text


def test_definitions_long_unused_are_text_again_and_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "IN_USE_MAX", 2)
    objects._in_use.clear()

    async def work(driver: TestDriver) -> None:
        doms = sorted(driver.domains, key=lambda dom: dom.name)
        before = [dom.config.format() for dom in doms]
        assert [dom.deferred is None for dom in doms] == [False, True, True]
        assert [dom.config.format() for dom in doms] == before
        assert [dom.revision for dom in doms] == [0, 0, 0]

    run(tmp_path, {name: good(number, name) for number, name in enumerate("abc")}, work)


def test_a_changed_definition_is_shown_at_once(tmp_path: Path) -> None:
    async def work(driver: TestDriver) -> None:
        part = Domains(driver)
        dom = driver.domains.by_name("a")
        before = part.domain_get_xml_desc(dom, 0)
        await part.domain_set_metadata(dom, DomainMetadataType.TITLE, "new", None, None, 0)
        after = part.domain_get_xml_desc(dom, 0)
        assert after == before.replace("</uuid>\n", "</uuid>\n  <title>new</title>\n")
        assert dom.deferred is None or "<title>new</title>" in dom.deferred.text

    run(tmp_path, {"a": good(1, "a")}, work)
