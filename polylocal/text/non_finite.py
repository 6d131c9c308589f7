"""Numbers that are not finite, which JSON can't express. Pure.

Python's parser accepts `NaN`, `Infinity` and numbers too large for a double; strict parsers refuse the whole text. So
rows store a word in place of such a number. Responses have `null`, and a separate mapping with the words.
"""

import math
from collections.abc import Mapping
from typing import Any

_SPELLINGS = frozenset(sign + word for sign in ("", "+", "-") for word in ("nan", "inf", "infinity"))  # lower case


def word(number: float) -> str:
    """`nan`, `inf` or `-inf`, as Python and its libraries spell them."""
    return str(float(number))


def parse_reported(value: Any) -> Any:
    """A reported value, with a float for the spellings of non-finite numbers that clients send.

    `null` is NaN, as JavaScript writes it. An integer too large for a float is infinite.
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


def null_non_finite(value: Any) -> Any:
    """The data with None in place of non-finite numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: null_non_finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [null_non_finite(item) for item in value]
    return value


def with_words(values: Mapping[str, float]) -> dict[str, float | str]:
    """Metrics in the form for rows: a word in place of each non-finite number."""
    return {name: value if math.isfinite(value) else word(value) for name, value in values.items()}


def finite_ones(values: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a row with None in place of words."""
    return {name: None if isinstance(value, str) else value for name, value in values.items()}


def words(values: Mapping[str, Any]) -> dict[str, str]:
    """The words in the metrics of a row."""
    return {name: value for name, value in values.items() if isinstance(value, str)}
