"""`query` and `sort` in the lists of each kind."""

from __future__ import annotations

import pytest

from polylocal.statuses import POLYAXON_KINDS, Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User

from .conftest import Caller, P

COMMON = ["id", "created_at", "updated_at", "started_at", "finished_at", "name", "description", "user", "status"]
COMMON += ["project", "tags"]
OWN = {
    Kind.BUILD: {"commit", "backend"},
    Kind.JOB: {"commit", "build"},
    Kind.EXPERIMENT: {"commit", "build", "backend", "framework", "group", "independent", "params.x", "metric.x"},
    Kind.GROUP: {"search_algorithm", "concurrency", "type"},
    Kind.TENSORBOARD: {"group", "experiment"},
    Kind.NOTEBOOK: {"backend"},
}
VALUES = {"id": "1", "concurrency": "2", "independent": "true", "metric.x": ">0.5"}
each_kind = pytest.mark.parametrize("kind", list(POLYAXON_KINDS))


def value_of(field: str) -> str:
    return VALUES.get(field, ">2018-08-19" if field.endswith("_at") else "x")


@pytest.fixture
def runs(store: Store, project: Project, root: User) -> None:
    """Two runs of each kind. The second one belongs to the first group or shows the first experiment, has a name, and
    is running.
    """
    for kind in (Kind.GROUP, *(kind for kind in POLYAXON_KINDS if kind is not Kind.GROUP)):
        store.runs.insert(project, root, NewRun(kind, values=about_first(kind)))
        group = store.runs.find(Kind.GROUP, 1) if kind in (Kind.EXPERIMENT, Kind.TENSORBOARD) else None
        values = {"name": "second", "description": "100% sure", "tags": ["a", "b"], "backend": "lab"}
        second = store.runs.insert(project, root, NewRun(kind, values=values | about_second(kind), group=group))
        store.runs.transition(second, Status.RUNNING)
    first = store.runs.find(Kind.EXPERIMENT, 1)
    store.runs.insert(project, root, NewRun(Kind.TENSORBOARD, values={"experiment_pk": first.pk}))


def about_first(kind: Kind) -> dict[str, object]:
    return {"group_type": "selection"} if kind is Kind.GROUP else {}


def about_second(kind: Kind) -> dict[str, object]:
    if kind is Kind.GROUP:
        return {"group_type": "study", "search_algorithm": "random", "concurrency": 5}
    return {"params": {"lr": 0.1}, "framework": "torch"} if kind is Kind.EXPERIMENT else {}


def found(api: Caller, kind: Kind, query: str, sort: str = "created_at") -> list[int]:
    answer = api.get(f"{P}/{kind.plural}/", params={"query": query, "sort": sort})
    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == len(answer.json()["results"])
    return [item["id"] for item in answer.json()["results"]]


@pytest.mark.usefixtures("project")
@each_kind
def test_every_documented_field(kind: Kind, api: Caller) -> None:
    for field in [*COMMON, *sorted(OWN[kind])]:
        for sign in ("", "~"):
            answer = api.get(f"{P}/{kind.plural}/", params={"query": f"{field}:{sign}{value_of(field)}"})
            assert (field, sign, answer.status_code) == (field, sign, 200)


@pytest.mark.usefixtures("project")
@each_kind
def test_fields_of_other_kinds(kind: Kind, api: Caller) -> None:
    words = {"framework", "independent", "search_algorithm", "concurrency", "type", "experiment", "group", "nosuch"}
    for field in sorted(words - OWN[kind]):
        answer = api.get(f"{P}/{kind.plural}/?query={field}:{value_of(field)}")
        assert answer.status_code == 400
        assert answer.json() == [f"key `{field}` is not supported by query manager `{kind}`."]


@pytest.mark.usefixtures("runs")
@each_kind
def test_filters_of_all_kinds(kind: Kind, api: Caller) -> None:
    others = [1, 3] if kind is Kind.TENSORBOARD else [1]
    for query in ("id:2", "name:second", "name:%ECO%", "status:running", "tags:a", "tags:b|c", "description:100%"):
        assert found(api, kind, query) == [2]
    for query in ("id:~2", "name:~second", "status:created", "tags:~a", "status:~running|failed"):
        assert found(api, kind, query) == others
    assert found(api, kind, "status:running,tags:c") == []
    assert found(api, kind, "user:root, project:quick-start") == sorted([*others, 2])
    assert found(api, kind, "id:>0", "-created_at")[0] == max(others[-1], 2)
    assert found(api, kind, "id:1|2", "started_at") == [2, 1]  # rows without a value come last in both directions
    assert found(api, kind, "id:1|2", "-started_at") == [2, 1]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("kind", "query", "ids"),
    [
        (Kind.GROUP, "type:study", [2]),
        (Kind.GROUP, "type:selection", [1]),
        (Kind.GROUP, "search_algorithm:random", [2]),
        (Kind.GROUP, "search_algorithm:~random", [1]),
        (Kind.GROUP, "search_algorithm:grid|random", [2]),
        (Kind.GROUP, "concurrency:>=5", [2]),
        (Kind.GROUP, "concurrency:<5", []),
        (Kind.GROUP, "status:done|running", [2]),
        (Kind.TENSORBOARD, "group:1", [2]),
        (Kind.TENSORBOARD, "experiment:1", [3]),
        (Kind.TENSORBOARD, "experiment:~1", [1, 2]),
        (Kind.TENSORBOARD, "group:9", []),
        (Kind.NOTEBOOK, "backend:lab", [2]),
        (Kind.NOTEBOOK, "backend:~lab", [1]),
        (Kind.EXPERIMENT, "group:1", [2]),
        (Kind.EXPERIMENT, "independent:true", [1]),
        (Kind.EXPERIMENT, "params.lr:0.1", [2]),
        (Kind.EXPERIMENT, "declarations.lr:~0.1", [1]),
        (Kind.EXPERIMENT, "framework:torch", [2]),
    ],
)
def test_filters_of_one_kind(kind: Kind, query: str, ids: list[int], api: Caller) -> None:
    assert found(api, kind, query) == ids


@pytest.mark.usefixtures("runs")
@each_kind
@pytest.mark.parametrize("query", ["status", "status:", ":x", "id:a|", "created_at:x", "created_at:a|b", "name:<x"])
def test_invalid_queries(kind: Kind, query: str, api: Caller) -> None:
    answer = api.get(f"{P}/{kind.plural}/", params={"query": query})
    assert (query, answer.status_code) == (query, 400)
    assert len(answer.json()) == 1
    assert isinstance(answer.json()[0], str)
