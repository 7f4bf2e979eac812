"""Definitions on disk: durable order, broken files left alone, renames that never lose."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.core.store import Definitions, NameLocks
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.paths import FamilyPaths
from pyvirtd.util import files
from tests.support.blocking import calls_on_the_loop


def store(folder: Path) -> Definitions:
    paths = FamilyPaths(folder / "etc", folder / "run")
    paths.config.mkdir()
    paths.autostart.mkdir()
    return Definitions(paths, "edit")


def body(text: str) -> str:
    """A stored document without the comment before it."""
    return text.split("-->")[1].strip()


def load(definitions: Definitions) -> list[tuple[str, str, bool]]:
    return [(item.name, body(item.text), item.autostart) for item in asyncio.run(definitions.load())]


def test_what_was_saved_is_loaded_with_its_autostart(tmp_path: Path) -> None:
    definitions = store(tmp_path)

    async def work() -> None:
        await definitions.save("a", "a")
        await definitions.save("b", "b")
        await definitions.set_autostart("b", on=True)

    asyncio.run(work())
    assert load(definitions) == [("a", "a", False), ("b", "b", True)]
    assert os.readlink(definitions.paths.autostart_link("b")) == str(definitions.paths.config_file("b"))


def test_a_link_among_the_definitions_is_not_followed(tmp_path: Path) -> None:
    definitions = store(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("x")
    definitions.paths.config_file("x").symlink_to(secret)
    assert load(definitions) == []


def test_removing_takes_the_links_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = store(tmp_path)
    removed: list[str] = []
    unlink = os.unlink

    def noting(path: Any, **kwargs: Any) -> None:
        removed.append(Path(path).parent.name)
        unlink(path, **kwargs)

    async def work() -> None:
        await definitions.save("a", "a")
        await definitions.set_autostart("a", on=True)
        monkeypatch.setattr(os, "unlink", noting)
        await definitions.remove("a")

    asyncio.run(work())
    assert removed == ["autostart", "autostart", "etc"]
    assert load(definitions) == []


def test_a_failed_write_names_the_file_and_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = store(tmp_path)
    asyncio.run(definitions.save("a", "a"))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(VirtError, match=r"a\.xml.*No space left"):
        asyncio.run(definitions.save("a", "broken"))
    assert load(definitions) == [("a", "a", False)]
    assert [entry.name for entry in definitions.paths.config.iterdir() if entry.is_file()] == ["a.xml"]


def test_a_crash_during_a_rename_leaves_the_old_or_both_but_never_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions = store(tmp_path)

    async def work() -> None:
        await definitions.save("old", "old")

        async def crash(name: str) -> None:
            raise RuntimeError("power cut")

        monkeypatch.setattr(definitions, "remove", crash)
        await definitions.rename("old", "new", "new", autostart=False)

    with pytest.raises(RuntimeError):
        asyncio.run(work())
    assert [name for name, *_ in load(definitions)] == ["new", "old"]


def test_changes_do_not_wait_for_the_disk_on_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = store(tmp_path)
    definitions.paths.autostart.rmdir()

    async def fail(name: str) -> None:
        raise OperationFailed(name)

    async def work() -> None:
        await definitions.save("old", "old")
        await definitions.set_autostart("old", on=True)
        monkeypatch.setattr(definitions, "remove", fail)
        with pytest.raises(OperationFailed):
            await definitions.rename("old", "new", "new", autostart=False)

    on_loop = calls_on_the_loop(monkeypatch, *((Path, name) for name in ("exists", "mkdir")))
    asyncio.run(work())
    assert on_loop == []


def test_name_locks_serialise_the_same_name_only() -> None:
    async def work() -> None:
        locks, log = NameLocks(), []

        async def one(number: int, *keys: str) -> None:
            async with locks.hold(*keys):
                log.append(f"+{number}")
                await asyncio.sleep(0.01)
                log.append(f"-{number}")

        await asyncio.gather(one(1, "a"), one(2, "a", "b"), one(3, "c"))
        assert log.index("-1") < log.index("+2")
        assert log.index("+3") < log.index("-1")
        assert not locks._held

    asyncio.run(work())


def test_name_locks_of_two_holders_in_opposite_order_do_not_deadlock() -> None:
    async def work() -> None:
        locks = NameLocks()

        async def one(*keys: str) -> None:
            for _ in range(20):
                async with locks.hold(*keys):
                    await asyncio.sleep(0)

        await asyncio.wait_for(asyncio.gather(one("a", "b"), one("b", "a")), 5)

    asyncio.run(work())
