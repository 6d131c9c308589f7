"""scripts/pythons: the interpreters for the quick tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/pythons"


@pytest.fixture
def pyenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pyenv's folder of versions. Only interpreters in it are found."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "pyenv/versions"


def install(folder: Path, version: str, says: str | None = None) -> Path:
    """An interpreter that can only print its version."""
    path = folder / version / "bin/python3"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho {version.replace('.', ' ') if says is None else says}\n")
    path.chmod(0o755)
    return path


def pythons(*arguments: str) -> tuple[list[str], str]:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines(), done.stderr


def test_the_oldest_and_the_newest_of_each_version(pyenv: Path) -> None:
    wanted = [install(pyenv, version) for version in ("3.11.2", "3.11.10", "3.12.10", "3.13.0", "3.14.3")]
    for version in ("3.10.99", "3.11.9", "3.12.9", "3.15.0"):
        install(pyenv, version)
    assert pythons() == ([str(path) for path in wanted], "")


def test_a_version_that_is_missing_is_named(pyenv: Path) -> None:
    for version in ("3.11.2", "3.11.10", "3.12.10", "3.13.0"):
        install(pyenv, version)
    install(pyenv, "3.14.0", says="")  # prints nothing, like a pre-release
    found, said = pythons()
    assert len(found) == 4
    assert said == "pythons: Python 3.14 is not on this machine: its tests are left out\n"


def test_an_unknown_argument_is_refused() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--all"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--others" in done.stderr
