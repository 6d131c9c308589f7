"""Numbers that are not finite: JSON has no word for them. Pure.

Python's parser reads `NaN`, `Infinity` and numbers too large for a double; strict parsers refuse a whole text for one
of them. In rows a word stands in the place of such a number, in answers `null`, with the words in a mapping beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_SPELLINGS = frozenset(sign + word for sign in ("", "+", "-") for word in ("nan", "inf", "infinity"))  # in any case


def word(number: float) -> str:
    """`nan`, `inf` or `-inf`, as Python and its libraries write them and read them."""
    return str(float(number))


def reported(value: Any) -> Any:
    """A reported value with a float in the place of what clients send for a number that is not finite.

    `null` is what JavaScript writes for NaN. A whole number too large for a float counts as infinite.
    """
    if value is None:
        return math.nan
    if isinstance(value, str) and value.strip().lower() in _SPELLINGS:
        return float(value)
    if isinstance(value, int):
        return as_float(value)
    return value


def as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def nulled(value: Any) -> Any:
    """The same data with null in the place of each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: nulled(item) for name, item in value.items()}
    if isinstance(value, list):
        return [nulled(item) for item in value]
    return value


def with_words(values: Mapping[str, float]) -> dict[str, float | str]:
    """Measured values in the form that rows keep: a word for each that is not finite."""
    return {name: value if math.isfinite(value) else word(value) for name, value in values.items()}


def finite_ones(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of such a row: null for each word."""
    return {name: None if isinstance(value, str) else value for name, value in values.items()}


def words(values: Mapping[str, Any]) -> dict[str, str]:
    """Of such a row: the words alone."""
    return {name: value for name, value in values.items() if isinstance(value, str)}
