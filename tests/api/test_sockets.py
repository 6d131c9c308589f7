"""Followers of a run on a real socket: long-lived, for our own pages only, limited in number."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import httpx2
import pytest
from support import eventually
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from polylocal.api import middleware
from polylocal.api.api_context import ApiContext
from polylocal.daemon import web_server
from polylocal.files.logs import STDOUT, LogWriter
from polylocal.statuses import Status
from polylocal.store import Store
from polylocal.store.rows import Run, User

from .test_middleware import Address, on_socket

LOGS = "/ws/v1/root/quick-start/jobs/1/logs"
FOLLOW = "/api/v1/root/quick-start/jobs/1/logs?follow=true"
PLACES = 3

Opener = Callable[..., ClientConnection]


@pytest.fixture
def token(store: Store, root: User) -> str:
    return store.users.new_token(root)


@pytest.fixture
def running(a_job: Run, store: Store) -> Run:
    store.runs.transition(a_job, Status.RUNNING, recorded={"container_id": "c1"})
    return store.runs.by_pk(a_job.pk)


def writer(context: ApiContext, run: Run) -> LogWriter:
    return LogWriter(context.log_path(run), lambda path: None, max_mib=1)


@pytest.fixture
def address(context: ApiContext, running: Run) -> Iterator[Address]:
    with on_socket(context) as found:
        yield found


@pytest.fixture
def at(address: Address, token: str) -> Iterator[Opener]:
    """at(Origin=…) → a websocket of the log of job 1."""
    with ExitStack() as stack:

        def open_(**headers: str) -> ClientConnection:
            place = f"ws://127.0.0.1:{address[1]}{LOGS}"
            more = {"Authorization": f"Token {token}", **headers}
            return stack.enter_context(connect(place, additional_headers=more, proxy=None, open_timeout=20))

        yield open_


@pytest.fixture
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Must come before `address`, which starts the application with these limits."""
    monkeypatch.setattr(middleware.ConcurrencyLimit.__init__, "__defaults__", (middleware.MAX_WORKING, PLACES))


@pytest.fixture
def short_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "HEAD_S", 0.3)
    monkeypatch.setattr(middleware.ClientTimeout.__init__, "__defaults__", (0.3,))


@pytest.mark.usefixtures("short_head")
def test_a_websocket_is_not_a_slow_head(at: Opener, context: ApiContext, running: Run) -> None:
    """A websocket legitimately waits for later messages."""
    socket, quiet_until = at(), time.monotonic() + 1.2
    while (left := quiet_until - time.monotonic()) > 0:
        with suppress(TimeoutError):
            socket.recv(timeout=left)
    assert socket.ping().wait(5)
    with closing(writer(context, running)) as log:
        log.append(b"late\n", STDOUT, 1)
    assert eventually(lambda: "late" in str(socket.recv(timeout=20)))


@pytest.mark.usefixtures("short_head")
def test_a_long_response_is_not_a_slow_head(address: Address, context: ApiContext, running: Run, token: str) -> None:
    headers = {"Authorization": f"Token {token}"}
    with closing(writer(context, running)) as log:
        log.append(b"first\n", STDOUT, 1)
        with httpx2.stream("GET", f"http://127.0.0.1:{address[1]}{FOLLOW}", headers=headers, timeout=20) as answer:
            pieces = answer.iter_bytes()
            assert next(pieces) == b"first\n"
            since = time.monotonic()
            eventually(lambda: time.monotonic() - since > 1.2)
            log.append(b"late\n", STDOUT, 2)
            assert next(pieces) == b"late\n"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://["])
def test_a_page_of_others_opens_no_websocket(at: Opener, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        at(Origin=origin)
    assert refused.value.response.status_code == 403


def test_a_page_of_ours_does(at: Opener, address: Address) -> None:
    assert at(Origin=f"http://127.0.0.1:{address[1]}").ping().wait(5)


@pytest.mark.usefixtures("few_places")
def test_no_more_follow_than_can_and_a_place_is_free_again(at: Opener, address: Address, token: str) -> None:
    def asked() -> httpx2.Response:
        headers = {"Authorization": f"Token {token}"}
        return httpx2.get(f"http://127.0.0.1:{address[1]}/api/v1/root/quick-start/jobs/1", headers=headers)

    sockets = [at() for _ in range(PLACES)]
    assert (asked().status_code, asked().headers["retry-after"]) == (503, "2")
    with pytest.raises(InvalidStatus) as refused:
        at()
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"] == "2"
    sockets.pop().close()
    eventually(lambda: asked().status_code == 200)
    sockets.append(at())
    assert all(socket.ping().wait(5) for socket in sockets)


@pytest.mark.usefixtures("few_places")
def test_a_leaving_reader_of_a_silent_log_frees_its_slot(
    address: Address, context: ApiContext, running: Run, token: str
) -> None:
    with closing(writer(context, running)) as log, ExitStack() as stack:
        log.append(b"first\n", STDOUT, 1)
        client = stack.enter_context(
            httpx2.Client(base_url=f"http://127.0.0.1:{address[1]}", headers={"Authorization": f"Token {token}"})
        )
        followers = []
        for _ in range(PLACES):
            answer = client.send(client.build_request("GET", FOLLOW), stream=True)
            stack.callback(answer.close)
            pieces = answer.iter_raw()  # dropping it would end the response
            assert next(pieces) == b"first\n"
            followers.append((answer, pieces))
        refused = client.get("/api/v1/root/quick-start/jobs/1")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "2"
        followers.pop()[0].close()
        eventually(lambda: client.get("/api/v1/root/quick-start/jobs/1").status_code == 200)
