"""Middleware: refuses requests from pages of other sites, too many requests, and slow clients."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import anyio.to_thread
import httpx2
import pytest
import uvicorn
from api_support import api_context
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.testclient import TestClient, WebSocketDenialResponse
from support import eventually

from polylocal.api import middleware
from polylocal.api.api_context import ApiContext
from polylocal.api.app import build
from polylocal.daemon import web_server as serving
from polylocal.settings import load
from polylocal.store import Store
from polylocal.store.rows import User

from .conftest import Caller, P

HEALTH = "/healthz"


# -- host names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "localhost",
        "LocalHost:8000",
        "localhost.:8000",
        "box.localhost:8000",
        "host.docker.internal:8000",
        "192.168.1.7:8000",
        "[::1]",
        "[::1]:8000",
        "[fe80::1]:8000",
    ],
)
def test_an_address_or_a_name_of_this_machine_is_let_in(nobody: Caller, host: str) -> None:
    assert nobody.get(HEALTH, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "evil-localhost",
        "notlocalhost",
        "127.0.0.1@evil.example",
        "[evil.example]:8000",
        "2130706433",
        "127.0.0.1:80@evil.example",
        "localhost:8000/evil.example",
        "[::1]evil.example",
        "[::1].evil.example:8000",
        "x y.localhost",
        "",
    ],
)
def test_a_name_that_anybody_can_have_is_refused(nobody: Caller, host: str) -> None:
    """DNS rebinding: the name of another site resolves to this address."""
    answer = nobody.get(HEALTH, headers={"Host": host})
    assert answer.status_code == 403
    assert "is not a name of this machine; if it is one, add it to the setting allowed_hosts" in answer.json()["detail"]


def test_further_names_are_let_in_where_they_are_set(serving: Callable[..., TestClient], context: ApiContext) -> None:
    settings = context.settings.model_copy(update={"allowed_hosts": ["Box.Lan"]})
    nobody = Caller(serving(api_context(settings, context.store)))
    assert nobody.get(HEALTH, headers={"Host": "box.lan:8000"}).status_code == 200
    assert nobody.get(HEALTH, headers={"Host": "other.lan:8000"}).status_code == 403
    # pages there may change things
    origin = {"Origin": "https://box.lan", "Host": "127.0.0.1:8000"}
    assert nobody.post("/api/v1/users/token", {}, headers=origin).status_code == 400


def test_the_name_of_the_machine_counts_only_where_others_may_come(
    serving: Callable[..., TestClient], context: ApiContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "box.lan")
    asked = {"headers": {"Host": "box:8000"}}
    assert Caller(serving()).get(HEALTH, **asked).status_code == 403
    opened = api_context(context.settings.model_copy(update={"host": "0.0.0.0"}), context.store)
    for name in ("box", "box.lan"):
        assert Caller(serving(opened)).get(HEALTH, headers={"Host": f"{name}:8000"}).status_code == 200


def test_requests_without_a_host_name_are_from_programs(context: ApiContext) -> None:
    with on_socket(context) as address, connected(address) as peer:
        peer.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert received(peer).startswith(b"HTTP/1.1 200")


# -- origins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8000", "file://", "", "http://[", "x"],
)
def test_pages_of_others_change_nothing(api: Caller, method: str, origin: str) -> None:
    answer = api(method, P, headers={"Origin": origin, "Host": "127.0.0.1:8000"})
    assert answer.status_code == 403
    assert answer.json() == {"detail": "A page of another site sent this request."}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_pages_without_an_origin_are_judged_by_sec_fetch_site(api: Caller, site: str, status: int) -> None:
    assert api.patch(P, {"description": "x"}, headers={"Sec-Fetch-Site": site}).status_code == status


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_our_own_pages_may(api: Caller, scheme: str) -> None:
    own = {"Origin": f"{scheme}://127.0.0.1:8000", "Host": "127.0.0.1:8000"}
    assert api.patch(P, {"description": "mine"}, headers=own).status_code == 200


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_need_no_origin(api: Caller, method: str) -> None:
    """A page of another site can't read the response."""
    answer = api(method, P, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://["])
def test_pages_of_others_open_no_websocket(http: TestClient, a_job: object, origin: str) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        http.websocket_connect("/ws/v1/root/quick-start/jobs/1/logs", headers={"Origin": origin}),
    ):
        pytest.fail("it was opened")
    assert refused.value.status_code == 403


