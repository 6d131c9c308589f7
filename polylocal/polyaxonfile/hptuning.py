"""The `hptuning` section of a group: the search space and the search algorithm. Pure.

Source: the platform's schemas of version 0.6. The values of an option are those of the numpy function with the same
name.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from polylocal.polyaxonfile.models import ExperimentFile, Section

MAX_BRACKETS = 32  # of hyperband
MAX_EXPERIMENTS = 100_000  # of one group
MAX_NUMBER = 1e300  # keeps computations finite
MAX_VALUES = 100_000  # of one parameter: a step that is too small must not exhaust the memory
_BEYOND = 10**18  # limit for the count of the points of a grid

Number = int | float


def _lower(value: object) -> object:
    """Convert a string to lower case: the platform ignored the case of words."""
    return value.lower() if isinstance(value, str) else value


def _numbers(*names: str, optional: int = 0) -> BeforeValidator:
    """A validator: `a:b:c`, a list or a mapping → a list of numbers. The last `optional` names may be missing."""

    def read(value: object) -> object:
        parts: Any = value
        if isinstance(value, str):
            parts = value.split(":")
        elif isinstance(value, Mapping):
            unknown = sorted(set(value) - set(names), key=str)
            if unknown:
                raise ValueError(f"`{unknown[0]}` is not one of {', '.join(names)}")
            parts = [value[name] for name in names if name in value]
        least = len(names) - optional
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not least <= len(parts) <= len(names):
            raise ValueError(f"must be `{':'.join(names)}`, a list or a mapping of these")
        return [_number(part) for part in parts]

    return BeforeValidator(read)


def _number(part: object) -> Number:
    if isinstance(part, str):
        try:
            part = int(part)
        except ValueError:
            try:
                part = float(part)
            except ValueError as error:
                raise ValueError(f"`{part}` is not a number") from error
    if isinstance(part, bool) or not isinstance(part, int | float):
        raise ValueError(f"`{part}` is not a number")
    if abs(part) > MAX_NUMBER or not math.isfinite(part):
        raise ValueError(f"a number is too large: at most {MAX_NUMBER:g}")
    return part


Numbers = list[Number] | None


def _require(is_valid: Callable[[list[Number]], bool], message: str) -> AfterValidator:
    """A check of an option that is set. `{}` in the message stands for the option's first two numbers."""

    def check(numbers: Numbers) -> Numbers:
        if numbers is not None and not is_valid(numbers):
            raise ValueError(message.format(numbers[:2]))
        return numbers

    return AfterValidator(check)


_HIGHER = "value must be strictly higher that"
_INCREASING = _require(lambda n: n[1] > n[0], f"stop {_HIGHER} start value, received instead {{}}")
_COUNTED = _require(
    lambda n: n[2] == int(n[2]) and 1 <= n[2] <= MAX_VALUES, f"num must be a whole number from 1 to {MAX_VALUES}"
)
_POSITIVE_BASE = _require(lambda n: len(n) < 4 or n[3] > 0, "base must be above 0")
_POSITIVE_START = _require(lambda n: n[0] > 0, "a geometric sequence starts above 0")
_NONZERO_STEP = _require(lambda n: n[2] != 0, "step cannot be 0")
_VALID_STEP = _require(
    lambda n: n[2] > 0 and (n[1] - n[0]) / n[2] <= MAX_VALUES,
    f"step must be above 0 and give at most {MAX_VALUES} values",
)
_FINITE = _require(lambda n: math.isfinite(float(n[1]) - float(n[0])), "low and high are too far from each other")
_ORDERED = _require(lambda n: n[1] > n[0], f"high {_HIGHER} low value, received instead {{}}")
_POSITIVE_QUANTUM = _require(lambda n: n[2] > 0, "q must be above 0")
_VALID_SCALE = _require(lambda n: n[1] >= 0, "scale can't be below 0")

