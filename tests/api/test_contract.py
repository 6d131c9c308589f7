"""The documented answers, key by key: `contract/*.json` are the documents' own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsDatetime, IsInstance, IsInt, IsList, IsStr

from polylocal.api.api_context import ApiContext
from polylocal.planning import dockerfile
from polylocal.polyaxonfile import Build
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run
from polylocal.store.runs import build_key

from .conftest import Caller, Json, P, put_code

CONTRACT = Path(__file__).with_name("contract")
UUID = IsStr(regex=r"[0-9a-f]{32}")
TIME = IsStr(regex=r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d") & IsDatetime(iso_string=True)
OPTIONAL = {
    "name": IsStr | None,
    "description": IsStr | None,
    "tags": IsList(length=...) | None,
    "started_at": TIME | None,
    "finished_at": TIME | None,
    "resources": IsInstance(dict) | None,
    "node_scheduled": IsStr | None,
    "dockerfile": IsStr | None,
    "commit": IsStr(regex="[0-9a-f]{40}") | None,
    "build_job": IsStr(regex=r"root\.quick-start\.builds\.\d+") | None,
    "original": IsStr(regex=r"root\.quick-start\.jobs\.\d+") | None,
    "original_experiment": IsInt(ge=1) | None,
    "experiment_group": IsStr(regex=r"root\.quick-start\.\d+") | IsInt(ge=1) | None,
    "experiment": IsInt(ge=1) | None,
    "config": IsInstance(dict) | None,
    "declarations": IsInstance(dict) | None,
    "pod_id": IsStr(regex=r"plx-[a-z]+-[0-9a-f]{32}") | None,
    "has_tensorboard": IsInstance(bool) | None,
    "has_notebook": IsInstance(bool) | None,
    "message": IsStr | None,
    "details": IsInstance(dict) | None,
    "next": None,
    "previous": None,
}
NODE = "gke-cluster-1-default-pool-65d093c7-7hk4"


def documented(name: str) -> Json:
    found: Json = json.loads((CONTRACT / f"{name}.json").read_text())
    return found


def check(answer: object, document: Json) -> None:
    """The documented keys come first, in the documented order, and each value is of the documented type."""
    assert isinstance(answer, dict)
    assert list(answer)[: len(document)] == list(document)
    for name, example in document.items():
        if name == "results":
            for item, example_item in zip(answer[name], example, strict=True):
                check(item, {**example[0], **example_item})  # the documents' later entries leave some keys out
        else:
            assert {name: answer[name]} == {name: _type_of(name, example)}


def _type_of(name: str, example: object) -> Any:
    if name in OPTIONAL:
        return OPTIONAL[name]
    if name == "uuid":
        return UUID
    if isinstance(example, str) and re.match(r"\d{4}-\d\d-\d\dT", example):
        return TIME
    if isinstance(example, bool) or not isinstance(example, int):
        return IsInstance(type(example))
    return IsInt(ge=0)


def same(answer: Mapping[str, Any], document: Json, *names: str) -> None:
    """These values are reproduced exactly, in the same order where they have one."""
    for name in names:
        assert json.dumps({name: answer[name]}) == json.dumps({name: document[name]})


@pytest.fixture
def quick_start(context: ApiContext, project: Project) -> Project:
    """The documents' project, with code."""
    put_code(context, project, {"train.py": "print(1)\n"})
    return project


def make_build(api: Caller, store: Store, context: ApiContext, document: Json) -> Run:
    """The documents' first build, brought to its end as the runner does it."""
    made = api.post(f"{P}/builds/", {"config": document["config"]})
    assert made.status_code == 201
    run = store.runs.find(Kind.BUILD, made.json()["id"])
    text = dockerfile.render(Build(**document["config"]["build"]), {"train.py"}, context.settings.lang_env)
    store.runs.record(run, dockerfile=text, node=NODE)
    return live_through(store, run)


def live_through(store: Store, run: Run) -> Run:
    for status, message in (
        (Status.SCHEDULED, None),
        (Status.BUILDING, "PodInitializing"),
        (Status.RUNNING, None),
        (Status.SUCCEEDED, "Completed"),
    ):
        assert store.runs.transition(run, status, message)
    return store.runs.by_pk(run.pk)


