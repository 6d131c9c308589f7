"""Which daemon has a home folder in hand: a lock that lives as long as its process, with its address inside."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from dataclasses import dataclass
from typing import IO

from polylocal.errors import SetupError
from polylocal.paths import Home

_STOP_S = 15.0
_LOOKERS_S = 0.5


@dataclass(frozen=True)
class Running:
    """A daemon that has a home folder in hand."""

    pid: int
    url: str


def running(home: Home) -> Running | None:
    """The daemon of this home folder, if one runs."""
    try:
        with home.lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                return Running(**json.loads(file.read() or '{"pid": 0, "url": ""}'))
    except FileNotFoundError:
        return None
    return None


def stop(home: Home, timeout_s: float = _STOP_S) -> Running | None:
    """End the daemon of this home folder; its containers go on. None: there was none. Raises SetupError."""
    found = running(home)
    if found is None:
        return None
    deadline = time.monotonic() + timeout_s
    _end(found.pid)
    while running(home):
        if time.monotonic() > deadline:
            raise SetupError(f"the daemon (process {found.pid}) did not end within {timeout_s:g} s; `kill -9` is safe")
        time.sleep(0.05)
    return found


def _end(pid: int) -> None:
    if pid <= 0:  # it has the lock and has not said yet who it is: 0 would mean all of our own group
        raise SetupError("a daemon is just starting here; try again in a moment")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it ended by itself


def take(home: Home) -> IO[str]:
    """The lock of the home folder, held as long as the process lives."""
    file = home.lock.open("a+")
    deadline = time.monotonic() + _LOOKERS_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:  # it may only be somebody who looks, for a moment, whether one runs
                time.sleep(0.02)
                continue
            other = running(home)
            file.close()
            where = f" (process {other.pid}, {other.url})" if other else ""
            raise SetupError(f"another daemon works on {home.root}{where}; end it with `polylocal stop`") from None
        announce(file, Running(os.getpid(), ""))
        return file


def announce(lock: IO[str], here: Running) -> None:
    """Raises SetupError: there is no room even for that."""
    try:
        lock.truncate(0)
        lock.write(json.dumps({"pid": here.pid, "url": here.url}))
        lock.flush()
    except OSError as error:
        raise SetupError(f"{lock.name} can't be written: {error.strerror}; make room there") from error
