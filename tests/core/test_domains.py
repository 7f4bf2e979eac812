"""What all hypervisor drivers share: definitions that are on disk before the reply, or else as they were."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.config import DaemonConfig, QemuConfig
from pyvirtd.constants.domain import DomainEventDefinedDetailType as Defined
from pyvirtd.constants.domain import DomainEventType, DomainEventUndefinedDetailType, DomainMetadataType
from pyvirtd.core import edits
from pyvirtd.core import jobs as jobs_module
from pyvirtd.core import store as store_module
from pyvirtd.core.domains import CommonDomains
from pyvirtd.core.driver import Host
from pyvirtd.core.edits import one_target, targets
from pyvirtd.core.hooks import Hooks
from pyvirtd.core.jobs import Job
from pyvirtd.core.store import Definitions, Stored
from pyvirtd.drivers.test.driver import TestDomain, TestDriver
from pyvirtd.errors import BadCall, InvalidArg, OperationFailed, OperationInvalid, SystemError_, VirtError, XmlError
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import FamilyPaths, Paths
from pyvirtd.util.files import TEMPORARY_PREFIX, TEMPORARY_SUFFIX

XML = """<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><title>{title}</title><memory>8192</memory>
<os><type>hvm</type></os></domain>"""
UUIDS = ["aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"]
TITLE, DESCRIPTION, ELEMENT = DomainMetadataType.TITLE, DomainMetadataType.DESCRIPTION, DomainMetadataType.ELEMENT
LIVE, CONFIG = 1, 2


class DiskDriver(TestDriver):
    """The in-memory driver, with definitions on disk."""

    async def start(self) -> None:
        await super().start()
        await self.load_definitions()


class World:
    """One driver with its files and its part; `events` are the lifecycle events it emitted."""

    def __init__(self, folder: Path) -> None:
        self.paths = FamilyPaths(folder / "etc", folder / "run")
        self.paths.autostart.mkdir(parents=True, exist_ok=True)
        paths = Paths.system(folder)
        self.driver = DiskDriver(Host(paths, True, DaemonConfig(), QemuConfig(), Hooks(paths)))
        self.driver.definitions = Definitions(self.paths, "edit")
        self.part = CommonDomains(self.driver)
        self.events: list[tuple[str, int, int]] = []
        self.driver.emit_lifecycle = self._note  # type: ignore[method-assign]

    def _note(self, dom: TestDomain, event: DomainEventType, detail: int) -> None:
        self.events.append((dom.name, event, detail))

    async def define(self, name: str = "a", number: int = 0, title: str = "t") -> TestDomain:
        return await self.part.domain_define_xml(XML.format(name=name, uuid=UUIDS[number], title=title))

    def files(self) -> list[str]:
        return sorted(path.stem for path in self.paths.config.glob("*.xml"))

    def text(self, name: str = "a") -> str:
        return self.paths.config_file(name).read_text()


Work = Callable[[World], Awaitable[None]]


class Gate:
    """Does `work` once it is opened; `reached` is set when somebody waits for that."""

    def __init__(self, work: Callable[..., Awaitable[Any]]) -> None:
        self._work = work
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.reached.set()
        await self.opened.wait()
        return await self._work(*args, **kwargs)


def run(folder: Path, work: Work) -> None:
    async def main() -> None:
        world = World(folder)
        await world.driver.start()
        world.events.clear()
        await work(world)

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write of a definition fails, from its second one on."""
    write, count = store_module.atomic_write, [0]

    async def failing(*args: Any, **kwargs: Any) -> None:
        count[0] += 1
        if count[0] > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        await write(*args, **kwargs)

    monkeypatch.setattr(store_module, "atomic_write", failing)


# --- define and undefine ----------------------------------------------------------------------------------------------


def test_a_definition_is_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        assert "<title>t</title>" in world.text()
        assert world.events == [("a", DomainEventType.DEFINED, Defined.ADDED)]
        assert not dom.updated

    run(tmp_path, work)


