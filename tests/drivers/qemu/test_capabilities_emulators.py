"""Which binaries may be run, and which serves an architecture."""

from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.capabilities import emulators
from pyvirtd.drivers.qemu.capabilities.descriptors import directories_key
from pyvirtd.errors import InvalidArg, SystemError_


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where emulators are looked for."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setattr(emulators, "DIRECTORIES", (place,))
    monkeypatch.setattr(emulators, "host_arch", lambda: "x86_64")
    return place


def install(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_text("")
        (directory / name).chmod(0o755)


def test_emulator_in_its_place_may_be_run(directory: Path) -> None:
    install(directory, "qemu-system-x86_64", "qemu-kvm")
    for name in ("qemu-system-x86_64", "qemu-kvm"):
        assert emulators.allowed(str(directory / name)) == str(directory / name)


def test_other_programs_and_places_may_not(directory: Path, tmp_path: Path) -> None:
    install(directory, "ls", "qemu-img")
    install(tmp_path, "qemu-system-x86_64")
    for path in (directory / "ls", directory / "qemu-img", tmp_path / "qemu-system-x86_64"):
        with pytest.raises(InvalidArg, match="is not a QEMU emulator that this host offers"):
            emulators.allowed(str(path))


@pytest.mark.parametrize(
    "detour", ["{}/../bin/qemu-system-x86_64", "{}//qemu-system-x86_64x/../../ls", "qemu-system-x86_64"]
)
def test_detours_may_not(directory: Path, detour: str) -> None:
    install(directory, "qemu-system-x86_64", "ls")
    with pytest.raises((InvalidArg, SystemError_)):
        emulators.allowed(detour.format(directory))


def test_emulator_that_others_can_write_may_not(directory: Path) -> None:
    install(directory, "qemu-system-x86_64")
    (directory / "qemu-system-x86_64").chmod(0o777)
    with pytest.raises(InvalidArg):
        emulators.allowed(str(directory / "qemu-system-x86_64"))


def test_path_that_a_definition_uses_may(directory: Path) -> None:
    assert emulators.allowed("/opt/mine/qemu", {"/opt/mine/qemu"}) == "/opt/mine/qemu"


@pytest.mark.parametrize("path", ["/nonexistent/qemu-system-x", "qemu-system-x", "", "/usr/bin/qemu\0-x"])
def test_path_that_is_not_there_is_said_so(directory: Path, path: str) -> None:
    with pytest.raises(SystemError_) as caught:
        emulators.allowed(path)
    assert caught.value.message == f"Cannot check QEMU binary {path}: No such file or directory"


def test_architectures_are_served_by_their_own_emulator_first(directory: Path) -> None:
    install(directory, "qemu-system-x86_64", "qemu-system-arm")
    found = {arch: Path(path).name for arch, path in emulators.installed().items()}
    assert found == {
        "armv6l": "qemu-system-arm",
        "armv7l": "qemu-system-arm",
        "i686": "qemu-system-x86_64",
        "x86_64": "qemu-system-x86_64",
    }
    install(directory, "qemu-system-i386")
    assert emulators.default_emulator("i686") == str(directory / "qemu-system-i386")


def test_native_guests_fall_back_to_qemu_kvm(directory: Path) -> None:
    install(directory, "qemu-kvm")
    assert emulators.default_emulator("x86_64") == str(directory / "qemu-kvm")
    assert emulators.default_emulator("aarch64") is None


def test_file_that_cannot_be_run_is_no_emulator(directory: Path) -> None:
    (directory / "qemu-system-x86_64").write_text("")
    assert emulators.default_emulator("x86_64") is None


def test_new_program_changes_the_key(directory: Path) -> None:
    before = directories_key([directory])
    install(directory, "qemu-system-x86_64")
    assert directories_key([directory]) != before


@pytest.mark.parametrize(
    ("emulator", "arch", "family", "runs"),
    [
        ("x86_64", "i686", True, True),
        ("i686", "x86_64", True, False),
        ("aarch64", "armv7l", True, True),
        ("aarch64", "x86_64", False, False),
        ("s390x", "s390x", True, True),
    ],
)
def test_what_an_emulator_runs(emulator: str, arch: str, family: bool, runs: bool) -> None:
    assert emulators.same_family(emulator, arch) == family
    assert emulators.serves(emulator, arch) == runs
