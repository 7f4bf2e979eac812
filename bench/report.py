"""Prints what was measured: for people, as Markdown for the documentation, as JSON for programs."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from bench.figures import FIGURES, Figure

OURS, THEIRS = "pyvirtd", "libvirtd"


class Row(NamedTuple):
    """A line of the table; a side that was not measured is None."""

    figure: Figure
    ours: float | None
    theirs: float | None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return "-"
        return "met" if self.figure.met(self.ratio) else "missed"

    def cells(self) -> tuple[str, ...]:
        aim = f"{'at least' if self.figure.higher_is_better else 'at most'} {self.figure.target:g}"
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            f"{self.figure.title} [{self.figure.unit}]",
            _number(self.ours),
            _number(self.theirs),
            ratio,
            aim,
            self.verdict,
        )


HEAD = ("figure", OURS, THEIRS, "ratio", "aim", "")


def rows(measured: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """The table's lines, of what was measured on any side; `measured` is daemon -> figure -> value."""
    ours, theirs = measured.get(OURS, {}), measured.get(THEIRS, {})
    return [
        Row(figure, ours.get(figure.name), theirs.get(figure.name))
        for figure in FIGURES
        if figure.name in ours or figure.name in theirs
    ]


def as_text(table: list[Row]) -> str:
    """Aligned columns."""
    lines = [HEAD, *(row.cells() for row in table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 4, 5) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def as_markdown(table: list[Row]) -> str:
    """The table of docs/performance.md."""
    lines = ["| " + " | ".join(HEAD[:-1]) + " | |", "|---|--:|--:|--:|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row.cells()) + " |" for row in table)])


def as_json(table: list[Row], machine: Mapping[str, str]) -> str:
    """One object with the machine and every figure."""
    figures = {
        row.figure.name: {
            "unit": row.figure.unit,
            OURS: row.ours,
            THEIRS: row.theirs,
            "ratio": row.ratio,
            "target": row.figure.target,
        }
        for row in table
    }
    return json.dumps({"machine": dict(machine), "figures": figures}, indent=2, ensure_ascii=False)


BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def updated(document: str, figures: str) -> str:
    """The document with what stands between its two marks replaced."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the document has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
