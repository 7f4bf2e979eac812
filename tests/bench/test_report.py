import json

import pytest

from bench.figures import BY_NAME, FIGURES
from bench.jobs import JOBS
from bench.report import BEGIN, END, as_json, as_markdown, as_text, rows, updated


def test_every_figure_is_given_by_one_job() -> None:
    assert sorted(name for job in JOBS for name in job.gives) == sorted(figure.name for figure in FIGURES)


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "verdict"),
    [
        ("call-p50", 54, 100, "met"),
        ("call-p50", 56, 100, "missed"),
        ("rate", 181, 100, "met"),
        ("rate", 179, 100, "missed"),
    ],
)
def test_verdict_follows_the_aim(name: str, ours: float, theirs: float, verdict: str) -> None:
    (row,) = rows({"pyvirtd": {name: ours}, "libvirtd": {name: theirs}})
    assert row.verdict == verdict


def test_missing_daemon_is_a_dash() -> None:
    table = rows({"libvirtd": {"call-p50": 90.0}})
    assert as_text(table).splitlines()[1].split()[-7:] == ["-", "90", "-", "at", "most", "0.55", "-"]


def test_markdown_has_a_line_for_each_figure() -> None:
    everything = {figure.name: 1.0 for figure in FIGURES}
    assert len(as_markdown(rows({"pyvirtd": everything})).splitlines()) == len(FIGURES) + 2


def test_json_carries_the_ratio() -> None:
    text = as_json(rows({"pyvirtd": {"start": 1.0}, "libvirtd": {"start": 4.0}}), {})
    assert json.loads(text)["figures"]["start"]["ratio"] == 0.25
    assert BY_NAME["start"].target == 0.35


def test_update_replaces_the_figures_only() -> None:
    assert updated(f"a\n{BEGIN}\nold\n{END}\nb\n", "new") == f"a\n{BEGIN}\nnew\n{END}\nb\n"


def test_update_wants_its_marks() -> None:
    with pytest.raises(ValueError, match="no <!-- figures -->"):
        updated("a document without", "new")
