"""The lock of the home folder, and the announcement of the running daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import eventually

from polylocal.daemon import home_lock
from polylocal.daemon.home_lock import Running
from polylocal.errors import SetupError
from polylocal.paths import Home

HOLD = """
import sys, signal, os
from pathlib import Path
from polylocal.daemon import home_lock
from polylocal.paths import Home
lock = home_lock.take(Home(Path(sys.argv[1])))
home_lock.announce(lock, home_lock.Running(os.getpid(), "http://here"))
signal.pause()
"""


LOOK = """
import sys
from pathlib import Path
from polylocal.daemon import home_lock
from polylocal.paths import Home
print("looking", flush=True)
while True:
    home_lock.running(Home(Path(sys.argv[1])))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def other(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """A separate process that holds the lock of the home folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(home.root)]) as process:
        eventually(lambda: (found := home_lock.running(home)) and found.url)
        yield process
        process.kill()


def test_no_daemon_is_running(home: Home) -> None:
    assert home_lock.running(home) is None
    assert home_lock.stop(home) is None


def test_the_holder_is_reported(home: Home) -> None:
    with home_lock.take(home) as lock:
        home_lock.announce(lock, Running(42, "http://x"))
        assert home_lock.running(home) == Running(42, "http://x")
    assert home_lock.running(home) is None


def test_before_the_announcement_the_holder_has_no_address(home: Home) -> None:
    with home_lock.take(home):
        assert home_lock.running(home) == Running(os.getpid(), "")


def test_a_process_without_an_announcement_gets_no_signal(home: Home) -> None:
    with home_lock.take(home) as lock:
        lock.truncate(0)
        with pytest.raises(SetupError, match="just starting"):
            home_lock.stop(home)


def test_a_second_daemon_is_refused_with_the_address_of_the_first(home: Home) -> None:
    with home_lock.take(home) as lock:
        home_lock.announce(lock, Running(42, "http://x"))
        with pytest.raises(SetupError, match=r"process 42, http://x"):
            home_lock.take(home)
        assert home_lock.running(home) == Running(42, "http://x")


def test_the_announcement_of_an_earlier_daemon_is_ignored(home: Home) -> None:
    with home_lock.take(home) as lock:
        home_lock.announce(lock, Running(4242, "http://a-longer-address"))
    with home_lock.take(home) as lock:
        home_lock.announce(lock, Running(1, "x"))
        assert home_lock.running(home) == Running(1, "x")


def test_the_lock_dies_with_its_process(home: Home, other: subprocess.Popen[bytes]) -> None:
    assert home_lock.running(home) == Running(other.pid, "http://here")
    other.kill()
    other.wait()
    assert home_lock.running(home) is None


def test_a_daemon_is_stopped(home: Home, other: subprocess.Popen[bytes]) -> None:
    reaper = threading.Thread(target=other.wait)
    reaper.start()
    assert home_lock.stop(home) == Running(other.pid, "http://here")
    reaper.join()
    assert home_lock.running(home) is None


@pytest.fixture
def looker(home: Home) -> Iterator[None]:
    """A separate process that keeps reading who holds the lock."""
    home_lock.take(home).close()
    with subprocess.Popen([sys.executable, "-c", LOOK, str(home.root)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


@pytest.mark.usefixtures("looker")
def test_a_reader_of_the_lock_keeps_no_daemon_from_starting(home: Home) -> None:
    for _ in range(200):
        home_lock.take(home).close()
