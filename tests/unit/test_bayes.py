"""Bayesian optimisation: quality, distinct suggestions, all kinds of axes, a clear error without scikit-learn."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from polylocal.errors import SetupError
from polylocal.polyaxonfile import HPTuning
from polylocal.runner import bayes, search
from polylocal.runner.search import Trial

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

UCB = {"acquisition_function": "ucb", "kappa": 1.2}
EI = {"acquisition_function": "ei", "eps": 0.01}
POI = {"acquisition_function": "poi", "eps": 0.1}
MATERN = {"kernel": "matern", "length_scale": 0.3, "nu": 1.5}
RBF = {"kernel": "rbf", "length_scale": 0.3}
PLANE = {"x": {"uniform": "-1:3"}, "y": {"uniform": "0:10"}}
Goal = Callable[[dict[str, Any]], float]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The matrices are small, so more threads would only wait for each other."""
    with threadpool_limits(1):
        yield


def tuning(
    matrix: dict[str, Any], utility: dict[str, Any] | None = None, optimization: str = "maximize", **more: Any
) -> HPTuning:
    small = {"n_warmup": 60, "n_iter": 1}  # enough for two axes, and quick
    bo = {
        "n_initial_trials": 4,
        "n_iterations": 8,
        "metric": {"name": "score", "optimization": optimization},
        "utility_function": None if utility is None else {**small, **utility},
        **more,
    }
    return HPTuning.model_validate({"matrix": matrix, "bo": bo})


def play(given: HPTuning, goal: Goal, seed: str = "1") -> list[list[Trial]]:
    """Run the whole search within this process."""
    past: list[list[Trial]] = []
    while found := search.next_suggestions(given, seed, past, bayes.suggest):
        number = sum(map(len, past))
        past.append([Trial(number + n, each.params, goal(each.params)) for n, each in enumerate(found)])
    return past


def points(past: list[list[Trial]]) -> list[dict[str, Any]]:
    return [trial.params for trials in past for trial in trials]


def hill(params: dict[str, Any]) -> float:
    """Highest, 0, at x = 1, y = 7."""
    return -((params["x"] - 1) ** 2) - ((params["y"] - 7) / 2) ** 2


# -- quality ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("utility", "process", "optimization"),
    [
        (UCB, MATERN, "maximize"),
        (UCB, RBF, "minimize"),
        (EI, RBF, "maximize"),
        (EI, MATERN, "minimize"),
        (POI, MATERN, "maximize"),
        (POI, RBF, "minimize"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value.values())),
)
def test_it_finds_better_than_chance_on_average(
    utility: dict[str, Any], process: dict[str, Any], optimization: str
) -> None:
    """Both searches begin with the same points. Then one continues at random and the other with the model."""
    sign = 1 if optimization == "maximize" else -1
    given = tuning(PLANE, {**utility, "gaussian_process": process}, optimization)
    by_search, by_chance = [], []
    for seed in "123":
        past = play(given, lambda params: sign * hill(params), seed)
        tried = [sign * (trial.value or 0.0) for trials in past for trial in trials]
        assert len(tried) == 12
        by_search.append(max(tried))
        drawn = search.sample(given, seed)
        by_chance.append(max(hill(next(drawn)) for _ in tried))
    assert statistics.fmean(by_search) > statistics.fmean(by_chance)


def test_without_a_utility_function_it_searches_too() -> None:
    past = play(tuning(PLANE), hill)
    assert [len(trials) for trials in past] == [4] + [1] * 8


def test_the_same_past_and_seed_give_the_same_point() -> None:
    given = tuning(PLANE, UCB)
    assert points(play(given, hill)) == points(play(given, hill)) != points(play(given, hill, "2"))


@pytest.mark.slow
def test_a_process_of_its_own_answers_the_same() -> None:
    given = tuning({**PLANE, "act": {"values": ["relu", "tanh"]}}, EI)
    trials = play(given, hill)[0]
    with closing(bayes.OptimizerProcess()) as ask:
        assert ask(given, "1", trials) == bayes.suggest(given, "1", trials)


# -- no repetition, no point outside the space ------------------------------------------------------------------------

