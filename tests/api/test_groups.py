"""Groups of experiments: searches, and selections of existing ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import FILES, GROUP, Caller, Json, P

G = f"{P}/groups"
pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def trial(store: Store, root: User, project: Project) -> Callable[..., Run]:
    """trial(group=…, …) → an experiment, inserted into the store directly."""

    def make(group: Run | None = None, **values: Any) -> Run:
        new = NewRun(Kind.EXPERIMENT, config=FILES[Kind.EXPERIMENT], values=values, group=group)
        return store.runs.insert(project, root, new)

    return make


@pytest.fixture
def search(api: Caller, store: Store) -> Run:
    """Group 1."""
    assert api.post(f"{G}/", {"content": GROUP}).status_code == 201
    return store.runs.find(Kind.GROUP, 1)


def status_of(store: Store, run: Run) -> tuple[str, str | None]:
    """Its status and its last message."""
    count, _ = store.runs.statuses(run, limit=0, offset=0)
    _, rows = store.runs.statuses(run, limit=1, offset=count - 1)
    return store.runs.by_pk(run.pk).status, rows[0].message


# -- searches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["content", "config"])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_search(field: str, as_text: bool, api: Caller) -> None:
    body = {field: json.dumps(GROUP) if as_text else GROUP, "name": "search", "description": "d", "tags": ["a"]}
    answer = api.post(f"{G}/", body)
    assert answer.status_code == 201
    found = answer.json()
    assert (found["id"], found["name"], found["description"], found["tags"]) == (1, "search", "d", ["a"])
    assert (found["group_type"], found["search_algorithm"], found["concurrency"]) == ("study", "grid", 2)
    assert found["hptuning"] == {**GROUP["hptuning"], "grid_search": {}}
    assert (found["current_iteration"], found["has_tensorboard"], found["num_experiments"]) == (0, None, 0)
    assert isinstance(found["content"], str)
    assert api.get(f"{G}/1/").json() == {**found, "bookmarked": False}


def test_the_body_of_an_original_client(api: Caller) -> None:
    """Every key, including nulls, zeros and read-only keys."""
    nulls = "id uuid unique_name name user project description tags last_status created_at updated_at started_at"
    body: Json = dict.fromkeys(f"{nulls} finished_at total_run concurrency num_experiments experiments ttl".split())
    body |= {"content": json.dumps(GROUP), "is_managed": True, "has_tensorboard": False, "num_jobs": 0}
    made = api.post(f"{G}/", body)
    assert (made.status_code, made.json()["concurrency"]) == (201, 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- a", "Received non valid specification content."),
        ("kind: [", "Received non valid specification content."),
        ({**GROUP, "kind": "experiment"}, "Received non valid specification content."),
        ({**GROUP, "hptuning": {"matrix": {}}}, "Received non valid specification content."),
        ({**GROUP, "hptuning": {"concurrency": 0, **GROUP["hptuning"], "x": 1}}, "hptuning"),
        ({**GROUP, "hptuning": {"matrix": {"lr": {"uniform": "0:1"}}}}, "hptuning"),
        ({**GROUP, "hptuning": {"matrix": {"lr": {"values": [1], "range": "0:1:1"}}}}, "hptuning"),
        ({**GROUP, "run": {"cmd": "echo {{ 1 / 0 }}"}}, "run"),
        ({key: value for key, value in GROUP.items() if key != "build"}, "build"),
    ],
)
def test_invalid_searches(content: object, words: str, api: Caller) -> None:
    answer = api.post(f"{G}/", {"content": content})
    assert answer.status_code == 400
    assert list(answer.json()) == ["content"]
    assert any(words in message for message in answer.json()["content"])
    assert api.get(f"{G}/").json()["count"] == 0


def test_all_problems_are_reported_at_once(api: Caller) -> None:
    broken = {**GROUP, "hptuning": {"concurrency": "x", "matrix": {"lr": {"nosuch": 1}}}, "run": {"cmd": 5, "x": 1}}
    messages = api.post(f"{G}/", {"content": broken}).json()["content"]
    assert len(messages) >= 3


def test_without_anything_a_search_may_be_required(api: Caller) -> None:
    answer = api.post(f"{G}/", {"check_specification": True})
    assert (answer.status_code, answer.json()) == (400, ["Experiment Group expects a `content`."])


def test_the_numbers_of_a_group(api: Caller, search: Run, store: Store, trial: Callable[..., Run]) -> None:
    for status in (None, Status.SCHEDULED, Status.BUILDING, Status.RUNNING, Status.SUCCEEDED, Status.FAILED):
        run = trial(search)
        assert run.unique_name == f"root.quick-start.1.{run.id}"
        if status:
            store.runs.transition(run, status)
    store.runs.transition(trial(search), Status.STOPPED)
    store.runs.delete(trial(search))
    trial()
    numbers = {k.removeprefix("num_"): v for k, v in api.get(f"{G}/1/").json().items() if k.startswith("num_")}
    assert numbers == {
        "experiments": 7,
        "pending_experiments": 1,
        "running_experiments": 3,
        "scheduled_experiments": 1,
        "succeeded_experiments": 1,
        "failed_experiments": 1,
        "stopped_experiments": 1,
    }
    of_project = api.get(f"{P}/").json()
    assert (of_project["num_experiment_groups"], of_project["num_experiments"]) == (1, 8)
    assert of_project["num_independent_experiments"] == 1


def test_the_experiments_of_a_group(api: Caller, search: Run, store: Store, trial: Callable[..., Run]) -> None:
    inside, outside = trial(search, params={"lr": 0.1}), trial()

    def ids(query: str) -> list[int]:
        return sorted(item["id"] for item in api.get(f"{P}/experiments/?{query}").json()["results"])

    assert ids("group=1") == ids("query=group:1") == ids("query=group:root.quick-start.1") == [inside.id]
    assert ids("independent=true") == ids("query=independent:true") == [outside.id]
    assert ids("group=1&query=status:running") == []
    assert ids("group=1&query=params.lr:0.1") == [inside.id]
    assert api.get(f"{P}/experiments/1/").json()["experiment_group"] == "root.quick-start.1"
    assert api.get(f"{P}/experiments/?group=9").status_code == 404
    both = api.get(f"{P}/experiments/?group=1&independent=true")
    assert both.status_code == 400
    assert both.json() == ["You cannot filter for independent experiments and group experiments at the same time."]


def test_the_metrics_of_a_group(api: Caller, search: Run, store: Store, trial: Callable[..., Run]) -> None:
    first, second, other = trial(search), trial(search), trial()
    for number, run in enumerate((first, second, other)):
        store.metrics.add(run, [({"loss": float(number)}, None)])
    found = api.get(f"{G}/1/metrics/").json()
    assert [(item["experiment"], item["values"]) for item in found["results"]] == [
        (1, {"loss": 0.0}),
        (2, {"loss": 1.0}),
    ]
    assert found["count"] == 2
    sorted_by_loss = api.get(f"{P}/experiments/?group=1&sort=-metric.loss").json()["results"]
    assert [item["id"] for item in sorted_by_loss] == [2, 1]


def test_an_experiment_put_into_a_group(api: Caller, search: Run) -> None:
    made = api.post(f"{P}/experiments/", {"config": FILES[Kind.EXPERIMENT], "experiment_group": 1})
    assert (made.status_code, made.json()["unique_name"]) == (201, "root.quick-start.1.1")
    answer = api.post(f"{P}/experiments/", {"config": FILES[Kind.EXPERIMENT], "experiment_group": 9})
    assert (answer.status_code, answer.json()) == (400, ["Received an invalid group."])


def test_a_changed_group(api: Caller, search: Run) -> None:
    changed = api.patch(f"{G}/1/", {"name": "new", "description": "d", "tags": ["a"], "readme": "r"}).json()
    assert (changed["name"], changed["description"], changed["tags"], changed["readme"]) == ("new", "d", ["a"], "r")
    assert api.patch(f"{G}/1/", {"tags": ["b"], "merge": True}).json()["tags"] == ["a", "b"]
    assert api.patch(f"{G}/1/", {"content": "x", "last_status": "failed"}).json()["hptuning"]["concurrency"] == 2
    api.post(f"{G}/", {"content": GROUP, "name": "other"})
    assert api.patch(f"{G}/2/", {"name": "new"}).status_code == 400
    assert api.patch(f"{G}/1/", {"name": "new"}).json()["name"] == "new"
    assert api.post(f"{G}/", {"content": GROUP, "name": "new"}).json()["name"] == "new-1"


def test_the_history_of_a_group(api: Caller, search: Run, store: Store) -> None:
    store.runs.transition(search, Status.RUNNING, "off we go")
    found = api.get(f"{G}/1/statuses/").json()
    assert [item["status"] for item in found["results"]] == ["created", "running"]
    last = found["results"][-1]
    assert (last["message"], last["experiment_group"], last["details"], last["traceback"]) == (
        "off we go",
        1,
        None,
        None,
    )
    assert "job" not in last
    assert api.get(f"{G}/1/statuses/{last['uuid']}/").json() == last
    assert api.get(f"{G}/1/statuses/{'0' * 32}/").status_code == 404
    assert api.post(f"{G}/1/statuses/", {"status": "nosuch"}).json() == {"status": ['"nosuch" is not a valid choice.']}
    made = api.post(f"{G}/1/statuses/", {"status": "failed", "message": "m"})
    assert (made.status_code, made.json()["experiment_group"]) == (201, 1)
    assert api.post(f"{G}/1/statuses/", {"status": "running"}).status_code == 400


# -- stop and deletion ----------------------------------------------------------------------------------------------


@pytest.fixture
def members(search: Run, trial: Callable[..., Run], store: Store) -> list[Run]:
    """Experiments 1 to 4 of group 1: held, waiting, running, succeeded."""
    store.runs.transition(search, Status.RUNNING)
    made = [trial(search, is_held=True), trial(search), trial(search), trial(search)]
    store.runs.transition(made[2], Status.RUNNING, recorded={"container_id": "c"})
    store.runs.transition(made[3], Status.SUCCEEDED)
    return made


@pytest.mark.parametrize("body", [None, {"pending": False}, {"pending": "false"}])
def test_stopping_a_group(body: object, api: Caller, search: Run, members: list[Run], store: Store) -> None:
    answer = api.post(f"{G}/1/stop/", body)
    assert (answer.status_code, answer.content) == (200, b"")
    assert status_of(store, search) == ("stopped", "User stopped experiment group")
    assert status_of(store, members[0]) == ("stopped", "User stopped experiment group")
    assert status_of(store, members[1]) == ("stopped", "User stopped experiment group")
    assert store.runs.by_pk(members[2].pk).stop_requested_at
    assert status_of(store, members[3]) == ("succeeded", None)
    assert store.runs.by_pk(members[3].pk).stop_requested_at is None


def test_stopping_what_has_not_begun(api: Caller, search: Run, members: list[Run], store: Store) -> None:
    assert api.post(f"{G}/1/stop/", {"pending": True}).status_code == 200
    for run in members[:2]:
        assert status_of(store, run) == ("stopped", "User stopped pending experiments")
    running = store.runs.by_pk(members[2].pk)
    assert (running.status, running.stop_requested_at) == ("running", None)
    assert status_of(store, search)[0] == "stopped"


def test_stopping_a_finished_group(api: Caller, search: Run, store: Store) -> None:
    store.runs.transition(search, Status.SUCCEEDED)
    assert api.post(f"{G}/1/stop/").status_code == 200
    assert store.runs.by_pk(search.pk).status == "succeeded"
    assert api.post(f"{G}/9/stop/").status_code == 404


def test_stopping_a_group_stops_no_other(api: Caller, search: Run, store: Store, trial: Callable[..., Run]) -> None:
    api.post(f"{G}/", {"content": GROUP})
    others = [trial(store.runs.find(Kind.GROUP, 2)), trial()]
    api.post(f"{G}/1/stop/")
    for run in others:
        found = store.runs.by_pk(run.pk)
        assert (found.status, found.stop_requested_at) == ("created", None)


def test_deleting_a_group_deletes_its_experiments(
    api: Caller, search: Run, members: list[Run], trial: Callable[..., Run]
) -> None:
    trial()
    answer = api.delete(f"{G}/1/")
    assert (answer.status_code, answer.content) == (204, b"")
    assert api.get(f"{G}/1/").status_code == 404
    assert [item["id"] for item in api.get(f"{P}/experiments/").json()["results"]] == [5]
    assert api.get(f"{P}/").json()["num_experiment_groups"] == 0


# -- selections -----------------------------------------------------------------------------------------------------


def selected(api: Caller, group: int = 1) -> list[int]:
    found = api.get(f"{P}/experiments/?group={group}").json()
    assert api.get(f"{G}/{group}/").json()["num_experiments"] == found["count"]
    return sorted(item["id"] for item in found["results"])


def test_a_selection(api: Caller, trial: Callable[..., Run]) -> None:
    for _ in range(3):
        trial()
    made = api.post(f"{G}/", {"name": "best", "experiment_ids": [1, 3]})
    assert made.status_code == 201
    assert (made.json()["group_type"], made.json()["search_algorithm"]) == ("selection", None)
    assert (made.json()["num_experiments"], made.json()["content"], made.json()["hptuning"]) == (2, "", None)
    assert selected(api) == [1, 3]
    assert api.get(f"{P}/experiments/1/").json()["experiment_group"] is None  # it belongs to no search
    assert api.get(f"{P}/").json()["num_independent_experiments"] == 3


def test_an_empty_selection(api: Caller) -> None:
    made = api.post(f"{G}/")
    assert (made.status_code, made.json()["group_type"]) == (201, "selection")
    assert selected(api) == []


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_changing_a_selection(method: str, api: Caller, trial: Callable[..., Run]) -> None:
    for _ in range(4):
        trial()
    api.post(f"{G}/", {"experiment_ids": [1, 2]})

    def change(**body: object) -> list[int]:
        answer = api(method, f"{P}/selections/1/", json=body)
        assert (answer.status_code, answer.json()["id"]) == (200, 1)
        return selected(api)

    assert change(operation="add", experiment_ids=[2, 3]) == [1, 2, 3]
    assert change(operation="remove", experiment_ids=[1, 4]) == [2, 3]
    assert change(operation=None, experiment_ids=[4]) == [4]
    assert change(experiment_ids=[1, 2]) == [1, 2]
    assert change(experiment_ids=[]) == []
    assert api.get(f"{P}/experiments/").json()["count"] == 4


def test_a_selection_of_what_is_not_there(api: Caller, trial: Callable[..., Run], store: Store, root: User) -> None:
    trial()
    other = store.projects.create(root, {"name": "other"})
    store.runs.insert(other, root, NewRun(Kind.EXPERIMENT))
    store.runs.delete(trial())
    for ids in ([9], [1, 2], [1, 3]):  # missing, of another project, deleted
        answer = api.post(f"{G}/", {"experiment_ids": ids})
        assert (answer.status_code, answer.json()) == (400, ["Experiments selection is not valid."])
    assert api.get(f"{G}/").json()["count"] == 0
    api.post(f"{G}/", {"experiment_ids": [1]})
    answer = api.patch(f"{P}/selections/1/", {"experiment_ids": [1, 9]})
    assert (answer.status_code, answer.json()) == (400, ["Experiments selection is not valid."])
    assert selected(api) == [1]


def test_required_fields_of_a_change_of_a_selection(api: Caller, trial: Callable[..., Run]) -> None:
    trial()
    api.post(f"{G}/", {"experiment_ids": [1]})
    path = f"{P}/selections/1/"
    assert api.patch(path, {}).json() == {"experiment_ids": ["This field is required."]}
    assert api.patch(path, {"experiment_ids": "x"}).json() == {
        "experiment_ids": ['Expected a list of items but got type "str".']
    }
    assert api.patch(path, {"experiment_ids": [1], "operation": "x"}).json() == {
        "operation": ['"x" is not a valid choice.']
    }
    assert api.patch(path, {"experiment_ids": [1], "operation": "x"}).status_code == 400
    assert api.patch(f"{P}/selections/9/", {"experiment_ids": []}).status_code == 404
    assert selected(api) == [1]


def test_a_search_is_no_selection(api: Caller, search: Run) -> None:
    answer = api.patch(f"{P}/selections/1/", {"experiment_ids": []})
    assert (answer.status_code, answer.json()) == (400, ["This group is a not a selection."])


def test_deleting_a_selection_deletes_no_experiment(api: Caller, trial: Callable[..., Run]) -> None:
    trial()
    api.post(f"{G}/", {"experiment_ids": [1]})
    assert api.delete(f"{G}/1/").status_code == 204
    assert api.get(f"{P}/experiments/1/").status_code == 200


def test_a_selected_experiment_that_is_deleted_is_not_counted(api: Caller, trial: Callable[..., Run]) -> None:
    trial()
    trial()
    api.post(f"{G}/", {"experiment_ids": [1, 2]})
    api.delete(f"{P}/experiments/1/")
    assert selected(api) == [2]


def test_stopping_a_selection_does_not_lose_its_experiments(
    api: Caller, trial: Callable[..., Run], store: Store
) -> None:
    run = trial()
    api.post(f"{G}/", {"experiment_ids": [1]})
    assert api.post(f"{G}/1/stop/").status_code == 200
    assert selected(api) == [1]
    assert store.runs.by_pk(run.pk).status == "created"


# -- permissions ----------------------------------------------------------------------------------------------------


def test_access_of_other_users_to_a_group(as_ann: Caller, api: Caller, search: Run, store: Store) -> None:
    assert as_ann.get(f"{G}/1/").status_code == 200
    assert as_ann.get(f"{G}/1/metrics/").status_code == 200
    assert as_ann.post(f"{G}/1/bookmark/").status_code == 201
    refused = [
        as_ann.post(f"{G}/", {"content": GROUP}),
        as_ann.post(f"{G}/1/stop/"),
        as_ann.patch(f"{G}/1/", {"name": "x"}),
        as_ann.delete(f"{G}/1/"),
        as_ann.patch(f"{P}/selections/1/", {"experiment_ids": []}),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    assert store.runs.by_pk(search.pk).status == "created"
    api.patch(P, {"is_public": False})
    assert as_ann.get(f"{G}/1/").status_code == 403


def test_access_of_an_experiment_to_its_group(
    api: Caller, http: TestClient, search: Run, trial: Callable[..., Run], token_of: Callable[[Run], str]
) -> None:
    inside = Caller(http, token_of(trial(search)))
    assert inside.get(f"{G}/1/").status_code == 200
    assert inside.get(f"{G}/1/metrics/").status_code == 200
    for answer in (inside.post(f"{G}/1/stop/"), inside.patch(f"{G}/1/", {"name": "x"}), inside.delete(f"{G}/1/")):
        assert answer.status_code == 403
    assert inside.post(f"{G}/1/statuses/", {"status": "failed"}).status_code == 403
