"""Scalars of polyaxonfiles in their written form: commands over several lines, numbers, hashes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import read


def cmd_of(text: str) -> Any:
    return read(f"version: 1\nrun:\n{text}\ntags: [a]\n")[0]["run"]["cmd"]


@pytest.mark.parametrize(
    ("text", "cmd"),
    [
        ("  cmd: prog --a=1\\\n    --b=2\\\n    --c=3", "prog --a=1 --b=2 --c=3"),
        ("  cmd: prog --a=1 \\\n    --b=2 \\\n    --c=3", "prog --a=1 --b=2 --c=3"),
        ("  cmd: prog --a=1 \\  \n    --b=2", "prog --a=1 --b=2"),
        ("  cmd:\n    prog \\\n    a\\\n    b", "prog a b"),
        ("  cmd: prog\n    --b=2", "prog --b=2"),
        ("  cmd: cat My\\ File\n    -n", "cat My\\ File -n"),
        ("  cmd: prog a\\\\\n    b", "prog a\\\\ b"),
        ("  cmd: prog a\\\\\\\n    b", "prog a\\\\ b"),
        ("  cmd: 'prog --a \\\n    --b'", "prog --a --b"),
        ('  cmd: "prog --a \\\n    --b"', "prog --a --b"),  # YAML itself removes the line end
        ('  cmd: "prog --a\\\\\n    --b \\\\ \n    c"', "prog --a --b c"),  # a backslash in YAML's double quotes
        ('  cmd: "prog a\\\\\\\\\n    b"', "prog a\\\\ b"),
        ("  cmd: >\n    prog --a=1\\\n    --b=2 \\\n    --c", "prog --a=1 --b=2 --c\n"),
        ("  cmd: >-\n    prog \\\n    --b", "prog --b"),
        ("  cmd: >\n    prog \\\n      --b \\\n      --c\n    && x", "prog \\\n  --b \\\n  --c\n&& x\n"),
        ("  cmd: |\n    prog --a \\\n      --b\n    x \\ y", "prog --a \\\n  --b\nx \\ y\n"),
        ("  cmd:\n    - prog \\\n      --b\n    - x\\\n      -y", ["prog --b", "x -y"]),
        ("  cmd: prog \\\n    --b \\", "prog --b \\"),
        ("  cmd: prog --a\\\r\n    --b\r", "prog --a --b"),
    ],
)
def test_a_command_over_several_lines(text: str, cmd: Any) -> None:
    assert cmd_of(text) == cmd


def test_an_alias_is_a_command_as_well() -> None:
    text = "version: 1\nx: &c\n  cmd: prog \\\n    --b\nrun: *c\nbuild: {build_steps: [pip install a\\\n  -r b]}\n"
    found = read(text)[0]
    assert (found["run"]["cmd"], found["build"]["build_steps"]) == ("prog --b", ["pip install a -r b"])


@pytest.mark.parametrize("write", [json.dumps, repr, lambda data: data])
def test_a_param_may_be_named_as_a_command_is(write: Any) -> None:
    data = {"params": {"cmd": "a \\ b", "build_steps": ["a \\ -b"]}}
    assert read(write(data))[0]["params"] == data["params"]
    assert read("params:\n  cmd: a \\\n    b\nrun:\n  cmd: x \\\n    y\n")[0] == {
        "params": {"cmd": "a \\ b"},
        "run": {"cmd": "x y"},
    }


def test_other_texts_keep_their_backslashes() -> None:
    assert read("description: a \\\n  b\nrun: {cmd: x \\\n  y}")[0]["description"] == "a \\ b"


def test_lines_are_counted_as_before() -> None:
    data, lines = read("version: 1\nrun:\n  cmd: prog \\\n    --b\nname: x\n")
    assert (data["name"], lines[("name",)]) == ("x", 5)


@pytest.mark.parametrize("write", [json.dumps, repr, lambda data: data])
def test_text_that_another_reader_has_folded(write: Any) -> None:
    data = {"run": {"cmd": r"prog --a=1\ --b=2 \ c"}, "build": {"build_steps": [r"a \ b"]}, "name": r"a \ b"}
    found = read(write(data))[0]
    assert found == {"run": {"cmd": "prog --a=1 --b=2 c"}, "build": {"build_steps": ["a b"]}, "name": r"a \ b"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("1e5", 100000.0),
        ("-1E+2", -100.0),
        ("1.5e3", 1500.0),
        ("+.5e1", 5.0),
        ("1.e2", 100.0),
        ("'1e-3'", "1e-3"),
        ('"1e5"', "1e5"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1e5x", "1e5x"),
        ("0.1", 0.1),
        ("1:2:3", "1:2:3"),
    ],
)
@pytest.mark.parametrize("section", ["params", "declarations"])
def test_numbers_of_a_section_of_values(section: str, written: str, value: Any) -> None:
    found = read(f"{section}:\n  lr: {written}\n  all: [{written}]\n")[0][section]
    assert found == {"lr": value, "all": [value]}
    assert type(found["lr"]) is type(value)


def test_numbers_of_a_matrix_and_of_inputs() -> None:
    text = "hptuning: {matrix: {lr: {values: [1e-3, 0.5]}}}\ninputs: [{name: lr, default: 1e-3}]\n"
    found = read(text)[0]
    assert found["hptuning"]["matrix"]["lr"]["values"] == [0.001, 0.5]
    assert found["inputs"][0]["default"] == 0.001


@pytest.mark.parametrize("word", ["1234e56", "0123456", "1234567"])
def test_a_commit_of_digits_is_a_text(word: str) -> None:
    assert read(f"build: {{image: a, commit: {word}}}")[0]["build"]["commit"] == word
    assert read(f"commit: {word}")[0]["commit"] == word  # for a build without that section


@pytest.mark.parametrize("section", ["build: {image: x, env_vars: %s}", "kind: build\nenv_vars: %s"])
def test_a_name_of_a_variable_is_a_text(section: str) -> None:
    """YAML 1.1 reads `NO` and `on` as booleans. Values of variables stay unchanged."""
    data = read(section % "[[NO, 1], [on, on], [2, 1.5], [~, x]]")[0]
    pairs = data.get("build", data)["env_vars"]
    assert pairs == [["NO", 1], ["on", True], ["2", 1.5], [None, "x"]]


def test_texts_elsewhere_stay_texts() -> None:
    found = read("build: {env_vars: [[LR, 1e-3]], ref: 12}\nname: 1e5")[0]
    assert found == {"build": {"env_vars": [["LR", "1e-3"]], "ref": 12}, "name": "1e5"}


def test_a_number_that_is_infinite_is_refused() -> None:
    with pytest.raises(InvalidPolyaxonfile, match="is not a number that can be stored"):
        read("params: {lr: 1e999}")


# -- several documents ------------------------------------------------------------------------------------------------

SEVERAL = """\
version: 1
build:
  image: a
  build_steps: [x, y]
params: {lr: 1, n: 2}
---
build:
  build_steps:
    - z
params:
  lr: 3
"""


def test_later_documents_override_earlier_ones() -> None:
    found, lines = read(SEVERAL)
    assert found == {"version": 1, "build": {"image": "a", "build_steps": ["z"]}, "params": {"lr": 3, "n": 2}}
    wanted: dict[tuple[str | int, ...], int] = {
        ("build", "image"): 3,
        ("build", "build_steps", 0): 9,
        ("params", "lr"): 11,
        ("params", "n"): 5,
    }
    assert {path: lines[path] for path in wanted} == wanted
    assert ("build", "build_steps", 1) not in lines


def test_empty_documents_are_passed_over() -> None:
    assert read("---\n---\na: 1\n---\n# nothing\n")[0] == {"a": 1}
