"""parse(): a specification, or all problems of the file with their lines and paths."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import build, inputs, job

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import Specification, parse
from polylocal.polyaxonfile.specification import MODELS
from polylocal.statuses import Kind


def problems(source: object, kind: Kind = Kind.JOB, params: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(InvalidPolyaxonfile) as caught:
        parse(source, kind, params)
    return caught.value.problems


def command(cmd: str, **sections: Any) -> str | None:
    return parse(job(cmd, **sections), Kind.JOB).command


JOB = """\
version: 1
kind: job
build:
  image: a
run:
  cmd: x
"""

# -- results -----------------------------------------------------------------------------------------------------


def test_the_config_is_nested_and_without_nulls() -> None:
    source = job("x", "a", tags=None, environment={"resources": {"cpu": {"limits": 1}}})
    wanted = {
        "run": {"cmd": "x"},
        "build": {"image": "a"},
        "environment": {"resources": {"cpu": {"limits": 1.0}}},
        "version": 1,
        "kind": "job",
    }
    assert parse(source, Kind.JOB).config == wanted


def test_the_content_is_the_text_as_it_was_sent() -> None:
    assert parse(f"# mine\n{JOB}", Kind.JOB).content == f"# mine\n{JOB}"


def test_the_content_of_an_object_is_its_json() -> None:
    assert json.loads(parse(job("{{ a }} x", params={"a": 1}), Kind.JOB).content) == job("{{ a }} x", params={"a": 1})


def test_a_flat_build_equals_the_nested_one() -> None:
    flat = {"version": 1, "kind": "build", "image": "a", "build_steps": ["x"], "tags": ["t"], "nocache": True}
    nested = {**build("a", build_steps=["x"], nocache=True), "tags": ["t"]}
    assert parse(flat, Kind.BUILD).config == parse(nested, Kind.BUILD).config
    assert parse(flat, Kind.BUILD).build.image == "a"


def test_the_build_of_a_job_as_a_file_of_its_own() -> None:
    found = parse(job("x", "a", build={"image": "a", "commit": "0123", "env_vars": [["A", 1]]}), Kind.JOB)
    assert found.build_config() == {"build": {"image": "a", "env_vars": [["A", 1]]}, "version": 1, "kind": "build"}


def test_keys_without_effect_are_named() -> None:
    environment = {"node_selector": {"a": "b"}, "tolerations": [], "resources": {"tpu": {"limits": 1}}}
    found = parse(job(environment=environment, backend="native"), Kind.JOB)
    assert found.ignored == ["environment.node_selector", "environment.resources.tpu", "backend"]


def test_a_plain_job_has_defaults() -> None:
    found = parse(job(), Kind.JOB)
    assert (found.log_level, found.params, found.ignored, found.environment.resources) == ("INFO", {}, [], None)


def test_a_stored_config_is_not_rendered_again() -> None:
    config = {**parse(job("x"), Kind.JOB).config, "run": {"cmd": "echo '{{ a }}'"}}
    assert Specification(Kind.JOB, "", config).command == "echo '{{ a }}'"


# -- templates and inputs ----------------------------------------------------------------------------------------


def test_params_reach_every_section_but_their_own() -> None:
    source = job("--lr={{ lr }}", "a:{{ tag }}", params={"lr": 0.1, "tag": "1-py3", "raw": "{{ lr }}"})
    found = parse(source, Kind.JOB)
    assert (found.command, found.build.image) == ("--lr=0.1", "a:1-py3")
    assert found.params["raw"] == "{{ lr }}"


def test_params_of_the_caller_override_those_of_the_file() -> None:
    found = parse(job("{{ a }} {{ b }}", params={"a": 1, "b": 1}), Kind.JOB, {"b": 2})
    assert found.command == "1 2"
    assert found.params == {"a": 1, "b": 2}


def test_an_env_var_keeps_the_type_of_its_param() -> None:
    source = job(build={"image": "a", "env_vars": [["LR", "{{ lr }}"], ["B", True]]}, params={"lr": 0.1})
    assert parse(source, Kind.JOB).build.env_vars == [["LR", 0.1], ["B", True]]


def test_a_command_may_be_repeated() -> None:
    source = {**job(), "run": {"cmd": {"for": {"len": 2, "index": "i", "do": "echo {{ i }}"}}}}
    assert parse(source, Kind.JOB).command == ["echo 0", "echo 1"]


@pytest.mark.parametrize(
    ("port", "params", "line"),
    [
        ({"name": "a"}, {"a": 5}, "x 5"),
        ({"name": "a", "default": 7, "is_optional": True}, {}, "x 7"),
        ({"name": "a", "default": 7, "is_optional": True}, {"a": 5}, "x 5"),
        ({"name": "a", "is_flag": True}, {"a": True}, "x --a"),
        ({"name": "a", "is_flag": True}, {"a": False}, "x "),
    ],
)
def test_inputs(port: dict[str, Any], params: dict[str, Any], line: str) -> None:
    assert command("x {{ a }}", inputs=[port], params=params) == line


def test_an_input_without_a_param_is_refused() -> None:
    found = problems(job(inputs=[{"name": "a"}]))
    assert found == ["inputs.0: Input a is required, no param was passed."]


def test_a_param_that_no_input_declares_is_refused() -> None:
    (found,) = problems(job(inputs=[{"name": "a"}], params={"a": 1, "b": 2}))
    assert "Received unexpected params" in found
    assert "b" in found


# -- refusals ----------------------------------------------------------------------------------------------------


def test_lines_and_paths_and_all_problems_at_once() -> None:
    text = JOB.replace("image: a", "image: a b\n  foo: 1") + "environment:\n  resources:\n    cpu: {limits: -1}\n"
    assert set(problems(text)) == {
        "line 4, build.image: Invalid docker image `a b`",
        "line 5, build.foo: Unknown field.",
        "line 10, environment.resources.cpu.limits: Input should be greater than or equal to 0",
    }


@pytest.mark.parametrize(
    ("resource", "amount", "unit"), [("cpu", "500m", "cores"), ("memory", "2Gi", "MiB"), ("gpu", "all", "GPUs")]
)
def test_an_amount_with_a_unit_is_refused_with_its_unit(resource: str, amount: str, unit: str) -> None:
    source = job(environment={"resources": {resource: {"limits": amount}}})
    place = f"environment.resources.{resource}.limits"
    assert problems(source) == [f"{place}: Input should be a valid number of {unit}, without a unit"]


def test_an_amount_alone_is_refused_with_the_right_form() -> None:
    found = problems(job(environment={"resources": {"gpu": 1}}))
    assert found == ["environment.resources.gpu: Input should be a mapping, as in `{limits: 1}`"]


@pytest.mark.parametrize("section", ["run", "build", "environment", "params"])
def test_a_section_of_the_wrong_type_is_refused_in_terms_of_yaml(section: str) -> None:
    assert problems(job(**{section: [1]})) == [f"{section}: Input should be a mapping"]


def test_objects_have_paths_and_no_lines() -> None:
    assert problems({**job(), "foo": 1}) == ["foo: Unknown field."]


@pytest.mark.parametrize("key", ["foo", "ttl", "declarations", "hptuning", "model"])
def test_an_unknown_key_is_named(key: str) -> None:
    assert problems(f"{JOB}{key}: 1\n") == [f"line 7, {key}: Unknown field."]


@pytest.mark.parametrize("section", ["run", "build"])
def test_a_missing_section_is_named(section: str) -> None:
    source = job()
    del source[section]
    assert problems(source) == [f"{section}: {section} is a required section for a valid Polyaxonfile of kind `job`"]


def test_a_missing_version_and_a_missing_kind() -> None:
    found = problems({"build": {"image": "a"}})
    assert found[0] == "The Polyaxonfile `version` must be specified."
    assert "`kind` must be specified" in found[1]


@pytest.mark.parametrize(("source", "kind"), [(build(), Kind.JOB), (job(), Kind.BUILD)])
def test_the_kind_must_be_that_of_the_endpoint(source: dict[str, Any], kind: Kind) -> None:
    assert problems(source, kind) == [f"kind: Must be equal to {kind}."]


def test_a_template_is_pointed_at() -> None:
    (found,) = problems(JOB.replace("cmd: x", "cmd: '{{ 1 | nope }}'"))
    assert found.startswith("line 6, run.cmd: the template can't be rendered: ")


def test_problems_of_templates_are_reported_with_the_others() -> None:
    found = problems(JOB.replace("cmd: x", "cmd: '{{ 1 | nope }}'") + "foo: 1\n")
    assert [problem.partition(":")[0] for problem in found] == ["line 6, run.cmd", "line 7, foo"]


def test_a_missing_version_hides_no_other_problem() -> None:
    found = problems({**{key: value for key, value in job().items() if key != "version"}, "foo": 1})
    assert found == ["The Polyaxonfile `version` must be specified.", "foo: Unknown field."]


def test_a_flat_build_has_the_lines_and_paths_that_were_written() -> None:
    found = problems("version: 1\nkind: build\nimage: a b\nfoo: 1\n", Kind.BUILD)
    assert found == ["line 3, image: Invalid docker image `a b`", "line 4, foo: Unknown field."]


@pytest.mark.parametrize(
    "sections",
    [
        {"inputs": 5},
        {"inputs": [{"name": [1]}]},
        {"inputs": [{"name": "a"}], "params": {1: 1, "b": 2}},
        {"environment": []},
        {"build": []},
        {"params": [1]},
    ],
)
@pytest.mark.parametrize("params", [None, {"a": 1}])
def test_wrong_shapes_are_problems(sections: dict[str, Any], params: dict[str, Any] | None) -> None:
    assert problems({**job(), **sections}, params=params)


@pytest.mark.parametrize("depth", [300, 600, 900])
def test_a_deep_file_is_read_or_refused(depth: int) -> None:
    text = json.dumps(job(environment={"affinity": {"a": "@"}})).replace('"@"', "[" * depth + "]" * depth)
    try:
        assert parse(text, Kind.JOB)
    except InvalidPolyaxonfile as error:
        assert error.problems  # noqa: PT017


def test_a_file_that_contains_itself_is_refused() -> None:
    assert problems(f"{JOB}environment: &e\n  affinity: *e\n")


def test_aliases_cannot_keep_the_machine_busy() -> None:
    levels = "".join(f"    x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 10))
    text = f"{JOB}environment:\n  affinity:\n    x0: &x0 [a, a]\n{levels}"
    code = f"""
