"""The table `run_values`: one row for each metric and param, so that filters and orders can use an index.

They are written here and not by triggers, since SQLite's own reader of JSON keeps 15 digits of a number.
"""

import json
import math
import sqlite3
from collections.abc import Mapping
from typing import Any

from polylocal.text import non_finite

Value = tuple[str, float | None, str | None]  # name, number, text

_UPSERT = (
    "insert into run_values (run_pk, space, name, number, text) values (?, ?, ?, ?, ?)"
    " on conflict do update set number = excluded.number, text = excluded.text"
)


def metric_row(name: str, value: float) -> Value:
    """The row of a metric. A value that is not finite has no number, and its word as the text."""
    return (name, value, json.dumps(value)) if math.isfinite(value) else (name, None, non_finite.word(value))


def param_row(name: str, value: Any) -> Value:
    """The row of a param. Numbers have number and text. Booleans, lists and objects are JSON text. null has neither."""
    if value is None or isinstance(value, str):
        return name, None, value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return name, non_finite.as_float(value) if is_number else None, json.dumps(value, separators=(",", ":"))


def set_metrics(db: sqlite3.Connection, pk: int, last: Mapping[str, float]) -> None:
    """Replace the values of these names; other names are kept."""
    db.executemany(_UPSERT, [(pk, "metric", *metric_row(name, value)) for name, value in last.items()])


def set_params(db: sqlite3.Connection, pk: int, params: Mapping[str, Any] | None) -> None:
    """Replace all values of the run."""
    db.execute("delete from run_values where run_pk = ? and space = 'param'", (pk,))
    db.executemany(_UPSERT, [(pk, "param", *param_row(name, value)) for name, value in (params or {}).items()])
