"""Quotas: one user, one run's token and one address use only a part of the slots. The last slots are for others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient
from support import eventually
from websockets.sync.client import connect

from polylocal.api import app
from polylocal.api.api_context import ApiContext
from polylocal.api.quotas import Quota, Quotas, RequestQueue
from polylocal.statuses import Kind, Status
from polylocal.store import Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, P, one_of_each, write

FOLLOW = f"{P}/jobs/1/logs/?follow=true"


def shares(**parts: int) -> Quota:
    return Quota("things", 10, reserved=3, reserved_below=2, **(parts or {"user": 8, "run": 2}))


def refused(shares: Quota, *holders: Any) -> str | None:
    """The refusal's message, or None if a slot was free."""
    with ExitStack() as stack:
        try:
            stack.enter_context(shares.slot(*holders))
        except HTTPException as error:
            found = error
        else:
            return None
    assert (found.status_code, found.headers) == (503, {"Retry-After": "2"})
    return found.detail


@contextmanager
def held(shares: Quota, count: int, *holders: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(shares.slot(*holders))
        yield


# -- one limit --------------------------------------------------------------------------------------------------------


def test_one_user_gets_a_part_and_the_last_slots_are_for_others() -> None:
    some = shares(user=5)
    with held(some, 5, ("user", 1)):
        assert "All 5 things that this user may have" in (refused(some, ("user", 1)) or "")
        with held(some, 2, ("user", 2)):
            assert "kept for others" in (refused(some, ("user", 2)) or "")
            with held(some, 2, ("user", 3)), held(some, 1, ("user", 4)):
                assert "All 10 things of this daemon" in (refused(some, ("user", 5)) or "")
            assert refused(some, ("user", 3)) is None
    assert (some.in_use, some.held(("user", 1))) == (0, 0)


def test_a_run_has_a_smaller_part_within_that_of_its_user() -> None:
    some = shares(user=4, run=2)
    with held(some, 2, ("user", 1), ("run", 7)):
        assert "this run's token" in (refused(some, ("user", 1), ("run", 7)) or "")
        with held(some, 2, ("user", 1), ("run", 8)):
            assert "this user" in (refused(some, ("user", 1), ("run", 9)) or "")


@given(steps=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60))
def test_no_place_is_ever_lost_or_given_twice(steps: list[tuple[int, bool]]) -> None:
    some, places = shares(), list[tuple[int, ExitStack]]()
    for user, opens in steps:
        if opens:
            stack = ExitStack()
            try:
                stack.enter_context(some.slot(("user", user)))
            except HTTPException:
                continue
            places.append((user, stack))
        elif places:
            places.pop(user % len(places))[1].close()
        assert some.in_use == len(places) <= 10
        for known in range(5):
            assert some.held(("user", known)) == sum(each == known for each, _ in places) <= 8
    for _, stack in places:
        stack.close()
    assert some.in_use == 0


def test_a_place_is_free_again_after_an_error() -> None:
    some = shares()
    with pytest.raises(KeyError), some.slot(("user", 1)):
        raise KeyError
    assert some.in_use == 0


def test_the_parts_are_the_documented_ones() -> None:
    of = Quotas()
    with held(of.streams, 1000, ("user", 1)):
        assert refused(of.streams, ("user", 1))
        assert refused(of.streams, ("user", 2)) is None
        with held(of.streams, 50, ("user", 2), ("run", 1)):
            assert refused(of.streams, ("user", 2), ("run", 1))
            assert refused(of.streams, ("user", 2)) is None
    with ExitStack() as stack:
        for user in range(2):  # two users take as many as they get
            try:
                while True:
                    stack.enter_context(of.bodies.slot(("user", user)))
            except HTTPException:
                continue
        assert refused(of.bodies, ("user", 9)) is None, "a third one finds a place"


