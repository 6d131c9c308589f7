"""A space and what was tried in it → the params to try next. Pure."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from polylocal.polyaxonfile import HPTuning, Matrix

Suggestion = dict[str, Any]

_TRIES = 1000  # draws in a row that give nothing new: the space is as good as used up


def suggestions(tuning: HPTuning, seed: str) -> Iterator[Suggestion]:
    """Every suggestion of a search that needs no results, always in the same order for the same seed.

    `seed` is used where the file names none. Raises ValueError for an algorithm that learns from results.
    """
    if tuning.algorithm == "grid":
        return itertools.islice(_grid(tuning), tuning.grid_search.n_experiments if tuning.grid_search else None)
    if tuning.random_search:
        return itertools.islice(_random(tuning, seed), tuning.random_search.n_experiments)
    raise ValueError(f"`{tuning.algorithm}` learns from results")


def _grid(tuning: HPTuning) -> Iterator[Suggestion]:
    """The product, in the order of the matrix; the last name varies fastest."""
    matrix = tuning.matrix or {}
    for values in itertools.product(*(option.listed for option in matrix.values())):
        yield dict(zip(matrix, values, strict=True))


def _random(tuning: HPTuning, seed: str) -> Iterator[Suggestion]:
    """Draws without a repetition, until the space has no more."""
    matrix = tuning.matrix or {}
    chance = random.Random(str(tuning.seed) if tuning.seed else seed)
    draws = {name: _drawing(option, chance) for name, option in matrix.items()}
    seen = set[str]()
    in_vain = 0
    while in_vain < _TRIES:
        drawn = {name: draw() for name, draw in draws.items()}
        if _key(drawn) in seen:
            in_vain += 1
            continue
        in_vain = 0
        seen.add(_key(drawn))
        yield drawn
    rest = _finite(matrix)
    if rest is not None:  # few are left, and chance finds them late
        for each in rest:
            if _key(each) not in seen:
                seen.add(_key(each))
                yield each


def _finite(matrix: Mapping[str, Matrix]) -> Iterator[Suggestion] | None:
    """The whole space, if it has an end."""
    lists = []
    for option in matrix.values():
        if option.is_distribution and not option.pvalues:
            return None
        lists.append([value for value, _ in option.pvalues] if option.pvalues else option.listed)
    return (dict(zip(matrix, values, strict=True)) for values in itertools.product(*lists))


def _key(suggestion: Suggestion) -> str:
    return json.dumps(suggestion, sort_keys=True, default=str)


def _drawing(option: Matrix, chance: random.Random) -> Callable[[], Any]:
    """Gives one value of a parameter each time."""
    if option.pvalues:
        values, weights = zip(*option.pvalues, strict=True)
        return lambda: chance.choices(values, weights)[0]
    if not option.is_distribution:
        listed = option.listed
        return lambda: chance.choice(listed)
    numbers = getattr(option, option.option)
    if option.option.startswith("q"):
        *about, step = numbers
        # floor division, then round: that is what the platform's own quantisation does
        return lambda: round(_DRAWS[option.option[1:]](chance, *about) // step) * step
    return lambda: _DRAWS[option.option](chance, *numbers)


_DRAWS: dict[str, Callable[..., float]] = {
    "uniform": lambda chance, low, high: chance.uniform(low, high),
    "loguniform": lambda chance, low, high: math.exp(chance.uniform(low, high)),
    "normal": lambda chance, loc, scale: chance.gauss(loc, scale),
    "lognormal": lambda chance, loc, scale: math.exp(chance.gauss(loc, scale)),
}
