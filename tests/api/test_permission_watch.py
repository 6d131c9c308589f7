"""Open streams end soon after their reader loses the permission, and not before."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import pytest
from starlette.exceptions import HTTPException
from support import eventually
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from polylocal.api import permission_watch as rights
from polylocal.api.api_context import ApiContext
from polylocal.api.permission_watch import PermissionWatch
from polylocal.errors import NotAllowed, StoreError
from polylocal.files.logs import LogWriter
from polylocal.statuses import Status
from polylocal.store import Store
from polylocal.store.rows import Project, Run, User

from .conftest import P, write

FOLLOW = f"{P}/jobs/1/logs/?follow=true"
SOCKET = "/ws/v1/root/quick-start/jobs/1"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "POLL_S", 0.05)


@pytest.fixture
def running(make_job: Callable[..., Run], store: Store, context: ApiContext) -> Run:
    run = make_job()
    store.runs.transition(run, Status.RUNNING)
    write(context.log_path(run), "line\n")
    return store.runs.by_pk(run.pk)


@pytest.fixture
def ann(store: Store) -> User:
    return store.users.add("ann")


@pytest.fixture
def chunks(live: str, store: Store, ann: User, running: Run) -> Iterator[Iterator[bytes]]:
    """The bytes that ann reads from a running job of root's public project."""
    headers = {"Authorization": f"Token {store.users.new_token(ann)}"}
    with httpx2.Client(base_url=live, timeout=30) as http, http.stream("GET", FOLLOW, headers=headers) as answer:
        assert answer.status_code == 200
        found = answer.iter_raw()
        assert next(found) == b"line\n"
        yield found


def by_another_process(store: Store, change: str) -> None:
    with sqlite3.connect(store.database.path) as other:
        other.execute("pragma foreign_keys = on")
        other.execute(change)
    other.close()


