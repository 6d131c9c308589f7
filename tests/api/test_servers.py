"""Notebooks and tensorboards: only one of each runs, and a running notebook protects the code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from polylocal.api.api_context import ApiContext
from polylocal.installation import Installation
from polylocal.settings import load
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import FILES, GROUP, Caller, Json, P, put_code, tar_of, upload

KINDS = [Kind.NOTEBOOK, Kind.TENSORBOARD]
pytestmark = pytest.mark.usefixtures("project")
each_kind = pytest.mark.parametrize("kind", KINDS)


def newest(store: Store, kind: Kind) -> Run:
    [run, *_] = store.runs.latest(store.users.get("root"), kind=kind, is_open=False, limit=1)
    return run


def runs_of(api: Caller, kind: Kind) -> list[int]:
    return [item["id"] for item in api.get(f"{P}/{kind.plural}/?sort=created_at").json()["results"]]


# -- start ----------------------------------------------------------------------------------------------------------


@each_kind
def test_the_default_image(kind: Kind, api: Caller, context: ApiContext) -> None:
    made = api.post(f"{P}/{kind}/start/")
    assert made.status_code == 201
    settings = context.settings
    image = settings.notebook_image if kind is Kind.NOTEBOOK else settings.tensorboard_image
    assert made.json()["config"]["build"]["image"] == image
    assert made.json()["url"] == f"/{kind}/root/quick-start/"
    assert (made.json()["last_status"], made.json()["user"]) == ("created", "root")


@each_kind
def test_without_a_default_image(
    kind: Kind, context: ApiContext, store: Store, root: User, serving: Callable[..., TestClient]
) -> None:
    settings = load(home=context.settings.home, notebook_image="", tensorboard_image="")
    api = Caller(
        serving(replace(context, installation=Installation(settings, context.store))), store.users.new_token(root)
    )
    answer = api.post(f"{P}/{kind}/start/")
    assert answer.status_code == 400
    assert answer.json() == [f"Please provide a polyaxonfile, or set a default {kind} image."]
    assert api.post(f"{P}/{kind}/start/", {"content": FILES[kind]}).status_code == 201


@each_kind
@pytest.mark.parametrize("field", ["config", "content"])
def test_with_a_polyaxonfile(kind: Kind, field: str, api: Caller) -> None:
    body = {field: {**FILES[kind], "name": "mine", "tags": ["a"]}, "is_managed": True, "description": "d"}
    found = api.post(f"{P}/{kind}/start/", body).json()
    assert (found["name"], found["tags"], found["description"]) == ("mine", ["a"], "d")
    assert found["config"]["build"]["image"] == FILES[kind]["build"]["image"]
    assert isinstance(found["content"], str)


@each_kind
def test_with_a_wrong_polyaxonfile(kind: Kind, api: Caller) -> None:
    for content in (FILES[Kind.JOB], "kind: [", {**FILES[kind], "build": {"image": []}}, {**FILES[kind], "nosuch": 1}):
        answer = api.post(f"{P}/{kind}/start/", {"content": content})
        assert answer.status_code == 400
        assert list(answer.json()) == ["content"]
        words = f"Received non valid {kind} specification config."
        assert all(message.startswith(words) for message in answer.json()["content"])
    assert runs_of(api, kind) == []


@each_kind
def test_one_at_a_time(kind: Kind, api: Caller, store: Store) -> None:
    first = api.post(f"{P}/{kind}/start/").json()
    for status in (Status.SCHEDULED, Status.RUNNING):
        store.runs.transition(newest(store, kind), status)
        again = api.post(f"{P}/{kind}/start/", {"content": "not looked at"})
        assert (again.status_code, again.json()["id"]) == (200, first["id"])
    store.runs.transition(newest(store, kind), Status.FAILED)
    anew = api.post(f"{P}/{kind}/start/")
    assert (anew.status_code, anew.json()["id"]) == (201, 2)
    assert runs_of(api, kind) == [1, 2]


@each_kind
def test_many_clicks_at_once_are_one_start(kind: Kind, live_api: Caller, live: str) -> None:
    clicks = 8
    together = threading.Barrier(clicks)

    def click(_: int) -> int:
        together.wait()
        return live_api.post(f"{P}/{kind}/start/").status_code

    with ThreadPoolExecutor(clicks) as pool:
        statuses = sorted(pool.map(click, range(clicks)))
    assert statuses == [*[200] * (clicks - 1), 201]
    assert runs_of(live_api, kind) == [1]


@each_kind
def test_each_project_has_its_own(kind: Kind, api: Caller, store: Store, root: User) -> None:
    store.projects.create(root, {"name": "other"})
    api.post(f"{P}/{kind}/start/")
    made = api.post(f"/api/v1/root/other/{kind}/start/")
    assert (made.status_code, made.json()["unique_name"]) == (201, f"root.other.{kind}s.2")


def test_tensorboards_of_three_scopes(api: Caller, store: Store, project: Project, root: User) -> None:
    store.runs.insert(project, root, NewRun(Kind.EXPERIMENT))
    api.post(f"{P}/groups/", {"content": GROUP})
    scopes = {"": (None, None), "experiments/1/": (None, 1), "groups/1/": (1, None)}
    for number, (scope, about) in enumerate(scopes.items(), 1):
        made = api.post(f"{P}/{scope}tensorboard/start/")
        assert (made.status_code, made.json()["id"]) == (201, number)
        assert (made.json()["experiment_group"], made.json()["experiment"]) == about
        assert made.json()["url"] == f"/tensorboard/root/quick-start/{scope}"
        assert api.post(f"{P}/{scope}tensorboard/start/").status_code == 200
    listed = {item["id"]: (item["experiment_group"], item["experiment"]) for item in tensorboards(api)}
    assert listed == dict(enumerate(scopes.values(), 1))
    assert [item["id"] for item in tensorboards(api, "?query=experiment:1")] == [2]
    assert [item["id"] for item in tensorboards(api, "?query=group:1")] == [3]
    assert api.post(f"{P}/experiments/1/tensorboard/stop/").status_code == 200
    stopped = {
        run.id for run in store.runs.latest(root, kind=Kind.TENSORBOARD, is_open=True, limit=9) if run.stop_requested_at
    }
    assert stopped == {2}
    for scope in ("experiments/9/", "groups/9/"):
        assert api.post(f"{P}/{scope}tensorboard/start/").status_code == 404
        assert api.post(f"{P}/{scope}tensorboard/stop/").status_code == 404


def tensorboards(api: Caller, query: str = "") -> list[Json]:
    found: list[Json] = api.get(f"{P}/tensorboards/{query}").json()["results"]
    return found


def test_the_tensorboards_in_details_of_objects(api: Caller, store: Store, project: Project, root: User) -> None:
    """Null before the first one, true while one exists, false afterwards."""
    store.runs.insert(project, root, NewRun(Kind.EXPERIMENT))
    api.post(f"{P}/groups/", {"content": GROUP})
    for scope in ("", "experiments/1/", "groups/1/"):

        def said(scope: str = scope) -> tuple[bool | None, int | None]:
            found = api.get(f"{P}/{scope}").json()
            return found["has_tensorboard"], found["tensorboard"]

        assert said() == (None, None)
        number = api.post(f"{P}/{scope}tensorboard/start/").json()["id"]
        store.runs.transition(newest(store, Kind.TENSORBOARD), Status.RUNNING)
        assert said() == (True, number)
        store.runs.transition(newest(store, Kind.TENSORBOARD), Status.STOPPED)
        assert said() == (False, number)


def test_the_notebook_in_details_of_a_project(api: Caller, store: Store) -> None:
    def said() -> tuple[bool | None, int | None]:
        found = api.get(f"{P}/").json()
        return found["has_notebook"], found["notebook"]

    assert said() == (None, None)
    api.post(f"{P}/notebook/start/")
    store.runs.transition(newest(store, Kind.NOTEBOOK), Status.RUNNING)
    assert said() == (True, 1)
    store.runs.transition(newest(store, Kind.NOTEBOOK), Status.STOPPED)
    assert said() == (False, 1)


# -- stop -----------------------------------------------------------------------------------------------------------


@each_kind
def test_stopping(kind: Kind, api: Caller, store: Store) -> None:
    api.post(f"{P}/{kind}/start/")
    assert newest(store, kind).stop_requested_at is None
    for _ in range(2):
        answer = api.post(f"{P}/{kind}/stop/")
        assert (answer.status_code, answer.content) == (200, b"")
    assert newest(store, kind).stop_requested_at


@each_kind
def test_stopping_what_is_not_there(kind: Kind, api: Caller, store: Store) -> None:
    assert api.post(f"{P}/{kind}/stop/").status_code == 200
    api.post(f"{P}/{kind}/start/")
    store.runs.transition(newest(store, kind), Status.SUCCEEDED)
    assert api.post(f"{P}/{kind}/stop/").status_code == 200
    assert newest(store, kind).stop_requested_at is None


@each_kind
def test_stopping_by_number(kind: Kind, api: Caller, store: Store) -> None:
    api.post(f"{P}/{kind}/start/")
    assert api.post(f"{P}/{kind.plural}/1/stop/").status_code == 200
    assert newest(store, kind).stop_requested_at
    assert api.post(f"{P}/{kind.plural}/2/stop/").status_code == 404


@pytest.mark.parametrize(
    ("body", "keeps"), [(None, True), ({}, True), ({"commit": True}, True), ({"commit": False}, False)]
)
def test_commit_or_discard_of_a_notebooks_changes(body: object, keeps: bool, api: Caller, store: Store) -> None:
    api.post(f"{P}/notebook/start/")
    assert api.post(f"{P}/notebook/stop/", body).status_code == 200
    assert newest(store, Kind.NOTEBOOK).keeps_changes is keeps


def test_an_invalid_commit_flag_stops_nothing(api: Caller, store: Store) -> None:
    api.post(f"{P}/notebook/start/")
    answer = api.post(f"{P}/notebook/stop/", {"commit": "perhaps"})
    assert (answer.status_code, answer.json()) == (400, {"commit": ["Must be a valid boolean."]})
    assert newest(store, Kind.NOTEBOOK).stop_requested_at is None


def test_a_notebook_that_is_being_stopped_is_not_started(api: Caller, store: Store) -> None:
    """Its changes are being committed to the code."""
    api.post(f"{P}/notebook/start/")
    api.post(f"{P}/notebook/stop/")
    answer = api.post(f"{P}/notebook/start/")
    assert answer.status_code == 400
    assert runs_of(api, Kind.NOTEBOOK) == [1]


def test_a_tensorboard_that_is_being_stopped_is_followed_by_a_new_one(api: Caller) -> None:
    api.post(f"{P}/tensorboard/start/")
    api.post(f"{P}/tensorboard/stop/")
    assert api.post(f"{P}/tensorboard/start/").json()["id"] == 2
    assert api.post(f"{P}/tensorboard/start/").json()["id"] == 2


# -- the code of a project with a notebook --------------------------------------------------------------------------

REFUSED = {
    "detail": "The Project `quick-start` is currently running a Notebook."
    " You must stop it before uploading a new version of the code."
}


def test_code_is_not_changed_under_a_notebook(api: Caller, context: ApiContext, project: Project, store: Store) -> None:
    commit = put_code(context, project, {"a.py": "1"})
    api.post(f"{P}/notebook/start/")
    for status in (None, Status.RUNNING):
        if status:
            store.runs.transition(newest(store, Kind.NOTEBOOK), status)
        for answer in (
            upload(api, {"a.py": "2"}),
            api.put(f"{P}/repo/upload/", files={"repo": ("x", tar_of({"b": "1"})), "json": (None, '{"sync": true}')}),
            api.post(f"{P}/repo/external/", {"git_url": "http://127.0.0.1:1/x.git"}),
            api.delete(f"{P}/repo/"),
        ):
            assert answer.status_code == 403
            assert "Notebook" in answer.json()["detail"] or "uploaded" in answer.json()["detail"]
    assert upload(api, {"a.py": "2"}).json() == REFUSED
    assert context.repository(project).resolve("HEAD") == commit
    store.runs.transition(newest(store, Kind.NOTEBOOK), Status.STOPPED)
    assert upload(api, {"a.py": "2"}).status_code == 200


def test_code_is_changed_beside_a_tensorboard(api: Caller) -> None:
    api.post(f"{P}/tensorboard/start/")
    assert upload(api, {"a.py": "2"}).status_code == 200


# -- details, changes, deletion -------------------------------------------------------------------------------------


@each_kind
def test_the_rest_of_a_life(kind: Kind, api: Caller, store: Store) -> None:
    made = api.post(f"{P}/{kind}/start/").json()
    one = f"{P}/{kind.plural}/1/"
    assert api.get(one).json() == made
    assert api.patch(one, {"name": "x", "tags": ["a"]}).json()["name"] == "x"
    assert [item["status"] for item in api.get(f"{one}statuses/").json()["results"]] == ["created"]
    assert api.get(f"{one}statuses/").json()["results"][0]["job"] == 1
    assert api.get(f"{one}coderef/").status_code == 200
    assert api.get(f"{one}logs/").status_code == 404
    assert api.get(f"{P}/{kind.plural}/?query=name:x").json()["count"] == 1
    assert (api.delete(one).status_code, api.get(one).status_code) == (204, 404)
    assert runs_of(api, kind) == []
    assert newest_deleted(store, made["uuid"]).deleted_at


def newest_deleted(store: Store, uuid: str) -> Run:
    found = store.runs.by_uuid(uuid)
    assert found
    return found


@each_kind
def test_a_deleted_one_is_followed_by_a_new_one(kind: Kind, api: Caller) -> None:
    api.post(f"{P}/{kind}/start/")
    api.delete(f"{P}/{kind.plural}/1/")
    made = api.post(f"{P}/{kind}/start/")
    assert (made.status_code, made.json()["id"]) == (201, 2)


@each_kind
def test_an_item_of_the_list(kind: Kind, api: Caller) -> None:
    api.post(f"{P}/{kind}/start/")
    [item] = api.get(f"{P}/{kind.plural}/").json()["results"]
    assert {"id", "uuid", "unique_name", "pod_id", "build_job", "node_scheduled", "last_status", "project"} <= set(item)
    assert ("experiment_group" in item) is (kind is Kind.TENSORBOARD)
    assert "backend" in item
    assert item["pod_id"] is None


# -- permissions ----------------------------------------------------------------------------------------------------


@each_kind
def test_others_look_at_the_list_and_start_nothing(kind: Kind, as_ann: Caller, api: Caller, store: Store) -> None:
    api.post(f"{P}/{kind}/start/")
    assert as_ann.get(f"{P}/{kind.plural}/").json()["count"] == 1
    for path in (f"{P}/{kind}/start/", f"{P}/{kind}/stop/", f"{P}/{kind.plural}/1/stop/"):
        assert as_ann.post(path).status_code == 403
    assert newest(store, kind).stop_requested_at is None
    api.patch(P, {"is_public": False})
    assert as_ann.get(f"{P}/{kind.plural}/").status_code == 403


@each_kind
def test_a_run_starts_and_stops_none(kind: Kind, as_job: Caller, api: Caller, store: Store) -> None:
    assert as_job.post(f"{P}/{kind}/start/").status_code == 403
    api.post(f"{P}/{kind}/start/")
    assert as_job.post(f"{P}/{kind}/stop/").status_code == 403
    assert newest(store, kind).stop_requested_at is None


def test_a_notebooks_own_token(
    api: Caller, http: TestClient, store: Store, token_of: Callable[[Run], str], make_job: Callable[..., Run]
) -> None:
    path = f"{P}/notebook/impersonatetoken/"
    assert api.post(path).status_code == 403
    api.post(f"{P}/notebook/start/")
    notebook = newest(store, Kind.NOTEBOOK)
    store.runs.transition(notebook, Status.RUNNING)
    token = token_of(notebook)
    headers = {"Authorization": f"Internaltoken {token}", "X-POLYAXON-INTERNAL": "initializer"}
    answer = Caller(http)("POST", path, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"token": token})
    assert Caller(http, token_of(make_job())).post(path).status_code == 403
    assert api.post(path).status_code == 403
