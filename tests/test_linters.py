"""House rules that `./dev check` has no tool for; ruff, mypy and import-linter run there."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import ROOT

MOST_LINES = 600
TABLES = "pyvirtd/constants/"  # nothing but names and numbers: length there costs no reader anything
# The project stands on its own: no folders of the machine that it was written on, no trackers, no authorship notes.
BANNED = {
    "a folder outside the project": re.compile(r"(?<![\w.])/work/|\.library/"),
    "the shared folder's place": re.compile(r"(?<![\w.])/shared/(?!objects)"),
    "a tracker's number": re.compile(r"\bissue (?:#?\d+|[A-F])\b|\bthis issue\b", re.IGNORECASE),
    "who wrote it": re.compile(r"\b(?:generated (?:by|with) (?:an? )?(?:AI|LLM)|co-authored-by)\b", re.IGNORECASE),
}
THIS = "tests/test_linters.py"


def tracked(*patterns: str) -> list[str]:
    """The project's own files, as git has them; all that are there where this is no git checkout."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--", *patterns], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def lines_of_text_files() -> Iterator[tuple[str, int, str]]:
    for name in tracked():
        if name == THIS:
            continue
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield name, number, line


@pytest.mark.parametrize("rule", BANNED)
def test_words_that_do_not_belong_in_the_project(rule: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()}" for name, number, line in lines_of_text_files() if BANNED[rule].search(line)
    ]
    assert found == []


def test_modules_stay_readable() -> None:
    long = {
        name: lines
        for name in tracked("*.py")
        if not name.startswith(("tests/", TABLES))
        and (lines := len((ROOT / name).read_text().splitlines())) > MOST_LINES
    }
    assert long == {}


def test_every_module_says_what_lives_in_it() -> None:
    silent = [name for name in tracked("pyvirtd/*.py", "drivers/*.py", "bench/*.py") if not has_docstring(ROOT / name)]
    assert silent == []


def has_docstring(path: Path) -> bool:
    text = path.read_text()
    return not text.strip() or text.startswith(('"""', 'r"""'))


def test_scripts_are_executable() -> None:
    scripts = [
        name for name in tracked() if (ROOT / name).read_bytes()[:2] == b"#!" and not name.startswith("tests/guest/")
    ]
    assert [name for name in scripts if not (ROOT / name).stat().st_mode & 0o111] == []


def test_drivers_are_independent_of_each_other() -> None:
    """The contract names its drivers one by one: a new one must be added to it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (independent,) = (contract["modules"] for contract in contracts if contract["type"] == "independence")
    folders = {path.parent.name for path in (ROOT / "drivers").glob("*/__init__.py")}
    assert {f"pyvirtd.drivers.{name}" for name in folders} == set(independent)
