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


def test_nobody_is_at_home(home: Home) -> None:
    assert home_lock.running(home) is None
    assert home_lock.stop(home) is None


def test_who_has_taken_it_is_told(home: Home) -> None:
    with home_lock.take(home) as lock:
        home_lock.announce(lock, Running(42, "http://x"))
        assert home_lock.running(home) == Running(42, "http://x")
    assert home_lock.running(home) is None


def test_between_taking_and_announcing_there_is_someone_without_an_address(home: Home) -> None:
    with home_lock.take(home):
        assert home_lock.running(home) == Running(os.getpid(), "")


def test_nobody_is_signalled_who_has_not_said_who_he_is(home: Home) -> None:
    with home_lock.take(home) as lock:
        lock.truncate(0)
        with pytest.raises(SetupError, match="just starting"):
            home_lock.stop(home)


def test_a_second_daemon_is_refused_and_told_of_the_first(home: Home) -> None:
    with home_lock.take(home) as lock:
        home_lock.announce(lock, Running(42, "http://x"))
        with pytest.raises(SetupError, match=r"process 42, http://x"):
            home_lock.take(home)
        assert home_lock.running(home) == Running(42, "http://x")


def test_what_an_earlier_daemon_left_is_forgotten(home: Home) -> None:
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
def test_someone_who_only_looks_keeps_no_daemon_from_starting(home: Home) -> None:
    for _ in range(200):
        home_lock.take(home).close()
