"""An upgraded home: values beyond the present bounds stay readable, and its runs continue."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database

from polylocal.errors import InvalidInput
from polylocal.statuses import Kind, Status
from polylocal.store import Store
from polylocal.store.queries import MAX_METRIC_NAMES
from polylocal.store.schema import migrations

THEN = "2024-01-01T00:00:00.000000+00:00"
MEASURED = {"loss": 1 / 3, 'a "b"\\': 1e-7, "ü\0": 1e22, "n": 5.0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Experiment 1 has some metrics; experiment 2 has more names than a run may have now."""
    path = tmp_path / "old.db"
    database = Database(sqlite3.connect(path, isolation_level=None))
    migrations.apply(database, stop_before="0012_bounds")
    database.execute(f"insert into users (id, username, is_superuser, created_at) values (1, 'root', 1, '{THEN}')")
    database.execute(
        "insert into projects (id, uuid, user_id, name, created_at, updated_at)"
        f" values (1, 'p', 1, 'quick-start', '{THEN}', '{THEN}')"
    )
    for number, values in enumerate((MEASURED, {f"m{n}": n / 7 for n in range(5 * MAX_METRIC_NAMES)}), 1):
        database.execute(
            "insert into runs (pk, kind, id, uuid, project_id, user_id, status, is_managed, created_at, updated_at)"
            f" values ({number}, 'experiment', {number}, '{number}', 1, 1, 'running', 0, '{THEN}', '{THEN}')"
        )
        database.execute("update runs set last_metric = ? where pk = ?", (json.dumps(values), number))
        database.execute(
            f"insert into metrics (uuid, run_pk, created_at, \"values\") values (?, ?, '{THEN}', ?)",
            (str(number), number, json.dumps(values)),
        )
    database.conn.close()
    store = Store(path)
    yield store
    store.close()


def test_the_last_metrics_are_what_they_were_to_the_last_digit(store: Store) -> None:
    run = store.runs.by_pk(1)
    assert run.last_metric == MEASURED
    store.metrics.add(run, [({"loss": 0.1}, None)])
    assert store.runs.by_pk(1).last_metric == {**MEASURED, "loss": 0.1}


def test_a_run_with_more_names_than_the_bound_is_read_and_goes_on(store: Store) -> None:
    run = store.runs.by_pk(2)
    assert len(run.last_metric or {}) == MAX_METRIC_NAMES
    assert len(store.metrics.page(run, limit=9, offset=0)[1][0].values) == 5 * MAX_METRIC_NAMES
    store.metrics.add(run, [({"m1": 2.5, "m4999": 3.5}, None)])
    project = store.projects.get("root", "quick-start")
    query = "metric.m4999:3.5,metric.m1:2.5"
    page = store.runs.page(project, Kind.EXPERIMENT, query=query, sort=None, limit=9, offset=0)
    assert [found.pk for found in page[1]] == [2]
    with pytest.raises(InvalidInput, match="names of metrics"):
        store.metrics.add(run, [({"new": 1.0}, None)])
    assert store.runs.transition(run, Status.SUCCEEDED)


# -- params -----------------------------------------------------------------------------------------------------------

PARAMS = {"lr": 0.0031622776601683794, "tiny": 1e-05, "n": 12, "deep": True, "opt": "adam", "none": None, "l": [1, 2]}


@pytest.fixture
def with_params(tmp_path: Path) -> Iterator[Store]:
    """A home of the version whose triggers wrote each param of experiment 1."""
    path = tmp_path / "params.db"
    database = Database(sqlite3.connect(path, isolation_level=None))
    migrations.apply(database, stop_before="0015_param_values")
    database.execute(f"insert into users (id, username, is_superuser, created_at) values (1, 'root', 1, '{THEN}')")
    database.execute(
        "insert into projects (id, uuid, user_id, name, created_at, updated_at)"
        f" values (1, 'p', 1, 'quick-start', '{THEN}', '{THEN}')"
    )
    database.execute(
        "insert into runs (pk, kind, id, uuid, project_id, user_id, status, is_managed, created_at, updated_at, params)"
        f" values (1, 'experiment', 1, 'u', 1, 1, 'running', 0, '{THEN}', '{THEN}', ?)",
        (json.dumps(PARAMS),),
    )
    assert database.execute("select text from run_values where name = 'tiny'").fetchone() == ("1.0e-05",)
    database.conn.close()
    store = Store(path)
    yield store
    store.close()


@pytest.mark.parametrize("name", ["lr", "tiny", "n", "opt"])
def test_params_are_found_as_their_rows_show_them(name: str, with_params: Store) -> None:
    project = with_params.projects.get("root", "quick-start")
    query = f"params.{name}:{PARAMS[name]},params.deep:true"
    count, (run,) = with_params.runs.page(project, Kind.EXPERIMENT, query=query, sort=None, limit=9, offset=0)
    assert (count, run.params) == (1, PARAMS)
    with_params.runs.update(run, {"params": {"lr": 5}})  # no trigger writes them a second time
    with with_params.database.read() as db:
        found = db.execute("select name, number, text from run_values where run_pk = 1").fetchall()
    assert [tuple(row) for row in found] == [("lr", 5.0, "5")]
