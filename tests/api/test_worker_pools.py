"""Long operations have separate slots, so that ordinary requests always get a thread."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from support import eventually

from polylocal.api import worker_pools as places
from polylocal.api.api_context import ApiContext
from polylocal.api.quotas import Quota, RequestQueue
from polylocal.api.worker_pools import FairPool, Holders
from polylocal.git import command
from polylocal.store import Store
from polylocal.store.rows import Project, User
from polylocal.system.cancellation import Cancelled, current

from .conftest import P, put_code

MANY = 60  # more than the web server has threads


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: ApiContext, project: Project) -> Path:
    """Makes `git archive` of the project's code wait for the file `go`. Waiting processes create files beside it."""
    folder, real = tmp_path / "held", command._find_git(os.environ["PATH"])
    folder.mkdir()
    put_code(context, project, {"a": "1"})
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    waits = f"echo $$ > '{folder}/pid'.$$; until [ -e '{folder}/go' ]; do sleep 0.05; done"
    mine = context.repository(project).path
    program.write_text(f'#!/bin/sh\ncase "$GIT_DIR $*" in "{mine} "*" archive "*) {waits};; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return folder


def waiting(folder: Path) -> list[int]:
    return [int(path.suffix[1:]) for path in folder.glob("pid.*")]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def client(live: str, store: Store, root: User) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Token {store.users.new_token(root)}"}
    limits = httpx2.Limits(max_connections=200)
    with httpx2.Client(base_url=live, headers=headers, timeout=60.0, limits=limits) as found:
        yield found


def test_long_operations_hold_up_nothing_else(
    held: Path, live: str, client: httpx2.Client, context: ApiContext, store: Store, ann: User
) -> None:
    other = store.projects.create(ann, {"name": "mine"})
    put_code(context, other, {"b": "1"})
    as_ann = {"Authorization": f"Token {store.users.new_token(ann)}"}
    with ThreadPoolExecutor(MANY) as pool:
        answers = [pool.submit(client.get, f"{P}/repo/download") for _ in range(MANY)]
        eventually(lambda: len(waiting(held)) == places.MAX_PER_HOLDER)
        taken = places.MAX_PER_HOLDER + places.MAX_WAITING_PER_HOLDER
        eventually(lambda: sum(answer.done() for answer in answers) == MANY - taken)  # refused, since no slot is free
        assert client.get("/healthz").status_code == 200
        assert client.get("/statusz").status_code == 200
        assert client.get(f"{P}/jobs").status_code == 200
        assert client.get("/api/v1/ann/mine/repo/download", headers=as_ann).status_code == 200
        assert len(waiting(held)) == places.MAX_PER_HOLDER
        (held / "go").touch()
        found = [answer.result() for answer in answers]
    codes = [answer.status_code for answer in found]
    assert set(codes) == {200, 503}
    assert codes.count(200) == taken
    assert {answer.headers["retry-after"] for answer in found if answer.status_code == 503} == {"5"}


def test_git_ends_with_its_client(held: Path, live: str, client: httpx2.Client) -> None:
    address = httpx2.URL(live)
    request = f"GET {P}/repo/download HTTP/1.1\r\nHost: {address.netloc.decode()}\r\n"
    with socket.create_connection((address.host, address.port or 80)) as leaving:
        leaving.sendall(f"{request}Authorization: {client.headers['authorization']}\r\n\r\n".encode())
        pids = eventually(lambda: waiting(held))
    assert len(pids) == 1
    eventually(lambda: not is_alive(pids[0]))
    (held / "go").touch()
    assert client.get(f"{P}/repo/download").status_code == 200


def test_health_needs_no_thread(
    live: str, client: httpx2.Client, context: ApiContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads of the web server are taken by something that nobody has thought of."""
    everything = RequestQueue(
        Quota("requests", MANY, reserved=0, reserved_below=1, user=MANY, address=MANY), threads=MANY
    )
    object.__setattr__(context.quotas, "requests", everything)
    go, entered = threading.Event(), threading.Semaphore(0)

    def stuck(*arguments: object) -> None:
        entered.release()
        go.wait(60)

    monkeypatch.setattr("polylocal.api.access.authenticate", stuck)
    with ThreadPoolExecutor(MANY) as pool:
        answers = [pool.submit(client.get, f"{P}/jobs") for _ in range(MANY)]
        try:
            for _ in range(40):
                assert entered.acquire(timeout=30)
            for path in ("/healthz", "/_health", "/statusz", "/_status"):
                assert client.get(path).status_code == 200
        finally:
            go.set()
        for answer in answers:
            answer.result()


# -- pools without the API ------------------------------------------------------------------------------------------


class Client:
    """A request whose client leaves when `leave` is called."""

    def __init__(self) -> None:
        self.has_left = asyncio.Event()
        self.request = Request({"type": "http", "method": "GET", "path": "/", "headers": []}, self._receive)

    async def _receive(self) -> dict[str, str]:
        await self.has_left.wait()
        return {"type": "http.disconnect"}


ANN, BOB, EVE = ((("user", number),) for number in (1, 2, 3))


def many(places: FairPool, callers: list[Holders], work: Callable[[], object]) -> list[asyncio.Task[object]]:
    return [asyncio.create_task(places.run(Client().request, caller, work)) for caller in callers]


def test_one_caller_gets_a_part_of_the_slots() -> None:
    async def check() -> None:
        go, running = threading.Event(), list[int]()

        def work() -> None:
            running.append(1)
            go.wait(30)

        found = FairPool(max_running=3, max_per_holder=2, max_waiting=4, max_waiting_per_holder=3, reserved=0)
        tasks = many(found, [ANN] * 6, work)
        await asyncio.sleep(0)
        while len(running) < 2:
            await asyncio.sleep(0.01)
        refused = [task for task in tasks if task.done()]
        assert len(refused) == 1
        assert isinstance(refused[0].exception(), HTTPException)
        tasks += many(found, [BOB], work)
        while len(running) < 3:
            await asyncio.sleep(0.01)
        go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert done.count(None) == 6
        assert found._in_use == 0

    asyncio.run(check())


async def until(check: Callable[[], bool]) -> None:
    while not check():
        await asyncio.sleep(0.01)


def test_the_last_slots_are_for_callers_without_one() -> None:
    async def check() -> None:
        go, running = threading.Event(), list[int]()

        def work() -> None:
            running.append(1)
            go.wait(30)

        found = FairPool(max_running=5, max_per_holder=3, reserved=2)
        tasks = many(found, [ANN] * 4 + [BOB] * 4, work)
        await until(lambda: len(running) >= 4)  # Ann's three requests, and Bob's first one
        assert len(found._waiting) == 4
        tasks += many(found, [EVE], work)
        await until(lambda: len(running) >= 5)
        go.set()
        await asyncio.gather(*tasks)
        assert (found._in_use, found._held.total()) == (0, 0)

    asyncio.run(check())


def test_one_runs_token_gets_a_smaller_part_than_its_user() -> None:
    async def check() -> None:
        go, running = threading.Event(), list[int]()

        def work() -> None:
            running.append(1)
            go.wait(30)

        found = FairPool()
        tasks = many(found, [(*ANN, ("run", 7))] * 4, work)
        await until(lambda: len(running) >= 2)
        assert len(found._waiting) == 2
        tasks += many(found, [ANN], work)
        await until(lambda: len(running) >= 3)
        go.set()
        await asyncio.gather(*tasks)

    asyncio.run(check())


def test_a_leaving_client_stops_waiting_and_frees_its_slot() -> None:
    async def check() -> None:
        go, seen = threading.Event(), list[object]()

        def work() -> None:
            cancel = current()
            assert cancel
            with cancel.hook(go.set):
                go.wait(30)
            seen.append(cancel.called)

        found, first, second = FairPool(max_running=1), Client(), Client()
        running = asyncio.create_task(found.run(first.request, ANN, work))
        later = asyncio.create_task(found.run(second.request, ANN, work))
        while not found._waiting:
            await asyncio.sleep(0)
        second.has_left.set()
        with pytest.raises(Cancelled):
            await later
        first.has_left.set()
        await running
        assert seen == [True]
        assert found._in_use == 0
        await found.run(Client().request, BOB, lambda: None)

    asyncio.run(check())
