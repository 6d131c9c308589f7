"""The commands of the README, executed literally."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_polylocal
from support import Daemon

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def blocks() -> list[str]:
    return re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_the_curl_lines_work_when_pasted(daemon: Daemon, cli_env: dict[str, str]) -> None:
    """The port and the program `polylocal` are replaced by those of the test."""
    script = next(block for block in blocks() if "curl" in block).replace("http://127.0.0.1:8000", daemon.url)
    script = f'set -e\npolylocal() {{ "{sys.executable}" -m polylocal "$@"; }}\n{script}'
    before = re.sub(r"jobs/1\b", "jobs/$ID", script)
    env = {**cli_env, "ID": str(_next_job(daemon))}
    done = subprocess.run(["bash", "-c", before], env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "\n42\n" in f"\n{done.stdout}".replace("}42", "}\n42"), done.stdout
    assert '"last_status":"succeeded"' in done.stdout
    assert '"status":"succeeded"' in done.stdout


def _next_job(daemon: Daemon) -> int:
    client = daemon.client()
    try:
        return max((run["id"] for run in client.runs(kind="job", is_open=False, limit=1000)), default=0) + 1
    finally:
        client.close()


def test_every_program_that_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", text):
        assert (ROOT / path).exists(), path
    for script in re.findall(r"\./(scripts/\w+)", text):
        assert (ROOT / script).stat().st_mode & 0o111, script


def test_the_commands_that_the_readme_names_exist(cli_env: dict[str, str]) -> None:
    words = set(re.findall(r"polylocal (\w+)", (ROOT / "README.md").read_text())) - {"is"}
    for word in words:
        assert run_polylocal(word, "--help", environment=cli_env).returncode == 0, word
