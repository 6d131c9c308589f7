"""The options `run -e` and `run --name` with templates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import JOB, Cli


@pytest.fixture(autouse=True)
def _daemon(daemon: str, folder: Path) -> None:
    """Each test needs the daemon and the project."""


def env_vars(polylocal: Cli, *arguments: str) -> object:
    answer = polylocal(*arguments, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)["config"]["environment"]["env_vars"]


def test_variables_of_the_command_line_go_over_the_file(
    folder: Path, polylocal: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "polyaxonfile.yml").write_text(f"{JOB}environment:\n  env_vars: [[MODE, slow], [OTHER, 1]]\n")
    monkeypatch.setenv("MINE", "{{ as it is }}")
    found = env_vars(polylocal, "run", "-c", "-e", "MODE=fast", "--env", "MINE", "-e", "EMPTY=", "-e", "SIGN=a=b")
    assert found == {"MODE": "fast", "OTHER": "1", "MINE": "{{ as it is }}", "EMPTY": "", "SIGN": "a=b"}


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_a_run_again_with_another_value(how: str, folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(f"{JOB}environment:\n  env_vars: [[MODE, slow], [OTHER, 1]]\n")
    env_vars(polylocal, "run", "-c")
    assert env_vars(polylocal, how, "job/1", "-e", "MODE=fast") == {"MODE": "fast", "OTHER": "1"}


def test_show_names_them_on_one_line_each(polylocal: Cli) -> None:
    polylocal("run", "-c", "-e", "LINES=a\nb\x1b[31m", "-e", f"LONG={'x' * 300}")
    shown = polylocal("show", "job/1").out
    assert "LINES=a\\nb\\x1b[31m\n" in shown
    assert (shown.count("x" * 200), shown.count("x" * 201), shown.count("…")) == (1, 0, 1)


@pytest.mark.parametrize("given", ["=x", "", " =x"])
def test_a_variable_needs_a_name(given: str, polylocal: Cli) -> None:
    answer = polylocal("run", "-e", given)
    assert (
        answer.code,
        f"-e takes NAME=VALUE, or the NAME of a variable of this shell, not `{given}`" in answer.err,
    ) == (
        1,
        True,
    )


def test_a_variable_that_the_shell_lacks(polylocal: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    answer = polylocal("run", "-e", "NOWHERE")
    assert (answer.code, "-e NOWHERE: this shell has no variable of that name" in answer.err) == (1, True)
    monkeypatch.setenv("BYTES", "\udcff")
    answer = polylocal("run", "-e", "BYTES")
    assert (answer.code, "-e BYTES: the value is not valid UTF-8" in answer.err) == (1, True)


def test_a_variable_that_no_run_may_have_is_told_by_the_option(polylocal: Cli) -> None:
    answer = polylocal("run", "-e", "POLYAXON_API=x")
    assert (answer.code, "-e, environment.env_vars.POLYAXON_API: " in answer.err) == (1, True)


def test_a_name_with_a_template(folder: Path, polylocal: Cli) -> None:
    (folder / "polyaxonfile.yml").write_text(f"{JOB.replace('job', 'experiment')}name: other\nparams: {{lr: 0.5}}\n")
    made = polylocal("run", "-c", "--json", "--name", "x-{{ lr }}", "-P", "lr=0.1")
    assert (made.code, json.loads(made.out)["name"]) == (0, "x-0.1")
    plain = polylocal("run", "--json", "--name", "mine")
    assert json.loads(plain.out)["name"] == "mine"
    answer = polylocal("run", "--name", "x-{{ lr")
    assert (answer.code, "--name, name: the template can't be rendered" in answer.err) == (1, True)


def test_a_group_keeps_the_template_of_its_name(folder: Path, polylocal: Cli) -> None:
    tuning = "hptuning: {matrix: {lr: {values: [0.1, 0.2]}}}\n"
    (folder / "polyaxonfile.yml").write_text(JOB.replace("job", "group") + tuning)
    made = polylocal("run", "-c", "--json", "--name", "x-{{ lr }}")
    assert (made.code, json.loads(made.out)["name"]) == (0, "x-{{ lr }}")
