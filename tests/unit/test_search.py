"""Grid and random search: order, seeds, distributions."""

from __future__ import annotations

import json
import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal.polyaxonfile import HPTuning
from polylocal.runner.search import Params, suggestions


def tuning(matrix: dict[str, Any], **more: Any) -> HPTuning:
    return HPTuning(matrix=matrix, **more)


def found(matrix: dict[str, Any], n: int | None = None, seed: str = "a group", **more: Any) -> list[Params]:
    if n is not None:
        more["random_search"] = {"n_experiments": n}
    return list(suggestions(tuning(matrix, **more), seed))


def drawn(option: dict[str, Any], n: int = 2000) -> list[Any]:
    return [each["x"] for each in found({"x": option}, n)]


# -- grid --------------------------------------------------------------------------------------------------------


def test_the_last_name_of_the_matrix_varies_fastest() -> None:
    grid = found({"b": {"values": ["x", "y"]}, "a": {"range": [0, 3, 1]}})
    assert grid == [{"b": b, "a": a} for b in "xy" for a in range(3)]
    assert list(grid[0]) == ["b", "a"]


@pytest.mark.parametrize(("n", "size"), [(1, 1), (4, 4), (100, 6)])
def test_a_grid_is_cut(n: int, size: int) -> None:
    matrix = {"a": {"range": [0, 2, 1]}, "b": {"range": [0, 3, 1]}}
    assert found(matrix, grid_search={"n_experiments": n}) == found(matrix)[:size]


def test_an_absurdly_large_grid_is_refused() -> None:
    axes = {name: {"range": [0, 1000, 1]} for name in "abc"}
    with pytest.raises(ValueError, match="the grid has 1000000000 points, more than 100000: see `n_experiments`"):
        tuning(axes)
    few = tuning(axes, grid_search={"n_experiments": 3})
    assert list(suggestions(few, "seed")) == [{"a": 0, "b": 0, "c": n} for n in range(3)]


@pytest.mark.parametrize("algorithm", ["hyperband", "bo"])
def test_searches_that_learn_from_results_suggest_nothing_here(algorithm: str) -> None:
    metric = {"name": "loss"}
    about = {
        "hyperband": {"max_iter": 9, "eta": 3, "resource": {"name": "epochs"}, "metric": metric},
        "bo": {"n_initial_trials": 1, "n_iterations": 1, "metric": metric},
    }
    with pytest.raises(ValueError, match=f"`{algorithm}` learns from results"):
        list(suggestions(tuning({"a": {"values": [1]}}, **{algorithm: about[algorithm]}), ""))


# -- random ------------------------------------------------------------------------------------------------------

MIXED = {"lr": {"uniform": [0, 1]}, "opt": {"values": ["adam", "sgd"]}, "n": {"range": [0, 5, 1]}}


def test_the_same_seed_gives_the_same_draws_and_another_one_others() -> None:
    assert found(MIXED, 20, seed="a") == found(MIXED, 20, seed="a")
    assert found(MIXED, 20, seed="a") != found(MIXED, 20, seed="b")


def test_the_seed_of_the_file_overrides_that_of_the_group() -> None:
    def of(seed: int, group: str) -> list[Params]:
        return list(suggestions(tuning(MIXED, seed=seed, random_search={"n_experiments": 10}), group))

    assert of(5, "a") == of(5, "b") != of(6, "a")
    assert of(0, "a") != of(0, "b")


def test_fewer_draws_are_the_first_of_more() -> None:
    assert found(MIXED, 5) == found(MIXED, 50)[:5]


@pytest.mark.parametrize(("sizes", "n"), [((300,), 300), ((20, 20), 400), ((3,), 50), ((2, 3, 4), 1000), ((1,), 1)])
def test_a_space_with_an_end_is_used_up(sizes: tuple[int, ...], n: int) -> None:
    matrix = {f"p{i}": {"range": [0, size, 1]} for i, size in enumerate(sizes)}
    drawn = found(matrix, n)
    assert len(drawn) == len({json.dumps(each) for each in drawn}) == min(n, math.prod(sizes))


