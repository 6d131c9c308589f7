"""Imports of commands: they determine the time of a short command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .conftest import Cli

_PROGRAM = """\
import json, sys
sys.argv[0] = "polylocal"
from polylocal.cli import main
try:
    main()
finally:
    json.dump(sorted(sys.modules), sys.stderr)
"""
_SERVER = {"docker", "starlette", "uvicorn", "pydantic", "sqlite3", "jinja2", "polylocal.api", "polylocal.store"}
_HTTP = {"httpx2", "requests", "urllib3", "urllib.request", "websockets", "aiohttp"}


def imported(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout
    return set(json.loads(done.stderr))


def test_the_version_imports_no_parser() -> None:
    assert not imported("--version") & (_SERVER | _HTTP | {"typer", "rich", "http.client"})


def test_the_help_imports_no_client_and_no_server() -> None:
    assert not imported("--help") & (_SERVER | _HTTP)


@pytest.mark.usefixtures("daemon", "project")
def test_a_list_imports_one_http_client_and_no_server() -> None:
    found = imported("ls")
    assert "http.client" in found
    assert not found & (_SERVER | _HTTP)


def test_a_misspelled_command_is_compared_with_all(polylocal: Cli) -> None:
    result = polylocal("packge")
    assert result.code == 2
    assert "Did you mean 'package'?" in result.err


def test_a_daemon_starts_without_what_it_does_not_use_yet() -> None:
    modules = "polylocal.cli.serve, polylocal.daemon.daemon_log, polylocal.daemon.main"
    program = f"import sys; import {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert "docker" in found
    assert not found & {
        "rich",
        "jinja2",
        "httpx2",
        "pynvml",
        "sqlite_utils",
        "numpy",
        "sklearn",
        "packaging.requirements",
    }
