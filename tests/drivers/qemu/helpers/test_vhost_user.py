"""Descriptors of programs that serve vhost-user devices."""

import json
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.helpers.vhost_user import find_vhost_user
from pyvirtd.errors import OperationFailed


def describe(path: Path, kind: str, binary: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"description": "x", "type": kind, "binary": binary}))


def test_first_program_that_can_be_run_is_taken(tmp_path: Path) -> None:
    shipped, own = tmp_path / "share", tmp_path / "etc"
    describe(shipped / "20-a.json", "fs", "/bin/sh")
    describe(shipped / "10-missing.json", "fs", "/nowhere/virtiofsd")
    describe(shipped / "05-gpu.json", "gpu", "/bin/true")
    assert find_vhost_user("fs", "virtiofsd", (shipped, own)) == "/bin/sh"
    describe(own / "20-a.json", "fs", "/bin/cat")
    assert find_vhost_user("fs", "virtiofsd", (shipped, own)) == "/bin/cat"


@pytest.mark.parametrize("text", ["", "{", '{"type": "fs"}', "[]", '{"type": "gpu", "binary": "/bin/sh"}'])
def test_what_describes_nothing_of_use_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(OperationFailed, match="Unable to find a satisfying virtiofsd"):
        find_vhost_user("fs", "virtiofsd", (tmp_path, tmp_path / "absent"))