def test_a_very_unlikely_value_is_drawn_once() -> None:
    matrix = {"x": {"pvalues": [["a", 0.9999999], ["b", 1e-9], ["b", 1e-9]]}}
    assert sorted(each["x"] for each in found(matrix, 10)) == ["a", "b"]


def test_equal_values_are_one() -> None:
    assert [each["x"] for each in found({"x": {"values": [1, 1, 1]}}, 3)] == [1]


def test_values_of_other_types_are_other_values() -> None:
    assert len(found({"x": {"values": [1, True, "1", 1.5, None, [1]]}}, 10)) == 6


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abc"), st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), min_size=1
    ),
    st.integers(1, 30),
    st.text(max_size=4),
)
def test_random_draws_are_points_of_the_grid_without_a_repetition(
    values: dict[str, list[int]], n: int, seed: str
) -> None:
    matrix = {name: {"values": each} for name, each in values.items()}
    grid, chance = found(matrix), found(matrix, n, seed)
    assert len(chance) == min(n, len(grid))
    assert all(point in grid for point in chance)
    assert all(chance.count(point) == 1 for point in chance)


# -- distributions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "low", "high"),
    [({"uniform": [2, 3]}, 2, 3), ({"loguniform": [0, 1]}, 1, math.e), ({"quniform": [0, 1, 0.25]}, 0, 1)],
)
def test_draws_stay_between_the_ends(option: dict[str, Any], low: float, high: float) -> None:
    assert all(low <= value <= high for value in drawn(option, 500))


@pytest.mark.parametrize(
    ("option", "mean", "deviation"),
    [
        ({"uniform": [0, 1]}, 0.5, 1 / math.sqrt(12)),
        ({"normal": [3, 2]}, 3, 2),
        ({"lognormal": [0, 0.25]}, math.exp(0.25**2 / 2), 0.26),
        ({"loguniform": [0, 1]}, math.e - 1, 0.492),
    ],
)
def test_draws_are_distributed_as_they_say(option: dict[str, Any], mean: float, deviation: float) -> None:
    values = drawn(option)
    assert statistics.fmean(values) == pytest.approx(mean, abs=0.1)
    assert statistics.stdev(values) == pytest.approx(deviation, abs=0.1)


@pytest.mark.parametrize(
    "option",
    [{"quniform": [0, 10, 2]}, {"qnormal": [0, 10, 2]}, {"qloguniform": [0, 3, 2]}, {"qlognormal": [1, 1, 2]}],
)
def test_quantised_draws_are_multiples(option: dict[str, Any]) -> None:
    values = drawn(option, 20)
    assert len(values) > 2
    assert all(value % 2 == 0 for value in values)


def test_quantised_draws_are_rounded_down() -> None:
    """Floor division, and then a rounding that changes nothing: only 10 itself gives 10."""
    assert set(drawn({"quniform": [0, 10, 5]}, 5)) <= {0, 5}


def test_weights_count() -> None:
    matrix = {"x": {"pvalues": [["often", 0.9], ["seldom", 0.1]]}, "y": {"uniform": [0, 1]}}
    words = [each["x"] for each in found(matrix, 1000)]
    assert words.count("often") > 5 * words.count("seldom") > 0


@pytest.mark.parametrize(
    "option",
    [
        {"values": ["a", [1], {"b": None}]},
        {"pvalues": [["a", 1]]},
        {"range": [0, 3, 1]},
        {"linspace": [0, 1, 3]},
        {"logspace": [0, 1, 3]},
        {"geomspace": [1, 9, 3]},
        {"uniform": [0, 1]},
        {"quniform": [0, 1, 0.1]},
        {"loguniform": [0, 1]},
        {"qloguniform": [0, 1, 0.1]},
        {"normal": [0, 1]},
        {"qnormal": [0, 1, 0.1]},
        {"lognormal": [0, 1]},
        {"qlognormal": [0, 1, 0.1]},
    ],
    ids=lambda option: next(iter(option)),
)
def test_every_option_gives_values_that_can_be_kept(option: dict[str, Any]) -> None:
    values = found({"x": option}, 3)
    assert values
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_global_random_state_is_not_touched() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    found(MIXED, 5)
    assert random.random() == expected
