"""Untrusted text, made safe to display."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylocal.text import visible

ANY_TEXT = st.text(st.characters(), max_size=40)  # including unpaired surrogates
STEERING = ("Cc", "Cs", "Zl", "Zp")


def steering(text: str) -> list[str]:
    return [character for character in text if unicodedata.category(character) in STEERING]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("\x9b31m\x90\x9f", r"\x9b31m\x90\x9f"),
        ("a\x08\x7f\x00\x0e", r"a\x08\x7f\x00\x0e"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\u202a\u202e\u2066\u2069\u200e\u061c", r"\u202a\u202e\u2066\u2069\u200e\u061c"),
        ("\u200b\u2060\ufeff\xad\u2028\u2029", r"\u200b\u2060\ufeff\xad\u2028\u2029"),
        ("\U000e0041\udc9b\ud800", r"\U000e0041\udc9b\ud800"),
    ],
)
def test_control_and_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert visible.one_line(text) == shown
    assert shown.isprintable()


@pytest.mark.parametrize(
    "text",
    ["", "plain", "größer, 日本語, שלום, مرحبا", "می‌خواهم", "👨‍👩‍👧 👍🏽", "a\xa0b", r"C:\new [red] :bomb:", "क्‍ष"],
)
def test_ordinary_text_of_any_script_stays(text: str) -> None:
    assert visible.one_line(text) == visible.lines(text) == visible.message(text) == text


@given(ANY_TEXT)
def test_one_line_is_one_line_of_printable_text(text: str) -> None:
    shown = visible.one_line(text)
    assert steering(shown) == []
    shown.encode()


@given(ANY_TEXT)
def test_lines_have_no_control_but_their_ends(text: str) -> None:
    assert set(steering(visible.lines(text))) <= {"\n"}
    assert not [line for line in visible.message(text).split("\n")[1:] if not line.startswith("    ")]


@given(ANY_TEXT)
def test_json_keeps_its_value(text: str) -> None:
    shown = visible.in_json(json.dumps({"a": text}, ensure_ascii=False))
    assert json.loads(shown) == {"a": text}
    assert steering(shown) == []


@pytest.mark.slow
def test_every_control_and_bidi_character_there_is() -> None:
    every = [chr(number) for number in range(sys.maxunicode + 1)]
    wanted = {c for c in every if unicodedata.category(c) in STEERING or unicodedata.bidirectional(c) in _BIDI}
    assert {c for c in every if visible.one_line(c) != c} >= wanted


_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_tabs_become_spaces_in_several_lines() -> None:
    assert visible.lines("a\tb\r\n\tc") == "a       b\n        c"
