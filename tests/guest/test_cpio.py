import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guest.cpio import Archive


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What busybox, as a reader of its own, makes of an archive."""
    if not shutil.which("busybox"):
        pytest.skip("busybox is not installed")
    archive = Archive()
    archive.file("etc/deep/odd", b"12345")
    archive.file("bin/tool", b"#!/bin/sh\n", 0o755)
    archive.link("sbin", "bin")
    archive.file("etc/deep/odd", b"again")
    subprocess.run(["busybox", "cpio", "-id"], cwd=tmp_path, input=archive.to_bytes(), check=True, capture_output=True)
    return tmp_path


def test_parents_of_a_file_come_with_it(unpacked: Path) -> None:
    assert (unpacked / "etc/deep").is_dir()


def test_first_of_two_files_of_one_name_stays(unpacked: Path) -> None:
    assert (unpacked / "etc/deep/odd").read_bytes() == b"12345"


def test_mode_is_kept(unpacked: Path) -> None:
    assert (unpacked / "bin/tool").stat().st_mode & 0o777 == 0o755


def test_link_points_to_its_target(unpacked: Path) -> None:
    assert (unpacked / "sbin").readlink() == Path("bin")


def test_equal_input_gives_equal_bytes() -> None:
    def made() -> bytes:
        archive = Archive()
        archive.file("a", b"x")
        return archive.to_bytes()

    assert made() == made()
