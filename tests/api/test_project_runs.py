"""The runs of one project of all kinds on one page: the list of `polylocal ls -p`."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.statuses import POLYAXON_KINDS, Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, finish, one_of_each

R = "/polylocal/v1/runs"


@pytest.fixture
def made(store: Store, project: Project, root: User) -> dict[Kind, Run]:
    return one_of_each(store, project, root)


def labels(api: Caller, **params: Any) -> list[str]:
    found = api.get(R, params={"project": "root/quick-start", **params}).json()
    return [f"{item['kind']}/{item['id']}" for item in found["results"]]


@pytest.mark.usefixtures("made")
def test_all_kinds_the_last_changed_first(api: Caller, store: Store, root: User) -> None:
    other = store.projects.create(root, {"name": "other"})
    store.runs.insert(other, root, NewRun(Kind.JOB))
    wanted = [f"{kind}/1" for kind in reversed(POLYAXON_KINDS)]
    assert labels(api) == labels(api, project="root.quick-start") == wanted
    assert labels(api, limit=2, offset=1) == wanted[1:3]
    page = api.get(R, params={"project": "root/quick-start", "limit": 2}).json()
    assert page["count"] == len(POLYAXON_KINDS)
    following = api.get(page["next"].removeprefix("http://127.0.0.1")).json()
    assert [item["kind"] for item in following["results"]] == [str(kind) for kind in reversed(POLYAXON_KINDS)][2:4]
    assert labels(api, kind="build") == ["build/1"]
    assert labels(api, project="root/other") == ["job/2"]


def test_the_keys_of_each_run(api: Caller, store: Store, made: dict[Kind, Run]) -> None:
    """The keys of the lists by kind, plus the kind, the last message and the reason for waiting."""
    api.post("/api/v1/root/quick-start/experiments/1/bookmark/")
    for kind in POLYAXON_KINDS:
        (found,) = api.get(R, params={"project": "root/quick-start", "kind": str(kind)}).json()["results"]
        assert (found["kind"], found["project"], found["owner"]) == (str(kind), "root.quick-start", "root")
        assert {"message", "waits_for", "tags", "updated_at"} <= found.keys()
        listed = api.get(f"/api/v1/root/quick-start/{kind.plural}/").json()["results"][0]
        assert {name: found[name] for name in listed} == listed
        assert found["bookmarked"] is (kind is Kind.EXPERIMENT)


def test_queries_and_orders(api: Caller, store: Store, made: dict[Kind, Run]) -> None:
    finish(store, made[Kind.JOB], Status.FAILED)
    assert labels(api, query="status:failed") == ["job/1"]
    assert "job/1" not in labels(api, open="true")
    assert labels(api, open="true", query="status:failed") == []
    assert labels(api, sort="created_at") == [f"{kind}/1" for kind in POLYAXON_KINDS]
    assert labels(api, kind="experiment", query="params.lr:<1", sort="-params.lr") == []


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"sort": "nonsense"}, "`nonsense` is not a key to sort by"),
        ({"sort": "created_at,-id", "kind": "job"}, "`id` is not a key to sort by"),
        ({"sort": "metric.loss"}, "(`--kind experiment`)"),
        ({"query": "params.lr:1"}, "(`--kind experiment`)"),
        ({"query": "foo:1"}, "key `foo` is not supported"),
        ({"query": "params.lr:1", "kind": "job"}, "key `params.lr` is not supported by query manager `job`."),
        ({"kind": "nosuch"}, "There is no kind `nosuch`"),
        ({"limit": "0"}, "limit"),
        ({"project": "", "sort": "created_at"}, "need the `project`"),
        ({"project": "", "query": "id:1"}, "need the `project`"),
    ],
)
def test_invalid_parameters_are_refused_with_a_message(api: Caller, params: dict[str, str], words: str) -> None:
    answer = api.get(R, params={"project": "root/quick-start", **params})
    assert (answer.status_code, len(answer.json())) == (400, 1)
    assert words in answer.json()[0]


@pytest.mark.usefixtures("made")
def test_who_may_see_the_list(api: Caller, as_ann: Caller, nobody: Caller, store: Store, project: Project) -> None:
    asked = {"project": "root/quick-start"}
    assert as_ann.get(R, params=asked).json()["count"] == len(POLYAXON_KINDS)
    assert nobody.get(R, params=asked).status_code == 401
    store.projects.update(project, {"is_public": False})
    assert as_ann.get(R, params=asked).status_code == 403
    assert api.get(R, params=asked).status_code == 200
    for name in ("root/nosuch", "nosuch/quick-start", "quick-start", "/", "root/quick-start/more", "\0"):
        assert api.get(R, params={"project": name}).status_code == 404
    store.projects.archive(project)
    assert api.get(R, params=asked).status_code == 404


@pytest.mark.usefixtures("project")
def test_a_runs_own_token_lists_nothing(as_job: Caller) -> None:
    assert as_job.get(R, params={"project": "root/quick-start"}).status_code == 403


def test_the_last_message_of_each(api: Caller, store: Store, made: dict[Kind, Run]) -> None:
    store.runs.note(made[Kind.JOB], "first")
    store.runs.note(made[Kind.JOB], "second")
    store.runs.note(made[Kind.BUILD], "other")
    found = api.get(R, params={"project": "root/quick-start"}).json()["results"]
    wanted = {"job": "second", "build": "other"}
    assert {item["kind"]: item["message"] for item in found} == {str(kind): wanted.get(kind) for kind in POLYAXON_KINDS}
    assert api.get(f"{R}/job/1").json()["message"] == "second"
