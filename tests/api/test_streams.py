"""Logs and resources over websockets, in the formats of both generations of clients."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect
from support import eventually
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from polylocal.api import feed, streams
from polylocal.api.api_context import ApiContext
from polylocal.engine.containers import Usage
from polylocal.files.logs import LogWriter
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import FILES, Caller, Json, on_loopback, write

ROOTS = "root/quick-start"
KINDS = [Kind.JOB, Kind.BUILD, Kind.EXPERIMENT]
STAMPED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC -- (.*)")
FOREVER_S = 3600.0
each_kind = pytest.mark.parametrize("kind", KINDS)


def old(kind: Kind, number: int = 1, what: str = "logs") -> str:
    return f"/ws/v1/{ROOTS}/{kind.plural}/{number}/{what}"


def new(kind: Kind, number: int = 1) -> str:
    return f"/api/v1/{ROOTS}/{kind.plural}/{number}/logs/stream/"


@pytest.fixture
def make(store: Store, root: User, project: Project) -> Callable[..., Run]:
    """make(kind, status=None) → a run, inserted into the store directly."""

    def made(kind: Kind, status: Status | None = None) -> Run:
        run = store.runs.insert(project, root, NewRun(kind, config=FILES[kind]))
        if status:
            store.runs.transition(run, status, recorded={"container_id": f"c{run.id}"})
        return store.runs.by_pk(run.pk)

    return made


@pytest.fixture
def header(api: Caller) -> dict[str, str]:
    return {"Authorization": f"token {api.token}"}


def frames(socket: WebSocketTestSession) -> Iterator[Any]:
    """All frames until the server closes the websocket properly."""
    while True:
        try:
            yield socket.receive_json()
        except WebSocketDisconnect as end:
            closed = end.code
            break
    assert closed == 1000


def quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the polling, so that followers without a hint wait for ever."""
    monkeypatch.setattr(feed, "POLL_S", FOREVER_S)


# -- lines ----------------------------------------------------------------------------------------------------------


