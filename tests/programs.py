"""Starts programs from a process that has imported them already. See fork_server.py."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Protocol

_SERVER = Path(__file__).with_name("fork_server.py")
_READ_AT_START = ("PYTHON", "LC_", "LANG")  # variables with these prefixes act on the start of an interpreter


class Process(Protocol):
    """The part of `subprocess.Popen` that tests use."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...


class ForkedProcess:
    """A process that a fork server started. `answer`: a pipe that gets the process id and the exit code."""

    def __init__(self, program: Sequence[str], answer: int) -> None:
        self._program = program
        self._answer = answer
        self._code: int | None = None
        self.pid = int(self._line())

    def poll(self) -> int | None:
        """The exit code; None: it still runs."""
        if self._code is None and select.select([self._answer], [], [], 0)[0]:
            self._read()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code. `timeout` in seconds; raises TimeoutExpired after it."""
        if self._code is None and not select.select([self._answer], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self._program, timeout or 0)
        return self._read() if self._code is None else self._code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read(self) -> int:
        self._code = int(self._line())
        os.close(self._answer)
        return self._code

    def _line(self) -> bytes:
        read = b""
        while (byte := os.read(self._answer, 1)) not in (b"\n", b""):
            read += byte
        if not read:
            raise RuntimeError(f"the fork server has ended, its error is on standard error; {self._program} is lost")
        return read


class ForkServer:
    """Starts the programs of one Python environment."""

    def __init__(self, door: socket.socket, environment: Mapping[str, str]) -> None:
        self._door = door
        self._environment = environment

    def can_start(self, environment: Mapping[str, str]) -> bool:
        """Whether a new interpreter would not differ from this one because of its environment."""
        return _variables_at_start(environment) == _variables_at_start(self._environment)

    def start(
        self,
        program: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes],
        stderr: IO[bytes],
    ) -> ForkedProcess:
        """Start `program`, in this process's working folder if none is given. The caller has to wait for its end."""
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as order, open(os.devnull, "rb") as nothing:
            where = str(folder or Path.cwd())
            order.write(json.dumps({"program": program, "folder": where, "environment": {**environment}}).encode())
            order.flush()
            order.seek(0)
            files = (order, stdin or nothing, stdout, stderr)
            socket.send_fds(self._door, [b"!"], [*(file.fileno() for file in files), writing])
        os.close(writing)
        return ForkedProcess(program, reading)


def _variables_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


@contextmanager
def fork_server(
    python: str, function: str, *modules: str, environment: Mapping[str, str], log: IO[bytes] | None = None
) -> Iterator[ForkServer]:
    """A fork server for `function`, as `module:name`, that imports `modules` as well. Ends at the end of the block.

    `log` gets its own errors; None: this process's standard error.
    """
    here, there = socket.socketpair()
    with here:
        with there:
            command = [python, str(_SERVER), str(there.fileno()), function, *modules]
            process = subprocess.Popen(
                command,
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},  # threads don't survive a fork
            )
        yield ForkServer(here, environment)
    process.wait()  # it ends by itself: no more orders can come


@cache
def _polylocal_server() -> ForkServer:
    """One for each process of pytest, until that ends."""
    stack = ExitStack()
    modules = ("polylocal.cli.commands", "polylocal.daemon.main")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLYLOCAL_")}
    server = stack.enter_context(fork_server(sys.executable, "polylocal.cli:main", *modules, environment=environment))
    atexit.register(stack.close)
    return server


def start_polylocal(
    program: Sequence[str], environment: Mapping[str, str], output: IO[bytes], prefix: Sequence[str] = ()
) -> Process:
    """Start `python …` with these arguments: `-m polylocal …`, or a script that imports polylocal.

    `prefix`: a command that runs Python. A new interpreter is started for it, and for an environment that needs one.
    """
    server = _polylocal_server()
    if not prefix and server.can_start(environment):
        return server.start(program, environment=environment, stdout=output, stderr=output)
    return subprocess.Popen(
        [*prefix, sys.executable, *program],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=dict(environment),
    )


def run_polylocal(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    input: str = "",
    timeout_s: float = 100,
) -> subprocess.CompletedProcess[str]:
    """Run `polylocal …` to its end. `environment`: that of this process if it is not given."""
    environment = os.environ if environment is None else environment
    server = _polylocal_server()
    assert server.can_start(environment), "start a new interpreter for another locale or other settings of Python"
    with ExitStack() as stack:
        stdin, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        stdin.write(input.encode())
        stdin.flush()
        stdin.seek(0)
        program = ["-m", "polylocal", *arguments]
        process = server.start(
            program, environment=environment, folder=folder, stdin=stdin, stdout=stdout, stderr=stderr
        )
        try:
            code = process.wait(timeout_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(program, code, _text(stdout), _text(stderr))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
