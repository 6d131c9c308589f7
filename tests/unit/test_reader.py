"""Parsing of polyaxonfiles as plain data: notations, merges, line numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import inputs

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import reader
from polylocal.polyaxonfile.reader import line_of, merge, read

DATA = {"version": 1, "kind": "job", "build": {"image": "a"}, "run": {"cmd": ["x", "y"]}, "tags": None}
YAML = """\
version: 1
kind: job
build:
  image: a
run:
  cmd:
    - x
    - y
tags: null
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "source", [DATA, [DATA], YAML, json.dumps(DATA), repr(DATA), f"[{json.dumps(DATA)}]", f" \n{DATA!r}"]
)
def test_every_notation_gives_the_same_data(source: object) -> None:
    assert read(source)[0] == DATA


def test_later_parts_of_a_list_lie_over_earlier_ones() -> None:
    found, lines = read([DATA, {"build": {"nocache": True}, "run": {"cmd": "z"}}])
    assert found == {**DATA, "build": {"image": "a", "nocache": True}, "run": {"cmd": "z"}}
    assert lines == {}


def test_a_yaml_list_of_mappings_is_merged_too() -> None:
    assert read("- {a: {b: 1}}\n- {a: {c: 2}}\n")[0] == {"a": {"b": 1, "c": 2}}


def test_lines_by_path() -> None:
    lines = read(YAML)[1]
    wanted: dict[tuple[str | int, ...], int] = {("build",): 3, ("build", "image"): 4, ("run", "cmd", 1): 8}
    assert {path: lines[path] for path in wanted} == wanted
    assert read(DATA)[1] == {}


def test_lines_of_json() -> None:
    assert read(json.dumps(DATA, indent=1))[1]["build", "image"] == 5


def test_a_missing_key_has_the_line_of_its_section() -> None:
    lines = read(YAML)[1]
    assert line_of(("build", "nope", "deeper"), lines) == 3
    assert line_of(("nope",), lines) is None
    assert line_of((), lines) is None


def test_an_alias_is_what_it_names() -> None:
    assert read("a: &x {b: 1}\nc: *x\n")[0] == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("source", "what"), [("", "empty"), ("5", "a int"), ("[1]", "a int"), ("just words", "a str"), ([], "empty")]
)
def test_a_value_that_is_not_a_mapping_is_named(source: object, what: str) -> None:
    with pytest.raises(InvalidPolyaxonfile, match=f"this is {what}"):
        read(source)


@pytest.mark.parametrize(
    ("text", "where"),
    [("a: [1\nb: 2\n", "line 2, column 2"), ("a: b: c\n", "line 1, column 5"), ("a: 1\n\tb: 2\n", "line 2, column 1")],
)
def test_broken_yaml_is_pointed_at(text: str, where: str) -> None:
    with pytest.raises(InvalidPolyaxonfile, match=f"{where}: not valid YAML"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [x]",
        "a: \x00",
        "a: *nobody",
        "? [1]\n: 2",
        "[" * 1500,
        "{'a':" * 1500,
        "a: !!bool x",
        "a: !!int ''",
        "a: !!float ''",
        "a: !!timestamp x",
        'a: "\\UFFFFFFFF"',
        "a: " + "1" * 5000,
    ],
)
def test_every_fault_of_the_text_is_an_invalid_polyaxonfile(text: str) -> None:
    with pytest.raises(InvalidPolyaxonfile):
        read(text)


@given(st.text(max_size=60) | st.text("{}[]:,'\"\n -&*!|>ab1\\u%@`#?<", max_size=30))
@example("!!int ")
def test_any_text_is_read_or_invalid(text: str) -> None:
    try:
        found, _ = read(text)
    except InvalidPolyaxonfile:
        return
    assert isinstance(found, dict)


@settings(max_examples=inputs(100))
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_json_is_read_as_json_reads_it(data: dict[str, Any]) -> None:
    assert read(json.dumps(data))[0] == data


@settings(max_examples=inputs(100))
@given(st.dictionaries(st.text(max_size=2), JSON, max_size=4), st.dictionaries(st.text(max_size=2), JSON, max_size=4))
def test_merging_keeps_every_key_and_prefers_the_upper_one(below: dict[str, Any], above: dict[str, Any]) -> None:
    before = json.dumps([below, above])
    found = merge(below, above)
    assert found.keys() == below.keys() | above.keys()
    assert all(found[key] == value for key, value in above.items() if not isinstance(value, dict))
    assert merge(found, above) == found
    assert json.dumps([below, above]) == before


@pytest.mark.parametrize("text", ["{{}}", "[{[]}]", "{{1: 2}: 3}"])
def test_unhashable_elements_and_keys_are_refused(text: str) -> None:
    """Python's notation can express values that Python can't create."""
    with pytest.raises(InvalidPolyaxonfile):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "[f'" + "{a}" * 300_000 + "']",
        "['''a'1'''f'" + "{1}" * 300_000 + "']",
        "[a" + "<b" * 400_000 + "]",
        "[1" + "+1" * 400_000 + "]",
        "[1" + "(1)" * 300_000 + "]",
        "[[1][1:1" + ",1:1" * 200_000 + "]]",
        "[" + "[]," * 300_000 + "[]]",
    ],
    ids=["f-string", "hidden f-string", "comparisons", "sums", "calls", "slices", "lists"],
)
def test_only_plain_and_short_literals_are_given_to_pythons_parser(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser holds the interpreter's lock, for some texts of a megabyte for minutes."""
    monkeypatch.setattr(reader, "ast", None)
    with pytest.raises(InvalidPolyaxonfile):
        read(text)


@pytest.mark.parametrize("value", ["it's", "a \"b\" 'c'", "", "\\", "x'''y", 'x"""y', "f'{a}'", "ü\n"])
def test_output_of_repr_is_read(value: str) -> None:
    data = {"run": {"cmd": value}, "n": [1, -2.5e-07, 1e22, True, None, ("a", -1)]}
    assert read(repr(data))[0]["run"] == {"cmd": value}
