"""Paths through directories in which a guest's user may write."""

import os
from pathlib import Path

import pytest

from pyvirtd.util.walk import open_path


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic link"):
        open_path(str(tmp_path / "a"), 64055)


def test_a_path_with_dots_leads_where_the_kernel_would_go(tmp_path: Path) -> None:
    (tmp_path / "disk.img").touch()
    fd = open_path(f"{tmp_path}/./../{tmp_path.name}//disk.img", 64055)
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "disk.img"))
    os.close(fd)
