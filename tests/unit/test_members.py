"""The polyaxonfiles of groups and of their experiments."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import job

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import Specification, metadata_of_member, of_member, parse
from polylocal.statuses import Kind

MATRIX = {"lr": {"values": [0.1, 0.2]}, "n": {"range": [1, 3, 1]}}


def group(cmd: str = "x --lr={{ lr }}", matrix: dict[str, Any] = MATRIX, **sections: Any) -> dict[str, Any]:
    return job(cmd, "a", **{"kind": "group", "hptuning": {"matrix": matrix}, **sections})


def member(suggestion: dict[str, Any], *arguments: Any, **sections: Any) -> Specification:
    return of_member(parse(group(*arguments, **sections), Kind.GROUP), suggestion)


def problems(source: object) -> list[str]:
    with pytest.raises(InvalidPolyaxonfile) as caught:
        parse(source, Kind.GROUP)
    return caught.value.problems


# -- members -----------------------------------------------------------------------------------------------------


def test_a_member_is_an_experiment_with_its_params_rendered() -> None:
    found = member({"lr": 0.2, "n": 2}, "x --lr={{ lr }} --n={{ n }}")
    assert (found.kind, found.command, found.params) == (Kind.EXPERIMENT, "x --lr=0.2 --n=2", {"lr": 0.2, "n": 2})
    assert "hptuning" not in found.config
    assert found.config["kind"] == "experiment"


def test_the_content_of_a_member_makes_the_same_experiment_again() -> None:
    found = member({"lr": 0.2, "n": 2})
    assert parse(found.content, Kind.EXPERIMENT).config == found.config


def test_its_params_override_those_of_the_group() -> None:
    found = member({"lr": 0.2}, "x {{ lr }} {{ opt }}", params={"lr": 9, "opt": "adam"})
    assert (found.command, found.params) == ("x 0.2 adam", {"lr": 0.2, "opt": "adam"})


def test_older_files_have_declarations() -> None:
    found = member({"lr": 0.2}, declarations={"lr": 9, "opt": "adam"})
    assert (found.command, found.params) == ("x --lr=0.2", {"lr": 0.2, "opt": "adam"})
    assert "params" not in found.config


def test_words_about_the_group_are_not_copied_to_its_experiments() -> None:
    found = member({"lr": 1}, name="search", description="all of them", framework="pytorch", logging={"level": "debug"})
    assert not {"name", "description"} & found.config.keys()
    assert (found.config["framework"], found.log_level) == ("pytorch", "DEBUG")


@pytest.mark.parametrize("value", [1, 0.5, True, "adam", [1, 2], {"a": 1}, None, "{{ n }}", "a'b"])
def test_a_value_keeps_its_type(value: object) -> None:
    found = member({"x": value}, matrix={"x": {"values": [value]}})
    assert found.params == {"x": value}


def test_templates_may_stand_anywhere() -> None:
    environment = {"resources": {"cpu": {"limits": "{{ n }}"}}}
    found = member({"lr": 0.1, "n": 2}, build={"image": "a:{{ n }}"}, environment=environment)
    assert found.build.image == "a:2"
    assert found.config["environment"] == {"resources": {"cpu": {"limits": 2}}}
    chosen = member({"lr": 0.1, "n": 2}, run={"cmd": {"if": {"cond": "n > 1", "do": "many", "else_do": "one"}}})
    assert chosen.command == "many"


def test_inputs_are_what_the_matrix_gives() -> None:
    inputs = [{"name": "lr", "type": "float"}, {"name": "n", "type": "int"}]
    assert member({"lr": 0.1, "n": 1}, inputs=inputs).params == {"lr": 0.1, "n": 1}


def test_a_member_that_can_not_be_is_refused() -> None:
    specification = parse(group(environment={"resources": {"cpu": {"limits": "{{ lr }}"}}}), Kind.GROUP)
    with pytest.raises(InvalidPolyaxonfile, match=r"environment\.resources\.cpu\.limits"):
        of_member(specification, {"lr": "lots"})


def test_members_of_a_stored_group_are_those_of_a_new_one() -> None:
    specification = parse(json.dumps(group()), Kind.GROUP)
    stored = Specification(Kind.GROUP, specification.content, json.loads(json.dumps(specification.config)))
    assert of_member(stored, {"lr": 0.1, "n": 1}) == of_member(specification, {"lr": 0.1, "n": 1})
    assert stored.hptuning == specification.hptuning


@pytest.mark.parametrize("notation", [json.dumps, repr, lambda data: [data], lambda data: data])
def test_every_notation_of_a_group_gives_the_same_members(notation: Any) -> None:
    found = of_member(parse(notation(group()), Kind.GROUP), {"lr": 0.1, "n": 1})
    assert found.command == "x --lr=0.1"


# -- groups ------------------------------------------------------------------------------------------------------


def test_a_group_keeps_its_templates() -> None:
    found = parse(group(), Kind.GROUP)
    assert found.config["run"] == {"cmd": "x --lr={{ lr }}"}
    assert found.hptuning.algorithm == "grid"
    assert found.hptuning.sample == {"lr": 0.1, "n": 1}


def test_only_groups_search() -> None:
    with pytest.raises(ValueError, match="a job has no search"):
        parse(job(), Kind.JOB).hptuning  # noqa: B018


@pytest.mark.parametrize(
    ("hptuning", "problem"),
    [
        (None, "hptuning"),
        ({}, "hptuning: A matrix definition is required for group specification."),
        ({"grid_search": {}}, "hptuning: Search algorithms need a matrix definition."),
        ({"matrix": MATRIX, "grid_search": {}, "bo": None, "random_search": {"n_experiments": 1}}, "Only one search"),
        ({"matrix": {"lr": {"range": [1, 0, 1]}}}, "hptuning.matrix.lr.range: stop value must be strictly higher"),
        ({"matrix": {"lr": {"values": [1], "range": [0, 1, 1]}}}, "hptuning.matrix.lr: Matrix element is not valid"),
        ({"matrix": {"lr": {"uniform": [0, 1]}}}, "hptuning: `lr` defines a distribution"),
        ({"matrix": MATRIX, "foo": 1}, "hptuning.foo: Unknown field."),
        ({"matrix": MATRIX, "concurrency": "x"}, "hptuning.concurrency"),
    ],
)
def test_problems_say_where_they_are(hptuning: object, problem: str) -> None:
    found = problems(group(hptuning=hptuning))
    assert any(problem in text for text in found), found


def test_problems_have_lines() -> None:
    text = "version: 1\nkind: group\nbuild: {image: a}\nrun: {cmd: x}\nhptuning:\n  matrix:\n    lr:\n"
    text += "      range: [1, 0, 1]\n"
    assert problems(text)[0].startswith("line 8, hptuning.matrix.lr.range: stop value")


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("range: 0:10:2", [0, 10, 2]),
        ("range: 1:5:1", [1, 5, 1]),
        ("range: 10:59:3", [10, 59, 3]),
        ("linspace: 1:10:4", [1, 10, 4]),
        ("logspace: 0.01:0.1:5", [0.01, 0.1, 5]),
        ("logspace: 1:2:3:10", [1, 2, 3, 10]),
        ("geomspace: '1:50:5'", [1, 50, 5]),
    ],
)
def test_ranges_need_no_quotes(written: str, numbers: list[float]) -> None:
    """YAML once read `1:5:1` as a number in base 60."""
    text = "version: 1\nkind: group\nbuild: {image: a}\nrun: {cmd: x}\nhptuning:\n  matrix:\n    lr:\n      "
    tuning = parse(text + written, Kind.GROUP).hptuning
    assert tuning.matrix
    assert getattr(tuning.matrix["lr"], written.partition(":")[0]) == numbers


@pytest.mark.parametrize(("written", "numbers"), [("0:1", [0, 1]), ("0:0.1", [0, 0.1]), ("1:5", [1, 5])])
def test_distributions_need_no_quotes(written: str, numbers: list[float]) -> None:
    text = "version: 1\nkind: group\nbuild: {image: a}\nrun: {cmd: x}\nhptuning:\n  random_search: {n_experiments: 1}\n"
    tuning = parse(f"{text}  matrix:\n    lr:\n      uniform: {written}\n", Kind.GROUP).hptuning
    assert tuning.matrix
    assert tuning.matrix["lr"].uniform == numbers


def test_without_hptuning_it_is_no_group() -> None:
    source = group()
    del source["hptuning"]
    assert any("hptuning" in text and "required" in text for text in problems(source))


@pytest.mark.parametrize("kind", [Kind.JOB, Kind.EXPERIMENT, Kind.NOTEBOOK])
def test_only_a_group_may_have_hptuning(kind: Kind) -> None:
    source = {**group(), "kind": str(kind)}
    with pytest.raises(InvalidPolyaxonfile, match="hptuning"):
        parse(source, kind)


# -- notebooks and tensorboards ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [None, "notebook", "lab"])
def test_a_notebook_is_one_of_two(backend: str | None) -> None:
    source = {"version": 1, "kind": "notebook", "build": {"image": "a"}, "backend": backend}
    assert parse(source, Kind.NOTEBOOK).file.backend == backend


@pytest.mark.parametrize("backend", ["native", "Lab", ""])
def test_invalid_backends_of_a_notebook(backend: str) -> None:
    source = {"version": 1, "kind": "notebook", "build": {"image": "a"}, "backend": backend}
    with pytest.raises(InvalidPolyaxonfile, match="neither `notebook` nor `lab`"):
        parse(source, Kind.NOTEBOOK)


@pytest.mark.parametrize("kind", [Kind.NOTEBOOK, Kind.TENSORBOARD])
@pytest.mark.parametrize("section", ["run", "hptuning", "declarations", "framework"])
def test_servers_take_no_sections_of_other_kinds(kind: Kind, section: str) -> None:
    source = {"version": 1, "kind": str(kind), "build": {"image": "a"}, section: {"cmd": "x"}}
    with pytest.raises(InvalidPolyaxonfile, match=section):
        parse(source, kind)


@pytest.mark.parametrize("kind", [Kind.NOTEBOOK, Kind.TENSORBOARD])
def test_servers_need_a_build_and_have_no_command(kind: Kind) -> None:
    with pytest.raises(InvalidPolyaxonfile, match="build is a required section"):
        parse({"version": 1, "kind": str(kind)}, kind)
    found = parse({"version": 1, "kind": str(kind), "build": {"image": "a"}}, kind)
    assert (found.command, found.params) == (None, {})


@pytest.mark.parametrize(
    ("outputs", "references"),
    [
        ({"jobs": [1, "train"], "experiments": ["root.p.3", 4]}, (["1", "train"], ["root.p.3", "4"])),
        ({"jobs": [1]}, (["1"], [])),
        ({}, ([], [])),
        (None, ([], [])),
    ],
)
def test_references_by_id_and_by_name(outputs: Any, references: tuple[list[str], list[str]]) -> None:
    environment = parse(job(environment={"outputs": outputs}), Kind.JOB).environment
    assert environment.references == {Kind.JOB: references[0], Kind.EXPERIMENT: references[1]}


# -- names and tags by template -----------------------------------------------------------------------------------


def test_a_group_keeps_its_templates_and_its_members_have_their_own() -> None:
    said = {"name": "m-{{ lr }}", "tags": ["lr={{ lr }}", "all"], "description": "rate {{ lr }}"}
    found = parse(group(**said), Kind.GROUP)
    assert found.words == said
    words = [metadata_of_member(of_member(found, {"lr": lr, "n": 1}), **found.words) for lr in (0.1, 0.2)]
    assert words == [{"name": f"m-{lr}", "tags": [f"lr={lr}", "all"], "description": f"rate {lr}"} for lr in (0.1, 0.2)]


def test_a_name_without_a_template_belongs_to_the_group_alone() -> None:
    found = parse(group(name="search", description="all", tags="a, b"), Kind.GROUP)
    assert metadata_of_member(of_member(found, {"lr": 0.1, "n": 1}), **found.words) == {
        "name": None,
        "description": None,
        "tags": ["a", "b"],
    }


def test_a_template_makes_valid_names() -> None:
    found = parse(group(name="m-{{ lr }}"), Kind.GROUP)
    assert metadata_of_member(of_member(found, {"lr": "a b/c", "n": 1}), **found.words)["name"] == "m-a-b-c"
    one = parse(job("x", "a", name="m-{{ lr }}", params={"lr": 1e-05}), Kind.JOB)
    assert one.words["name"] == "m-1e-05"


@pytest.mark.parametrize("name", ["m.1", "a b", "x" * 200, "{{ lr }}" * 20])
def test_invalid_names_of_a_group(name: str) -> None:
    (problem,) = problems(group(name=name))
    assert problem.startswith("name: ")
