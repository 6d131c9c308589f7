"""Figures, and their output on the terminal, as JSON and as a page of the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure. `target` None: for information only. `must` is the weaker bound of some targets."""

    number: str  # the number of the target
    what: str
    unit: str  # "x" is a ratio to the raw SDK
    values: tuple[float, ...]
    target: float | None = None
    must: float | None = None
    more_is_better: bool = False
    judged_by: str = "median"  # or "p95", or "worst"
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        return percentile(self.values, 0.95)

    @property
    def quartiles(self) -> tuple[float, float]:
        return percentile(self.values, 0.25), percentile(self.values, 0.75)

    @property
    def compared_value(self) -> float:
        """The value that is compared with the target."""
        worst = min(self.values) if self.more_is_better else max(self.values)
        return {"median": self.median, "p95": self.p95, "worst": worst}[self.judged_by]

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        if self._reaches(self.compared_value, self.target):
            return "met"
        if self.must is not None and self._reaches(self.compared_value, self.must):
            return "must-have met"
        return "not met"

    def _reaches(self, value: float, bound: float) -> bool:
        shown = round(value, 2) if self.unit == "x" else value
        return shown >= bound if self.more_is_better else shown <= bound

    @property
    def target_text(self) -> str:
        if self.target is None:
            return ""
        sign = "≥" if self.more_is_better else "≤"
        must = f" (must {sign} {_number(self.must)})" if self.must is not None else ""
        whose = "" if self.judged_by == "median" else f", {self.judged_by}"
        return f"{sign} {_number(self.target)} {self.unit}{whose}{must}"

    def cells(self) -> tuple[str, ...]:
        low, high = self.quartiles
        spread = f"{_number(low)} … {_number(high)}" if len(self.values) > 1 else ""
        p95 = _number(self.p95) if len(self.values) >= 10 else ""
        median = f"{_number(self.median)} {self.unit}"
        return self.number, self.what, median, spread, p95, str(len(self.values)), self.target_text, self.verdict

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "median": self.median, "p95": self.p95, "verdict": self.verdict}


HEADINGS = ("D", "measured", "median", "quartiles", "p95", "n", "target", "")


def percentile(values: Sequence[float], share: float) -> float:
    """The percentile by nearest rank, which is always a measured value."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def median_ms(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.0f} ms"


def show(rows: Sequence[Row], title: str) -> None:
    table = Table(title=title)
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row.cells())
    console = Console(width=None if Console().is_terminal else 180)
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"  {row.number:>2} {row.what}: {row.note}", highlight=False)


def page(rows: Sequence[Row], about: dict[str, str], methods: str, introduction: str) -> str:
    """The text of docs/performance.md."""
    missed = [row for row in rows if row.verdict == "not met"]
    almost = [row for row in rows if row.verdict == "must-have met"]
    parts = [
        "# Performance",
        "<!-- written by `benchmarks/bench.py --write docs/performance.md`; change the script, not this page -->",
        introduction,
        _machine(about),
        "## Figures",
        _markdown_table(rows),
        "## What is behind the figures",
        "\n".join(f"- {row.number}, {row.what}: {row.note}." for row in rows if row.note),
        "## Where a target is missed",
        _list_missed(missed, almost),
        "## How it is measured",
        methods,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


# known reasons for missed targets, by number
REASONS = {
    "3": "The daemon's work for a job (queue, history, log) runs on the same cores as the engine's, and is the same on"
    " a faster machine, where the engine needs less time.",
    "4": "While 300 jobs queue up, the scheduler checks the queue after each of them in the same interpreter. The idle"
    " daemon meets the target.",
    "5": "The line is written when the container exists, and nearly all of the time is the engine's `create`. The"
    " paired row has the cost of the 1,000 files. Nothing is built.",
    "7": "A line is written to the log file and read from it, so that a reader never sees a line that a crash could"
    " remove. The absolute target is met with room to spare.",
    "10": "Half of the time is HTTP, the token and the project, the other half the 20 rows as JSON. A list of a hundred"
    " times as many jobs takes the same time.",
    "11": "Python with its HTTP, validation and Docker libraries. None of it grows with logs or runs.",
    "13": "The clients share the cores with the daemon and the engine. Of the memory, about 14 MiB are allocation"
    " arenas, which the C library gives to each thread.",
}


def _machine(about: dict[str, str]) -> str:
    lines = "\n".join(f"| {name} | {value} |" for name, value in about.items())
    return f"| measured on | |\n|---|---|\n{lines}"


def _markdown_table(rows: Sequence[Row]) -> str:
    head = "| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|"
    return "\n".join([head, *("| " + " | ".join(row.cells()) + " |" for row in rows)])


def _list_missed(missed: Sequence[Row], almost: Sequence[Row]) -> str:
    lines = [
        f"- **{row.number}, {row.what}: not met.** {_against(row)} {REASONS.get(row.number, '')}" for row in missed
    ]
    lines += [f"- {row.number}, {row.what}: the must-have is met, the target is not. {_against(row)}" for row in almost]
    return "\n".join(lines) or "Every target that was measured is met."


def _against(row: Row) -> str:
    return f"{_number(row.compared_value)} {row.unit} against {row.target_text}."


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value and abs(value) < 0.1:
        return f"{value:.3f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
