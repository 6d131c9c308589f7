"""Forms with nested names, as Rails reads them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from polylocal.api.abf.forms import MAX_DEPTH, nest


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        ([], {}),
        ([("a", "1")], {"a": "1"}),
        ([("a", "1"), ("a", "2")], {"a": "2"}),
        ([("a", "")], {"a": ""}),
        ([("a[b]", "1"), ("a[c]", "2")], {"a": {"b": "1", "c": "2"}}),
        ([("a[b][c]", "1"), ("a[b][d]", "2")], {"a": {"b": {"c": "1", "d": "2"}}}),
        ([("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a[b][]", "1"), ("a[b][]", "1")], {"a": {"b": ["1", "1"]}}),
        ([("a[][b]", "1"), ("a[][c]", "2"), ("a[][b]", "3")], {"a": [{"b": "1", "c": "2"}, {"b": "3"}]}),
        ([("a[][b][]", "1"), ("a[][b][]", "2")], {"a": [{"b": ["1", "2"]}]}),
        ([("a[][b][c]", "1"), ("a[][b][c]", "2")], {"a": [{"b": {"c": "1"}}, {"b": {"c": "2"}}]}),
        ([("a[b", "1")], {"a[b": "1"}),
        ([("a]", "1")], {"a]": "1"}),
        ([("[a]", "1")], {"[a]": "1"}),
        ([("", "1")], {"": "1"}),
        ([("a[b]c", "1")], {"a[b]c": "1"}),
    ],
)
def test_nested_names(pairs: list[tuple[str, object]], value: dict[str, Any]) -> None:
    assert nest(pairs) == value


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a", "a[b]"), "'a[b]' is given twice"),
        (("a[b]", "a"), "'a' is given twice"),
        (("a[]", "a"), "'a' is given twice"),
        (("a[]", "a[b]"), "'a[b]' is given twice"),
        (("a[b]", "a[]"), "'a[]' is given twice"),
        (("a[b]", "a[b][c]"), "'a[b][c]' is given twice"),
        (("a[][]",), "'a[][]' names a list in a list"),
        (("a" + "[b]" * MAX_DEPTH,), f"is nested more than {MAX_DEPTH} deep"),
    ],
)
def test_names_that_do_not_fit_together_are_refused(names: tuple[str, ...], told: str) -> None:
    with pytest.raises(HTTPException) as raised:
        nest([(name, "1") for name in names])
    assert raised.value.status_code == 400
    assert told in raised.value.detail


LEAVES = st.text(max_size=3)
KEYS = st.text("abc", min_size=1, max_size=2)
VALUES = st.recursive(
    LEAVES | st.lists(LEAVES, min_size=1, max_size=3),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def pairs_of(value: Any, name: str) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in pairs_of(inner, f"{name}[{key}]")]
    return [(f"{name}[]", item) for item in value] if isinstance(value, list) else [(name, value)]


@pytest.mark.slow
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_values_of_a_form_survive_a_round_trip(value: dict[str, Any]) -> None:
    assert nest([pair for key, inner in value.items() for pair in pairs_of(inner, key)]) == value


@given(st.lists(st.tuples(st.text("ab[]", max_size=8), st.text(max_size=2)), max_size=6))
def test_any_names_are_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    """Each parsed name has its value in the result. No other exception than a refusal is raised."""
    with suppress(HTTPException):
        found = nest(pairs)
        assert bool(found) == bool(pairs)
        assert all(name.startswith(tuple(found)) for name, _ in pairs)
