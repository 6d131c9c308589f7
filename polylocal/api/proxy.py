"""The pages of notebooks and tensorboards: access control and addresses.

A page is untrusted code. So a browser is redirected from the documented path to the server's own origin (`origins`),
with a one-time code that becomes a cookie of that host alone. Programs with a token in their header get the page at the
documented path, on the API's origin, as does a browser that can't reach the server's own.
"""

import html
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, unquote_plus

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from polylocal.api import access, origins, pages, sessions
from polylocal.api.access import BRIDGE
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Access, Call, Endpoint
from polylocal.api.forwarding import Forwarder, Target, starting_page
from polylocal.api.one_time_codes import OneTimeCodes
from polylocal.api.server_programs import PROGRAMS, newest_server
from polylocal.api.shapes.runs import server_path
from polylocal.errors import EngineError, EngineUnreachable, NotAllowed, NotAuthenticated, NotFound, PolylocalError
from polylocal.statuses import Kind, Status, is_done
from polylocal.store.rows import Run

log = logging.getLogger(__name__)

SERVER = "polylocal.server"  # in the scope of requests to an own origin: the kind and the uuid of the server
_TENSORBOARD = "/tensorboard/{user}/{project}"


def _page(path: str, about: str, access: Access = Access.READ) -> Endpoint:
    return Endpoint("GET", path, lambda call: None, about, access)


# the access to each page; only the owner opens a notebook, which executes its visitor's input
_OF_NOTEBOOK = _page("/notebook/{user}/{project}", "The notebook of a project", Access.WRITE)
_OF_EXPERIMENT = _page(f"{_TENSORBOARD}/experiments/{{id:id}}", "The tensorboard of an experiment")
_OF_GROUP = _page(f"{_TENSORBOARD}/groups/{{id:id}}", "The tensorboard of a group")
_OF_PROJECT = _page(_TENSORBOARD, "The tensorboard of a project")
SCOPES = [_OF_NOTEBOOK, _OF_EXPERIMENT, _OF_GROUP, _OF_PROJECT]
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_REDEEM_PATH = "/polylocal/v1/enter"  # at an own origin: takes the one-time code
_LOST_S = 3.0  # a browser that returns after so long, its code unused, could not reach the own origin


@dataclass(frozen=True)
class _Entry:
    """The permission of a one-time code: to open one server in one session, beginning at `path`."""

    session: str
    run_pk: int
    path: str


