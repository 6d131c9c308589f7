"""Lists: pages, links, sorting and filtering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl, urlsplit

import pytest
from support import build, job

from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, Json, P

HOST = "http://127.0.0.1"


@pytest.fixture
def jobs(make_job: Callable[..., Run]) -> list[Run]:
    """25 jobs, the oldest first."""
    return [make_job() for _ in range(25)]


def ids(answer: Json) -> list[int]:
    return [item["id"] for item in answer["results"]]


# -- pages ----------------------------------------------------------------------------------------------------------


PAGES: list[tuple[str, Sequence[int], str | None, str | None]] = [
    ("", range(25, 5, -1), "?limit=20&offset=20", None),
    ("?offset=20", range(5, 0, -1), None, "?limit=20"),
    ("?offset=5", range(20, 0, -1), None, "?limit=20"),
    ("?offset=4", range(21, 1, -1), "?limit=20&offset=24", "?limit=20"),
    ("?offset=24", [1], None, "?limit=20&offset=4"),
    ("?offset=25", [], None, "?limit=20&offset=5"),
    ("?offset=1000", [], None, "?limit=20&offset=980"),
    ("?limit=10", range(25, 15, -1), "?limit=10&offset=10", None),
    ("?limit=10&offset=10", range(15, 5, -1), "?limit=10&offset=20", "?limit=10"),
    ("?limit=10&offset=20", range(5, 0, -1), None, "?limit=10&offset=10"),
    ("?offset=10&limit=5", range(15, 10, -1), "?limit=5&offset=15", "?limit=5&offset=5"),
    ("?limit=25", range(25, 0, -1), None, None),
    ("?limit=24", range(25, 1, -1), "?limit=24&offset=24", None),
    ("?limit=1000", range(25, 0, -1), None, None),
    ("?limit=99999999999999999999", range(25, 0, -1), None, None),
    ("?limit=0", range(25, 5, -1), "?limit=20&offset=20", None),
    ("?limit=-5", range(25, 5, -1), "?limit=20&offset=20", None),
    ("?limit=x", range(25, 5, -1), "?limit=20&offset=20", None),
    ("?limit=", range(25, 5, -1), "?limit=20&offset=20", None),
    ("?limit=2.5", range(25, 5, -1), "?limit=20&offset=20", None),
    ("?offset=-1", range(25, 5, -1), "?limit=20&offset=20", None),
    ("?offset=x", range(25, 5, -1), "?limit=20&offset=20", None),
    ("?sort=id&limit=20", range(25, 5, -1), "?limit=20&offset=20&sort=id", None),
    ("?query=id%3A%3E0&offset=20", range(5, 0, -1), None, "?limit=20&query=id%3A%3E0"),
    ("?zz=1&aa=%C3%BC&offset=20", range(5, 0, -1), None, "?aa=%C3%BC&limit=20&zz=1"),
    ("?blank=&limit=20", range(25, 5, -1), "?blank=&limit=20&offset=20", None),
]


@pytest.mark.usefixtures("jobs")
def test_pages(api: Caller) -> None:
    for query, found, following, previous in PAGES:
        answer = api.get(f"{P}/jobs/{query}").json()
        assert list(answer) == ["count", "next", "previous", "results"]
        assert (query, answer["count"], ids(answer)) == (query, 25, list(found))
        assert answer["next"] == (following and f"{HOST}{P}/jobs/{following}")
        assert answer["previous"] == (previous and f"{HOST}{P}/jobs/{previous}")


@pytest.mark.usefixtures("jobs")
def test_a_page_beyond_all_bounds(api: Caller) -> None:
    answer = api.get(f"{P}/jobs/?offset=99999999999999999999").json()
    assert (answer["count"], answer["results"], answer["next"]) == (25, [], None)
    assert api.get(answer["previous"]).status_code == 200


@pytest.mark.usefixtures("jobs")
def test_a_repeated_parameter_is_repeated_in_the_links(api: Caller) -> None:
    found = api.get(f"{P}/jobs?a=2&a=1").json()["next"]
    assert parse_qsl(urlsplit(found).query) == [("a", "2"), ("a", "1"), ("limit", "20"), ("offset", "20")]


@pytest.mark.usefixtures("jobs")
def test_links_keep_the_form_of_the_path(api: Caller) -> None:
    assert api.get(f"{P}/jobs").json()["next"] == f"{HOST}{P}/jobs?limit=20&offset=20"
    assert api.get(f"{P}/jobs", headers={"Host": "localhost:8000"}).json()["next"].startswith("http://localhost:8000/")


@pytest.mark.usefixtures("jobs")
def test_the_links_lead_through_all_pages(api: Caller) -> None:
    seen, path = [], f"{P}/jobs?limit=7"
    while path:
        answer = api.get(path).json()
        seen += ids(answer)
        path = answer["next"]
    assert seen == list(range(25, 0, -1))


def test_pages_of_projects(api: Caller, store: Store, root: User) -> None:
    for n in range(21):
        store.projects.create(root, {"name": f"p{n}"})
    answer = api.get("/api/v1/root/").json()
    assert (answer["count"], len(answer["results"])) == (21, 20)
    assert answer["next"] == f"{HOST}/api/v1/root/?limit=20&offset=20"
    assert [item["name"] for item in api.get(answer["next"]).json()["results"]] == ["p0"]


def test_one_page_shows_a_whole_history(api: Caller, a_job: Run, store: Store) -> None:
    for n in range(30):
        store.runs.note(a_job, f"note {n}")
    answer = api.get(f"{P}/jobs/1/statuses/").json()
    assert answer["count"] == 31
    assert len(answer["results"]) >= 20
    page = api.get(f"{P}/jobs/1/statuses/?offset=20&limit=20").json()
    assert [item["message"] for item in page["results"]] == [f"note {n}" for n in range(19, 30)]


# -- sorting --------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(make_job: Callable[..., Run], store: Store) -> list[Run]:
    """Job 2 began and ended first, job 1 is running, job 3 is waiting."""
    made = [make_job(name=name, tags=tags) for name, tags in (("one", ["a"]), ("two", ["a", "b"]), ("three", None))]
    store.runs.transition(made[1], Status.RUNNING)
    store.runs.transition(made[1], Status.SUCCEEDED)
    store.runs.transition(made[0], Status.RUNNING)
    return made


SORTED = [
    ("", [1, 2, 3]),
    ("nosuch", [1, 2, 3]),
    ("id", [1, 2, 3]),
    ("-name", [1, 2, 3]),
    ("created_at", [1, 2, 3]),
    ("-created_at", [3, 2, 1]),
    ("started_at", [2, 1, 3]),
    ("-started_at", [1, 2, 3]),
    ("finished_at,created_at", [2, 1, 3]),
    ("-finished_at, created_at", [2, 1, 3]),
    ("updated_at", [3, 2, 1]),
    ("nosuch,-created_at", [3, 2, 1]),
    ("--created_at", [1, 2, 3]),
    ("created_at; drop table runs", [1, 2, 3]),
]


@pytest.mark.usefixtures("three")
def test_sorting(api: Caller) -> None:
    for sort, found in SORTED:
        answer = api.get(f"{P}/jobs", params={"sort": sort})
        assert (sort, answer.status_code, ids(answer.json())) == (sort, 200, found)


# -- filtering ------------------------------------------------------------------------------------------------------


FILTERED: list[tuple[str, set[int]]] = [
    ("id:1", {1}),
    ("id:>1", {2, 3}),
    ("id:>=2, id:<3", {2}),
    ("id:~2", {1, 3}),
    ("id:1|3", {1, 3}),
    ("id:~1|3", {2}),
    ("status:succeeded", {2}),
    ("status:done", {2}),
    ("status:~succeeded", {1, 3}),
    ("status:running|created", {1, 3}),
    ("name:one", {1}),
    ("name:%o%", {1, 2}),
    ("name:t%", {2, 3}),
    ("name:%e", {1, 3}),
    ("name:%O%", {1, 2}),
    ("name:~%o%", {3}),
    ("name:%_%", set()),
    ("name:nosuch", set()),
    ("tags:a", {1, 2}),
    ("tags:b", {2}),
    ("tags:a|b", {1, 2}),
    ("tags:~a", {3}),
    ("user:root", {1, 2, 3}),
    ("user:1", {1, 2, 3}),
    ("user:~root", set()),
    ("project:quick-start", {1, 2, 3}),
    ("project:root.quick-start", {1, 2, 3}),
    ("created_at:>2018-01-01", {1, 2, 3}),
    ("created_at:<2018-01-01", set()),
    ("created_at:2018-01-01 .. 2018-12-31", set()),
    ("created_at:>2018-08-23 10:10", {1, 2, 3}),
    ("finished_at:>2018-01-01", {2}),
    ("finished_at:~>2018-01-01", {1, 3}),
    (" status : succeeded , id : 2 ", {2}),
    ("commit:abc", set()),
    ("backend:native", set()),
    ("", {1, 2, 3}),
    (",", {1, 2, 3}),
]


@pytest.mark.usefixtures("three")
def test_filtering(api: Caller) -> None:
    for query, found in FILTERED:
        answer = api.get(f"{P}/jobs", params={"query": query})
        assert (query, answer.status_code, set(ids(answer.json()))) == (query, 200, found)
        assert answer.json()["count"] == len(found)


def test_filtering_by_build(api: Caller, store: Store, project: Project, root: User) -> None:
    made = store.runs.insert(project, root, NewRun(Kind.BUILD, config=build()))
    store.runs.insert(project, root, NewRun(Kind.JOB, config=job(), build_pk=made.pk))
    store.runs.insert(project, root, NewRun(Kind.JOB, config=job()))
    for query in ("build:1", "build:root.quick-start.builds.1"):
        assert ids(api.get(f"{P}/jobs", params={"query": query}).json()) == [1]
    assert ids(api.get(f"{P}/jobs", params={"query": "build:~1"}).json()) == [2]


@pytest.mark.usefixtures("jobs")
def test_the_links_of_a_filtered_list(api: Caller) -> None:
    answer = api.get(f"{P}/jobs", params={"query": "id:<=22"}).json()
    assert answer["count"] == 22
    assert answer["next"] == f"{HOST}{P}/jobs?limit=20&offset=20&query=id%3A%3C%3D22"
    assert ids(api.get(answer["next"]).json()) == [2, 1]


WRONG = [
    ("foo", "Expression is not valid, it must be formatted as name:operation, Expression: foo"),
    ("foo:", "Expression is not valid, it must be formatted as name:operation, Expression: foo:"),
    (":x", "Expression is not valid, it must be formatted as name:operation, Expression: :x"),
    ("foo:x", "key `foo` is not supported by query manager `job`."),
    ("dockerfile:x", "key `dockerfile` is not supported by query manager `job`."),
    ("status:a|", None),
    ("status:>a", None),
    ("name:a..b", None),
    ("id:x", None),
    ("id:>", None),
    ("id:1 .. 3", None),
    ("id:~", None),
    ("created_at:yesterday", None),
    ("created_at:2018-01-01 .. ", None),
    ("created_at:2018-01-01|2018-01-02", None),
    ("created_at:>", None),
]


@pytest.mark.usefixtures("project")
def test_a_wrong_query(api: Caller) -> None:
    for query, message in WRONG:
        answer = api.get(f"{P}/jobs", params={"query": query})
        assert (query, answer.status_code) == (query, 400)
        assert isinstance(answer.json(), list)
        assert len(answer.json()) == 1
        assert message in (None, answer.json()[0])


@pytest.mark.usefixtures("project")
def test_builds_have_no_build(api: Caller) -> None:
    answer = api.get(f"{P}/builds?query=build:1")
    assert answer.json() == ["key `build` is not supported by query manager `build`."]


@pytest.mark.usefixtures("a_job")
@pytest.mark.parametrize(
    "query",
    [
        f"id:{10**30}",
        f"id:>{2**63}",
        f"id:{'9' * 5000}",
        "id:²",
        "created_at:9999-12-31",
        "created_at:0001-01-01T00:00:00+14:00",
        "created_at:9999-12-31T23:59:59-14:00",
        "name:\0",
        "name:" + "%" * 1000,
        "name:" + "x" * 30000,
        "tags:" + "|".join("a" * 10000),
        ",".join(["id:1"] * 1001),
        ",".join(["status:~failed"] * 3000),
    ],
)
def test_a_query_out_of_bounds(query: str, api: Caller) -> None:
    assert api.get(f"{P}/jobs", params={"query": query}).status_code in (200, 400)
