import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.saving import edit
from pyvirtd.drivers.qemu.saving.image import Format, Image, read_image
from pyvirtd.errors import SystemError_

STATE = b"the guest's state"
OLD = replace(Image.new("<domain>old</domain>", running=True, format=Format.RAW, cookie="<cookie/>"), complete=True)
NEW = OLD.edited("<domain>" + "new" * 9999 + "</domain>", running=False)


class PowerCut(BaseException):
    """Nothing of the daemon runs any more, not even its clean-up."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "guest.save"
    path.write_bytes(OLD.prologue() + STATE)
    return path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def found(path: Path) -> Image:
    with path.open("rb", buffering=0) as file:
        image = read_image(file.fileno())
        assert file.read() == STATE
    return image


def rewrite(notes: Path, path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        edit.rewrite(notes, path, file.fileno(), NEW)


def tear(monkeypatch: pytest.MonkeyPatch, *, at: int, error: BaseException, times: int = 1) -> None:
    """Let the next writes to the image stop after `at` bytes."""
    whole, left = os.pwrite, [times]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if not left[0]:
            return whole(fd, data, offset)
        left[0] -= 1
        whole(fd, data[:at], offset)
        raise error

    monkeypatch.setattr(os, "pwrite", pwrite)


def test_an_edit_leaves_the_state_and_no_note(notes: Path, image: Path) -> None:
    rewrite(notes, image)
    assert found(image) == replace(NEW, complete=True)
    assert not list(notes.iterdir())


@pytest.mark.parametrize("at", [0, 16, 92, 1000, 30_000])
@pytest.mark.parametrize("everything", [False, True], ids=["when-opened", "at-the-start"])
def test_an_edit_that_was_cut_short_is_carried_out(
    notes: Path, image: Path, monkeypatch: pytest.MonkeyPatch, at: int, everything: bool
) -> None:
    tear(monkeypatch, at=at, error=PowerCut())
    with pytest.raises(PowerCut):
        rewrite(notes, image)
    if everything:
        asyncio.run(edit.finish_edits(notes))
    else:
        edit.finish_edit(notes, image)
    assert found(image) == replace(NEW, complete=True)
    assert not list(notes.iterdir())


def test_an_edit_that_fails_is_taken_back(notes: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tear(monkeypatch, at=1000, error=OSError(5, "Input/output error"))
    with pytest.raises(SystemError_, match=f"failed to write xml to '{image}': Input/output error"):
        rewrite(notes, image)
    assert found(image) == replace(OLD, complete=True)
    assert not list(notes.iterdir())


def test_an_edit_that_cannot_be_taken_back_is_carried_out_later(
    notes: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tear(monkeypatch, at=1000, error=OSError(5, "Input/output error"), times=2)
    with pytest.raises(SystemError_):
        rewrite(notes, image)
    edit.finish_edit(notes, image)
    assert found(image) == replace(NEW, complete=True)


@pytest.fixture
def cut_short(notes: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image whose edit ended in the middle."""
    with monkeypatch.context() as patch:
        tear(patch, at=1000, error=PowerCut())
        with pytest.raises(PowerCut):
            rewrite(notes, image)
    return image


def other_of_its_size(image: Path) -> None:
    with image.open("r+b") as file:  # the same inode as well
        file.write(b"mine".ljust(image.stat().st_size, b"."))


def fifo(image: Path) -> None:
    image.unlink()
    os.mkfifo(image)


@pytest.mark.parametrize(
    "put", [other_of_its_size, lambda image: image.write_bytes(b"mine"), fifo], ids=["same-size", "short", "fifo"]
)
def test_a_note_counts_for_its_file_only(notes: Path, cut_short: Path, put: Callable[[Path], None]) -> None:
    put(cut_short)
    before = cut_short.read_bytes() if cut_short.is_file() else b""
    asyncio.run(edit.finish_edits(notes))
    assert not cut_short.is_file() or cut_short.read_bytes() == before
    assert not list(notes.iterdir())


def test_an_image_elsewhere_on_the_disk_by_now_is_the_same(notes: Path, cut_short: Path) -> None:
    """Numbers of inodes and devices change: a device's node is made anew at each boot, a file is copied back."""
    copy = cut_short.with_name("copy")
    copy.write_bytes(cut_short.read_bytes())
    copy.rename(cut_short)
    asyncio.run(edit.finish_edits(notes))
    assert found(cut_short) == replace(NEW, complete=True)


def test_an_image_that_is_away_is_mended_when_it_is_back(notes: Path, cut_short: Path) -> None:
    cut_short.rename(cut_short.with_name("unmounted"))
    asyncio.run(edit.finish_edits(notes))
    edit.finish_edit(notes, cut_short)
    assert not cut_short.exists()
    cut_short.with_name("unmounted").rename(cut_short)
    edit.finish_edit(notes, cut_short)
    assert found(cut_short) == replace(NEW, complete=True)
    assert not list(notes.iterdir())


def test_an_image_that_is_away_for_long_is_not_waited_for(
    notes: Path, cut_short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short.unlink()
    monkeypatch.setattr(edit, "MISSED_S", -1)
    asyncio.run(edit.finish_edits(notes))
    assert not list(notes.iterdir())


def test_an_edit_whose_note_stays_is_done(notes: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(edit, "unlink_file", refuse)
        rewrite(notes, image)
    edit.finish_edit(notes, image)
    assert found(image) == replace(NEW, complete=True)
    assert not list(notes.iterdir())


def test_what_is_no_note_is_left_alone(notes: Path) -> None:
    (notes / "readme").write_text("{}\nwords")
    asyncio.run(edit.finish_edits(notes))
    assert [path.name for path in notes.iterdir()] == ["readme"]
