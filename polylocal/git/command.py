"""Runs the `git` command. No other module starts git.

A git process has limits of time, memory and output. It gets a separate environment, not the daemon's. It ends with
all its children when its operation is cancelled.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO

from polylocal.errors import InvalidInput, SetupError
from polylocal.system import processes
from polylocal.system.processes import DEFAULT, QUICK, Done, Limits

_CHUNK = 1 << 20
PINS_SINCE = (2, 37)  # `http.curloptResolve`

# excludes the git settings of the user and the system: signing, hooks, line ends
ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
}
# smaller buffers than git's defaults, with which work on large files would exceed the memory limit
_SMALL_BUFFERS = {
    "core.protectNTFS": "false",
    "core.protectHFS": "false",
    "core.bigFileThreshold": "64m",  # git streams larger files
    "core.packedGitWindowSize": "32m",
    "core.packedGitLimit": "256m",
    "core.deltaBaseCacheLimit": "64m",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "pack.threads": "2",
    "pack.windowMemory": "128m",
    "pack.deltaCacheSize": "64m",
    "index.threads": "1",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "protocol.ext.allow": "never",
}


def run(
    *arguments: str,
    git_dir: Path,
    env: Mapping[str, str] | None = None,
    base: Mapping[str, str] = ENVIRONMENT,
    config: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
    stdout: IO[bytes] | None = None,
    limits: Limits = DEFAULT,
) -> Done:
    """Run git and wait for its end. Its environment is `base`, PATH, GIT_DIR and `env`.

    Raises TimedOut, TooMuchOutput, Cancelled, SetupError if git is not installed.
    """
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        variables = {**base, "PATH": _path(), "GIT_DIR": str(git_dir), **(env or {})}
        process = start(
            *arguments,
            env=variables,
            config=config,
            cwd=cwd or git_dir.parent,
            stdin=given,
            stdout=stdout,
            limits=limits,
        )
        with processes.terminating(process):
            out, err = processes.collect_output(process, f"git {arguments[0]}", limits)
        return Done(process.returncode, out, err)


def start(
    *arguments: str,
    env: Mapping[str, str],
    config: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | None = None,
    stderr: int = subprocess.PIPE,
    limits: Limits = DEFAULT,
) -> subprocess.Popen[bytes]:
    """Start a git process, which the caller has to end. Raises SetupError, InvalidInput for a NUL byte."""
    settings = {**_SMALL_BUFFERS, **(config or {})}
    command = [_find_git(env.get("PATH", os.defpath))]
    command += [word for pair in settings.items() for word in ("-c", "=".join(pair))]
    command += arguments
    if any("\0" in word for word in command):
        raise InvalidInput(["A name in a git command contains a NUL byte."])
    return subprocess.Popen(
        processes.limited_command(command, limits),
        env=dict(env),
        cwd=cwd,
        stdin=stdin,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=stderr,
        start_new_session=True,  # a process group that can be ended as a whole, without a terminal for prompts
    )


def _find_git(path: str) -> str:
    found = shutil.which("git", path=path)
    if found is None:
        raise SetupError("the program `git` is not installed; polylocal keeps uploaded code with it")
    return found


def version() -> tuple[int, ...]:
    """The version of git, for example (2, 39, 5)."""
    return _version(_find_git(_path()))


@lru_cache
def _version(program: str) -> tuple[int, ...]:
    output = subprocess.run([program, "--version"], capture_output=True, check=False, timeout=QUICK.seconds).stdout
    return tuple(int(part) for part in re.findall(rb"\d+", output)[:3])


def _path() -> str:
    return os.environ.get("PATH", os.defpath)


def names_in(file: IO[bytes]) -> Iterator[str]:
    """The names, each with a NUL character at its end, that git wrote into a temporary file."""
    file.seek(0)
    rest = b""
    while chunk := file.read(_CHUNK):
        *names, rest = (rest + chunk).split(b"\0")
        yield from map(os.fsdecode, names)


def lines_of(words: Sequence[str]) -> bytes:
    """One line per word, for the standard input of a git command."""
    return "".join(f"{line}\n" for line in words).encode("utf-8", "surrogateescape")