def make_job(api: Caller, store: Store, project: Project) -> Run:
    """The documents' first job, whose build is the second one."""
    config = documented("job_get")["config"]
    api.post(f"{P}/builds/", {"config": {"version": 1, "kind": "build", "build": {"image": "busybox"}}})
    made = api.post(f"{P}/jobs/", {"config": config})
    assert made.status_code == 201
    run = store.runs.find(Kind.JOB, made.json()["id"])
    build_config = {"build": config["build"], "version": 1, "kind": "build"}
    key = build_key(project.id, build_config, run.commit)
    build = NewRun(Kind.BUILD, config=build_config, build_key=key, code_id=run.code_id)
    live_through(store, store.queue.attach_build(run, build, anew=False))
    store.runs.record(run, node=NODE)
    store.runs.transition(run, Status.SCHEDULED)
    store.runs.transition(run, Status.RUNNING)
    store.runs.transition(run, Status.SUCCEEDED, "Completed")
    return store.runs.by_pk(run.pk)


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("name", ["build_get", "build_2_get"])
def test_a_build(name: str, api: Caller, store: Store, context: ApiContext) -> None:
    document = documented(name)
    make_build(api, store, context, document)
    answer = api.get(f"{P}/builds/1")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    check(answer.json(), document)
    same(answer.json(), document, "id", "unique_name", "user", "name", "description", "tags", "last_status", "project")
    same(answer.json(), document, "config", "resources", "node_scheduled", "num_jobs", "dockerfile", "bookmarked")
    assert answer.json()["commit"] == IsStr(regex="[0-9a-f]{40}")
    assert answer.json()["started_at"] < answer.json()["finished_at"]


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("name", ["build_update", "build_2_update"])
def test_a_changed_build(name: str, api: Caller, store: Store, context: ApiContext) -> None:
    document = documented(name)
    run = make_build(api, store, context, document)
    answer = api.patch(f"{P}/builds/1/", {"description": "new description"})
    assert answer.status_code == 200
    check(answer.json(), document)
    same(answer.json(), document, "id", "name", "tags", "last_status", "config", "dockerfile", "bookmarked")
    assert answer.json()["description"] == "new description"
    assert answer.json()["updated_at"] > run.updated_at
    assert answer.json() == api.get(f"{P}/builds/1").json()


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("name", ["build_statuses", "build_2_statuses"])
def test_the_statuses_of_a_build(name: str, api: Caller, store: Store, context: ApiContext) -> None:
    make_build(api, store, context, documented("build_get"))
    answer = api.get(f"{P}/builds/1/statuses")
    assert answer.status_code == 200
    check_statuses(answer.json(), documented(name))


def check_statuses(answer: Json, document: Json) -> None:
    check(answer, document)
    same(answer, document, "count", "next", "previous")
    for item, example in zip(answer["results"], document["results"], strict=True):
        assert (item["status"], item["message"], item["job"]) == (example["status"], example["message"], 1)
        assert item["details"] is None
    moments = [item["created_at"] for item in answer["results"]]
    assert moments == sorted(moments)
    assert len({item["uuid"] for item in answer["results"]}) == 5


def test_details_of_a_status_are_an_object(api: Caller, store: Store, a_job: Run) -> None:
    store.runs.transition(a_job, Status.FAILED, "broken", details={"exit_code": 3})
    last = api.get(f"{P}/jobs/1/statuses").json()["results"][-1]
    assert (last["message"], last["details"]) == ("broken", {"exit_code": 3})


def test_a_build_just_made(quick_start: Project, api: Caller) -> None:
    document = documented("build_create")
    api.post(f"{P}/builds", {"config": documented("build_get")["config"]})
    answer = api.post(f"{P}/builds", {"config": documented("build_get")["config"]})
    assert answer.status_code == 201
    check(answer.json(), document)
    same(answer.json(), document, "id", "unique_name", "user", "name", "description", "tags", "project")
    assert answer.json()["last_status"] == "created"
    assert answer.json()["dockerfile"] is None


def test_the_list_of_builds(quick_start: Project, api: Caller) -> None:
    document = documented("build_list")
    for _ in range(2):
        api.post(f"{P}/builds", {"config": documented("build_get")["config"]})
    answer = api.get(f"{P}/builds")
    assert answer.status_code == 200
    check(answer.json(), document)
    same(answer.json(), document, "count", "next", "previous")
    for item, example in zip(answer.json()["results"], document["results"], strict=True):
        same(item, example, "id", "unique_name", "user", "project")


@pytest.mark.parametrize("name", ["job_get", "job_update"])
def test_a_job(name: str, quick_start: Project, api: Caller, store: Store) -> None:
    document = documented(name)
    make_job(api, store, quick_start)
    answer = (
        api.get(f"{P}/jobs/1") if name == "job_get" else api.patch(f"{P}/jobs/1/", {"description": "new description"})
    )
    assert answer.status_code == 200
    check(answer.json(), document)
    same(answer.json(), document, "id", "unique_name", "user", "name", "last_status", "tags", "project", "build_job")
    same(answer.json(), document, "is_clone", "original", "config", "resources", "node_scheduled", "bookmarked")
    assert answer.json()["description"] == (None if name == "job_get" else "new description")


