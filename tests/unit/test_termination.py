"""The parent process of a run's command, run as a process of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from polylocal.engine import termination
from polylocal.polyaxonfile.commands import BASH, SH


def run(shell: str, *command: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [*termination.entrypoint(shell), *command], env=env, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def test_variables_whose_names_are_no_identifiers_reach_the_command() -> None:
    env = {"spark.cores": "2", "A-B": " x ", "PLAIN": "y", "PATH": "/usr/bin:/bin"}
    lines = run(BASH, "env", env=env).splitlines()
    assert {f"{name}={value}" for name, value in env.items()} <= set(lines)


@pytest.mark.parametrize("shell", [BASH, SH])
def test_the_files_that_shells_read_at_their_start_are_read_by_the_command_alone(shell: str, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.write_text("echo read\n")
    env = {"BASH_ENV": str(start), "ENV": str(start), "PATH": "/usr/bin:/bin"}
    assert run(shell, BASH, "-c", "echo run", env=env) == "read\nrun\n"
