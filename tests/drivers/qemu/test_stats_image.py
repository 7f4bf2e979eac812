"""Sizes of images at rest, made by qemu-img where a format needs it."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.stats_image import Image, ImageSize, measure, measure_all, measure_one, peek
from pyvirtd.errors import SystemError_
from pyvirtd.model.storage import StorageFormat

MIB = 1 << 20
QEMU_IMG = shutil.which("qemu-img")


def raw(path: Path, size: int) -> str:
    path.write_bytes(b"x" * 4096)
    os.truncate(path, size)
    return str(path)


def test_a_raw_image_is_as_long_as_its_file(tmp_path: Path) -> None:
    size = measure(raw(tmp_path / "a", MIB), StorageFormat.RAW)
    assert (size.capacity, size.physical) == (MIB, MIB)
    assert 4096 <= size.allocation < MIB


@pytest.mark.skipif(QEMU_IMG is None, reason="qemu-img is not installed")
@pytest.mark.parametrize("word", ["qcow2", "qcow", "qed", "vmdk", "vdi", "vpc"])
def test_the_capacity_of_a_format_is_in_its_header(tmp_path: Path, word: str) -> None:
    path = tmp_path / "image"
    assert QEMU_IMG is not None
    # VHD rounds sizes to a disk geometry; this one is such a size
    options = ["-o", "force_size"] if word == "vpc" else []
    subprocess.run([QEMU_IMG, "create", "-q", "-f", word, *options, str(path), "64M"], check=True)
    size = measure(str(path), StorageFormat(word))
    assert size.capacity == 64 * MIB
    assert size.physical == path.stat().st_size


def test_data_that_is_not_of_the_stated_format_counts_as_raw(tmp_path: Path) -> None:
    assert measure(raw(tmp_path / "a", MIB), StorageFormat.QCOW2).capacity == MIB


def test_a_header_never_decides_what_a_raw_image_is(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(16) + (1 << 40).to_bytes(8, "big") + bytes(512))
    assert measure(str(path), StorageFormat.RAW).capacity == path.stat().st_size


def test_what_is_no_storage_has_no_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert measure(str(tmp_path / "fifo"), StorageFormat.RAW) == ImageSize(0, 0, 0)
    assert measure("/dev/null", StorageFormat.QCOW2) == ImageSize(0, 0, 0)


def test_of_many_images_those_that_are_missing_have_no_size(tmp_path: Path) -> None:
    images = [Image(str(tmp_path / "none"), None), Image(raw(tmp_path / "a", MIB), None)]
    sizes = asyncio.run(measure_all(images, 10))
    assert sizes[0] is None
    assert sizes[1] is not None
    assert sizes[1].physical == MIB


def test_a_missing_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    with pytest.raises(SystemError_) as caught:
        asyncio.run(measure_one(Image(path, None), 10, From.QEMU))
    assert caught.value.message == f"Failed to open file '{path}': No such file or directory"
    assert caught.value.domain is From.QEMU


def test_peeking_reads_what_is_there_up_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert asyncio.run(peek(str(path), 8, 16, 10)) == b"89"
