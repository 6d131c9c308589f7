"""The sections of a polyaxonfile: accepted and refused values."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from polylocal.polyaxonfile.models import Build, BuildFile, Environment, JobFile, Run, image_name


@pytest.mark.parametrize(
    "image",
    [
        "busybox",
        "tensorflow/tensorflow:1.4.1-py3",
        "localhost:5000/a",
        "localhost:5000/a/b:1.0",
        "registry.example/a:tag",
        "a@sha256:0123",
        "a:1@sha256:0123",
        "localhost:5000/a@sha256:0123",
    ],
)
def test_images(image: str) -> None:
    assert image_name(image) == image


@pytest.mark.parametrize(
    "image", ["", " ", "a b", "a:b:c", "a:/b:c", "a:b/c:d:e", ":1", "a: 1", "a\nRUN x", "a\t", "@sha256:1", "a::b"]
)
def test_invalid_images(image: str) -> None:
    with pytest.raises(ValueError, match="Invalid docker image `") as caught:
        image_name(image)
    assert str(caught.value) == f"Invalid docker image `{image}`"


@pytest.mark.parametrize(
    "sources",
    [
        {"image": "a"},
        {"dockerfile": "d"},
        {"ref": 3},
        {"ref": "root.p.builds.3"},
        {"image": "a", "ref": "master"},
        {"dockerfile": "d", "ref": "0123abc"},
    ],
)
def test_a_build_has_one_source(sources: dict[str, Any]) -> None:
    assert Build(**sources)


@pytest.mark.parametrize(
    "sources", [{}, {"image": "a", "dockerfile": "d"}, {"image": "a", "ref": 3}, {"nocache": True}, {"image": None}]
)
def test_a_build_with_no_source_or_several_is_refused(sources: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Build(**sources)
    wanted = "Invalid Build, only a a dockerfile, an image, or a reference is required."
    assert wanted in str(caught.value)


@pytest.mark.parametrize("pair", [["A"], ["A", 1, 2], [], "A", {"A": 1}])
def test_an_env_var_is_a_pair(pair: object) -> None:
    with pytest.raises(ValidationError):
        Build(image="a", env_vars=[pair])


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", ".."])
@pytest.mark.parametrize("field", ["dockerfile", "context"])
def test_paths_stay_inside_the_code(field: str, path: str) -> None:
    with pytest.raises(ValidationError, match="inside the uploaded code"):
        Build(**{"dockerfile": "d", field: path})


def test_an_empty_step_is_refused() -> None:
    with pytest.raises(ValidationError, match="a build step is empty"):
        Build(image="a", build_steps=["x", "  "])


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cmd", ["", "  \n", [], [""], ["a", " "], None, 5.5j])
def test_an_empty_command_is_refused(cmd: object) -> None:
    with pytest.raises(ValidationError):
        Run(cmd=cmd)  # type: ignore[arg-type]


# -- small sections ----------------------------------------------------------------------------------------------


def job(**sections: Any) -> JobFile:
    return JobFile.model_validate(
        {"version": 1, "kind": "job", "build": {"image": "a"}, "run": {"cmd": "x"}, **sections}
    )


@pytest.mark.parametrize(
    ("tags", "found"),
    [(["b", "a", "b"], ["b", "a"]), ("b, a,,b", ["b", "a"]), ([" a ", ""], ["a"]), ([], []), ("", []), (None, None)],
)
def test_tags_are_a_list_without_repeats(tags: object, found: list[str] | None) -> None:
    assert job(tags=tags).tags == found


@pytest.mark.parametrize("tags", [5, {"a": 1}, [["a"]], ["x" * 65]])
def test_invalid_tags_are_refused(tags: object) -> None:
    with pytest.raises(ValidationError):
        job(tags=tags)


@pytest.mark.parametrize("name", ["a", "a-b_C9", "x" * 128])
def test_names(name: str) -> None:
    assert job(name=name).name == name


@pytest.mark.parametrize("name", ["", "a b", "ü", "a/b", "x" * 129, "a\n"])
def test_invalid_names(name: str) -> None:
    with pytest.raises(ValidationError):
        job(name=name)


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5, [1]])
def test_only_version_one_is_read(version: object) -> None:
    with pytest.raises(ValidationError):
        job(version=version)


@pytest.mark.parametrize("level", ["INFO", "debug", "Warn", "ERROR", "fatal"])
def test_log_levels(level: str) -> None:
    logging = job(logging={"level": level}).logging
    assert logging is not None
    assert logging.level == level.upper()


def test_only_resource_then_requests_and_limits_is_accepted() -> None:
    assert job(environment={"resources": {"cpu": {"limits": 1}}})
    with pytest.raises(ValidationError):
        job(environment={"resources": {"requests": {"cpu": 1}}})


@pytest.mark.parametrize("section", ["run", "declarations", "ttl", "hptuning", "framework"])
def test_a_build_takes_no_sections_of_other_kinds(section: str) -> None:
    with pytest.raises(ValidationError):
        BuildFile.model_validate({"version": 1, "kind": "build", "build": {"image": "a"}, section: {"cmd": "x"}})


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"data_refs": ["a", "b"]}, ["a", "b"]),
        ({"persistence": {"data": ["c"]}}, ["c"]),
        ({"data_refs": ["a"], "persistence": {"data": ["a", "c"]}}, ["a", "c"]),
        ({"persistence": {"data": True}}, []),
        ({}, []),
    ],
)
def test_data_folders_by_both_their_names(environment: dict[str, Any], names: list[str]) -> None:
    assert Environment(**environment).data_names == names
