"""Environment variables of a run: values, and refusals with their position in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import build, job

from polylocal.cli import files
from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import Specification, of_member, parse, read
from polylocal.polyaxonfile.variables import MAX_ALL, MAX_VARIABLE, MAX_VARIABLES
from polylocal.statuses import Kind

TEXT = "version: 1\nkind: job\nbuild: {image: a}\nrun: {cmd: x}\nparams: {lr: 1e-3, fast: true}\nenvironment:\n"


def of(env_vars: object) -> dict[str, str]:
    return parse(job(params={"lr": 0.5}, environment={"env_vars": env_vars}), Kind.JOB).environment.variables


def refused(env_vars: object, kind: Kind = Kind.JOB) -> str:
    with pytest.raises(InvalidPolyaxonfile) as caught:
        of(env_vars)
    return str(caught.value)


@pytest.mark.parametrize("env_vars", [{"A": "1", "B": 2}, [["A", 1], ["B", "2"]], [["A", 0], ["B", 2], ["A", 1]]])
def test_a_mapping_and_a_list_of_pairs_mean_the_same(env_vars: object) -> None:
    assert of(env_vars) == {"A": "1", "B": "2"}


def test_a_stored_specification_has_one_form() -> None:
    found = parse(job(environment={"env_vars": [["A", 1]]}), Kind.JOB)
    assert found.config["environment"] == {"env_vars": {"A": "1"}}
    assert Specification(Kind.JOB, "", found.config).environment.variables == {"A": "1"}


def test_values_in_yaml_arrive_as_they_are_written() -> None:
    text = f"""{TEXT}  env_vars:
    VERSION: 1.10
    MODE: 0777
    ON: on
    FLAG: true
    SMALL: 1e-3
    QUOTED: "  a 'b' "
    LINES: |
      one
      two
    EMPTY: ""
    RATE: "{{{{ lr }}}}"
    NAME: "run-{{{{ lr }}}}"
    FAST: "{{{{ fast }}}}"
    PATH: $PATH:/x
