"""Limits on the data of one run and one user. A small write costs the same, however much data there is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from polylocal.api import bodies, experiments, logs, runs
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store, activities, database, metrics, searches
from polylocal.store.queries import MAX_METRIC_NAMES
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, P

E = f"{P}/experiments/1"


@pytest.fixture
def run(store: Store, project: Project, root: User) -> Run:
    return store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, values={"is_managed": False}))


@contextmanager
def steps(store: Store) -> Iterator[Callable[[], int]]:
    """Counts the steps of SQLite's virtual machine in the writer's connection."""
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1

    writer: sqlite3.Connection = store.database._writer
    writer.set_progress_handler(counted, 1)
    try:
        yield lambda: count
    finally:
        writer.set_progress_handler(None, 0)


def cost(store: Store, write: Callable[[], Any]) -> int:
    with steps(store) as taken:
        write()
        return taken()


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_two_hundred_thousand_names_in_one_request_are_refused(api: Caller, run: Run, store: Store) -> None:
    answer = api.post(f"{E}/metrics/", {"values": {f"m{n}": 1 for n in range(200_000)}})
    assert (answer.status_code, list(answer.json())) == (400, ["values"])
    many = [{"values": {f"m{n}-{part}": 1 for n in range(900)}} for part in range(3)]
    answer = api.post(f"{E}/metrics/", many)
    assert answer.json() == {"values": [f"An experiment has at most {MAX_METRIC_NAMES} names of metrics."]}
    assert api.get(f"{E}/metrics/").json()["count"] == 0
    assert api.get(f"{E}/").json()["last_metric"] is None


def test_names_are_counted_over_all_requests_and_known_ones_stay_allowed(api: Caller, run: Run) -> None:
    for start in range(0, MAX_METRIC_NAMES, 500):
        whole = {f"m{n}": n / 7 for n in range(start, start + 500)}
        assert api.post(f"{E}/metrics/", {"values": whole}).status_code == 201
    assert api.post(f"{E}/metrics/", {"values": {"m1": 1, "another": 2}}).status_code == 400
    assert api.post(f"{E}/metrics/", {"values": {"m1": 0.1}}).status_code == 201
    last = api.get(f"{E}/").json()["last_metric"]
    assert last == {f"m{n}": n / 7 for n in range(MAX_METRIC_NAMES)} | {"m1": 0.1}


def test_reports_of_ordinary_trainings_are_accepted(api: Caller, run: Run) -> None:
    """Hundreds of names, in batches of a thousand entries."""
    batch = [{"values": {f"layer/{n % 200}/loss": n / 3, "step": n}} for n in range(1000)]
    for _ in range(3):
        assert api.post(f"{E}/metrics/", batch).status_code == 201
    assert api.get(f"{E}/metrics/").json()["count"] == 3000


def test_a_small_report_costs_the_same_whatever_is_there(store: Store, run: Run) -> None:
    store.metrics.add(run, [({"loss": 1.0}, None)])
    before = cost(store, lambda: store.metrics.add(run, [({"loss": 2.0}, None)]))
    store.metrics.add(run, [({f"m{n}": 1.0 for n in range(MAX_METRIC_NAMES - 1)}, None) for _ in range(50)])
    after = cost(store, lambda: store.metrics.add(run, [({"loss": 3.0}, None)]))
    assert after <= before * 1.1
    assert store.runs.by_pk(run.pk).last_metric == {"loss": 3.0} | {f"m{n}": 1.0 for n in range(MAX_METRIC_NAMES - 1)}


@pytest.mark.parametrize(("name", "bound"), [("MAX_ENTRIES", 3), ("MAX_VALUES", 6)])
def test_entries_and_values_of_one_run_are_bounded(
    name: str, bound: int, api: Caller, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, name, bound)
    for _ in range(3):
        assert api.post(f"{E}/metrics/", {"values": {"a": 1, "b": 2}}).status_code == 201
    answer = api.post(f"{E}/metrics/", {"values": {"a": 1, "b": 2}})
    assert (answer.status_code, str(bound) in answer.text) == (400, True)


def test_entries_of_one_request_are_bounded(api: Caller, run: Run) -> None:
    answer = api.post(f"{E}/metrics/", [{"values": {"a": 1}}] * (experiments.MAX_ENTRIES + 1))
    assert (answer.status_code, str(experiments.MAX_ENTRIES) in answer.text) == (400, True)


def test_metrics_of_a_run_that_is_removed_meanwhile(store: Store, run: Run) -> None:
    store.runs.remove(run)
    with pytest.raises(Exception, match="Not found"):
        store.metrics.add(run, [({"a": 1.0}, None)])


# -- other data -------------------------------------------------------------------------------------------------------

LONG = "x" * (bodies.MAX_README + 1)
NAMES = {f"n{n}": n for n in range(bodies.MAX_PARAMS + 1)}


@pytest.mark.parametrize(
    "body",
    [
        {"readme": LONG},
        {"description": LONG},
        {"tags": [f"t{n}" for n in range(bodies.MAX_TAGS + 1)]},
        {"run_env": {"a": LONG}},
        {"data_refs": {"a": LONG}},
        {"params": NAMES},
        {"declarations": NAMES},
        {"params": {"a": LONG}},
        {"backend": "x" * 300},
        {"framework": "x" * 300},
    ],
    ids=lambda body: next(iter(body)),
)
def test_descriptions_of_a_run_are_bounded(api: Caller, run: Run, body: dict[str, Any]) -> None:
    for method, path in (("PATCH", f"{E}/"), ("POST", f"{P}/experiments/")):
        answer = api(method, path, json=body)
        assert (answer.status_code, list(answer.json())) == (400, list(body)), method
        assert any(digit.isdigit() for digit in answer.text), "the bound is named"


def test_merged_values_have_the_same_bounds(api: Caller, run: Run) -> None:
    for start in (0, 1000):
        params = {f"p{n}": n for n in range(start, start + 1000)}
        answer = api.patch(f"{E}/", {"params": params, "merge": True})
        assert answer.status_code == (200 if start == 0 else 400)
    for start in (0, 150):
        tags = [f"t{n}" for n in range(start, start + 150)]
        for path in (f"{E}/", f"{P}/"):
            assert api.patch(path, {"tags": tags, "merge": True}).status_code == (200 if start == 0 else 400)


def test_the_params_of_a_polyaxonfile_have_the_same_bounds(api: Caller, project: Project) -> None:
    file = {"version": 1, "kind": "experiment", "build": {"image": "busybox"}, "run": {"cmd": "true"}, "params": NAMES}
    answer = api.post(f"{P}/experiments/", {"content": file})
    assert (answer.status_code, list(answer.json())) == (400, ["content"])
    file["params"] = {"lr": 0.1}
    assert api.post(f"{P}/experiments/", {"content": file}).status_code == 201
    answer = api.post(f"{P}/experiments/1/restart/", {"content": {"params": NAMES}})
    assert answer.status_code == 400


def test_statuses_that_a_run_reports_are_bounded(
    api: Caller, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status in ("running", "warning", "running"):
        assert api.post(f"{E}/statuses/", {"status": status}).status_code == 201
    monkeypatch.setattr(runs, "MAX_STATUSES", 3)
    answer = api.post(f"{E}/statuses/", {"status": "warning"})
    assert (answer.status_code, "takes no more" in answer.text) == (400, True)
    assert api.post(f"{E}/_reconcile/", {"status": "warning"}).status_code == 400
    for field in ("traceback", "message"):
        assert api.post(f"{E}/statuses/", {"status": "running", field: LONG}).status_code == 400
    assert api.post(f"{E}/statuses/", {"status": "running", "details": {"a": LONG}}).status_code == 400


def test_lines_of_one_request_are_bounded(api: Caller, run: Run) -> None:
    assert api.post(f"{E}/logs/", ["x"] * (logs.MAX_LINES + 1)).status_code == 400
    assert api.post(f"{E}/logs/", ["x"] * 1000).status_code == 200


def test_searches_and_charts_are_bounded(
    api: Caller, run: Run, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "MAX_SEARCHES", 2)
    monkeypatch.setattr(searches, "MAX_CHART_VIEWS", 2)
    places = (
        (f"/api/v1/searches/{P.partition('v1/')[2]}/jobs/", {"query": {"query": "id:1"}}),
        (f"{E}/chartviews/", {"charts": []}),
    )
    for path, body in places:
        assert [api.post(path, body).status_code for _ in range(3)] == [201, 201, 400], path
    assert api.post(f"{E}/chartviews/", {"charts": [{"a": LONG}]}).status_code == 400


def test_the_activity_log_is_cut_a_few_lines_at_a_time(
    api: Caller, store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activities, "MAX_ENTRIES", 10)
    for n in range(40):
        api.patch(f"{E}/", {"description": str(n)})
    assert api.get("/api/v1/activitylogs/").json()["count"] <= 11


def test_code_is_referenced_at_the_same_cost_however_often_it_was(store: Store, project: Project) -> None:
    def refer(n: int) -> Callable[[], Any]:
        return lambda: store.projects.reference_code(project, {"head": f"h{n}"})

    before = max(cost(store, refer(n)) for n in range(3))
    for n in range(3, 300):
        refer(n)()
    assert cost(store, refer(300)) <= before * 1.2


def test_a_run_with_many_rows_is_removed_in_parts(
    store: Store, run: Run, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_MAX_DELETED", 10)
    store.metrics.add(run, [({"a": 1.0}, None)] * 95)
    kept = store.runs.insert(project, store.users.get("root"), NewRun(Kind.EXPERIMENT, values={"is_managed": False}))
    store.metrics.add(kept, [({"a": 1.0}, None)])
    writer = store.database._writer
    seen: list[int] = []
    writer.set_trace_callback(
        lambda text: seen.append(1) if text.startswith("BEGIN") or text == "begin immediate" else None
    )
    store.runs.remove(run)
    writer.set_trace_callback(None)
    assert len(seen) >= 10
    assert store.metrics.page(kept, limit=9, offset=0)[0] == 1
    with store.database.read() as db:
        assert db.execute("select count(*) from metrics").fetchone()[0] == 1


def test_bounds_of_bodies_are_in_the_documents(api: Caller) -> None:
    schema = json.dumps(bodies.NewRunBody.model_json_schema())
    assert str(bodies.MAX_README) in schema
