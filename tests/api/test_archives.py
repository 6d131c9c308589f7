"""Archived projects and runs: hidden until they are restored, without losses."""

from __future__ import annotations

import pytest

from polylocal.api.api_context import ApiContext
from polylocal.statuses import POLYAXON_KINDS, Kind, Status, is_done
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import FILES, Caller, Json, P, one_of_each, put_code, write

each_kind = pytest.mark.parametrize("kind", list(POLYAXON_KINDS))


@pytest.fixture
def things(store: Store, project: Project, root: User) -> dict[Kind, Run]:
    return one_of_each(store, project, root)


def archived(caller: Caller, word: str, user: str = "root", query: str = "") -> list[Json]:
    found: list[Json] = caller.get(f"/api/v1/archives/{user}/{word}/{query}").json()["results"]
    return found


# -- runs -----------------------------------------------------------------------------------------------------------


@each_kind
def test_an_archived_run(kind: Kind, things: dict[Kind, Run], api: Caller, store: Store) -> None:
    one = f"{P}/{kind.plural}/1"
    before = api.get(one).json()
    answer = api.post(f"{one}/archive/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert api.get(one).status_code == 404
    assert api.get(f"{P}/{kind.plural}/").json()["count"] == 0
    assert api.get(f"{P}/{kind.plural}/").json()["results"] == []
    assert api.get(f"/polylocal/v1/runs/{kind}/1").status_code == 404
    [item] = archived(api, kind.plural)
    assert (item["id"], item["unique_name"], item["deleted"], item["bookmarked"]) == (
        1,
        before["unique_name"],
        True,
        False,
    )
    answer = api.post(f"{one}/restore/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert archived(api, kind.plural) == []
    after = api.get(one).json()
    assert after == {**before, "updated_at": after["updated_at"]}
    assert api.get(f"{P}/{kind.plural}/").json()["count"] == 1


@each_kind
def test_an_archived_run_is_stopped(kind: Kind, things: dict[Kind, Run], api: Caller, store: Store) -> None:
    run = things[kind]
    store.runs.transition(run, Status.RUNNING)
    api.post(f"{P}/{kind.plural}/1/archive/")
    found = store.runs.by_pk(run.pk)
    assert found.stop_requested_at or is_done(found.status)


@pytest.mark.usefixtures("things")
@each_kind
def test_an_archived_run_allows_no_action(kind: Kind, api: Caller) -> None:
    one = f"{P}/{kind.plural}/1"
    api.post(f"{one}/archive/")
    for method, path in (
        ("GET", f"{one}/statuses"),
        ("POST", f"{one}/stop"),
        ("PATCH", one),
        ("DELETE", one),
        ("POST", f"{one}/archive"),
        ("POST", f"{one}/bookmark"),
    ):
        assert (path, api(method, path, json={}).status_code) == (path, 404)
    assert api.post(f"{one}/restore/").status_code == 200
    assert api.post(f"{P}/{kind.plural}/2/restore/").status_code == 404


@pytest.mark.usefixtures("things")
@each_kind
def test_restoring_what_is_there(kind: Kind, api: Caller) -> None:
    for _ in range(2):
        assert api.post(f"{P}/{kind.plural}/1/restore/").status_code == 200
    assert api.get(f"{P}/{kind.plural}/").json()["count"] == 1


@pytest.mark.usefixtures("things")
@each_kind
def test_deleted_runs_are_in_no_archive(kind: Kind, api: Caller) -> None:
    api.delete(f"{P}/{kind.plural}/1/")
    assert archived(api, kind.plural) == []
    assert api.post(f"{P}/{kind.plural}/1/restore/").status_code == 404


def test_data_of_a_run_is_restored_with_it(
    things: dict[Kind, Run], api: Caller, store: Store, context: ApiContext
) -> None:
    run = things[Kind.EXPERIMENT]
    one = f"{P}/experiments/1"
    store.runs.transition(run, Status.RUNNING, recorded={"container_id": "c"})
    store.metrics.add(run, [({"loss": 1.0}, None)])
    store.runs.transition(run, Status.SUCCEEDED)
    write(context.log_path(run), "hello\n")
    write(context.home.root / str(run.outputs) / "model.txt", "weights")
    api.post(f"{one}/bookmark/")
    paths = [f"{one}/{word}/" for word in ("statuses", "metrics", "jobs", "logs", "outputs/tree", "chartviews")]
    before = [api.get(path).text for path in paths]
    api.post(f"{one}/archive/")
    assert {api.get(path).status_code for path in paths} == {404}
    assert archived(api, "experiments")[0]["bookmarked"] is True
    api.post(f"{one}/restore/")
    assert [api.get(path).text for path in paths] == before
    assert api.get(one).json()["bookmarked"] is True
    assert api.get(one).json()["last_status"] == "succeeded"
    assert api.get(f"{P}/experiments/?query=metric.loss:1").json()["count"] == 1


def test_a_group_is_archived_with_its_experiments(
    things: dict[Kind, Run], api: Caller, store: Store, project: Project, root: User
) -> None:
    group = things[Kind.GROUP]
    for _ in range(2):
        store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, config=FILES[Kind.EXPERIMENT], group=group))
    api.post(f"{P}/experiments/2/archive/")  # archived before its group
    api.post(f"{P}/groups/1/archive/")
    assert ids(api) == [1]
    assert [item["id"] for item in archived(api, "groups")] == [1]
    api.post(f"{P}/groups/1/restore/")
    assert ids(api) == [1, 3]  # the run that was archived separately stays archived
    assert [item["id"] for item in archived(api, "experiments")] == [2]
    api.post(f"{P}/experiments/2/restore/")
    assert ids(api) == [1, 2, 3]