def test_a_new_definition_replaces_the_old_one(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        assert await world.define(title="new") is dom
        assert "<title>new</title>" in world.text()
        assert dom.updated
        assert world.events[1:] == [("a", DomainEventType.DEFINED, Defined.UPDATED)]

    run(tmp_path, work)


@pytest.mark.usefixtures("full_disk")
def test_what_could_not_be_written_is_as_it_was(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        for change in (
            world.define(title="new"),
            world.part.domain_set_metadata(dom, TITLE, "new", None, None, 0),
            world.part.domain_rename(dom, "b", 0),
        ):
            with pytest.raises(SystemError_, match="No space left"):
                await change
        assert (dom.name, dom.config.title) == ("a", "t")
        assert world.driver.domains.by_name("a") is dom
        assert world.files() == ["a"]
        assert "<title>t</title>" in world.text()
        with pytest.raises(SystemError_):
            await world.define("b", 1)
        assert world.driver.domains.get_name("b") is None
        assert world.events == [("a", DomainEventType.DEFINED, Defined.ADDED)]

    run(tmp_path, work)


def test_what_is_on_disk_is_known_to_the_next_daemon(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        dom = await world.define()
        await world.part.domain_set_autostart(dom, 1)

    async def second(world: World) -> None:
        dom = world.driver.domains.by_name("a")
        assert (dom.uuid_text, dom.config.title, dom.autostart, dom.persistent) == (UUIDS[0], "t", True, True)

    run(tmp_path, first)
    run(tmp_path, second)


def test_undefining_removes_file_and_link(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        await world.part.domain_set_autostart(dom, 1)
        await world.part.domain_undefine(dom)
        assert world.files() == []
        assert not world.paths.autostart_link("a").is_symlink()
        assert world.driver.domains.get_name("a") is None
        assert world.events[-1] == ("a", DomainEventType.UNDEFINED, DomainEventUndefinedDetailType.REMOVED)
        with pytest.raises(OperationInvalid, match="cannot undefine transient domain"):
            await world.part.domain_undefine(dom)

    run(tmp_path, work)


def test_a_running_domain_stays_as_a_transient_one(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        await world.part.domain_create(dom)
        await world.part.domain_undefine(dom)
        assert world.driver.domains.by_name("a") is dom
        assert (dom.persistent, dom.active) == (False, True)
        await world.define()
        assert dom.persistent
        assert world.events[-1] == ("a", DomainEventType.DEFINED, Defined.ADDED)
        await world.part.domain_undefine(dom)
        await world.part.domain_destroy(dom)
        assert world.driver.domains.get_name("a") is None

    run(tmp_path, work)


def test_definitions_of_one_name_at_once_end_with_one_domain(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        results = await asyncio.gather(world.define("a", 0), world.define("a", 1), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["OperationFailed", "TestDomain"]
        assert world.files() == ["a"]

    run(tmp_path, work)


def test_changes_at_once_leave_on_disk_what_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when an earlier write takes longer than a later one."""
    write, delays = store_module.atomic_write, iter([0.0, 0.05, 0.0, 0.03, 0.0, 0.01, 0.0])

    async def slow(*args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(next(delays))
        await write(*args, **kwargs)

    async def work(world: World) -> None:
        dom = await world.define()
        await asyncio.gather(
            world.define(title="1"),
            world.part.domain_set_metadata(dom, DESCRIPTION, "2", None, None, 0),
            world.define(title="3"),
            world.part.domain_set_metadata(dom, TITLE, "4", None, None, 0),
        )
        assert dom.config.format(0) in world.text()

    monkeypatch.setattr(store_module, "atomic_write", slow)
    run(tmp_path, work)


# --- rename -----------------------------------------------------------------------------------------------------------


def test_a_renamed_domain_has_one_file_and_two_events(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        await world.part.domain_set_autostart(dom, 1)
        await world.part.domain_rename(dom, "b", 0)
        assert world.files() == ["b"]
        assert "<name>b</name>" in world.text("b")
        assert world.paths.autostart_link("b").is_symlink()
        assert world.driver.domains.by_name("b") is dom
        assert world.events[1:] == [
            ("a", DomainEventType.UNDEFINED, DomainEventUndefinedDetailType.RENAMED),
            ("b", DomainEventType.DEFINED, Defined.RENAMED),
        ]

    run(tmp_path, work)


def test_a_rename_whose_old_file_stays_leaves_no_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = store_module.durable_unlink

    async def failing(path: Path, **kwargs: Any) -> None:
        if path.name == "a.xml" and path.parent.name == "etc":
            raise OSError(errno.EIO, "Input/output error")
        await unlink(path, **kwargs)

    async def work(world: World) -> None:
        dom = await world.define()
        monkeypatch.setattr(store_module, "durable_unlink", failing)
        with pytest.raises(SystemError_):
            await world.part.domain_rename(dom, "b", 0)
        assert world.files() == ["a"]
        assert world.driver.domains.by_name("a") is dom

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("name", "error"), [("", InvalidArg), ("a", OperationInvalid), ("test", OperationInvalid), ("x/y", XmlError)]
)
def test_names_a_domain_cannot_get(tmp_path: Path, name: str, error: type[VirtError]) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        with pytest.raises(error):
            await world.part.domain_rename(dom, name, 0)
        assert world.files() == ["a"]

    run(tmp_path, work)


def test_renames_to_one_name_at_once_leave_one_loser(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        one, two = await world.define("a", 0), await world.define("b", 1)
        results = await asyncio.gather(
            world.part.domain_rename(one, "c", 0), world.part.domain_rename(two, "c", 0), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["OperationInvalid", "int"]
        assert len(world.files()) == 2

    run(tmp_path, work)


def test_a_rename_waits_for_the_domains_job_without_holding_up_its_name(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        async with dom.jobs.hold(Job.MODIFY, "test"):
            rename = asyncio.create_task(world.part.domain_rename(dom, "b", 0))
            await asyncio.sleep(0.01)
            await asyncio.wait_for(world.define(title="new"), 1)
        await rename
        assert "<title>new</title>" in world.text("b")

    run(tmp_path, work)


@pytest.mark.parametrize("refused", [False, True])
def test_a_transient_domain_that_ends_while_it_is_defined_is_there_as_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    async def work(world: World) -> None:
        dom = world.driver.new_domain(DomainDef.parse(XML.format(name="a", uuid=UUIDS[0], title="t")), persistent=False)
        world.driver.domains.add(dom)
        await world.part.domain_create(dom)
        gate = Gate(store_module.atomic_write)
        monkeypatch.setattr(store_module, "atomic_write", gate)
        define = asyncio.create_task(world.define(title="new"))
        await gate.reached.wait()
        await world.part.domain_destroy(dom)
        if refused:
            world.paths.config.rename(tmp_path / "away")
        gate.opened.set()
        if refused:
            with pytest.raises(SystemError_):
                await define
            assert world.driver.domains.get_name("a") is None
            return
        assert await define is dom
        assert world.driver.domains.by_name("a") is dom
        assert (dom.persistent, dom.config.title) == (True, "new")
        assert world.files() == ["a"]

    run(tmp_path, work)


# --- reload -----------------------------------------------------------------------------------------------------------


def test_a_reload_during_a_rename_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        dom = await world.define("old")
        definitions = world.driver.definitions
        assert definitions is not None
        remove, reloads = definitions.remove, []

        async def late(name: str) -> None:
            assert world.files() == ["new", "old"] or reloads
            if not reloads:
                reloads.append(asyncio.ensure_future(world.driver.reload()))
                await asyncio.wait(reloads, timeout=0.3)  # as far as it gets
            await remove(name)

        monkeypatch.setattr(definitions, "remove", late)
        await world.part.domain_rename(dom, "new", 0)
        await reloads[0]
        assert world.files() == ["new"]
        assert [dom.name for dom in world.driver.domains] == ["test", "new"]
        assert dom.is_kept_as(world.text("new"))

    run(tmp_path, work)


def test_a_reload_brings_no_domain_back_that_goes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        definitions = world.driver.definitions
        assert definitions is not None
        load = definitions.load

        async def slow() -> list[Stored]:
            found = await load()
            await world.part.domain_undefine(dom)
            return found

        monkeypatch.setattr(definitions, "load", slow)
        await world.driver.reload()
        assert world.files() == []
        assert [dom.name for dom in world.driver.domains] == ["test"]

    run(tmp_path, work)


def test_a_reload_takes_in_new_files_and_leaves_those_being_written(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await world.define()
        world.paths.config_file("b").write_text(XML.format(name="b", uuid=UUIDS[1], title="t"))
        writing = world.paths.config / f"{TEMPORARY_PREFIX}c{TEMPORARY_SUFFIX}"
        writing.touch()
        world.events.clear()
        await world.driver.reload()
        assert {dom.name for dom in world.driver.domains} == {"test", "a", "b"}
        assert world.events == [("b", DomainEventType.DEFINED, Defined.ADDED)]
        assert writing.exists()
        await world.driver.load_definitions()
        assert not writing.exists()

    run(tmp_path, work)


def test_a_reload_takes_in_what_was_edited(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define(title="before")
        path, revision = world.paths.config_file("a"), dom.revision
        world.events.clear()
        await world.driver.reload()
        assert dom.revision == revision, "nothing was edited"
        for broken in ("<domain>", world.text().replace(UUIDS[0], UUIDS[1]), world.text().replace(">a<", ">c<")):
            path.write_text(broken)
            await world.driver.reload()
            assert (dom.config.title, dom.config.uuid) == ("before", UUIDS[0])
        path.write_text(XML.format(name="a", uuid=UUIDS[0], title="after"))
        await world.driver.reload()
        assert dom.config.title == "after"
        await world.driver.reload()
        assert [one.name for one in world.driver.domains] == ["test", "a"]
        assert world.events == []

    run(tmp_path, work)


def test_a_reload_and_a_change_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "WAIT_S", 1)

    async def told() -> None:
        pass

    def edit(definition: DomainDef, *, live: bool) -> None:
        definition.description = "live" if live else "config"

    async def work(world: World) -> None:
        dom = await world.define(title="before")
        await world.part.domain_create(dom)
        gate = Gate(told)
        changing = asyncio.create_task(edits.change(world.driver, dom, LIVE, edit, gate))
        await gate.reached.wait()
        world.paths.config_file("a").write_text(XML.format(name="a", uuid=UUIDS[0], title="after"))
        reloading = asyncio.create_task(world.driver.reload())
        await asyncio.wait([reloading], timeout=0.1)  # as far as it gets
        gate.opened.set()
        await asyncio.gather(changing, reloading)
        assert dom.live is not None
        assert (dom.live.description, dom.config.title) == ("live", "after")

    run(tmp_path, work)


def test_a_reload_takes_in_the_file_of_a_domain_that_another_one_follows(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        old = await world.define(title="before")
        world.paths.config_file("a").write_text(XML.format(name="a", uuid=UUIDS[0], title="edited"))
        async with AsyncExitStack() as changing:
            async with old.jobs.hold(Job.MODIFY, "test"):
                reloading = asyncio.create_task(world.driver.reload())
                await asyncio.wait([reloading], timeout=0.1)  # until it waits for the job
                await world.part.domain_undefine(old)
                new = await world.define(title="again")
                await changing.enter_async_context(new.jobs.hold(Job.MODIFY, "test"))
                world.paths.config_file("a").write_text(XML.format(name="a", uuid=UUIDS[0], title="after"))
            await asyncio.wait([reloading], timeout=0.1)  # until it waits for the new one's
            assert new.config.title == "again"
        await reloading
        assert old is not new
        assert (old.config.title, new.config.title) == ("before", "after")

    run(tmp_path, work)


# --- autostart --------------------------------------------------------------------------------------------------------


def test_autostart_is_a_link_to_the_definition(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        link = world.paths.autostart_link("a")
        await world.part.domain_set_autostart(dom, 1)
        assert link.readlink() == world.paths.config_file("a")
        assert world.part.domain_get_autostart(dom) == 1
        await world.part.domain_set_autostart(dom, 0)
        assert not link.is_symlink()

    run(tmp_path, work)


# --- which definition -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("active", "persistent", "flags", "wanted"),
    [
        (False, True, 0, (False, True)),
        (True, True, 0, (True, False)),
        (True, True, CONFIG, (False, True)),
        (True, True, LIVE | CONFIG, (True, True)),
        (True, False, 0, (True, False)),
        (False, True, LIVE, None),
        (False, True, LIVE | CONFIG, None),
        (True, False, CONFIG, None),
    ],
)
def test_what_a_change_is_for(
    tmp_path: Path, flags: int, wanted: tuple[bool, bool] | None, *, active: bool, persistent: bool
) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        if active:
            await world.part.domain_create(dom)
        dom.persistent = persistent
        if wanted is None:
            with pytest.raises(OperationInvalid):
                targets(dom, flags)
        else:
            assert targets(dom, flags) == wanted

    run(tmp_path, work)


def test_a_read_is_about_one_definition(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        assert one_target(dom, 0) is dom.config
        await world.part.domain_create(dom)
        assert one_target(dom, 0) is dom.live
        assert one_target(dom, CONFIG) is dom.config
        with pytest.raises(BadCall, match="mutually exclusive"):
            one_target(dom, LIVE | CONFIG)

    run(tmp_path, work)


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_live_and_persistent_metadata_are_two(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom, part = await world.define(), world.part
        await part.domain_create(dom)
        await part.domain_set_metadata(dom, DESCRIPTION, "now", None, None, LIVE)
        await part.domain_set_metadata(dom, DESCRIPTION, "later", None, None, CONFIG)
        assert part.domain_get_metadata(dom, DESCRIPTION, None, 0) == "now"
        assert part.domain_get_metadata(dom, DESCRIPTION, None, CONFIG) == "later"
        assert "later" in world.text()
        await part.domain_set_metadata(dom, DESCRIPTION, "both", None, None, LIVE | CONFIG)
        for flag in (LIVE, CONFIG):
            assert part.domain_get_metadata(dom, DESCRIPTION, None, flag) == "both"

    run(tmp_path, work)


def test_a_change_that_is_refused_changes_neither(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom, part = await world.define(), world.part
        await part.domain_create(dom)
        with pytest.raises(VirtError):
            await part.domain_set_metadata(dom, ELEMENT, "<x", "k", "http://a", LIVE | CONFIG)
        assert dom.config.metadata is None
        assert dom.live is not None
        assert dom.live.metadata is None

    run(tmp_path, work)


@pytest.mark.usefixtures("full_disk")
def test_a_change_the_disk_refuses_is_in_no_status_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = []

    async def save_status(dom: TestDomain) -> None:
        assert dom.live is not None
        statuses.append(dom.live.title)

    async def work(world: World) -> None:
        dom = await world.define()
        await world.part.domain_create(dom)
        monkeypatch.setattr(world.driver, "save_status", save_status)
        with pytest.raises(SystemError_, match="No space left"):
            await world.part.domain_set_metadata(dom, TITLE, "new", None, None, LIVE | CONFIG)
        assert statuses == ["new", "t"]
        assert dom.live is not None
        assert dom.live.title == dom.config.title == "t"

    run(tmp_path, work)


@pytest.mark.usefixtures("full_disk")
def test_a_guest_that_ends_while_the_disk_refuses_stays_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        await world.part.domain_create(dom)
        save = world.driver.save_config

        async def slow(dom: TestDomain, config: DomainDef) -> None:
            dom.live = None
            await save(dom, config)

        monkeypatch.setattr(world.driver, "save_config", slow)
        with pytest.raises(SystemError_):
            await world.part.domain_set_metadata(dom, TITLE, "new", None, None, CONFIG)
        assert dom.live is None

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("kind", "text", "key", "uri", "words"),
    [
        (9, "x", None, None, "unknown metadata type '9'"),
        (TITLE, "a\nb", None, None, "metadata title can't contain newlines"),
        (TITLE, "a", None, "u", "uri in virDomainSetMetadata must be NULL"),
        (DESCRIPTION, "a", "k", None, "key in virDomainSetMetadata must be NULL"),
        (ELEMENT, "<a/>", "k", None, "uri in virDomainSetMetadata must not be NULL"),
        (ELEMENT, "<a/>", None, "u:v", "key in virDomainSetMetadata must not be NULL"),
        (ELEMENT, "<a/>", "1k", "u:v", "failed to validate prefix for a new XML namespace"),
        (ELEMENT, "<a/>", "xmlns", "u:v", "failed to validate prefix for a new XML namespace"),
        (ELEMENT, "<a xmlns:k='x:y'/>", "k", "u:v", "failed to create a new XML namespace"),
        (ELEMENT, "", "k", "u:v", "Document is empty"),
    ],
)
def test_metadata_that_is_refused(
    tmp_path: Path, kind: int, text: str, key: str | None, uri: str | None, words: str
) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        with pytest.raises(VirtError) as caught:
            await world.part.domain_set_metadata(dom, kind, text, key, uri, 0)
        assert words in caught.value.message

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("text", "stored", "got"),
    [
        ("<x/>", '<k:x xmlns:k="u:v"/>', "<x/>"),
        ("<x a='1'>t<y/></x>", '<k:x xmlns:k="u:v" a="1">t<k:y/></k:x>', '<x a="1">t<y/></x>'),
        ("<x>&amp;<o:y xmlns:o='o:o'/></x>", "<o:y xmlns:o=", '<x>&amp;<o:y xmlns:o="o:o"/></x>'),
    ],
)
def test_elements_get_and_lose_their_prefix(tmp_path: Path, text: str, stored: str, got: str) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        await world.part.domain_set_metadata(dom, ELEMENT, text, "k", "u:v", 0)
        assert stored in dom.config.format(0)
        assert world.part.domain_get_metadata(dom, ELEMENT, "u:v", 0) == got
        await world.part.domain_set_metadata(dom, ELEMENT, "<other/>", "k2", "other:uri", 0)
        await world.part.domain_set_metadata(dom, ELEMENT, None, None, "u:v", 0)
        assert stored not in dom.config.format(0)
        assert world.part.domain_get_metadata(dom, ELEMENT, "other:uri", 0) == "<other/>"

    run(tmp_path, work)


def test_an_element_in_another_namespace_stays_there(tmp_path: Path) -> None:
    """As in libvirtd: it is then found by its own."""

    async def work(world: World) -> None:
        dom = await world.define()
        await world.part.domain_set_metadata(dom, ELEMENT, "<a:x xmlns:a='a:a'><y/></a:x>", "k", "u:v", 0)
        with pytest.raises(VirtError, match="not present"):
            world.part.domain_get_metadata(dom, ELEMENT, "u:v", 0)

    run(tmp_path, work)


def test_nothing_is_done_to_a_domain_that_went_while_it_was_waited_for(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        async with dom.jobs.hold(Job.MODIFY, "test"):
            change = asyncio.create_task(world.part.domain_set_metadata(dom, TITLE, "x", None, None, 0))
            await asyncio.sleep(0.01)
            await world.part.domain_undefine(dom)
        with pytest.raises((OperationInvalid, OperationFailed)):
            await change
        assert world.files() == []

    run(tmp_path, work)


@pytest.mark.parametrize("active", [False, True])
def test_a_change_brings_no_definition_back_that_goes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, active: bool
) -> None:
    async def work(world: World) -> None:
        dom = await world.define()
        if active:
            await world.part.domain_create(dom)
        definitions = world.driver.definitions
        assert definitions is not None
        gate = Gate(definitions.remove)
        monkeypatch.setattr(definitions, "remove", gate)
        undefine = asyncio.create_task(world.part.domain_undefine(dom))
        await gate.reached.wait()
        change = asyncio.create_task(world.part.domain_set_metadata(dom, TITLE, "x", None, None, CONFIG))
        await asyncio.wait([change], timeout=0.05)  # as far as it gets
        gate.opened.set()
        await undefine
        with pytest.raises(OperationInvalid, match="transient domains do not have any persistent config"):
            await change
        assert world.files() == []
        assert dom.removed is not active
        assert not dom.persistent

    run(tmp_path, work)
