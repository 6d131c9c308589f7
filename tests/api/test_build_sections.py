"""The build section of a polyaxonfile in responses of the API."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Caller, P

pytestmark = pytest.mark.usefixtures("project")


@pytest.mark.parametrize(
    ("kind", "build", "wanted"),
    [
        ("job", {"dockerfile": "D", "env_vars": [["K", "v"]]}, []),
        ("job", {"image": "a", "env_vars": [["K", "v"]], "build_steps": ["x"]}, []),
        ("job", {"dockerfile": "D", "build_steps": ["x"]}, ["build.build_steps: it has no effect beside `dockerfile`"]),
        ("job", {"ref": 1, "lang_env": "C"}, ["build.lang_env: it has no effect beside `ref`"]),
        ("build", {"dockerfile": "D", "env_vars": [["K", "v"]]}, ["build.env_vars: the image comes from `dockerfile`"]),
    ],
)
def test_parts_of_a_build_without_effect_are_named(
    api: Caller, kind: str, build: dict[str, Any], wanted: list[str]
) -> None:
    assert api.post(f"{P}/builds/", {"content": {"version": 1, "kind": "build", "image": "a"}}).status_code == 201
    run = {"run": {"cmd": "x"}} if kind == "job" else {}
    made = api.post(f"{P}/{kind}s/", {"content": {"version": 1, "kind": kind, "build": build, **run}})
    assert made.status_code == 201, made.json()
    assert len(made.json()["warnings"]) == len(wanted)
    assert all(told.startswith(text) for told, text in zip(made.json()["warnings"], wanted, strict=True))


def test_a_value_that_no_environment_takes_is_refused_with_file_and_line(api: Caller) -> None:
    text = 'version: 1\nkind: job\nbuild:\n  image: a\n  env_vars:\n  - [A, b]\n  - [K, "a\\nb"]\nrun: {cmd: x}\n'
    answer = api.post(f"{P}/jobs/", {"content": text, "files": [{"name": "job.yml", "line": 1}]})
    assert answer.status_code == 400
    assert "job.yml, line 7, build.env_vars.1: The value of `K` has a line end" in answer.json()["content"][0]
