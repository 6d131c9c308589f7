"""How things look on a screen: tables and colours for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Json = dict[str, Any]

COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "upstream_failed": "red",
    "stopped": "yellow",
    "warning": "yellow",
    "running": "cyan",
    "building": "blue",
    "scheduled": "blue",
}


def as_json(value: object) -> None:
    """Unstyled and unwrapped, whatever the terminal."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def say(text: str | Text, style: str = "") -> None:
    """A line for people, beside what a command puts out. Never wrapped: long paths stay whole."""
    err.print(Text(text, style=style) if isinstance(text, str) else text, soft_wrap=True)


def status(word: str) -> Text:
    return Text(word, style=COLOURS.get(word, ""))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str | Text | None]], *, empty: str, one_line: bool = False
) -> None:
    """Columns that are empty in every row are left out; `one_line`: the last one is cut rather than folded."""
    if not rows:
        out.print(empty)
        return
    shown = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    made = Table(box=None, pad_edge=False, header_style="bold")
    for number in shown:
        is_last = number == len(columns) - 1
        made.add_column(columns[number], no_wrap=one_line or not is_last, overflow="fold")
    room = _room_of_the_last(columns, rows, shown) if one_line else None
    for row in rows:
        cells = [cell if isinstance(cell, Text) else Text(cell or "") for cell in (row[number] for number in shown)]
        if room is not None:
            cells[-1].truncate(room, overflow="ellipsis")
        made.add_row(*cells)
    out.print(made)


def _room_of_the_last(columns: Sequence[str], rows: Sequence[Sequence[str | Text | None]], shown: Sequence[int]) -> int:
    """What the others leave of the screen: rich would take from every column what the last one lacks."""
    widths = [max(len(columns[n]), *(len(row[n] or "") for row in rows)) for n in shown[:-1]]
    return max(10, out.width - sum(widths) - 2 * len(widths))


def fields(pairs: Sequence[tuple[str, str | Text | None]]) -> None:
    """Name and value, one pair a line; what has no value is left out."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            made.add_row(name, value if isinstance(value, Text) else Text(value))
    out.print(made)


def history(statuses: Sequence[Json]) -> None:
    """The status history with how long each lasted."""
    rows: list[list[str | Text | None]] = []
    for entry, following in zip(statuses, [*statuses[1:], None], strict=True):
        lasted = duration(entry["created_at"], following["created_at"]) if following else ""
        rows.append([status(entry["status"]), local_time(entry["created_at"]), lasted, entry["message"]])
    table(["STATUS", "SINCE", "LASTED", "MESSAGE"], rows, empty="No history yet.")


def duration(start: str | None, end: str | None) -> str:
    if start is None:
        return ""
    finish = datetime.fromisoformat(end) if end else datetime.now(UTC)
    seconds = (finish - datetime.fromisoformat(start)).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def local_time(stamp: str | None) -> str:
    """In the time zone of who is looking."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S") if stamp else ""


def short_time(stamp: str) -> str:
    """The same for a list: the time of today, else the day."""
    moment = datetime.fromisoformat(stamp).astimezone()
    return moment.strftime("%H:%M:%S" if moment.date() == datetime.now().astimezone().date() else "%Y-%m-%d")


def size(n_bytes: int) -> str:
    amount = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