def ids(api: Caller) -> list[int]:
    return sorted(item["id"] for item in api.get(f"{P}/experiments/").json()["results"])


# -- projects -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("things")
def test_an_archived_project(api: Caller, context: ApiContext, project: Project) -> None:
    put_code(context, project, {"a.py": "1"})
    before = api.get(P).json()
    answer = api.post(f"{P}/archive/")
    assert (answer.status_code, answer.content) == (200, b"")
    assert api.get(P).status_code == 404
    assert api.get("/api/v1/root/").json()["results"] == []
    assert api.get("/api/v1/root/projects/names").json()["results"] == []
    for kind in POLYAXON_KINDS:
        assert api.get(f"{P}/{kind.plural}/1/").status_code == 404
        assert [item["id"] for item in archived(api, kind.plural)] == [1]
    assert api.get("/polylocal/v1/runs").json()["results"] == []
    assert api.get("/api/v1/experiments/").json()["results"] == []
    [item] = archived(api, "projects")
    assert (item["unique_name"], item["deleted"], item["bookmarked"]) == ("root.quick-start", True, False)
    answer = api.post(f"{P}/restore/")
    assert (answer.status_code, answer.content) == (200, b"")
    after = api.get(P).json()
    assert after == {**before, "updated_at": after["updated_at"]}
    assert archived(api, "projects") == []
    for kind in POLYAXON_KINDS:
        assert api.get(f"{P}/{kind.plural}/").json()["count"] == 1
        assert archived(api, kind.plural) == []
    assert api.get(f"{P}/repo/download/").status_code == 200


@pytest.mark.usefixtures("things")
def test_runs_archived_before_their_project_stay_archived(api: Caller) -> None:
    api.post(f"{P}/jobs/1/archive/")
    api.post(f"{P}/archive/")
    api.post(f"{P}/restore/")
    assert api.get(f"{P}/jobs/1/").status_code == 404
    assert api.get(f"{P}/builds/1/").status_code == 200
    assert api.post(f"{P}/jobs/1/restore/").status_code == 200
    assert api.get(f"{P}/jobs/1/").status_code == 200