ENDS: dict[str, Callable[[Store, User, Project], object]] = {
    "the project is hidden": lambda store, ann, project: store.projects.update(project, {"is_public": False}),
    "the project is archived": lambda store, ann, project: store.projects.archive(project),
    "the tokens are revoked": lambda store, ann, project: store.users.revoke(ann),
    "the user is deactivated": lambda store, ann, project: store.users.update(ann, is_active=False),
    "the user is deleted": lambda store, ann, project: store.users.delete(ann),
    "hidden by another process": lambda store, ann, project: by_another_process(
        store, "update projects set is_public = 0"
    ),
    "revoked by another process": lambda store, ann, project: by_another_process(store, "delete from tokens"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_followed_log_ends_with_the_right_to_it(
    end: str, chunks: Iterator[bytes], store: Store, context: ApiContext, ann: User, project: Project, running: Run
) -> None:
    ENDS[end](store, ann, project)
    with pytest.raises(httpx2.HTTPError):  # the connection is cut, since this is not the end of the log
        list(chunks)
    eventually(lambda: context.quotas.streams.in_use == 0)


def test_later_lines_are_not_sent(
    chunks: Iterator[bytes], store: Store, context: ApiContext, project: Project, running: Run
) -> None:
    store.projects.update(project, {"is_public": False})
    eventually(lambda: context.quotas.streams.in_use == 0)
    with LogWriter(context.log_path(running), max_mib=1) as writer:
        writer.write_line("secret")
    with pytest.raises(httpx2.HTTPError):
        assert b"secret" not in b"".join(chunks)


def test_other_changes_end_nothing(
    chunks: Iterator[bytes], store: Store, context: ApiContext, root: User, ann: User, project: Project, running: Run
) -> None:
    """A new name, another project of the old name, another user's revoked token, another archived run, a run's end"""
    bob = store.users.add("bob")
    store.users.new_token(bob)
    seen = store.rights_version()
    store.projects.update(project, {"name": "renamed", "is_public": True})
    other = store.projects.create(root, {"name": "quick-start", "is_public": False})
    store.users.revoke(bob)
    store.projects.archive(other)
    assert store.rights_version() > seen
    seen_again: list[int] = []
    check = store.rights_version
    store.rights_version = lambda: seen_again.append(1) or check()  # type: ignore[method-assign, func-returns-value]
    eventually(lambda: len(seen_again) > 3)
    with LogWriter(context.log_path(running), max_mib=1) as writer:
        writer.write_line("more")
    assert next(chunks) == b"more\n"
    store.runs.transition(running, Status.SUCCEEDED)
    assert list(chunks) == []


def heard(socket: ClientConnection) -> list[str]:
    found = []
    try:
        while True:
            found.append(str(socket.recv(timeout=30)))
    except ConnectionClosed:
        return found


@pytest.mark.parametrize("what", ["logs", "resources", "logs/stream"])
def test_a_websocket_gets_a_message_and_is_closed(
    what: str, live: str, store: Store, context: ApiContext, ann: User, project: Project, running: Run
) -> None:
    url = f"ws{live.removeprefix('http')}{SOCKET}/{what}?token={store.users.new_token(ann)}"
    with connect(url, proxy=None) as socket:
        eventually(lambda: context.quotas.streams.in_use == 1)
        store.projects.update(project, {"is_public": False})
        assert "no longer have access" in heard(socket)[-1]
    eventually(lambda: context.quotas.streams.in_use == 0)


def test_a_former_admin(
    live: str, store: Store, context: ApiContext, ann: User, project: Project, running: Run
) -> None:
    store.projects.update(project, {"is_public": False})
    store.users.update(ann, is_superuser=True)
    url = f"ws{live.removeprefix('http')}{SOCKET}/logs?token={store.users.new_token(ann)}"
    with connect(url, proxy=None) as socket:
        assert "status" in str(socket.recv())
        store.users.update(ann, is_superuser=False)
        assert "no longer have access" in heard(socket)[-1]


def test_the_token_of_a_finished_run(
    live: str,
    store: Store,
    context: ApiContext,
    make_job: Callable[..., Run],
    token_of: Callable[[Run], str],
    running: Run,
) -> None:
    """A job follows another job until it is done itself."""
    job = make_job()
    store.runs.transition(job, Status.RUNNING)
    url = f"ws{live.removeprefix('http')}{SOCKET}/logs?token={token_of(job)}"
    with connect(url, proxy=None) as socket:
        assert "status" in str(socket.recv())
        store.runs.transition(job, Status.SUCCEEDED)
        assert "no longer have access" in heard(socket)[-1]


# -- the watch itself -------------------------------------------------------------------------------------------------


@contextmanager
def counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    looks: list[int] = []
    check = store.rights_version
    monkeypatch.setattr(store, "rights_version", lambda: looks.append(1) or check())
    yield looks


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def test_a_thousand_equal_streams_are_checked_once_and_only_after_changes(
    store: Store, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def scenario() -> None:
        watch = PermissionWatch(store)
        with counted(store, monkeypatch) as looks, ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(watch.watch(lambda: asked.append(1), "alike"))
            await until(lambda: len(asked) == 1)
            await until(lambda: len(looks) > 5)
            assert len(asked) == 1
            store.users.revoke(root)  # without a token, so nothing changes
            await until(lambda: len(looks) > 8)
            assert len(asked) == 1
            store.users.new_token(root)
            store.users.revoke(root)
            await until(lambda: len(asked) == 2)

    asyncio.run(scenario())


def test_the_watch_ends_with_the_last_stream_and_begins_again(store: Store) -> None:
    def refuse() -> None:
        raise NotAllowed

    async def scenario() -> None:
        watch = PermissionWatch(store)
        for _ in range(2):
            with watch.watch(refuse, 1) as lost, watch.watch(lambda: None, 2) as kept:
                await asyncio.wait_for(lost.ended.wait(), 20)
                assert not kept.ended.is_set()
            await until(lambda: not watch._tasks)
            assert not watch._watched

    asyncio.run(scenario())


def test_a_busy_database_ends_no_stream(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[Any] = [StoreError("busy"), StoreError("busy")]
    check = store.rights_version

    def busy() -> int:
        if problems:
            raise problems.pop()
        return check()

    async def scenario() -> None:
        watch = PermissionWatch(store)
        asked: list[int] = []
        with watch.watch(lambda: asked.append(1), 1) as right:
            await until(lambda: len(asked) == 1)
            assert not right.ended.is_set()

    monkeypatch.setattr(store, "rights_version", busy)
    asyncio.run(scenario())


@pytest.mark.parametrize("problem", [StoreError("busy"), RuntimeError("a bug"), HTTPException(503)])
def test_a_failing_check_keeps_no_other_stream_unwatched(store: Store, problem: Exception) -> None:
    """A busy database is checked again later. A bug ends only its own stream."""
    over = False

    def fail() -> None:
        raise problem

    def refuse() -> None:
        if over:
            raise NotAllowed

    async def scenario() -> None:
        nonlocal over
        watch = PermissionWatch(store)
        with ExitStack() as stack:
            lost = [stack.enter_context(watch.watch(refuse, key)) for key in range(3)]
            failing = stack.enter_context(watch.watch(fail, 4))
            lost += [stack.enter_context(watch.watch(refuse, key)) for key in range(5, 8)]
            await until(lambda: not any(right.is_new for right in lost))
            over = True
            with store.database.write() as db:
                db.execute("update rights_version set n = n + 1")
            for right in lost:
                await asyncio.wait_for(right.ended.wait(), 20)
            assert failing.ended.is_set() is not isinstance(problem, StoreError)

    asyncio.run(scenario())


def test_no_stream_goes_on_for_long_because_there_are_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more time the checks take, the longer the pauses between them, up to some seconds."""
    monkeypatch.setattr(rights, "_PAUSE_FACTOR", 1e9)
    monkeypatch.setattr(rights, "MAX_PAUSE_S", 0.1)
    over = False

    def check() -> None:
        if over:
            raise NotAllowed

    async def scenario() -> None:
        nonlocal over
        watch = PermissionWatch(store)
        with watch.watch(check, 1) as right:
            await until(lambda: not right.is_new)
            over = True
            with store.database.write() as db:
                db.execute("update rights_version set n = n + 1")
            await asyncio.wait_for(right.ended.wait(), 20)

    asyncio.run(scenario())


def test_streams_of_one_token_are_checked_once_whatever_else_they_send(
    live: str, store: Store, context: ApiContext, ann: User, running: Run
) -> None:
    header = {"Authorization": f"Token {store.users.new_token(ann)}"}
    with ExitStack() as stack, httpx2.Client(base_url=live, timeout=30) as client:
        for number in range(4):
            headers = {**header, "Cookie": f"x={number}"}
            answer = stack.enter_context(client.stream("GET", f"{FOLLOW}&token={number}", headers=headers))
            assert answer.status_code == 200
        watched = [right.key for rights in context.permission_watch._watched.values() for right in rights]
        assert (len(watched), len(set(watched))) == (4, 1)
