"""The lock file of a home folder. A daemon holds it until its process ends, and writes its URL into it."""

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
_READERS_S = 0.5  # seconds to wait for processes that test the lock


@dataclass(frozen=True)
class Running:
    """A daemon that holds the lock. `url` is empty during its start."""

    pid: int
    url: str


def running(home: Home) -> Running | None:
    """The daemon of a home folder; None if none runs."""
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
    """Stop the daemon of a home folder; its containers continue. Returns None if none ran. Raises SetupError."""
    found = running(home)
    if found is None:
        return None
    deadline = time.monotonic() + timeout_s
    _terminate(found.pid)
    while running(home):
        if time.monotonic() > deadline:
            raise SetupError(f"the daemon (process {found.pid}) did not end within {timeout_s:g} s; `kill -9` is safe")
        time.sleep(0.05)
    return found


def _terminate(pid: int) -> None:
    if pid <= 0:  # it has not written its pid yet; kill(0) would signal our own process group
        raise SetupError("a daemon is just starting here; try again in a moment")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has ended already


def take(home: Home) -> IO[str]:
    """Take the lock, for the life of this process. The caller must keep the file. Raises SetupError."""
    file = home.lock.open("a+")
    deadline = time.monotonic() + _READERS_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:  # the holder may be a process that only tests the lock
                time.sleep(0.02)
                continue
            other = running(home)
            file.close()
            where = f"{home.root} (process {other.pid}, {other.url})" if other else str(home.root)
            raise SetupError(f"another daemon is running for {where}; stop it with `polylocal stop`") from None
        announce(file, Running(os.getpid(), ""))
        return file


def announce(lock: IO[str], here: Running) -> None:
    """Write pid and URL into the lock file. Raises SetupError if the disk is full."""
    try:
        lock.truncate(0)
        lock.write(json.dumps({"pid": here.pid, "url": here.url}))
        lock.flush()
    except OSError as error:
        raise SetupError(f"{lock.name} can't be written: {error.strerror}; free some space there") from error
