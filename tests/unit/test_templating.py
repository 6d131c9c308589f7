"""Templates in polyaxonfiles: values, conditions, undefined names."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import inputs

from polylocal.polyaxonfile import templating


class TemplateProblem(Exception):
    def __init__(self, path: templating.Path, message: str) -> None:
        self.path = path
        super().__init__(message)


def render(value: Any, variables: dict[str, Any], path: templating.Path = ()) -> Any:
    """The value, or the first problem."""
    problems: templating.Problems = []
    rendered = templating.render(value, variables, path, problems)
    if problems:
        raise TemplateProblem(*problems[0])
    return rendered


PARAMS: dict[str, Any] = {"lr": 0.1, "n": 3, "name": "adam", "on": True, "layers": [1, 2], "map": {"a": 1}, "text": "1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("{{ name }}", "adam"),
        ("--lr={{ lr }} --n={{n}}", "--lr=0.1 --n=3"),
        ("{{ nobody }}", ""),
        ("a{{ nobody }}b", "ab"),
        ("{{ lr * 2 }} x", "0.2 x"),
        ("{% if on %}yes{% else %}no{% endif %}", "yes"),
        ("{% for layer in layers %}-{{ layer }}{% endfor %}", "-1-2"),
        ("{{ name | upper }}", "ADAM"),
        ("${HOME} {a} {1,2}", "${HOME} {a} {1,2}"),
        ("", ""),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert render(text, PARAMS) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ lr }}", 0.1),
        (" {{ n }} ", 3),
        ("{{ on }}", True),
        ("{{ layers }}", [1, 2]),
        ("{{ map }}", {"a": 1}),
        ("{{ '1.10' }}", "1.10"),  # a text that is not the written form of a number
        ("{{ '1e-3' }}", "1e-3"),
        ("{{ '%.3f' % lr }}", "0.100"),
        ("{{ '0x10' }}", "0x10"),
        ("""{{ "'a b'" }}""", "'a b'"),
        ("{{ text }}", 1),
        ("{{ n + 1 }}", 4),
    ],
)
def test_a_whole_expression_keeps_its_type(text: str, value: object) -> None:
    found = render(text, PARAMS)
    assert found == value
    assert type(found) is type(value)


def test_an_expression_inside_a_text_gives_text() -> None:
    assert render("{{ n }}{{ n }}", PARAMS) == "33"


def test_every_text_inside_is_rendered_and_keys_are_not() -> None:
    assert render({"{{ n }}": ["{{ n }}", {"a": "{{ name }}"}], "x": 5}, PARAMS) == {
        "{{ n }}": [3, {"a": "adam"}],
        "x": 5,
    }


def test_for_repeats() -> None:
    loop = {"for": {"len": 3, "index": "i", "do": {"step": "echo {{ i }} {{ name }}"}}}
    assert render(loop, PARAMS) == [{"step": f"echo {i} adam"} for i in range(3)]


def test_for_takes_its_length_from_a_param_and_counts_in_index() -> None:
    assert render({"for": {"len": "{{ n }}", "do": "{{ index }}"}}, PARAMS) == [0, 1, 2]


@pytest.mark.parametrize("length", [None, -1, "x", 10_001, 1.5, "{{ nobody }}"])
def test_for_needs_a_length(length: object) -> None:
    with pytest.raises(TemplateProblem, match="`for` needs `len`") as caught:
        render({"for": {"len": length, "do": "x"}}, PARAMS, ("run",))
    assert caught.value.path == ("run", "for", "len")


@pytest.mark.parametrize(
    ("condition", "taken"),
    [("n == 3", "adam"), ("n > 3", "no"), ("nobody", "no"), ("on and lr < 1", "adam"), (True, "adam"), (0, "no")],
)
def test_if_chooses(condition: object, taken: str) -> None:
    branch = {"if": {"cond": condition, "do": "{{ name }}", "else_do": "no"}}
    assert render(branch, PARAMS) == taken


def test_if_without_an_else_is_nothing() -> None:
    assert render({"if": {"cond": "false", "do": 1}}, PARAMS) is None


def test_a_for_or_an_if_beside_other_keys_is_a_plain_mapping() -> None:
    data = {"for": {"len": 1}, "x": 1}
    assert render(data, PARAMS) == data


@pytest.mark.parametrize("condition", ["", "n ==", "1/0", "nobody.x", "name.__class__.__mro__", "n|nope"])
def test_a_condition_that_cannot_be_read(condition: str) -> None:
    with pytest.raises(TemplateProblem, match="the condition can't be read") as caught:
        render({"if": {"cond": condition, "do": 1}}, PARAMS)
    assert caught.value.path == ("if", "cond")


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ name.__class__.__base__.__subclasses__() }}",
        "{{ name['__class__'].x }}",
        "{{ (name|attr('__class__')).x }}",
        "{{ '{0.__class__.__mro__}'.format(name) }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ self.__init__.__globals__ }}",
        "{% set x = layers.append(9) %}",
        "{% include 'a' %}",
        "{% import 'os' as os %}",
    ],
)
def test_templates_reach_values_only(text: str) -> None:
    with pytest.raises(TemplateProblem):
        render(text, PARAMS)
    assert PARAMS["layers"] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "{{ ",
        "{{ }}",
        "{{ n | nope }}",
        "{{ 1/0 }}",
        "{{ n() }}",
        "{{ nobody.x }}",
        "{% for %}",
        "{{ range(10**9) }}",
        "{{ 10.0**400 }}",
        "{{ n|xmlattr }}",
        "{{ n|dictsort }}",
        "{{ name|truncate(-1) }}",
        "{{ n|wordwrap(0) }}",
        "{{ name|indent(10**13) }}",
        "{{ " + "(" * 300 + "n" + ")" * 300 + " }}",
        "{{ " + "[" * 220 + "n" + "]" * 220 + " }}",
    ],
)
def test_a_template_that_cannot_be_rendered_is_a_problem_at_its_path(text: str) -> None:
    with pytest.raises(TemplateProblem, match="the template can't be rendered") as caught:
        render({"run": [text]}, PARAMS)
    assert caught.value.path == ("run", 0)


@pytest.mark.parametrize("text", ["{{ 9**(9**9) }}", "{{ 'x' * 10**10 }}"])
def test_a_template_cannot_keep_the_machine_busy(text: str) -> None:
    code = f"""
