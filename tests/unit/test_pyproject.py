"""Parsing of any pyproject.toml."""

from __future__ import annotations

import re

import pytest

from polylocal.text import pyproject


@pytest.mark.parametrize(("text", "found"), [(None, {}), ("", {}), ("a.b = 1", {"a": {"b": 1}})])
def test_a_file_is_a_mapping(text: str | None, found: dict[str, object]) -> None:
    assert pyproject.load(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "is not TOML: "),
        ("\ufeffa = 1", "is not TOML: "),
        ("a = " + "[" * 100_000, "is not TOML: "),
        ("a = " + "1" * 5000, "is not TOML: "),
        ("a." * 100_000 + "a = 1", "has a key of more than 100 parts"),
        ("'a' . \"b\" ." * 60 + "c = 1", "has a key of more than 100 parts"),
        ("[" + "a." * 100_000 + "a]", "has a key of more than 100 parts"),
        ("a = {" + "a." * 100_000 + "a = 1}", "has a key of more than 100 parts"),
    ],
)
def test_text_that_exceeds_the_parsers_limits_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^pyproject.toml {re.escape(why)}"):
        pyproject.load(text)


@pytest.mark.parametrize(
    "text", ["a." * 99 + "a = 1", "a = '" + "One. Two words. " * 1000 + "'", f"a = '{'x' * 200_000}'"]
)
def test_long_texts_and_keys_of_people_are_read(text: str) -> None:
    assert "a" in pyproject.load(text)


@pytest.mark.parametrize("data", [{}, {"a": 1}, {"a": {"b": []}}, [], None])
def test_a_table_that_is_not_there_is_empty(data: object) -> None:
    assert pyproject.table(data, "a", "b") == {}
