"""Files lent to a guest's user and given back, on a real file system, as root."""

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest

from pyvirtd.constants.error import ErrorDomain, ErrorNumber
from pyvirtd.core import ownership
from pyvirtd.core.ownership import BOOT, FORMER_OWNER, USERS, Label, boot_time, parse_label
from pyvirtd.core.security import apply_labels, restore_labels
from pyvirtd.errors import InvalidArg, OperationInvalid, VirtError

GUEST, OTHER, ALICE = (64055, 64055), (64056, 64056), (1234, 4321)
LABEL = "+64055:+64055"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory on a file system that keeps notes, reachable for everybody."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, USERS, b"1")
    except OSError:
        pytest.skip("this file system keeps no trusted attributes")
    return tmp_path


def file_of(folder: Path, name: str = "disk.img", owner: tuple[int, int] = ALICE) -> str:
    path = folder / name
    path.touch()
    os.chown(path, *owner)
    return str(path)


def owner_of(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_uid, status.st_gid


def notes_of(path: str) -> dict[str, str]:
    names = [name for name in os.listxattr(path) if name.startswith("trusted.libvirt")]
    return {name: os.getxattr(path, name).decode() for name in names}


def test_a_file_is_lent_with_libvirts_notes(folder: Path) -> None:
    path = file_of(folder)

    ownership.apply([Label(path, LABEL)])

    assert owner_of(path) == GUEST
    assert notes_of(path) == {FORMER_OWNER: "+1234:+4321", USERS: "1", BOOT: str(boot_time())}


def test_a_file_is_given_back_without_a_trace(folder: Path) -> None:
    path = file_of(folder)
    label = Label(path, LABEL)

    ownership.apply([label])
    ownership.restore([label])

    assert owner_of(path) == ALICE
    assert notes_of(path) == {}


def test_the_loop_is_served_by_threads(folder: Path) -> None:
    path = file_of(folder)

    async def work() -> None:
        await apply_labels([Label(path, LABEL)])
        assert owner_of(path) == GUEST
        await restore_labels([Label(path, LABEL)])

    asyncio.run(work())
    assert owner_of(path) == ALICE


def test_a_file_of_two_guests_is_given_back_after_the_second(folder: Path) -> None:
    path = file_of(folder)
    label = Label(path, LABEL)

    ownership.apply([label])
    ownership.apply([label])
    assert notes_of(path)[USERS] == "2"
    ownership.restore([label])
    assert owner_of(path) == GUEST
    ownership.restore([label])

    assert owner_of(path) == ALICE


def test_a_file_in_use_is_not_given_to_another_user(folder: Path) -> None:
    path = file_of(folder)
    ownership.apply([Label(path, LABEL)])

    with pytest.raises(OperationInvalid) as info:
        ownership.apply([Label(path, "+64056:+64056")])

    words = f"Setting different DAC user or group on {path} which is already in use"
    assert info.value.message == f"Requested operation is not valid: {words}"
    assert info.value.domain == ErrorDomain.SECURITY
    assert owner_of(path) == GUEST
    assert notes_of(path)[USERS] == "1"


def test_a_file_that_is_not_given_back_keeps_no_notes(folder: Path) -> None:
    path = file_of(folder)
    label = Label(path, LABEL, remember=False, restore=False)

    ownership.apply([label])
    ownership.restore([label])

    assert owner_of(path) == GUEST
    assert notes_of(path) == {}


def test_without_a_memory_the_file_is_roots(folder: Path) -> None:
    path = file_of(folder)
    label = Label(path, LABEL, remember=False)

    ownership.apply([label])
    ownership.restore([label])

    assert owner_of(path) == (0, 0)


def test_a_file_that_somebody_took_meanwhile_stays_theirs(folder: Path) -> None:
    path = file_of(folder)
    label = Label(path, LABEL, remember=False)
    ownership.apply([label])
    os.chown(path, *OTHER)

    ownership.restore([label])

    assert owner_of(path) == OTHER


@pytest.mark.parametrize("boot", ["1695404007", "junk", ""])
def test_notes_from_before_the_boot_count_for_nothing(
    folder: Path, boot: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = file_of(folder)
    os.setxattr(path, FORMER_OWNER, b"+55:+55")
    os.setxattr(path, USERS, b"3")
    if boot:
        os.setxattr(path, BOOT, boot.encode())
    label = Label(path, LABEL)

    with caplog.at_level(logging.WARNING):
        ownership.apply([label])

    assert notes_of(path)[FORMER_OWNER] == "+1234:+4321"
    assert notes_of(path)[USERS] == "1"
    assert len(caplog.messages) == 1
    ownership.restore([label])
    assert owner_of(path) == ALICE


def test_a_boot_time_that_is_off_by_a_rounding_is_the_same_boot(folder: Path) -> None:
    path = file_of(folder)
    label = Label(path, LABEL)
    ownership.apply([label])
    os.setxattr(path, BOOT, str(boot_time() - 1).encode())

    ownership.restore([label])

    assert owner_of(path) == ALICE


def test_an_error_undoes_what_was_done(folder: Path) -> None:
    first, last = file_of(folder, "a"), str(folder / "missing")

    with pytest.raises(VirtError) as info:
        ownership.apply([Label(first, LABEL), Label(last, LABEL, storage=True)])

    assert info.value.message == f"Cannot access storage file '{last}': No such file or directory"
    assert (info.value.code, info.value.int1) == (ErrorNumber.SYSTEM_ERROR, 2)
    assert owner_of(first) == ALICE
    assert notes_of(first) == {}


def test_a_missing_file_that_is_no_image_is_named_too(folder: Path) -> None:
    with pytest.raises(VirtError, match=f"unable to stat: {folder}/kernel: No such"):
        ownership.apply([Label(str(folder / "kernel"), LABEL)])


def test_an_optional_file_may_be_missing(folder: Path) -> None:
    label = Label(str(folder / "missing"), LABEL, optional=True)

    ownership.apply([label])
    ownership.restore([label])

    assert not (folder / "missing").exists()


def test_a_file_can_be_made_for_the_guest(folder: Path) -> None:
    path = folder / "serial.log"
    label = Label(str(path), LABEL, create=True)

    ownership.apply([label])
    assert owner_of(path) == GUEST
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ownership.restore([label])

    assert owner_of(path) == (0, 0)


def test_sockets_pipes_and_links_of_the_administrator_are_labelled(folder: Path) -> None:
    real = file_of(folder, "real.img")
    (folder / "images").symlink_to(folder)
    (folder / "link.img").symlink_to("images/real.img")
    os.mkfifo(folder / "pipe")
    labels = [Label(str(folder / "link.img"), LABEL), Label(str(folder / "pipe"), LABEL)]

    ownership.apply(labels)
    assert owner_of(real) == owner_of(folder / "pipe") == GUEST
    assert os.lstat(folder / "link.img").st_uid == 0
    ownership.restore(labels)

    assert owner_of(real) == ALICE


def test_a_link_that_the_guests_user_made_is_not_followed(folder: Path) -> None:
    """Else a guest that got out of QEMU could have any file of the host given to it at its next start."""
    secret = file_of(folder, "shadow", (0, 0))
    own = folder / "own"
    own.mkdir()
    link = own / "disk.img"
    link.symlink_to(secret)
    os.lchown(link, *GUEST)

    with pytest.raises(VirtError, match="Cannot access storage file"):
        ownership.apply([Label(str(link), LABEL, storage=True)])
    ownership.restore([Label(str(link), LABEL, remember=False)])

    assert owner_of(secret) == (0, 0)


def test_a_directory_that_the_guests_user_replaced_by_a_link_is_not_entered(folder: Path) -> None:
    (folder / "etc").mkdir()
    secret = file_of(folder / "etc", "disk.img", (0, 0))
    (folder / "own").symlink_to(folder / "etc")
    os.lchown(folder / "own", *GUEST)

    with pytest.raises(VirtError):
        ownership.apply([Label(f"{folder}/own/disk.img", LABEL)])

    assert owner_of(secret) == (0, 0)


def test_a_file_system_that_refuses_is_none_of_our_business(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU may have access all the same: a network file system that maps root to nobody."""
    path = file_of(folder)

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    monkeypatch.setattr(os, "setxattr", refuse)

    ownership.apply([Label(path, LABEL)])

    assert owner_of(path) == ALICE


def test_a_label_that_names_nobody_changes_nothing(folder: Path) -> None:
    path = file_of(folder)

    with pytest.raises(InvalidArg, match="Failed to parse uid and gid from 'foo'"):
        ownership.apply([Label(path, LABEL), Label(path, "foo")])

    assert owner_of(path) == ALICE


def test_labels_are_names_or_numbers() -> None:
    assert parse_label("root:+5") == (0, 5)
    for text in ("", ":", "+1", "+1:", ":+1", "+-1:+1"):
        with pytest.raises(InvalidArg):
            parse_label(text)


def test_descriptors_are_all_closed(folder: Path) -> None:
    path = file_of(folder)
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        ownership.apply([Label(path, LABEL)])
        ownership.restore([Label(path, LABEL), Label(str(folder / "gone"), LABEL)])

    assert len(os.listdir("/proc/self/fd")) == before
