"""`?query=` and `?sort=` of groups, experiments, notebooks and tensorboards, and the indexes that lists are read by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polylocal.errors import InvalidInput
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store, queries
from polylocal.store.queries import Page
from polylocal.store.rows import Project, Run, User


@pytest.fixture
def filled(store: Store, root: User, project: Project) -> Store:
    """Groups 1 (grid, 2 at once), 2 (random, 5) and 3 (a selection); experiments 1, 2 of group 1, 3 of group 2, 4 and 5
    by themselves; tensorboards 1 of the project, 2 of group 1, 3 of experiment 4; notebooks 1 and 2."""

    def insert(kind: Kind, group: Run | None = None, **values: Any) -> Run:
        return store.runs.insert(project, root, NewRun(kind, values=values, group=group))

    grid = insert(Kind.GROUP, name="first", group_type="study", search_algorithm="grid", concurrency=2)
    chance = insert(Kind.GROUP, name="second", group_type="study", search_algorithm="random", concurrency=5)
    selection = insert(Kind.GROUP, name="third", group_type="selection")
    runs = [
        insert(Kind.EXPERIMENT, grid, params={"lr": 0.1, "opt": "adam"}, framework="pytorch"),
        insert(Kind.EXPERIMENT, grid, params={"lr": 0.2, "opt": "sgd"}),
        insert(Kind.EXPERIMENT, chance, params={"lr": 1, "deep": True}),
        insert(Kind.EXPERIMENT, params={"lr": "0.1", "a.b": 1}, backend="native"),
        insert(Kind.EXPERIMENT),
    ]
    for run, values in zip(runs, [{"loss": 3, "acc": 0.5}, {"loss": 1}, {"loss": 2.5}, {"top.1": 7}], strict=False):
        store.metrics.add(run, [(values, None)])
    store.runs.transition(runs[0], Status.SUCCEEDED)
    store.groups.select(selection, [runs[1], runs[4]], None)
    insert(Kind.TENSORBOARD)
    insert(Kind.TENSORBOARD, grid)
    insert(Kind.TENSORBOARD, experiment_pk=runs[3].pk)
    insert(Kind.NOTEBOOK, backend="lab")
    insert(Kind.NOTEBOOK, backend="notebook")
    return store


def found(store: Store, kind: Kind, query: str | None, sort: str = "created_at", group: Run | None = None) -> list[int]:
    project = store.projects.get("root", "quick-start")
    count, runs = store.runs.page(project, kind, query=query, sort=sort, limit=20, offset=0, group=group)
    assert count == len(runs)
    return [run.id for run in runs]


@pytest.mark.parametrize(
    ("kind", "query", "ids"),
    [
        # groups
        (Kind.GROUP, "type:study", [1, 2]),
        (Kind.GROUP, "type:selection", [3]),
        (Kind.GROUP, "type:~study", [3]),
        (Kind.GROUP, "search_algorithm:grid", [1]),
        (Kind.GROUP, "search_algorithm:grid|random", [1, 2]),
        (Kind.GROUP, "search_algorithm:~grid", [2, 3]),
        (Kind.GROUP, "concurrency:2", [1]),
        (Kind.GROUP, "concurrency:>2", [2]),
        (Kind.GROUP, "concurrency:>=2", [1, 2]),
        (Kind.GROUP, "concurrency:<=4.5", [1]),
        (Kind.GROUP, "concurrency:~2", [2, 3]),
        (Kind.GROUP, "concurrency:~<3", [2, 3]),
        (Kind.GROUP, "name:%ir%,status:created", [1, 3]),
        # experiments
        (Kind.EXPERIMENT, "group:1", [1, 2]),
        (Kind.EXPERIMENT, "group:1|2", [1, 2, 3]),
        (Kind.EXPERIMENT, "group:~1", [3, 4, 5]),
        (Kind.EXPERIMENT, "group:root.quick-start.2", [3]),
        (Kind.EXPERIMENT, "independent:true", [4, 5]),
        (Kind.EXPERIMENT, "independent:false", [1, 2, 3]),
        (Kind.EXPERIMENT, "independent:~true", [1, 2, 3]),
        (Kind.EXPERIMENT, "independent:1,id:>4", [5]),
        (Kind.EXPERIMENT, "framework:pytorch", [1]),
        (Kind.EXPERIMENT, "backend:native", [4]),
        (Kind.EXPERIMENT, "metric.loss:<2.6", [2, 3]),
        (Kind.EXPERIMENT, "metrics.loss:>=2.5", [1, 3]),
        (Kind.EXPERIMENT, "metric.loss:3", [1]),
        (Kind.EXPERIMENT, "metric.loss:~3", [2, 3, 4, 5]),
        (Kind.EXPERIMENT, "metric.loss:~<2.6", [1, 4, 5]),
        (Kind.EXPERIMENT, "metric.top.1:7", [4]),
        (Kind.EXPERIMENT, "metric.nope:>0", []),
        (Kind.EXPERIMENT, "metric.loss:<3,metric.loss:>1", [3]),
        (Kind.EXPERIMENT, "params.opt:adam", [1]),
        (Kind.EXPERIMENT, "declarations.opt:adam|sgd", [1, 2]),
        (Kind.EXPERIMENT, "params.lr:0.1", [1, 4]),
        (Kind.EXPERIMENT, "params.lr:1", [3]),
        (Kind.EXPERIMENT, "params.lr:1.0|0.10", [1, 3]),
        (Kind.EXPERIMENT, "params.lr:<0.2", [1]),
        (Kind.EXPERIMENT, "params.lr:<=0.2", [1, 2]),
        (Kind.EXPERIMENT, "params.lr:=>0.2", [2, 3]),
        (Kind.EXPERIMENT, "declarations.lr:>1e-1", [2, 3]),
        (Kind.EXPERIMENT, "params.lr:~<0.2", [2, 3, 4, 5]),
        (Kind.EXPERIMENT, "params.lr:0.1 .. 0.2", [1, 2]),
        (Kind.EXPERIMENT, "params.lr:~0.1..0.2", [3, 4, 5]),
        (Kind.EXPERIMENT, "params.opt:>1", []),
        (Kind.EXPERIMENT, "params.deep:>0", []),
        (Kind.EXPERIMENT, "params.opt:~adam|sgd", [3, 4, 5]),
        (Kind.EXPERIMENT, "params.lr:<0.2,params.opt:adam", [1]),
        (Kind.EXPERIMENT, "params.lr:~0.1", [2, 3, 5]),
        (Kind.EXPERIMENT, "params.deep:true", [3]),
        (Kind.EXPERIMENT, "params.a.b:1", [4]),
        (Kind.EXPERIMENT, "params.opt:adam,metric.acc:0.5,status:done", [1]),
        # servers
        (Kind.TENSORBOARD, "group:1", [2]),
        (Kind.TENSORBOARD, "experiment:4", [3]),
        (Kind.TENSORBOARD, "experiment:~4", [1, 2]),
        (Kind.TENSORBOARD, "status:created", [1, 2, 3]),
        (Kind.NOTEBOOK, "backend:lab", [1]),
        (Kind.NOTEBOOK, "backend:~lab", [2]),
    ],
)
def test_queries(filled: Store, kind: Kind, query: str, ids: list[int]) -> None:
    assert found(filled, kind, query) == ids


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        (Kind.JOB, "group:1"),
        (Kind.JOB, "independent:true"),
        (Kind.GROUP, "independent:true"),
        (Kind.GROUP, "group:1"),
        (Kind.GROUP, "metric.loss:1"),
        (Kind.GROUP, "commit:abc"),
        (Kind.GROUP, "build:1"),
        (Kind.EXPERIMENT, "experiment:1"),
        (Kind.EXPERIMENT, "concurrency:1"),
        (Kind.EXPERIMENT, "type:study"),
        (Kind.EXPERIMENT, "search_algorithm:grid"),
        (Kind.NOTEBOOK, "experiment:1"),
        (Kind.NOTEBOOK, "framework:x"),
        (Kind.TENSORBOARD, "params.lr:1"),
    ],
)
def test_what_a_kind_does_not_have_is_refused(filled: Store, kind: Kind, query: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        found(filled, kind, query)
    field = query.partition(":")[0]
    assert caught.value.messages == [f"key `{field}` is not supported by query manager `{kind}`."]


@pytest.mark.parametrize(
    "query",
    ["metric.loss:x", "metric.loss:nan", "metric.loss:inf", "metric.loss:1|2", "metric.loss:1..2", "metric.:1"]
    + [
        "independent:maybe",
        "params.lr:a|",
        "params.lr:>x",
        "params.lr:0..x",
        "params.lr:..",
        "params.lr:<nan",
        "params:1",
        "metric:1",
        "group:~",
        "independent:",
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(filled: Store, query: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        found(filled, Kind.EXPERIMENT, query)
    assert len(caught.value.messages) == 1


@pytest.mark.parametrize("query", ["concurrency:x", "concurrency:1|2", "concurrency:>", "type:<a"])
def test_and_of_groups_too(filled: Store, query: str) -> None:
    with pytest.raises(InvalidInput):
        found(filled, Kind.GROUP, query)


@pytest.mark.parametrize(
    ("sort", "ids"),
    [
        ("metric.loss", [2, 3, 1, 5, 4]),
        ("-metric.loss", [1, 3, 2, 5, 4]),
        ("-metrics.loss,created_at", [1, 3, 2, 4, 5]),
        ("metric.top.1,created_at", [4, 1, 2, 3, 5]),
        ("metric.loss') --", [5, 4, 3, 2, 1]),
        ("params.lr", [1, 2, 3, 4, 5]),  # 0.1, 0.2, 1, "0.1", none
        ("-params.lr", [3, 2, 1, 4, 5]),
        ("declarations.opt,-created_at", [1, 2, 5, 4, 3]),
        ("-params.opt,created_at", [2, 1, 3, 4, 5]),
        ("params.deep,-metric.loss", [3, 1, 2, 5, 4]),
        ("params.a.b,nonsense,created_at", [4, 1, 2, 3, 5]),
    ],
)
def test_experiments_are_sorted_by_their_metrics_without_one_last(filled: Store, sort: str, ids: list[int]) -> None:
    assert found(filled, Kind.EXPERIMENT, None, sort) == ids


def test_texts_and_flags_come_after_numbers_and_nulls_last(store: Store, root: User, project: Project) -> None:
    values = ["b", None, 10, True, 9.5, -1, "a", 1e-7, [2], "10", False]
    for value in values:
        store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, values={"params": {"x": value}}))

    def in_order(sort: str) -> list[Any]:
        return [values[number - 1] for number in found(store, Kind.EXPERIMENT, None, sort)]

    numbers, texts = [-1, 1e-7, 9.5, 10], ["10", [2], "a", "b", False, True]
    assert in_order("params.x") == [*numbers, *texts, None]
    assert in_order("-params.x") == [*numbers[::-1], *texts[::-1], None]


@pytest.mark.parametrize("value", [0.0031622776601683794, 1 / 3, 1e-5, 1e22, 123456789012345678, 10**30, -2.5e-300, 5])
def test_a_param_is_found_by_its_number_to_the_last_digit(
    value: float, store: Store, root: User, project: Project
) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, values={"params": {"lr": value}}))
    for written in (str(value), f"{value:e}" if value == float(f"{value:e}") else repr(float(value))):
        for query in (f"params.lr:{written}", f"params.lr:<={written},params.lr:>={written}"):
            assert found(store, Kind.EXPERIMENT, query) == [1], query
    store.runs.update(run, {"params": {"lr": value * 2}})
    assert found(store, Kind.EXPERIMENT, f"params.lr:{value}") == []
    assert found(store, Kind.EXPERIMENT, f"params.lr:{value * 2}") == [1]


@pytest.mark.parametrize(
    ("sort", "kind", "sentence"),
    [
        ("nonsense", Kind.JOB, "`nonsense` is not a key to sort by; the keys are created_at, updated_at, started_at,"),
        ("created_at,-id", Kind.EXPERIMENT, "`id` is not a key to sort by; the keys are created_at"),
        ("params", Kind.EXPERIMENT, "metric.NAME, params.NAME."),
        ("params.", Kind.EXPERIMENT, "`params.` is not a key"),
        ("x", None, "metric.NAME, params.NAME (of experiments)."),
        ("metric.loss", Kind.JOB, "`metric.loss` is known of experiments only: name a kind (`--kind experiment`)."),
        ("-params.lr", None, "`params.lr` is known of experiments only: name a kind (`--kind experiment`)."),
    ],
)
def test_a_key_that_is_none_is_told_with_those_that_there_are(sort: str, kind: Kind | None, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        queries.check_sort(sort, kind)
    assert sentence in caught.value.messages[0]
    queries.check_sort("-created_at, finished_at,", kind)
    queries.check_sort(None, kind)


def test_a_list_of_all_kinds(filled: Store, project: Project) -> None:
    def listed(query: str | None = None, sort: str | None = None, **more: Any) -> tuple[int, list[str]]:
        window = {"limit": 20, "offset": 0, **more}
        count, runs = filled.runs.page(project, None, query=query, sort=sort, **window)
        return count, [run.label for run in runs]

    count, labels = listed()
    assert (count, len(labels), labels[:3]) == (13, 13, ["notebook/2", "notebook/1", "tensorboard/3"])
    assert listed(limit=4, offset=5) == (13, labels[5:9])
    assert listed(query="id:1", sort="created_at")[1] == ["group/1", "experiment/1", "tensorboard/1", "notebook/1"]
    assert listed(query="status:done") == (1, ["experiment/1"])
    assert listed(only_open=True)[0] == 12
    assert listed(query="id:1", only_open=True)[0] == 3
    assert listed(sort="created_at", limit=2)[1] == ["group/1", "group/2"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("metric.loss:<1", "`metric.loss` is known of experiments only: name a kind (`--kind experiment`)."),
        ("params.lr:1", "`params.lr` is known of experiments only: name a kind (`--kind experiment`)."),
        ("concurrency:2", "`concurrency` is known of groups only: name a kind (`--kind group`)."),
        ("group:2", "`group` is known of experiments and tensorboards only: name a kind (`--kind tensorboard`)."),
        ("foo:2", "key `foo` is not supported by query manager `run`."),
    ],
)
def test_what_not_every_kind_has_needs_a_kind(filled: Store, project: Project, query: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        filled.runs.page(project, None, query=query, sort=None, limit=20, offset=0)
    assert caught.value.messages == [sentence]


def test_only_experiments_are_sorted_by_metrics(filled: Store) -> None:
    default = found(filled, Kind.GROUP, None, "")
    assert found(filled, Kind.GROUP, None, "metric.loss") == default


def test_the_experiments_of_a_group_are_filtered_and_counted_alone(filled: Store, project: Project) -> None:
    grid, chance, selection = (filled.runs.get(project, Kind.GROUP, n) for n in (1, 2, 3))
    assert found(filled, Kind.EXPERIMENT, None, group=grid) == [1, 2]
    assert found(filled, Kind.EXPERIMENT, "metric.loss:<2", group=grid) == [2]
    assert found(filled, Kind.EXPERIMENT, "params.lr:0.1", group=chance) == []
    assert found(filled, Kind.EXPERIMENT, None, group=selection) == [2, 5]
    assert found(filled, Kind.EXPERIMENT, "independent:true", "-metric.loss", group=selection) == [5]


def test_values_that_change_are_found_by_their_new_values(filled: Store, project: Project) -> None:
    run = filled.runs.get(project, Kind.EXPERIMENT, 1)
    filled.runs.update(run, {"params": {"lr": 9}})
    filled.metrics.add(run, [({"loss": 0.25}, None)])
    assert found(filled, Kind.EXPERIMENT, "params.lr:9") == [1]
    assert found(filled, Kind.EXPERIMENT, "params.opt:adam") == []
    assert found(filled, Kind.EXPERIMENT, "metric.loss:<0.5,metric.acc:0.5") == [1]
    filled.runs.remove(run)
    assert found(filled, Kind.EXPERIMENT, "params.lr:9") == []


KEYS = ["group", "independent", "framework", "backend", "metric.loss", "metrics.acc", "params.lr", "params.opt"]
WORDS = ["~", "|", "..", "<", ">", "<=", "%", "1", "0.1", "adam", "true", "false", "'", '"', "--", "?", " ", "root.p.1"]
OPERATIONS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=4).map("".join)


@pytest.mark.slow
@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KEYS), OPERATIONS.filter(lambda text: "," not in text and not text.strip().startswith("~")))
def test_a_query_and_its_negation_divide_the_experiments(filled: Store, key: str, operation: str) -> None:
    try:
        positive = set(found(filled, Kind.EXPERIMENT, f"{key}:{operation}"))
    except InvalidInput:
        return
    negative = set(found(filled, Kind.EXPERIMENT, f"{key}:~{operation}"))
    assert positive | negative == {1, 2, 3, 4, 5}
    assert not positive & negative


# -- indexes -----------------------------------------------------------------------------------------------------


@contextmanager
def plans(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The query plans of SQLite for the queries of the block."""
    asked: list[str] = []
    connection = store.database._acquire()
    connection.set_trace_callback(asked.append)
    monkeypatch.setattr(store.database, "_acquire", lambda: connection)
    monkeypatch.setattr(store.database, "_release", lambda _: None)
    steps: list[str] = []
    try:
        yield steps
    finally:
        connection.set_trace_callback(None)
        for query in asked:
            if query.lstrip().startswith("select"):
                steps += [row["detail"] for row in connection.execute(f"explain query plan {query}")]
        monkeypatch.undo()
        store.database._release(connection)


