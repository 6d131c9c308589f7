"""What stands before the application: whose page asks, how many may ask at a time, how long a client may take."""

from __future__ import annotations

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

CLIENT_S = 30.0  # between two pieces of a body that a client sends, and for one piece that it is sent
LEAST_RATE = 1024.0  # bytes a second, after that, of a body as a whole
MOST_WORKING = 256  # requests that are being answered at a time
MOST_PARAMETERS = 1000  # of a query string
MOST_OPEN = 2000  # answers and websockets that are being followed at a time
PASSED_ON = "polylocal.passed-on"  # in the scope: what says that somebody else works on it, and may take their time
ABORT = "polylocal.abort"  # in the scope: what ends the connection, with all that nobody has read
ALWAYS = ("/healthz", "/_health")  # a daemon that has much to do is alive
_PIECE = 64 * 1024  # bytes
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:@/\[\]]*)(:[0-9]{0,5})?")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# a name that always means this machine; pages of others can't have it. Containers know the last one
_OUR_NAMES = frozenset({"localhost", "host.docker.internal"})
# of every answer that says nothing else: data is no page, whatever a browser takes it for
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; sandbox allow-downloads",
    ),
]


class OriginCheck:
    """Refuses what pages of other sites make a browser ask for.

    A page elsewhere can point a name of its own at this address (DNS rebinding): so a name in `Host` must be one of
    ours, while a plain address can't be borrowed. And it can send forms and open websockets: so whoever changes
    something or opens a websocket, and says which page it is, must be a page of ours. Programs send no `Origin`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], friends: Collection[str] = ()) -> None:
        """`hosts`: further names of this machine, as `Host` has them, without a port; `friends`: names whose pages
        may ask for anything, at any port."""
        self._app = app
        self._names = _OUR_NAMES | {host.lower() for host in (*hosts, *friends)}
        self._friends = {host.lower() for host in friends}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
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
            return f"`{name:.100}` is no name of this machine; allow it by the setting allowed_hosts, if it is one."
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return None
        origin = headers.get("origin")
        if origin is None:  # a browser that leaves it out still says how far away its page is
            is_own = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        else:
            netloc = _netloc(origin)
            is_own = bool(netloc) and (netloc == host or _name_of(netloc) in self._friends)
        return None if is_own else "This was asked for by a page of another site."

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        if not _HOST.fullmatch(host):  # it becomes part of addresses that browsers are sent on to
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names or name.endswith(".localhost")
        return True


class QueryLimit:
    """Refuses query strings with more parameters than anybody needs: reading them takes a while."""

    def __init__(self, app: ASGIApp, most: int = MOST_PARAMETERS) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope.get("query_string", b"").count(b"&") >= self._most:
            await _refuse(scope, receive, send, 400, f"The address has more than {self._most} parameters.")
            return
        await self._app(scope, receive, send)


class ConcurrencyLimit:
    """Turns away what would be too much at a time, with a word when to come again, rather than to fall over."""

    def __init__(self, app: ASGIApp, most_working: int = MOST_WORKING, most_open: int = MOST_OPEN) -> None:
        self._app = app
        self._most_working = most_working
        self._most_open = most_open
        self._lock = threading.Lock()  # there is an event loop for containers, too
        self.working = 0  # not answered yet
        self._open = 0  # all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_full = self.working >= self._most_working or self._open >= self._most_open
        if is_full and scope["path"].rstrip("/") not in ALWAYS:
            words = "Too much is asked for at once; try again in a moment."
            await _refuse(scope, receive, send, 503, words, {"Retry-After": "2"})
            return
        place = _Slot(self, awaits_body=scope["type"] == "http" and _has_body(scope))
        scope[PASSED_ON] = place.leave
        self.count(opened=1)
        try:
            await self._app(scope, place.receiving(receive), place.sending(send))
        finally:
            place.leave()
            self.count(opened=-1)

    def count(self, *, opened: int = 0, working: int = 0) -> None:
        with self._lock:
            self._open += opened
            self.working += working


class _Slot:
    """Of one request among those at work: from when its body is here, which may never come, until its answer begins, or
    somebody else works on it."""

    def __init__(self, admission: ConcurrencyLimit, *, awaits_body: bool) -> None:
        self._admission = admission
        self._awaits_body = awaits_body
        self._is_taken = False
        if not awaits_body:
            self._take()

    def _take(self) -> None:
        self._is_taken = True
        self._admission.count(working=1)

    def leave(self) -> None:
        """For good. Idempotent."""
        self._awaits_body = False
        if self._is_taken:
            self._is_taken = False
            self._admission.count(working=-1)

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
            self.leave()  # what follows may take as long as the run
            await send(message)

        return sent


class ClientTimeout:
    """A client that neither sends nor reads is let go: it holds a place that others want."""

    def __init__(self, app: ASGIApp, client_s: float = CLIENT_S) -> None:
        self._app = app
        self._client_s = client_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        has_body = scope["type"] == "http"
        left_s = self._client_s  # for the whole body: more with each byte of it
        clock = asyncio.get_running_loop().time

        async def receiving() -> Message:
            nonlocal has_body, left_s
            if not has_body:
                return await receive()  # a follower waits for its client to go, as long as that takes
            began = clock()
            try:
                async with asyncio.timeout(min(self._client_s, left_s)):
                    message = await receive()
            except TimeoutError as error:
                words = f"The rest of the body did not come within {self._client_s:g} s."
                raise HTTPException(408, words, {"Connection": "close"}) from error
            left_s += len(message.get("body", b"")) / LEAST_RATE - (clock() - began)
            has_body = message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            try:
                for piece in _pieces(message):
                    async with asyncio.timeout(self._client_s):
                        await send(piece)
            except TimeoutError as error:
                raise Slow(f"the client took nothing for {self._client_s:g} s") from error

        try:
            await self._app(scope, receiving, sending)
        except Slow as error:  # nothing can be said in an answer that has begun: uvicorn closes the connection
            log.info("%s: let go: %s", scope["path"], error)
            abort(scope)
        except ClientDisconnect:  # in the middle of a body: nobody is there to be told
            log.debug("%s: the client has left", scope["path"])


def _pieces(message: Message) -> Iterator[Message]:
    """A long piece of a body in short ones: a client on a thin line takes each of them in time."""
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


def passed_on(scope: Scope) -> None:
    """Give back the place among the requests at work: another program works on this one."""
    if leave := scope.get(PASSED_ON):
        leave()


class Slow(Exception):
    """A client that takes too long."""


def _name_of(host: str) -> str:
    """`[::1]:8000` → `::1`, `Box:8000` → `box`."""
    return origins.split(host)[0]


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no URL at all: certainly not ours
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
