"""The application of the ABF API: its endpoints, its paths, and its error texts.

The Polyaxon API has paths of `projects` and `users`, too. ABF's have the suffix `.json`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import IO, Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from polylocal.api import body_parsing, kernel
from polylocal.api.abf import build_lists, calls, files, forms, git, platforms, projects, users, yanking
from polylocal.api.abf.calls import AbfCall, Authenticator, Endpoint, json_response, unauthorized, with_etag
from polylocal.api.api_context import ApiContext
from polylocal.api.login_throttle import TooManyAttempts
from polylocal.errors import NotAllowed, NotAuthenticated, StoreError

_OWN = frozenset("build_lists platforms repositories arches user search file_stores upload".split())

_MODULES: Sequence[Any] = (build_lists, yanking, projects, platforms, users, files)
ENDPOINTS: list[Endpoint] = [endpoint for module in _MODULES for endpoint in module.ENDPOINTS]

_GIT = [
    Endpoint(
        method,
        "/{owner}/{project}.git/{path:path}",
        lambda call: git.serve(call, cast(IO[bytes], call.data)),
        "git over HTTP",
        "readers of the project",
        is_upload=True,
    )
    for method in ("GET", "POST")
]


def serves(path: str, requested: str) -> bool:
    """Whether a path belongs to this API. `requested` is the path as the client sent it, `path` the normalized one."""
    parts = path.split("/")[1:]
    if parts[:2] == ["api", "v1"] and len(parts) > 2:
        word = parts[2]
        if word == "users":
            return len(parts) == 4 and requested.rstrip("/").endswith(".json")
        if word == "projects":
            return len(parts) > 3 or requested.rstrip("/").endswith(".json")
        return word in _OWN
    if parts[:3] == ["polylocal", "v1", "build_lists"]:
        return True
    if parts[0] == "downloads":
        return True
    if parts[0] == "build_lists":
        return len(parts) == 3 and parts[2] == "log"
    return len(parts) > 2 and parts[1].endswith(".git")


def application(context: ApiContext) -> Starlette:
    call = partial(AbfCall, authenticator=Authenticator(context))
    api = kernel.Table(ENDPOINTS, call, _read_body, _render, get_has_body=True)
    git_http = kernel.Table(_GIT, call, _spool_body, lambda call, result: cast(Response, result))
    return kernel.application([*api.routes(context), *git_http.routes(context)], _render_error, [ClientDisconnect])


def _read_body(request: Request, call: AbfCall) -> AbstractAsyncContextManager[body_parsing.Read]:
    """Clients send bodies with any method, also with GET and DELETE."""
    return body_parsing.open_body(request, call.body_limit, lambda form: forms.nest(form.multi_items()))


def _render(call: AbfCall, result: object) -> Response:
    return with_etag(call.request, result if isinstance(result, Response) else json_response(result))


@asynccontextmanager
async def _spool_body(request: Request, call: AbfCall) -> AsyncIterator[body_parsing.Read]:
    try:
        body = await git.spool(request, call.body_limit)
    except ValueError as error:
        raise HTTPException(413, str(error)) from error
    with body:
        yield lambda: body


def _render_error(failure: kernel.Failure) -> Response:
    error, status = failure.error, failure.status
    if isinstance(error, NotAuthenticated):
        text = str(error) if error.args else calls.NO_CREDENTIALS
        return unauthorized(text if text == calls.NO_CREDENTIALS else calls.WRONG_CREDENTIALS)
    if isinstance(error, NotAllowed):
        return json_response({"message": calls.NO_RIGHT}, 403)
    if status in (404, 405):
        return json_response({"status": 404, "message": calls.NOT_FOUND}, 404)
    if isinstance(error, TooManyAttempts):
        return json_response({"error": failure.message}, status, failure.headers)
    if status >= 500 and not isinstance(error, HTTPException | StoreError):
        return json_response({"status": 500, "message": calls.BROKEN}, 500)
    return json_response({"message": failure.message}, status, failure.headers)