class Proxy:
    """The pages of all servers: at their documented paths, and at their own origins."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._users = context.store.users
        self._codes = OneTimeCodes[_Entry]()
        self._requests = context.quotas.requests
        self._forwarder = Forwarder(context.home, context.store.runs)

    async def close(self) -> None:
        await self._forwarder.close()

    # -- the documented paths -------------------------------------------------------------------------------------

    def routes(self) -> list[BaseRoute]:
        found: list[BaseRoute] = []
        for scope in SCOPES:
            for path in (scope.path, f"{scope.path}/{{rest:path}}"):
                found.append(Route(path, partial(self._answer_at_path, scope=scope), methods=_METHODS))
                found.append(WebSocketRoute(path, partial(self._join_at_path, scope=scope)))
        return found

    async def _answer_at_path(self, request: Request, scope: Endpoint) -> Response:
        if request.scope.get(BRIDGE):
            raise NotFound
        async with self._requests.admit(request):
            found = await run_in_threadpool(self._at_path, request, scope)
        return await self._forwarder.forward(request, found) if isinstance(found, Target) else found

    async def _join_at_path(self, socket: WebSocket, scope: Endpoint) -> None:
        await self._join(socket, lambda: self._socket_at_path(socket, scope))

    def _at_path(self, request: Request, scope: Endpoint) -> Response | Target:
        """The program that answers at this path, a redirect, or a page of ours."""
        if opened := self._open_session(request):
            return opened
        try:
            call = self._admit(request, scope, sessions.identify_visitor)
            run = self._server(call)
        except NotAuthenticated:
            return pages.page(401, "Log in", self._warning(request) + pages.form(_path(request)))
        except NotAllowed as error:
            return pages.page(403, "Not allowed", html.escape(str(error)))
        except NotFound:
            return pages.page(404, "Not found", "There is no such project, or no such experiment or group in it.")
        if run is None or is_done(run.status):
            return pages.page(404, "Not running", _how_to_start(scope))
        if not _is_running(run):
            return starting_page(f"{run.unique_name} is {run.status}")
        if not self._is_shown_here(request, run):
            return self._redirect_to_origin(request, run, request.cookies[sessions.SESSION])
        if not _path(request).startswith(server_path(run)):
            return RedirectResponse(server_path(run), 307)  # links on the page are relative to it
        return Target(run, call, self._inner_path(request, run), server_path(run))

    def _socket_at_path(self, socket: WebSocket, scope: Endpoint) -> Target | None:
        call = self._admit(socket, scope, sessions.identify_visitor)
        run = self._server(call)
        if run is None or not _is_running(run) or not self._is_shown_here(socket, run):
            return None
        return Target(run, call, self._inner_path(socket, run), server_path(run))

    def _open_session(self, request: Request) -> Response | None:
        """Turn a token in the query into a session, and redirect to an address without the token.

        None: there is no token of ours. Jupyter's pages use the same parameter for Jupyter's own.
        """
        if request.method != "GET" or not self._is_users_token(request.query_params.get("token")):
            return None
        found = access.by_token(request, self._users, request.query_params["token"])
        answer = RedirectResponse(self._with_query(request, _path(request)), 303)
        if sessions.is_typed_or_own(request):  # pages of other sites may link here, but can't log a user in
            sessions.set_session_cookie(answer, self._users, found.user)
        return answer

    def _server(self, call: Call) -> Run | None:
        """The notebook or the tensorboard of the path."""
        shown = call.run if call.endpoint.is_about_run else None
        return newest_server(call.store, call.project, _kind_of(call.endpoint), shown)

    def _admit(self, request: HTTPConnection, scope: Endpoint, identify: access.Identify) -> Call:
        """The call of a visitor who may see the page. Raises NotAuthenticated, NotAllowed, NotFound."""
        call = Call(request, scope, self._context)
        call.identify(identify)
        if call.run_pk is not None:
            raise NotAllowed
        call.check_access()
        return call

    # -- the way to the own origin --------------------------------------------------------------------------------

    def _is_shown_here(self, request: HTTPConnection, run: Run) -> bool:
        """Whether a page is shown on the API's origin: to a program, to a browser that can't reach the other origin, or
        because its user chose so."""
        is_chosen = sessions.ONE_ORIGIN in request.cookies or self._own_origin(request, run) is None
        return is_chosen or sessions.has_token(request, self._users)

    def _own_origin(self, request: HTTPConnection, run: Run) -> str | None:
        return origins.own_origin(run, request.headers.get("host"), self._context.settings.host)

    def _redirect_to_origin(self, request: Request, run: Run, session: str) -> Response:
        """Redirect to the server's own origin with a one-time code, or explain it if the browser can't get there."""
        mode = request.headers.get("sec-fetch-mode", "navigate")
        if request.method not in ("GET", "HEAD") or mode != "navigate":
            return pages.page(403, "Not allowed", "This page has an address of its own: reload it.")
        if "prefetch" in request.headers.get("sec-purpose", ""):  # browsers prefetch from one host only
            return pages.page(503, "Not fetched in advance", "This page has an address of its own: open it.")
        about = (session, run.pk)
        is_lost = "sec-fetch-mode" in request.headers and self._codes.waiting_s(about) > _LOST_S
        entry = _Entry(
            session, run.pk, self._with_query(request, PROGRAMS[run.kind].own_path(_path(request), server_path(run)))
        )
        code = self._codes.issue(entry, owner=session, about=about)
        origin = self._own_origin(request, run)
        address = f"{origin}{_REDEEM_PATH}?code={code}"
        if is_lost:
            return pages.page(200, "Open the page", pages.retry_form(str(origin), address, _path(request)))
        return RedirectResponse(address, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})

    def _warning(self, request: Request) -> str:
        """A warning where pages are not isolated from each other, or from the session. HTML."""
        if not origins.is_reachable(request.headers.get("host"), self._context.settings.host):
            return pages.ONE_ORIGIN_NOTICE
        try:
            is_published = not self._context.reaches_containers()
        except (EngineError, EngineUnreachable):  # no server runs without an engine
            return ""
        return pages.PUBLISHED_NOTICE if is_published else ""

    # -- own origins ----------------------------------------------------------------------------------------------

    async def at_own_origin(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application of the servers' own origins."""
        if scope["type"] == "websocket":
            socket = WebSocket(scope, receive, send)
            await self._join(socket, lambda: self._socket_at_origin(socket))
            return
        request = Request(scope, receive, send)
        try:
            async with self._requests.admit(request):
                found = await run_in_threadpool(self._at_origin, request)
            answer = await self._forwarder.forward(request, found) if isinstance(found, Target) else found
        except PolylocalError as error:
            log.error("%s %s: %s", request.method, request.url.path, error)
            answer = pages.page(error.http_status, "Try again", html.escape(str(error)))
        except HTTPException as error:  # the quota is used up, or the body did not come
            answer = pages.page(error.status_code, "Try again", html.escape(error.detail))
            answer.headers.update(error.headers or {})
        await answer(scope, receive, send)

    def _at_origin(self, request: Request) -> Response | Target:
        path, run = _path(request), self._run_of_origin(request)
        if request.scope.get(BRIDGE) or run is None:
            return pages.page(404, "Not found", "There is no such notebook or tensorboard.")
        if path == _REDEEM_PATH:
            return self._redeem_code(request, run)
        try:
            call = self._admit_at_origin(request, run)
        except NotAuthenticated:
            return pages.page(401, "Log in", pages.login_link(self._documented_url(request, run)))
        except (NotAllowed, NotFound):
            return pages.page(403, "Not allowed", "You may not open this page.")
        if is_done(run.status):
            return pages.page(404, "Not running", "This server has ended.")
        if not _is_running(run):
            return starting_page(f"{run.unique_name} is {run.status}")
        if path.startswith("/polylocal/"):
            return pages.page(404, "Not found", "There is no such page.")
        program, prefix = PROGRAMS[run.kind], server_path(run)
        if (own := program.own_path(path, prefix)) != program.inner_path(path, prefix):
            return RedirectResponse(own, 307)
        return Target(run, call, self._inner_path(request, run))

    def _socket_at_origin(self, socket: WebSocket) -> Target | None:
        run = self._run_of_origin(socket)
        if run is None:
            return None
        call = self._admit_at_origin(socket, run)
        return Target(run, call, self._inner_path(socket, run)) if _is_running(run) else None

    def _run_of_origin(self, request: HTTPConnection) -> Run | None:
        kind, uuid = request.scope[SERVER]
        found = self._context.store.runs.by_uuid(uuid)
        return found if found and found.kind is kind else None

    def _admit_at_origin(self, request: HTTPConnection, run: Run) -> Call:
        """Raises NotAuthenticated, NotAllowed, NotFound."""
        scope, about = _scope_of(run)
        request.scope["path_params"] = {"user": run.owner, "project": run.project_name, **about}
        return self._admit(request, scope, sessions.PageVisitor(run.pk))

    def _redeem_code(self, request: Request, run: Run) -> Response:
        """Turn the one-time code into the cookie of this origin."""
        entry = self._codes.redeem(request.query_params.get("code", "")) if request.method == "GET" else None
        refused = pages.page(403, "Open the page again", pages.login_link(self._documented_url(request, run)))
        if entry is None or entry.run_pk != run.pk:
            return refused
        answer = RedirectResponse(entry.path, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        return answer if sessions.set_page_cookie(answer, self._users, entry.session, run) else refused

    def _documented_url(self, request: HTTPConnection, run: Run) -> str:
        """The URL that redirects a browser with a session to the own origin."""
        host = self._context.settings.host
        _, port = origins.split(request.headers.get("host", ""))
        name = "[::1]" if host in ("::", "::1") else "localhost" if host == "localhost" else "127.0.0.1"
        return f"http://{name}{port}{server_path(run)}"

    # -- both -----------------------------------------------------------------------------------------------------

    async def _join(self, socket: WebSocket, find_target: Callable[[], Target | None]) -> None:
        try:
            async with self._requests.admit(socket):
                target = None if socket.scope.get(BRIDGE) else await run_in_threadpool(find_target)
        except (NotAuthenticated, NotAllowed, NotFound, HTTPException):
            target = None
        if target is None:
            await socket.close(1008)  # before the handshake is accepted: the browser gets a 403
        else:
            await self._forwarder.join(socket, target)

    def _inner_path(self, request: HTTPConnection, run: Run) -> str:
        return self._with_query(request, PROGRAMS[run.kind].inner_path(_path(request), server_path(run)))

    def _is_users_token(self, token: str | None) -> bool:
        """Whether a token is a user's own: such a token is not passed on."""
        found = self._users.by_token(token) if token else None
        return found is not None and found.run_pk is None and found.user.is_active

    def _with_query(self, request: HTTPConnection, path: str) -> str:
        """The path with the query of the request, without tokens of ours."""
        query = request.scope.get("query_string", b"").decode("ascii", "replace")
        if any(self._is_users_token(token) for token in request.query_params.getlist("token")):
            query = "&".join(part for part in query.split("&") if unquote_plus(part.partition("=")[0]) != "token")
        return path + (f"?{query}" if query else "")


def _is_running(run: Run) -> bool:
    return run.status == Status.RUNNING and run.port is not None


def _path(request: HTTPConnection) -> str:
    """The path as the client sent it, but with one slash at its beginning: two would name a host in a redirect."""
    raw: bytes = request.scope.get("raw_path") or quote(request.url.path).encode()
    return "/" + raw.decode("ascii", "replace").partition("?")[0].lstrip("/\\")


def _scope_of(run: Run) -> tuple[Endpoint, dict[str, Any]]:
    """The endpoint of a server's page, and the parameters of its path."""
    if run.kind is Kind.NOTEBOOK:
        return _OF_NOTEBOOK, {}
    if run.experiment_id:
        return _OF_EXPERIMENT, {"id": run.experiment_id}
    return (_OF_GROUP, {"id": run.group_id}) if run.group_id else (_OF_PROJECT, {})


def _kind_of(scope: Endpoint) -> Kind:
    return Kind(scope.path.split("/")[1])


def _how_to_start(scope: Endpoint) -> str:
    kind = _kind_of(scope)
    return f"No {kind} is running here. Start one with <code>polyaxon {kind} start</code>, then reload this page."
