"""The SQL texts with the final statuses contain all of them."""

from __future__ import annotations

import re

import pytest

from polylocal.statuses import DONE
from polylocal.store import Store, queries

LIST = re.compile(r"status not in \(([^)]*)\)")


def listed(text: str) -> list[set[str]]:
    return [{word.strip(" '") for word in found.split(",")} for found in LIST.findall(text)]


def test_open_runs_are_those_without_a_final_status() -> None:
    assert listed(queries.OPEN) == [set(DONE)]


def test_the_indexes_of_open_runs_leave_out_every_final_status(store: Store) -> None:
    with store.database.read() as db:
        found = db.execute("select name, sql from sqlite_master where type = 'index' and sql like '%status not in%'")
        indexes = {row["name"]: listed(row["sql"]) for row in found}
    if not indexes:
        pytest.fail("no index of open runs was found")
    assert indexes == {name: [set(DONE)] for name in indexes}, "a new final status needs a migration of these indexes"
