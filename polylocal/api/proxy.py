"""The pages of notebooks and tensorboards: what their containers serve on loopback, behind the token.

A browser gets in by a token, once: in the query, or typed into a small form. From then on a cookie stands for it, which
opens these pages and nothing of the API. The containers never see it.
"""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from polylocal import clock
from polylocal.api import access, lasting, pages, users
from polylocal.api.access import BRIDGE
from polylocal.api.endpoint import Access, Call, Endpoint
from polylocal.api.guards import PASSED_ON
from polylocal.api.services import Services
from polylocal.errors import NotAllowed, NotAuthenticated, NotFound
from polylocal.statuses import Kind, Status, is_done
from polylocal.store.rows import Run

if TYPE_CHECKING:
    import httpx2
    from websockets.asyncio.client import ClientConnection

log = logging.getLogger(__name__)

_NOTEBOOK = "/notebook/{user}/{project}"
_TENSORBOARD = "/tensorboard/{user}/{project}"
# who may open a page; a notebook carries out what one types into it
SCOPES = [
    Endpoint("GET", _NOTEBOOK, lambda call: None, "The notebook of a project", Access.WRITE),
    Endpoint("GET", f"{_TENSORBOARD}/experiments/{{id:id}}", lambda call: None, "The tensorboard of an experiment"),
    Endpoint("GET", f"{_TENSORBOARD}/groups/{{id:id}}", lambda call: None, "The tensorboard of a group"),
    Endpoint("GET", _TENSORBOARD, lambda call: None, "The tensorboard of a project"),
]
_WITHOUT_EFFECT = ("GET", "HEAD")
_CALL = "polylocal.call"  # in the scope: what was let in
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# what belongs to one connection, and is not passed on to another
_OF_THE_LINK = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
_ABOUT_US = frozenset({"authorization", "cookie", "host"})
_OF_THE_HANDSHAKE = frozenset({"origin", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"})
_OF_THE_HANDSHAKE |= {"sec-websocket-protocol"}
_PATIENCE_S = 120  # after its build and start a program may take so long until it listens
_PARTS_TRIES, _AGAIN_S = 12, 0.5  # for what a page consists of, while its program comes up
_MOST_MESSAGE = 64 * 2**20  # bytes of one that a program sends: a page of plots
_STARTING_S = 1  # seconds after which the page of one that is starting is asked for again


class Proxy:
    """Belongs to one event loop; opens its connections when they are first needed."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._client: httpx2.AsyncClient | None = None

    def routes(self) -> list[BaseRoute]:
        found: list[BaseRoute] = []
        for scope in SCOPES:
            for path in (scope.path, f"{scope.path}/{{rest:path}}"):
                found.append(Route(path, self._answering(scope), methods=_METHODS))
                found.append(WebSocketRoute(path, self._bridging(scope)))
        return found

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()

    # -- requests -------------------------------------------------------------------------------------------------

    def _answering(self, scope: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if request.scope.get(BRIDGE):
                raise NotFound
            let_in = await run_in_threadpool(self._let_in, request)
            if let_in:
                return let_in
            try:
                run = await run_in_threadpool(self._find, request, scope)
            except NotAuthenticated:
                return pages.page(401, "Log in", pages.form(_path(request)))
            except NotAllowed as error:
                return pages.page(403, "Not allowed", html.escape(str(error)))
            except NotFound:
                return pages.page(404, "Not found", "There is no such project, or no such experiment or group in it.")
            if run is None or is_done(run.status):
                return pages.page(404, "Not running", _how_to_start(scope))
            if run.status != Status.RUNNING or not run.port:
                return _starting(f"{run.unique_name} is {run.status}")
            if not _path(request).startswith(_prefix(request, scope) + "/"):
                return RedirectResponse(_prefix(request, scope) + "/", 307)
            call = request.scope[_CALL]
            with lasting.opened(call) as right:  # a program may take as long as it likes until it answers
                passed = await self._pass_on(request, scope, run)
            return await lasting.dropped(passed) if right.ended.is_set() else lasting.kept(call, passed)

        return answer

    def _let_in(self, request: Request) -> Response | None:
        """A token of ours in the query becomes a cookie, and goes from the address that the browser shows and keeps.

        None: there is none. Jupyter's pages have one of Jupyter's own there.
        """
        if request.method != "GET" or not self._is_ours(request.query_params.get("token")):
            return None
        found = access.by_token(request, self._services.store.users, request.query_params["token"])
        answer = RedirectResponse(self._with_query(request, _path(request)), 303)
        if request.headers.get("sec-fetch-site") == "cross-site":
            return answer  # a page of others may lead here, but does not say as whom
        users.give_session(answer, self._services.store.users, found.user)
        return answer

    def _is_ours(self, token: str | None) -> bool:
        """Whether it lets a person in: it goes no further than here."""
        found = self._services.store.users.by_token(token) if token else None
        return found is not None and found.run_pk is None and found.user.is_active

    def _with_query(self, request: HTTPConnection, path: str) -> str:
        """With the query as it came, but for a token of ours."""
        query = request.scope.get("query_string", b"").decode("ascii", "replace")
        if self._is_ours(request.query_params.get("token")):
            query = "&".join(part for part in query.split("&") if part.partition("=")[0] != "token")
        return path + (f"?{query}" if query else "")

    def _find(self, request: HTTPConnection, scope: Endpoint) -> Run | None:
        """The notebook or the tensorboard of the path. Raises NotAuthenticated, NotAllowed, NotFound."""
        call = Call(request, scope, self._services)
        call.identify = users.of_browser
        call.credentials = users.of_browser(request, self._services.store.users)
        request.scope[_CALL] = call
        if call.run_pk is not None:
            raise NotAllowed
        access.check(call)
        kind = Kind.NOTEBOOK if scope.path == _NOTEBOOK else Kind.TENSORBOARD
        experiment = call.run if scope.kind is Kind.EXPERIMENT else None
        group = call.run if scope.kind is Kind.GROUP else None
        return call.store.runs.server(call.project, kind, experiment=experiment, group=group)

    async def _pass_on(self, request: Request, scope: Endpoint, run: Run) -> Response:
        import httpx2

        url = f"http://127.0.0.1:{run.port}{self._inner_path(request, scope, run)}"
        headers = [*_passed_on(request), ("host", request.headers.get("host", "localhost")), *self._key(run)]
        try:
            answer = await self._asked(
                request, url, headers, _PARTS_TRIES if _is_part(request) and _is_young(run) else 2
            )
        except httpx2.RequestError as error:
            # the engine's own proxy takes connections for a program that does not listen yet, and cuts them
            if request.method in _WITHOUT_EFFECT and _is_young(run):
                return _starting(f"{run.unique_name} is starting")
            log.info("run=%s: its page did not answer: %r", run.label, error)
            text = f"{html.escape(run.unique_name)} did not answer; its log may say why."
            return pages.page(502, "No answer", text)
        # closed in any case, also when the browser goes before the first byte
        close = BackgroundTask(answer.aclose)
        passed = StreamingResponse(_body(answer), status_code=answer.status_code, background=close)
        passed.raw_headers = [
            (name.lower(), value)
            for name, value in answer.headers.raw
            if name.lower().decode() not in _OF_THE_LINK and not _is_our_cookie(name, value)
        ]
        return passed

    async def _asked(self, request: Request, url: str, headers: list[tuple[str, str]], tries: int) -> httpx2.Response:
        """What the program answers; what has no effect is asked `tries` times. Raises httpx2.RequestError."""
        import httpx2

        if self._client is None:
            # no time limit on reading: kernels think, and event streams are quiet
            times = httpx2.Timeout(None, connect=5.0)
            many = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
            self._client = httpx2.AsyncClient(timeout=times, limits=many, verify=False, trust_env=False)
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        is_read = asyncio.Event()
        body = _read(request, is_read) if has_body else None
        if not has_body:
            is_read.set()
        sent = self._client.build_request(request.method, url, headers=headers, content=body)
        left = tries if request.method in _WITHOUT_EFFECT and not has_body else 1
        while True:
            left -= 1
            try:
                return await _unless_left(request, is_read, self._client.send(sent, stream=True))
            except httpx2.RequestError:
                if left == 0:
                    raise
            # at first at once: a connection that was kept may have been closed at the other end just now
            await asyncio.sleep(0 if left == tries - 1 else _AGAIN_S)

    # -- websockets -----------------------------------------------------------------------------------------------

    def _bridging(self, scope: Endpoint) -> Callable[[WebSocket], Awaitable[None]]:
        async def bridge(socket: WebSocket) -> None:
            try:
                if socket.scope.get(BRIDGE):
                    raise NotFound
                run = await run_in_threadpool(self._find, socket, scope)
            except (NotAuthenticated, NotAllowed, NotFound):
                run = None
            if run is None or run.status != Status.RUNNING or not run.port:
                await socket.close(1008)  # before it was accepted: the browser is told 403
                return
            await self._join(socket, scope, run)

        return bridge

    async def _join(self, socket: WebSocket, scope: Endpoint, run: Run) -> None:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        wanted: Any = list(socket.scope.get("subprotocols") or []) or None
        kept = [(k, v) for k, v in _passed_on(socket) if k not in _OF_THE_HANDSHAKE]
        try:
            other = await connect(
                f"ws://127.0.0.1:{run.port}{self._inner_path(socket, scope, run)}",
                # as seen by the program this is its own page: it compares the two
                origin=f"http://127.0.0.1:{run.port}",  # type: ignore[arg-type]
                subprotocols=wanted,
                additional_headers=[*kept, *self._key(run)],
                max_size=_MOST_MESSAGE,
                open_timeout=_PATIENCE_S,  # Jupyter answers when the kernel is there
                ping_interval=None,  # the browser's end says when it is gone
                compression=None,
                proxy=None,
            )
        except (OSError, WebSocketException) as error:
            log.info("run=%s: its websocket did not open: %r", run.label, error)
            await socket.close(1011)
            return
        async with other:
            try:
                with lasting.opened(socket.scope[_CALL]) as right:
                    await socket.accept(other.subprotocol)
                    await _both_ways(socket, other, right.ended)
            except HTTPException:  # no place is left
                await socket.close(1013)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _inner_path(self, request: HTTPConnection, scope: Endpoint, run: Run) -> str:
        """Jupyter knows the path that it is seen under; TensorBoard thinks that it is at the top."""
        path = _path(request)
        if run.kind == Kind.TENSORBOARD:
            path = path.removeprefix(_prefix(request, scope)) or "/"
        return self._with_query(request, path)

    def _key(self, run: Run) -> list[tuple[str, str]]:
        """What Jupyter wants to be told, by whoever has been let in here."""
        if run.kind != Kind.NOTEBOOK:
            return []
        with suppress(FileNotFoundError):  # it has just ended
            return [("authorization", f"token {self._services.home.server_token(run.uuid).read_text()}")]
        return []


async def _unless_left(
    request: Request, is_read: asyncio.Event, sending: Coroutine[Any, Any, httpx2.Response]
) -> httpx2.Response:
    """The program's answer, while somebody waits for it: it may never come. Raises ClientDisconnect.

    `is_read`: the body has come, and nobody else looks any more whether the client is there.
    """
    request.scope.get(PASSED_ON, _nothing)()  # it is not this daemon that works
    asked = asyncio.ensure_future(sending)
    left = asyncio.ensure_future(_has_left(request, is_read))
    try:
        await asyncio.wait((asked, left), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise ClientDisconnect
        return asked.result()
    finally:
        for task in (asked, left):
            task.cancel()


async def _has_left(request: Request, is_read: asyncio.Event) -> None:
    await is_read.wait()
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _read(request: Request, is_read: asyncio.Event) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk
    is_read.set()


def _nothing() -> None:
    """Behind no admission there are no places to give back."""


async def _body(answer: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


async def _both_ways(socket: WebSocket, other: ClientConnection, over: asyncio.Event) -> None:
    """Until one of the two closes, then the other one is closed alike; or until there is no right to it any more."""
    from websockets.exceptions import ConnectionClosedError

    async def out() -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                await other.close(_code(message.get("code")), message.get("reason") or "")
                return
            text = message.get("text")
            await other.send(text if text is not None else message["bytes"])

    async def back() -> None:
        with suppress(ConnectionClosedError):  # how it was closed is told on
            async for message in other:
                await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))
        ended = other.protocol.close_rcvd or other.protocol.close_sent  # by the program, or by us: too long a message
        await socket.close(_code(ended.code if ended else None), ended.reason if ended else "")

    async def end() -> None:
        await over.wait()
        await socket.close(1008, lasting.OVER)

    tasks = [asyncio.ensure_future(each) for each in (out(), back(), end())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect | RuntimeError):
            log.debug("a websocket ended: %r", result)


def _is_our_cookie(name: bytes, value: bytes) -> bool:
    """A program must not log anybody in or out of polylocal."""
    # browsers leave out blanks, and where nothing stands before the `=` they send what stands behind it
    named = value.partition(b";")[0].lstrip(b"= \t").partition(b"=")[0].strip()
    return name.lower() == b"set-cookie" and named in (users.SESSION.encode(), users.USER_COOKIE.encode())


def _code(code: int | None) -> int:
    """A close code that may be sent: some only say that none was."""
    return code if code and code not in (1005, 1006, 1015) else 1000


def _passed_on(request: HTTPConnection) -> list[tuple[str, str]]:
    """The headers that are for the program: not the connection's own, and nothing that says who the person is."""
    dropped = _OF_THE_LINK | _ABOUT_US
    kept = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped]
    ours = (f"{users.SESSION}=", f"{users.USER_COOKIE}=")
    cookies = [part.strip() for part in request.headers.get("cookie", "").split(";")]
    others = [part for part in cookies if part and not part.startswith(ours)]
    return [*kept, ("cookie", "; ".join(others))] if others else kept


def _path(request: HTTPConnection) -> str:
    """As it was asked for, quoted, last slash and all; but one slash at its begin: two would name a host."""
    raw: bytes = request.scope.get("raw_path") or quote(request.url.path).encode()
    return "/" + raw.decode("ascii", "replace").partition("?")[0].lstrip("/")


def _prefix(request: HTTPConnection, scope: Endpoint) -> str:
    values: Mapping[str, Any] = request.path_params
    path = scope.path.replace("{id:id}", "{id}")
    return path.format(**values)


def _is_part(request: Request) -> bool:
    """Whether a browser needs it for a page that it has: that page would be broken for good without it."""
    return request.headers.get("sec-fetch-dest", "document") not in ("document", "iframe")


def _is_young(run: Run) -> bool:
    return run.started_at is not None and clock.seconds_between(run.started_at, clock.now()) < _PATIENCE_S


def _how_to_start(scope: Endpoint) -> str:
    what = "notebook" if scope.path == _NOTEBOOK else "tensorboard"
    return f"No {what} is running here. Start one with <code>polyaxon {what} start</code>, then reload this page."


def _starting(what: str) -> Response:
    text = f"{html.escape(what)}. This page looks again every second."
    answer = pages.page(503, "Starting", text)
    answer.headers["Refresh"] = answer.headers["Retry-After"] = str(_STARTING_S)
    return answer
