"""The final status of a group, from the final statuses of its experiments."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.polyaxonfile import HPTuning
from polylocal.runner.group_outcome import FinishedGroup, metrics, outcome

MATRIX = {"matrix": {"lr": {"values": [1, 2]}}}
METRIC = {"name": "loss", "optimization": "minimize"}
BO = {"matrix": {"lr": {"uniform": "0:1"}}, "bo": {"n_initial_trials": 2, "n_iterations": 2, "metric": METRIC}}
BAND = {
    "matrix": {"lr": {"uniform": "0:1"}},
    "hyperband": {"max_iter": 9, "eta": 3, "resource": {"name": "epochs"}, "metric": METRIC},
}
EARLY = {**MATRIX, "early_stopping": [{"metric": "accuracy", "value": 0.9}]}


def ended(tuning: dict[str, Any], counts: dict[str, int], *reported: str, **more: Any) -> tuple[str, str]:
    found = outcome(HPTuning.model_validate(tuning), FinishedGroup(counts, dict.fromkeys(reported, True), **more))
    return str(found.status), found.message


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"succeeded": 8}, ("succeeded", "All experiments are done: 8 succeeded")),
        ({"failed": 7, "succeeded": 1}, ("succeeded", "All experiments are done: 7 failed, 1 succeeded")),
        ({}, ("succeeded", "All experiments are done: none is left")),
        ({"failed": 8}, ("failed", "All 8 experiments failed: 8 failed")),
        ({"failed": 1}, ("failed", "The only experiment failed: 1 failed")),
        (
            {"failed": 5, "upstream_failed": 3},
            ("failed", "All 8 experiments failed: 5 failed, 3 upstream_failed"),
        ),
        ({"failed": 5, "stopped": 3}, ("failed", "No experiment of 8 succeeded: 5 failed, 3 stopped")),
        ({"stopped": 8}, ("stopped", "All 8 experiments were stopped: 8 stopped")),
        ({"stopped": 1}, ("stopped", "The only experiment was stopped: 1 stopped")),
        ({"stopped": 2, "skipped": 1}, ("stopped", "All 3 experiments were stopped: 1 skipped, 2 stopped")),
    ],
)
def test_a_search_succeeds_when_something_was_found(counts: dict[str, int], expected: tuple[str, str]) -> None:
    assert ended(MATRIX, counts) == expected


def test_a_budget_that_is_used_up_before_anything_succeeded() -> None:
    wanted = "The budget is used up: No experiment of 3 succeeded: 3 stopped"
    assert ended(MATRIX, {"stopped": 3}, is_late=True) == ("failed", wanted)


@pytest.mark.parametrize("tuning", [BO, BAND])
def test_a_search_whose_metric_no_experiment_reported(tuning: dict[str, Any]) -> None:
    wanted = "No experiment reported the metric `loss`: 1 failed, 3 succeeded"
    assert ended(tuning, {"succeeded": 3, "failed": 1}) == ("failed", wanted)
    assert ended(tuning, {"succeeded": 3}, "loss") == ("succeeded", "All experiments are done: 3 succeeded")
    assert ended(tuning, {"failed": 3}) == ("failed", "All 3 experiments failed: 3 failed")


def test_a_search_in_which_every_value_that_it_compares_is_nan() -> None:
    found = outcome(HPTuning.model_validate(BAND), FinishedGroup({"succeeded": 3}, {"loss": False}))
    wanted = "No experiment ended with a finite value of the metric `loss`: 3 succeeded"
    assert (found.status, found.message) == ("failed", wanted)


def test_early_stopping_whose_metric_no_experiment_reported_is_noted() -> None:
    wanted = "All experiments are done: 3 succeeded. No experiment reported the metric `accuracy`"
    wanted += ": early stopping judged none"
    assert ended(EARLY, {"succeeded": 3}) == ("succeeded", wanted)
    assert ended(EARLY, {"succeeded": 3}, "accuracy") == ("succeeded", "All experiments are done: 3 succeeded")


def test_a_limit_of_failures() -> None:
    tuning = {**MATRIX, "max_failures": 2}
    wanted = "2 experiments failed, and `max_failures` is 2: 2 failed, 1 stopped, 4 succeeded"
    assert ended(tuning, {"failed": 2, "stopped": 1, "succeeded": 4}) == ("failed", wanted)
    assert ended(tuning, {"upstream_failed": 1, "failed": 1})[0] == "failed"
    assert ended(tuning, {"failed": 1, "succeeded": 4})[0] == "succeeded"
    one = {**MATRIX, "max_failures": 1}
    assert ended(one, {"failed": 1})[1] == "1 experiment failed, and `max_failures` is 1: 1 failed"


@pytest.mark.parametrize("number", [0, -1, 1.5, "many"])
def test_the_limit_is_at_least_one(number: object) -> None:
    with pytest.raises(ValueError, match="max_failures"):
        HPTuning.model_validate({**MATRIX, "max_failures": number})


def test_the_details_say_why() -> None:
    found = outcome(HPTuning.model_validate(MATRIX), FinishedGroup({"failed": 2}, build="root.p.builds.1"))
    assert found.details == {"reason": "build", "experiments": 2, "failed": 2, "build_job": "root.p.builds.1"}
    found = outcome(HPTuning.model_validate(BO), FinishedGroup({"succeeded": 2}))
    assert found.details == {"reason": "metric", "experiments": 2, "failed": 0}


def test_the_metrics_that_a_search_looks_at() -> None:
    assert metrics(HPTuning.model_validate(MATRIX)) == []
    assert metrics(HPTuning.model_validate({**BO, "early_stopping": EARLY["early_stopping"]})) == ["loss", "accuracy"]
