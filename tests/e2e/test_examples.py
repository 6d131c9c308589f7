"""Every folder in examples/ runs with the real engine, and has the results of its expect.json."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from programs import run_polylocal

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/polyaxonfile.yml"))


def polylocal(env: dict[str, str], *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run_polylocal(*arguments, environment=env, folder=cwd, timeout_s=600)


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_example(folder: Path, cli_env: dict[str, str]) -> None:
    expected: dict[str, Any] = json.loads((folder / "expect.json").read_text())
    done = polylocal(cli_env, "run", "-u", "-l", "--create", "--project", folder.name, cwd=folder)
    assert (done.returncode == 0) == (expected["status"] == "succeeded"), done.stdout + done.stderr
    found = json.loads(polylocal(cli_env, "ls", "--json", "--project", folder.name).stdout)[0]
    assert found["last_status"] == expected["status"]
    run = f"job/{found['id']}"
    for text in expected["log_contains"]:
        assert text in done.stdout
    outputs = Path(polylocal(cli_env, "outputs", run).stdout.strip())
    assert all((outputs / name).stat().st_size for name in expected["outputs"])
    metrics = json.loads((outputs / "metrics.json").read_text())
    for name, bounds in expected["metrics"].items():
        assert metrics[name] >= bounds["min"]
    again = polylocal(cli_env, "run", "-l", "--project", folder.name, cwd=folder)
    assert "the image exists already and is reused" in again.stderr


def test_there_are_examples() -> None:
    assert EXAMPLES
