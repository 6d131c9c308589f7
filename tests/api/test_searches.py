"""Saved searches of a user, and chart views of a run."""

from __future__ import annotations

import pytest

from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, User

from .conftest import Caller, Json, P

S = "/api/v1/searches/root/quick-start"
QUERY = {"query": "status:running, metric.loss:<0.3", "sort": "-created_at"}
pytestmark = pytest.mark.usefixtures("project")
each_kind = pytest.mark.parametrize("kind", list(POLYAXON_KINDS))


def ids(caller: Caller, kind: Kind = Kind.JOB) -> list[int]:
    return [item["id"] for item in caller.get(f"{S}/{kind.plural}/").json()["results"]]


# -- searches -------------------------------------------------------------------------------------------------------


@each_kind
def test_a_search(kind: Kind, api: Caller) -> None:
    path = f"{S}/{kind.plural}"
    assert api.get(path).json() == {"count": 0, "next": None, "previous": None, "results": []}
    made = api.post(path, {"name": "mine", "query": QUERY, "meta": {"columns": ["id"]}})
    assert made.status_code == 201
    expected = {"id": 1, "name": "mine", "query": QUERY, "meta": {"columns": ["id"]}}
    assert made.json() == expected
    assert list(made.json()) == list(expected)
    assert api.get(f"{path}/").json()["results"] == [expected]
    assert [other for other in POLYAXON_KINDS if ids(api, other)] == [kind]
    gone = api.delete(f"{path}/1")  # without a trailing slash
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.delete(f"{path}/1").status_code == 404
    assert ids(api, kind) == []


def test_required_fields_of_a_search(api: Caller) -> None:
    assert api.post(f"{S}/jobs/", {}).json() == {"query": ["This field is required."]}
    assert api.post(f"{S}/jobs/", {"query": None}).json() == {"query": ["This field may not be null."]}
    assert api.post(f"{S}/jobs/", {"query": []}).status_code == 400
    assert list(api.post(f"{S}/jobs/", {"query": {}, "name": "a b"}).json()) == ["name"]
    assert api.post(f"{S}/jobs/", {"query": '{"a": 1}'}).json()["query"] == {"a": 1}  # forms send it like this
    assert ids(api) == [1]


def test_names_of_searches(api: Caller, as_ann: Caller) -> None:
    """A user's searches within a project and a kind have unique names. Several may have no name."""
    body = {"name": "mine", "query": {}}
    assert api.post(f"{S}/jobs/", body).status_code == 201
    again = api.post(f"{S}/jobs/", body)
    assert (again.status_code, again.json()) == (400, {"name": ["You have a search `mine` already."]})
    assert api.post(f"{S}/builds/", body).status_code == 201
    assert as_ann.post(f"{S}/jobs/", body).status_code == 201
    for _ in range(2):
        assert api.post(f"{S}/jobs/", {"query": {}}).status_code == 201
    assert len(ids(api)) == 3


def test_searches_are_ones_own(api: Caller, as_ann: Caller) -> None:
    as_ann.post(f"{S}/jobs/", {"query": QUERY})
    assert (ids(as_ann), ids(api)) == ([1], [])
    assert api.delete(f"{S}/jobs/1").status_code == 404
    assert as_ann.delete(f"{S}/builds/1").status_code == 404
    assert ids(as_ann) == [1]


def test_a_search_of_a_page_is_followed_by_all_others(api: Caller) -> None:
    """Clients request all searches at once."""
    for _ in range(25):
        api.post(f"{S}/jobs/", {"query": {}})
    found = api.get(f"{S}/jobs/").json()
    assert (found["count"], len(found["results"]), found["next"]) == (25, 25, None)
    assert len(api.get(f"{S}/jobs/?limit=10").json()["results"]) == 10


