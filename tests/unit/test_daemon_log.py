"""The daemon's own log: format, rotation, and failures to write."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from polylocal.daemon import daemon_log
from polylocal.settings import Settings, load

log = logging.getLogger("polylocal.test")


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the configuration of logging after each test."""
    root = logging.getLogger()
    monkeypatch.setattr(logging, "raiseExceptions", True)
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def lines(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in settings.folders.daemon_log.read_text().splitlines()]


def test_an_event(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    daemon_log.configure(settings)
    log.info("listening on %s", "http://ä")
    (found,) = lines(settings)
    assert list(found) == ["time", "level", "logger", "message"]
    assert (found["level"], found["logger"], found["message"]) == ("INFO", "polylocal.test", "listening on http://ä")
    assert found["time"].endswith("+00:00")
    assert len(found["time"]) == len("2018-08-23T00:30:18.674062+00:00")
    assert abs(datetime.fromisoformat(found["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert stat.S_IMODE(settings.folders.daemon_log.stat().st_mode) == 0o600
    assert capsys.readouterr().err.endswith(" INFO listening on http://ä\n")


def test_the_run_that_an_event_is_about(settings: Settings) -> None:
    daemon_log.configure(settings)
    log.info("run=%s: taken up", "job/17")
    log.info("run=%s succeeded", "experiment/4")
    log.info("the run=job/1 in the middle")
    assert [line.get("run") for line in lines(settings)] == ["job/17", "experiment/4", None]


def test_a_failure_keeps_its_traceback_on_its_line(settings: Settings) -> None:
    daemon_log.configure(settings)
    try:
        raise ValueError("odd\nname \udcff")
    except ValueError:
        log.exception("a\nb \udcff")
    (found,) = lines(settings)
    assert found["message"] == "a\nb \udcff"
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ValueError: odd\nname \udcff")


def test_nothing_on_the_screen_in_the_background(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    daemon_log.configure(settings, on_screen=False)
    log.warning("x")
    assert capsys.readouterr() == ("", "")
    assert len(lines(settings)) == 1


def test_the_level_and_who_talks_too_much(settings: Settings) -> None:
    daemon_log.configure(load(home=settings.home, log_level="WARNING"), on_screen=False)
    log.info("x")
    log.warning("y")
    logging.getLogger("urllib3.connectionpool").info("z")
    assert [line["message"] for line in lines(settings)] == ["y"]


def test_files_take_turns(settings: Settings) -> None:
    few = load(home=settings.home, daemon_log_mib=1, daemon_log_files=3)
    daemon_log.configure(few, on_screen=False)
    for n in range(50):
        log.info("%s %s", n, "x" * 100_000)
    files = sorted(settings.home.glob("daemon.log*"))
    assert [file.name for file in files] == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    assert all(file.stat().st_size <= 1 << 20 for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert lines(few)[-1]["message"].startswith("49 ")


def test_a_log_that_others_could_read_is_closed_to_them(settings: Settings) -> None:
    settings.folders.daemon_log.touch(0o644)
    settings.folders.daemon_log.chmod(0o644)
    daemon_log.configure(settings, on_screen=False)
    log.info("x")
    assert stat.S_IMODE(settings.folders.daemon_log.stat().st_mode) == 0o600


def test_a_folder_that_can_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first event may come before the home folder exists. The folder may never exist."""
    settings = load(home=tmp_path / "nosuch")
    daemon_log.configure(settings)
    log.info("one")
    (tmp_path / "nosuch").mkdir()
    log.info("two")
    assert [line["message"] for line in lines(settings)] == ["two"]
    printed = capsys.readouterr().err
    assert printed.count("\n") == 2
    assert "Traceback" not in printed


def test_a_full_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that can't be written are dropped. When there is room again, the log continues."""
    is_full = False

    class Disk(io.FileIO):
        def write(self, data: Any) -> int:
            if is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def opened(path: str, mode: str, **how: Any) -> io.TextIOWrapper:
        descriptor = how.pop("opener")(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return io.TextIOWrapper(io.BufferedWriter(Disk(descriptor, mode)), **how)

    monkeypatch.setattr(daemon_log, "open", opened, raising=False)
    daemon_log.configure(load(home=settings.home, daemon_log_mib=1), on_screen=False)
    log.info("before")
    is_full = True
    for n in range(30):
        log.info("lost %s %s", n, "x" * 100_000)
    is_full = False
    log.info("after")
    messages = [json.loads(line)["message"] for line in settings.folders.daemon_log.read_text().splitlines()]
    assert messages == ["before", "after"]
    assert capsys.readouterr() == ("", "")


def test_names_of_others_do_not_control_a_terminal(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither on the screen nor in the file."""
    daemon_log.configure(settings)
    name = "\x1b]52;c;x\x07\x9b31m\x7f\u202e\n2026-01-01 INFO forged"
    try:
        raise ValueError(name)
    except ValueError:
        log.exception("run=job/1: %s", name)
    text = settings.folders.daemon_log.read_text()
    (found,) = lines(settings)
    assert found["message"] == f"run=job/1: {name}"
    screen = capsys.readouterr().err
    for shown in (text, screen):
        assert not set(shown) & set("\x1b\x07\x9b\x7f\u202e")
    assert text.count("\n") == 1
    assert not [line for line in screen.splitlines()[1:] if not line.startswith("    ")]
    assert r"\x1b]52;c;x\x07\x9b31m\x7f\u202e" in screen