Option = Annotated[Numbers, _numbers("start", "stop", "step"), _INCREASING, _NONZERO_STEP, _VALID_STEP]
Steps = Annotated[Numbers, _numbers("start", "stop", "num"), _INCREASING, _COUNTED]
LogSteps = Annotated[
    Numbers, _numbers("start", "stop", "num", "base", optional=1), _INCREASING, _COUNTED, _POSITIVE_BASE
]
GeometricSteps = Annotated[Steps, _POSITIVE_START]
Uniform = Annotated[Numbers, _numbers("low", "high"), _FINITE, _ORDERED]
QuantisedUniform = Annotated[Numbers, _numbers("low", "high", "q"), _FINITE, _ORDERED, _POSITIVE_QUANTUM]
Normal = Annotated[Numbers, _numbers("loc", "scale"), _VALID_SCALE]
QuantisedNormal = Annotated[Numbers, _numbers("loc", "scale", "q"), _VALID_SCALE, _POSITIVE_QUANTUM]


class Matrix(Section):
    """One parameter of the search space. Exactly one option must be set."""

    values: Annotated[list[Any], Field(min_length=1)] | None = None
    pvalues: Annotated[list[tuple[Any, Annotated[float, Field(gt=0, le=1)]]], Field(min_length=1)] | None = None
    range: Option = None
    linspace: Steps = None
    logspace: LogSteps = None
    geomspace: GeometricSteps = None
    uniform: Uniform = None
    quniform: QuantisedUniform = None
    loguniform: Uniform = None
    qloguniform: QuantisedUniform = None
    normal: Normal = None
    qnormal: QuantisedNormal = None
    lognormal: Normal = None
    qlognormal: QuantisedNormal = None

    @field_validator("pvalues", mode="after")
    @classmethod
    def _probabilities(cls, pairs: list[tuple[Any, float]] | None) -> list[tuple[Any, float]] | None:
        if pairs and sum(p for _, p in pairs) > 1 + 1e-9:
            raise ValueError("the probabilities sum up to more than 1")
        return pairs

    @model_validator(mode="after")
    def _one_option(self) -> Self:
        if len(self.model_fields_set) != 1 or getattr(self, self.option) is None:
            raise ValueError("Matrix element is not valid, one and only one option is required.")
        if not self.is_distribution and self.option != "values":
            try:  # the values increase: the first and the last are the extremes
                ends = _ENDS[self.option](getattr(self, self.option))
            except (OverflowError, ZeroDivisionError) as error:
                raise ValueError(f"{self.option} gives numbers that are too large") from error
            if not all(isinstance(value, int | float) and math.isfinite(value) for value in ends):
                raise ValueError(f"{self.option} gives a value that is not a finite number")
        return self

    @property
    def option(self) -> str:
        """The name of the option that is set."""
        return next(iter(self.model_fields_set))

    @property
    def is_distribution(self) -> bool:
        """Whether values are drawn at random, not listed."""
        return self.option not in _LISTED

    @property
    def sample(self) -> Any:
        """A valid value of the parameter, of the right type."""
        given = getattr(self, self.option)
        if self.option == "pvalues":
            return given[0][0]
        if self.option == "values":
            return given[0]
        if self.option in _QUANTISED:
            return float(given[0] - math.fmod(given[0], given[2]))
        return float(given[0]) if self.is_distribution else _ENDS[self.option](given)[0]

    @property
    def points(self) -> list[Any]:
        """The listed values. A distribution gives an example instead, with a fraction if its values can have one."""
        given = getattr(self, self.option)
        if self.option == "pvalues":
            return [value for value, _ in given]
        if not self.is_distribution:
            return self.listed
        return [float(given[2])] if self.option in _QUANTISED else [0.5]

    @property
    def count(self) -> int:
        """The number of listed values."""
        given = getattr(self, self.option)
        if self.option == "values":
            return len(given)
        return _steps(given) if self.option == "range" else int(given[2])

    @property
    def listed(self) -> list[Any]:
        """All values in order. Raises ValueError: the option is a distribution."""
        if self.is_distribution:
            raise ValueError(f"`{self.option}` has no list of values")
        return _LISTED[self.option](getattr(self, self.option))


