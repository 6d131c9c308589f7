"""Files in JSON and in Python's notation on the command line: alone or with other options, the result is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polylocal.cli.files import Options, combine
from polylocal.polyaxonfile import read

DATA: dict[str, Any] = {"version": 1, "kind": "job", "build": {"image": "a", "nocache": True}, "params": {"p": None}}


def command(cmd: str) -> dict[str, Any]:
    return {**DATA, "run": {"cmd": cmd}}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(command("echo \U0001f600")),  # an escape in two parts
        json.dumps(command("echo \U0001f600"), ensure_ascii=False),
        json.dumps(command("a\tb \x7f"), indent="\t"),
        json.dumps(command("a/b")).replace("/", "\\/"),
        json.dumps(command("x \\ --lr=1")),  # as a YAML reader prints it on one line
        json.dumps([DATA, {"run": {"cmd": "x"}}]),
        json.dumps({**DATA, "tags": [1e-3]}),
        repr(command("it's \x01")),
        "{version: 1, kind: job, build: {image: a}, run: {cmd: 'a\tb'}}\n",
    ],
)
def test_a_file_that_is_no_block_of_yaml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "polyaxonfile.json"
    path.write_text(text, "utf-8")
    alone = read(combine([path]).text)[0]
    assert read(combine([path], Options(params=["lr=1"])).text)[0] == {
        **alone,
        "params": {**alone.get("params", {}), "lr": 1},
    }


def test_such_a_file_keeps_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "polyaxonfile.json"
    path.write_text(json.dumps(command("echo \U0001f600"), indent=2))
    lines = read(combine([path], Options(params=["lr=1"])).text)[1]
    assert '"cmd"' in path.read_text().splitlines()[lines[("run", "cmd")] - 1]