def test_no_websocket_under_another_name(http: TestClient, a_job: object) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        http.websocket_connect("/ws/v1/root/quick-start/jobs/1/logs", headers={"Host": "evil.example"}),
    ):
        pytest.fail("it was opened")
    assert refused.value.status_code == 403


@pytest.mark.parametrize("path", [HEALTH, "/api/v1/nothing", "/api/v1/openapi.json", "/metrics"])
def test_every_answer_has_the_headers_once(nobody: Caller, path: str) -> None:
    answer = nobody.get(path)
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("referrer-policy") == ["same-origin"]


# -- concurrency -------------------------------------------------------------------------------------------------


class Held:
    """An application that answers when the test lets it."""

    def __init__(self, begin: bool = False) -> None:
        self.go = threading.Event()
        self.inside = 0
        self._begin = begin

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:  # type: ignore[type-arg]
        if self._begin:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        self.inside += 1
        await anyio.to_thread.run_sync(self.go.wait)
        self.inside -= 1
        if not self._begin:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@contextmanager
def asked(client: TestClient, times: int) -> Iterator[list[int]]:
    """Send `times` concurrent requests. The list contains their status codes at the end."""
    codes: list[int] = []

    def ask() -> None:
        codes.append(client.get("/").status_code)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(times)]
    for thread in threads:
        thread.start()
    yield codes
    for thread in threads:
        thread.join(20)


def test_too_many_concurrent_requests_get_503() -> None:
    held = Held()
    client = TestClient(middleware.ConcurrencyLimit(held, max_working=3))
    with asked(client, 3) as codes:
        eventually(lambda: held.inside == 3)
        answer = client.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "try again" in answer.json()["detail"]
        held.go.set()
    assert codes == [200, 200, 200]
    assert client.get("/").status_code == 200


def test_open_responses_are_counted_separately() -> None:
    """A response that has begun may take as long as its run, and must not block other requests."""
    held = Held(begin=True)
    client = TestClient(middleware.ConcurrencyLimit(held, max_working=1, max_open=3))
    with asked(client, 3) as codes:
        eventually(lambda: held.inside == 3)
        assert client.get("/").status_code == 503
        held.go.set()
    assert codes == [200, 200, 200]
    assert client.get("/").status_code == 200


