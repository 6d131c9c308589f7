"""Middleware: checks the origin of requests, and limits their number, their query strings and their duration."""

import asyncio
import ipaddress
import logging
import re
import threading
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from polylocal.api import origins

log = logging.getLogger(__name__)

CLIENT_S = 30.0  # for the next piece of a request's body, and for one piece of a response
MIN_RATE = 1024.0  # bytes a second of a whole body, after the first `CLIENT_S`
MAX_WORKING = 256  # requests at work
MAX_PARAMETERS = 1000  # of a query string
MAX_OPEN = 2000  # requests and websockets in all
RELEASE_SLOT = "polylocal.release-slot"  # in the scope: a function that releases the request's slot
ABORT = "polylocal.abort"  # in the scope: a function that ends the connection and drops unsent bytes
ALWAYS = ("/healthz", "/_health")  # answered at any load: a busy daemon is alive
_PIECE = 64 * 1024  # bytes
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:@/\[\]]*)(:[0-9]{0,5})?")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# names that always mean this machine, so that no page of others has them; containers use the last one
_OUR_NAMES = frozenset({"localhost", "host.docker.internal"})
# added to every response without these headers: no browser may treat data as a page
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; sandbox allow-downloads",
    ),
]


class ConnectionMiddleware:
    """Base of middleware for requests and websockets; the lifespan passes by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_connection = scope["type"] in ("http", "websocket")
        await (self.handle if is_connection else self._app)(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class OriginCheck(ConnectionMiddleware):
    """Refuses requests that pages of other sites make a browser send.

    A page elsewhere can point a name of its own at this address (DNS rebinding), so a name in `Host` must be one of
    ours; a plain address can't be borrowed. Such a page can also send forms and open websockets, so the `Origin` of a
    request that changes something or opens a websocket must be ours. Programs send no `Origin`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], trusted: Collection[str] = ()) -> None:
        """`hosts`: further names of this machine in `Host`, without a port. `trusted`: hosts, at any port, whose pages
        may send any request."""
        super().__init__(app)
        self._names = _OUR_NAMES | {host.lower() for host in (*hosts, *trusted)}
        self._trusted = {host.lower() for host in trusted}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(scope)
        if problem is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            await _refuse(scope, receive, send, 403, problem)

    def _problem(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host")
        if host is not None and not self._is_ours(host):
            name = _name_of(host)
            return f"`{name:.100}` is not a name of this machine; if it is one, add it to the setting allowed_hosts."
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return None
        origin = headers.get("origin")
        if origin is None:  # a browser that omits it still reports how its page is related to ours
            is_own = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        else:
            netloc = _netloc(origin)
            is_own = bool(netloc) and (netloc == host or _name_of(netloc) in self._trusted)
        return None if is_own else "A page of another site sent this request."

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        if not _HOST.fullmatch(host):  # it becomes part of redirects
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names or name.endswith(".localhost")
        return True


class QueryLimit(ConnectionMiddleware):
    """Refuses query strings with too many parameters, which take long to parse."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("query_string", b"").count(b"&") >= MAX_PARAMETERS:
            await _refuse(scope, receive, send, 400, f"The query string has more than {MAX_PARAMETERS} parameters.")
            return
        await self._app(scope, receive, send)


class ConcurrencyLimit(ConnectionMiddleware):
    """Answers 503 with `Retry-After` to requests beyond the number that the daemon can work on at a time."""

    def __init__(self, app: ASGIApp, max_working: int = MAX_WORKING, max_open: int = MAX_OPEN) -> None:
        super().__init__(app)
        self._max_working = max_working
        self._max_open = max_open
        self._lock = threading.Lock()  # containers have an event loop of their own
        self.working = 0  # requests without a response yet
        self._open = 0  # all requests and websockets

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_full = self.working >= self._max_working or self._open >= self._max_open
        if is_full and scope["path"].rstrip("/") not in ALWAYS:
            words = "Too many requests at once; try again in a moment."
            await _refuse(scope, receive, send, 503, words, {"Retry-After": "2"})
            return
        slot = _Slot(self, awaits_body=scope["type"] == "http" and _has_body(scope))
        scope[RELEASE_SLOT] = slot.leave
        self.count(opened=1)
        try:
            await self._app(scope, slot.receiving(receive), slot.sending(send))
        finally:
            slot.leave()
            self.count(opened=-1)

    def count(self, *, opened: int = 0, working: int = 0) -> None:
        with self._lock:
            self._open += opened
            self.working += working


class _Slot:
    """A concurrency slot of one request: from the end of the request body to the start of the response, or until
    another program works on it."""

    def __init__(self, limit: ConcurrencyLimit, *, awaits_body: bool) -> None:
        self._limit = limit
        self._awaits_body = awaits_body
        self._is_taken = False
        if not awaits_body:
            self._take()

    def _take(self) -> None:
        self._is_taken = True
        self._limit.count(working=1)

    def leave(self) -> None:
        """Release the slot for good. Idempotent."""
        self._awaits_body = False
        if self._is_taken:
            self._is_taken = False
            self._limit.count(working=-1)

    def receiving(self, receive: Receive) -> Receive:
        async def received() -> Message:
            message = await receive()
            if self._awaits_body and not message.get("more_body", False):
                self._awaits_body = False
                self._take()
            return message

        return received

    def sending(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            self.leave()  # the rest of a response may take as long as a run
            await send(message)

        return sent


class ClientTimeout(ConnectionMiddleware):
    """Closes connections of idle clients, which would block slots."""

    def __init__(self, app: ASGIApp, client_s: float = CLIENT_S) -> None:
        super().__init__(app)
        self._client_s = client_s

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_body = scope["type"] == "http"
        left_s = self._client_s  # for the rest of the body; each byte adds to it
        clock = asyncio.get_running_loop().time

        async def receiving() -> Message:
            nonlocal has_body, left_s
            if not has_body:
                return await receive()  # after the body only a disconnect can come, at any time
            began = clock()
            try:
                async with asyncio.timeout(min(self._client_s, left_s)):
                    message = await receive()
            except TimeoutError as error:
                words = f"The rest of the body did not come within {self._client_s:g} s."
                raise HTTPException(408, words, {"Connection": "close"}) from error
            left_s += len(message.get("body", b"")) / MIN_RATE - (clock() - began)
            has_body = message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            try:
                for piece in _pieces(message):
                    async with asyncio.timeout(self._client_s):
                        await send(piece)
            except TimeoutError as error:
                raise SlowClient(f"the client took nothing for {self._client_s:g} s") from error

        try:
            await self._app(scope, receiving, sending)
        except SlowClient as error:  # a response that has begun can't become an error
            log.info("%s: ended: %s", scope["path"], error)
            abort(scope)
        except ClientDisconnect:  # in the middle of a body
            log.debug("%s: the client has left", scope["path"])


def _pieces(message: Message) -> Iterator[Message]:
    """Split a long piece of a body, so that a client with a slow connection reads each part in time."""
    body = message.get("body", b"") if message["type"] == "http.response.body" else b""
    if len(body) <= _PIECE:
        yield message
        return
    for start in range(0, len(body), _PIECE):
        is_last = start + _PIECE >= len(body)
        yield {
            **message,
            "body": body[start : start + _PIECE],
            "more_body": message.get("more_body", False) or not is_last,
        }


def _has_body(scope: Scope) -> bool:
    named = {name.lower(): value for name, value in scope["headers"]}
    return b"transfer-encoding" in named or named.get(b"content-length", b"0").strip(b" 0") != b""


def abort(scope: Scope) -> None:
    """End a connection at once; a server that can't do that ends it later."""
    if end := scope.get(ABORT):
        end()


def release_slot(scope: Scope) -> None:
    """Release the slot of a request on which another program works."""
    if leave := scope.get(RELEASE_SLOT):
        leave()


class SlowClient(Exception):
    """The client reads too slowly."""


def _name_of(host: str) -> str:
    """`[::1]:8000` → `::1`, `Box:8000` → `box`."""
    return origins.split(host)[0]


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no URL
        return ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            named = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in named)]
        await send(message)

    return sending


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, why: str, headers: dict[str, str] | None = None
) -> None:
    answers = scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {})
    if not answers:
        await receive()
        await WebSocketClose(1008 if status == 403 else 1013, why[:120])(scope, receive, send)
        return
    await JSONResponse({"detail": why}, status, headers)(scope, receive, send)
