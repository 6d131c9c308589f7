"""Untrusted JSON, parsed within limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylocal.text import bounded_json
from polylocal.text.bounded_json import MAX_CONTAINERS, MAX_DEPTH, MAX_VALUES, TooLarge

ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=20,
)


@pytest.mark.slow
@given(data=ANY, ascii_only=st.booleans())
def test_within_the_limits_the_result_is_that_of_the_standard_library(data: Any, ascii_only: bool) -> None:
    assert bounded_json.load(json.dumps(data, ensure_ascii=ascii_only)) == data


@given(data=ANY)
def test_the_scan_counts_what_stands_outside_of_strings(data: Any) -> None:
    text = json.dumps(data)
    lists, depth = _counted(data)
    bounded_json.check(text, max_containers=lists, max_depth=max(depth, 1))
    if lists:
        with pytest.raises(TooLarge):
            bounded_json.check(text, max_containers=lists - 1)
        with pytest.raises(TooLarge):
            bounded_json.check(text, max_depth=depth - 1)


def _counted(data: Any) -> tuple[int, int]:
    """The number of lists and objects, and their depth."""
    inner = list(data.values()) if isinstance(data, dict) else data if isinstance(data, list) else None
    if inner is None:
        return 0, 0
    below = [_counted(item) for item in inner]
    return 1 + sum(count for count, _ in below), 1 + max((depth for _, depth in below), default=0)


@pytest.mark.parametrize(
    "text",
    [
        "[" + "[]," * MAX_CONTAINERS + "[]]",
        "[" + "{}," * MAX_CONTAINERS + "{}]",
        "[" + "1," * MAX_VALUES + "1]",
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
        "[" * 1_000_000,
        "[" + "[]," * MAX_DEPTH + '""' * 1_000_000,
    ],
    ids=["lists", "objects", "values", "nested lists", "nested objects", "no end", "strings"],
)
def test_more_than_is_read_is_refused_before_it_is_parsed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_json.json, "loads", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(TooLarge):
        bounded_json.load(text)


@pytest.mark.parametrize(
    "value",
    ["a, [b] {c}\n" * 200_000, '\\"[' * 500_000, "[" * 1_000_000, "\\" * 999_999, "😀," * 400_000],
    ids=["prose", "quotes", "brackets", "backslashes", "emoji"],
)
def test_commas_and_brackets_in_a_text_do_not_count(value: str) -> None:
    assert bounded_json.load(json.dumps({"readme": value, "tags": ["a"]})) == {"readme": value, "tags": ["a"]}


@pytest.mark.parametrize("text", ['"\\ud800"', '{"a": ["\\udfff"]}', '{"\\ud800": 1}'])
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        bounded_json.load(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), ("1e999", "inf"), ("-1e400", "-inf")]
    + [("1" * 5000, "inf"), ("-" + "9" * 5000, "-inf")],
)
def test_a_number_that_is_not_finite_is_read_among_others(text: str, word: str) -> None:
    with pytest.raises(ValueError, match="not a number that can be stored"):
        bounded_json.load(text)
    assert str(bounded_json.load(f'{{"a": [0.5, {text}], "b": 12345678901234567890}}')["a"][1]) == word


def test_a_long_whole_number_is_kept_whole_beside_one_that_is_too_long() -> None:
    assert bounded_json.load(f"[{'7' * 3000}, {'7' * 5000}]") == [int("7" * 3000), float("inf")]


@pytest.mark.parametrize("text", ["nan", "+Infinity", "1e", "1" * 5000 + "x", '"', "[", '["\\'])
def test_invalid_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whatever it says
        bounded_json.load(text)
