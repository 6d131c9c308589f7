"""The ASGI application: the endpoints of the Polyaxon API, the middleware, and the switch to the other APIs."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from polylocal.api import (
    abf,
    body_parsing,
    bookmarks,
    ci,
    experiments,
    groups,
    kernel,
    logs,
    machine,
    monitoring,
    openapi,
    origins,
    outputs,
    projects,
    proxy,
    repos,
    responses,
    runs,
    searches,
    servers,
    streams,
    system,
    users,
)
from polylocal.api.access import BRIDGE
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Call, Endpoint
from polylocal.api.middleware import ClientTimeout, ConcurrencyLimit, OriginCheck, QueryLimit
from polylocal.errors import InvalidInput

log = logging.getLogger(__name__)

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # which of them a path takes is said by the table

# fixed words before names: the first match wins
ENDPOINTS: list[Endpoint] = [
    *monitoring.ENDPOINTS,
    *system.ENDPOINTS,
    *users.ENDPOINTS,
    *machine.ENDPOINTS,
    *bookmarks.ENDPOINTS,
    *searches.ENDPOINTS,
    *experiments.ENDPOINTS,
    *groups.ENDPOINTS,
    *servers.ENDPOINTS,
    *projects.ENDPOINTS,
    *repos.ENDPOINTS,
    *ci.ENDPOINTS,
    *runs.ENDPOINTS,
    *logs.ENDPOINTS,
    *outputs.ENDPOINTS,
]


def build(context: ApiContext) -> Starlette:
    """The application over a context."""
    feed = context.feed
    pages = proxy.Proxy(context)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        stop = asyncio.Event()
        unsubscribe = context.store.subscribe(feed.run_changed)
        watching = asyncio.create_task(feed.watch(context.home.logs, stop))
        yield
        stop.set()
        await watching
        unsubscribe()
        await pages.close()

    return kernel.application(
        [
            Route("/api/v1/openapi", _described),  # requested as openapi.json
            *_TABLE.routes(context),
            *streams.routes(context),
            *pages.routes(),
        ],
        _words,
        lifespan=lifespan,
        middleware=[
            Middleware(OriginCheck, hosts=_hosts(context), friends=context.settings.allowed_hosts),
            Middleware(QueryLimit),
            Middleware(ConcurrencyLimit),
            Middleware(ClientTimeout),
            Middleware(ByOrigin, pages=pages.at_own_origin),
            Middleware(NormalizePath),
            Middleware(ApiSwitch, abf=abf.application(context)),
        ],
    )


def _hosts(context: ApiContext) -> set[str]:
    """The names of this machine that a browser may know: others come in only if the daemon listens for others."""
    settings = context.settings
    names = {settings.host}
    return names if settings.is_private else names | {platform.node(), platform.node().partition(".")[0]}


def _described(request: Request) -> Response:
    return JSONResponse(_document())


@cache
def _document() -> dict[str, Any]:
    """Made when somebody first asks: it takes longer than all the rest of a start."""
    return openapi.document(ENDPOINTS)


class NormalizePath:
    """One route serves a path with and without its last slash, with doubled ones, and with `.json` behind it; nothing
    is redirected, since clients turn a redirected POST into a GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path = "/" + "/".join(part for part in scope["path"].split("/") if part)
            path = path.removesuffix(".json") if path.startswith("/api/") else path  # no name has a dot in it
            scope = {**scope, "polylocal.path": scope["path"], "path": path}
        await self._app(scope, receive, send)


class ByOrigin:
    """Sends what is asked of the own origin of a notebook or tensorboard to its pages: the API is not served there."""

    def __init__(self, app: ASGIApp, pages: ASGIApp) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = scope["type"] in ("http", "websocket")
        server = origins.server_of(Headers(scope=scope).get("host")) if is_asked else None
        if server is None:
            await self._app(scope, receive, send)
        else:
            await self._pages({**scope, proxy.SERVER: server}, receive, send)


class ApiSwitch:
    """Two APIs on one port: paths of ABF's go to its own application, with its own ways of saying what is wrong."""

    def __init__(self, app: ASGIApp, abf: ASGIApp) -> None:
        self._app = app
        self._abf = abf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_abf = scope["type"] == "http" and abf.serves(scope["path"], scope["polylocal.path"])
        await (self._abf if is_abf else self._app)(scope, receive, send)


class FromContainers:
    """The same application for requests that come over the engine's network: run tokens only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, BRIDGE: True}, receive, send)


def _read_body(request: Request, call: Call) -> AbstractAsyncContextManager[body_parsing.Read]:
    return body_parsing.body(request, call.body_limit)


def _render(call: Call, result: object) -> Response:
    return result if isinstance(result, Response) else responses.json_of(result, call.endpoint.status)


_TABLE = kernel.Table(ENDPOINTS, Call, _read_body, _render)


def _words(failure: kernel.Failure) -> Response:
    if isinstance(failure.error, InvalidInput):
        return JSONResponse(failure.error.messages, status_code=400)
    headers = {"WWW-Authenticate": "Token"} if failure.status == 401 else failure.headers
    return JSONResponse({"detail": failure.message}, status_code=failure.status, headers=headers)