def _steps(numbers: list[Number]) -> int:
    start, stop, step = numbers
    if all(isinstance(number, int) for number in numbers):
        return len(range(int(start), int(stop), int(step)))
    return math.ceil((stop - start) / step)


def _arange(numbers: list[Number]) -> list[Any]:
    start, stop, step = numbers
    if all(isinstance(number, int) for number in numbers):
        return list(range(int(start), int(stop), int(step)))
    delta = (start + step) - start  # rounds as numpy does
    return [start + i * delta for i in range(_steps(numbers))]


def _linspace(numbers: list[Number]) -> list[Any]:
    start, stop, count = float(numbers[0]), float(numbers[1]), int(numbers[2])
    if count == 1:
        return [start]
    step = (stop - start) / (count - 1)
    return [*(start + i * step for i in range(count - 1)), stop]


def _logspace(numbers: list[Number]) -> list[Any]:
    base = float(numbers[3]) if len(numbers) > 3 else 10.0
    return [base**exponent for exponent in _linspace(numbers[:3])]


def _geomspace(numbers: list[Number]) -> list[Any]:
    start, stop, count = float(numbers[0]), float(numbers[1]), int(numbers[2])
    if count == 1:
        return [start]
    exponents = _linspace([math.log10(start), math.log10(stop), count])
    return [start, *(10.0**exponent for exponent in exponents[1:-1]), stop]


_LISTED: dict[str, Callable[[Any], list[Any]]] = {
    "values": list,
    "range": _arange,
    "linspace": _linspace,
    "logspace": _logspace,
    "geomspace": _geomspace,
}
_ENDS: dict[str, Callable[[list[Number]], list[Any]]] = {
    "range": lambda numbers: [numbers[0], numbers[1]],
    "linspace": lambda numbers: _linspace([*numbers[:2], min(2, int(numbers[2]))]),
    "logspace": lambda numbers: _logspace([*numbers[:2], min(2, int(numbers[2])), *numbers[3:]]),
    "geomspace": lambda numbers: _geomspace([*numbers[:2], min(2, int(numbers[2]))]),
}
_QUANTISED = frozenset({"quniform", "qloguniform", "qnormal", "qlognormal"})
_UNIFORM = frozenset({*_LISTED, "uniform", "quniform", "loguniform", "qloguniform"})

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Experiments = Annotated[int, Field(ge=1, le=MAX_EXPERIMENTS)]


class GridSearch(Section):
    n_experiments: Experiments | None = None


class RandomSearch(Section):
    n_experiments: Experiments


class Metric(Section):
    name: str
    optimization: Annotated[Literal["maximize", "minimize"], BeforeValidator(_lower)] = "maximize"


class Resource(Section):
    name: str
    type: Annotated[Literal["int", "float"], BeforeValidator(_lower)] = "float"


class Hyperband(Section):
    max_iter: Experiments
    eta: Annotated[float, Field(gt=1)]
    resource: Resource
    metric: Metric
    resume: bool = False

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        most = math.log(self.max_iter) / math.log(self.eta)  # number of brackets, and of rounds in the longest bracket
        if most > MAX_BRACKETS or (most + 1) * self.max_iter > MAX_EXPERIMENTS * MAX_BRACKETS:
            raise ValueError(f"max_iter {self.max_iter} with eta {self.eta:g} asks for too many experiments")
        return self


class GaussianProcess(Section):
    kernel: Annotated[Literal["matern", "rbf"], BeforeValidator(_lower)] = "matern"
    length_scale: float = 1.0
    nu: float = 1.5
    n_restarts_optimizer: int = 0


class Utility(Section):
    acquisition_function: Annotated[Literal["ucb", "ei", "poi"], BeforeValidator(_lower)] = "ucb"
    gaussian_process: GaussianProcess | None = None
    kappa: float | None = None
    eps: float | None = None
    n_warmup: Count | None = None
    n_iter: Count | None = None

    @model_validator(mode="after")
    def _has_parameter(self) -> Self:
        if self.acquisition_function == "ucb" and self.kappa is None:
            raise ValueError("the acquisition function `ucb` requires a parameter `kappa`")
        if self.acquisition_function in ("ei", "poi") and self.eps is None:
            raise ValueError(f"the acquisition function `{self.acquisition_function}` requires a parameter `eps`")
        return self


