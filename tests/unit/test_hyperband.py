"""Hyperband: the brackets of the paper, and the promotions from round to round."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal.polyaxonfile import HPTuning
from polylocal.runner import search
from polylocal.runner.search import Suggestion, Trial, brackets

# Li et al., "Hyperband", JMLR 18 (2018), Table 1: R = 81, eta = 3; (configurations, resource of each)
TABLE_1 = [
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(34, 3), (11, 9), (3, 27), (1, 81)],
    [(15, 9), (5, 27), (1, 81)],
    [(8, 27), (2, 81)],
    [(5, 81)],
]
NINE = [[(9, 1), (3, 3), (1, 9)], [(5, 3), (1, 9)], [(3, 9)]]
EIGHT = [[(8, 1), (4, 2), (2, 4), (1, 8)], [(6, 2), (3, 4), (1, 8)], [(4, 4), (2, 8)], [(4, 8)]]
TEN = [[(9, 10 / 9), (3, 10 / 3), (1, 10)], [(5, 10 / 3), (1, 10)], [(3, 10)]]


def never(tuning: HPTuning, seed: str, trials: Any) -> dict[str, Any]:
    raise AssertionError("only bayesian optimisation asks")


def band(
    max_iter: int = 9,
    eta: float = 3,
    matrix: dict[str, Any] | None = None,
    optimization: str = "maximize",
    resource_type: str = "int",
    **more: Any,
) -> HPTuning:
    return HPTuning.model_validate(
        {
            "matrix": matrix or {"lr": {"uniform": "0:1"}},
            "seed": 7,
            "hyperband": {
                "max_iter": max_iter,
                "eta": eta,
                "resource": {"name": "epochs", "type": resource_type},
                "metric": {"name": "accuracy", "optimization": optimization},
                **more,
            },
        }
    )


class Played:
    """A running search: the suggestions of each iteration, and the trials made of them."""

    def __init__(self, tuning: HPTuning, values: Any, seed: str = "s") -> None:
        self.past: list[list[Trial]] = []
        self.suggested: list[list[Suggestion]] = []
        ids = iter(range(1, 100_000))
        while found := search.next_suggestions(tuning, seed, self.past, never):
            self.suggested.append(found)
            self.past.append([Trial(n := next(ids), each.params, values(n, each.params)) for each in found])

    @property
    def sizes(self) -> list[tuple[int, float]]:
        return [(len(found), found[0].params["epochs"]) for found in self.suggested]


def best_is_high(number: int, params: dict[str, Any]) -> float:
    return float(params["lr"])


# -- the table --------------------------------------------------------------------------------------------------------


def shape(max_iter: int, eta: float) -> list[list[tuple[int, float]]]:
    return [[(each.configurations, each.resource) for each in rounds] for rounds in brackets(max_iter, eta)]


@pytest.mark.parametrize(
    ("max_iter", "eta", "expected"),
    [
        (81, 3, TABLE_1),
        (9, 3, NINE),
        (8, 2, EIGHT),
        (10, 3, TEN),
        (1, 3, [[(1, 1)]]),
        (2, 3, [[(1, 2)]]),
        (16, 4, [[(16, 1), (4, 4), (1, 16)], [(6, 4), (1, 16)], [(3, 16)]]),
    ],
)
def test_the_brackets(max_iter: int, eta: float, expected: list[list[tuple[int, float]]]) -> None:
    found = shape(max_iter, eta)
    assert [[n for n, _ in rounds] for rounds in found] == [[n for n, _ in rounds] for rounds in expected]
    for rounds, wanted in zip(found, expected, strict=True):
        assert [resource for _, resource in rounds] == pytest.approx([resource for _, resource in wanted])


@pytest.mark.parametrize(("power", "eta"), [(5, 3), (4, 3), (10, 2), (3, 10), (6, 3), (5, 5), (7, 3)])
def test_a_power_of_eta_has_all_its_brackets(power: int, eta: int) -> None:
    """Logarithms of floating-point numbers give 4.999… for 243 and 3."""
    found = brackets(eta**power, eta)
    assert len(found) == power + 1
    assert (found[0][0].configurations, found[0][0].resource) == (eta**power, pytest.approx(1))


@given(max_iter=st.integers(1, 2000), eta=st.sampled_from([1.5, 2, 2.5, 3, 4, 10]))
def test_properties_of_any_table(max_iter: int, eta: float) -> None:
    found = brackets(max_iter, eta)
    deepest = len(found) - 1
    assert eta**deepest <= max_iter * (1 + 1e-9) < eta ** (deepest + 1) * (1 + 1e-9)
    for s, rounds in zip(range(deepest, -1, -1), found, strict=True):
        assert rounds[0].configurations == math.ceil((deepest + 1) * eta**s / (s + 1) - 1e-9)
        assert rounds[0].resource >= 1 - 1e-9
        assert rounds[-1].resource == pytest.approx(max_iter)
        counts = [each.configurations for each in rounds]
        assert counts == sorted(counts, reverse=True)
        assert min(counts) >= 1
        for one, after in zip(rounds, rounds[1:], strict=False):
            assert after.resource == pytest.approx(one.resource * eta)


# -- promotions -------------------------------------------------------------------------------------------------------


def test_a_whole_search_follows_the_table() -> None:
    played = Played(band(81), best_is_high)
    assert played.sizes == [each for rounds in TABLE_1 for each in rounds]
    assert sum(n for n, _ in played.sizes) == sum(n for rounds in TABLE_1 for n, _ in rounds)


@pytest.mark.parametrize(("optimization", "pick"), [("maximize", max), ("minimize", min)])
def test_the_best_survive(optimization: str, pick: Any) -> None:
    played = Played(band(optimization=optimization), best_is_high)
    ranked = sorted(played.past[0], key=lambda trial: trial.value or 0, reverse=pick is max)
    assert [each.of for each in played.suggested[1]] == [trial.id for trial in ranked[:3]]
    last = played.suggested[2][0]
    assert last.params == {"lr": pick(trial.value for trial in played.past[0]), "epochs": 9}
    assert last.of in {trial.id for trial in played.past[1]}


def test_a_survivor_resumes_its_previous_experiment() -> None:
    """`of` is the trial of the previous round, not the first one, since a resume continues in its outputs."""
    played = Played(band(), best_is_high)
    for number in (1, 2, 4):
        before = {trial.id: trial.params["lr"] for trial in played.past[number - 1]}
        assert all(before[each.of or 0] == each.params["lr"] for each in played.suggested[number])
    for number in (0, 3, 5):
        assert all(each.of is None for each in played.suggested[number])


def test_of_equal_ones_the_earlier_survive() -> None:
    played = Played(band(), lambda number, params: 0.5)
    assert [each.of for each in played.suggested[1]] == [1, 2, 3]
    assert [each.of for each in played.suggested[2]] == [10]


def test_failed_trials_are_never_promoted() -> None:
    """The three largest numbers belong to failed trials."""
    tuning = band()
    first = search.next_suggestions(tuning, "s", [], never)
    values = [0.1, 0.2, 0.3, 0.4, None, None, 0.0, -1.0, None]
    trials = [Trial(n, each.params, value) for n, (each, value) in enumerate(zip(first, values, strict=True), 1)]
    found = search.next_suggestions(tuning, "s", [trials], never)
    assert [each.of for each in found] == [4, 3, 2]


def test_fewer_succeed_than_may_be_promoted() -> None:
    tuning = band()
    first = search.next_suggestions(tuning, "s", [], never)
    trials = [Trial(n, each.params, 0.7 if n == 4 else None) for n, each in enumerate(first)]
    found = search.next_suggestions(tuning, "s", [trials], never)
    assert [each.of for each in found] == [4]
    again = [Trial(99, found[0].params, 0.8)]
    assert [each.of for each in search.next_suggestions(tuning, "s", [trials, again], never)] == [99]


def test_zero_and_negative_values_are_values() -> None:
    tuning = band(optimization="minimize")
    first = search.next_suggestions(tuning, "s", [], never)
    values = [3.0, 0.0, -2.0, 1.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    trials = [Trial(n, each.params, value) for n, (each, value) in enumerate(zip(first, values, strict=True))]
    assert [each.of for each in search.next_suggestions(tuning, "s", [trials], never)] == [2, 1, 3]


def test_a_bracket_without_metrics_ends_early() -> None:
    played = Played(band(), lambda number, params: None)
    assert played.sizes == [(9, 1), (5, 3), (3, 9)]


def test_a_bracket_that_dies_in_its_second_round_makes_room_for_the_next() -> None:
    played = Played(band(), lambda number, params: None if params["epochs"] == 3 else params["lr"])
    assert played.sizes == [(9, 1), (3, 3), (5, 3), (3, 9)]


def test_brackets_try_different_points() -> None:
    played = Played(band(), best_is_high)
    fresh = [each.params["lr"] for found in played.suggested for each in found if each.of is None]
    assert len(set(fresh)) == len(fresh) == 9 + 5 + 3


def test_a_bracket_that_ends_early_changes_no_point_of_the_next() -> None:
    whole, cut = Played(band(), best_is_high), Played(band(), lambda number, params: None)
    assert [each.params for each in whole.suggested[3]] == [each.params for each in cut.suggested[1]]


# -- the resource -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"), [("int", [1, 3, 10, 3, 10, 10]), ("float", [10 / 9, 10 / 3, 10, 10 / 3, 10, 10])]
)
def test_the_resource_is_cast_to_its_type(kind: str, expected: list[float]) -> None:
    played = Played(band(10, resource_type=kind), best_is_high)
    found = [resource for _, resource in played.sizes]
    assert found == pytest.approx(expected)
    assert all(isinstance(value, int if kind == "int" else float) for value in found)


def test_rounding_does_not_eat_a_whole_number() -> None:
    """81 * 3**-4 * 3**4 must be 81, not 80."""
    for power in range(1, 7):
        played = Played(band(3**power), best_is_high)
        assert {resource for _, resource in played.sizes} == {3**n for n in range(power + 1)}


def test_params_of_the_group_stay_with_a_survivor() -> None:
    tuning = band()
    first = search.next_suggestions(tuning, "s", [], never)
    trials = [Trial(n, {**each.params, "layers": 2}, float(n)) for n, each in enumerate(first)]
    assert search.next_suggestions(tuning, "s", [trials], never)[0].params == {
        "lr": trials[-1].params["lr"],
        "layers": 2,
        "epochs": 3,
    }


# -- small spaces -----------------------------------------------------------------------------------------------------


def test_a_space_smaller_than_a_bracket_is_tried_once_in_it() -> None:
    played = Played(band(matrix={"lr": {"values": [1, 2, 3, 4]}}), best_is_high)
    assert sorted(each.params["lr"] for each in played.suggested[0]) == [1, 2, 3, 4]
    assert len(played.suggested[1]) == 3


def test_a_space_that_is_used_up_is_tried_again_with_more() -> None:
    played = Played(band(matrix={"lr": {"values": [1, 2]}}), best_is_high)
    assert played.sizes == [(2, 1), (2, 3), (1, 9), (2, 3), (1, 9), (2, 9)]


def test_one_point_is_enough() -> None:
    played = Played(band(matrix={"lr": {"values": [1]}}), best_is_high)
    assert [len(found) for found in played.suggested] == [1] * 6


# -- properties -------------------------------------------------------------------------------------------------------

MATRICES = st.dictionaries(
    st.sampled_from(["lr", "units", "act", "drop"]),
    st.sampled_from(
        [
            {"uniform": [-1, 1]},
            {"loguniform": [-7, 0]},
            {"quniform": [0, 10, 2]},
            {"values": ["relu", "tanh", "id"]},
            {"values": [1, 2, 4, 8]},
            {"range": [0, 5, 1]},
            {"linspace": [0, 1, 5]},
            {"pvalues": [["a", 0.1], ["b", 0.9]]},
        ]
    ),
    min_size=1,
    max_size=3,
)


def inside(option: dict[str, Any], value: Any) -> bool:
    ((name, given_),) = option.items()
    allowed = {
        "uniform": lambda: -1 <= value <= 1,
        "loguniform": lambda: math.exp(-7) * (1 - 1e-12) <= value <= 1,
        "quniform": lambda: value in (0, 2, 4, 6, 8, 10),
        "values": lambda: value in given_,
        "range": lambda: value in range(5),
        "linspace": lambda: value in (0, 0.25, 0.5, 0.75, 1),
        "pvalues": lambda: value in ("a", "b"),
    }
    return bool(allowed[name]())


@settings(max_examples=60, deadline=None)
@given(
    matrix=MATRICES,
    max_iter=st.integers(1, 30),
    eta=st.sampled_from([2, 3, 4]),
    results=st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=1, max_size=40),
    seed=st.text(min_size=1, max_size=4),
)
def test_any_search_stays_inside_and_repeats_nothing(
    matrix: dict[str, Any], max_iter: int, eta: int, results: list[float | None], seed: str
) -> None:
    tuning = band(max_iter, eta, matrix)
    played = Played(tuning, lambda number, params: results[number % len(results)], seed)
    assert len(played.suggested) <= sum(len(rounds) for rounds in brackets(max_iter, eta))
    for number, found in enumerate(played.suggested):
        points = [json.dumps(each.params, sort_keys=True) for each in found]
        assert len(set(points)) == len(points), f"iteration {number} tries a point twice"
        for each in found:
            assert each.params.keys() == {*matrix, "epochs"}
            assert 1 <= each.params["epochs"] <= max_iter
            assert all(inside(option, each.params[name]) for name, option in matrix.items())
        # the same trials and seed give the same suggestions, independent of earlier calls
        assert search.next_suggestions(tuning, seed, played.past[:number], never) == found
        told = {trial.id for trial in played.past[number - 1] if trial.value is not None} if number else set()
        assert {each.of for each in found if each.of is not None} <= told


def test_without_a_seed_the_group_is_the_seed() -> None:
    tuning = band().model_copy(update={"seed": None})
    one, same, other = (search.next_suggestions(tuning, uuid, [], never) for uuid in ("a", "a", "b"))
    assert one == same != other


def test_a_seed_in_the_file_counts_for_every_group() -> None:
    assert search.next_suggestions(band(), "a", [], never) == search.next_suggestions(band(), "b", [], never)