def test_a_slot_is_free_again_after_a_bug() -> None:
    async def broken(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("bug")

    guard = middleware.ConcurrencyLimit(broken, max_working=1)
    with suppress(RuntimeError), TestClient(guard, raise_server_exceptions=False) as client:
        for _ in range(3):
            assert client.get("/").status_code == 500
    assert (guard.working, guard._open) == (0, 0)


# -- concurrent bodies -------------------------------------------------------------------------------------------


class Reader:
    """An application that reads a body as it arrives, and answers when the test lets it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.inside = 0

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:  # type: ignore[type-arg]
        if scope["type"] == "lifespan":
            await alive(receive, send)
            return
        await Request(scope, receive).body()
        self.inside += 1
        await anyio.to_thread.run_sync(self.go.wait)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def alive(receive: Callable, send: Callable) -> None:  # type: ignore[type-arg]
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


HALF = {
    "of a known length": (b"Content-Length: 6\r\n\r\nabc", b"def"),
    "of an unknown length": (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n"),
    "of which nothing came": (b"Content-Length: 6\r\n\r\n", b"abcdef"),
}


@pytest.mark.parametrize("form", HALF)
def test_an_incomplete_body_takes_no_slot(context: ApiContext, form: str) -> None:
    """Incomplete requests must not block other clients. A request counts once its body is complete."""
    first, rest = HALF[form]
    reader = Reader()
    guard = middleware.ConcurrencyLimit(reader, max_working=2)
    with on_socket(context, guard) as address, ExitStack() as stack:
        stack.callback(reader.go.set)
        halves = [stack.enter_context(connected(address)) for _ in range(5)]
        for peer in halves:
            peer.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n" + first)
        eventually(lambda: guard._open == 5)
        assert guard.working == 0
        for peer in halves[:2]:
            peer.sendall(rest)
        eventually(lambda: reader.inside == 2)
        assert guard.working == 2
        with connected(address) as late:
            late.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert received(late).startswith(b"HTTP/1.1 503")
        reader.go.set()
        assert [received(peer)[:12] for peer in halves[:2]] == [b"HTTP/1.1 200"] * 2
        eventually(lambda: (guard.working, guard._open) == (0, 3))
        for peer in halves[2:]:
            peer.sendall(rest)
            assert received(peer).startswith(b"HTTP/1.1 200")
    assert (guard.working, guard._open) == (0, 0)


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "0"}])
def test_a_request_without_a_body_has_its_slot_at_once(headers: dict[str, str]) -> None:
    """This holds even if the application never reads a body."""
    held = Held()
    guard = middleware.ConcurrencyLimit(held, max_working=2)
    client = TestClient(guard, headers=headers)
    with asked(client, 2) as codes:
        eventually(lambda: held.inside == 2)
        assert guard.working == 2
        assert client.get("/").status_code == 503
        held.go.set()
    assert codes == [200, 200]


def test_a_request_that_is_passed_on_frees_its_slot() -> None:
    held = Held()

    async def passing(scope: dict, receive: Callable, send: Callable) -> None:  # type: ignore[type-arg]
        scope[middleware.RELEASE_SLOT]()
        scope[middleware.RELEASE_SLOT]()  # calling it once is enough
        await held(scope, receive, send)

    guard = middleware.ConcurrencyLimit(passing, max_working=1)
    with asked(TestClient(guard), 3) as codes:
        eventually(lambda: held.inside == 3)
        assert (guard.working, guard._open) == (0, 3)
        held.go.set()
    assert codes == [200, 200, 200]
    assert (guard.working, guard._open) == (0, 0)


# -- slow clients ------------------------------------------------------------------------------------------------


class Skipping(asyncio.SelectorEventLoop):
    """An event loop that advances its clock instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        look = self._selector.select  # type: ignore[attr-defined]

        def skip(timeout: float | None = None) -> object:
            self.seconds += timeout or 0.0
            return look(0)

        self._selector.select = skip  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.seconds


def sent(*pieces: tuple[int, float]) -> tuple[int, float]:
    """Send a body of (size, seconds before it) with a timeout of 10 s. Returns the status and time of the response."""
    come = deque(pieces)

    async def piece() -> dict[str, object]:
        size, after_s = come.popleft()
        await asyncio.sleep(after_s)
        return {"type": "http.request", "body": b"x" * size, "more_body": bool(come)}

    async def read(scope: dict, receive: Callable, send: Callable) -> None:  # type: ignore[type-arg]
        assert len(await Request(scope, receive).body()) == sum(size for size, _ in pieces)

    async def whole() -> tuple[int, float]:
        status = 200
        try:
            scope = {"type": "http", "headers": []}
            await middleware.ClientTimeout(read, client_s=10.0)(scope, piece, nothing)
        except HTTPException as error:
            status = error.status_code
        return status, asyncio.get_running_loop().time()

    async def nothing(message: object) -> None:
        raise AssertionError("nothing is answered here")

    with asyncio.Runner(loop_factory=Skipping) as runner:
        return runner.run(whole())


@pytest.mark.parametrize(("size", "every_s"), [(1, 1.0), (1, 9.0), (100, 0.25), (0, 1.0)])
def test_a_dripping_body_is_refused(size: int, every_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece arrives in time, but the whole body would take hours."""
    monkeypatch.setattr(middleware, "MIN_RATE", 1000.0)
    status, after_s = sent(*[(size, every_s)] * 100_000)
    assert status == 408
    assert 10.0 <= after_s < 20.0


@pytest.mark.parametrize(("size", "every_s"), [(1000, 1.0), (9000, 9.0), (300, 0.25)])
def test_a_slow_body_that_goes_on_gets_through(size: int, every_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The total time does not matter."""
    monkeypatch.setattr(middleware, "MIN_RATE", 1000.0)
    status, after_s = sent(*[(size, every_s)] * 1000)
    assert (status, after_s) == (200, pytest.approx(1000 * every_s))


def test_a_fast_beginning_allows_no_longer_pause() -> None:
    """A fast beginning does not allow a longer pause."""
    assert sent((1 << 20, 1.0), (1, 10.5)) == (408, pytest.approx(11.0))


class Address(tuple[str, int]):
    """The address of the application, with its server for inspection."""

    server: uvicorn.Server

    def __new__(cls, where: tuple[str, int], server: uvicorn.Server) -> Address:
        made = super().__new__(cls, where)
        made.server = server
        return made


@contextmanager
def on_socket(context: ApiContext, app: object = None) -> Iterator[Address]:
    """The application on a socket, configured as in the daemon."""
    listener = serving.listen("127.0.0.1", 0)
    server = serving.server(app or build(context))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    eventually(lambda: server.started)
    try:
        yield Address(listener.getsockname(), server)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, 20) as peer:
        yield peer


def received(peer: socket.socket) -> bytes:
    """All bytes until the other side closes the connection. Raises TimeoutError if it does not."""
    found = b""
    with suppress(ConnectionResetError):
        while data := peer.recv(65536):
            found += data
    return found


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_S", 0.3)
    monkeypatch.setattr(middleware.ClientTimeout.__init__, "__defaults__", (0.5,))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "]
)
def test_a_missing_head_closes_the_connection(context: ApiContext, sent: bytes) -> None:
    with on_socket(context) as address, connected(address) as peer:
        peer.sendall(sent)
        assert received(peer) == b""


