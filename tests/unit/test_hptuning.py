"""The `hptuning` section: all forms of the options, their values, and all refusals.

The numbers are those of numpy's documentation for the functions of the same names.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support import inputs

from polylocal.polyaxonfile import HPTuning, Matrix


def refusals(cls: type[Matrix] | type[HPTuning], **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        cls(**values)
    return "\n".join(item["msg"].removeprefix("Value error, ") for item in caught.value.errors())


def listed(**option: Any) -> list[Any]:
    return Matrix(**option).listed


# -- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forms",
    [
        ("range", "0:10:2", [0, 10, 2], {"start": 0, "stop": 10, "step": 2}),
        ("linspace", "0:1:5", [0, 1, 5], {"start": 0, "stop": 1, "num": 5}),
        ("logspace", "0:2:3", [0, 2, 3], {"start": 0, "stop": 2, "num": 3}),
        ("logspace", "0:2:3:2", [0, 2, 3, 2], {"start": 0, "stop": 2, "num": 3, "base": 2}),
        ("geomspace", "1:8:4", [1, 8, 4], {"start": 1, "stop": 8, "num": 4}),
        ("uniform", "0:1", [0, 1], {"low": 0, "high": 1}),
        ("quniform", "0:1:0.1", [0, 1, 0.1], {"low": 0, "high": 1, "q": 0.1}),
        ("loguniform", "-1:1", [-1, 1], {"low": -1, "high": 1}),
        ("qloguniform", "0:1:0.1", [0, 1, 0.1], {"low": 0, "high": 1, "q": 0.1}),
        ("normal", "0:1", [0, 1], {"loc": 0, "scale": 1}),
        ("qnormal", "0:1:0.1", [0, 1, 0.1], {"loc": 0, "scale": 1, "q": 0.1}),
        ("lognormal", "0.5:1e-2", [0.5, 0.01], {"loc": 0.5, "scale": 0.01}),
        ("qlognormal", "0:1:0.1", [0, 1, 0.1], {"loc": 0, "scale": 1, "q": 0.1}),
    ],
    ids=lambda forms: forms[0],
)
def test_numbers_are_written_in_three_ways(forms: tuple[str, str, list[Any], dict[str, Any]]) -> None:
    option, *written = forms
    read = [getattr(Matrix(**{option: form}), option) for form in written]
    assert read == [written[1]] * 3
    assert Matrix(**{option: written[0]}).option == option
    texts = [str(number) for number in written[1]]
    assert getattr(Matrix(**{option: texts}), option) == written[1]


@pytest.mark.parametrize(
    "value",
    ["1", "1:2", "1:2:3:4", "a:b:c", "", "1::2", [1], [1, 2, 3, 4], [1, "x", 2], 5, None, True, [True, 2, 3]]
    + [{"start": 1, "stop": 2}, {"start": 1, "stop": 2, "step": 1, "num": 3}, {"low": 1, "high": 2, "q": 1}]
    + [[0, float("inf"), 1], [float("nan"), 1, 1], "0:inf:1", [0, [1], 2]],
)
def test_invalid_ranges(value: object) -> None:
    with pytest.raises(ValidationError):
        Matrix(range=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ({"values": ["a", 1, 2.5, True, None, [1, 2], {"a": 1}]}, ["a", 1, 2.5, True, None, [1, 2], {"a": 1}]),
        ({"range": [0, 5, 1]}, [0, 1, 2, 3, 4]),
        ({"range": "3:7:2"}, [3, 5]),
        ({"range": [-2, 2, 1]}, [-2, -1, 0, 1]),
        ({"range": [0, 1, 0.25]}, [0.0, 0.25, 0.5, 0.75]),
        ({"range": [1.0, 1.3, 0.1]}, [1.0, 1.1, 1.2000000000000002, 1.3000000000000003]),
        ({"range": [0, 10, 20]}, [0]),
        ({"linspace": "2:3:5"}, [2.0, 2.25, 2.5, 2.75, 3.0]),
        ({"linspace": [0, 10, 1]}, [0.0]),
        ({"linspace": [0, 10, 2]}, [0.0, 10.0]),
        ({"logspace": "2:3:4"}, [100.0, 215.443469, 464.15888336, 1000.0]),
        ({"logspace": "2:3:4:2"}, [4.0, 5.0396842, 6.34960421, 8.0]),
        ({"logspace": [-3, 0, 4]}, [0.001, 0.01, 0.1, 1.0]),
        ({"geomspace": "1:1000:4"}, [1.0, 10.0, 100.0, 1000.0]),
        ({"geomspace": [1, 256, 9]}, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
        ({"geomspace": [1, 1000, 3]}, [1.0, 31.6227766, 1000.0]),
    ],
)
def test_the_values_of_an_option(option: dict[str, Any], values: list[Any]) -> None:
    found = listed(**option)
    numbers = all(isinstance(value, float) for value in values)
    assert found == (pytest.approx(values, rel=1e-8) if numbers else values)
    assert [type(value) for value in found] == [type(value) for value in values]


def test_the_ends_are_exact() -> None:
    assert (listed(linspace=[0.1, 0.7, 7])[-1], listed(geomspace=[3, 7, 5])[-1]) == (0.7, 7.0)


@settings(max_examples=inputs(100))
@given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 20))
def test_whole_numbers_stay_whole(start: int, length: int, step: int) -> None:
    assert listed(range=[start, start + length, step]) == list(range(start, start + length, step))


@settings(max_examples=inputs(100))
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 50))
def test_a_sequence_of_equal_steps_goes_up_from_start_to_stop(start: float, length: float, num: int) -> None:
    found = listed(linspace=[start, start + length, num])
    assert found[0] == start
    assert found == sorted(found)
    assert len(found) == num
    assert num == 1 or found[-1] == start + length


@pytest.mark.parametrize("option", [{"uniform": [0, 1]}, {"pvalues": [["a", 0.5], ["b", 0.5]]}, {"qnormal": [0, 1, 1]}])
def test_a_distribution_has_no_list(option: dict[str, Any]) -> None:
    matrix = Matrix(**option)
    assert matrix.is_distribution
    with pytest.raises(ValueError, match="has no list of values"):
        matrix.listed  # noqa: B018


@pytest.mark.parametrize(
    ("option", "sample"),
    [
        ({"values": ["a", "b"]}, "a"),
        ({"range": [3, 5, 1]}, 3),
        ({"pvalues": [["x", 1]]}, "x"),
        ({"normal": [2, 1]}, 2.0),
    ],
)
def test_a_sample_is_of_the_kind_that_will_be_drawn(option: dict[str, Any], sample: object) -> None:
    assert Matrix(**option).sample == sample


@pytest.mark.parametrize("option", sorted(Matrix.model_fields))
def test_null_is_not_an_option(option: str) -> None:
    assert refusals(Matrix, **{option: None})


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({}, "Matrix element is not valid, one and only one option is required."),
        (
            {"values": [1], "range": [0, 1, 1]},
            "Matrix element is not valid, one and only one option is required.",
        ),
        ({"range": [5, 5, 1]}, "stop value must be strictly higher that start value, received instead [5, 5]"),
        ({"linspace": [2, 1, 3]}, "stop value must be strictly higher that start value"),
        ({"logspace": [2, 1, 3]}, "stop value must be strictly higher that start value"),
        ({"geomspace": [2, 1, 3]}, "stop value must be strictly higher that start value"),
        ({"range": [0, 5, 0]}, "step cannot be 0"),
        ({"range": [0, 5, -1]}, "step must be above 0"),
        ({"range": [0, 1, 1e-9]}, "at most 100000 values"),
        ({"linspace": [0, 1, 0]}, "num must be a whole number from 1"),
        ({"linspace": [0, 1, 2.5]}, "num must be a whole number from 1"),
        ({"linspace": [0, 1, 1e9]}, "num must be a whole number from 1 to 100000"),
        ({"geomspace": [0, 1, 3]}, "a geometric sequence starts above 0"),
        ({"logspace": [-1, 1, 3, 0]}, "base must be above 0"),
        ({"logspace": [0, 1, 3, -2]}, "base must be above 0"),
        ({"logspace": [0, 400, 3]}, "too large"),
        ({"uniform": [1, 1]}, "high value must be strictly higher that low value, received instead [1, 1]"),
        ({"qloguniform": [2, 1, 1]}, "high value must be strictly higher that low value"),
        ({"normal": [0, -1]}, "scale can't be below 0"),
        ({"quniform": [0, 1, 0]}, "q must be above 0"),
        ({"qnormal": [0, 1, -1]}, "q must be above 0"),
        ({"pvalues": [["a", 0.7], ["b", 0.4]]}, "the probabilities sum up to more than 1"),
        ({"pvalues": [["a", 1.5]]}, "less than or equal to 1"),
        ({"pvalues": [["a"]]}, "Field required"),
        ({"values": []}, "at least 1 item"),
        ({"choice": [1]}, "Extra inputs are not permitted"),
        ({"uniform": {"low": 0, "hihg": 1}}, "`hihg` is not one of low, high"),
        ({"uniform": "0:x"}, "`x` is not a number"),
        ({"uniform": "0"}, "must be `low:high`, a list or a mapping of these"),
    ],
)
def test_refused_options(option: dict[str, Any], words: str) -> None:
    assert words in refusals(Matrix, **option)


def test_probabilities_may_leave_something_out_and_add_up_with_errors_of_rounding() -> None:
    assert Matrix(pvalues=[["a", 0.1]] * 10)
    assert Matrix(pvalues=[["a", 0.2], ["b", 0.1]])


# -- the section -------------------------------------------------------------------------------------------------

LR = {"lr": {"values": [1, 2]}}
METRIC = {"name": "loss", "optimization": "minimize"}
HYPERBAND = {"max_iter": 81, "eta": 3, "resource": {"name": "epochs", "type": "int"}, "metric": METRIC}
BO = {"n_initial_trials": 5, "n_iterations": 15, "metric": METRIC}


@pytest.mark.parametrize(
    ("more", "algorithm"),
    [
        ({}, "grid"),
        ({"grid_search": None}, "grid"),
        ({"grid_search": {}}, "grid"),
        ({"grid_search": {"n_experiments": 10}}, "grid"),
        ({"random_search": {"n_experiments": 10}}, "random"),
        ({"hyperband": HYPERBAND}, "hyperband"),
        ({"bo": BO}, "bo"),
    ],
)
def test_algorithms(more: dict[str, Any], algorithm: str) -> None:
    tuning = HPTuning(matrix=LR, **more)
    assert tuning.algorithm == algorithm
    assert (tuning.concurrency, tuning.seed, tuning.early_stopping) == (1, None, None)
    stored = json.loads(json.dumps(tuning.model_dump(exclude_none=True)))
    assert HPTuning(**stored) == tuning
    assert HPTuning(**stored).model_dump(exclude_none=True) == stored


def test_without_an_algorithm_a_grid_is_stored() -> None:
    assert HPTuning(matrix=LR).model_dump(exclude_none=True)["grid_search"] == {}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "A matrix definition is required for group specification."),
        ({"matrix": None}, "A matrix definition is required for group specification."),
        ({"grid_search": {}}, "Search algorithms need a matrix definition."),
        ({"random_search": {"n_experiments": 1}}, "Search algorithms need a matrix definition."),
        (
            {"matrix": LR, "grid_search": {}, "random_search": {"n_experiments": 1}},
            "Only one search algorithm can be used.",
        ),
        ({"matrix": LR, "hyperband": HYPERBAND, "bo": BO}, "Only one search algorithm can be used."),
        (
            {"matrix": {"lr": {"uniform": [0, 1]}}},
            "`lr` defines a distribution, and it cannot be used with grid search.",
        ),
        (
            {"matrix": {"lr": {"pvalues": [["a", 0.5]]}}, "grid_search": {}},
            "`lr` defines a distribution, and it cannot be used with grid search.",
        ),
        (
            {"matrix": {"lr": {"normal": [0, 1]}}, "bo": BO},
            "`lr` defines a non uniform distribution, and it cannot be used with bayesian optimization.",
        ),
        (
            {"matrix": {"lr": {"pvalues": [["a", 0.5]]}}, "bo": BO},
            "`lr` defines a non uniform distribution, and it cannot be used with bayesian optimization.",
        ),
        ({"matrix": {}}, "at least 1 item"),
        ({"matrix": LR, "concurrency": 0}, "greater than or equal to 1"),
        ({"matrix": LR, "random_search": {}}, "Field required"),
        ({"matrix": LR, "random_search": {"n_experiments": 0}}, "greater than or equal to 1"),
        ({"matrix": LR, "grid_search": {"n_experiments": 0}}, "greater than or equal to 1"),
        ({"matrix": LR, "hyperband": {**HYPERBAND, "max_iter": 0}}, "greater than or equal to 1"),
        ({"matrix": LR, "hyperband": {**HYPERBAND, "eta": 1}}, "greater than 1"),
        ({"matrix": LR, "bo": {**BO, "n_iterations": 0}}, "greater than or equal to 1"),
        ({"matrix": LR, "n_experiments": 3}, "Extra inputs are not permitted"),
    ],
)
def test_refused_sections(section: dict[str, Any], words: str) -> None:
    assert words in refusals(HPTuning, **section)


@pytest.mark.parametrize(
    "option", [{"uniform": [0, 1]}, {"qloguniform": [0, 1, 1]}, {"values": [1]}, {"range": "0:2:1"}]
)
def test_bayesian_optimization_takes_what_is_uniform(option: dict[str, Any]) -> None:
    assert HPTuning(matrix={"lr": option}, bo=BO).algorithm == "bo"


@pytest.mark.parametrize("way", ["minimize", "MINIMIZE", "Minimize"])
def test_words_are_taken_in_any_case(way: str) -> None:
    tuning = HPTuning(matrix=LR, hyperband={**HYPERBAND, "metric": {"name": "loss", "optimization": way}})
    assert tuning.hyperband
    assert tuning.hyperband.metric.optimization == "minimize"


def test_the_defaults_of_hyperband() -> None:
    about = {"max_iter": 9, "eta": 3, "resource": {"name": "epochs"}, "metric": {"name": "acc"}}
    hyperband = HPTuning(matrix=LR, hyperband=about).hyperband
    assert hyperband
    assert (hyperband.resource.type, hyperband.metric.optimization, hyperband.resume) == ("float", "maximize", False)


@pytest.mark.parametrize(
    ("utility", "words"),
    [
        ({"acquisition_function": "UCB"}, "the acquisition function `ucb` requires a parameter `kappa`"),
        ({"acquisition_function": "ei"}, "the acquisition function `ei` requires a parameter `eps`"),
        ({"acquisition_function": "POI", "kappa": 1}, "the acquisition function `poi` requires a parameter `eps`"),
        ({"acquisition_function": "no", "kappa": 1}, "Input should be 'ucb', 'ei' or 'poi'"),
        ({"kappa": 1, "gaussian_process": {"kernel": "no"}}, "Input should be 'matern' or 'rbf'"),
        ({"kappa": 1, "n_iter": 0}, "greater than or equal to 1"),
    ],
)
def test_refused_utilities(utility: dict[str, Any], words: str) -> None:
    assert words in refusals(HPTuning, matrix=LR, bo={**BO, "utility_function": utility})


def test_the_defaults_of_a_utility() -> None:
    bo = HPTuning(matrix=LR, bo={**BO, "utility_function": {"kappa": 2, "gaussian_process": {}}}).bo
    assert bo
    assert bo.utility_function
    process = bo.utility_function.gaussian_process
    assert process
    assert (bo.utility_function.acquisition_function, process.kernel, process.length_scale) == ("ucb", "matern", 1.0)
    assert (process.nu, process.n_restarts_optimizer) == (1.5, 0)


@pytest.mark.parametrize(
    ("item", "is_good"),
    [
        ({"metric": "loss", "value": 0.1, "optimization": "minimize"}, True),
        ({"metric": "loss", "value": 0.1}, True),
        ({"metric": "loss", "policy": {"kind": "Median", "evaluation_interval": 3}}, True),
        ({"metric": "loss", "policy": {"kind": "truncation", "evaluation_interval": 3, "percent": 50}}, True),
        ({"value": 0.1}, False),
        ({"metric": "loss", "value": "x"}, False),
        ({"metric": "loss", "value": 1, "optimization": "up"}, False),
        ({"metric": "loss", "policy": {"kind": "other", "evaluation_interval": 3}}, False),
        ({"metric": "loss", "policy": {"kind": "median"}}, False),
        ({"metric": "loss", "policy": {"kind": "truncation", "evaluation_interval": 3, "percent": 100}}, False),
    ],
)
def test_early_stopping(item: dict[str, Any], is_good: bool) -> None:
    if is_good:
        tuning = HPTuning(matrix=LR, early_stopping=[item])
        assert tuning.early_stopping
        assert tuning.early_stopping[0].metric == "loss"
    else:
        with pytest.raises(ValidationError):
            HPTuning(matrix=LR, early_stopping=[item])


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["0:1", "0:9:3"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
OPTIONS = sorted(Matrix.model_fields)


@given(st.sampled_from(OPTIONS), ANY)
def test_any_option_is_read_or_refused_and_what_is_read_can_be_drawn_from(option: str, value: object) -> None:
    try:
        matrix = Matrix(**{option: value})
    except ValidationError:
        return
    json.dumps(matrix.sample)
    assert matrix.is_distribution or matrix.listed
