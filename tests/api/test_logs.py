"""Logs: plain, with timestamps, and followed."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from urllib.parse import urlsplit

import pytest
from support import eventually

from polylocal.api.api_context import ApiContext
from polylocal.files.logs import STDERR, STDOUT, LogWriter
from polylocal.statuses import Kind, Status
from polylocal.store import Store
from polylocal.store.rows import Run

from .conftest import Caller, P, finish, write

LOGS = f"{P}/jobs/1/logs"
STAMP = rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC -- "
WAKE_S = 0.5  # woken followers need far less time, and others poll once a second


# -- stored logs ----------------------------------------------------------------------------------------------------


def test_the_bytes_of_a_log(api: Caller, a_job: Run, context: ApiContext) -> None:
    data = b"hello\r\n\x1b[31mred\x1b[0m\n\xff\xfe not text\n\0 no end of line"
    write(context.log_path(a_job), data)
    for path in (LOGS, f"{LOGS}/", f"{LOGS}?timestamps=false&follow=false"):
        answer = api.get(path)
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert int(answer.headers["content-length"]) == len(data)
        assert answer.headers["content-disposition"] == f'attachment; filename="{a_job.uuid}.log"'


def test_an_empty_log(api: Caller, a_job: Run, context: ApiContext) -> None:
    write(context.log_path(a_job), b"")
    assert (api.get(LOGS).status_code, api.get(LOGS).content) == (200, b"")


def test_without_a_log(api: Caller, a_job: Run, context: ApiContext) -> None:
    answer = api.get(LOGS)
    assert answer.status_code == 404
    assert answer.json() == f"File not found: file_path={a_job.uuid}.log"
    assert api.get(f"{P}/jobs/2/logs").json() == {"detail": "Not found."}


def test_timestamps(api: Caller, a_job: Run, context: ApiContext) -> None:
    moment = 1_534_718_422_000_000  # microseconds
    with LogWriter(context.log_path(a_job)) as writer:
        writer.append(b"one\ntw", STDOUT, moment)
        writer.append(b"o\n\n", STDERR, moment + 5_000_000)
        writer.append(b"no end", STDOUT, moment + 65_000_000)
    assert api.get(f"{LOGS}?timestamps=true").content == (
        b"2018-08-19 22:40:22 UTC -- one\n"
        b"2018-08-19 22:40:22 UTC -- two\n"
        b"2018-08-19 22:40:27 UTC -- \n"
        b"2018-08-19 22:41:27 UTC -- no end"
    )
    assert api.get(LOGS).content == b"one\ntwo\n\nno end"


def test_a_log_that_grows_while_it_is_sent(live: str, api: Caller, a_job: Run, context: ApiContext) -> None:
    """The lines from before the request arrive completely, and the connection can be used again."""
    size = 24 * 2**20
    path = write(context.log_path(a_job), b"x" * size)
    place = urlsplit(live)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
    try:
        for _ in range(2):
            connection.request("GET", LOGS, headers={"Authorization": f"Token {api.token}"})
            answer = connection.getresponse()
            length = int(str(answer.getheader("content-length")))
            with path.open("ab") as file:
                file.write(b"y" * 200_000)
            assert len(answer.read()) == length
    finally:
        connection.close()


# -- lines from clients ---------------------------------------------------------------------------------------------


def test_lines_of_a_client_outside_of_any_container(
    api: Caller, make_job: Callable[..., Run], context: ApiContext
) -> None:
    run = make_job(managed=False)
    for body in ("one", ["two", "three\n"], []):
        answer = api.post(f"{LOGS}/", body)
        assert (answer.status_code, answer.content) == (200, b"")
    assert api("POST", f"{LOGS}/").status_code == 200  # clients end with an empty body
    assert api.get(LOGS).content == b"one\ntwo\nthree\n"
    assert re.match(STAMP + b"one\n", api.get(f"{LOGS}?timestamps=true").content)
    assert context.log_path(run).exists()


@pytest.mark.parametrize("body", [5, {"a": 1}, [1], [["a"]], True])
def test_invalid_lines(body: object, api: Caller, make_job: Callable[..., Run]) -> None:
    make_job(managed=False)
    answer = api.post(f"{LOGS}/", body)
    assert answer.status_code == 400
    assert answer.json() == ["Logs handler expects `data` to be a string or list of strings."]


def test_half_a_character_in_a_line(api: Caller, make_job: Callable[..., Run]) -> None:
    make_job(managed=False)
    assert api("POST", f"{LOGS}/", content=b'["\\ud800"]').status_code in (200, 400)
    assert api("POST", f"{LOGS}/", content=b"null").status_code in (200, 400)


def test_the_log_of_a_container_is_its_own(api: Caller, a_job: Run) -> None:
    assert api.post(f"{LOGS}/", ["x"]).status_code == 400


# -- following ------------------------------------------------------------------------------------------------------


class Follower:
    """Reads a followed log on a real socket, chunk by chunk, with the time of each chunk."""

    def __init__(self, url: str, path: str, token: str) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
        self._connection.request("GET", path, headers={"Authorization": f"Token {token}"})
        self.answer = self._connection.getresponse()
        self.chunks: Queue[tuple[float, bytes]] = Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while chunk := self.answer.read1(65536):
            self.chunks.put((time.monotonic(), chunk))
        self.chunks.put((time.monotonic(), b""))

    def take(self, expected: bytes) -> float:
        """Read exactly this content. Returns the time of its last chunk."""
        got, moment = b"", 0.0
        while len(got) < len(expected):
            moment, chunk = self.chunks.get(timeout=10)
            assert chunk, f"ended after {got!r}"
            got += chunk
        assert got == expected
        return moment

    def end(self) -> float:
        moment, chunk = self.chunks.get(timeout=10)
        assert chunk == b""
        return moment

    def close(self) -> None:
        self._thread.join()
        self._connection.close()


@contextmanager
def following(url: str, api: Caller, path: str = f"{LOGS}/?follow=true") -> Iterator[Follower]:
    follower = Follower(url, path, str(api.token))
    try:
        yield follower
    finally:
        follower.close()


@pytest.fixture
def running(a_job: Run, store: Store) -> Iterator[Run]:
    store.runs.transition(a_job, Status.RUNNING)
    yield a_job
    store.runs.transition(a_job, Status.STOPPED)  # ends the followers of a failed test


def test_following_a_log(live: str, api: Caller, running: Run, context: ApiContext, store: Store) -> None:
    with LogWriter(context.log_path(running)) as writer, following(live, api) as follower:
        assert follower.answer.status == 200
        assert follower.answer.getheader("content-type") == "text/plain; charset=utf-8"
        writer.append(b"first\n")
        follower.take(b"first\n")  # by now the folder is watched
        delays = []
        for n in range(20):
            line = f"line {n}\n".encode()
            written = time.monotonic()
            writer.append(line)
            delays.append(follower.take(line) - written)
        assert sorted(delays)[10] < WAKE_S / 5
        writer.append(b"last, without end of line")
        done = time.monotonic()
        finish(store, running)
        follower.take(b"last, without end of line")
        assert follower.end() - done < WAKE_S


def test_following_from_before_the_log_is_there(
    live: str, api: Caller, running: Run, context: ApiContext, store: Store
) -> None:
    with following(live, api) as follower:
        with LogWriter(context.log_path(running)) as writer:
            writer.append(b"hello\n")
        follower.take(b"hello\n")
        finish(store, running)
        follower.end()


def test_following_what_is_done(live: str, api: Caller, a_job: Run, context: ApiContext, store: Store) -> None:
    write(context.log_path(a_job), b"x" * 1_000_000)
    finish(store, a_job)
    began = time.monotonic()
    with following(live, api) as follower:
        follower.take(b"x" * 1_000_000)
        assert follower.end() - began < WAKE_S * 4


def test_following_what_is_done_and_wrote_nothing(live: str, api: Caller, a_job: Run, store: Store) -> None:
    finish(store, a_job)
    with following(live, api) as follower:
        assert follower.answer.status == 200
        follower.end()


def test_following_what_is_deleted(live: str, api: Caller, running: Run, context: ApiContext, store: Store) -> None:
    with LogWriter(context.log_path(running)) as writer:
        writer.append(b"hello\n")
    with following(live, api) as follower:
        follower.take(b"hello\n")
        store.runs.delete(running)
        finish(store, running, Status.STOPPED)
        store.runs.remove(running)
        follower.end()


def test_following_with_times(live: str, api: Caller, running: Run, context: ApiContext, store: Store) -> None:
    with LogWriter(context.log_path(running)) as writer:
        writer.append(b"hello\n")
    finish(store, running)
    with following(live, api, f"{LOGS}/?follow=true&timestamps=true") as follower:
        _, chunk = follower.chunks.get(timeout=10)
        follower.end()
    assert re.fullmatch(STAMP + b"hello\n", chunk)


def test_many_follow_one_log(live: str, api: Caller, running: Run, context: ApiContext, store: Store) -> None:
    """There are more followers than threads in the server: waiting occupies none."""
    with LogWriter(context.log_path(running)) as writer:
        followers = [Follower(live, f"{LOGS}/?follow=true", str(api.token)) for _ in range(50)]
        try:
            writer.append(b"hello\n")
            for follower in followers:
                follower.take(b"hello\n")
            finish(store, running)
            for follower in followers:
                follower.end()
        finally:
            store.runs.transition(running, Status.STOPPED)
            for follower in followers:
                follower.close()


def test_a_follower_that_leaves_is_forgotten(live: str, api: Caller, running: Run, context: ApiContext) -> None:
    place = urlsplit(live)
    before = threading.active_count()
    for _ in range(3):
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
        connection.request("GET", f"{LOGS}/?follow=true", headers={"Authorization": f"Token {api.token}"})
        assert connection.getresponse().status == 200
        connection.close()
    write(context.log_path(running), b"hello\n")
    assert eventually(lambda: threading.active_count() <= before + 40)


def test_the_folders_of_logs_are_watched_before_the_first_log(live: str, context: ApiContext) -> None:
    """A new folder is only watched a moment after its first log was written, so that no follower would be woken."""
    eventually(lambda: all((context.home.logs / kind.plural).is_dir() for kind in Kind))


def test_the_log_of_a_build_is_followed_too(live: str, api: Caller, store: Store, context: ApiContext) -> None:
    project = store.projects.create(store.users.get("root"), {"name": "quick-start"})
    made = api.post(f"{P}/builds", {"config": {"version": 1, "kind": "build", "build": {"image": "b"}}}).json()
    run = store.runs.by_uuid(made["uuid"])
    assert run
    assert run.project_id == project.id
    with LogWriter(context.log_path(run)) as writer, following(live, api, f"{P}/builds/1/logs?follow=true") as follower:
        writer.write_line("Step 1/3 : FROM b")
        follower.take(b"Step 1/3 : FROM b\n")
        finish(store, run)
        follower.end()
