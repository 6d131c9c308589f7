"""Non-finite numbers: parsing, storage and display."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from polylocal.text import non_finite


@pytest.mark.parametrize(
    ("value", "word"),
    [
        *((text, "nan") for text in ("NaN", "nan", "NAN", " nan ", "-nan")),
        *((text, "inf") for text in ("inf", "Infinity", "+inf", "INFINITY", "+Infinity")),
        *((text, "-inf") for text in ("-inf", "-Infinity", "-INF")),
        (None, "nan"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (10**400, "inf"),
        (-(10**400), "-inf"),
    ],
)
def test_what_clients_send_for_a_number_that_is_not_finite(value: Any, word: str) -> None:
    assert non_finite.word(non_finite.parse_reported(value)) == word


@pytest.mark.parametrize("value", [0.5, 7, "0.5", "x", "info", "infinite", [], {}])
def test_anything_else_stays(value: Any) -> None:
    assert non_finite.parse_reported(value) == value


def test_nulls_at_any_depth() -> None:
    data = {"a": math.nan, "b": [1, math.inf, {"c": -math.inf, "d": "nan"}], "e": 1e308, "f": None}
    made = non_finite.null_non_finite(data)
    assert made == {"a": None, "b": [1, None, {"c": None, "d": "nan"}], "e": 1e308, "f": None}
    assert json.dumps(made, allow_nan=False)


def test_a_row_stores_words_and_shows_nulls_beside_the_words() -> None:
    row = non_finite.with_words({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5})
    assert row == {"a": "nan", "b": "inf", "c": "-inf", "d": 0.5}
    assert non_finite.finite_ones(row) == {"a": None, "b": None, "c": None, "d": 0.5}
    assert non_finite.words(row) == {"a": "nan", "b": "inf", "c": "-inf"}