import resource, time
from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import parse
so_far = int(time.process_time()) + 1  # seconds that the imports took: they are not what is measured
resource.setrlimit(resource.RLIMIT_CPU, (so_far + 2, so_far + 2))
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    parse({text!r}, "job")
except InvalidPolyaxonfile:
    pass
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0


@pytest.mark.parametrize(
    "value", ["2018-01-01", "2018-01-01 10:00:00", ".nan", ".inf", "!!binary YQ==", "!!set {a}", "!!binary /w=="]
)
@pytest.mark.parametrize("place", ["params: {{a: [{}]}}", "environment: {{affinity: {{a: {}}}}}"])
def test_accepted_files_can_be_stored_and_sent_as_json(place: str, value: str) -> None:
    try:
        found = parse(f"{JOB}{place.format(value)}\n", Kind.JOB)
    except InvalidPolyaxonfile:
        return
    assert json.loads(json.dumps(found.config, allow_nan=False)) == found.config


# -- random input ------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    ["version", "kind", "build", "run", "cmd", "image", "params", "inputs", "name", "tags", "environment", "resources"]
    + ["cpu", "limits", "env_vars", "build_steps", "for", "if", "len", "do", "cond", "logging", "level", "labels", "x"]
)
LEAVES = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=4)
LEAVES |= st.sampled_from(["{{ x }}", "{{ x|xmlattr }}", "{% if x %}", "{{", "a:b", "job", "build", "1"])
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))
bounded = settings(max_examples=inputs(150), suppress_health_check=[HealthCheck.too_slow])


