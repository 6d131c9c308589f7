"""The commands of the documentation about packages, executed literally."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import Daemon

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "packages" / "README.md"


def blocks(page: Path) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)


def typed(script: str, daemon: Daemon, env: dict[str, str]) -> str:
    """The output of a command. The port and the program `polylocal` are replaced by those of the test."""
    port = daemon.url.rpartition(":")[2]
    here = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    here = f'set -e\npolylocal() {{ "{sys.executable}" -m polylocal "$@"; }}\n{here}'
    done = subprocess.run(["bash", "-c", here], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def env(cli_env: dict[str, str], daemon: Daemon) -> dict[str, str]:
    assert shutil.which("curl")
    return {**cli_env, "HOME": str(daemon.home)}


def test_the_curl_lines_work_when_pasted(daemon: Daemon, env: dict[str, str]) -> None:
    (script,) = blocks(ROOT / "docs" / "abf.md")
    said = typed(script, daemon, env)
    assert "dpkg-deb: building package 'hello-polylocal'" in said
    assert "Build is queued for publishing" in said
    assert re.search(r"^Filename: \./pool/[0-9a-f]{40}/hello-polylocal_1\.0_all\.deb$", said, re.M)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("deb", "Hello from a Debian package that polylocal built."),
        ("wheel", "Hello from a wheel that polylocal built."),
        ("rpm", "Hello from an RPM package that polylocal built."),
    ],
)
def test_the_examples_work_when_pasted(daemon: Daemon, env: dict[str, str], name: str, last: str) -> None:
    script = next(block for block in blocks(EXAMPLES) if f"examples/packages/{name}" in block)
    assert typed(script, daemon, env).rstrip().endswith(last)