def scans(steps: list[str]) -> list[str]:
    """The steps that scan a whole table. A scan of an index that has only such rows is not among them."""
    return [step for step in steps if step.startswith("SCAN r") and "INDEX" not in step]


@pytest.mark.parametrize(
    ("kind", "query", "index"),
    [
        (Kind.JOB, None, "runs_listed"),
        (Kind.EXPERIMENT, "status:running", "runs_by_status"),
        (Kind.EXPERIMENT, "metric.loss:<2", "run_values_number"),
        (Kind.EXPERIMENT, "params.opt:adam", "run_values_text"),
        (Kind.EXPERIMENT, "params.lr:0.1", "run_values_text"),
        (Kind.EXPERIMENT, "params.lr:0.1", "run_values_number"),
        (Kind.EXPERIMENT, "params.lr:<0.1", "run_values_number"),
    ],
)
def test_lists_are_read_by_an_index(
    filled: Store, project: Project, monkeypatch: pytest.MonkeyPatch, kind: Kind, query: str | None, index: str
) -> None:
    with plans(filled, monkeypatch) as steps:
        filled.runs.page(project, kind, query=query, sort=None, limit=20, offset=0)
    assert any(index in step for step in steps), steps
    assert not scans(steps)


def test_a_list_in_its_own_order_sorts_nothing(
    filled: Store, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plans(filled, monkeypatch) as steps:
        filled.runs.page(project, Kind.JOB, query=None, sort=None, limit=20, offset=0)
        filled.runs.page(project, Kind.EXPERIMENT, query="status:running", sort=None, limit=20, offset=0)
    assert not [step for step in steps if "TEMP B-TREE" in step]


def test_a_list_of_all_kinds_reads_the_newest_of_each(
    filled: Store, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plans(filled, monkeypatch) as steps:
        filled.runs.page(project, None, query=None, sort=None, limit=20, offset=0)
    assert len([step for step in steps if "runs_listed" in step]) == len(Kind)
    assert not scans(steps)


ASKED = {
    "runs_groups": lambda store, group: store.groups.open_groups(),
    "runs_group": lambda store, group: (store.groups.counts(group), store.groups.release(group)),
    "runs_stopping": lambda store, group: store.queue.stopping(),
    "runs_deleted": lambda store, group: store.queue.deleted(),
    "runs_open": lambda store, group: store.queue.runnable(9, servers=True),
    "runs_servers": lambda store, group: store.runs.server(
        store.projects.by_id(group.project_id), Kind.TENSORBOARD, group=group
    ),
    "runs_archived": lambda store, group: store.runs.archives(store.users.get("root"), Kind.JOB, Page(9, 0)),
}


@pytest.mark.parametrize("index", ASKED)
def test_what_is_asked_all_the_time_is_read_by_an_index(
    filled: Store, project: Project, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    group = filled.runs.get(project, Kind.GROUP, 1)
    with plans(filled, monkeypatch) as steps:
        ASKED[index](filled, group)
    assert any(f"INDEX {index} " in f"{step} " for step in steps), steps
    assert not scans(steps)
