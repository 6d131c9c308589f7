"""The documented answers, key by key: `contract/*.json` are the documents' own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsDatetime, IsInstance, IsInt, IsList, IsStr

from polylocal.api.services import Services
from polylocal.polyaxonfile import Build
from polylocal.runner import dockerfile
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
def quick_start(services: Services, project: Project) -> Project:
    """The documents' project, with code."""
    put_code(services, project, {"train.py": "print(1)\n"})
    return project


def make_build(api: Caller, store: Store, services: Services, document: Json) -> Run:
    """The documents' first build, brought to its end as the runner does it."""
    made = api.post(f"{P}/builds/", {"config": document["config"]})
    assert made.status_code == 201
    run = store.runs.find(Kind.BUILD, made.json()["id"])
    text = dockerfile.render(Build(**document["config"]["build"]), {"train.py"}, services.settings.lang_env)
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
    live_through(store, store.runs.attach_build(run, build, anew=False))
    store.runs.record(run, node=NODE)
    store.runs.transition(run, Status.SCHEDULED)
    store.runs.transition(run, Status.RUNNING)
    store.runs.transition(run, Status.SUCCEEDED, "Completed")
    return store.runs.by_pk(run.pk)


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("name", ["build_get", "build_2_get"])
def test_a_build(name: str, api: Caller, store: Store, services: Services) -> None:
    document = documented(name)
    make_build(api, store, services, document)
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
def test_a_changed_build(name: str, api: Caller, store: Store, services: Services) -> None:
    document = documented(name)
    run = make_build(api, store, services, document)
    answer = api.patch(f"{P}/builds/1/", {"description": "new description"})
    assert answer.status_code == 200
    check(answer.json(), document)
    same(answer.json(), document, "id", "name", "tags", "last_status", "config", "dockerfile", "bookmarked")
    assert answer.json()["description"] == "new description"
    assert answer.json()["updated_at"] > run.updated_at
    assert answer.json() == api.get(f"{P}/builds/1").json()


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("name", ["build_statuses", "build_2_statuses"])
def test_the_statuses_of_a_build(name: str, api: Caller, store: Store, services: Services) -> None:
    make_build(api, store, services, documented("build_get"))
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
