"""The feed of changes: which followers wake up after which reports, from any thread, on any event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support import job

from polylocal.api import feed as feed_module
from polylocal.api.feed import Feed, Wakeup
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

FOREVER_S = 600.0


@pytest.fixture(autouse=True)
def _only_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the polling, so that a follower without a hint waits until the test's time limit."""
    monkeypatch.setattr(feed_module, "POLL_S", FOREVER_S)


@pytest.fixture
def one(store: Store, project: Project, root: User) -> Run:
    return store.runs.insert(project, root, NewRun(Kind.JOB, config=job()))


@pytest.fixture
def other(store: Store, project: Project, root: User) -> Run:
    return store.runs.insert(project, root, NewRun(Kind.JOB, config=job()))


async def told(report: Callable[[], object], *wakeups: Wakeup) -> None:
    """Report from another thread, and wait until all of these followers were woken."""
    await asyncio.to_thread(report)
    assert await asyncio.gather(*(wakeup.wait() for wakeup in wakeups)) == [True] * len(wakeups)


def test_a_follower_of_a_run_is_woken_by_its_changes_and_its_log(one: Run, other: Run, tmp_path: Path) -> None:
    async def follow() -> None:
        feed, path = Feed(), tmp_path / "one.log"
        with feed.follow(path, one) as wakeup, feed.follow(tmp_path / "other.log", other) as unconcerned:
            await told(lambda: feed.log_grew(path), wakeup)
            assert wakeup.runs == set()
            await told(lambda: feed.run_changed(one.pk), wakeup)
            assert wakeup.runs == {one.pk}
            assert not unconcerned.event.is_set()

    asyncio.run(follow())


def test_a_follower_of_all_runs_gets_the_changed_ones(one: Run, other: Run, store: Store, tmp_path: Path) -> None:
    async def follow() -> None:
        feed = Feed()
        unsubscribe = store.subscribe(feed.run_changed)
        with feed.follow_all() as wakeup, feed.follow_all() as second:
            await told(lambda: store.runs.transition(one, Status.RUNNING), wakeup, second)
            await told(lambda: store.runs.transition(other, Status.STOPPED), wakeup, second)
            assert wakeup.runs == second.runs == {one.pk, other.pk}
            feed.log_grew(tmp_path / "one.log")
            wakeup.runs.clear()
            await told(lambda: store.runs.transition(one, Status.SUCCEEDED), wakeup)
            assert wakeup.runs == {one.pk}
        unsubscribe()

    asyncio.run(follow())


def test_without_a_hint_a_follower_looks_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "POLL_S", 0.0)

    async def follow() -> bool:
        with Feed().follow_all() as wakeup:
            return await wakeup.wait()

    assert asyncio.run(follow()) is False


def test_followers_on_every_loop_are_woken(one: Run) -> None:
    feed = Feed()

    async def inner() -> None:
        with feed.follow_all() as wakeup:
            await told(lambda: feed.run_changed(one.pk), wakeup)

    async def outer() -> None:
        with feed.follow_all() as wakeup:
            await asyncio.gather(wakeup.wait(), asyncio.to_thread(asyncio.run, inner()))
            assert wakeup.runs == {one.pk}

    asyncio.run(outer())


def test_a_log_that_another_process_writes_is_noticed(one: Run, tmp_path: Path) -> None:
    async def follow() -> None:
        feed, stop = Feed(), asyncio.Event()
        path = tmp_path / one.kind.plural
        watching = asyncio.create_task(feed.watch(tmp_path, stop))
        with feed.follow(path / "1.log", one) as wakeup:
            await write_until(wakeup.wait, path / "1.log")
        stop.set()
        await watching

    asyncio.run(follow())


async def write_until(woken: Callable[[], Awaitable[bool]], path: Path) -> None:
    """Write repeatedly, since the watch begins a moment after the request for it."""
    waiting = asyncio.ensure_future(woken())
    while not waiting.done():
        if path.parent.is_dir():
            with path.open("a") as file:
                file.write("line\n")
        await asyncio.wait([waiting], timeout=0.05)
    assert waiting.result()


def test_followers_that_leave_are_forgotten(one: Run, tmp_path: Path) -> None:
    feed = Feed()

    async def follow() -> None:
        with feed.follow(tmp_path / "one.log", one), feed.follow_all():
            pass

    asyncio.run(follow())
    assert not feed._wakeups
    feed.run_changed(one.pk)  # no follower is waiting