SPACES: dict[str, dict[str, Any]] = {
    "words": {"act": {"values": ["relu", "tanh", "id"]}, "opt": {"values": ["sgd", "adam"]}, "n": {"values": [1, 2]}},
    "numbers": {"a": {"range": "0:4:1"}, "b": {"linspace": "0:1:4"}},
    "logspace": {"a": {"logspace": "-4:-1:4"}, "b": {"geomspace": "1:1000:4"}},
    "switches": {"a": {"values": [True, False]}, "b": {"values": [None, "x"]}, "c": {"values": [1, 2, 3, 4]}},
    "quantised": {"a": {"quniform": "0:10:2"}, "b": {"values": ["u", "v", "w"]}},
    "smooth": {"a": {"uniform": "-3:-1"}, "b": {"loguniform": "-9:-1"}},
    "quantised logs": {"a": {"qloguniform": "0:4:1"}},
    "mixed": {"lr": {"loguniform": "-9:-1"}, "act": {"values": ["relu", "tanh"]}, "units": {"quniform": "8:64:8"}},
}


def inside(option: dict[str, Any], value: Any) -> bool:
    model = HPTuning.model_validate({"matrix": {"x": option}, "bo": tuning(PLANE).bo})
    assert model.matrix
    ((name, text),) = option.items()
    if not model.matrix["x"].is_distribution:
        return value in model.matrix["x"].listed
    low, high, *step = (float(part) for part in text.split(":"))
    if "log" in name:
        low, high = math.exp(low), math.exp(high)
    if step:
        return bool(math.isclose(value % step[0], 0) and low // step[0] * step[0] <= value <= high)
    return bool(low * (1 - math.copysign(1e-12, low)) <= value <= high * (1 + math.copysign(1e-12, high)))


@pytest.mark.parametrize("name", SPACES)
def test_no_point_is_tried_twice_and_all_are_in_the_space(name: str) -> None:
    space = SPACES[name]
    given = tuning(space, UCB)
    found = points(play(given, lambda params: sum(hash_of(value) for value in params.values())))
    assert len(found) == 12
    assert len({json.dumps(point, sort_keys=True) for point in found}) == 12
    for point in found:
        assert point.keys() == space.keys()
        assert all(inside(option, point[axis]) for axis, option in space.items()), point


def hash_of(value: object) -> float:
    return len(str(value)) / 10 if not isinstance(value, float) else math.tanh(value)


def test_the_last_point_of_a_small_space_is_found() -> None:
    given = tuning({"a": {"range": "0:5:1"}}, EI)
    trials = [Trial(n, {"a": n}, float(n)) for n in (0, 1, 2, 4)]
    assert bayes.suggest(given, "1", trials) == {"a": 3}


def test_a_space_that_is_used_up_ends_the_search() -> None:
    past = play(tuning({"a": {"values": [1, 2]}, "b": {"values": ["x", "y"]}}, UCB), lambda params: params["a"])
    assert len(points(past)) == 4
    assert len({json.dumps(point) for point in points(past)}) == 4


def test_params_beyond_the_space_do_not_hide_that_a_point_was_tried() -> None:
    given = tuning({"a": {"values": [1, 2]}}, EI)
    assert bayes.suggest(given, "1", [Trial(1, {"a": 1, "epochs": 5}, 0.5)]) == {"a": 2}


def test_a_point_whose_trial_failed_is_not_tried_again() -> None:
    given = tuning({"a": {"values": [1, 2, 3]}}, EI)
    trials = [Trial(1, {"a": 1}, None), Trial(2, {"a": 3}, 0.5)]
    assert bayes.suggest(given, "1", trials) == {"a": 2}


def test_without_any_result_the_search_continues() -> None:
    """All trials have failed so far: the search continues with random points."""
    given = tuning(PLANE, UCB)
    first = search.next_suggestions(given, "1", [], bayes.suggest)
    failed = [Trial(number, each.params, None) for number, each in enumerate(first)]
    point = bayes.suggest(given, "1", failed)
    assert point.keys() == PLANE.keys()
    assert point not in [trial.params for trial in failed]


def test_equal_values_everywhere_are_no_trouble() -> None:
    found = points(play(tuning(PLANE, EI), lambda params: 0.5))
    assert len({json.dumps(point) for point in found}) == 12


# -- the data that it uses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimization", ["maximize", "minimize"])
def test_a_category_that_is_always_better_is_chosen(optimization: str) -> None:
    given = tuning({"act": {"values": ["good", "bad"]}, "n": {"range": "0:8:1"}}, {**UCB, "kappa": 0.01}, optimization)
    sign = 1 if optimization == "maximize" else -1
    trials = [
        Trial(10 * n + (word == "good"), {"act": word, "n": n}, sign * (1.0 if word == "good" else -1.0))
        for n in (0, 3, 7)
        for word in ("good", "bad")
    ]
    assert bayes.suggest(given, "1", trials)["act"] == "good"


def test_a_logarithmic_axis_is_searched_by_its_logarithm() -> None:
    """The optimum is 1e-4, in the lowest hundred-thousandth of the range."""
    given = tuning({"lr": {"loguniform": f"{math.log(1e-6)}:{math.log(10)}"}}, EI, n_iterations=10)
    past = play(given, lambda params: -((math.log10(params["lr"]) + 4) ** 2))
    best = max((trial for trials in past for trial in trials), key=lambda trial: trial.value or 0)
    assert best.params["lr"] == pytest.approx(1e-4, rel=0.6)


def test_a_number_counts_by_its_size_not_by_its_index() -> None:
    given = tuning({"n": {"values": [100, 1, 60, 40]}}, {**UCB, "kappa": 0.01})
    trials = [Trial(1, {"n": 100}, 1.0), Trial(2, {"n": 1}, 0.0)]
    assert bayes.suggest(given, "1", trials) == {"n": 60}


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ({"qloguniform": "-3:0:0.1"}, [0.0, 0.1, 0.2, 0.5, 1.0]),
        ({"loguniform": "-3:0"}, [math.exp(-3), 0.1, 0.5, 1.0]),
        ({"quniform": "0.5:5:1"}, [0.0, 1.0, 3.0, 5.0]),
        ({"geomspace": "1:1000:4"}, [1.0, 10.0, 100.0, 1000.0]),
    ],
)
def test_encoding_keeps_the_order_of_numbers(option: dict[str, Any], values: list[float]) -> None:
    matrix = tuning({"a": option}, UCB).matrix or {}
    places = [bayes._encode(matrix, {"a": value})[0] for value in values]
    assert places == sorted(set(places))


