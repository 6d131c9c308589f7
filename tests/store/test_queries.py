"""`?query=` and `?sort=` on a real store with several runs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polylocal.errors import InvalidInput
from polylocal.packages.statuses import BuildStatus
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store, queries
from polylocal.store.queries import order
from polylocal.store.rows import Project, User


@pytest.fixture
def filled(store: Store, root: User, project: Project) -> Store:
    """Jobs 1 to 4 of a project; 1 and 2 have build 1, 3 is of another user, 4 has nothing."""
    other = store.users.add("other")
    code = store.projects.reference_code(project, {"commit": "c0ffee"}).id
    build = store.runs.insert(project, root, NewRun(Kind.BUILD, values={"name": "base"}))
    rows = [
        (root, NewRun(Kind.JOB, values=about("Train-A", "first try", ["a", "b"]), build_pk=build.pk, code_id=code)),
        (root, NewRun(Kind.JOB, values=about("train-b", "100% _sure_", ["b"]), build_pk=build.pk)),
        (other, NewRun(Kind.JOB, values=about("test", "back\\slash", []))),
        (root, NewRun(Kind.JOB)),
    ]
    runs = [store.runs.insert(project, user, new) for user, new in rows]
    store.runs.transition(runs[0], Status.SUCCEEDED)
    store.runs.transition(runs[1], Status.FAILED)
    store.runs.transition(runs[2], Status.RUNNING)
    stamps = [("2018-08-20", "2018-08-21"), ("2018-08-21", "2018-08-23"), ("2018-08-22", None), ("2018-08-23", None)]
    with store.database.write() as db:
        for run, (created, finished) in zip(runs, stamps, strict=True):
            times = (at(created), finished and at(finished), run.pk)
            db.execute("update runs set created_at = ?, finished_at = ? where pk = ?", times)
    return store


def about(name: str, description: str, tags: list[str]) -> dict[str, object]:
    return {"name": name, "description": description, "tags": tags, "backend": "native"}


def at(day: str) -> str:
    return f"{day}T12:00:00.000000+00:00"


def found(store: Store, query: str | None, sort: str | None = "created_at", kind: Kind = Kind.JOB) -> list[int]:
    project = store.projects.get("root", "quick-start")
    count, runs = store.runs.page(project, kind, query=query, sort=sort, limit=20, offset=0)
    assert count == len(runs)
    return [run.id for run in runs]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        # values
        ("id:2", [2]),
        ("id:1|3", [1, 3]),
        ("id:~1|3", [2, 4]),
        ("status:failed", [2]),
        ("status:~failed", [1, 3, 4]),
        ("status:failed|running", [2, 3]),
        ("status:~failed|running", [1, 4]),
        ("status:done", [1]),
        ("status:nonsense", []),
        (" status : failed ", [2]),
        ("commit:c0ffee", [1]),
        ("commit:~c0ffee", [2, 3, 4]),
        ("backend:native", [1, 2, 3]),
        ("backend:~native", [4]),
        # keys of other tables, by id and by name
        ("user:root", [1, 2, 4]),
        ("user:2", [3]),
        ("user:~root", [3]),
        ("project:quick-start", [1, 2, 3, 4]),
        ("project:root.quick-start", [1, 2, 3, 4]),
        ("project:1", [1, 2, 3, 4]),
        ("project:~quick-start", []),
        ("project:other|1", [1, 2, 3, 4]),
        ("build:1", [1, 2]),
        ("build:~1", [3, 4]),
        ("build:root.quick-start.builds.1", [1, 2]),
        # search
        ("name:train-b", [2]),
        ("name:train%", [1, 2]),
        ("name:%T", [3]),
        ("name:%rain%", [1, 2]),
        ("name:~train%", [3, 4]),
        ("name:test|train-b", [2, 3]),
        ("name:%", [1, 2, 3]),
        ("description:%0% _s%", [2]),
        ("description:%r_t%", []),
        ("description:%k\\s%", [3]),
        # tags
        ("tags:a", [1]),
        ("tags:b", [1, 2]),
        ("tags:a|c", [1]),
        ("tags:~a", [2, 3, 4]),
        ("tags:~a|b", [3, 4]),
        # dates
        ("created_at:2018-08-21", [2]),
        ("created_at:~2018-08-21", [1, 3, 4]),
        ("created_at:>2018-08-22", [3, 4]),
        ("created_at:>=2018-08-22", [3, 4]),
        ("created_at:=>2018-08-23 12:00", [4]),
        ("created_at:<2018-08-21", [1]),
        ("created_at:<=2018-08-21 12:00:00", [1, 2]),
        ("created_at:=<2018-08-20", []),
        ("created_at:~<2018-08-22", [3, 4]),
        ("created_at:2018-08-21 .. 2018-08-23", [2, 3]),
        ("created_at:~2018-08-21 .. 2018-08-23", [1, 4]),
        ("created_at:2018-08-21..2018-08-22", [2]),
        ("finished_at:>2018-01-01", [1, 2]),
        ("finished_at:~>2018-01-01", [3, 4]),
        # several
        ("status:failed,name:train%", [2]),
        ("name:train%,name:~train-b", [1]),
        ("created_at:>=2018-08-21,created_at:<2018-08-23", [2, 3]),
        (",,status:failed,", [2]),
        ("", [1, 2, 3, 4]),
        (",", [1, 2, 3, 4]),
    ],
)
def test_queries(filled: Store, query: str, ids: list[int]) -> None:
    assert found(filled, query) == ids


def test_letters_beyond_ascii_have_cases_too(filled: Store, root: User, project: Project) -> None:
    filled.runs.insert(project, root, NewRun(Kind.JOB, values={"description": "Größe ÄNDERN"}))
    assert found(filled, "description:%ändern") == [5]


@pytest.mark.parametrize(
    ("query", "kind", "message"),
    [
        ("foo:1", Kind.BUILD, "key `foo` is not supported by query manager `build`."),
        ("foo:1", Kind.JOB, "key `foo` is not supported by query manager `job`."),
        ("metric.loss:<1", Kind.JOB, "key `metric.loss` is not supported by query manager `job`."),
        ("build:1", Kind.BUILD, "key `build` is not supported by query manager `build`."),
        ("foo", Kind.JOB, "Expression is not valid, it must be formatted as name:operation, Expression: foo"),
        ("id:", Kind.JOB, "Expression is not valid, it must be formatted as name:operation, Expression: id:"),
        (":1", Kind.JOB, "Expression is not valid, it must be formatted as name:operation, Expression: :1"),
    ],
)
def test_the_documented_messages(filled: Store, query: str, kind: Kind, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        found(filled, query, kind=kind)
    assert caught.value.messages == [message]


@pytest.mark.parametrize(
    "query",
    [
        "status:a|",
        "status:|a",
        "status:~",
        "status:<a",
        "status:>=a",
        "status:a..b",
        "tags:a..b",
        "name:a|",
        "id:x",
        "id:>x",
        "id:1.5",
        "created_at:yesterday",
        "created_at:2018-08-20|2018-08-21",
        "created_at:2018-08-20 ..",
        "created_at:.. 2018-08-20",
        "created_at:>",
        "created_at:2018-13-01",
        "id:99999999999999999999",
        "id:<99999999999999999999",
        "created_at:9999-12-31",
        "created_at:>0001-01-01 00:00+10:00",
        "created_at:" + "9" * 5000,
    ],
)
def test_an_operation_that_makes_no_sense_is_refused_or_finds_what_it_says(filled: Store, query: str) -> None:
    try:
        assert found(filled, query) in ([], [1, 2, 3, 4])
    except InvalidInput as error:
        assert len(error.messages) == 1  # noqa: PT017


@pytest.mark.parametrize(
    "query",
    [
        ",".join(["status:failed"] * 2000),
        "project:" + "|".join(["x"] * 2000),
        "status:" + "|".join(["x"] * 40_000),
        "name:" + "x" * 60_000 + "%",
    ],
    ids=["expressions", "projects", "values", "pattern"],
)
def test_a_query_that_is_too_long_is_the_callers_fault(filled: Store, query: str) -> None:
    try:
        found(filled, query)
    except InvalidInput as error:
        assert len(error.messages) == 1  # noqa: PT017


INJECTIONS = [
    "name:') or 1=1 --",
    "name:%' or '1'='1",
    "status:failed') union select * from users --",
    "tags:a')); drop table runs; --",
    "id:1; drop table runs",
    "created_at:2018-01-01'; drop table runs; --",
    "project:x' or 'a'='a",
    "build:1 or 1=1",
    "r.pk:1",
    "name) or (1=1:x",
    'commit:" or 1=1 --',
    "user:?",
    "status::failed",
    "name:\x00",
]


@pytest.mark.parametrize("query", INJECTIONS)
def test_a_query_is_never_sql(filled: Store, query: str) -> None:
    try:
        assert found(filled, query) == []
    except InvalidInput as error:
        assert len(error.messages) == 1  # noqa: PT017
    assert found(filled, None) == [1, 2, 3, 4]


KEYS = [
    "id",
    "created_at",
    "finished_at",
    "name",
    "description",
    "user",
    "status",
    "project",
    "tags",
    "commit",
    "build",
]
WORDS = ["~", "|", "..", " .. ", "<", ">", "<=", "%", "1", "2018-08-22", "10:10", "failed", "'", '"', "--", "?", " "]
OPERATIONS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=5).map("".join)
EXPRESSIONS = st.builds("{}:{}".format, st.sampled_from(KEYS), OPERATIONS) | st.text(max_size=10)


@pytest.mark.slow
@settings(max_examples=250, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EXPRESSIONS, max_size=3).map(",".join), st.text(max_size=8) | st.sampled_from(["-created_at", "id"]))
@example("status:~a|b,id:>=1", "started_at,-x")
def test_any_query_finds_runs_or_is_invalid_input(filled: Store, query: str, sort: str) -> None:
    try:
        assert set(found(filled, query, sort)) <= {1, 2, 3, 4}
    except InvalidInput as error:
        assert isinstance(error.messages, list)  # noqa: PT017


@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KEYS), OPERATIONS.filter(lambda text: "," not in text and not text.strip().startswith("~")))
def test_a_query_and_its_negation_divide_the_runs(filled: Store, key: str, operation: str) -> None:
    try:
        positive = set(found(filled, f"{key}:{operation}"))
    except InvalidInput:
        return
    negative = set(found(filled, f"{key}:~{operation}"))
    assert positive | negative == {1, 2, 3, 4}
    assert not positive & negative


# -- order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sort", "ids"),
    [
        ("created_at", [1, 2, 3, 4]),
        ("-created_at", [4, 3, 2, 1]),
        ("finished_at,created_at", [1, 2, 3, 4]),
        ("-finished_at,-created_at", [2, 1, 4, 3]),
        (" -created_at , nope", [4, 3, 2, 1]),
        ("nope,created_at", [1, 2, 3, 4]),
        ("updated_at", [4, 1, 2, 3]),
        (None, [3, 2, 1, 4]),
        ("", [3, 2, 1, 4]),
        ("name,pk,--created_at,r.created_at", [3, 2, 1, 4]),
        ("created_at; drop table runs", [3, 2, 1, 4]),
    ],
)
def test_sort_drops_what_it_does_not_know(filled: Store, sort: str | None, ids: list[int]) -> None:
    assert found(filled, None, sort) == ids


@settings(max_examples=50, deadline=500)
@given(st.text(max_size=30).filter(lambda sort: not any(key in sort for key in queries.SORTABLE)))
def test_nothing_of_an_unknown_sort_reaches_the_sql(sort: str) -> None:
    assert order(sort, "job").sql == order(None, "job").sql


def test_a_list_for_sql_is_in_the_order_of_the_enum() -> None:
    assert queries.sql_list({BuildStatus.PUBLISH_FAILED, BuildStatus.COMPLETE}) == "(0, 8000)"
    assert queries.sql_list({Status.FAILED, Status.SUCCEEDED}) == "('succeeded', 'failed')"
    assert queries.sql_list(()) == "()"