def test_connections_beyond_the_limit_are_closed(context: ApiContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection uses a descriptor, even without a request."""
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 2)
    with on_socket(context) as address, connected(address) as first, connected(address) as second:
        for peer in (first, second):  # their responses prove that the server has accepted both
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert peer.recv(12) == b"HTTP/1.1 200"
        with connected(address) as third, suppress(ConnectionError):
            third.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert third.recv(12) == b""


@pytest.mark.usefixtures("hasty")
def test_a_dripping_head_closes_the_connection(context: ApiContext) -> None:
    with on_socket(context) as address, connected(address) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\n")
        peer.settimeout(0.05)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                peer.sendall(b"X: y\r\n")
                if peer.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
        pytest.fail("it is still open")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("between", [b"", b"\r\n"])
def test_a_missing_next_head_closes_the_connection(
    context: ApiContext, monkeypatch: pytest.MonkeyPatch, between: bytes
) -> None:
    """Neither silence nor empty lines keep a connection open."""
    monkeypatch.setattr(serving, "_KEEP_ALIVE_S", 1)
    with on_socket(context) as address, connected(address) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        peer.settimeout(10)
        assert peer.recv(65536).startswith(b"HTTP/1.1 200")
        peer.sendall(between)
        received(peer)


def test_an_endless_head_is_refused(context: ApiContext) -> None:
    with on_socket(context) as address, connected(address) as peer, suppress(OSError):
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        for _ in range(1000):
            peer.sendall(b"X-Y: " + b"z" * 4000 + b"\r\n")
        pytest.fail("4 MB of a head were taken")


def test_a_long_body_is_no_long_head(context: ApiContext, store: Store, root: User) -> None:
    with on_socket(context) as (host, port), httpx2.Client(base_url=f"http://{host}:{port}") as client:
        caller = Caller(client, store.users.new_token(root))
        made = caller.post("/api/v1/projects/", {"name": "long", "readme": "x" * 200_000})
        assert made.status_code == 201
        assert caller.post("/api/v1/projects/", {"name": "longer", "readme": "x" * 200_000}).status_code == 201


@pytest.mark.usefixtures("hasty")
def test_a_stalled_body_gets_408(context: ApiContext, store: Store, root: User) -> None:
    token = store.users.new_token(root)
    head = f"POST /api/v1/projects/ HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Token {token}\r\n"
    with on_socket(context) as address, connected(address) as peer:
        peer.sendall(head.encode() + b"Content-Length: 99\r\nContent-Type: application/json\r\n\r\n{")
        answer = received(peer)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not come within 0.5 s" in answer


def test_a_client_that_reads_nothing_is_disconnected(context: ApiContext) -> None:
    """Its slot becomes free, and its connection is closed with unread data."""
    ended = threading.Event()

    async def endless(scope: dict, receive: Callable, send: Callable) -> None:  # type: ignore[type-arg]
        if scope["type"] == "lifespan":
            await alive(receive, send)
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        finally:
            ended.set()

    guard = middleware.ConcurrencyLimit(middleware.ClientTimeout(endless, client_s=0.5))
    with on_socket(context, guard) as address, connected(address) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert ended.wait(20)
        eventually(lambda: guard._open == 0)
        eventually(lambda: not address.server.server_state.connections, 10)


def test_settings_say_which_names(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYLOCAL_ALLOWED_HOSTS", '["box.lan"]')
    assert load().allowed_hosts == ["box.lan"]
