"""Inputs and params: one mapping with typed values."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import Specification, of_member, parse
from polylocal.statuses import Kind

BASE: dict[str, Any] = {"version": 1, "kind": "experiment", "build": {"image": "a"}, "run": {"cmd": "x"}}
DEFAULT = {"name": "bs", "type": "int", "is_optional": True, "default": 8}


def experiment(inputs: list[dict[str, Any]], cmd: str = "x {{ bs }}", **sections: Any) -> Specification:
    return parse({**BASE, "run": {"cmd": cmd}, "inputs": inputs, **sections}, Kind.EXPERIMENT)


def problems(source: dict[str, Any], kind: Kind = Kind.EXPERIMENT) -> list[str]:
    with pytest.raises(InvalidPolyaxonfile) as told:
        parse(source, kind)
    return told.value.problems


def test_a_default_is_a_param_everywhere() -> None:
    found = experiment([DEFAULT])
    assert (found.command, found.params, found.config["params"]) == ("x 8", {"bs": 8}, {"bs": 8})


def test_the_section_is_the_one_that_the_file_has() -> None:
    found = experiment([DEFAULT, {"name": "lr"}], declarations={"lr": 0.1})
    assert found.params == found.config["declarations"] == {"bs": 8, "lr": 0.1}
    assert "params" not in found.config


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        ("int", "8", 8),
        ("int", 8.0, 8),
        ("float", 1, 1.0),
        ("float", "1e-3", 0.001),
        ("bool", "true", True),
        ("bool", 0, False),
        ("str", 5, "5"),
        ("str", "x", "x"),
        ("list", [1], [1]),
        ("dict", {"a": 1}, {"a": 1}),
        ("uri", "s3://a", "s3://a"),
        (None, "8", "8"),
    ],
)
def test_a_value_has_its_declared_type(kind: str | None, given: Any, kept: Any) -> None:
    found = experiment([{"name": "bs", "type": kind}], params={"bs": given}).params["bs"]
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("port", "value", "told"),
    [
        ({"type": "int"}, "xx", "`xx` is not a whole number."),
        ({"type": "int"}, 1.5, "`1.5` is not a whole number."),
        ({"type": "int"}, True, "`True` is not a whole number."),
        ({"type": "float"}, "fast", "`fast` is not a number."),
        ({"type": "float"}, "nan", "`nan` is not a finite number."),
        ({"type": "bool"}, "perhaps", "`perhaps` is not true or false."),
        ({"type": "str"}, [1], "`[1]` is not a text."),
        ({"type": "dict"}, [1], "`[1]` is not a mapping."),
        ({"type": "list"}, 1, "`1` is not a list."),
        ({"type": "int", "is_list": True}, 1, "`1` is not a list."),
        ({"type": "int", "is_list": True}, [1, "x"], "`x` is not a whole number."),
        ({"options": ["x", "y"]}, "z", "`z` is not one of the options `x`, `y`."),
        ({"type": "int", "options": [1, 2]}, "3", "`3` is not one of the options `1`, `2`."),
        ({}, None, "This input may not be null."),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_path(port: dict[str, Any], value: Any, told: str) -> None:
    assert problems({**BASE, "inputs": [{"name": "bs", **port}], "params": {"bs": value}}) == [f"params.bs: {told}"]


def test_a_default_of_another_type_is_refused_with_its_path() -> None:
    assert problems({**BASE, "inputs": [{**DEFAULT, "default": "x"}]}) == [
        "inputs.0.default: `x` is not a whole number."
    ]


@pytest.mark.parametrize(
    ("port", "value"), [({"type": "int", "options": [1, 2]}, "2"), ({"options": ["a", 1]}, 1), ({"is_list": True}, [])]
)
def test_allowed_values(port: dict[str, Any], value: Any) -> None:
    assert "bs" in experiment([{"name": "bs", **port}], params={"bs": value}).params


def test_a_flag_is_a_word_in_templates_and_a_truth_value_elsewhere() -> None:
    found = experiment([{"name": "bs", "is_flag": True}], params={"bs": True})
    assert (found.command, found.params) == ("x --bs", {"bs": True})


# -- groups -----------------------------------------------------------------------------------------------------------


def group(
    inputs: list[dict[str, Any]], hptuning: dict[str, Any], cmd: str = "x {{ lr }} {{ bs }}", **more: Any
) -> Specification:
    source = {**BASE, "kind": "group", "run": {"cmd": cmd}, "inputs": inputs, "hptuning": hptuning, **more}
    return parse(source, Kind.GROUP)


def test_a_name_of_the_matrix_needs_no_input() -> None:
    found = group([DEFAULT], {"matrix": {"lr": {"values": [0.1, 0.2]}}})
    member = of_member(found, {"lr": 0.2})
    assert (member.command, member.params) == ("x 0.2 8", {"bs": 8, "lr": 0.2})
    again = parse(member.content, Kind.EXPERIMENT)  # as a restart of it does
    assert again.params == member.params


def test_the_resource_of_hyperband_needs_no_input() -> None:
    band = {
        "max_iter": 9,
        "eta": 3,
        "resource": {"name": "epochs", "type": "int"},
        "metric": {"name": "loss", "optimization": "minimize"},
    }
    found = group(
        [DEFAULT], {"matrix": {"lr": {"uniform": "0:1"}}, "hyperband": band}, "x {{ lr }} {{ bs }} {{ epochs }}"
    )
    assert not found.undefined
    assert of_member(found, {"lr": 0.5, "epochs": 3}).command == "x 0.5 8 3"


def test_a_point_of_another_type_is_found_when_the_group_is_made() -> None:
    with pytest.raises(InvalidPolyaxonfile) as caught:
        group([DEFAULT, {"name": "lr", "type": "int"}], {"matrix": {"lr": {"values": [1.5, 2.5]}}})
    assert caught.value.problems == ["hptuning.matrix.lr: `1.5` is not a whole number."]


@pytest.mark.parametrize(
    "option", [{"uniform": "1:5"}, {"linspace": "1:2:3"}, {"logspace": "0:1:3"}, {"normal": "1:1"}]
)
def test_a_space_of_another_type_is_found_when_the_group_is_made(option: dict[str, str]) -> None:
    tuning = {"matrix": {"lr": option}, "random_search": {"n_experiments": 2}}
    with pytest.raises(InvalidPolyaxonfile, match=r"^hptuning.matrix.lr: .* is not a whole number"):
        group([DEFAULT, {"name": "lr", "type": "int"}], tuning)


@pytest.mark.parametrize(
    "option",
    [
        {"range": "1:5:2"},
        {"quniform": "1:9:2"},
        {"quniform": "0.5:9.5:1"},
        {"qnormal": "10.5:3:1"},
        {"values": [1, 2.0]},
        {"linspace": "1:3:3"},
    ],
)
def test_a_space_of_whole_numbers(option: dict[str, Any]) -> None:
    found = group(
        [DEFAULT, {"name": "lr", "type": "int"}], {"random_search": {"n_experiments": 2}, "matrix": {"lr": option}}
    )
    assert found.hptuning.matrix