@each_kind
def test_new_clients_get_each_line_as_a_text(
    kind: Kind, http: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    run = make(kind, Status.RUNNING)
    write(context.log_path(run), "one\ntwo\n")
    with http.websocket_connect(new(kind), headers=header) as socket:
        first = [said(socket.receive_json()) for _ in range(3)]
        assert first == ["status: created", "one", "two"]
        store.runs.transition(run, Status.SUCCEEDED)
        assert list(frames(socket)) == []


def said(frame: Json) -> str:
    """A line without its time, or `status: …` for a frame with a status."""
    if "status" in frame and frame["log_lines"] is None:
        assert list(frame) == ["status", "log_lines"]
        return f"status: {frame['status']}"
    assert list(frame) == ["log_lines"]
    found = STAMPED.fullmatch(frame["log_lines"])
    assert found
    return found[1]


@each_kind
def test_old_clients_get_lists_of_plain_lines(
    kind: Kind, http: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    run = make(kind, Status.RUNNING)
    write(context.log_path(run), "one\ntwo\n")
    with http.websocket_connect(old(kind), headers=header) as socket:
        assert socket.receive_json() == {"status": "created", "log_lines": None}
        frame = socket.receive_json()
        about = {"experiment_uuid": run.uuid, "status": "running", "task_type": "master", "task_idx": 0}
        expected = {"job_uuid": run.uuid, **(about if kind is Kind.EXPERIMENT else {}), "log_lines": ["one", "two"]}
        assert frame == expected
        store.runs.transition(run, Status.SUCCEEDED)
        assert list(frames(socket)) == []


@pytest.mark.parametrize(
    "path", [f"/ws/v1/{ROOTS}/experiments/1/jobs/1/logs", f"/api/v1/{ROOTS}/experiments/1/jobs/1/logs/stream"]
)
def test_the_log_of_the_task_of_an_experiment(
    path: str, http: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    run = make(Kind.EXPERIMENT, Status.RUNNING)
    write(context.log_path(run), "one\n")
    with http.websocket_connect(path, headers=header) as socket:
        socket.receive_json()
        assert "one" in json.dumps(socket.receive_json())
        store.runs.transition(run, Status.SUCCEEDED)
        assert list(frames(socket)) == []
    with http.websocket_connect(path.replace("jobs/1", "jobs/2"), headers=header) as socket:
        assert list(frames(socket)) == [{"status": "error", "log_lines": ["Experiment was not found"]}]


def test_the_statuses_before_it_runs(
    http: TestClient,
    header: dict[str, str],
    make: Callable[..., Run],
    store: Store,
    context: ApiContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each status once, at the time of its change, without polling."""
    quietly(monkeypatch)
    run = make(Kind.JOB)
    with http.websocket_connect(new(Kind.JOB), headers=header) as socket:
        assert socket.receive_json() == {"status": "created", "log_lines": None}
        for status in (Status.BUILDING, Status.SCHEDULED, Status.STARTING):
            store.runs.transition(run, status)
            assert socket.receive_json() == {"status": status, "log_lines": None}
        store.runs.transition(run, Status.RUNNING)
        write(context.log_path(run), "hello\n")
        assert said(socket.receive_json()) == "hello"
        store.runs.transition(run, Status.SUCCEEDED)
        assert list(frames(socket)) == []


@pytest.mark.parametrize("end", [Status.FAILED, Status.STOPPED])
def test_a_run_that_ends_before_it_runs(
    end: Status,
    http: TestClient,
    header: dict[str, str],
    make: Callable[..., Run],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quietly(monkeypatch)
    run = make(Kind.JOB)
    with http.websocket_connect(new(Kind.JOB), headers=header) as socket:
        assert socket.receive_json() == {"status": "created", "log_lines": None}
        store.runs.transition(run, end)
        assert list(frames(socket)) == [{"status": end, "log_lines": None}]


@pytest.mark.parametrize("path", [old(Kind.JOB), new(Kind.JOB)])
def test_a_line_arrives_without_anybody_looking(
    path: str,
    http: TestClient,
    header: dict[str, str],
    make: Callable[..., Run],
    store: Store,
    context: ApiContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quietly(monkeypatch)
    run = make(Kind.JOB, Status.RUNNING)
    with LogWriter(context.log_path(run)) as writer, http.websocket_connect(path, headers=header) as socket:
        socket.receive_json()
        for number in range(5):
            writer.write_line(f"line {number}")
            [line] = lines_of(socket.receive_json())
            assert line.endswith(f"line {number}")
        store.runs.transition(run, Status.SUCCEEDED)
        assert list(frames(socket)) == []


def lines_of(frame: Json) -> list[str]:
    found = frame["log_lines"]
    return [found] if isinstance(found, str) else found


@pytest.mark.parametrize("path", [old(Kind.JOB), new(Kind.JOB)])
def test_contents_of_lines(
    path: str, http: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    """Empty lines, a line without an end, characters, and invalid bytes."""
    run = make(Kind.JOB, Status.RUNNING)
    write(context.log_path(run), "\nümläut ✓\r\n".encode() + b"\xff\n" + b"x" * 100_000 + b"\nno end")
    with http.websocket_connect(path, headers=header) as socket:
        socket.receive_json()
        store.runs.transition(run, Status.SUCCEEDED)
        found = [line.partition(" -- ")[2] or line for frame in frames(socket) for line in lines_of(frame)]
    expected = ["", "ümläut ✓", "\ufffd", "x" * 100_000, "no end"]
    assert [line.removesuffix(" -- ") if line.endswith("-- ") else line for line in found][1:] == expected[1:]
    assert len(found) == 5


@pytest.mark.parametrize("path", [old(Kind.JOB), new(Kind.JOB)])
def test_many_lines_come_whole_and_in_order(
    path: str, http: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    run = make(Kind.JOB, Status.RUNNING)
    count = 3000
    write(context.log_path(run), "".join(f"line {number}\n" for number in range(count)))
    with http.websocket_connect(path, headers=header) as socket:
        socket.receive_json()
        store.runs.transition(run, Status.SUCCEEDED)
        found = [line.rpartition(" ")[2] for frame in frames(socket) for line in lines_of(frame)]
    assert found == [str(number) for number in range(count)]


@pytest.mark.parametrize("path", [old(Kind.JOB), new(Kind.JOB)])
def test_a_line_that_never_ends_comes_in_pieces(
    path: str, http: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    """A program that never ends its line must not fill the memory. The lines after it arrive as usual."""
    run = make(Kind.JOB, Status.RUNNING)
    endless = "".join(f"{number:08}" for number in range(3 * 2**17 + 1000))  # somewhat more than 3 MiB
    write(context.log_path(run), f"{endless}\nnext\n")
    with http.websocket_connect(path, headers=header) as socket:
        socket.receive_json()
        store.runs.transition(run, Status.SUCCEEDED)
        found = [line.rpartition(" -- ")[2] for frame in frames(socket) for line in lines_of(frame)]
    assert found.pop() == "next"
    assert len(found) > 1
    assert max(map(len, found)) <= streams._MAX_LINE
    assert "".join(found) == endless


def lines_in(*chunks: bytes) -> list[str]:
    async def come() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def lines() -> list[str]:
        return [line async for batch in streams._lines(come()) for line in batch]

    return asyncio.run(lines())


@given(st.lists(st.text("ab\n", max_size=20), max_size=20))
def test_lines_come_whole_however_they_are_read(texts: list[str]) -> None:
    whole = "".join(texts)
    expected = whole.removesuffix("\n").split("\n") if whole else []
    assert lines_in(*(text.encode() for text in texts)) == expected


@given(st.lists(st.text("aü€🎈\n", max_size=12), max_size=20), st.integers(1, 7))
def test_long_lines_come_in_pieces_without_losses(texts: list[str], step: int) -> None:
    """No character is split, and no additional line appears, however the log is read."""
    whole = "".join(texts).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_MAX_LINE", 8)
        found = lines_in(*(whole[at : at + step] for at in range(0, len(whole), step)))
    assert all(len(line.encode()) <= 8 for line in found)
    lines = whole.decode().removesuffix("\n").split("\n") if whole else []
    left = iter(found)
    for line in lines:
        piece = next(left)
        while piece != line:
            assert line.startswith(piece)
            assert piece
            line, piece = line[len(piece) :], next(left)
    assert list(left) == []


def test_a_build_has_something_to_say_before_it_runs(
    http: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    run = make(Kind.BUILD)
    store.runs.transition(run, Status.BUILDING)
    write(context.log_path(run), "pulling\n")
    with http.websocket_connect(new(Kind.BUILD), headers=header) as socket:
        assert [said(socket.receive_json()) for _ in range(3)] == ["status: created", "status: building", "pulling"]
        store.runs.transition(run, Status.FAILED)
        assert list(frames(socket)) == []


def test_two_followers_of_one_run(
    http: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    run = make(Kind.JOB, Status.RUNNING)
    with (
        http.websocket_connect(new(Kind.JOB), headers=header) as first,
        http.websocket_connect(old(Kind.JOB), headers=header) as second,
    ):
        write(context.log_path(run), "one\n")
        for socket in (first, second):
            assert socket.receive_json() == {"status": "created", "log_lines": None}
        store.runs.transition(run, Status.SUCCEEDED)
        for socket in (first, second):
            assert "one" in json.dumps(list(frames(socket)))


# -- refusals -------------------------------------------------------------------------------------------------------

PATHS = [
    *(old(kind) for kind in KINDS),
    *(new(kind) for kind in KINDS),
    *(old(kind, what="resources") for kind in KINDS),
]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("path", PATHS)
def test_missing_runs(path: str, http: TestClient, header: dict[str, str]) -> None:
    name = "Experiment" if "/experiments/" in path else "Job"
    for place in (path, path.replace("quick-start", "nosuch"), path.replace("root", "nosuch")):
        with http.websocket_connect(place, headers=header) as socket:
            assert list(frames(socket)) == [{"status": "error", "log_lines": [f"{name} was not found"]}]


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.STOPPED])
@pytest.mark.parametrize("path", PATHS)
def test_finished_runs(
    path: str, status: Status, http: TestClient, header: dict[str, str], make: Callable[..., Run], context: ApiContext
) -> None:
    for kind in KINDS:
        write(context.log_path(make(kind, status)), "one\n")
    name = "Experiment" if "/experiments/" in path else "Job"
    with http.websocket_connect(path, headers=header) as socket:
        message = f"{name} is not running, current status: {status}"
        assert list(frames(socket)) == [{"status": "error", "log_lines": [message]}]


def error_of(http: TestClient, path: str, **more: Any) -> str:
    with http.websocket_connect(path, **more) as socket:
        [frame] = frames(socket)
    assert frame["status"] == "error"
    [message] = frame["log_lines"]
    return str(message)


@pytest.mark.parametrize("path", PATHS)
def test_callers_without_a_token(path: str, http: TestClient, make: Callable[..., Run]) -> None:
    for kind in KINDS:
        make(kind, Status.RUNNING)
    assert error_of(http, path) == "Authentication credentials were not provided."
    assert error_of(http, path, headers={"Authorization": "Token nosuch"}) == "Invalid token."
    assert error_of(http, f"{path}?token=nosuch") == "Invalid token."
    assert error_of(http, f"{path}?token=") == "Authentication credentials were not provided."


def test_callers_without_access(
    http: TestClient, api: Caller, as_ann: Caller, make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    run = make(Kind.JOB, Status.RUNNING)
    write(context.log_path(run), "secret\n")
    hers = {"Authorization": f"token {as_ann.token}"}
    api.patch(f"/api/v1/{ROOTS}", {"is_public": False})
    for path in (old(Kind.JOB), new(Kind.JOB), old(Kind.JOB, what="resources")):
        assert error_of(http, path, headers=hers) == "You do not have permission to perform this action."
        assert error_of(http, f"{path}?token={as_ann.token}") == "You do not have permission to perform this action."
    api.patch(f"/api/v1/{ROOTS}", {"is_public": True})
    with http.websocket_connect(new(Kind.JOB), headers=hers) as socket:
        socket.receive_json()
        store.runs.transition(run, Status.SUCCEEDED)
        assert "secret" in json.dumps(list(frames(socket)))


def test_a_token_in_the_query(
    http: TestClient, api: Caller, make: Callable[..., Run], store: Store, context: ApiContext
) -> None:
    """Browsers can't send headers with a websocket."""
    run = make(Kind.JOB, Status.RUNNING)
    write(context.log_path(run), "one\n")
    with http.websocket_connect(f"{new(Kind.JOB)}?token={api.token}") as socket:
        assert [said(socket.receive_json()) for _ in range(2)] == ["status: created", "one"]
        store.runs.transition(run, Status.SUCCEEDED)
        assert list(frames(socket)) == []


def test_a_run_follows_its_own_project(
    http: TestClient, make: Callable[..., Run], token_of: Callable[[Run], str], store: Store, root: User
) -> None:
    run = make(Kind.JOB, Status.RUNNING)
    headers = {"Authorization": f"token {token_of(run)}"}
    store.runs.insert(store.projects.get("root", "quick-start"), root, NewRun(Kind.BUILD))
    done = store.runs.find(Kind.BUILD, 1)
    store.runs.transition(done, Status.SUCCEEDED)
    message = "Job is not running, current status: succeeded"
    assert error_of(http, new(Kind.BUILD), headers=headers) == message
    other = store.projects.create(root, {"name": "other"})
    store.runs.insert(other, root, NewRun(Kind.JOB))
    path = new(Kind.JOB, 2).replace("quick-start", "other")
    assert error_of(http, path, headers=headers) == "You do not have permission to perform this action."


def test_a_plain_request_is_no_websocket(api: Caller, make: Callable[..., Run]) -> None:
    make(Kind.JOB, Status.RUNNING)
    for path in (old(Kind.JOB), new(Kind.JOB)):
        answer = api.get(path)
        assert 400 <= answer.status_code < 500


# -- resources ------------------------------------------------------------------------------------------------------

FRAME = ["job_uuid", "job_name", "experiment_uuid", "container_id", "n_cpus", "cpu_percentage", "percpu_percentage"]
FRAME += ["memory_used", "memory_limit", "gpu_resources"]


@pytest.fixture
def measured(context: ApiContext, monkeypatch: pytest.MonkeyPatch, serving: Callable[..., TestClient]) -> TestClient:
    """An application whose containers use one of four cores, sampled without pauses."""
    monkeypatch.setattr(streams, "SAMPLE_S", 0.01)
    monkeypatch.setattr(streams, "FIRST_SAMPLE_S", 0.01)
    seconds = iter(range(10**6))

    def usage(container_id: str) -> Usage:
        assert container_id == "c1"
        worked = next(seconds) * 10**9
        return Usage(worked, [worked, 0, 0, 0], 4 * worked, 4, 50 * 2**20, 100 * 2**20)

    return serving(replace(context, usage=usage))


@pytest.mark.parametrize("kind", [*KINDS, Kind.NOTEBOOK])
@pytest.mark.parametrize("family", ["/ws/v1", "/api/v1"])
def test_what_a_run_uses(
    kind: Kind, family: str, measured: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store
) -> None:
    run = make(kind, Status.RUNNING)
    with measured.websocket_connect(f"{family}/{ROOTS}/{kind.plural}/1/resources", headers=header) as socket:
        for _ in range(3):
            [frame] = socket.receive_json()
            assert sorted(frame) == sorted(FRAME)  # clients refuse a frame with any other key
            assert (frame["job_uuid"], frame["experiment_uuid"], frame["container_id"]) == (run.uuid, run.uuid, "c1")
            assert (frame["n_cpus"], frame["cpu_percentage"]) == (4, 100.0)
            assert frame["percpu_percentage"] == [100.0, 0.0, 0.0, 0.0]
            assert (frame["memory_used"], frame["memory_limit"]) == (50 * 2**20, 100 * 2**20)
            assert frame["gpu_resources"] is None
        store.runs.transition(run, Status.SUCCEEDED)
        assert all(isinstance(frame, list) for frame in frames(socket))


def test_what_a_run_uses_before_it_runs(
    measured: TestClient, header: dict[str, str], make: Callable[..., Run], store: Store
) -> None:
    run = make(Kind.JOB)
    with measured.websocket_connect(old(Kind.JOB, what="resources"), headers=header) as socket:
        store.runs.transition(run, Status.RUNNING, recorded={"container_id": "c1"})
        assert socket.receive_json()[0]["job_uuid"] == run.uuid
        store.runs.transition(run, Status.FAILED)
        assert all(isinstance(frame, list) for frame in frames(socket))


def test_unknown_usage_of_a_run(
    context: ApiContext,
    monkeypatch: pytest.MonkeyPatch,
    serving: Callable[..., TestClient],
    header: dict[str, str],
    make: Callable[..., Run],
    store: Store,
) -> None:
    """The container has just disappeared, or the engine does not answer."""
    monkeypatch.setattr(streams, "SAMPLE_S", 0.01)
    asked: list[str] = []
    http = serving(replace(context, usage=lambda container_id: asked.append(container_id)))
    run = make(Kind.JOB, Status.RUNNING)
    with http.websocket_connect(old(Kind.JOB, what="resources"), headers=header) as socket:
        eventually(lambda: len(asked) > 2)
        store.runs.transition(run, Status.SUCCEEDED)
        message = "Job is not running, current status: succeeded"
        assert list(frames(socket)) == [{"status": "error", "log_lines": [message]}]


# -- a real socket --------------------------------------------------------------------------------------------------


@pytest.fixture
def at(live: str, api: Caller) -> Iterator[Callable[..., ClientConnection]]:
    """at(path) → a real client, with the header."""
    with ExitStack() as stack:

        def open_(path: str, token: str | None = api.token) -> ClientConnection:
            headers = {"Authorization": f"Token {token}"} if token else {}
            place = live.replace("http", "ws", 1) + path
            return stack.enter_context(connect(place, additional_headers=headers, proxy=None, open_timeout=30))

        yield open_


def next_frame(client: ClientConnection) -> Any:
    return json.loads(client.recv(timeout=30))


def rest(client: ClientConnection) -> list[Any]:
    found = []
    while True:
        try:
            found.append(next_frame(client))
        except ConnectionClosed as end:
            closed = end.rcvd
            break
    assert closed is not None
    assert closed.code == 1000
    return found


@pytest.mark.parametrize("path", [old(Kind.JOB), new(Kind.JOB), f"{old(Kind.JOB)}/", new(Kind.JOB).rstrip("/")])
def test_a_real_client(
    path: str,
    at: Callable[..., ClientConnection],
    make: Callable[..., Run],
    store: Store,
    context: ApiContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quietly(monkeypatch)
    run = make(Kind.JOB)
    client = at(path)
    assert next_frame(client) == {"status": "created", "log_lines": None}
    store.runs.transition(run, Status.RUNNING)
    with LogWriter(context.log_path(run)) as writer:
        for word in ("one", "two"):
            writer.write_line(word)
            [line] = lines_of(next_frame(client))
            assert line.endswith(word)
    store.runs.transition(run, Status.SUCCEEDED)
    assert rest(client) == []


def test_a_real_client_that_is_refused(
    at: Callable[..., ClientConnection], make: Callable[..., Run], store: Store
) -> None:
    run = make(Kind.JOB, Status.RUNNING)
    for client, words in (
        (at(new(Kind.JOB), token=None), "Authentication credentials were not provided."),
        (at(new(Kind.JOB), token="nosuch"), "Invalid token."),
        (at(f"{new(Kind.JOB)}?token=nosuch", token=None), "Invalid token."),
        (at(new(Kind.JOB, 9)), "Job was not found"),
    ):
        assert rest(client) == [{"status": "error", "log_lines": [words]}]
    store.runs.transition(run, Status.FAILED)
    assert rest(at(old(Kind.JOB)))[0]["log_lines"] == ["Job is not running, current status: failed"]


def test_a_client_pings(at: Callable[..., ClientConnection], make: Callable[..., Run]) -> None:
    make(Kind.JOB, Status.RUNNING)
    client = at(new(Kind.JOB))
    assert client.ping().wait(30)
    client.send("what a client says is not listened to")
    assert client.ping().wait(30)


@pytest.mark.parametrize("path", [old(Kind.JOB), new(Kind.JOB)])
@pytest.mark.parametrize("status", [None, Status.RUNNING])
def test_a_client_that_goes_away_leaves_no_follower(
    path: str,
    status: Status | None,
    http: TestClient,
    header: dict[str, str],
    make: Callable[..., Run],
    context: ApiContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run prints nothing, so no failed write reveals the missing client."""
    quietly(monkeypatch)
    make(Kind.JOB, status)
    for _ in range(3):
        with http.websocket_connect(path, headers=header) as socket:
            eventually(lambda: context.feed._wakeups)
            socket.close()
            eventually(lambda: not context.feed._wakeups)


@pytest.mark.parametrize("path", [old(Kind.JOB), new(Kind.JOB), old(Kind.JOB, what="resources")])
@pytest.mark.parametrize("is_cut", [True, False])
def test_real_clients_that_go_away_leave_nothing(
    path: str,
    is_cut: bool,
    context: ApiContext,
    make: Callable[..., Run],
    api: Caller,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither a follower nor a line in the daemon's log."""
    quietly(monkeypatch)
    under_way: list[object] = []
    original = streams._run_until_disconnect

    async def counted(*arguments: Any) -> None:
        under_way.append(arguments)
        try:
            await original(*arguments)
        finally:
            under_way.pop()

    monkeypatch.setattr(streams, "_run_until_disconnect", counted)
    make(Kind.JOB, Status.RUNNING)
    with on_loopback(context) as url, ExitStack() as stack:
        place = f"{url.replace('http', 'ws', 1)}{path}?token={api.token}"
        clients = [stack.enter_context(connect(place, proxy=None, open_timeout=30)) for _ in range(5)]
        eventually(lambda: len(under_way) == len(clients))
        for client in clients:
            if is_cut:  # without a close frame, as after the end of a client's process
                client.socket.shutdown(socket.SHUT_RDWR)
            client.close()
        eventually(lambda: not under_way)
    assert [record.message for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []
