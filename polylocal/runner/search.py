"""Hyperparameter search: suggests the next params from the space and the earlier trials. Pure, and deterministic.

Sources: the platform's rules (grid, random, hyperband as of Li et al., "Hyperband", JMLR 2018, Algorithm 1), and for
bayesian optimisation `bayes`, which is handed in.
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polylocal.polyaxonfile import HPTuning, Hyperband, Matrix, SearchMetric

Params = dict[str, Any]

_MAX_TRIES = 1000  # draws in a row without a new point, after which the space counts as used up
_EPSILON = 1e-9  # rounding errors of powers of fractions


@dataclass(frozen=True)
class Trial:
    """The result of one experiment. `value` None: it failed, or did not report the metric."""

    id: int
    params: Params
    value: float | None


@dataclass(frozen=True)
class Suggestion:
    """Params to try. `of`: the id of the experiment to continue with them; None: a new one."""

    params: Params
    of: int | None = None


Past = Sequence[Sequence[Trial]]  # by iteration, in the order of the suggestions
Bayes = Callable[[HPTuning, str, Sequence[Trial]], Params | None]  # None: the space is used up


def next_suggestions(tuning: HPTuning, seed: str, past: Past, bayes: Bayes) -> list[Suggestion]:
    """The suggestions of the next iteration; none: the search is over. `seed` is used if the file names none."""
    seed = str(tuning.seed) if tuning.seed else seed
    if tuning.hyperband:
        return _hyperband(tuning, tuning.hyperband, seed, past)
    if tuning.bo:
        if not past:
            return list(map(Suggestion, itertools.islice(sample(tuning, seed), tuning.bo.n_initial_trials)))
        if len(past) > tuning.bo.n_iterations:
            return []
        point = bayes(tuning, seed, [trial for trials in past for trial in trials])
        return [Suggestion(point)] if point is not None else []
    return [] if past else list(map(Suggestion, suggestions(tuning, seed)))


def suggestions(tuning: HPTuning, seed: str) -> Iterator[Params]:
    """All suggestions of a search that needs no results. Raises ValueError for one that learns from results."""
    if tuning.hyperband or tuning.bo:
        raise ValueError(f"`{tuning.algorithm}` learns from results")
    if tuning.random_search:
        seed = str(tuning.seed) if tuning.seed else seed
        return itertools.islice(sample(tuning, seed), tuning.random_search.n_experiments)
    wanted = tuning.grid_search.n_experiments if tuning.grid_search else None
    return itertools.islice(_grid(tuning.matrix or {}), wanted)


def rank_trials(trials: Sequence[Trial], metric: SearchMetric) -> list[Trial]:
    """The trials that have a value, the best first; of equal ones the earlier first."""
    told = [trial for trial in trials if trial.value is not None]
    return sorted(told, key=lambda trial: (trial.value or 0.0) * (-1 if metric.optimization == "maximize" else 1))


def _grid(matrix: Mapping[str, Matrix]) -> Iterator[Params]:
    """The Cartesian product, in the order of the matrix. The last name varies fastest."""
    for values in itertools.product(*(option.listed for option in matrix.values())):
        yield dict(zip(matrix, values, strict=True))


def sample(tuning: HPTuning, seed: str) -> Iterator[Params]:
    """Random points without repetition, until the space is used up."""
    matrix = tuning.matrix or {}
    chance = random.Random(seed)
    draws = {name: sampler(option, chance) for name, option in matrix.items()}
    seen = set[str]()
    misses = 0
    while misses < _MAX_TRIES:
        drawn = {name: draw() for name, draw in draws.items()}
        if key(drawn) in seen:
            misses += 1
            continue
        misses = 0
        seen.add(key(drawn))
        yield drawn
    rest = _all_points(matrix)
    if rest is not None:  # few points are left, which random draws would rarely hit
        for each in rest:
            if key(each) not in seen:
                seen.add(key(each))
                yield each


def _all_points(matrix: Mapping[str, Matrix]) -> Iterator[Params] | None:
    """All points of the space, if it is finite."""
    lists = []
    for option in matrix.values():
        if option.is_distribution and not option.pvalues:
            return None
        lists.append([value for value, _ in option.pvalues] if option.pvalues else option.listed)
    return (dict(zip(matrix, values, strict=True)) for values in itertools.product(*lists))


def key(params: Params) -> str:
    """A key that is equal for equal points of the space."""
    return json.dumps(params, sort_keys=True, default=str)


def sampler(option: Matrix, chance: random.Random) -> Callable[[], Any]:
    """Draws values of one parameter."""
    if option.pvalues:
        values, weights = zip(*option.pvalues, strict=True)
        return lambda: chance.choices(values, weights)[0]
    if not option.is_distribution:
        listed = option.listed
        return lambda: chance.choice(listed)
    numbers = getattr(option, option.option)
    if option.option.startswith("q"):
        *about, step = numbers
        # floor division, then round, as the platform's own quantisation
        return lambda: round(_check_finite(_DRAWS[option.option[1:]](chance, *about)) // step) * step
    return lambda: _check_finite(_DRAWS[option.option](chance, *numbers))


def _check_finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("a distribution of the matrix gives numbers that are too large")
    return number


_DRAWS: dict[str, Callable[..., float]] = {
    "uniform": lambda chance, low, high: chance.uniform(low, high),
    "loguniform": lambda chance, low, high: math.exp(chance.uniform(low, high)),
    "normal": lambda chance, loc, scale: chance.gauss(loc, scale),
    "lognormal": lambda chance, loc, scale: math.exp(chance.gauss(loc, scale)),
}


@dataclass(frozen=True)
class Round:
    """One round of successive halving: the number of configurations, and the resource of each."""

    configurations: int
    resource: float


def brackets(max_iter: int, eta: float) -> list[list[Round]]:
    """All rounds of all brackets. The bracket with the most configurations comes first."""
    most = 0
    while eta > 1 and eta ** (most + 1) <= max_iter + _EPSILON:
        most += 1
    found = []
    for s in range(most, -1, -1):
        n = math.ceil((most + 1) * eta**s / (s + 1) - _EPSILON)
        resource = max_iter * eta**-s
        rounds = [Round(int(n * eta**-k + _EPSILON), resource * eta**k) for k in range(s + 1)]
        found.append([each for each in rounds if each.configurations])
    return found


def _hyperband(tuning: HPTuning, band: Hyperband, seed: str, past: Past) -> list[Suggestion]:
    plan = brackets(band.max_iter, band.eta)
    bracket, number = 0, 0  # of the next iteration
    survivors: list[Trial] = []
    for trials in past:
        number += 1
        survivors = []
        if number < len(plan[bracket]):
            survivors = rank_trials(trials, band.metric)[: plan[bracket][number].configurations]
        if not survivors:  # the bracket is over, or no trial of it reported the metric
            bracket, number = bracket + 1, 0
    if bracket >= len(plan):
        return []
    resource = _resource(band, plan[bracket][number].resource)
    if number:
        return [Suggestion({**trial.params, **resource}, trial.id) for trial in survivors]
    before = sum(rounds[0].configurations for rounds in plan[:bracket])
    wanted = plan[bracket][0].configurations
    points = list(itertools.islice(sample(tuning, seed), before, before + wanted))
    if not points:  # earlier brackets used up a small space: try its points again, with more of the resource
        points = list(itertools.islice(sample(tuning, seed), wanted))
    return [Suggestion({**params, **resource}) for params in points]


def _resource(band: Hyperband, amount: float) -> Params:
    is_whole = band.resource.type == "int"
    return {band.resource.name: int(amount + _EPSILON) if is_whole else amount}
