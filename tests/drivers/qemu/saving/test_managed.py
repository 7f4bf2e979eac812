"""What is known of managed images, and that the file system is never asked on the event loop."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyvirtd.api.types import Consent
from pyvirtd.constants.domain import DomainUndefineFlagsValues as Undefine
from pyvirtd.drivers.qemu import leftovers
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.saving import managed, restore
from pyvirtd.drivers.qemu.saving.image import Format, Image
from pyvirtd.errors import OperationInvalid
from pyvirtd.paths import Paths, QemuPaths
from tests.drivers.qemu.definitions import completed, document
from tests.drivers.qemu.stats_support import off
from tests.support.blocking import calls_on_the_loop


@pytest.fixture
def paths(tmp_path: Path) -> QemuPaths:
    made = Paths.system(tmp_path).qemu
    made.save.mkdir(parents=True)
    return made


@pytest.fixture
def driver(paths: QemuPaths, tmp_path: Path) -> Any:
    return SimpleNamespace(
        host=SimpleNamespace(paths=SimpleNamespace(qemu=paths, image_edits=tmp_path / "edits")),
        images=managed.Images(paths),
    )


@pytest.fixture
def on_loop(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What asked the file system on the main thread, of the calls that may wait for it."""
    files = [(Path, "exists"), (Path, "is_dir"), (Path, "unlink")]
    return calls_on_the_loop(monkeypatch, *files, (restore, "claim"), (restore.os, "close"))


def test_lists_know_the_images_that_were_there_and_those_that_came(paths: QemuPaths, driver: Any) -> None:
    dom = off()
    paths.save_file(dom.name).touch()
    (paths.save / "other.txt").touch()

    async def main() -> None:
        images = driver.images
        assert dom.name not in images
        await images.read()
        assert dom.name in images
        assert "other" not in images
        await managed.remove_image(driver, dom)
        assert dom.name not in images
        paths.save_file(dom.name).touch()
        assert await managed.has_image(driver, dom)
        assert dom.name in images
        paths.save_file(dom.name).unlink()
        assert not await managed.has_image(driver, dom)
        assert dom.name not in images

    asyncio.run(main())


def test_looking_for_an_image_does_not_hold_up_the_loop(paths: QemuPaths, driver: Any, on_loop: list[str]) -> None:
    asyncio.run(managed.has_image(driver, off()))
    assert on_loop == []


def test_looking_for_firmware_variables_does_not_hold_up_the_loop(
    driver: Any, on_loop: list[str], tmp_path: Path
) -> None:
    variables = tmp_path / "vars"
    variables.write_text("")
    text = document(os=f"<loader readonly='yes' type='pflash'>/c</loader><nvram>{variables}</nvram>")
    dom = QemuDomain(completed(text), persistent=True)
    with pytest.raises(OperationInvalid, match="cannot undefine domain with nvram"):
        asyncio.run(leftovers.check_undefine(driver, dom, 0))
    asyncio.run(leftovers.check_undefine(driver, dom, Undefine.KEEP_NVRAM))
    assert on_loop == []


def test_opening_an_image_does_not_hold_up_the_loop(driver: Any, on_loop: list[str], tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(Image.new("<domain/>", running=True, format=Format.RAW, cookie="<cookie/>").prologue())
    with path.open("r+b") as file:
        Image.new("<domain/>", running=True, format=Format.RAW, cookie="<cookie/>").finish(file.fileno())
    closed: list[int] = []

    async def main() -> None:
        async with restore.opened(driver, path, Consent(), keep=True) as (fd, _):
            closed.append(fd)
            assert os.fstat(fd).st_size

    asyncio.run(main())
    assert on_loop == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(closed[0])
