"""A space and what was tried in it → the params to try next. Pure."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from polylocal.polyaxonfile import HPTuning, Matrix

Suggestion = dict[str, Any]

_TRIES = 100  # draws in a row that give nothing new: the space is taken as used up


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
    """Draws without a repetition, as many as the space has."""
    matrix = tuning.matrix or {}
    chance = random.Random(str(tuning.seed) if tuning.seed else seed)
    seen = set[str]()
    in_vain = 0
    while in_vain < _TRIES * len(matrix):
        drawn = {name: draw(option, chance) for name, option in matrix.items()}
        key = json.dumps(drawn, sort_keys=True, default=str)
        if key in seen:
            in_vain += 1
            continue
        in_vain = 0
        seen.add(key)
        yield drawn


def draw(option: Matrix, chance: random.Random) -> Any:
    """One value of a parameter."""
    if option.pvalues:
        values, weights = zip(*option.pvalues, strict=True)
        return chance.choices(values, weights)[0]
    if not option.is_distribution:
        return chance.choice(option.listed)
    numbers = getattr(option, option.option)
    if option.option.startswith("q"):
        *about, step = numbers
        # floor division, then round: that is what the platform's own quantisation does
        return round(_DRAWS[option.option[1:]](chance, *about) // step) * step
    return _DRAWS[option.option](chance, *numbers)


_DRAWS: dict[str, Callable[..., float]] = {
    "uniform": lambda chance, low, high: chance.uniform(low, high),
    "loguniform": lambda chance, low, high: math.exp(chance.uniform(low, high)),
    "normal": lambda chance, loc, scale: chance.gauss(loc, scale),
    "lognormal": lambda chance, loc, scale: math.exp(chance.gauss(loc, scale)),
}
