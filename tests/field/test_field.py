"""Shapes of public polyaxonfiles: each is parsed, rendered and run, or refused with the expected messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from polylocal.api.run_creation import without_effect
from polylocal.cli.files import kind_of
from polylocal.errors import InvalidInput
from polylocal.planning.dockerfile import render
from polylocal.polyaxonfile import Specification, commands, merge

from .shapes import BASH, FOLDER, SHAPES, CommandResult, Shape, by_name, first_iteration, run_command

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # fast clients use it; the other loader refuses tabs
LOCALE = "en_US.UTF-8"
_OF_EVERY_FILE = re.compile(r"(FROM|COPY|WORKDIR|#|ENV (LC_ALL|LANG|LANGUAGE|SHELL) (en_US.UTF-8|/bin/bash)$)")

UNMENDED: dict[str, str] = {}

UNMENDED_COMMANDS: dict[str, str] = {}


def shapes(wanted: Callable[[Shape], bool]) -> list[Any]:
    return [case(shape) for shape in SHAPES if wanted(shape)]


def case(shape: Shape, *more: Any, unmended: Mapping[str, str] = UNMENDED) -> Any:
    reason = unmended.get(shape.path.stem)
    marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
    return pytest.param(shape, *more, id="-".join([shape.path.stem, *map(str, more)]), marks=marks)


ACCEPTED = shapes(lambda shape: not shape.is_refused)
REFUSED = shapes(lambda shape: shape.is_refused)
GROUPS = shapes(lambda shape: shape.kind == "group")


def test_every_file_has_an_expectation() -> None:
    files = sorted(path for path in FOLDER.iterdir() if path.suffix in (".yml", ".json"))
    assert sorted(shape.path for shape in SHAPES) == files
    assert len(files) >= 40


# -- refused files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", REFUSED)
def test_the_command_line_refuses_it_with_every_sentence(shape: Shape) -> None:
    sentences = refused(shape)
    if shape.refused_like:
        assert len(sentences) == 1
        assert re.fullmatch(shape.refused_like, sentences[0])
    else:
        assert sentences == shape.refused


@pytest.mark.parametrize("name", ["component_of_1_1", "operation_of_1_1"])
def test_a_file_of_version_1_1_is_refused_with_a_hint_to_version_1(name: str) -> None:
    (sentence,) = refused(by_name(name))
    assert sentence.startswith(f"{name}.yml, line 2, kind: ")
    assert "version 1" in sentence


@pytest.mark.parametrize("name", ["without_version_and_kind", "settings_and_project"])
def test_a_file_without_a_kind_is_refused_with_a_hint(name: str) -> None:
    assert any("The Polyaxonfile `kind` must be specified" in sentence for sentence in refused(by_name(name)))


def refused(shape: Shape) -> list[str]:
    """The messages of the command line about a refused file."""
    with pytest.raises(InvalidInput) as refusal:
        kind_of(shape.written)
    messages = refusal.value.messages
    assert isinstance(messages, list)
    return messages


# -- accepted files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ACCEPTED)
def test_a_run_corresponds_to_its_file(shape: Shape) -> None:
    specification = shape.specification
    assert kind_of(shape.written) == specification.kind == shape.kind
    assert {name: value for name, value in specification.params.items() if value is not None} == shape.params
    assert types(specification.params) >= types(shape.params)
    assert (specification.words["name"], specification.words["tags"]) == (shape.name, shape.tags)
    assert [*without_effect(specification), *specification.undefined] == shape.notes


def types(params: Any) -> set[tuple[str, str]]:
    """The types of params, since `True == 1 == 1.0` in Python."""
    return {(name, type(value).__name__) for name, value in params.items()}


@pytest.mark.parametrize(
    ("shape", "shell"),
    [
        case(shape, shell, unmended=UNMENDED | UNMENDED_COMMANDS)
        for shape in SHAPES
        if shape.has_command
        for shell in shape.shells
    ],
)
def test_the_shell_starts_the_written_programs(shape: Shape, shell: str, tmp_path: Path) -> None:
    check(shape, outcome(shape, shape.specification, shell, tmp_path), shape.commands)


@pytest.mark.parametrize("shape", shapes(lambda shape: shape.has_command and shape.path.suffix == ".yml"))
def test_a_client_that_reads_the_yaml_itself_starts_the_same(shape: Shape, tmp_path: Path) -> None:
    """The original clients parse the YAML files, merge them, and send the result as JSON."""
    specification = shape.parsed(json.dumps(reduce(merge, read_by_a_client(shape)), default=str))
    check(shape, outcome(shape, specification, BASH, tmp_path), shape.from_json or shape.commands)


@pytest.mark.parametrize("name", ["plain_with_backslashes", "required_inputs_given_with_the_run"])
def test_a_client_that_sends_several_mappings_starts_the_same(name: str, tmp_path: Path) -> None:
    """The platform also accepts a list of mappings, in which later ones override earlier ones."""
    shape = by_name(name)
    specification = shape.parsed([*read_by_a_client(shape), {"tags": ["later"]}])
    check(shape, outcome(shape, specification, BASH, tmp_path), shape.commands)


def read_by_a_client(shape: Shape) -> list[dict[str, Any]]:
    given = dict(word.split("=") for word in shape.options)
    documents = yaml.load_all(shape.path.read_text("utf-8-sig"), Loader=_YAML)
    return [*documents, *([{"params": given}] if given else [])]


def outcome(shape: Shape, specification: Specification, shell: str, folder: Path) -> CommandResult:
    cmd = shape.run(specification).command
    assert cmd is not None
    return run_command(commands.arguments(cmd, shell), folder, [words[0] for words in shape.commands], shape.files)


def check(shape: Shape, found: CommandResult, expected: Any) -> None:
    order = sorted if shape.is_unordered else list
    assert order(found.commands) == order(expected)
    assert (found.exit, found.prints) == (shape.exit, shape.prints)


@pytest.mark.parametrize("shape", ACCEPTED)
def test_its_dockerfile(shape: Shape) -> None:
    build = shape.run(shape.specification).build
    if build.dockerfile:
        assert not shape.instructions
        assert (build.image, build.dockerfile) == (None, "./Dockerfile-train")
        return
    found = render(build, [], LOCALE)
    if shape.dockerfile:
        assert found == shape.dockerfile
    else:
        assert found.startswith(f"\nFROM {build.image}\n\nENV LC_ALL {LOCALE}\n")
        assert found.endswith("COPY build /code\n")
        assert own_instructions(found) == shape.instructions


def own_instructions(dockerfile: str) -> list[str]:
    return [line for line in dockerfile.splitlines() if line and not _OF_EVERY_FILE.match(line)]


@pytest.mark.parametrize("shape", GROUPS)
def test_the_first_iteration_of_its_search(shape: Shape) -> None:
    group = shape.specification
    found = first_iteration(group)
    assert len(found) == shape.points
    assert len({json.dumps(params) for params in found}) == shape.points
    assert all(set(params) >= set(group.hptuning.matrix or {}) for params in found)
