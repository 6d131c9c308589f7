"""The programs that packages are read and repositories are written with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from polylocal import processes
from polylocal.errors import PolylocalError

TIMEOUT_S = 600
MOST_OUTPUT = 256 << 20  # bytes: an index of a repository
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
    limits = processes.Limits(seconds=TIMEOUT_S, output=MOST_OUTPUT)
    process = subprocess.Popen(
        processes.limited([program, *command[1:]], limits),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    )
    try:
        with processes.ending(process):
            out, err = processes.collected(process, command[0], limits)
    except processes.TimedOut as error:
        raise ToolError(f"{command[0]} did not end within {TIMEOUT_S} s") from error
    except processes.TooMuchOutput as error:
        raise ToolError(f"{command[0]} wrote more than {MOST_OUTPUT >> 20} MiB") from error
    if process.returncode:
        words = err.decode(errors="replace").strip() or f"exit code {process.returncode}"
        raise ToolError(f"{command[0]} failed: {words}")
    return out