def test_more_kappa_explores_farther_from_known_points() -> None:
    trials = [Trial(a, {"a": a}, -(((a - 18) / 20) ** 2)) for a in range(0, 45, 5)]
    near, far = (
        bayes.suggest(tuning({"a": {"range": "0:100:1"}}, {**UCB, "kappa": kappa}), "1", trials)["a"]
        for kappa in (0.001, 100.0)
    )
    assert abs(near - 18) <= 2
    assert abs(far - 18) > 20


# -- number of suggestions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("initial", "iterations"), [(1, 1), (3, 2), (5, 4)])
def test_points_at_random_first_then_one_an_iteration(initial: int, iterations: int) -> None:
    past = play(tuning(PLANE, UCB, n_initial_trials=initial, n_iterations=iterations), hill)
    assert [len(trials) for trials in past] == [initial] + [1] * iterations


def test_the_first_points_are_those_of_a_random_search() -> None:
    given = tuning(PLANE, UCB)
    drawn: Iterator[dict[str, Any]] = search.sample(given, "1")
    assert [each.params for each in search.next_suggestions(given, "1", [], bayes.suggest)] == [
        next(drawn) for _ in range(4)
    ]


# -- without scikit-learn ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_scikit_learn_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search runs in another process. The import fails in that process only."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'sklearn':\n"
        "            raise ModuleNotFoundError(\"No module named 'sklearn'\", name='sklearn')\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    root = Path(bayes.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(root)]))
    given = tuning(PLANE, UCB)
    words = r"bayesian optimisation needs scikit-learn: pip install 'polylocal\[bo\]'"
    with closing(bayes.OptimizerProcess()) as ask, pytest.raises(SetupError, match=words):
        ask(given, "1", [Trial(1, {"x": 0.0, "y": 1.0}, 0.5), Trial(2, {"x": 1.0, "y": 1.0}, 0.6)])


@pytest.mark.slow
def test_a_daemon_imports_no_scikit_learn() -> None:
    """The import would cost every daemon 100 MiB."""
    script = "import sys, polylocal.daemon, polylocal.runner.bayes; print('sklearn' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(bayes.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
