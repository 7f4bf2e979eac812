import asyncio
import os
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
        edit.rewrite(notes, path, file.fileno(), OLD, NEW)


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


@pytest.mark.parametrize("what", ["another file", "gone"])
def test_a_note_counts_for_its_file_only(notes: Path, image: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    tear(monkeypatch, at=1000, error=PowerCut())
    with pytest.raises(PowerCut):
        rewrite(notes, image)
    image.rename(image.with_name("moved"))
    if what == "another file":
        image.write_bytes(b"mine")
    asyncio.run(edit.finish_edits(notes))
    assert not image.exists() if what == "gone" else image.read_bytes() == b"mine"
    assert not list(notes.iterdir())


def test_what_is_no_note_is_left_alone(notes: Path) -> None:
    (notes / "readme").write_text("{}\nwords")
    asyncio.run(edit.finish_edits(notes))
    assert [path.name for path in notes.iterdir()] == ["readme"]
