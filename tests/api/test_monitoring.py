"""Metrics for Prometheus, against a store with known content."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from api_support import api_context
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from polylocal import __version__
from polylocal.api.api_context import ApiContext
from polylocal.statuses import POLYAXON_KINDS
from polylocal.store import Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, finish, one_of_each

Figures = dict[tuple[str, ...], float]


def figures(caller: Caller) -> Figures:
    """(name, values of its labels in order) → value."""
    answer = caller.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_an_empty_installation(api: Caller) -> None:
    found = figures(api)
    for name in ("queue_length", "queue_wait_seconds", "build_cache_hits_total", "build_cache_misses_total"):
        assert found[(f"polylocal_{name}",)] == 0
    assert found[("polylocal_disk_full",)] == 0
    assert found[("polylocal_engine_up",)] == 1
    assert found[("polylocal_build_info", __version__)] == 1
    assert not [key for key in found if key[0] == "polylocal_runs"]


def test_runs_are_counted_by_kind_and_status(
    api: Caller, store: Store, project: Project, root: User, make_job: Callable[..., Run]
) -> None:
    one_of_each(store, project, root)
    for _ in range(2):
        finish(store, make_job())
    store.runs.transition(make_job(), "running")
    found = figures(api)
    counted = {key[1:]: value for key, value in found.items() if key[0] == "polylocal_runs"}
    created = {(str(kind), "created"): 1.0 for kind in POLYAXON_KINDS}
    assert counted == {**created, ("job", "succeeded"): 2.0, ("job", "running"): 1.0}


def test_waiting_runs_are_counted_with_their_waiting_time(
    api: Caller, make_job: Callable[..., Run], store: Store
) -> None:
    first, done = make_job(), make_job()
    finish(store, done)
    make_job(managed=False)  # no runner starts it here
    with store.database.write() as db:
        db.execute("update runs set created_at = '2020-01-01T00:00:00.000000+00:00' where pk = ?", (first.pk,))
    found = figures(api)
    assert found[("polylocal_queue_length",)] == 1
    assert found[("polylocal_queue_wait_seconds",)] > 1e8


def test_a_daemon_whose_engine_is_away(serving: Callable[..., TestClient], context: ApiContext, root: User) -> None:
    away = api_context(context.settings, context.store, engine_state=lambda: "the engine to answer")
    assert figures(Caller(serving(away), context.store.users.new_token(root)))[("polylocal_engine_up",)] == 0


def test_calls_to_the_engine_are_measured(api: Caller, context: ApiContext) -> None:
    context.engine_times.observe("POST containers/start", 0.02)
    context.engine_times.observe("POST containers/start", 0.7)
    found = figures(api)
    assert found[("polylocal_engine_seconds_count", "POST containers/start")] == 2
    assert found[("polylocal_engine_seconds_sum", "POST containers/start")] == pytest.approx(0.72)
    assert found[("polylocal_engine_seconds_bucket", "POST containers/start", "0.025")] == 1


def test_figures_are_for_users_only(nobody: Caller, as_ann: Caller, as_job: Caller) -> None:
    assert nobody.get("/metrics").status_code == 401
    assert as_job.get("/metrics").status_code in (401, 403)
    assert as_ann.get("/metrics").status_code == 200


@pytest.mark.parametrize("path", ["/polylocal/v1/disk"])
def test_disk_usage_is_for_admins(nobody: Caller, as_ann: Caller, as_job: Caller, api: Caller, path: str) -> None:
    assert nobody.get(path).status_code == 401
    assert as_ann.get(path).status_code == as_job.get(path).status_code == 403
    assert api.get(path).json() == {"freed_bytes": 0, "results": []}
    assert as_ann.post("/polylocal/v1/gc", {}).status_code == 403


@pytest.mark.parametrize("budget", ["-1", "nan", "much", "-inf", "inf", "1e999"])
def test_a_budget_is_a_number(api: Caller, budget: str) -> None:
    assert api.get(f"/polylocal/v1/disk?budget_gib={budget}").status_code == 400


def test_the_state_of_the_scheduler(serving: Callable[..., TestClient], context: ApiContext) -> None:
    late = api_context(context.settings, context.store, scheduler_state=lambda: "The queue was not processed for 90 s.")
    told = Caller(serving(late)).get("/statusz").json()
    assert (told["scheduler"]["is_healthy"], told["engine"]["is_healthy"]) == (False, True)
