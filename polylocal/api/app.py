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
    answers,
    bookmarks,
    ci,
    experiments,
    groups,
    incoming,
    lasting,
    logs,
    machine,
    monitoring,
    openapi,
    origins,
    outputs,
    places,
    projects,
    proxy,
    repos,
    runs,
    searches,
    servers,
    streams,
    system,
    users,
)
from polylocal.api.access import BRIDGE
from polylocal.api.endpoint import Access, Call, Endpoint, Threads
from polylocal.api.guards import Admission, OwnPages, Patience, QueryLimit
from polylocal.api.services import Services
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


def build(services: Services) -> Starlette:
    """The application over these services."""
    changes = logs.Changes(services.home.logs, services.store)
    pages = proxy.Proxy(services)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        stop = asyncio.Event()
        watching = asyncio.create_task(changes.watch(stop))
        yield
        stop.set()
        await watching
        await pages.close()

    by_path: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in ENDPOINTS:
        by_path[endpoint.path][endpoint.method] = endpoint
    routes = [
        Route("/api/v1/openapi", _described),  # asked for as openapi.json
        *(Route(path, _answering(methods, services), methods=_METHODS) for path, methods in by_path.items()),
        *streams.routes(services),
        *pages.routes(),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(OwnPages, hosts=_hosts(services), friends=services.settings.allowed_hosts),
            Middleware(QueryLimit),
            Middleware(Admission),
            Middleware(Patience),
            Middleware(ByOrigin, pages=pages.at_own_origin),
            Middleware(TidyPaths),
            Middleware(ByTongue, abf=abf.application(services)),
        ],
        exception_handlers={PolylocalError: _failed, HTTPException: _http_failed, Exception: _broken},
    )
    app.router.redirect_slashes = False
    app.state.changes = changes
    return app


def _hosts(services: Services) -> set[str]:
    """The names of this machine that a browser may know: others come in only if the daemon listens for others."""
    settings = services.settings
    names = {settings.host}
    return names if settings.is_private else names | {platform.node(), platform.node().partition(".")[0]}


def _described(request: Request) -> Response:
    return JSONResponse(_document())


@cache
def _document() -> dict[str, Any]:
    """Made when somebody first asks: it takes longer than all the rest of a start."""
    return openapi.document(ENDPOINTS)


class TidyPaths:
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


class ByTongue:
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


def _changed(call: Call, read: incoming.Read) -> Response:
    call.data = read()
    return _answered(call)


def _answered(call: Call) -> Response:
    """In a thread, the JSON of the answer too: a long list takes a while."""
    result = call.endpoint.handler(call)
    return result if isinstance(result, Response) else answers.json_of(result, call.endpoint.status)


def _answering(methods: Mapping[str, Endpoint], services: Services) -> Any:
    async def answer(request: Request) -> Response:
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            raise HTTPException(405, headers={"Allow": ", ".join(methods)})
        call = Call(request, endpoint, services)
        if endpoint.threads is Threads.NONE:
            return _answered(call)
        if endpoint.threads is Threads.STATUS:
            return await places.status(partial(_looked_up, call))
        work = services.shares.work
        if request.method in ("GET", "HEAD") and not endpoint.is_long:
            async with work.of(request):  # nothing to wait for in between: one way to a thread
                return lasting.kept(call, await run_in_threadpool(_looked_up, call))
        if endpoint.access is not Access.ANYONE:
            async with work.of(request):
                await run_in_threadpool(access.admit, call)  # before anything of the body is looked at
        limit = incoming.MAX_ANONYMOUS if endpoint.access is Access.ANYONE else incoming.MAX_BODY
        if endpoint.is_upload:
            limit = services.settings.max_upload_mib * 2**20
        with services.shares.bodies.place(*call.holders):
            async with incoming.body(request, limit) as read:
                if endpoint.is_long:
                    result = await places.run(request, call.holders, partial(_changed, call, read))
                else:
                    async with work.of(request):
                        result = await run_in_threadpool(_changed, call, read)
        return lasting.kept(call, result)

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
