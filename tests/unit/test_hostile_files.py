"""Hostile polyaxonfiles: each becomes a Specification or InvalidPolyaxonfile within seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import Specification, expressions, parse
from polylocal.statuses import POLYAXON_KINDS, Kind

Json = dict[str, Any]
MAX_CPU_S = 10.0  # of CPU time, so that other processes don't count; the slowest file takes less than two


@contextmanager
def limited_cpu() -> Iterator[None]:
    """The code inside must use little CPU time."""
    began = time.process_time()
    yield
    taken = time.process_time() - began
    assert taken < MAX_CPU_S, f"it took {taken:.1f} s"


def job(cmd: Any = "x", **sections: Any) -> Json:
    return {"version": 1, "kind": "job", "build": {"image": "b"}, "run": {"cmd": cmd}, **sections}


def group(matrix: Json, **search: Any) -> Json:
    return {**job(), "kind": "group", "hptuning": {"matrix": matrix, **search}}


def problems(source: object, kind: Kind = Kind.JOB) -> list[str]:
    with pytest.raises(InvalidPolyaxonfile) as caught:
        parse(source, kind)
    return caught.value.problems


# -- templates ------------------------------------------------------------------------------------------------------

LOOPS = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
TEMPLATES = {
    "loops in loops": LOOPS + "{% endfor %}" * 3,
    "loops in loops that print": LOOPS + "{{ a }}" + "{% endfor %}" * 3,
    "a loop with a condition": "{% for a in range(9999) if a in range(9999)|list %}{% endfor %}" * 20,
    "recursive": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a macro": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that doubles": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(30) }}",
    "namespace": "{% set n = namespace(a='x') %}{% for i in range(40) %}{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a }}",
    "doubling": "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "doubling a sum": "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "doubling a list": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}",
    "comparing doubles": "{% set a = [1] %}{% set b = [1] %}"
    + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40
    + "{{ a == b }}",
    "a key of doubles": "{% set a = (1,) %}" + "{% set a = (a, a) %}" * 40 + "{{ {a: 1} }}",
    "sorting doubles": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ [a, a]|sort }}",
    "JSON of doubles": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a|tojson }}",
    "a width": "{{ '%999999999d' % 1 }}",
    "a width from outside": "{{ '%*d' % (999999999, 1) }}",
    "a precision": "{{ '%.999999999f' % 1.0 }}",
    "a width with a filter": "{{ '%999999999d'|format(1) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "indent": "{{ 'a'|indent(10**9) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10**9) }}",
    "format": "{{ '{:>999999999}'.format(1) }}",
    "format_map": "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "a product of texts": "{{ 'x' * 10**9 }}",
    "a product of lists": "{{ [0] * 10**9 }}",
    "a product of products": "{{ ('x' * 90000) * 90000 }}",
    "a power": "{{ 9**(9**9) }}",
    "a power of powers": "{{ ((9**999)**9)**9 }}",
    "products of powers": "{{ 2**4000 * 2**4000 * 3 }}",
    "a sum of lists": "{{ ([[1]] * 90000)|sum(start=[]) }}",
    "rounding far": "{{ 1|round(-10**9) }}",
    "rounding far up": "{{ 1|round(10**9, 'ceil') }}",
    "lipsum": "{{ lipsum(n=10**5) }}",
    "cycler": "{{ cycler(1).next() }}",
    "joiner": "{{ joiner()() }}",
    "range": "{{ range(10**9)|list }}",
    "batch": "{{ [1]|batch(10**9, 0)|list }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "replace": "{% set a = 'x' * 90000 %}{{ a|replace('x', a) }}",
    "replace nothing": "{% set a = 'x' * 90000 %}{{ a|replace('', a) }}",
    "the method replace": "{% set a = 'x' * 90000 %}{{ a.replace('x', a) }}",
    "join": "{% set a = 'x' * 90000 %}{{ ([a] * 90000)|join }}",
    "join with much": "{{ ([1] * 90000)|join('x' * 90000) }}",
    "attr": "{{ ''|attr('__class__') }}",
    "map of attributes": "{{ ['']|map(attribute='__class__')|list }}",
    "sum of attributes": "{{ ['']|sum(attribute='__class__') }}",
    "sort by attributes": "{{ ['', '']|sort(attribute='__class__') }}",
    "groupby": "{{ ['']|groupby('__class__') }}",
    "map of a filter that is none of ours": "{{ ['x']|map('center', 10**9)|list }}",
    "a class": "{{ ''['__class__'] }}",
    "a frame": "{{ range.__self__ }}",
    "urlize": "{{ ('<' * 90000)|urlize }}",
    "wordwrap": "{{ ('x' * 90000)|wordwrap(1) }}",
    "a large literal": "{{ " + "9" * 19_900 + " }}",
    "a large literal with a base": "{{ 0x" + "f" * 19_900 + " }}",
    "a long sum": "{{ " + "+".join(["1"] * 9900) + " }}",
    "a chain of not": "{{ " + "not " * 4900 + "1 }}",
    "a chain of signs": "{{ " + "-" * 19_000 + "1 }}",
    "parentheses": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "lists in lists": "{{ " + "[" * 9000 + "1" + "]" * 9000 + " }}",
    "a chain of filters": "{{ 1" + "|int" * 4900 + " }}",
    "a chain of if": "{{ " + "1 if 0 else " * 1500 + "1 }}",
    "loops nested deep": "{% for a in [1] %}" * 500 + "{% endfor %}" * 500,
    "names that look alike": "{{ ''.__\uff43lass__ }}",
    "a block": "{% block a %}{% endblock %}",
    "include": "{% include 'a' %}",
    "import": "{% import 'os' as os %}",
    "call": "{% call range(1) %}{% endcall %}",
    "filter block": "{% filter center(10**9) %}a{% endfilter %}",
    "do and with": "{% with a = 1 %}{{ a }}{% endwith %}",
    "a set block": "{% set a %}{{ 1 }}{% endset %}",
    "opened and never closed": "{{ " * 6000,
    "comments that never end": "{{ 1 }}" + "{#" * 9000,
    "raw that never ends": "{% raw %}" * 2000,
}


@pytest.mark.parametrize("what", TEMPLATES)
def test_a_hostile_template_is_a_problem_with_its_path(what: str) -> None:
    with limited_cpu():
        found = problems(job(TEMPLATES[what]))
    assert found[0].startswith("run.cmd: the template can't be rendered: ")
    assert len(found[0]) < 700


@pytest.mark.parametrize("what", [what for what in TEMPLATES if TEMPLATES[what].count("{") == 2])
def test_a_hostile_condition_is_a_problem_with_its_path(what: str) -> None:
    condition = TEMPLATES[what].removeprefix("{{").removesuffix("}}")
    found = problems(job({"if": {"cond": condition, "do": "x"}}))
    assert found[0].startswith("run.cmd.if.cond: the condition can't be read: ")


PARAMS: Json = {"lr": 0.1, "n": 3, "name": "adam", "on": True, "layers": [1, 2, 2], "map": {"a": 1, "b": "x"}}
TAKEN = [
    "{{ lr * 10 }}", "{{ n ** 2 + n // 2 - n % 2 }}", "{{ -n }}", "{{ 'x' * n }}", "{{ name ~ n }}", "{{ n / 4 }}",
    "{{ map.a }}", "{{ map['b'] }}", "{{ layers[0] }}", "{{ layers[-1] }}", "{{ layers[1:] }}", "{{ layers[9] }}|",
    "{{ map.nobody }}|", "{{ nobody|default(5) }}", "{{ nobody|default('x', true) }}", "{{ lr|round(3) }}",
    "{{ (lr * 3)|int }}", "{{ '3'|float }}", "{{ layers|join(',') }}", "{{ layers|length }}", "{{ name|upper }}",
    "{{ name|replace('a', 'b') }}", "{{ layers|first }}", "{{ layers|last }}", "{{ layers|min }}", "{{ layers|max }}",
    "{{ layers|sum }}", "{{ layers|sort(reverse=true) }}", "{{ layers|unique|list }}", "{{ -3|abs }}",
    "{{ map|tojson }}",
    "{{ map|items|list }}", "{{ layers|map('string')|join('-') }}", "{{ 'a b'.split() }}", "{{ name.upper() }}",
    "{{ name.startswith('a') }}", "{{ map.keys()|list }}", "{{ map.get('z', 4) }}", "{{ '%02d-%.3f' % (n, lr) }}",
    "{{ '%s' | format(name) }}", "{{ 'yes' if on else 'no' }}", "{{ 'yes' if not on }}|", "{{ n is odd }}",
    "{{ nobody is defined }}", "{{ n in layers }}", "{{ 1 < n <= 3 }}", "{{ on and name or 5 }}", "{{ (1, 2) }}",
    "{{ {'a': n}['a'] }}", "{% for l in layers %}{{ loop.index }}:{{ l }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for k, v in map.items() %}{{ k }}={{ v }} {% endfor %}", "{% for x in [] %}{% else %}none{% endfor %}",
    "{% for l in layers if l > 1 %}{{ l }}{% endfor %}", "{% for i in range(n) -%} {{ i }} {%- endfor %}",
    "{% if n > 5 %}a{% elif n > 2 %}b{% else %}c{% endif %}", "{% set a = n + 1 %}{{ a }}{# a word #}",
    "{% for l in layers %}{% set n = l %}{% endfor %}{{ n }}", "{% raw %}{{ n }}{% endraw %}",
    "{{ name|title }}{{ 1 }}",
    "{{ range(3) }}", "{{ ' x '|trim }}", "{{ [3, 1]|reverse|list }}", "{{ name|truncate(3) }}", "{{ nobody }}{{ n }}",
]  # fmt: skip


@pytest.mark.parametrize("text", TAKEN)
def test_ordinary_templates_render_as_in_jinja(text: str) -> None:
    jinja = ImmutableSandboxedEnvironment().from_string(text).render(PARAMS)
    assert expressions.render(text, PARAMS, expressions.Budget()) == jinja


NAMES_OF = st.sampled_from([*PARAMS, "nobody", "1", "2.5", "'a'", "[1, 2]", "{'k': 1}", "true", "none", "(1,)"])
FORMS = [
    "{} + {}",
    "{} * {}",
    "{} ~ {}",
    "{} % {}",
    "{} - {}",
    "{} / {}",
    "{} // {}",
    "{} ** {}",
    "{} == {}",
    "{} < {}",
]
FORMS += ["{} in {}", "{} and {}", "{} or {}", "{} if {}", "[{}, {}]", "({})[{}]", "({})|default({})", "({})|join({})"]
FORMS += ["not {}", "-{}", "({})|list", "({})|int", "({})|length", "({})|sum", "({})|sort", "({})|round", "({}).a"]
FORMS += ["({})|upper", "({})|first", "({}) is number", "({})|replace('a', {})", "({})|max", "({})|string", "({})|abs"]
EXPRESSIONS = st.recursive(
    NAMES_OF,
    lambda inner: st.tuples(st.sampled_from(FORMS), inner, inner).map(lambda made: f"({made[0]})".format(*made[1:])),
    max_leaves=6,
)
JINJA = ImmutableSandboxedEnvironment(optimized=False)


@pytest.mark.slow
@given(EXPRESSIONS)
def test_any_expression_renders_as_in_jinja_or_is_refused(expression: str) -> None:
    text = "{{ " + expression + " }}"
    try:
        mine = expressions.render(text, PARAMS, expressions.Budget())
    except Exception:  # both sorts of error are the template's fault
        return
    assert mine == JINJA.from_string(text).render(PARAMS)


# -- whole files ----------------------------------------------------------------------------------------------------

MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9))
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
FILES: dict[str, Callable[[], object]] = {
    "many values in YAML": lambda: "a: [" + "1," * 490_000 + "1]",
    "many values in JSON": lambda: '{"a": [' + "1," * 490_000 + "1]}",
    "many values in Python": lambda: "{'a': [" + "1," * 490_000 + "1]}",
    "many lines": lambda: "- a\n" * 240_000,
    "one long text": lambda: "a: '" + "x'' " * 240_000 + "'",
    "one long comment": lambda: "#" * 990_000,
    "laughs": lambda: LAUGHS,
    "merges": lambda: MERGES,
    "a base for many": lambda: (
        "b: &b {" + ",".join(f"k{n}: 1" for n in range(900))
        + "}\n"
        + "".join(f"m{n}: {{<<: *b}}\n" for n in range(900))
    ),
    "a merge of itself": lambda: "a: &a {<<: *a}",
    "an alias of itself": lambda: "&a [*a]",
    "colliding keys in YAML": lambda: "a:\n" + "".join(f"  {n * (2**61 - 1)}: 1\n" for n in range(20_000)),
    "colliding keys in Python": lambda: (
        "{'a': {" + ",".join(f"{n * (2**61 - 1)}: 1" for n in range(20_000)) + "}}"
    ),
    "lists in lists, block": lambda: "- " * 400_000,
    "lists in lists, flow": lambda: "[" * 900_000,
    "mappings in mappings": lambda: "{a: " * 200_000,
    "keys in keys": lambda: "? " * 400_000,
    "lists in lists, closed": lambda: "[" * 100_000 + "]" * 100_000,
    "signs": lambda: "[" + "-" * 900_000 + "1]",
    "sums": lambda: "[" + "+".join(["1"] * 400_000) + "]",
    "a large number": lambda: "a: " + "9" * 900_000,
    "a large number with a base": lambda: "a: 0x" + "f" * 900_000,
    "a large number in JSON": lambda: '{"a": ' + "9" * 900_000 + "}",
    "a large float": lambda: "a: 1" + "0" * 900_000 + ".0",
    "a large exponent": lambda: "a: 1.0e+999999999",
    "a number with colons": lambda: job(params={"a": 1}, x="1:1:1:1"),
    "a tag of Python's": lambda: "a: !!python/object/apply:os.system [id]",
    "a name of Python's": lambda: "a: !!python/name:os.system ''",
    "a date that is none": lambda: "a: !!timestamp 9999-99-99",
    "large texts in an object": lambda: job(params={str(n): "x" * 300 for n in range(20_000)}),
    "a 16 MiB text in an object": lambda: job(params={"a": "x" * (16 << 20)}),
    "many unknown keys": lambda: {**job(), **{f"k{n}": 1 for n in range(20_000)}},
    "many templates": lambda: job(["{{ " + "+".join(["n"] * 500) + " }}"] * 900),
    "many templates that differ": lambda: job([f"{{{{ n + {n} }}}}" for n in range(20_000)], params={"n": 1}),
    "a large value, often": lambda: job("{{ x }}" * 2800, params={"x": "y" * 900_000}),
    "a large list, often": lambda: job("{{ x }}" * 2800, params={"x": list(range(40_000))}),
    "a large list, compared often": lambda: job("{{ x == x + [1] }}" * 900, params={"x": list(range(40_000))}),
    "for in for": lambda: job({"for": {"len": 10_000, "do": {"for": {"len": 10_000, "do": "x"}}}}),
    "for with templates": lambda: job({"for": {"len": 10_000, "do": "{{ index }} " * 1500}}),
    "for with many values": lambda: job({"for": {"len": 10_000, "do": ["x"] * 20_000}}),
    "for with a large index": lambda: job({"for": {"len": 10**30, "do": "x"}}),
    "a matrix of 10**12": lambda: group({"a": {"linspace": [0, 1, 10**12]}}),
    "a matrix of small steps": lambda: group({"a": {"range": [0, 1, 1e-12]}}),
    "a matrix of no steps": lambda: group({"a": {"range": [1e16, 1e16 + 10, 1e-9]}}),
    "a matrix of large numbers": lambda: group({"a": {"range": [0, 10**400, 1]}}),
    "a matrix of large texts": lambda: group({"a": {"range": "0:" + "9" * 400 + ":1"}}),
    "a matrix of powers": lambda: group({"a": {"logspace": [0, 9e99, 10]}}),
    "many parameters": lambda: group({f"p{n}": {"range": [0, 100_000, 1]} for n in range(5000)}),
    "many parameters, at random": lambda: group(
        {f"p{n}": {"linspace": [0, 1, 100_000]} for n in range(8000)}, random_search={"n_experiments": 2}
    ),
    "many probabilities": lambda: group({"a": {"pvalues": [[n, 1e-9] for n in range(20_000)]}}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", FILES)
def test_a_hostile_file_is_answered_soon(what: str) -> None:
    source = FILES[what]()
    kind = Kind.GROUP if isinstance(source, dict) and source["kind"] == "group" else Kind.JOB
    with limited_cpu():
        try:
            found: object = parse(source, kind)
        except InvalidPolyaxonfile as error:
            found = error
    if isinstance(found, Specification):
        assert json.dumps(found.config, allow_nan=False)
    else:
        assert len(str(found)) < 4_000_000


@pytest.mark.slow
def test_no_hostile_file_takes_much_memory() -> None:
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
sys.path.insert(0, 'tests/unit')
import test_hostile_files as hostile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for what in hostile.FILES:
    source = hostile.FILES[what]()
    try:
        hostile.parse(source, hostile.Kind.JOB)
    except hostile.InvalidPolyaxonfile:
        source = None
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400  # MiB


# -- random files ---------------------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 10**6), st.floats(), st.text(max_size=8),
    st.sampled_from(["{{ x }}", "{{ x * 9 }}", "{% for i in x %}{{ i }}{% endfor %}", "{{", "1:5:1", "job", "~"]),
    st.sampled_from(["!!int x", "&a *a", "2018-01-01", "${X}", "a:b", "{{ '%9999d' % 1 }}", "\x00", "\ud800", "true"]),
    EXPRESSIONS.map(lambda text: "{{ " + text + " }}"),
)  # fmt: skip
ANY = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
LOOPS_OF = st.fixed_dictionaries({"for": st.fixed_dictionaries({"len": ANY, "do": ANY}, optional={"index": ANY})})
BRANCHES = st.fixed_dictionaries({"if": st.fixed_dictionaries({"cond": ANY, "do": ANY}, optional={"else_do": ANY})})
OPTIONS = (
    "values pvalues range linspace logspace geomspace uniform quniform loguniform normal qnormal lognormal".split()
)
NUMBERS = st.lists(st.integers(-5, 10**6) | st.floats() | st.integers(), min_size=1, max_size=4)
MATRICES = st.dictionaries(
    st.sampled_from(["x", "y", "lr"]),
    st.dictionaries(st.sampled_from(OPTIONS), NUMBERS | NUMBERS.map(lambda n: ":".join(map(str, n))) | ANY, max_size=2),
    max_size=3,
)
SEARCHES = st.fixed_dictionaries(
    {"matrix": MATRICES | ANY},
    optional={
        "concurrency": ANY,
        "random_search": st.fixed_dictionaries({"n_experiments": ANY}) | ANY,
        "hyperband": ANY | st.fixed_dictionaries({"max_iter": ANY, "eta": ANY, "resource": ANY, "metric": ANY}),
        "bo": ANY,
        "early_stopping": ANY,
        "seed": ANY,
    },
)
VALUES = ANY | LOOPS_OF | BRANCHES
RUNS = st.fixed_dictionaries({"cmd": VALUES | st.lists(st.text(max_size=5) | VALUES, max_size=3)})
BUILDS = st.fixed_dictionaries(
    {"image": st.just("busybox") | VALUES}, optional={"build_steps": VALUES, "env_vars": VALUES}
)
FILES_OF = st.fixed_dictionaries(
    {
        "version": st.just(1) | st.just(1) | ANY,
        "kind": st.sampled_from(["job", "experiment", "group", "build", "notebook", "tensorboard"]) | ANY,
        "build": BUILDS | VALUES,
        "run": RUNS | VALUES,
    },
    optional={
        "params": st.dictionaries(st.sampled_from(["x", "y", "n"]), ANY, max_size=3) | ANY,
        "hptuning": SEARCHES,
        "environment": st.fixed_dictionaries(
            {}, optional={"resources": ANY, "node_selector": ANY, "max_restarts": ANY}
        ),
        "inputs": st.lists(st.fixed_dictionaries({"name": ANY}, optional={"default": ANY, "is_flag": ANY}), max_size=2),
        "tags": ANY,
        "name": ANY,
        "description": ANY,
        "logging": ANY,
        "declarations": ANY,
    },
)


def _as_json(data: object) -> str:
    return json.dumps(data)


def _as_yaml(data: object) -> str:
    return str(yaml.safe_dump(data))


NOTATIONS: list[Callable[[object], object]] = [
    lambda data: data,
    _as_json,
    repr,
    _as_yaml,
    lambda data: [data, {"x": 1}],
]


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    data=FILES_OF, notation=st.sampled_from(NOTATIONS), kind=st.sampled_from(list(POLYAXON_KINDS)), own=st.booleans()
)
def test_any_file_is_a_specification_or_invalid(
    data: Json, notation: Callable[[object], object], kind: Kind, own: bool
) -> None:
    if own and data["kind"] in list(POLYAXON_KINDS):
        kind = Kind(data["kind"])
    try:
        source = notation(data)
    except (yaml.YAMLError, ValueError):  # values that the notation can't express
        return
    with limited_cpu():
        try:
            found = parse(source, kind)
        except InvalidPolyaxonfile:
            return
    assert json.dumps(found.config, allow_nan=False).encode()
    assert found.file.kind == kind


TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "- ",
    "\n",
    "  ",
    "? ",
    "&a ",
    "*a",
    "<<: ",
    "'",
    '"',
    "|",
    ">",
    "!!int ",
    "!!map ",
]
TOKENS += ["#", "%", "@", "kind", "version", "job", "1", "0x", "1e9", ".inf", "~", "{{ ", " }}", "\t", "---\n", "...\n"]


@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=2), max_size=25).map("".join))
def test_any_text_is_a_specification_or_invalid(text: str) -> None:
    with limited_cpu(), suppress(InvalidPolyaxonfile):
        parse(text, Kind.JOB)
