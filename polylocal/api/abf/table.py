"""The table of the ABF API and the application that answers it; which paths are its own.

The Polyaxon API has paths of `projects` and `users` as well: the suffix tells them apart.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from polylocal.api import body_parsing, long_responses, worker_pools
from polylocal.api.abf import build_lists, calls, files, forms, git, platforms, projects, users, yanking
from polylocal.api.abf.calls import Ask, Authenticator, Endpoint, TooManyTries, answer, tagged, unauthorized
from polylocal.api.api_context import ApiContext
from polylocal.api.quotas import credential_of
from polylocal.errors import NotAllowed, NotAuthenticated, NotFound, PolylocalError, StoreError
from polylocal.store.rows import User

log = logging.getLogger(__name__)

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_OWN = frozenset("build_lists platforms repositories arches user search file_stores upload".split())

ENDPOINTS: list[Endpoint] = [
    *build_lists.ENDPOINTS,
    *yanking.ENDPOINTS,
    *projects.ENDPOINTS,
    *platforms.ENDPOINTS,
    *users.ENDPOINTS,
    *files.ENDPOINTS,
]


def serves(path: str, asked: str) -> bool:
    """Whether a path is this API's. `asked` is as the client sent it, `path` without what does not matter in it."""
    parts = path.split("/")[1:]
    if parts[:2] == ["api", "v1"] and len(parts) > 2:
        word = parts[2]
        if word == "users":
            return len(parts) == 4 and asked.rstrip("/").endswith(".json")
        if word == "projects":
            return len(parts) > 3 or asked.rstrip("/").endswith(".json")
        return word in _OWN
    if parts[:3] == ["polylocal", "v1", "build_lists"]:
        return True
    if parts[0] == "downloads":
        return True
    if parts[0] == "build_lists":
        return len(parts) == 3 and parts[2] == "log"
    return len(parts) > 2 and parts[1].endswith(".git")


def application(context: ApiContext) -> Starlette:
    doorman = Authenticator(context)
    by_path: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in ENDPOINTS:
        by_path[endpoint.path][endpoint.method] = endpoint
    routes = [Route(path, _answering(methods, context, doorman), methods=_METHODS) for path, methods in by_path.items()]
    routes.append(Route("/{owner}/{project}.git/{path:path}", _git(context, doorman), methods=["GET", "POST"]))
    handlers = {
        PolylocalError: _failed,
        TooManyTries: _too_many,
        HTTPException: _http_failed,
        ClientDisconnect: _gone,
        Exception: _broken,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


def _answering(methods: Mapping[str, Endpoint], context: ApiContext, doorman: Authenticator) -> Any:
    async def answered(request: Request) -> Response:
        endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
        if endpoint is None:
            raise NotFound
        async with context.shares.work.of(request):
            ask = Ask(request, context, await run_in_threadpool(_who, request, doorman, endpoint))
        _remember(ask)
        # a body may come with any method, and with some of no use: CLIs send one with PUT and DELETE
        limit = context.settings.max_upload_mib * 2**20 if endpoint.is_upload else calls.MAX_BODY
        with context.shares.bodies.place(*ask.holders):
            async with body_parsing.body(request, limit, lambda form: forms.nested(form.multi_items())) as read:
                work = partial(_answered, endpoint, ask, read)
                if endpoint.is_long:
                    result = await worker_pools.run(request, ask.holders, work)
                else:
                    async with context.shares.work.of(request):
                        result = await run_in_threadpool(work)
        return _kept(ask, doorman, result)

    return answered


def _remember(ask: Ask) -> None:
    if ask.somebody is not None:
        ask.context.shares.work.remember(credential_of(ask.request), ask.holders)


def _kept(ask: Ask, doorman: Authenticator, result: Response) -> Response:
    """What comes piece by piece holds a place of its user's share, and ends when the right to it does."""
    if not isinstance(result, StreamingResponse):
        return result
    things = tuple((type(thing), thing.id) for thing in ask.relied_on)
    key = (ask.request.headers.get("authorization"), ask.request.query_params.get("authentication_token"), things)

    def check() -> None:
        ask.check_again(doorman.again(ask.request, ask.somebody))

    return long_responses.Lasting(ask.context, result, ask.holders, check, key)


def _answered(endpoint: Endpoint, ask: Ask, read: body_parsing.Read) -> Response:
    """In a thread, the JSON of both sides too."""
    ask.data = read()
    result = endpoint.handler(ask)
    return tagged(ask.request, result if isinstance(result, Response) else answer(result))


def _git(context: ApiContext, doorman: Authenticator) -> Callable[[Request], Any]:
    async def answered(request: Request) -> Response:
        async with context.shares.work.of(request):
            ask = Ask(request, context, await run_in_threadpool(doorman.who, request))
        _ = ask.user  # before a body is taken
        _remember(ask)
        with context.shares.bodies.place(*ask.holders):
            try:
                body = await git.spooled(request, git.limit(context))
            except ValueError as error:
                raise HTTPException(413, str(error)) from error
            try:
                served = await worker_pools.run(request, ask.holders, partial(git.serve, ask, body))
            finally:
                body.close()  # nobody has, if there was no place
        return _kept(ask, doorman, served)

    return answered


def _who(request: Request, doorman: Authenticator, endpoint: Endpoint) -> User | None:
    user = doorman.who(request)
    if user is None and not endpoint.is_anonymous:
        raise NotAuthenticated(calls.NO_CREDENTIALS)
    return user


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, NotAuthenticated):
        words = str(error) if error.args else calls.NO_CREDENTIALS
        return unauthorized(words if words == calls.NO_CREDENTIALS else calls.WRONG_CREDENTIALS)
    if isinstance(error, NotAllowed):
        return answer({"message": calls.NO_RIGHT}, 403)
    if isinstance(error, NotFound):
        return _not_found()
    if isinstance(error, StoreError):
        log.error("%s %s: %s", request.method, request.url.path, error)
        return answer({"message": str(error)}, 503, {"Retry-After": "5"})
    status = error.http_status if isinstance(error, PolylocalError) else 500
    if status < 500:
        return answer({"message": str(error)}, status)
    return await _broken(request, error)


async def _too_many(request: Request, error: Exception) -> Response:
    wait_s = error.wait_s if isinstance(error, TooManyTries) else 1
    return answer({"error": str(error)}, 429, {"Retry-After": str(wait_s)})


async def _http_failed(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code in (404, 405):
        return _not_found()
    return answer({"message": error.detail}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    """The client has left in the middle of what it sent: nobody reads this."""
    return Response(status_code=400)


async def _broken(request: Request, error: Exception) -> Response:
    """A bug of ours: the details are in the daemon's log, not in the answer."""
    log.error("%s %s: bug", request.method, request.url.path, exc_info=error)
    return answer({"status": 500, "message": calls.BROKEN}, 500)


def _not_found() -> Response:
    return answer({"status": 404, "message": calls.NOT_FOUND}, 404)
