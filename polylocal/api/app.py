"""The ASGI application: the route table, who may come in, one error handler."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import platform
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NoReturn

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polylocal.api import (
    access,
    bookmarks,
    ci,
    experiments,
    groups,
    logs,
    machine,
    monitoring,
    openapi,
    outputs,
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
from polylocal.api.endpoint import Access, Call, Endpoint
from polylocal.api.guards import Admission, OwnPages, Patience
from polylocal.api.services import Services
from polylocal.errors import EngineUnreachable, InvalidInput, PolylocalError, StoreError

log = logging.getLogger(__name__)

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # which of them a path takes is said by the table
MAX_BODY = 16 * 2**20  # bytes of a body that is not an upload

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
            Middleware(Admission),
            Middleware(Patience),
            Middleware(TidyPaths),
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


class FromContainers:
    """The same application for requests that come over the engine's network: run tokens only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, BRIDGE: True}, receive, send)


def _looked_up(call: Call) -> Any:
    if call.endpoint.access is not Access.ANYONE:
        access.admit(call)
    return call.endpoint.handler(call)


def _answering(methods: Mapping[str, Endpoint], services: Services) -> Any:
    async def answer(request: Request) -> Response:
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            raise HTTPException(405, headers={"Allow": ", ".join(methods)})
        call = Call(request, endpoint, services)
        if request.method in ("GET", "HEAD"):
            result = await run_in_threadpool(_looked_up, call)  # nothing to wait for in between: one way to a thread
        else:
            if endpoint.access is not Access.ANYONE:
                await run_in_threadpool(access.admit, call)  # before anything of the body is looked at
            async with _body(request, endpoint, services) as data:
                call.data = data
                result = await run_in_threadpool(endpoint.handler, call)
        return result if isinstance(result, Response) else JSONResponse(result, status_code=endpoint.status)

    return answer


@asynccontextmanager
async def _body(request: Request, endpoint: Endpoint, services: Services) -> AsyncIterator[object]:
    """JSON, a form, or nothing: `{}`. The files of a form are closed at the end."""
    limited = _limited(request, services.settings.max_upload_mib * 2**20 if endpoint.is_upload else MAX_BODY)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        yield _json(await limited.body())
        return
    async with limited.form() as form:
        yield {name: values[0] if len(values) == 1 else values for name in form if (values := form.getlist(name))}


def _limited(request: Request, limit: int) -> Request:
    """The same request, refused as soon as more than `limit` bytes of a body are announced or come."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limit:
        raise HTTPException(413, f"The body has {length[:20]} bytes, more than the {limit} that are taken here.")
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, f"The body has more than the {limit} bytes that are taken here.")
        return message

    return Request(request.scope, receive)


def _json(raw: bytes) -> object:
    if not raw.strip():
        return {}
    try:
        data = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
        if b"\\u" in raw:
            json.dumps(data, ensure_ascii=False).encode()  # halves of characters can't be kept
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"JSON parse error - {error}") from error
    return data


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _refuse(word)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number that can be kept")


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
