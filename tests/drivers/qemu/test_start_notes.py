"""What a start has done to files when the daemon is killed: the next one undoes that, and nothing else."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvirtd.core.ownership import Label
from pyvirtd.drivers.qemu.start_notes import StartNote, undo_left
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import Paths, QemuPaths
from tests.drivers.qemu.definitions import document
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

HOOK = """#!/bin/sh
if test "$2" = start -a -e /run/libvirt/slow ; then touch /run/libvirt/there; sleep 5; fi
"""
IMAGES = "/var/lib/libvirt/images"
DISKS = (
    f"<disk type='file'><driver type='raw'/><source file='{IMAGES}/base.img'/><target dev='vda'/><transient/></disk>"
    f"<disk type='file'><driver type='raw'/><source file='{IMAGES}/own.img'/><target dev='vdb'/></disk>"
)


@pytest.fixture
def paths(tmp_path: Path) -> QemuPaths:
    paths = Paths.system(tmp_path).qemu
    paths.run.mkdir(parents=True)
    return paths


def live(*images: Path) -> DomainDef:
    disk = "<disk type='file'><source file='{}'/><target dev='vd{}'/><transient/></disk>"
    return DomainDef.parse(document("".join(disk.format(image, "ab"[at]) for at, image in enumerate(images))))


def test_overlays_that_were_there_before_are_nobodys_to_remove(tmp_path: Path, paths: QemuPaths) -> None:
    definition = live(tmp_path / "one", tmp_path / "two")
    made, other = (tmp_path / f"{name}.TRANSIENT-{definition.name}" for name in ("one", "two"))
    other.touch()
    asyncio.run(StartNote(paths, "1-a").begin(definition))
    made.touch()
    asyncio.run(undo_left(paths, "1-a"))
    assert (made.exists(), other.exists()) == (False, True)
    assert not list(paths.run.iterdir())
    asyncio.run(undo_left(paths, "1-a"))  # nothing is left to do


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_only_files_that_were_given_away_come_back(tmp_path: Path, paths: QemuPaths) -> None:
    note = StartNote(paths, "1-a")
    asyncio.run(note.begin(live()))
    files = [tmp_path / name for name in ("given", "not")]
    for path in files:
        path.touch()
        os.chown(path, 7, 8)  # of the same user, as another guest's are
    note.given(Label(str(files[0]), "+7:+8", remember=False))
    with paths.start_note("1-a").open("a") as file:
        file.write('{"label": {"pa')  # killed while it noted more
    asyncio.run(undo_left(paths, "1-a"))
    assert [path.stat().st_uid for path in files] == [0, 7]


def test_a_start_that_is_being_undone_has_no_file_left_to_give_back(tmp_path: Path, paths: QemuPaths) -> None:
    note = StartNote(paths, "1-a")
    asyncio.run(note.begin(live(tmp_path / "one")))
    note.given(Label("/given", "+7:+8"))
    asyncio.run(note.forget_files())
    assert "/given" not in paths.start_note("1-a").read_text()
    assert "one.TRANSIENT" in paths.start_note("1-a").read_text()
    asyncio.run(note.end())
    assert not list(paths.run.iterdir())


@pytest.fixture(scope="module")
def slow() -> Iterator[SystemHost]:
    """A daemon whose starts can be held up when QEMU has all that it needs."""
    if reason := SystemHost.missing():
        pytest.skip(reason)
    with SystemHost() as made:
        made.write("/etc/libvirt/hooks/qemu", HOOK).chmod(0o755)
        yield made.start()


@pytest.mark.guest
def test_killed_daemon_leaves_neither_overlay_nor_owner(slow: SystemHost) -> None:
    images = [slow.write(f"{IMAGES}/{name}.img", b"b" * 512) for name in ("base", "own")]
    overlay = slow.path(f"{IMAGES}/base.img.TRANSIENT-brief")
    mark, there = slow.write("/run/libvirt/slow", ""), slow.path("/run/libvirt/there")
    slow.define(bare_domain("brief", devices=DISKS))
    client = slow.popen(["virsh", "-q", "-c", slow.uri, "start", "brief"])
    deadline = time.monotonic() + 20
    while not there.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert overlay.exists()
    assert images[1].stat().st_uid != 0
    slow.kill()
    client.communicate(timeout=10)
    mark.unlink()
    slow.start()
    assert not overlay.exists()
    assert images[1].stat().st_uid == 0
    assert not [name for name in os.listxattr(images[1]) if "dac" in name]
    slow.ok("start brief --paused")
    assert not list(slow.path("/run/libvirt/qemu").glob("*.start"))
    slow.ok("destroy brief")
    assert images[1].stat().st_uid == 0