@pytest.mark.usefixtures("project")
def test_restoring_a_project_that_is_there_or_nowhere(api: Caller) -> None:
    assert api.post(f"{P}/restore/").status_code == 200
    assert api.post("/api/v1/root/nosuch/restore/").status_code == 404
    api.delete(P)
    assert api.post(f"{P}/restore/").status_code == 404


@pytest.mark.usefixtures("project")
def test_the_name_of_an_archived_project_is_taken(api: Caller) -> None:
    """Otherwise the archived project could not be restored."""
    api.post(f"{P}/archive/")
    answer = api.post("/api/v1/projects/", {"name": "quick-start"})
    assert answer.status_code == 400
    assert answer.json() == ["A project with name `quick-start` already exists."]
    assert api.post(f"{P}/restore/").status_code == 200
    assert api.get(P).status_code == 200


@pytest.mark.usefixtures("things")
def test_the_name_of_an_archived_run(api: Caller) -> None:
    """It gets another name when it is restored if its own name is taken by then."""
    api.patch(f"{P}/jobs/1/", {"name": "train"})
    api.post(f"{P}/jobs/1/archive/")
    made = api.post(f"{P}/jobs/", {"config": FILES[Kind.JOB], "name": "train"})
    assert made.status_code == 201
    assert api.post(f"{P}/jobs/1/restore/").status_code == 200
    names = [item["name"] for item in api.get(f"{P}/jobs/").json()["results"]]
    assert len(set(names)) == 2


# -- lists and access -----------------------------------------------------------------------------------------------


def test_pages_and_order(api: Caller, store: Store, project: Project, root: User) -> None:
    for _ in range(4):
        store.runs.insert(project, root, NewRun(Kind.JOB))
    for number in (3, 1, 4, 2):
        api.post(f"{P}/jobs/{number}/archive/")
    assert [item["id"] for item in archived(api, "jobs")] == [2, 4, 1, 3]
    assert [item["id"] for item in archived(api, "jobs", query="?sort=created_at")] == [1, 2, 3, 4]
    assert [item["id"] for item in archived(api, "jobs", query="?sort=-created_at&limit=2")] == [4, 3]
    page = api.get("/api/v1/archives/root/jobs/?limit=3").json()
    assert (page["count"], len(page["results"]), bool(page["next"])) == (4, 3, True)


@pytest.mark.usefixtures("things")
def test_the_archives_that_a_user_sees(api: Caller, as_ann: Caller, nobody: Caller, as_job: Caller) -> None:
    api.post(f"{P}/builds/1/archive/")
    assert len(archived(api, "builds")) == 1
    assert archived(as_ann, "builds") == archived(as_ann, "builds", "ann") == []
    assert as_ann.get("/api/v1/archives/nosuch/builds/").status_code == 404
    assert nobody.get("/api/v1/archives/root/builds/").status_code == 401
    assert as_job.get("/api/v1/archives/root/builds/").status_code == 403


@pytest.mark.usefixtures("things")
def test_an_admin_sees_everybodys(api: Caller, as_ann: Caller) -> None:
    as_ann.post("/api/v1/projects/", {"name": "mine"})
    as_ann.post("/api/v1/ann/mine/archive/")
    assert [item["name"] for item in archived(api, "projects", "ann")] == ["mine"]
    assert archived(api, "projects") == []
    assert api.post("/api/v1/ann/mine/restore/").status_code == 200


@pytest.mark.usefixtures("things")
@pytest.mark.parametrize("path", [P, *(f"{P}/{kind.plural}/1" for kind in POLYAXON_KINDS)])
def test_who_may_archive_and_restore(path: str, api: Caller, as_ann: Caller, as_job: Caller) -> None:
    for caller in (as_ann, as_job):
        assert caller.post(f"{path}/archive/").status_code == 403
    assert api.post(f"{path}/archive/").status_code == 200
    assert as_ann.post(f"{path}/restore/").status_code == 403
    assert as_job.post(f"{path}/restore/").status_code == 403
    assert api.post(f"{path}/restore/").status_code == 200
