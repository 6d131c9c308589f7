"""Child processes with limits of time, memory and output.

A process ends, with all its children, when its operation is cancelled.
"""

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

# a shell sets the limits, so that no Python code runs between fork and exec
_LIMITED = 'for limit in "-v $1" "-f $2" "-t $3"; do ulimit $limit 2>/dev/null || :; done; shift 3; exec "$@"'
_CHUNK = 1 << 16
_MAX_STDERR = 1 << 16  # last bytes of stderr to keep
_BLOCKS = 512  # bytes in a block of `ulimit -f`
_GRACE_S = 2.0  # seconds for a process to remove its lock files
_UNLIMITED = "unlimited"
_FILE_TOO_LARGE = re.compile(r"died of signal 25|File too large")


@dataclass(frozen=True)
class Limits:
    """Limits of a process and its children."""

    seconds: float = 600.0
    memory_mib: int = 2048  # address space of each process
    output: int = 32 << 20  # most bytes of standard output read into memory
    file_bytes: int | None = None  # largest file that it may write; None: no limit


DEFAULT = Limits()
QUICK = Limits(seconds=30.0)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def message(self) -> str:
        return self.stderr.decode(errors="replace").strip()

    @property
    def exceeded_file_size(self) -> bool:
        """Whether the process or a child exceeded `file_bytes`."""
        return self.returncode == -signal.SIGXFSZ or _FILE_TOO_LARGE.search(self.message) is not None


class TimedOut(InvalidInput):
    """A process exceeded its time limit."""


class TooMuchOutput(InvalidInput):
    """A process wrote more output than its limit."""


def limited_command(command: Sequence[str], limits: Limits) -> list[str]:
    """A command that runs another one under the system's limits of memory, CPU time and file size."""
    blocks = _UNLIMITED if limits.file_bytes is None else str(max(1, limits.file_bytes // _BLOCKS))
    memory, seconds = str(limits.memory_mib << 10), str(int(limits.seconds) + 1)
    return ["/bin/sh", "-c", _LIMITED, command[0], memory, blocks, seconds, *command]


@contextmanager
def terminating(process: subprocess.Popen[bytes], *, keeps_running: bool = False) -> Iterator[None]:
    """End a process and its children at the end of a block; with `keeps_running`, only if the block fails.

    A cancellation of the operation ends the process at once, and the block raises Cancelled.
    """
    cancel = current() or Cancel()
    try:
        with cancel.hook(lambda: _signal(process, signal.SIGTERM)):
            yield
        if cancel.called:
            raise Cancelled("The operation was cancelled.")
    except BaseException as error:
        terminate(process)
        if cancel.called and isinstance(error, Exception):
            raise Cancelled("The operation was cancelled.") from None
        raise
    if not keeps_running:
        terminate(process)


def terminate(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, and close its pipes. Idempotent."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with suppress(BrokenPipeError):  # unread input does not matter
                pipe.close()
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the process and its children, unless it has ended: its pid may be reused."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: all processes of the group have ended
            os.killpg(process.pid, number)


def collect_output(process: subprocess.Popen[bytes], command: str, limits: Limits) -> tuple[bytes, bytes]:
    """Wait for the end of a process. Returns its stdout and stderr. Raises TimedOut, TooMuchOutput."""
    kept = {pipe: bytearray() for pipe in (process.stdout, process.stderr) if pipe}
    until = time.monotonic() + limits.seconds
    with selectors.DefaultSelector() as selector:
        for pipe in kept:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():  # the process closes both at its end
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
                del kept[process.stderr][:-_MAX_STDERR]
            if process.stdout and len(kept[process.stdout]) > limits.output:
                raise TooMuchOutput([f"{command} wrote more than {limits.output >> 20} MiB."])
    try:
        process.wait(max(_GRACE_S, until - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise _too_slow(command, limits) from error
    return bytes(kept.get(process.stdout, b"")), bytes(kept.get(process.stderr, b""))  # type: ignore[arg-type]


def _too_slow(command: str, limits: Limits) -> TimedOut:
    return TimedOut([f"{command} took longer than {limits.seconds:g} seconds."])