import resource, time
from polylocal.polyaxonfile import templating
most = int(time.process_time()) + 2  # importing takes what it takes
resource.setrlimit(resource.RLIMIT_CPU, (most, most))
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
problems = []
templating.render({text!r}, {{}}, (), problems)
assert problems
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100).returncode == 0


WORDS = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    " n ",
    "|",
    "for",
    "if",
    "end",
    "(",
    ")",
    "'",
    "upper",
    "in",
    ".",
    "+",
    "1",
]


@settings(max_examples=inputs(150))
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=10).map("".join))
def test_any_text_is_rendered_or_a_template_problem(text: str) -> None:
    try:
        render({"a": text}, PARAMS)
    except TemplateProblem as error:
        if error.path != ("a",):
            raise


@settings(max_examples=inputs(100))
@given(st.text(st.characters(exclude_characters="{")))
def test_a_text_without_braces_stays_as_it_is(text: str) -> None:
    assert render(text, PARAMS) == text


# -- undefined names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ lr }}", ["lr"]),
        ("x {{ a }} {{ b }} {{ known }}", ["a", "b"]),
        ("{{ a | upper }}", ["a"]),
        ("{{ known.inner }}", ["inner"]),
        ("{% for x in many %}{{ x }}{% endfor %}", ["many"]),
        ("{{ known and other }}", ["other"]),
        ("{% if known %}{{ other }}{% endif %}", ["other"]),
        ("{{ a | default(1) }}", []),
        ("{{ a | d('x') }}", []),
        ("{% if a %}1{% endif %}", []),
        ("{% if a is defined and b %}1{% endif %}", []),
        ("{{ a or known }}", []),
        ("{{ 1 if not a else 2 }}", []),
        ("{% for x in [1] %}{{ x }}{{ loop.index }}{% endfor %}", []),
        ("{% set a = 1 %}{{ a }}", []),
        ("no template of lr", []),
    ],
)
def test_undefined_names_are_reported(text: str, names: list[str]) -> None:
    rendering = templating.Rendering([])
    rendering.render({"cmd": text}, {"known": {"a": 1}}, ("run",))
    assert rendering.problems == []
    assert rendering.undefined == [(("run", "cmd"), name) for name in names]


def test_a_name_is_reported_once_for_each_place() -> None:
    rendering = templating.Rendering([])
    rendering.render(["{{ a }}{{ a }}", {"for": {"len": 3, "do": "{{ a }}"}}], {}, ())
    assert rendering.undefined == [((0,), "a"), ((1, "for", "do"), "a")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("echo ${#X} {{ a }}", "echo ${#X} 1"),
        ("${#X[@]} {{ '${#Y}' }} {# a comment #}{{ a }}", "${#X[@]} ${#Y} 1"),
        ("{% raw %}{{ ${#X} }}{% endraw %}{{ a }}", "{{ ${#X} }}1"),
        ("\ue000 ${#X} {{ a }}", "\ue000 ${#X} 1"),
    ],
)
def test_the_length_of_a_shells_variable_begins_no_comment(text: str, shown: str) -> None:
    assert render(text, {"a": 1}) == shown