def parsed(source: object, kind: Kind) -> Specification | None:
    try:
        return parse(source, kind)
    except InvalidPolyaxonfile as error:
        assert error.problems  # noqa: PT017
        return None


@bounded
@given(st.dictionaries(KEYS, ANY, max_size=6), st.sampled_from(Kind))
def test_any_data_is_parsed_or_invalid(sections: dict[str, Any], kind: Kind) -> None:
    parsed(sections, kind)
    parsed({**(job() if kind is Kind.JOB else build()), **sections, "version": 1, "kind": str(kind)}, kind)


@bounded
@given(st.text(max_size=40), st.sampled_from(Kind))
def test_any_text_is_parsed_or_invalid(text: str, kind: Kind) -> None:
    parsed(text, kind)
    parsed(f"{JOB}description: {text}\n", Kind.JOB)


WORD = st.text("abc1.- \n'\"é", min_size=1, max_size=6).filter(str.strip)
BUILDS = st.fixed_dictionaries(
    {"image": st.sampled_from(["a", "a:1", 3.6, "h:1/a:2"])},
    optional={
        "build_steps": st.lists(WORD | st.integers(), max_size=2),
        "env_vars": st.lists(st.tuples(WORD, LEAVES.filter(lambda leaf: leaf == leaf)).map(list), max_size=2),
        "nocache": st.booleans(),
        "branch": WORD,
    },
)
JOBS = st.fixed_dictionaries(
    {"version": st.just(1), "kind": st.just("job"), "build": BUILDS, "run": st.builds(lambda cmd: {"cmd": cmd}, WORD)},
    optional={
        "tags": st.lists(WORD, max_size=3) | WORD,
        "params": st.dictionaries(WORD, st.integers() | st.lists(WORD), max_size=2),
        "logging": st.just({"level": "debug"}),
        "environment": st.builds(lambda n: {"resources": {"cpu": {"limits": n}}, "labels": {"a": n}}, st.integers(0)),
        "inputs": st.just([{"name": "z", "is_optional": True}]),
    },
)


