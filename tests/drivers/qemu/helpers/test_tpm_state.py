"""Where an emulated TPM keeps its state, and what is taken away with it."""

import os
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.helpers.tpm_state import MAGIC, StateDirectory, StateFile, remove_state, state_of
from pyvirtd.errors import ConfigUnsupported, OperationFailed, VirtError
from pyvirtd.model.chardev import TpmEmulator
from pyvirtd.paths import Paths
from pyvirtd.util.files import Owner

PATHS = Paths.system().qemu
STATES = ("tpm2-00.permall", "tpm2-00.volatilestate", "TMP2-00.permall", ".lock")


def place(source: str, version: str = "2.0") -> StateDirectory | StateFile:
    return state_of(TpmEmulator.parse(f"<backend type='emulator' version='{version}'>{source}</backend>"), PATHS, "u-u")


@pytest.mark.parametrize(
    ("source", "option", "argument"),
    [
        ("", f"dir={PATHS.swtpm}/u-u/tpm2,mode=0600", f"{PATHS.swtpm}/u-u/tpm2"),
        ("<source type='dir' path='/a/b'/>", "dir=/a/b,mode=0600", "/a/b"),
        ("<source type='file' path='/a/b'/>", "backend-uri=file:///a/b", "file:///a/b"),
    ],
)
def test_emulator_is_told_the_place(source: str, option: str, argument: str) -> None:
    assert (place(source).option, place(source).argument) == (option, argument)
    assert place("", "1.2").argument.endswith("/tpm1.2")


def test_path_that_the_emulator_would_cut_is_refused() -> None:
    with pytest.raises(ConfigUnsupported, match="'/a,b'"):
        place("<source type='file' path='/a,b'/>")


@pytest.mark.parametrize("words", ["debug='0'", "debug='x'"])
def test_debug_is_a_positive_number(words: str) -> None:
    with pytest.raises(VirtError, match="debug"):
        TpmEmulator.parse(f"<backend type='emulator' {words}/>")


def test_named_directory_loses_the_state_alone(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state", ours=False)
    state.make(None)
    assert state.path.stat().st_mode & 0o777 == 0o700
    assert state.is_new()
    for name in (*STATES, "notes", "tpm2-00.permall.old"):
        (state.path / name).touch()
    assert not state.is_new()
    state.discard()
    assert sorted(os.listdir(state.path)) == ["notes", "tpm2-00.permall.old"]
    for name in os.listdir(state.path):
        (state.path / name).unlink()
    state.discard()
    assert not state.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_directory_with_other_things_keeps_its_owner(tmp_path: Path) -> None:
    state, emulator = StateDirectory(tmp_path / "state", ours=False), Owner(12345, 12346)
    state.make(emulator)
    assert state.path.stat().st_uid == 12345
    other = StateDirectory(tmp_path / "other", ours=False)
    other.path.mkdir()
    (other.path / "notes").touch()
    other.make(emulator)
    assert other.path.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_file_behind_a_link_keeps_its_owner(tmp_path: Path) -> None:
    (tmp_path / "shadow").touch()
    (tmp_path / "state").symlink_to(tmp_path / "shadow")
    StateFile(tmp_path / "state").make(Owner(12345, 12346))
    assert (tmp_path / "shadow").stat().st_uid == 0


def test_file_is_new_until_it_holds_a_tpm_and_another_is_left_alone(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state")
    state.make(None)
    assert state.is_new()
    state.path.write_bytes(bytes(4096))
    assert state.is_new()
    state.path.write_bytes(MAGIC + bytes(64))
    assert not state.is_new()
    state.discard()
    assert not state.path.exists()
    state.path.write_text("something else")
    with pytest.raises(OperationFailed, match="does not hold the state of a TPM"):
        state.is_new()
    state.discard()
    assert state.path.read_text() == "something else"


def test_file_takes_over_a_tpm_and_keeps_its_place(tmp_path: Path) -> None:
    made, state = StateFile(tmp_path / "made"), StateFile(tmp_path / "state")
    made.path.write_bytes(MAGIC + b"the TPM")
    state.make(None)
    inode = state.path.stat().st_ino
    state.fill(made)
    assert state.path.read_bytes() == MAGIC + b"the TPM"
    assert state.path.stat().st_ino == inode


def test_state_that_is_gone_needs_no_removal(tmp_path: Path) -> None:
    for kind in ("file", "dir"):
        backend = TpmEmulator.parse(f"<backend type='emulator'><source type='{kind}' path='{tmp_path}/no'/></backend>")
        remove_state(backend, PATHS, "u-u")
