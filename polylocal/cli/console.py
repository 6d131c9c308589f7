"""Output of commands: tables and colours for people, JSON for programs.

Commands print only through this module. Names, messages and error texts may come from other users, so control
characters are escaped (`polylocal.text.visible`), and markup, emoji codes and links are printed as plain text.
`tests/cli/test_hostile_texts.py` checks every command.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from polylocal.text import visible

if TYPE_CHECKING:
    from rich.live import Live


class Screen(Console):
    """A console that escapes control characters in every text. Only its own styles control the terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                yield Segment(visible.lines(segment.text), segment.style)


out = Screen()
err = Screen(stderr=True)

Json = dict[str, Any]
Words = Text
Grid = Table
Cell = str | Text | None

_MIN_CELL = 10  # characters that a truncated cell keeps
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


# -- texts -----------------------------------------------------------------------------------------------------------


def text(value: str, style: str = "", *, has_lines: bool = False) -> Text:
    """An untrusted text, escaped. `has_lines`: keep its line ends."""
    return Text(visible.lines(value) if has_lines else visible.one_line(value), style=style)


def join(*parts: str | Text, style: str = "") -> Text:
    made = Text(style=style)
    for part in parts:
        made.append_text(part if isinstance(part, Text) else text(part))
    return made


# -- output ----------------------------------------------------------------------------------------------------------


def line(value: str | Text = "", style: str = "") -> None:
    """Print a line of the command's output. Lines are not wrapped, so long paths stay whole."""
    out.print(text(value, style) if isinstance(value, str) else value, soft_wrap=True)


def say(value: str | Text, style: str = "") -> None:
    """Print a line for people to standard error."""
    err.print(text(value, style) if isinstance(value, str) else value, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error. Lines after the first are indented."""
    err.print(Text(visible.message(message), style="red"), soft_wrap=True)


def page(value: str) -> None:
    """Print a text of several lines, unwrapped, with control characters escaped."""
    _write(visible.lines(value))


def as_json(value: object) -> None:
    """Print JSON without styles and wrapping. `json.dumps` escapes all control characters except DEL."""
    _write(json.dumps(value, indent=2).replace("\x7f", "\\u007f") + "\n")


def as_csv(table: str) -> None:
    """Print a CSV table. Each record stays on one line."""
    made = io.StringIO()
    records = csv.reader(io.StringIO(table, newline=""))
    csv.writer(made, lineterminator="\n").writerows([visible.one_line(cell) for cell in record] for record in records)
    _write(made.getvalue())


def log_bytes(data: bytes) -> None:
    """Write the log of a run byte for byte. This is the only output that is not escaped."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def confirm(question: str, *, default: bool = False, abort: bool = False) -> bool:
    return typer.confirm(visible.one_line(question), default=default, abort=abort)


def ask_hidden(name: str) -> str:
    answer: str = typer.prompt(visible.one_line(name), hide_input=True)
    return answer


def spinner(what: str) -> AbstractContextManager[object]:
    """Show a spinner with a text while the block runs; on a terminal only."""
    return err.status(text(what))


def live() -> Live:
    from rich.live import Live

    return Live(console=err, refresh_per_second=4)


def stack(*parts: RenderableType) -> Group:
    return Group(*parts)


def show(renderable: RenderableType) -> None:
    """Print a table made by `grid`."""
    out.print(renderable)


def _write(value: str) -> None:
    sys.stdout.write(value)


# -- the program as a whole ------------------------------------------------------------------------------------------


def print_usage_error(error: Any) -> None:
    """Print typer's usage error, escaped: the shell's `*` can put any file name into the command line."""
    from typer import rich_utils

    words = visible.message(error.format_message())
    error.format_message = lambda: words
    rich_utils.rich_format_error(error)


def print_traceback() -> None:
    """Print the traceback of the current exception. It is indented, so its lines can't be taken for our messages."""
    sys.stderr.write(visible.message(traceback.format_exc().rstrip("\n")) + "\n")


# -- tables ----------------------------------------------------------------------------------------------------------


def status(word: str) -> Text:
    return text(word, style=COLOURS.get(word, ""))


def grid(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table whose cells stay on one line."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(text(column), no_wrap=True)
    for row in rows:
        made.add_row(*map(_cell, row))
    return made


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, empty: str, one_line: bool = False) -> None:
    """Print a table. Columns that are empty in every row are left out.

    `one_line`: truncate cells that are too long for the screen instead of folding them, first in the last column, then
    in the widest of the others. The first column identifies the row and is never truncated.
    """
    if not rows:
        line(empty)
        return
    shown = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    cells = [[_cell(row[number]) for number in shown] for row in rows]
    widths = [max(len(columns[number]), *(row[place].cell_len for row in cells)) for place, number in enumerate(shown)]
    made = Table(box=None, pad_edge=False, header_style="bold")
    for place, number in enumerate(shown):
        is_last = number == len(columns) - 1
        least = widths[0] if one_line and not place else None
        made.add_column(text(columns[number]), no_wrap=one_line or not is_last, overflow="fold", min_width=least)
    room = _fit(widths) if one_line else widths
    for row in cells:
        for cell, before, now in zip(row, widths, room, strict=True):
            if now < before:
                cell.truncate(now, overflow="ellipsis")
        made.add_row(*row)
    out.print(made)


def _fit(widths: Sequence[int]) -> list[int]:
    """Column widths that fit the screen. rich itself would shrink every column, also the first."""
    *others, last = widths
    left = out.width - 2 * len(others)
    while left - sum(others) < min(last, _MIN_CELL) and max(others[1:], default=0) > _MIN_CELL:
        others[others.index(max(others[1:]), 1)] -= 1
    return [*others, max(min(last, _MIN_CELL), min(last, left - sum(others)))]


def _cell(value: Cell) -> Text:
    return value.copy() if isinstance(value, Text) else text(value or "")


def fields(pairs: Sequence[tuple[str, Cell]]) -> None:
    """Print one name and value a line. Pairs without a value are left out.

    A text longer than a line of the screen is folded between words; an address or a path stays whole.
    """
    shown = [(text(name, style="bold"), _cell(value)) for name, value in pairs if value]
    width = max((name.cell_len for name, _ in shown), default=0)
    for name, value in shown:
        for part in _fold(value, out.width - width - 2):
            name.pad_right(width + 2 - name.cell_len)
            line(join(name, part))
            name = text("")


def _fold(value: Text, room: int) -> Iterator[Text]:
    """The lines of a text, wrapped to `room` columns on a terminal if each word fits."""
    for part in value.split(allow_blank=True):
        if out.is_terminal and all(cell_len(word) <= room for word in part.plain.split()):
            yield from part.wrap(out, room)
        else:
            yield part


def history(statuses: Sequence[Json]) -> None:
    """Print the status history with the duration of each status."""
    rows: list[list[Cell]] = []
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
    """A time stamp in the local time zone."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S") if stamp else ""


def short_time(stamp: str) -> str:
    """The local time for a stamp of today, else the date."""
    moment = datetime.fromisoformat(stamp).astimezone()
    return moment.strftime("%H:%M:%S" if moment.date() == datetime.now().astimezone().date() else "%Y-%m-%d")


def size(n_bytes: int) -> str:
    amount = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
