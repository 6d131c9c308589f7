"""Events of the engine about the end of containers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from polylocal.engine import events
from polylocal.engine.containers import Died
from polylocal.engine.events import Deaths, Waiter
from polylocal.errors import EngineUnreachable

Pass = list[Died] | Exception
Listen = Callable[..., tuple[Deaths, Callable[[], None]]]


class Telling:
    """An engine with given event streams: one list or one error for each call."""

    def __init__(self, *passes: Pass) -> None:
        self.passes = list(passes)

    def events(self, installation: str) -> Iterator[Died]:
        found = self.passes.pop(0)
        if isinstance(found, Exception):
            raise found
        yield from found

    def end(self) -> None:
        """Ends the listening thread when all streams were read."""
        if not self.passes:
            raise Told


class Told(Exception):
    """All streams were read."""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RECONNECT_S", 0)


@pytest.fixture
def listen() -> Iterator[Listen]:
    """listen(events, …) → deaths, and a function that starts a thread that listens until the test ends."""
    threads: list[threading.Thread] = []

    def made(*passes: Pass) -> tuple[Deaths, Callable[[], None]]:
        engine: Any = Telling(*passes)
        deaths = Deaths(engine, "abcdef", engine.end)
        threads.append(threading.Thread(target=_until_told, args=(deaths,)))
        return deaths, threads[-1].start

    yield made
    for thread in threads:
        thread.join(10)


def _until_told(deaths: Deaths) -> None:
    with suppress(Told, RuntimeError):
        deaths._listen()


def test_a_death_is_reported_with_its_code(listen: Listen) -> None:
    deaths, start = listen([Died("other", 1), Died("c1", 3)])
    with deaths.watch("c1") as waiter:
        start()
        assert waiter.wait(10) == 3


def test_no_event_means_no_death() -> None:
    assert Waiter().wait(0) is None


@pytest.mark.parametrize("trouble", [EngineUnreachable("away"), ValueError("torn"), []])
def test_listening_continues_after_a_cut(listen: Listen, trouble: Pass) -> None:
    deaths, start = listen(trouble, [Died("c1", 0)])
    with deaths.watch("c1") as waiter:
        start()
        assert waiter.wait(10) == 0


def test_an_action_that_fails_does_not_end_the_listening(listen: Listen) -> None:
    deaths, start = listen([Died("c1", 1)], [Died("c2", 2)])
    with deaths.watch("c1") as broken, deaths.watch("c2") as waiter:
        broken.on_death(_raise(RuntimeError("threads can only be started once")))
        start()
        assert waiter.wait(1) == 2


def test_after_the_watch_no_death_is_reported(listen: Listen) -> None:
    deaths, start = listen([Died("c1", 1)], [Died("c2", 2)])
    with deaths.watch("c1") as early:
        pass
    with deaths.watch("c2") as late:
        start()
        assert late.wait(10) == 2
    assert early.wait(0) is None


def test_an_action_is_called_at_the_death_or_at_once_if_it_is_dead() -> None:
    called: list[str] = []
    waiter = Waiter()
    waiter.on_death(lambda: called.append("at the death"))
    waiter.notify(Died("c", 0))
    waiter.on_death(lambda: called.append("at once"))
    assert called == ["at the death", "at once"]


def test_an_action_that_is_given_in_the_moment_of_death_is_called_once() -> None:
    for _ in range(200):
        called: list[int] = []
        waiter = Waiter()
        teller = threading.Thread(target=waiter.notify, args=(Died("c", 0),))
        teller.start()
        waiter.on_death(lambda called=called: called.append(1))
        teller.join()
        assert called == [1]


def _raise(error: Exception) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action