def test_who_may_search(api: Caller, as_ann: Caller, nobody: Caller, as_job: Caller) -> None:
    for caller, status in ((nobody, 401), (as_job, 403)):
        assert caller.post(f"{S}/jobs/", {"query": {}}).status_code == status
    as_ann.post(f"{S}/jobs/", {"query": {}})
    api.patch(P, {"is_public": False})
    assert as_ann.get(f"{S}/jobs/").status_code == 403
    assert as_ann.post(f"{S}/jobs/", {"query": {}}).status_code == 403
    assert api.get("/api/v1/searches/root/nosuch/jobs/").status_code == 404
    assert api.get(f"{S}/nosuch/").status_code == 404


# -- chart views ----------------------------------------------------------------------------------------------------

CHARTS = [{"id": "1", "name": "loss", "metricNames": ["loss"], "type": "line"}]


@pytest.fixture(params=[Kind.EXPERIMENT, Kind.GROUP])
def views(request: pytest.FixtureRequest, store: Store, project: Project, root: User) -> str:
    """The path of a run's chart views."""
    store.runs.insert(project, root, NewRun(request.param))
    return f"{P}/{request.param.plural}/1/chartviews"


def test_a_chart_view(views: str, api: Caller) -> None:
    assert api.get(views).json() == {"count": 0, "next": None, "previous": None, "results": []}
    made = api.post(f"{views}/", {"charts": CHARTS, "name": "losses", "meta": {"xAxis": "time"}})
    assert made.status_code == 201
    found = made.json()
    assert (found["id"], found["name"], found["charts"], found["meta"]) == (1, "losses", CHARTS, {"xAxis": "time"})
    assert api.get(f"{views}/1/").json() == found
    assert api.get(views).json()["results"] == [found]
    changed = api.patch(f"{views}/1/", {"name": "new"}).json()
    assert (changed["name"], changed["charts"], changed["meta"]) == ("new", CHARTS, {"xAxis": "time"})
    assert changed["updated_at"] >= found["updated_at"]
    assert api.patch(f"{views}/1/", {"charts": {"a": 1}}).json()["charts"] == {"a": 1}
    assert api.patch(f"{views}/1/", {"charts": None}).json()["charts"] == {"a": 1}
    assert api.put(f"{views}/1/", json={"charts": CHARTS}).json()["charts"] == CHARTS
    gone = api.delete(f"{views}/1/")
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (api.get(f"{views}/1"), api.patch(f"{views}/1", {}), api.delete(f"{views}/1")):
        assert answer.status_code == 404


def test_required_fields_of_a_chart_view(views: str, api: Caller) -> None:
    assert api.post(views, {}).json() == {"charts": ["This field is required."]}
    assert api.post(views, {"charts": 5}).status_code == 400
    api.post(views, {"charts": []})
    assert api.put(f"{views}/1/", json={"name": "x"}).json() == {"charts": ["This field is required."]}


def test_chart_views_stand_in_the_order_that_they_were_made_in(views: str, api: Caller) -> None:
    for number in range(25):
        api.post(views, {"charts": [], "name": f"v{number}"})
    found = api.get(views).json()
    assert [item["name"] for item in found["results"]] == [f"v{number}" for number in range(25)]
    assert len({item["uuid"] for item in found["results"]}) == 25


def test_a_chart_view_belongs_to_one_run(views: str, api: Caller, store: Store, project: Project, root: User) -> None:
    api.post(views, {"charts": []})
    for kind in (Kind.EXPERIMENT, Kind.GROUP):
        other = store.runs.insert(project, root, NewRun(kind))
        path = f"{P}/{kind.plural}/{other.id}/chartviews"
        assert api.get(path).json()["count"] == 0
        for method in ("GET", "PATCH", "DELETE"):
            assert api(method, f"{path}/1", json={}).status_code == 404
    assert api.get(f"{views}/1").status_code == 200


def test_who_may_change_a_chart_view(views: str, api: Caller, as_ann: Caller, as_job: Caller) -> None:
    body: Json = {"charts": []}
    api.post(views, body)
    assert as_ann.get(f"{views}/1/").status_code == as_job.get(views).status_code == 200
    for caller in (as_ann, as_job):
        refused = (caller.post(views, body), caller.patch(f"{views}/1", body), caller.delete(f"{views}/1"))
        assert [answer.status_code for answer in refused] == [403] * 3
