"""The programs that packages are read and repositories are written with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from polylocal.errors import PolylocalError

TIMEOUT_S = 600
_OF_PACKAGE = {
    "dpkg-deb": "dpkg",
    "dpkg-scanpackages": "dpkg-dev",
    "dpkg-scansources": "dpkg-dev",
    "apt-ftparchive": "apt-utils",
}


class ToolError(PolylocalError):
    """A program is missing, or did not like what it was given; the message has its own words."""


def missing() -> list[str]:
    """Debian packages with the programs that are not on this machine."""
    return sorted({package for program, package in _OF_PACKAGE.items() if shutil.which(program) is None})


def run(command: Sequence[str], folder: Path) -> bytes:
    """What a program prints. Raises ToolError."""
    program = shutil.which(command[0])
    if program is None:
        package = _OF_PACKAGE.get(command[0], command[0])
        raise ToolError(f"the program `{command[0]}` is not on this machine: install {package}")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{command[0]} did not end within {TIMEOUT_S} s") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ToolError(f"{command[0]} failed: {words}")
    return done.stdout
