"""Answers the endpoints of a table.

Routing by path, limits of bodies, the hop to a thread and the mapping of errors are the same for every API. A `Table`
and its `ErrorRenderer` contain the differences: how callers are admitted, and how results and errors are rendered.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from polylocal.api import worker_pools
from polylocal.api.api_context import ApiContext
from polylocal.api.body_parsing import Read
from polylocal.api.kernel import long_responses
from polylocal.api.kernel.call import AnyEndpoint, BaseCall, Threads
from polylocal.errors import EngineUnreachable, PolylocalError, StoreError

log = logging.getLogger(__name__)

AnyCall = TypeVar("AnyCall", bound=BaseCall[Any])

# every route takes all of them: the table has those of each path
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class IdConvertor(Convertor[int]):
    """Numbers that a row can have; a path with a longer one is not found."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", IdConvertor())


@dataclass(frozen=True)
class Failure:
    """An error as HTTP."""

    error: Exception
    status: int
    message: str
    headers: Mapping[str, str]


ErrorRenderer = Callable[[Failure], Response]


@dataclass(frozen=True)
class Table(Generic[AnyEndpoint, AnyCall]):
    """The endpoints of an API.

    `read_body` opens a body until its handler ends. `render` turns a handler's result into the response, on the
    handler's thread.
    """

    endpoints: Sequence[AnyEndpoint]
    call: Callable[[Request, AnyEndpoint, ApiContext], AnyCall]
    read_body: Callable[[Request, AnyCall], AbstractAsyncContextManager[Read]]
    render: Callable[[AnyCall, object], Response]
    get_has_body: bool = False

    def routes(self, context: ApiContext) -> list[Route]:
        by_path: dict[str, dict[str, AnyEndpoint]] = defaultdict(dict)
        for endpoint in self.endpoints:
            by_path[endpoint.path][endpoint.method] = endpoint
        return [
            Route(path, partial(self._route, methods=methods, context=context), methods=_METHODS)
            for path, methods in by_path.items()
        ]

    async def _route(self, request: Request, methods: Mapping[str, AnyEndpoint], context: ApiContext) -> Response:
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            raise HTTPException(405, headers={"Allow": ", ".join(methods)})
        call = self.call(request, endpoint, context)
        return long_responses.while_permitted(call, await self._answer(request, call))

    async def _answer(self, request: Request, call: AnyCall) -> Response:
        endpoint, quotas = call.endpoint, call.context.quotas
        if endpoint.threads is Threads.NONE:
            return self._handle(call)
        if endpoint.threads is Threads.STATUS:
            return await worker_pools.status(partial(self._admit_and_handle, call))
        if request.method in ("GET", "HEAD") and not endpoint.is_long and not self.get_has_body:
            async with quotas.requests.admit(request):  # no body to wait for: one hop to a thread does it all
                return await run_in_threadpool(self._admit_and_handle, call)
        async with quotas.requests.admit(request):
            await run_in_threadpool(call.admit)
        with quotas.bodies.slot(*call.holders):
            async with self.read_body(request, call) as read:
                work = partial(self._read_and_handle, call, read)
                if endpoint.is_long:
                    return await worker_pools.run(request, call.holders, work)
                async with quotas.requests.admit(request):
                    return await run_in_threadpool(work)

    def _admit_and_handle(self, call: AnyCall) -> Response:
        call.admit()
        return self._handle(call)

    def _read_and_handle(self, call: AnyCall, read: Read) -> Response:
        call.data = read()
        return self._handle(call)

    def _handle(self, call: AnyCall) -> Response:
        return self.render(call, call.endpoint.handler(call))


def application(
    routes: Sequence[BaseRoute], render_error: ErrorRenderer, errors: Sequence[type[Exception]] = (), **more: Any
) -> Starlette:
    """An application that answers every error with the text of its API.

    `errors` are types of errors besides ours and HTTPException that are not bugs.
    """

    async def answer(request: Request, error: Exception) -> Response:
        return render_error(_failure(request, error))

    handled = (PolylocalError, HTTPException, Exception, *errors)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(handled, answer), **more)
    app.router.redirect_slashes = False
    return app


def _failure(request: Request, error: Exception) -> Failure:
    """The one place where errors become HTTP."""
    if isinstance(error, HTTPException):
        by_route = {404: "Not found.", 405: f'Method "{request.method}" not allowed.'}
        message = by_route.get(error.status_code, error.detail)
        return Failure(error, error.status_code, message, error.headers or {})
    if isinstance(error, ClientDisconnect):
        return Failure(error, 400, "The client has left.", {})
    if not isinstance(error, PolylocalError):
        log.error("%s %s: bug", request.method, request.url.path, exc_info=error)
        return Failure(error, 500, "Internal error; the daemon's log has the details.", {})
    if error.http_status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    headers = {"Retry-After": "5"} if isinstance(error, StoreError | EngineUnreachable) else {}
    return Failure(error, error.http_status, str(error), headers)