"""
    assert parse(text, Kind.JOB).environment.variables == {
        "VERSION": "1.10",
        "MODE": "0777",
        "ON": "on",
        "FLAG": "true",
        "SMALL": "1e-3",
        "QUOTED": "  a 'b' ",
        "LINES": "one\ntwo\n",
        "EMPTY": "",
        "RATE": "0.001",
        "NAME": "run-0.001",
        "FAST": "true",
        "PATH": "$PATH:/x",
    }


def test_pairs_in_yaml_arrive_as_they_are_written() -> None:
    text = f"{TEXT}  env_vars:\n    - [VERSION, 1.10]\n    - [NO, off]\n    - ['N_{{{{ lr * 1000 }}}}', x]\n"
    assert parse(text, Kind.JOB).environment.variables == {"VERSION": "1.10", "NO": "off", "N_1.0": "x"}


def test_numbers_that_variables_share_with_params_stay_numbers_there() -> None:
    text = f"{TEXT.replace('{lr: 1e-3, fast: true}', '&p {lr: 1.10, fast: on}')}  env_vars: {{<<: *p, A: 1}}\n"
    found = parse(text, Kind.JOB)
    assert (found.params, found.environment.variables) == (
        {"lr": 1.1, "fast": True},
        {"lr": "1.10", "fast": "on", "A": "1"},
    )


def test_variables_that_hold_themselves_are_refused() -> None:
    with pytest.raises(InvalidPolyaxonfile):
        parse(f"{TEXT}  env_vars: &a {{A: *a}}\n", Kind.JOB)


def test_values_in_json_are_written_as_yaml_has_them() -> None:
    assert of({"A": True, "B": False, "C": 0.1, "D": 10**30}) == {
        "A": "true",
        "B": "false",
        "C": "0.1",
        "D": f"1{'0' * 30}",
    }


@pytest.mark.parametrize(
    ("env_vars", "place", "words"),
    [
        (5, "env_vars", "a mapping of names to values, or a list of pairs"),
        ("A=1", "env_vars", "a mapping of names to values, or a list of pairs"),
        ([["A", 1], ["B"]], "env_vars.1", "a pair"),
        ([["A", 1], "B=1"], "env_vars.1", "a pair"),
        ([[1, 1]], "env_vars.0", "is not a name"),
        ({"": "x"}, "env_vars.", "empty"),
        ({"A=B": "x"}, "env_vars.A=B", "contains `=`"),
        ([["A B", "x"]], "env_vars.0", "a blank"),
        ({"A\n": "x"}, "env_vars", "control character"),
        ({"A\0": "x"}, "env_vars", "control character"),
        ({"POLYAXON_API": "x"}, "env_vars.POLYAXON_API", "the platform's own"),
        ({"POLYLOCAL_X": "x"}, "env_vars.POLYLOCAL_X", "the platform's own"),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, "env_vars.NVIDIA_VISIBLE_DEVICES", "environment.resources.gpu"),
        ({"JUPYTER_TOKEN": "x"}, "env_vars.JUPYTER_TOKEN", "set by polylocal"),
        ({"A": None}, "env_vars.A", 'write "" for an empty one'),
        ({"A": [1]}, "env_vars.A", "a text, a number, true or false"),
        ({"A": {"b": 1}}, "env_vars.A", "a text, a number, true or false"),
        ({"A": "a\0b"}, "env_vars.A", "NUL byte"),
        ({"A": "x" * (MAX_VARIABLE - 1)}, "env_vars.A", f"more than {MAX_VARIABLE}"),
        ({f"A{n}": "x" * 100_000 for n in range(3)}, "env_vars", f"more than {MAX_ALL}"),
        ({f"A{n}": "" for n in range(MAX_VARIABLES + 1)}, "env_vars", f"at most {MAX_VARIABLES}"),
    ],
)
def test_variables_that_no_container_can_have_are_refused_with_their_path(
    env_vars: object, place: str, words: str
) -> None:
    told = refused(env_vars)
    assert told.startswith(f"environment.{place}")
    assert words in told


def test_all_problems_are_reported_at_once() -> None:
    told = refused({"A": None, "POLYAXON_B": 1, "C": "fine"})
    assert ("env_vars.A" in told, "env_vars.POLYAXON_B" in told, "env_vars.C" in told) == (True, True, False)


def test_the_largest_that_are_taken() -> None:
    assert len(of({"A": "x" * (MAX_VARIABLE - 2)})["A"]) == MAX_VARIABLE - 2
    assert len(of({f"A{n}": "" for n in range(MAX_VARIABLES)})) == MAX_VARIABLES
    assert of({"PATH": "/x", "LD_PRELOAD": "", "polyaxon_x": "1", "a.b-c": "1"})["a.b-c"] == "1"


@pytest.mark.parametrize("content", [build(), {"version": 1, "kind": "build", "image": "a"}])
def test_a_build_has_no_variables_of_a_run(content: dict[str, Any]) -> None:
    with pytest.raises(InvalidPolyaxonfile, match=r"environment\.env_vars: .*`build\.env_vars`"):
        parse({**content, "environment": {"env_vars": {"A": 1}}}, Kind.BUILD)


def test_nor_has_the_build_section_of_a_job() -> None:
    content = job()
    content["build"]["environment"] = {"env_vars": {"A": 1}}
    with pytest.raises(InvalidPolyaxonfile, match=r"build\.environment\.env_vars: "):
        parse(content, Kind.JOB)


def test_they_are_no_part_of_the_build() -> None:
    with_one, without = (parse(job(**more), Kind.JOB) for more in ({"environment": {"env_vars": {"A": 1}}}, {}))
    assert with_one.build_config() == without.build_config()


def test_each_experiment_of_a_group_has_its_own() -> None:
    content = job(
        kind="group", hptuning={"matrix": {"lr": {"values": [0.1, 0.2]}}}, environment={"env_vars": {"LR": "{{ lr }}"}}
    )
    group = parse(content, Kind.GROUP)
    assert [of_member(group, {"lr": lr}).environment.variables for lr in (0.1, 0.2)] == [{"LR": "0.1"}, {"LR": "0.2"}]


def test_a_mapping_overrides_pairs() -> None:
    text = "environment: {env_vars: [[A, 1], [B, 2]]}\n---\nenvironment: {env_vars: {B: 3, C: 4}}\n"
    assert read(text)[0] == {"environment": {"env_vars": {"A": "1", "B": "3", "C": "4"}}}


# -- on the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["", "a=b", " ", '{{ x }} "q" \\ \r\n\té😀\x85\u2028 }} {% if', "{{", "{", "%}{%\n", "x\n"]
)
def test_a_variable_of_the_shell_arrives_as_it_is(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINE", value)
    (tmp_path / "a.yml").write_text(f"{TEXT}  env_vars: [[OTHER, 1.0]]\n")
    written = files.combine([tmp_path / "a.yml"], files.Options(variables=["MINE"]))
    assert parse(written.text, Kind.JOB).environment.variables == {"OTHER": "1.0", "MINE": value}


def test_a_value_of_the_command_line_may_be_any_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(job(params={"lr": 0.5}), indent="\t"))
    given = ["A=1.10", "B=true", "C=", "D=x=y", "E={{ lr }}", "F=😀 \x7fé", "A=2.0"]
    written = files.combine([tmp_path / "a.json"], files.Options(variables=given, params=["emoji=😀"]))
    found = parse(written.text, Kind.JOB)
    wanted = {"A": "2.0", "B": "true", "C": "", "D": "x=y", "E": "0.5", "F": "😀 \x7fé"}
    assert (found.environment.variables, found.params["emoji"]) == (wanted, "😀")
