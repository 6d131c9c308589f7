"""Waiting for an engine that does not answer."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from polylocal.engine.host import EngineInfo
from polylocal.errors import EngineError, EngineUnreachable
from polylocal.runner.engine_link import EngineLink

INFO = EngineInfo("Docker", "20.10", "1.41", "unix:///x", 2, 4096, "/var/lib/docker", False, False)


class Flaky:
    """An engine that fails the first calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def info(self) -> EngineInfo:
        if self.errors:
            raise self.errors.pop(0)
        return INFO


def link(*errors: Exception) -> EngineLink:
    engine: Any = Flaky(*errors)
    return EngineLink(engine, "unix:///x", pause_s=0)


@pytest.mark.parametrize("error", [EngineUnreachable("away"), EngineError("busy")])
def test_asking_once(error: Exception) -> None:
    asked = link(error)
    assert (asked.check(), asked.info) == (False, None)
    assert (asked.check(), asked.info) == (True, INFO)


def test_loss_and_return_of_the_engine_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asked = link(*[EngineUnreachable("away")] * 5)
    asked.wait_until_back()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert not asked.is_away


def test_nothing_is_logged_about_an_engine_that_answers(caplog: pytest.LogCaptureFixture) -> None:
    link().wait_until_back()
    assert caplog.records == []


def test_calls_are_repeated_until_they_succeed() -> None:
    tries, troubles = [EngineUnreachable("cut"), EngineUnreachable("cut")], list[int]()

    def call() -> str:
        if tries:
            raise tries.pop()
        return "done"

    assert link(EngineUnreachable("away")).call_engine(call, lambda: troubles.append(1)) == "done"
    assert troubles == [1, 1]


def test_only_calls_to_an_engine_that_is_away_are_repeated() -> None:
    def call() -> None:
        raise EngineError("no such image")

    with pytest.raises(EngineError, match="no such image"):
        link().call_engine(call)


def test_all_threads_continue() -> None:
    asked = link(*[EngineUnreachable("away")] * 20)
    threads = [threading.Thread(target=asked.wait_until_back) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert not asked.is_away


def test_a_connection_that_failed_once_is_not_forgotten() -> None:
    """If one connection was cut, another one may have been cut unnoticed."""
    link = EngineLink(Flaky(), "fake://", pause_s=0.01)  # type: ignore[arg-type]
    assert not link.has_failed
    assert link.call_engine(lambda: 1) == 1
    assert not link.has_failed
    link.listen_again()
    assert link.has_failed
