"""Early stopping, compared with tables computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.polyaxonfile import EarlyStopping
from polylocal.runner.group_outcome import experiments_to_end


def rule(**values: Any) -> EarlyStopping:
    return EarlyStopping.model_validate({"metric": "accuracy", **values})


def policy(kind: str, interval: int = 1, optimization: str = "maximize", **more: Any) -> EarlyStopping:
    return rule(optimization=optimization, policy={"kind": kind, "evaluation_interval": interval, **more})


# -- by value ---------------------------------------------------------------------------------------------------------


def test_a_rule_without_a_policy_ends_no_experiment() -> None:
    assert experiments_to_end(rule(value=0.9), {1: [0.1], 2: [0.8]}, [1, 2]) == {}


# -- by policy --------------------------------------------------------------------------------------------------------

# after 2 values each                     running means:    best so far:   last:
SERIES = {
    1: [0.1, 0.3],  #                     0.20              0.3            0.3
    2: [0.5, 0.7],  #                     0.60              0.7            0.7
    3: [0.4, 0.5],  #                     0.45              0.5            0.5
    4: [0.9, 0.2],  #                     0.55              0.9            0.2
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # medians of the others: 1: 0.55 > 0.3; 2: 0.45 < 0.7; 3: 0.55 > 0.5; 4: 0.45 < 0.9
        (policy("median", 2), {1, 3}),
        # minimised, best is the lowest: 1: 0.1; 2: 0.5 > 0.45; 3: 0.4 < 0.55; 4: 0.2 < 0.45
        (policy("median", 2, "minimize"), {2}),
        # means of the others' last: 1: 0.467 > 0.3; 2: 0.333 < 0.7; 3: 0.4 < 0.5; 4: 0.5 > 0.2
        (policy("average", 2), {1, 4}),
        (policy("average", 2, "minimize"), {2, 3}),
        # ranked 0.7 0.5 0.3 0.2: the worst 25 % is one, the worst half two
        (policy("truncation", 2, percent=25), {4}),
        (policy("truncation", 2, percent=50), {1, 4}),
        (policy("truncation", 2, percent=24), set()),
        (policy("truncation", 2, "minimize", percent=25), {2}),
        (policy("truncation", 2, "minimize", percent=50), {2, 3}),
    ],
)
def test_policies_against_a_table(given: EarlyStopping, expected: set[int]) -> None:
    assert experiments_to_end(given, SERIES, [1, 2, 3, 4]).keys() == expected


def test_an_average_that_is_met_is_not_missed() -> None:
    assert experiments_to_end(policy("average"), {1: [0.5], 2: [0.5], 3: [0.5]}, [1, 2, 3]) == {}


def test_only_running_ones_are_ended() -> None:
    assert experiments_to_end(policy("median", 2), SERIES, [3]).keys() == {3}
    assert experiments_to_end(policy("median", 2), SERIES, []) == {}


@pytest.mark.parametrize("kind", ["median", "average", "truncation"])
def test_no_experiment_is_compared_before_the_interval(kind: str) -> None:
    given = policy(kind, 3, **({"percent": 50} if kind == "truncation" else {}))
    assert experiments_to_end(given, {1: [0.0, 0.0], 2: [0.9] * 5, 3: [0.9] * 5}, [1, 2, 3]) == {}
    assert experiments_to_end(given, {1: [0.0] * 3, 2: [0.9] * 5, 3: [0.9] * 5}, [1, 2, 3]).keys() == {1}


def test_between_intervals_the_last_interval_counts() -> None:
    """The experiment is compared at its second value: its good third one and later ones of others don't count."""
    given = policy("average", 2)
    series = {1: [0.2, 0.2, 0.99], 2: [0.5, 0.5], 3: [0.5, 0.5, 0.0, 0.0]}
    assert experiments_to_end(given, series, [1]).keys() == {1}
    series[1] = [0.2, 0.6, 0.0]
    assert experiments_to_end(given, series, [1]) == {}


def test_only_experiments_with_as_many_values_are_compared() -> None:
    given = policy("median", 2)
    assert experiments_to_end(given, {1: [0.1, 0.1], 2: [0.9]}, [1, 2]) == {}
    assert experiments_to_end(given, {1: [0.1, 0.1], 2: [0.9], 3: [0.05, 0.05]}, [1, 2, 3]).keys() == {3}


@pytest.mark.parametrize("kind", ["median", "average", "truncation"])
def test_a_single_experiment_is_never_ended(kind: str) -> None:
    given = policy(kind, **({"percent": 90} if kind == "truncation" else {}))
    assert experiments_to_end(given, {1: [0.1]}, [1]) == {}


def test_truncation_leaves_at_least_one() -> None:
    given = policy("truncation", percent=99)
    series = {n: [n / 10] for n in range(1, 5)}
    assert 4 not in experiments_to_end(given, series, list(series))


def test_the_reason_says_what_was_compared() -> None:
    words = experiments_to_end(policy("average", 2), SERIES, [4])[4]
    assert words.startswith("Early stopping: accuracy 0.2 after 2")
    assert words.endswith("average 0.5")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "a `value` to reach or a `policy`"),
        ({"policy": {"kind": "truncation", "evaluation_interval": 1}}, "`truncation` needs a `percent`"),
        ({"policy": {"kind": "median", "evaluation_interval": 0}}, "greater than or equal to 1"),
        ({"policy": {"kind": "mode", "evaluation_interval": 1}}, "'median', 'average' or 'truncation'"),
    ],
)
def test_rules_that_say_too_little_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rule(**values)
