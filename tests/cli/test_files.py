"""Combination of several polyaxonfiles, and params given by `-P`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import JOB, Cli

XP = JOB.replace("kind: job", "kind: experiment").replace("echo hello", "x {{ lr }} {{ n }}")


@pytest.fixture(autouse=True)
def _daemon(daemon: str, folder: Path) -> None:
    """Each test needs the daemon and the project."""


def made(polylocal: Cli, *arguments: str) -> dict[str, object]:
    answer = polylocal("run", "-c", "--json", *arguments)
    assert answer.code == 0, answer.err
    found: dict[str, object] = json.loads(answer.out)
    return found


def test_later_files_go_over_earlier_ones(folder: Path, polylocal: Cli) -> None:
    (folder / "base.yml").write_text(XP + "params: {lr: 1, n: 2}\n")
    (folder / "fast.yml").write_text("---\nparams: {lr: 1e-3}\nbuild: {image: alpine}")
    (folder / "more.json").write_text(json.dumps({"tags": ["a"], "params": {"n": 7}}, indent="\t"))
    found = made(polylocal, "-f", "base.yml", "-f", "fast.yml", "-f", "more.json")
    assert (found["params"], found["tags"]) == ({"lr": 0.001, "n": 7}, ["a"])
    assert found["config"]["build"] == {"image": "alpine"}  # type: ignore[index]


def test_params_of_the_command_line_go_over_all_files(folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(XP + "params: {lr: 1, n: 2}\n")
    words = ["lr=1e-3", "mode=fast=er", "list=[1, a]", "on=true", "empty=", "text='1'", "colon=a: b", "n=3"]
    words += ["channel=#general", "sign=|", "both=a # b"]
    found = made(polylocal, *(part for word in words for part in ("-P", word)))
    assert found["params"] == {
        "lr": 0.001,
        "n": 3,
        "mode": "fast=er",
        "list": [1, "a"],
        "on": True,
        "empty": None,
        "text": "1",
        "colon": "a: b",
        "channel": "#general",
        "sign": "|",
        "both": "a",
    }


def test_older_files_have_declarations(folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(XP + "declarations: {lr: 1, n: 2}\n")
    assert made(polylocal, "-P", "lr=5")["declarations"] == {"lr": 5, "n": 2}


@pytest.mark.parametrize("word", ["lr", "=1", ""])
def test_a_param_needs_a_name_and_a_value(word: str, polylocal: Cli) -> None:
    answer = polylocal("run", "-P", word)
    assert (answer.code, f"-P takes name=value, not `{word}`" in answer.err) == (1, True)


def test_messages_name_the_file_and_its_line(folder: Path, polylocal: Cli) -> None:
    (folder / "base.yml").write_text(XP)
    (folder / "more.yml").write_text("tags: [a]\nbuild:\n  imge: x\n")
    answer = polylocal("run", "-f", "base.yml", "-f", "more.yml")
    assert (answer.code, "more.yml, line 3, build.imge: Unknown field." in answer.err) == (1, True)
    (folder / "more.yml").write_text("tags: [a\n")
    answer = polylocal("run", "-f", "base.yml", "-f", "more.yml")
    assert "more.yml, line 2, column 1: not valid YAML" in answer.err
    answer = polylocal("run", "-c", "-f", "base.yml", "-P", "lr=1", "-P", "n={{ x }}", "-P", "environment=2")
    assert answer.code == 0  # a param may have any name


def test_a_param_that_no_input_declares(folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(XP + "inputs: [{name: lr, type: int}, {name: n, is_optional: true}]\n")
    answer = polylocal("run", "-P", "lr=fast")
    assert (answer.code, "-P, params.lr: `fast` is not a whole number." in answer.err) == (1, True)
    answer = polylocal("run", "-P", "lr=1", "-P", "rate=1")
    assert "Received unexpected params `['rate']`" in answer.err


def test_what_the_daemon_finds_is_told_by_file_line_and_key(folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(f"{JOB}environment:\n  persistence:\n    data: [nope]\n")
    answer = polylocal("run", "-c")
    wanted = "polyaxonfile.yml, line 9, environment.persistence.data: no data folder `nope`"
    assert (answer.code, wanted in answer.err, "content:" in answer.err) == (1, True, False)


def test_a_name_that_no_param_has_is_a_warning(folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(JOB.replace("hello", "{{ lrr }}"))
    answer = polylocal("run", "-c")
    assert answer.code == 0
    assert "Warning: polyaxonfile.yml, line 6, run.cmd: `lrr` in a template is not a param" in answer.err


def test_a_restart_takes_files_and_params(folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(XP + "params: {lr: 1, n: 2}\n")
    made(polylocal)
    (folder / "more.yml").write_text("tags: [again]\n")
    answer = polylocal("restart", "experiment/1", "--json", "-f", "more.yml", "-P", "lr=3")
    found = json.loads(answer.out)
    assert (found["params"], found["tags"]) == ({"lr": 3, "n": 2}, ["again"])


def test_a_byte_order_mark_is_no_part_of_a_file(folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(f"\ufeff{JOB}", encoding="utf-8")
    assert made(polylocal)["last_status"] == "created"
