"""The ASGI application: the route table, who may come in, one error handler."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from polylocal.api import (
    abf,
    access,
    body_parsing,
    bookmarks,
    ci,
    experiments,
    groups,
    logs,
    long_responses,
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
    worker_pools,
)
from polylocal.api.access import BRIDGE
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Access, Call, Endpoint, Threads
from polylocal.api.middleware import ClientTimeout, ConcurrencyLimit, OriginCheck, QueryLimit
from polylocal.errors import EngineUnreachable, InvalidInput, PolylocalError, StoreError

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
    """The application over these services."""
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

    by_path: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in ENDPOINTS:
        by_path[endpoint.path][endpoint.method] = endpoint
    routes = [
        Route("/api/v1/openapi", _described),  # asked for as openapi.json
        *(Route(path, _answering(methods, context), methods=_METHODS) for path, methods in by_path.items()),
        *streams.routes(context),
        *pages.routes(),
    ]
    app = Starlette(
        routes=routes,
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
        exception_handlers={PolylocalError: _failed, HTTPException: _http_failed, Exception: _broken},
    )
    app.router.redirect_slashes = False
    return app


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


def _looked_up(call: Call) -> Response:
    if call.endpoint.access is not Access.ANYONE:
        access.admit(call)
    return _answered(call)


def _changed(call: Call, read: body_parsing.Read) -> Response:
    call.data = read()
    return _answered(call)


def _answered(call: Call) -> Response:
    """In a thread, the JSON of the answer too: a long list takes a while."""
    result = call.endpoint.handler(call)
    return result if isinstance(result, Response) else responses.json_of(result, call.endpoint.status)


def _answering(methods: Mapping[str, Endpoint], context: ApiContext) -> Any:
    async def answer(request: Request) -> Response:
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            raise HTTPException(405, headers={"Allow": ", ".join(methods)})
        call = Call(request, endpoint, context)
        if endpoint.threads is Threads.NONE:
            return _answered(call)
        if endpoint.threads is Threads.STATUS:
            return await worker_pools.status(partial(_looked_up, call))
        work = context.shares.work
        if request.method in ("GET", "HEAD") and not endpoint.is_long:
            async with work.of(request):  # nothing to wait for in between: one way to a thread
                return long_responses.kept(call, await run_in_threadpool(_looked_up, call))
        if endpoint.access is not Access.ANYONE:
            async with work.of(request):
                await run_in_threadpool(access.admit, call)  # before anything of the body is looked at
        limit = body_parsing.MAX_ANONYMOUS if endpoint.access is Access.ANYONE else body_parsing.MAX_BODY
        if endpoint.is_upload:
            limit = context.settings.max_upload_mib * 2**20
        with context.shares.bodies.place(*call.holders):
            async with body_parsing.body(request, limit) as read:
                if endpoint.is_long:
                    result = await worker_pools.run(request, call.holders, partial(_changed, call, read))
                else:
                    async with work.of(request):
                        result = await run_in_threadpool(_changed, call, read)
        return long_responses.kept(call, result)

    return answer


async def _failed(request: Request, error: Exception) -> Response:
    """Our own errors: the one place where they become HTTP."""
    if isinstance(error, InvalidInput):
        return JSONResponse(error.messages, status_code=400)
    status = error.http_status if isinstance(error, PolylocalError) else 500
    headers = {"WWW-Authenticate": "Token"} if status == 401 else {}
    if isinstance(error, StoreError | EngineUnreachable):
        headers["Retry-After"] = "5"
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"detail": str(error)}, status_code=status, headers=headers)


async def _http_failed(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    detail = error.detail
    if error.status_code == 405:
        detail = f'Method "{request.method}" not allowed.'
    elif error.status_code == 404:
        detail = "Not found."
    return JSONResponse({"detail": detail}, status_code=error.status_code, headers=error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    """A bug of ours: the details are in the daemon's log, not in the answer."""
    log.error("%s %s: bug", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": "Internal error; the daemon's log has the details."}, status_code=500)