@bounded
@given(JOBS)
def test_the_config_of_a_parsed_file_parses_to_the_same_config(source: dict[str, Any]) -> None:
    found = parsed(source, Kind.JOB)
    if found and not any("{" in text for text in json.dumps(found.config["build"]).split('"')[3::2]):
        assert parse(found.config, Kind.JOB).config == found.config
        assert parse(json.dumps(found.config), Kind.JOB).config == found.config


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("label", ["polylocal.home", "polylocal.x", " Polylocal.run "])
def test_labels_of_polylocals_own_are_refused_for_every_kind(kind: Kind, label: str) -> None:
    about = {"run": {"cmd": "true"}} if kind in (Kind.JOB, Kind.EXPERIMENT, Kind.GROUP, Kind.PACKAGE) else {}
    about |= {"hptuning": {"matrix": {"x": {"values": [1]}}}} if kind is Kind.GROUP else {}
    named = "job" if kind is Kind.PACKAGE else str(kind)
    file = {"version": 1, "kind": named, "build": {"image": "a"}, **about}
    wanted = Kind.JOB if kind is Kind.PACKAGE else kind
    parse(file, wanted)
    with pytest.raises(InvalidPolyaxonfile, match=r"environment\.labels\..*polylocal's own"):
        parse({**file, "environment": {"labels": {label: "a", "team": "b"}}}, wanted)
    inside = {**file, "build": {"image": "a", "environment": {"labels": {label: "a"}}}}
    with pytest.raises(InvalidPolyaxonfile, match=r"build\.environment\.labels\."):
        parse(inside, wanted)
    assert Specification(kind, "", {**inside, "environment": {"labels": {label: "a"}}}).build.image == "a"


@pytest.mark.parametrize("image", ["sha256:bf4", "ab" * 32, f"sha256:{'ab' * 32}"])
def test_an_id_of_an_image_is_no_image(image: str) -> None:
    with pytest.raises(InvalidPolyaxonfile, match=r"build\.image: `.*` is the id of an image; write the image's name"):
        parse({"version": 1, "kind": "build", "build": {"image": image}}, Kind.BUILD)


@pytest.mark.parametrize("image", ["bf4", "cafe", "python@sha256:" + "ab" * 32])
def test_a_name_that_looks_like_the_start_of_an_id_is_a_name(image: str) -> None:
    assert parse({"version": 1, "kind": "build", "build": {"image": image}}, Kind.BUILD).build.image == image