class BO(Section):
    n_initial_trials: Experiments
    n_iterations: Experiments
    metric: Metric
    utility_function: Utility | None = None


class Policy(Section):
    kind: Annotated[Literal["median", "average", "truncation"], BeforeValidator(_lower)]
    evaluation_interval: Count
    percent: Annotated[float, Field(gt=0, lt=100)] | None = None


class EarlyStopping(Section):
    metric: str
    value: float | None = None
    optimization: Annotated[Literal["maximize", "minimize"], BeforeValidator(_lower)] = "maximize"
    policy: Policy | None = None

    @model_validator(mode="after")
    def _has_condition(self) -> Self:
        if self.value is None and self.policy is None:
            raise ValueError("early stopping needs a `value` to reach or a `policy`")
        if self.policy and self.policy.kind == "truncation" and self.policy.percent is None:
            raise ValueError("the policy `truncation` needs a `percent`")
        return self


class Budget(Section):
    """Limits of a whole search: its time in seconds, and its number of experiments."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    n_experiments: Count | None = None


ALGORITHMS = ("grid_search", "random_search", "hyperband", "bo")


class HPTuning(Section):
    matrix: Annotated[dict[str, Matrix], Field(min_length=1)] | None = None
    concurrency: Count = 1
    seed: int | None = None
    grid_search: GridSearch | None = None
    random_search: RandomSearch | None = None
    hyperband: Hyperband | None = None
    bo: BO | None = None
    early_stopping: list[EarlyStopping] | None = None
    budget: Budget | None = None
    max_failures: Count | None = None

    @field_validator("grid_search", mode="before")
    @classmethod
    def _empty_grid_search(cls, value: object) -> object:
        return {} if value is None else value  # `grid_search:` without a value

    @model_validator(mode="after")
    def _one_algorithm(self) -> Self:
        given = [name for name in ALGORITHMS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError("Only one search algorithm can be used.")
        if not self.matrix:
            if given:
                raise ValueError("Search algorithms need a matrix definition.")
            raise ValueError("A matrix definition is required for group specification.")
        if not given:
            self.grid_search = GridSearch()
        for name, option in self.matrix.items():
            if self.algorithm == "grid" and option.is_distribution:
                raise ValueError(f"`{name}` defines a distribution, and it cannot be used with grid search.")
            if self.algorithm == "bo" and option.option not in _UNIFORM:
                raise ValueError(
                    f"`{name}` defines a non uniform distribution, and it cannot be used with bayesian optimization."
                )
        if self.grid_search and not self.grid_search.n_experiments:
            points = 1
            for option in self.matrix.values():
                points *= option.count if points < _BEYOND else 1
            if points > MAX_EXPERIMENTS:
                raise ValueError(f"the grid has {points} points, more than {MAX_EXPERIMENTS}: see `n_experiments`")
        return self

    @property
    def algorithm(self) -> Literal["grid", "random", "hyperband", "bo"]:
        if self.random_search:
            return "random"
        if self.hyperband:
            return "hyperband"
        return "bo" if self.bo else "grid"

    @property
    def metric(self) -> Metric | None:
        """The metric that ranks the experiments: of the algorithm, or else of the first rule of early stopping."""
        for search in (self.hyperband, self.bo):
            if search:
                return search.metric
        rules = self.early_stopping or []
        return Metric(name=rules[0].metric, optimization=rules[0].optimization) if rules else None

    @property
    def sample(self) -> dict[str, Any]:
        """One point of the search space, to check a file with. Hyperband adds its resource."""
        band = self.hyperband.resource if self.hyperband else None
        resource = {band.name: 1 if band.type == "int" else 1.0} if band else {}
        return {**{name: option.sample for name, option in (self.matrix or {}).items()}, **resource}


class GroupFile(ExperimentFile):
    """A group: the file of its experiments, with the search for their params."""

    kind: Literal["group"]  # type: ignore[assignment]
    hptuning: HPTuning
