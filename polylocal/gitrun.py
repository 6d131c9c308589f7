"""Runs the `git` command: each git process of polylocal starts here.

A process has a limit of time, of memory and of what it writes, gets nothing of this process' environment but what is
given, and ends with all of its children when the operation that it is part of is cancelled.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from polylocal.cancelling import Cancel, Cancelled, current
from polylocal.errors import InvalidInput, SetupError

# nobody's own git settings (signing, hooks, line ends) reach in here
ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
}
# what git takes into memory at a time; without these the limit of memory would end ordinary work on large files
_MODEST = {
    "core.protectNTFS": "false",
    "core.protectHFS": "false",
    "core.bigFileThreshold": "64m",  # larger files are passed through in pieces
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
# the limits are set by the shell and not by Python: nothing of this process runs between fork and exec
_LIMITED = 'for limit in "-v $1" "-f $2" "-t $3"; do ulimit $limit 2>/dev/null || :; done; shift 3; exec "$@"'
_CHUNK = 1 << 16
_MOST_WORDS = 1 << 16  # bytes of stderr that are kept
_BLOCKS = 512  # bytes in a block of `ulimit -f`
_GRACE_S = 2.0  # in which git removes its lock files
_UNLIMITED = "unlimited"
_OUTGREW = re.compile(r"died of signal 25|File too large")


@dataclass(frozen=True)
class Limits:
    """What one git process, with its children, may take."""

    seconds: float = 600.0
    memory_mib: int = 2048  # address space of each process
    output: int = 32 << 20  # bytes on a standard output that is read into memory
    file_bytes: int | None = None  # of each file that it writes; None: any


DEFAULT = Limits()
QUICK = Limits(seconds=30.0)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def words(self) -> str:
        return self.stderr.decode(errors="replace").strip()

    @property
    def outgrew(self) -> bool:
        """A file became larger than `file_bytes`, for git itself or for a child of its."""
        return self.returncode == -signal.SIGXFSZ or _OUTGREW.search(self.words) is not None


class TimedOut(InvalidInput):
    """git took longer than it may."""


class TooMuchOutput(InvalidInput):
    """git wrote more than is taken into memory."""


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
    """Run git to its end, with the variables of `base`, where the repository is, and those of `env`.

    Raises TimedOut, TooMuchOutput, Cancelled; SetupError: there is no git.
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
        with ending(process):
            out, err = _collected(process, arguments[0], limits)
        return Done(process.returncode, out, err)


@contextmanager
def ending(process: subprocess.Popen[bytes], *, goes_on: bool = False) -> Iterator[None]:
    """For a block; at its end the process is ended with its children, if it has not ended by itself.

    `goes_on`: only if the block fails. Cancelling the operation ends the process at once, and raises Cancelled at the
    end of the block.
    """
    cancel = current() or Cancel()
    try:
        with cancel.ending(lambda: _signal(process, signal.SIGTERM)):
            yield
        if cancel.called:
            raise Cancelled("git was ended.")
    except BaseException as error:
        end(process)
        if cancel.called and isinstance(error, Exception):
            raise Cancelled("git was ended.") from None
        raise
    if not goes_on:
        end(process)


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
    """Begin a git process; the caller has to `end` it. Raises SetupError, and InvalidInput for a zero byte."""
    settings = {**_MODEST, **(config or {})}
    command = [_git(env.get("PATH", os.defpath))]
    command += [word for pair in settings.items() for word in ("-c", "=".join(pair))]
    command += arguments
    if any("\0" in word for word in command):
        raise InvalidInput(["A name in a git command holds a zero byte."])
    return subprocess.Popen(
        [*_limiting(limits), *command],
        env=dict(env),
        cwd=cwd,
        stdin=stdin,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=stderr,
        start_new_session=True,  # a group of its own, that can be ended as a whole; and no terminal to ask at
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process with its children, and close its pipes. Idempotent."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with suppress(BrokenPipeError):  # what it did not take, nobody misses
                pipe.close()
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _git(path: str) -> str:
    found = shutil.which("git", path=path)
    if found is None:
        raise SetupError("the program `git` is not installed; polylocal keeps uploaded code with it")
    return found


def version() -> tuple[int, ...]:
    """(2, 39, 5)"""
    return _version(_git(_path()))


@lru_cache
def _version(program: str) -> tuple[int, ...]:
    said = subprocess.run([program, "--version"], capture_output=True, check=False, timeout=QUICK.seconds).stdout
    return tuple(int(part) for part in re.findall(rb"\d+", said)[:3])


def _path() -> str:
    return os.environ.get("PATH", os.defpath)


def _limiting(limits: Limits) -> list[str]:
    blocks = _UNLIMITED if limits.file_bytes is None else str(max(1, limits.file_bytes // _BLOCKS))
    return ["/bin/sh", "-c", _LIMITED, "git", str(limits.memory_mib << 10), blocks, str(int(limits.seconds) + 1)]


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the process and its children. Its number may be another one's after its end."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses it for a group of which all have ended
            os.killpg(process.pid, number)


def _collected(process: subprocess.Popen[bytes], command: str, limits: Limits) -> tuple[bytes, bytes]:
    """What a process writes until its end. Raises TimedOut, TooMuchOutput."""
    kept = {pipe: bytearray() for pipe in (process.stdout, process.stderr) if pipe}
    until = time.monotonic() + limits.seconds
    with selectors.DefaultSelector() as selector:
        for pipe in kept:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():  # both are closed at its end
            left = until - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                raise _too_slow(command, limits)
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                kept[key.fileobj] += chunk  # type: ignore[index]  # registered above
            if process.stderr:
                del kept[process.stderr][:-_MOST_WORDS]
            if process.stdout and len(kept[process.stdout]) > limits.output:
                raise TooMuchOutput([f"git {command} gave more than {limits.output >> 20} MiB."])
    try:
        process.wait(max(_GRACE_S, until - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise _too_slow(command, limits) from error
    return bytes(kept.get(process.stdout, b"")), bytes(kept.get(process.stderr, b""))  # type: ignore[arg-type]


def _too_slow(command: str, limits: Limits) -> TimedOut:
    return TimedOut([f"git {command} took longer than {limits.seconds:g} seconds."])


def lines_of(words: Sequence[str]) -> bytes:
    """Lines for a git command that reads from its standard input."""
    return "".join(f"{line}\n" for line in words).encode("utf-8", "surrogateescape")