def test_a_holder_gets_a_limited_number_of_threads() -> None:
    turns = RequestQueue(shares(user=8, address=8), threads=2)
    turns.remember("Token a", (("user", 1),))
    turns.remember("Token b", (("user", 2),))

    async def scenario() -> None:
        going, inside = asyncio.Event(), 0

        async def work(header: str) -> None:
            nonlocal inside
            async with turns.admit_as(header, "here"):
                inside += 1
                await going.wait()

        tasks = [asyncio.ensure_future(work("Token a")) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert inside == 2
        other = asyncio.ensure_future(work("Token b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert inside == 3
        tasks[4].cancel()  # a waiting task that leaves
        going.set()
        await asyncio.gather(*tasks[:4], other)
        assert inside == 5

    asyncio.run(scenario())
    assert turns._quota.in_use == 0
    assert not turns._queues


# -- over the API -----------------------------------------------------------------------------------------------------


def few(context: ApiContext, **parts: int) -> Quota:
    """Makes open streams scarce."""
    made = Quota("open streams", 10, reserved=2, reserved_below=2, **{"user": 3, "run": 2, "address": 2, **parts})
    object.__setattr__(context.quotas, "streams", made)
    return made


@pytest.fixture
def running(make_job: Callable[..., Run], store: Store, context: ApiContext) -> Run:
    run = make_job()
    store.runs.transition(run, Status.RUNNING)
    write(context.log_path(run), "line\n")
    return run


@contextmanager
def following(url: str, tokens: list[str]) -> Iterator[None]:
    kept: list[Iterator[bytes]] = []
    with httpx2.Client(base_url=url, timeout=30) as http, ExitStack() as stack:
        for token in tokens:
            answer = stack.enter_context(http.stream("GET", FOLLOW, headers={"Authorization": f"Token {token}"}))
            assert answer.status_code == 200
            kept.append(chunks := answer.iter_raw())  # an unreferenced response is closed with its connection
            assert next(chunks) == b"line\n"
        yield


def test_one_users_streams_leave_slots_to_others_with_any_number_of_tokens(
    live: str, store: Store, context: ApiContext, root: User, running: Run
) -> None:
    streams = few(context)
    other = store.users.new_token(store.users.add("ann"))
    tokens = [store.users.new_token(root) for _ in range(4)]
    with following(live, tokens[:3]):
        with httpx2.Client(base_url=live) as http:
            answer = http.get(FOLLOW, headers={"Authorization": f"Token {tokens[3]}"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert "this user" in answer.json()["detail"]
        path = f"ws{live.removeprefix('http')}/ws/v1/root/quick-start/jobs/1/logs"
        with connect(f"{path}?token={tokens[3]}", proxy=None) as socket:
            assert "this user" in socket.recv()
        with following(live, [other]), connect(f"{path}?token={other}", proxy=None) as socket:
            assert "status" in socket.recv()
            assert streams.in_use == 5
        eventually(lambda: streams.in_use == 3)
    eventually(lambda: streams.in_use == 0)


def test_a_runs_token_follows_fewer(
    live: str, store: Store, context: ApiContext, root: User, running: Run, token_of: Callable[[Run], str]
) -> None:
    few(context)
    token = token_of(running)
    with following(live, [token, token]), httpx2.Client(base_url=live) as http:
        answer = http.get(FOLLOW, headers={"Authorization": f"Token {token}"})
        assert (answer.status_code, "this run's token" in answer.text) == (503, True)
        assert http.get(f"{P}/jobs/1/", headers={"Authorization": f"Token {token}"}).status_code == 200


def test_finished_and_refused_downloads_free_their_slots(api: Caller, context: ApiContext, running: Run) -> None:
    streams = few(context)
    for _ in range(5):
        assert api.get(f"{P}/jobs/1/logs/").status_code == 200
    with held(streams, 3, ("user", 1)):
        assert api.get(f"{P}/jobs/1/logs/").status_code == 503
    assert streams.in_use == 0


def test_one_user_gets_a_part_of_the_generated_responses(
    api: Caller, as_ann: Caller, context: ApiContext, store: Store, root: User, ann: User, project: Project
) -> None:
    """Archives and clones occupy a process or a thread until they are read."""
    run = one_of_each(store, project, root)[Kind.JOB]
    write(context.home.root / str(run.outputs) / "model.txt", "weights")
    archive, clone = f"{P}/jobs/1/outputs/download/", "/root/quick-start.git/info/refs?service=git-upload-pack"
    with ExitStack() as stack:
        with suppress(HTTPException):
            while True:
                stack.enter_context(context.quotas.generated.slot(("user", root.id)))
        for path in (archive, clone):
            answer = api.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert as_ann.get(path).status_code == 200
        assert api.get(f"{P}/jobs/1/").status_code == 200
    assert api.get(archive).status_code == api.get(clone).status_code == 200
    assert context.quotas.generated.in_use == 0


def test_every_end_of_a_request_frees_its_slot(api: Caller, context: ApiContext, running: Run) -> None:
    of = context.quotas
    requests: list[Callable[[], Any]] = [
        lambda: api.get("/api/v1/users/"),
        lambda: Caller(api.http, "0" * 40).get("/api/v1/users/"),
        lambda: api.get(f"{P}/nosuch/"),
        lambda: api.post(f"{P}/jobs/", {"config": 1}),
        lambda: api("POST", f"{P}/jobs/", content=b"{", headers={"Content-Type": "application/json"}),
        lambda: api("PUT", f"{P}/repo/upload/", files={"x": b"y"}),
        lambda: api.get("/api/v1/user.json"),
        lambda: api.post("/api/v1/build_lists.json", {}),
        lambda: api("POST", "/api/v1/users/token/", json={"username": "x", "password": "y"}),
        lambda: api.get("/root/quick-start.git/info/refs?service=git-upload-pack"),
        lambda: api.get("/root/nosuch.git/info/refs?service=git-upload-pack"),
    ]
    for request in requests:
        request()
    for each in (of.streams, of.bodies, of.logins, of.requests._quota):
        assert each.in_use == 0, each._noun
    assert not of.requests._queues


def test_one_user_with_too_many_requests_is_refused_and_others_are_answered(
    api: Caller, as_ann: Caller, http: TestClient, context: ApiContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    object.__setattr__(
        context.quotas,
        "requests",
        RequestQueue(Quota("requests", 20, reserved=4, reserved_below=2, user=6, address=4), 3),
    )
    going, begun = threading.Event(), threading.Semaphore(0)
    versions = next(endpoint for endpoint in app.ENDPOINTS if endpoint.path == "/api/v1/users")

    def slow(call: Any) -> Any:
        begun.release()
        going.wait(20)
        return {}

    assert api.get("/api/v1/users/").status_code == as_ann.get("/api/v1/users/").status_code == 200
    found: list[int] = []
    object.__setattr__(versions, "handler", original := versions.handler)
    try:
        object.__setattr__(versions, "handler", slow)
        threads = [
            threading.Thread(target=lambda: found.append(api.get("/api/v1/users/").status_code)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for _ in range(3):
            assert begun.acquire(timeout=20)
        eventually(lambda: found == [503, 503])
        assert as_ann.get(f"{P}/jobs/").status_code in (200, 404)
        assert http.get("/healthz").status_code == 200
    finally:
        going.set()
        object.__setattr__(versions, "handler", original)
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] * 6 + [503] * 2


def test_one_name_has_a_part_of_the_logins(context: ApiContext) -> None:
    logins = context.quotas.logins
    with held(logins, 1, ("name", "root here")):
        assert refused(logins, ("name", "root here")) is None
    with held(logins, 4, ("name", "root here")):
        assert refused(logins, ("name", "root here"))
        assert refused(logins, ("name", "ann here")) is None
