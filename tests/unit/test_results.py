"""The results of a group: the best experiment, the order of the table, its CSV, the importance of params."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from support import job

from polylocal.api import results
from polylocal.polyaxonfile import SearchMetric, parse
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

HYPERBAND = {
    "max_iter": 3,
    "eta": 3,
    "resource": {"name": "epochs"},
    "metric": {"name": "accuracy", "optimization": "maximize"},
}
ACCURACY = SearchMetric(name="accuracy")
LOSS = SearchMetric(name="loss", optimization="minimize")

Row = tuple[dict[str, Any], dict[str, float], Status]
Make = Callable[..., Run]


@pytest.fixture
def make(store: Store, root: User, project: Project) -> Make:
    """A group with these experiments: params, last metrics, status."""

    def made(rows: list[Row], **tuning: Any) -> Run:
        hptuning = {"matrix": {"lr": {"uniform": "0:1"}}, **(tuning or {"hyperband": HYPERBAND})}
        specification = parse({**job(), "kind": "group", "hptuning": hptuning}, Kind.GROUP)
        new = NewRun(Kind.GROUP, specification.content, specification.config, {"group_type": "study"})
        group = store.runs.insert(project, root, new)
        for params, metrics, status in rows:
            values = {"params": params, "iteration": 0}
            run = store.runs.insert(project, root, NewRun(Kind.EXPERIMENT, values=values, group=group))
            if status is not Status.CREATED:
                store.runs.transition(run, Status.RUNNING)
            if metrics:
                store.metrics.add(run, [(metrics, None)])
            if status not in (Status.CREATED, Status.RUNNING):
                store.runs.transition(run, status)
        return group

    return made


def done(lr: float, accuracy: float | None, status: Status = Status.SUCCEEDED, **more: Any) -> Row:
    return {"lr": lr, **more}, {} if accuracy is None else {"accuracy": accuracy}, status


MIXED = [
    done(0.1, 0.5),
    done(0.2, 0.9),
    done(0.3, 0.99, Status.FAILED),
    done(0.4, None),
    done(0.5, 0.9),
    done(0.6, None, Status.CREATED),
    done(0.7, 0.95, Status.RUNNING),
    done(0.8, -1.0),
    done(0.9, 0.0),
]


# -- the best ---------------------------------------------------------------------------------------------------------


def test_the_best_is_the_first_of_the_best_that_succeeded(store: Store, make: Make) -> None:
    group = make(MIXED)
    assert results.best(store, group) == {
        "id": 2,
        "unique_name": f"{group.unique_name}.2",
        "metric": "accuracy",
        "value": 0.9,
        "params": {"lr": 0.2},
    }


def test_the_best_may_be_the_lowest(store: Store, make: Make) -> None:
    group = make(MIXED, hyperband={**HYPERBAND, "metric": {"name": "accuracy", "optimization": "minimize"}})
    found = results.best(store, group)
    assert found
    assert (found["id"], found["value"]) == (8, -1.0)


def test_a_metric_of_zero_is_a_metric(store: Store, make: Make) -> None:
    found = results.best(store, make([done(0.1, -0.5), done(0.2, 0.0), done(0.3, None)]))
    assert found
    assert found["value"] == 0.0


@pytest.mark.parametrize("rows", [[], [done(0.1, None)], [done(0.1, 0.9, Status.FAILED)]])
def test_without_metrics_there_is_no_best_experiment(store: Store, make: Make, rows: list[Row]) -> None:
    group = make(rows)
    assert results.best(store, group) is None
    assert results.results(store, group)["best_experiment"] is None


def test_a_grid_without_early_stopping_has_no_metric_but_that_which_is_named(store: Store, make: Make) -> None:
    group = make([done(0.1, 0.5), done(0.2, 0.9)], random_search={"n_experiments": 2})
    assert results.best(store, group) is None
    plain = results.results(store, group)
    assert (plain["metric"], plain["importance"], [row["id"] for row in plain["results"]]) == (None, {}, [1, 2])
    named = results.best(store, group, ACCURACY)
    assert named
    assert named["id"] == 2


def test_early_stopping_names_a_metric(store: Store, make: Make) -> None:
    rule = {"metric": "accuracy", "value": 0.1, "optimization": "minimize"}
    group = make([done(0.1, 0.5), done(0.2, 0.9)], random_search={"n_experiments": 2}, early_stopping=[rule])
    found = results.best(store, group)
    assert found
    assert found["id"] == 1


def test_another_metric_may_be_named(store: Store, make: Make) -> None:
    rows = [({"lr": n}, {"accuracy": n, "loss": n}, Status.SUCCEEDED) for n in (0.3, 0.1, 0.2)]
    found = results.results(store, make(rows), LOSS)
    assert (found["metric"], found["optimization"]) == ("loss", "minimize")
    assert [row["id"] for row in found["results"]] == [2, 3, 1]


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_table_has_the_best_first_and_those_without_a_value_last(store: Store, make: Make) -> None:
    table = results.results(store, make(MIXED))
    assert [row["id"] for row in table["results"]] == [2, 5, 1, 9, 8, 3, 4, 6, 7]
    by_id = {row["id"]: row for row in table["results"]}
    assert by_id[3]["metrics"] == {"accuracy": 0.99}  # shown, but not used for the ranking
    assert by_id[6]["seconds"] is None
    assert by_id[7]["seconds"] is None
    assert (by_id[2]["seconds"] or 0) >= 0
    assert by_id[6]["status"] == "created"


def test_the_csv_equals_the_table(store: Store, make: Make) -> None:
    rows = [
        ({"lr": 0.1, "act": 'a "b", c'}, {"accuracy": 0.25, "loss": 1e-7}, Status.SUCCEEDED),
        ({"lr": 0.2, "units": 8}, {"accuracy": 0.5}, Status.SUCCEEDED),
        ({"lr": 0.3}, {}, Status.CREATED),
    ]
    table = results.results(store, make(rows))
    text = results.as_csv(table)
    assert "\r" not in text
    lines = list(csv.DictReader(io.StringIO(text)))
    assert list(lines[0]) == [
        *["id", "unique_name", "status", "iteration", "seconds"],
        *["params.lr", "params.units", "params.act", "metric.accuracy", "metric.loss"],
    ]
    assert [line["id"] for line in lines] == ["2", "1", "3"]
    assert [line["params.act"] for line in lines] == ["", 'a "b", c', ""]
    assert [line["metric.accuracy"] for line in lines] == ["0.5", "0.25", ""]
    assert float(lines[1]["metric.loss"]) == 1e-7
    assert lines[2]["seconds"] == ""


def test_the_csv_of_nothing_is_its_heading(store: Store, make: Make) -> None:
    assert results.as_csv(results.results(store, make([]))) == "id,unique_name,status,iteration,seconds\n"


# -- the weight of params ---------------------------------------------------------------------------------------------


def importance(store: Store, group: Run) -> dict[str, float]:
    return results.results(store, group)["importance"]


def test_a_param_that_decides_weighs_one_and_the_heaviest_comes_first(store: Store, make: Make) -> None:
    zigzag = [2, 4, 1, 3, 2]  # ranks 2.5 5 1 4 2.5 against 1 2 3 4 5: correlation −0.1026…
    rows = [done(10.0**n, -(n**3), zigzag=each, fixed=3, word="x") for n, each in enumerate(zigzag)]
    found = importance(store, make(rows))
    assert list(found) == ["lr", "zigzag"]
    assert found["lr"] == 1.0
    ranks, mean = [2.5, 5, 1, 4, 2.5], 3
    sum_xy = sum((x - mean) * (y - mean) for x, y in zip(ranks, [1, 2, 3, 4, 5], strict=True))
    assert found["zigzag"] == pytest.approx(sum_xy**2 / (sum((x - mean) ** 2 for x in ranks) * 10), abs=1e-4)


@pytest.mark.parametrize(
    "rows",
    [
        [done(n, n) for n in (0.1, 0.2, 0.3)],  # three values are too few
        [done(0.1, n) for n in (0.1, 0.2, 0.3, 0.4)],  # the param is constant
        [done(n, 0.5) for n in (0.1, 0.2, 0.3, 0.4)],  # the metric is constant
        [done(n, n, Status.FAILED) for n in (0.1, 0.2, 0.3, 0.4)],
        [({"lr": n % 2 == 0}, {"accuracy": n}, Status.SUCCEEDED) for n in range(4)],  # a boolean param
    ],
    ids=["few", "constant", "flat", "failed", "switch"],
)
def test_params_without_evidence_have_no_importance(store: Store, make: Make, rows: list[Row]) -> None:
    assert importance(store, make(rows)) == {}


def test_a_param_that_some_have_is_weighed_among_those(store: Store, make: Make) -> None:
    rows = [done(0.5, n / 10, **({"units": n} if n != 2 else {})) for n in range(6)]
    assert importance(store, make(rows)) == {"units": 1.0}
