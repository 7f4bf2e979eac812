"""What a user installs holds the drivers: proved on a source archive and on the wheel built from that archive."""

import configparser
import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.host import ROOT

DEBIAN_NAMES = {"systemd-python": "systemd"}
DRIVER_FILES = sorted(
    str(path.relative_to(ROOT / "drivers")) for path in (ROOT / "drivers").rglob("*.py") if path.is_file()
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that is built from it, made in a copy of the checkout."""
    pytest.importorskip("build", reason="the package build is not installed")
    pytest.importorskip("wheel", reason="the package wheel is not installed")
    copy, output = tmp_path_factory.mktemp("checkout") / "pyvirtd", tmp_path_factory.mktemp("built")
    leave_out = shutil.ignore_patterns(".*cache*", ".git", ".venv", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=leave_out)
    # Without isolation nothing is fetched: Debian's setuptools and wheel build it.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(copy)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> list[str]:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def sdist_names(built: Path) -> list[str]:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        return [member.name.partition("/")[2] for member in archive if member.isfile()]


def test_checkout_holds_the_drivers_below_the_package() -> None:
    assert (ROOT / "pyvirtd" / "drivers").resolve() == ROOT / "drivers", "this checkout lost its symbolic link"


def test_wheel_holds_every_driver_file(wheel_names: list[str]) -> None:
    assert [name for name in DRIVER_FILES if f"pyvirtd/drivers/{name}" not in wheel_names] == []


def test_sdist_holds_every_driver_file(sdist_names: list[str]) -> None:
    assert [name for name in DRIVER_FILES if f"pyvirtd/drivers/{name}" not in sdist_names] == []


def test_wheel_holds_every_module(wheel_names: list[str]) -> None:
    modules = [str(path.relative_to(ROOT)) for path in (ROOT / "pyvirtd").rglob("*.py")]
    assert [name for name in modules if name not in wheel_names] == []


def test_wheel_adds_one_package_only(wheel_names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel_names if ".dist-info/" not in name}
    assert tops == {"pyvirtd"}


@pytest.mark.parametrize("name", ["LICENSE", "NEWS.md", "dev", "docs/performance.md", "tests/guest/init.sh"])
def test_sdist_holds_what_a_developer_needs(sdist_names: list[str], name: str) -> None:
    assert name in sdist_names


def installed_entry_points() -> list[importlib.metadata.EntryPoint]:
    entries = importlib.metadata.distribution("pyvirtd").entry_points
    return [entry for entry in entries if entry.group in ("console_scripts", "pyvirtd.drivers")]


@pytest.mark.parametrize("entry", installed_entry_points(), ids=lambda entry: f"{entry.group}:{entry.name}")
def test_entry_point_loads(entry: importlib.metadata.EntryPoint) -> None:
    assert callable(entry.load())


def test_both_drivers_are_entry_points() -> None:
    names = {entry.name for entry in installed_entry_points() if entry.group == "pyvirtd.drivers"}
    assert names >= {"qemu", "test"}


def test_debian_package_has_the_version_and_what_the_project_needs() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    changelog = (ROOT / "debian" / "changelog").read_text()
    assert changelog.startswith(f"pyvirtd ({setup['metadata']['version']})")
    control = (ROOT / "debian" / "control").read_text()
    vendored = (ROOT / "debian" / "vendor" / "requirements.txt").read_text()
    for name in setup["options"]["install_requires"].split():
        assert f"python3-{DEBIAN_NAMES.get(name, name)},\n" in control or f"\n{name}==" in vendored


def test_debian_package_installs_every_unit() -> None:
    rules = (ROOT / "debian" / "rules").read_text()
    named = {word for line in rules.splitlines() if "dh_installsystemd " in line for word in line.split()}
    assert {path.name for path in (ROOT / "systemd").glob("*.s[eo][rc]*")} <= named
