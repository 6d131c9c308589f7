"""Values of `env_vars` reach the container's environment unchanged, except for their substitutions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polylocal.errors import InvalidPolyaxonfile
from polylocal.planning import instructions
from polylocal.planning.dockerfile import render
from polylocal.polyaxonfile import Build, build_variables, parse
from polylocal.statuses import Kind

INHERITED = {"PATH": "/bin", "HOME": "/root", "SET": "s", "NOTHING": ""}


def built(pairs: Sequence[Sequence[Any]]) -> dict[str, str]:
    """The variables that a builder sets from the rendered Dockerfile, parsed with the builders' grammar."""
    text = render(Build(image="x", env_vars=[list(pair) for pair in pairs]), (), "")
    found: dict[str, str] = {}
    for instruction in instructions.read(text)[0].instructions:
        if instruction.keyword != "env":
            continue
        (name, value), *others = instructions.assignments(instruction.rest, "\\") or [("", None)]
        if value is None:  # ENV NAME VALUE
            name, (value, others) = (
                instruction.words[0],
                (re.split(r"[\t\v\f\r ]+", instruction.rest, maxsplit=1)[1], []),
            )
        assert not others
        values = INHERITED | found
        found[instructions.expand(name, values)] = instructions.expand(value, values)
    found.pop("SHELL")
    return found


AS_WRITTEN = [
    "bar",
    "two  words",
    " blanks at the ends ",
    "\ttab\t",
    "",
    'say "hi"',
    "it's",
    "'quoted'",
    "#1 # no comment",
    "C:\\new\\table",
    "ends with \\",
    "\\\\server\\share",
    '\\"',
    "5$",
    "$5",
    "pa$$word",
    "$$HOME",
    "a $ b",
    "$",
    "${",
    "${}",
    "${1}",
    "${HOME",
    "${HOME:5}",
    "$(date)",
    "`date`",
    "{a}",
    "a=b c=d",
    "=",
    "<<EOF",
    "--flag",
    '{"json": ["a", 1]}',
    "ü\u2028\u00a0",
    "\ufeffmark",
]


@pytest.mark.parametrize("value", AS_WRITTEN)
def test_a_value_arrives_as_it_was_written(value: str) -> None:
    assert built([["K", value], ["AFTER", "x"]]) == {"K": value, "AFTER": "x"}
    assert build_variables.expand([["K", value]], INHERITED) == {"K": value}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${PATH}:/x", "/bin:/x"),
        ("$HOME/x", "/root/x"),
        ('$HOME\'s "x"', '/root\'s "x"'),
        ("$HOMEé", "/rooté"),
        ("$MISSING", ""),
        ("${MISSING:-a b}", "a b"),
        ('${MISSING:-"a" \\ $}', '"a" \\ $'),
        ("${MISSING:-${ALSO_MISSING:-x}y}}", "xy}"),
        ("${MISSING:-${SET}", "${MISSING:-s"),
        ("${SET:+it's}", "it's"),
        ("${NOTHING:-x}", "x"),
        ("\\$HOME \\${SET}", "$HOME ${SET}"),
        ("\\\\$HOME", "\\\\/root"),
    ],
)
def test_substitutions_are_put_in(value: str, expected: str) -> None:
    assert built([["K", value]]) == {"K": expected}
    assert build_variables.expand([["K", value]], INHERITED) == {"K": expected}


@pytest.mark.parametrize(
    ("pair", "line"),
    [
        (["FOO", "bar"], "ENV FOO bar"),
        (["N", 1], "ENV N 1"),
        (["B", True], "ENV B True"),
        (["R", 0.1], "ENV R 0.1"),
        (["E", "${PATH}:/x"], "ENV E ${PATH}:/x"),
        (["E", "$PATH:/x y # z"], "ENV E $PATH:/x y # z"),
        (["E", "${X:-y}"], "ENV E ${X:-y}"),
        (["my.name-x", "a=b"], "ENV my.name-x a=b"),
        (["E", ""], 'ENV E=""'),
        (["E", "a "], 'ENV E="a "'),
    ],
)
def test_the_plain_form_stays_wherever_it_carries_the_value(pair: list[Any], line: str) -> None:
    assert build_variables.instruction(*pair) == line


def test_a_variable_sees_those_before_it() -> None:
    pairs = [["A", "1"], ["B", "$A 2"], ["A", "$A$B"]]
    assert built(pairs) == build_variables.expand(pairs, {}) == {"A": "11 2", "B": "1 2"}


VALUES = st.text(st.sampled_from("ab_1 \t\"'\\$#{}:-+=é\u00a0\ufeff"), max_size=24) | st.text(max_size=12)


@given(VALUES.filter(lambda value: not build_variables.problem("K", value)))
@example("${a:-" * 50)
def test_a_build_and_a_container_get_the_same_value(value: str) -> None:
    """A run from a user's Dockerfile and a run from an image have the same variables."""
    try:
        assert built([["K", value]]) == build_variables.expand([["K", value]], INHERITED)
    except instructions.Unreadable:  # substitutions that older builders do not know
        assert re.search(r"\$\{\w+[:#%/?+-]", value)


@given(VALUES.filter(lambda value: not build_variables.problem("K", value)))
def test_text_without_substitutions_never_changes(value: str) -> None:
    text = value.replace("$", "$ ").replace("\\$", "$")
    assert built([["K", text]]) == {"K": text}


@given(st.text(st.sampled_from("aB.-\"'\\$#é"), min_size=1, max_size=8))
def test_any_name_without_blanks_arrives(name: str) -> None:
    assert built([[name, "v w"]]) == {name: "v w"}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (["K", "a\nRUN evil"], "a line end"),
        (["K", "a\rb"], "a carriage return"),
        (["K", "a\0b"], "a NUL character"),
        (["K", "x" * 70_000], "at most 65535"),
        (["", "x"], "needs a name"),
        (["A=B", "x"], "`A=B` can't be the name"),
        (["A B", "x"], "`A B` can't be the name"),
        (["A\nB", "x"], "can't be the name"),
    ],
)
def test_values_that_no_environment_can_hold_are_refused_with_their_path(pair: list[str], words: str) -> None:
    file = {
        "version": 1,
        "kind": "job",
        "build": {"image": "x", "env_vars": [["OK", 1], pair]},
        "run": {"cmd": "true"},
    }
    with pytest.raises(InvalidPolyaxonfile, match=r"build\.env_vars\.1") as refused:
        parse(file, Kind.JOB)
    assert words in str(refused.value)
