"""The activity log, and the history of views."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User

from .conftest import FILES, GROUP, Caller, Json, P, one_of_each, upload

ALL, MINE = "/api/v1/activitylogs/", "/api/v1/activitylogs/root/quick-start/"
HISTORY = "/api/v1/historylogs/"
KEYS = ["id", "event_action", "event_subject", "actor", "created_at", "object_id", "object_name"]


def lines(caller: Caller, path: str = MINE, query: str = "") -> list[Json]:
    found: list[Json] = caller.get(f"{path}{query}").json()["results"]
    return found


def said(caller: Caller, path: str = MINE) -> list[str]:
    return [
        f"{line['actor']} {line['event_action']} {line['event_subject']} {line['object_name']}"
        for line in lines(caller, path)
    ]


@pytest.mark.usefixtures("root")
def test_recorded_activities(api: Caller) -> None:
    """The newest entry comes first, in words that clients know."""
    api.post("/api/v1/projects/", {"name": "quick-start"})
    api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]})
    api.patch(f"{P}/jobs/1/", {"name": "x"})
    for how in ("restart", "resume", "copy"):
        api.post(f"{P}/jobs/1/{how}/")
    api.post(f"{P}/jobs/1/stop/")
    api.delete(f"{P}/jobs/1/")
    api.patch(P, {"description": "d"})
    assert said(api) == [
        "root updated project root.quick-start",
        "root deleted job root.quick-start.jobs.1",
        "root stopped job root.quick-start.jobs.1",
        "root copied job root.quick-start.jobs.4",
        "root resumed job root.quick-start.jobs.3",
        "root restarted job root.quick-start.jobs.2",
        "root updated job root.quick-start.jobs.1",
        "root created job root.quick-start.jobs.1",
        "root created project root.quick-start",
    ]
    found = lines(api)
    assert all(list(line) == KEYS for line in found)
    assert [line["id"] for line in found] == sorted((line["id"] for line in found), reverse=True)
    assert [datetime.fromisoformat(line["created_at"]) for line in found] == sorted(
        (datetime.fromisoformat(line["created_at"]) for line in found), reverse=True
    )
    assert found[-2]["object_id"] == 1


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("path", "body", "line"),
    [
        ("/groups/", {"content": GROUP}, "created group root.quick-start.1"),
        ("/builds/", {"config": FILES[Kind.BUILD]}, "created build root.quick-start.builds.1"),
        ("/experiments/", {}, "created experiment root.quick-start.1"),
        ("/notebook/start/", None, r"(created|started) notebook root.quick-start.notebooks.1"),
        ("/tensorboard/start/", None, r"(created|started) tensorboard root.quick-start.tensorboards.1"),
        ("/archive/", None, "archived project root.quick-start"),
    ],
)
def test_other_things_that_are_noted(path: str, body: object, line: str, api: Caller) -> None:
    assert api.post(f"{P}{path}", body).is_success
    if path == "/archive/":
        api.post(f"{P}/restore/")
    assert any(re.fullmatch(f"root {line}", found) for found in said(api))


@pytest.mark.usefixtures("project")
def test_an_upload_is_noted(api: Caller) -> None:
    upload(api, {"a.py": "1"})
    assert said(api) == ["root updated project root.quick-start"]


@pytest.mark.usefixtures("project")
def test_bulk_actions_are_recorded_for_each_experiment(api: Caller) -> None:
    for _ in range(2):
        api.post(f"{P}/experiments/", {})
    api.post(f"{P}/experiments/stop/", {"ids": [1, 2]})
    api("DELETE", f"{P}/experiments/delete/", json={"ids": [1, 2]})
    actions = [line.split()[1] for line in said(api)]
    assert actions == ["deleted"] * 2 + ["stopped"] * 2 + ["created"] * 2


@pytest.mark.usefixtures("project")
def test_requests_without_a_record(api: Caller, as_job: Caller) -> None:
    """Reads, refused requests, and reports by runs."""
    api.get(f"{P}/jobs/1/")
    api.get(P)
    api.post(f"{P}/jobs/", {"config": "kind: ["})
    api.patch(f"{P}/jobs/9/", {})
    as_job.patch(f"{P}/jobs/1/", {"tags": ["a"]})
    as_job.post(f"{P}/jobs/1/statuses/", {"status": "running"})
    assert lines(api) == lines(api, ALL) == []


def test_the_activities_that_a_user_sees(
    api: Caller, as_ann: Caller, as_bob: Caller, nobody: Caller, project: Project
) -> None:
    as_ann.post("/api/v1/projects/", {"name": "open"})
    as_ann.post("/api/v1/projects/", {"name": "hidden", "is_public": False})
    api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB]})
    names = {
        who: [line["object_name"] for line in lines(caller, ALL)]
        for who, caller in (("ann", as_ann), ("bob", as_bob), ("root", api))
    }
    everything = ["root.quick-start.jobs.1", "ann.hidden", "ann.open"]
    assert names == {"ann": everything, "root": everything, "bob": ["root.quick-start.jobs.1", "ann.open"]}
    assert as_bob.get("/api/v1/activitylogs/ann/hidden/").status_code == 403
    assert as_bob.get("/api/v1/activitylogs/ann/open/").status_code == 200
    assert as_bob.get("/api/v1/activitylogs/ann/nosuch/").status_code == 404
    assert {nobody.get(path).status_code for path in (ALL, MINE, HISTORY)} == {401}


@pytest.mark.usefixtures("project")
def test_the_activities_that_a_run_sees(as_job: Caller) -> None:
    assert as_job.get(ALL).status_code == as_job.get(HISTORY).status_code == 403
    assert as_job.get(MINE).status_code == 200
    assert as_job.get("/api/v1/activitylogs/root/nosuch/").status_code == 404


@pytest.mark.usefixtures("project")
def test_pages(api: Caller) -> None:
    for _ in range(23):
        api.post(f"{P}/experiments/", {})
    for path in (ALL, MINE):
        found = api.get(path).json()
        assert (found["count"], len(found["results"]), found["previous"]) == (23, 20, None)
        assert found["next"].endswith(f"{path}?limit=20&offset=20")
        assert [line["object_id"] for line in lines(api, path, "?limit=2&offset=21")] == [2, 1]


# -- history --------------------------------------------------------------------------------------------------------


def test_the_history_of_views(api: Caller, as_ann: Caller, store: Store, project: Project, root: User) -> None:
    one_of_each(store, project, root)
    for kind in POLYAXON_KINDS:
        as_ann.get(f"{P}/{kind.plural}/1/")
    as_ann.get(P)
    found = lines(as_ann, HISTORY)
    assert [line["event_subject"] for line in found] == ["project", *(str(kind) for kind in reversed(POLYAXON_KINDS))]
    assert {line["event_action"] for line in found} == {"viewed"}
    assert {line["actor"] for line in found} == {"ann"}
    assert all(list(line) == KEYS for line in found)
    assert lines(api, HISTORY) == []
    assert lines(api) == []  # viewing is not an activity


def test_a_thing_stands_once_in_the_history(api: Caller, store: Store, project: Project, root: User) -> None:
    for _ in range(2):
        store.runs.insert(project, root, NewRun(Kind.JOB))
    for _ in range(3):
        api.get(f"{P}/jobs/1/")
    api.get(f"{P}/jobs/2/")
    assert [line["object_id"] for line in lines(api, HISTORY)] == [2, 1]
    assert api.get(HISTORY).json()["count"] == 2


@pytest.mark.usefixtures("project")
def test_refused_views_are_in_no_history(api: Caller, as_ann: Caller, as_job: Caller) -> None:
    api.get(f"{P}/jobs/9/")
    api.get(f"{P}/jobs/")
    as_job.get(f"{P}/jobs/1/")
    assert lines(api, HISTORY) == []
    api.patch(P, {"is_public": False})
    as_ann.get(P)
    assert lines(as_ann, HISTORY) == []


def test_the_history_outlives_deleted_objects(api: Caller, store: Store, project: Project, root: User) -> None:
    store.runs.insert(project, root, NewRun(Kind.JOB))
    api.get(f"{P}/jobs/1/")
    api.delete(f"{P}/jobs/1/")
    assert [line["object_name"] for line in lines(api, HISTORY)] == ["root.quick-start.jobs.1"]
