"""The ASGI application: the endpoints of the Polyaxon API, the middleware, and the switch to the ABF API."""

import asyncio
import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from polylocal.api import (
    abf,
    body_parsing,
    bookmarks,
    ci,
    cluster,
    experiments,
    groups,
    kernel,
    logs,
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
from polylocal.api.middleware import ClientTimeout, ConcurrencyLimit, ConnectionMiddleware, OriginCheck, QueryLimit
from polylocal.errors import InvalidInput

# fixed words before names: the first match wins
_GENERAL: Sequence[Any] = (monitoring, system, users, cluster, bookmarks, searches)
_OF_PROJECTS: Sequence[Any] = (experiments, groups, servers, projects, repos, ci, runs, logs, outputs)
ENDPOINTS: list[Endpoint] = [endpoint for module in (*_GENERAL, *_OF_PROJECTS) for endpoint in module.ENDPOINTS]


def build(context: ApiContext, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application over a context. `more`: routes of rooms above, which get the same middleware and error texts."""
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
            Route("/api/v1/openapi", _openapi),  # requested as openapi.json
            *_TABLE.routes(context),
            *streams.routes(context),
            *pages.routes(),
            *more,
        ],
        _render_error,
        lifespan=lifespan,
        middleware=[
            Middleware(OriginCheck, hosts=_hosts(context), trusted=context.settings.allowed_hosts),
            Middleware(QueryLimit),
            Middleware(ConcurrencyLimit),
            Middleware(ClientTimeout),
            Middleware(ServerOrigins, pages=pages.at_own_origin),
            Middleware(NormalizePath),
            Middleware(ApiSwitch, abf=abf.application(context)),
        ],
    )


def _hosts(context: ApiContext) -> set[str]:
    """The names of this machine in `Host`; the machine's own name counts only if other machines can connect."""
    settings = context.settings
    names = {settings.host}
    return names if settings.is_private else names | {platform.node(), platform.node().partition(".")[0]}


def _openapi(request: Request) -> Response:
    return JSONResponse(_document())


@cache
def _document() -> dict[str, Any]:
    """Generated at the first request, since this takes longer than the rest of a start."""
    return openapi.document(ENDPOINTS)


class NormalizePath(ConnectionMiddleware):
    """Maps a path with a last slash, doubled slashes or the suffix `.json` to that of the route.

    Nothing is redirected, since clients turn a redirected POST into a GET.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = "/" + "/".join(part for part in scope["path"].split("/") if part)
        path = path.removesuffix(".json") if path.startswith("/api/") else path  # names have no dots
        await self._app({**scope, "polylocal.path": scope["path"], "path": path}, receive, send)


class ServerOrigins(ConnectionMiddleware):
    """Passes requests to the own origin of a notebook or tensorboard to its pages, where the API is not served."""

    def __init__(self, app: ASGIApp, pages: ASGIApp) -> None:
        super().__init__(app)
        self._pages = pages

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = origins.server_of(Headers(scope=scope).get("host"))
        if server is None:
            await self._app(scope, receive, send)
        else:
            await self._pages({**scope, proxy.SERVER: server}, receive, send)


class ApiSwitch(ConnectionMiddleware):
    """Passes requests with paths of ABF to its application, which has its own error texts."""

    def __init__(self, app: ASGIApp, abf: ASGIApp) -> None:
        super().__init__(app)
        self._abf = abf

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_abf = scope["type"] == "http" and abf.serves(scope["path"], scope["polylocal.path"])
        await (self._abf if is_abf else self._app)(scope, receive, send)


class FromContainers(ConnectionMiddleware):
    """The application for containers, which connect over the engine's network: accepts tokens of runs only."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, BRIDGE: True}, receive, send)


def _read_body(request: Request, call: Call) -> AbstractAsyncContextManager[body_parsing.Read]:
    return body_parsing.open_body(request, call.body_limit)


def _render(call: Call, result: object) -> Response:
    return result if isinstance(result, Response) else responses.json_response(result, call.endpoint.status)


_TABLE = kernel.Table(ENDPOINTS, Call, _read_body, _render)


def _render_error(failure: kernel.Failure) -> Response:
    if isinstance(failure.error, InvalidInput):
        return JSONResponse(failure.error.messages, status_code=400)
    headers = {"WWW-Authenticate": "Token"} if failure.status == 401 else failure.headers
    return JSONResponse({"detail": failure.message}, status_code=failure.status, headers=headers)
