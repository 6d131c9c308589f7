"""Processes with limits and an end.

A process has a limit of time, of memory and of what it writes, and ends with all of its children when the operation
that it is part of is cancelled.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from polylocal.errors import InvalidInput
from polylocal.system.cancellation import Cancel, Cancelled, current

# the limits are set by the shell and not by Python: nothing of this process runs between fork and exec
_LIMITED = 'for limit in "-v $1" "-f $2" "-t $3"; do ulimit $limit 2>/dev/null || :; done; shift 3; exec "$@"'
_CHUNK = 1 << 16
_MOST_WORDS = 1 << 16  # bytes of stderr that are kept
_BLOCKS = 512  # bytes in a block of `ulimit -f`
_GRACE_S = 2.0  # in which a process removes its lock files
_UNLIMITED = "unlimited"
_OUTGREW = re.compile(r"died of signal 25|File too large")


@dataclass(frozen=True)
class Limits:
    """What one process, with its children, may take."""

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
        """A file became larger than `file_bytes`, for the process or a child of its."""
        return self.returncode == -signal.SIGXFSZ or _OUTGREW.search(self.words) is not None


class TimedOut(InvalidInput):
    """A process took longer than it may."""


class TooMuchOutput(InvalidInput):
    """A process wrote more than is taken into memory."""


def limited(command: Sequence[str], limits: Limits) -> list[str]:
    """A command that has the limits of memory, CPU time and file size of the system, with its children."""
    blocks = _UNLIMITED if limits.file_bytes is None else str(max(1, limits.file_bytes // _BLOCKS))
    memory, seconds = str(limits.memory_mib << 10), str(int(limits.seconds) + 1)
    return ["/bin/sh", "-c", _LIMITED, command[0], memory, blocks, seconds, *command]


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
            raise Cancelled("It was ended.")
    except BaseException as error:
        end(process)
        if cancel.called and isinstance(error, Exception):
            raise Cancelled("It was ended.") from None
        raise
    if not goes_on:
        end(process)


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


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the process and its children. Its number may be another one's after its end."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses it for a group of which all have ended
            os.killpg(process.pid, number)


def collected(process: subprocess.Popen[bytes], command: str, limits: Limits) -> tuple[bytes, bytes]:
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
                raise TooMuchOutput([f"{command} gave more than {limits.output >> 20} MiB."])
    try:
        process.wait(max(_GRACE_S, until - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise _too_slow(command, limits) from error
    return bytes(kept.get(process.stdout, b"")), bytes(kept.get(process.stderr, b""))  # type: ignore[arg-type]


def _too_slow(command: str, limits: Limits) -> TimedOut:
    return TimedOut([f"{command} took longer than {limits.seconds:g} seconds."])