def test_the_statuses_of_a_job(quick_start: Project, api: Caller, store: Store) -> None:
    api.post(f"{P}/jobs/", {"config": documented("job_get")["config"]})
    live_through(store, store.runs.find(Kind.JOB, 1))
    answer = api.get(f"{P}/jobs/1/statuses")
    assert answer.status_code == 200
    check_statuses(answer.json(), documented("job_statuses"))


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_a_job_run_again(how: str, quick_start: Project, api: Caller, store: Store) -> None:
    document = documented(f"job_{how}")
    make_job(api, store, quick_start)
    answer = api.post(f"{P}/jobs/1/{how}")
    assert answer.status_code == 201
    same(answer.json(), document, "unique_name", "user", "name", "description", "project", "original", "config", "tags")
    assert answer.json()["is_clone"] is True  # the documents say false beside an original: a slip of theirs
    assert (answer.json()["id"], answer.json()["last_status"]) == (2, "created")
    assert answer.json()["cloning_strategy"] == how


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_the_order_of_the_keys_of_a_job_run_again(how: str, quick_start: Project, api: Caller, store: Store) -> None:
    make_job(api, store, quick_start)
    check(api.post(f"{P}/jobs/1/{how}").json(), documented(f"job_{how}"))


def test_a_job_just_made(quick_start: Project, api: Caller) -> None:
    document = documented("job_create")
    api.post(f"{P}/jobs", {"config": documented("job_get")["config"]})
    answer = api.post(f"{P}/jobs", {"config": documented("job_get")["config"]})
    assert answer.status_code == 201
    check(answer.json(), document)
    same(answer.json(), document, "id", "unique_name", "user", "name", "description", "tags", "project")
    assert (answer.json()["build_job"], answer.json()["last_status"]) == (None, "created")


def test_the_list_of_jobs(quick_start: Project, api: Caller, store: Store) -> None:
    document = documented("job_list")
    for _ in range(2):
        api.post(f"{P}/jobs", {"config": documented("job_get")["config"]})
    answer = api.get(f"{P}/jobs")
    assert answer.status_code == 200
    check(answer.json(), document)
    assert [item["unique_name"] for item in answer.json()["results"]] == [
        "root.quick-start.jobs.2",
        "root.quick-start.jobs.1",
    ]
    assert answer.json()["count"] == 2


def test_the_list_of_projects(api: Caller) -> None:
    document = documented("project_list")
    api.post("/api/v1/projects", {"name": "quick-start"})
    api.post("/api/v1/projects", {"name": "foo", "description": "foo"})
    answer = api.get("/api/v1/root")
    assert answer.status_code == 200
    check(answer.json(), document)
    same(answer.json(), document, "count", "next", "previous")
    for item, example in zip(answer.json()["results"], document["results"], strict=True):
        same(item, example, "user", "name", "unique_name", "description", "tags", "is_public")


def test_a_project_just_made(api: Caller) -> None:
    document = documented("project_create")
    answer = api.post("/api/v1/projects", {"name": "foo", "description": "foo"})
    assert answer.status_code == 201
    check(answer.json(), document)
    same(answer.json(), document, "user", "unique_name", "description", "tags", "is_public")
    assert answer.json()["id"] == 1


@pytest.mark.parametrize("name", ["project_get", "project_update"])
def test_a_project(name: str, quick_start: Project, api: Caller) -> None:
    document = documented(name)
    for _ in range(5):
        api.post(f"{P}/jobs/", {"config": documented("job_get")["config"]})
    for _ in range(2):
        api.post(f"{P}/builds/", {"config": documented("build_get")["config"]})
    answer = api.get(P) if name == "project_get" else api.patch(P, {"description": "new description"})
    assert answer.status_code == 200
    check(answer.json(), document)
    same(answer.json(), document, "user", "name", "unique_name", "description", "tags", "is_public", "has_code")
    same(answer.json(), document, "has_tensorboard", "has_notebook", "num_jobs", "num_builds", "bookmarked")


@pytest.mark.usefixtures("root")
def test_a_project_without_code_says_so(api: Caller) -> None:
    api.post("/api/v1/projects", {"name": "quick-start"})
    assert api.get(P).json()["has_code"] is False


def test_empty_lists(api: Caller, project: Project) -> None:
    for path in (f"{P}/jobs", f"{P}/builds"):
        assert api.get(path).json() == {"count": 0, "next": None, "previous": None, "results": []}


# -- groups, experiments, notebooks, tensorboards, bookmarks --------------------------------------------------------

SEARCH = {
    "version": 1,
    "kind": "group",
    "hptuning": {"concurrency": 5, "random_search": {"n_experiments": 10}, "matrix": {"lr": {"uniform": "0:1"}}},
    "build": {"image": "busybox"},
    "run": {"cmd": "echo {{ lr }}"},
}


def make_second_group(api: Caller) -> Json:
    """The documents' group is their second one."""
    for _ in range(2):
        made = api.post(f"{P}/groups", {"content": json.dumps(SEARCH)})
        assert made.status_code == 201
    found: Json = made.json()
    return found


