"""Experiments: create, list, report metrics, compare."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polylocal.statuses import Kind, Status
from polylocal.store import Store
from polylocal.store.rows import Project, User

from .conftest import Caller

P = "/api/v1/root/quick-start/experiments"
CONFIG: dict[str, Any] = {
    "version": 1,
    "kind": "experiment",
    "params": {"lr": 0.1, "optimizer": "adam"},
    "build": {"image": "python:3.6"},
    "run": {"cmd": "python train.py --lr={{ lr }}"},
}
SEED = (
    "id uuid name unique_name user description created_at updated_at started_at finished_at last_status original"
    " project experiment_group build_job tags"
).split()


@pytest.fixture(autouse=True)
def _project(project: Project) -> None:
    """The project that all paths name."""


def test_a_managed_experiment(api: Caller) -> None:
    made = api.post(f"{P}/", {"config": CONFIG, "name": "first"})
    assert made.status_code == 201
    found = api.get(f"{P}/1/").json()
    assert list(found)[: len(SEED)] == SEED
    assert found["unique_name"] == "root.quick-start.1"
    assert found["params"] == found["declarations"] == {"lr": 0.1, "optimizer": "adam"}
    assert found["config"]["run"]["cmd"] == "python train.py --lr=0.1"
    assert found["is_managed"] is True


def test_params_of_the_body_override_the_files(api: Caller) -> None:
    made = api.post(f"{P}/", {"content": json.dumps(CONFIG), "params": {"lr": 0.5}}).json()
    assert made["params"] == {"lr": 0.5, "optimizer": "adam"}
    assert "--lr=0.5" in made["config"]["run"]["cmd"]


def test_declarations_are_the_older_key(api: Caller) -> None:
    config = {**CONFIG, "declarations": CONFIG["params"]}
    del config["params"]
    assert api.post(f"{P}/", {"config": config}).json()["params"]["lr"] == 0.1
    both = api.post(f"{P}/", {"config": {**CONFIG, "declarations": {"lr": 1}}})
    assert "You should only use `params`." in both.json()["config"][0]


@pytest.mark.parametrize("key", ["replicas", "tensorflow", "horovod"])
def test_distributed_runs_are_refused_in_one_sentence(api: Caller, key: str) -> None:
    answer = api.post(f"{P}/", {"config": {**CONFIG, "environment": {key: {"n_workers": 2}}}})
    assert answer.status_code == 400
    (message,) = answer.json()["config"]
    assert "several machines" in message
    assert "environment.resources.gpu" in message


def test_a_tracked_experiment_is_driven_by_its_client(api: Caller, store: Store) -> None:
    made = api.post(f"{P}/", {"name": "tracked", "params": {"lr": 1}}).json()
    assert (made["is_managed"], made["config"], made["last_status"]) == (False, None, "created")
    assert not store.queue.unresolved(9)
    for word in ("running", "succeeded"):
        assert api.post(f"{P}/1/statuses/", {"status": word}).status_code == 201
    entries = api.get(f"{P}/1/statuses/").json()["results"]
    assert [entry["status"] for entry in entries] == ["created", "running", "succeeded"]
    assert entries[0]["experiment"] == 1
    assert "job" not in entries[0]


def test_check_specification_asks_for_a_config(api: Caller) -> None:
    answer = api.post(f"{P}/", {"check_specification": True})
    assert answer.json() == {"non_field_errors": ["Experiment expects a `config`."]}


def test_metrics_one_by_one_and_in_batches(api: Caller) -> None:
    api.post(f"{P}/", {})
    one = api.post(f"{P}/1/metrics/", {"values": {"loss": 0.5}})
    assert (one.status_code, one.json()["values"]) == (201, {"loss": 0.5})
    moment = "2026-11-21 22:19:13.695854+00:00"
    batch = [{"values": {"loss": 0.4, "accuracy": 0.9}, "created_at": moment}, {"values": {"loss": 0.3}}]
    assert api.post(f"{P}/1/metrics/", batch).status_code == 201
    assert api.post(f"{P}/1/metrics/").status_code == 201  # clients end with such a request
    found = api.get(f"{P}/1/metrics/").json()
    assert found["count"] == 3
    assert found["results"][0]["created_at"] == "2026-11-21T22:19:13.695854+00:00"
    assert {key for item in found["results"] for key in item} == {"id", "uuid", "created_at", "values", "experiment"}
    assert api.get(f"{P}/1/").json()["last_metric"] == {"loss": 0.3, "accuracy": 0.9}


@pytest.mark.parametrize("body", [{"values": {"a": "x"}}, {"values": 1}, {}, [{"values": {"a": 1}}, {}], "text"])
def test_invalid_metrics(api: Caller, body: Any) -> None:
    api.post(f"{P}/", {})
    answer = api.post(f"{P}/1/metrics/", body)
    assert answer.status_code == (201 if body == {} else 400)
    assert api.get(f"{P}/1/metrics/").json()["count"] == 0


@pytest.fixture
def measured(api: Caller) -> None:
    for lr, loss in ((0.1, 0.9), (0.2, 0.1), (0.3, 0.5)):
        run_id = api.post(f"{P}/", {"params": {"lr": lr, "deep": lr > 0.15}}).json()["id"]
        api.post(f"{P}/{run_id}/metrics/", {"values": {"loss": loss, "a b.c": loss}})
    api.post(f"{P}/", {})


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("metric.loss:<0.6", [3, 2]),
        ("metrics.loss:>=0.5", [3, 1]),
        ("metric.loss:0.1", [2]),
        ("metric.loss:~<0.6", [4, 1]),
        ("metric.a b.c:<0.2", [2]),
        ("params.lr:0.2", [2]),
        ("params.lr:0.1|0.3", [3, 1]),
        ("params.lr:<0.25", [2, 1]),
        ("declarations.lr:0.15..0.3", [3, 2]),
        ("declarations.deep:true", [3, 2]),
        ("params.nosuch:1", []),
        ("independent:true,id:>2", [4, 3]),
    ],
)
def test_filters_by_metrics_and_params(api: Caller, query: str, ids: list[int]) -> None:
    found = api.get(f"{P}/", params={"query": query, "sort": "-created_at"}).json()
    assert [item["id"] for item in found["results"]] == ids
    assert found["count"] == len(ids)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("sort", "ids"),
    [("metric.loss", [2, 3, 1, 4]), ("-metric.loss", [1, 3, 2, 4])]
    + [("params.lr", [1, 2, 3, 4]), ("-params.lr", [3, 2, 1, 4]), ("-declarations.lr,nonsense", [3, 2, 1, 4])],
)
def test_sorting_by_a_metric_or_a_param_puts_those_without_one_last(api: Caller, sort: str, ids: list[int]) -> None:
    assert [item["id"] for item in api.get(f"{P}/", params={"sort": sort}).json()["results"]] == ids


@pytest.mark.parametrize("query", ["metric.loss:x", "metric.:1", "metric:1", "metric.loss:nan", "params.lr:<x"])
def test_invalid_filters(api: Caller, query: str) -> None:
    answer = api.get(f"{P}/", params={"query": query})
    assert answer.status_code == 400
    assert len(answer.json()) == 1


@pytest.mark.usefixtures("measured")
def test_lists_of_metrics_and_of_params(api: Caller) -> None:
    only = api.get(f"{P}/", params={"metrics": "True", "sort": "created_at"}).json()["results"][0]
    assert list(only) == ["id", "uuid", "name", "unique_name", "last_metric", "started_at", "finished_at"]
    for word in ("params", "declarations"):
        only = api.get(f"{P}/", params={word: "True", "sort": "created_at"}).json()["results"][0]
        assert only["params"] == only["declarations"] == {"lr": 0.1, "deep": False}


def test_params_are_merged_or_replaced(api: Caller) -> None:
    api.post(f"{P}/", {"params": {"lr": 1}})
    assert api.patch(f"{P}/1/", {"params": {"n": 2}, "merge": True}).json()["params"] == {"lr": 1, "n": 2}
    assert api.patch(f"{P}/1/", {"declarations": {"n": 3}}).json()["params"] == {"n": 3}


def test_the_one_job_of_an_experiment(api: Caller, store: Store) -> None:
    api.post(f"{P}/", {"config": CONFIG})
    assert api.get(f"{P}/1/jobs/").json()["results"] == []
    run = store.runs.find(Kind.EXPERIMENT, 1)
    store.runs.transition(run, Status.SCHEDULED, recorded={"container_id": "c"})
    (found,) = api.get(f"{P}/1/jobs/").json()["results"]
    assert (found["role"], found["unique_name"]) == ("master", "root.quick-start.1.1.master")
    assert "experiment_name" not in found
    assert api.get(f"{P}/1/jobs/1/").json()["id"] == 1
    assert api.get(f"{P}/1/jobs/2/").status_code == 404
    assert api.get(f"{P}/1/jobs/1/statuses/").json()["results"][0]["job"] == 1


def test_stopping_and_deleting_several(api: Caller, store: Store) -> None:
    for _ in range(3):
        api.post(f"{P}/", {"config": CONFIG})
    assert api.post(f"{P}/stop/", {"ids": [1, 2]}).status_code == 200
    assert [run.id for run in store.queue.stopping()] == [1, 2]
    assert api("DELETE", f"{P}/delete/", json={"ids": [3]}).status_code == 200
    assert [item["id"] for item in api.get(f"{P}/").json()["results"]] == [2, 1]
    assert api.post(f"{P}/stop/", {"ids": "x"}).status_code == 400


def test_experiments_of_all_projects(api: Caller, store: Store, root: User) -> None:
    api.post(f"{P}/", {})
    store.projects.create(root, {"name": "other"})
    api.post("/api/v1/root/other/experiments/", {})
    assert [item["project"] for item in api.get("/api/v1/experiments/").json()["results"]] == [
        "root.other",
        "root.quick-start",
    ]


def test_a_runs_token_tracks_its_own_experiment(api: Caller, store: Store, root: User) -> None:
    api.post(f"{P}/", {"config": CONFIG})
    api.post(f"{P}/", {"config": CONFIG})
    run = store.runs.find(Kind.EXPERIMENT, 1)
    store.runs.transition(run, Status.RUNNING, recorded={"container_id": "c"})
    headers = {"Authorization": f"Token {store.users.new_token(root, run.pk)}"}
    assert api("POST", f"{P}/1/metrics/", json={"values": {"a": 1}}, headers=headers).status_code == 201
    assert api("POST", f"{P}/2/metrics/", json={"values": {"a": 1}}, headers=headers).status_code == 403
    assert api("PATCH", f"{P}/1/", json={"tags": ["x"], "merge": True}, headers=headers).status_code == 200
    for word in ("ephemeraltoken", "token", "impersonatetoken"):
        given = api("POST", f"{P}/1/{word}/", headers=headers).json()["token"]
        assert given == headers["Authorization"].removeprefix("Token ")
        assert api("POST", f"{P}/2/{word}/", headers=headers).status_code == 403
        assert api.post(f"{P}/1/{word}/").status_code == 403  # users have tokens of their own


def test_restart_resume_copy(api: Caller) -> None:
    api.post(f"{P}/", {"config": CONFIG})
    for how in ("restart", "resume", "copy"):
        made = api.post(f"{P}/1/{how}/", {}).json()
        assert (made["original"], made["cloning_strategy"]) == ("root.quick-start.1", how)
        assert made["params"] == CONFIG["params"]