def test_the_list_of_groups(quick_start: Project, api: Caller, store: Store) -> None:
    document = documented("group_list")
    make_second_group(api)
    store.runs.delete(store.runs.find(Kind.GROUP, 1))
    group = store.runs.find(Kind.GROUP, 2)
    store.runs.transition(group, Status.RUNNING)
    store.runs.transition(group, Status.SUCCEEDED)
    answer = api.get(f"{P}/groups")
    assert answer.status_code == 200
    check(answer.json(), document)
    same(answer.json(), document, "count", "next", "previous")
    [item], [example] = answer.json()["results"], document["results"]
    same(item, example, "id", "name", "unique_name", "user", "description", "last_status", "project", "tags")
    same(item, example, "concurrency", "search_algorithm")


def test_a_group_just_made(quick_start: Project, api: Caller) -> None:
    document = documented("group_create")
    made = make_second_group(api)
    check(made, document)
    same(made, document, "id", "name", "unique_name", "user", "description", "project", "tags")
    same(made, document, "concurrency", "search_algorithm")
    assert made["last_status"] == "created"


@pytest.mark.usefixtures("quick_start")
def test_the_list_of_experiments(api: Caller) -> None:
    document = documented("experiment_list")
    content = {"version": 1, "kind": "experiment", "build": {"image": "busybox"}, "run": {"cmd": "date"}}
    for _ in range(2):
        assert api.post(f"{P}/experiments", {"config": content}).status_code == 201
    answer = api.get(f"{P}/experiments")
    assert answer.status_code == 200
    check(answer.json(), document)
    for item, example in zip(answer.json()["results"], document["results"], strict=True):
        same(item, example, "name", "user", "description", "original", "project", "experiment_group", "tags")


@pytest.mark.usefixtures("quick_start")
def test_an_experiment_just_made(api: Caller) -> None:
    document = documented("experiment_create")
    answer = api.post(f"{P}/experiments", {"name": "new-1", "description": "my new experiment"})
    assert answer.status_code == 201
    check(answer.json(), document)
    same(answer.json(), document, "name", "description", "original_experiment", "config", "declarations", "tags")


@pytest.mark.usefixtures("quick_start")
def test_the_list_of_tensorboards(api: Caller, store: Store) -> None:
    document = documented("tensorboard_list")
    assert api.post(f"{P}/tensorboard/start").status_code == 201
    store.runs.transition(store.runs.find(Kind.TENSORBOARD, 1), Status.RUNNING)
    answer = api.get(f"{P}/tensorboards")
    assert answer.status_code == 200
    check(answer.json(), document)
    same(answer.json(), document, "count", "next", "previous")
    [item], [example] = answer.json()["results"], document["results"]
    same(item, example, "id", "name", "unique_name", "user", "description", "last_status", "tags", "project")
    same(item, example, "experiment_group", "experiment")


STARTED = ["id", "user", "name", "description", "project", "unique_name", "content", "pod_id", "build_job"]
STARTED += ["last_status", "tags"]


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("kind", ["notebook", "tensorboard"])
def test_a_notebook_and_a_tensorboard_just_started(kind: str, api: Caller) -> None:
    """Clients look at the status code: 201 for a new one, 200 for the one that is there, and the object of both."""
    made, again = (api.post(f"{P}/{kind}/start/") for _ in range(2))
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()
    assert set(STARTED) <= set(made.json())
    assert made.json()["unique_name"] == f"root.quick-start.{kind}s.1"
    stopped = api.post(f"{P}/{kind}/stop/")
    assert (stopped.status_code, stopped.content) == (200, b"")
    assert "content-type" not in stopped.headers


@pytest.mark.usefixtures("quick_start")
def test_bookmarked_things(api: Caller, store: Store) -> None:
    """As in lists, but for `bookmarked` itself."""
    make_second_group(api)
    documents = {"projects": "project_list", "groups": "group_list"}
    for path in (P, f"{P}/groups/2"):
        marked = api.post(f"{path}/bookmark/")
        assert (marked.status_code, marked.content) == (201, b"")
    for word, name in documents.items():
        found = api.get(f"/api/v1/bookmarks/root/{word}/").json()
        assert (found["count"], found["next"], found["previous"]) == (1, None, None)
        [item] = found["results"]
        assert list(item) == ["content_object"]
        check(item["content_object"], documented(name)["results"][0])
        assert "bookmarked" not in item["content_object"]
    for path in (P, f"{P}/groups/2"):
        gone = api.delete(f"{path}/unbookmark/")
        assert (gone.status_code, gone.content) == (204, b"")
    for word in documents:
        assert api.get(f"/api/v1/bookmarks/root/{word}/").json()["results"] == []
