"""Users: log-ins and log-outs by token, by password and with a browser; their administration."""

import logging
import re
from functools import partial

from starlette.responses import JSONResponse, RedirectResponse, Response

from polylocal.api import access, bodies, pages
from polylocal.api.access import BRIDGE
from polylocal.api.endpoint import Access, Call, Endpoint, empty_response
from polylocal.api.quotas import client_address
from polylocal.api.sessions import ONE_ORIGIN, SESSION, end_session, set_session_cookie
from polylocal.api.shapes.platform import TokenItem, UserItem, user_item
from polylocal.errors import InvalidInput, NotAllowed, NotAuthenticated
from polylocal.files.folders import remove_tree
from polylocal.paths import Home
from polylocal.store.rows import User
from polylocal.store.users import personal_platform

log = logging.getLogger(__name__)


def login(call: Call) -> Response:
    """Log in by name and password; with `login`, also open a session in the browser."""
    if call.request.scope.get(BRIDGE):
        raise NotAuthenticated("Containers have the tokens of their runs, and no passwords.")
    body = call.body(bodies.Login)
    attempts = call.context.login_throttle
    key = f"{body.username} {client_address(call.request)}"
    attempts.check(key)
    with call.context.quotas.logins.slot(("name", key)), attempts.slot():
        user = call.store.users.check_password(body.username, body.password)
    if user is None:
        attempts.record_failure(key)
        raise InvalidInput({"non_field_errors": ["Unable to log in with provided credentials."]})
    attempts.record_success(key)
    answer = JSONResponse({"token": call.store.users.new_token(user)})
    if body.login:
        set_session_cookie(answer, call.store.users, user)
    return answer


def open_session(call: Call) -> Response:
    """Open a session by the form of a page: a token, and the page to open then."""
    body = call.body(bodies.NewSession)
    try:
        found = access.by_token(call.request, call.store.users, body.token.strip())
        if found.run_pk is not None:
            raise NotAuthenticated("This token is a run's own.")
    except NotAuthenticated as error:
        return pages.page(401, "Log in", pages.form(_page_or_health(body.next), str(error)))
    answer = RedirectResponse(_page_or_health(body.next), 303)
    set_session_cookie(answer, call.store.users, found.user)
    return answer


def refresh_session(call: Call) -> Response:
    if call.run_pk is not None:
        raise NotAllowed
    answer = empty_response()
    set_session_cookie(answer, call.store.users, call.user)
    return answer


def log_out_by_get(call: Call) -> Response:
    """The documented way to log out. An image on any page makes a browser send this, too, so it needs a token.

    Without a session it changes nothing and needs none.
    """
    if not {SESSION, "authorization"} & {*call.request.cookies, *call.request.headers}:
        return empty_response()
    access.authenticate(call.request, call.store.users)
    return logout(call)


def logout(call: Call) -> Response:
    """End the browser's session and those of its pages. A token stays valid, since scripts may use it."""
    answer = empty_response()
    end_session(call.request, answer, call.store.users)
    return answer


def share_origin(call: Call) -> Response:
    """Open the page of one server on the API's origin, in a browser that can't reach the server's own."""
    match = _PAGE_PATH.fullmatch(call.body(bodies.OneOrigin).next)
    if match is None:
        raise InvalidInput({"next": ["Not the path of a notebook or tensorboard."]})
    page = f"{match['page']}/"
    answer = RedirectResponse(page + match["rest"], 303)
    answer.set_cookie(ONE_ORIGIN, "1", httponly=True, samesite="lax", path=page)
    return answer


def whoami(call: Call) -> UserItem:
    return user_item(call.user)


def change(call: Call, **values: bool) -> Response:
    call.store.users.update(_find_user(call), **values)
    return empty_response()


def delete(call: Call) -> Response:
    user = _find_user(call)
    with call.context.secret_store.forgetting(user.username):
        call.store.users.delete(user)
    _remove_published(user, call.context.home)
    return empty_response(204)


def _remove_published(user: User, home: Home) -> None:
    """Empty the user's platform: a later user of this name has a platform of the same name."""
    folder = home.downloads / personal_platform(user.username)
    try:
        remove_tree(folder)
    except OSError as error:
        log.warning("%s stays until the next start: %s", folder, error)


# a page of a server, and the rest of the path; the page becomes the path of a cookie, so only letters of names match
_PAGE_PATH = re.compile(
    r"(?P<page>/(notebook|tensorboard)/[-.%\w]+/[-.%\w]+(/(experiments|groups)/[0-9]+)?)(/|(?=\?)|\Z)(?P<rest>.*)",
    re.ASCII | re.DOTALL,
)


def _page_or_health(path: str) -> str:
    """The path if it is a page of ours, so that no forged link redirects elsewhere."""
    return path if path.startswith(("/notebook/", "/tensorboard/")) else "/healthz"


def _find_user(call: Call) -> User:
    return call.store.users.get(call.parameter("username"))


_SESSION, _LOGOUT = "/polylocal/v1/session", "/api/v1/users/logout"
_anyone, _admin = partial(Endpoint, access=Access.ANYONE), partial(Endpoint, access=Access.ADMIN)
_open = partial(_anyone, "POST", status=303)

ENDPOINTS = [
    _anyone("POST", "/api/v1/users/token", login, "Log in by password", body=bodies.Login, answer=TokenItem),
    Endpoint("GET", "/api/v1/users", whoami, "The caller", Access.USER, answer=UserItem),
    _anyone("GET", _LOGOUT, log_out_by_get, "End the browser's session, by a program with a token"),
    _anyone("POST", _LOGOUT, logout, "End the browser's session"),
    Endpoint("POST", "/api/v1/users/session/refresh", refresh_session, "Open a session in the browser", Access.USER),
    _admin("POST", "/api/v1/users/activate/{username}", partial(change, is_active=True), "Activate a user"),
    _admin("DELETE", "/api/v1/users/delete/{username}", delete, "Delete a user", status=204),
    _admin("POST", "/api/v1/superusers/grant/{username}", partial(change, is_superuser=True), "Make a user an admin"),
    _admin("POST", "/api/v1/superusers/revoke/{username}", partial(change, is_superuser=False), "Make an admin a user"),
    _open(_SESSION, open_session, "Open a session by a token", body=bodies.NewSession, refusal="text/html"),
    _open(f"{_SESSION}/one-origin", share_origin, "Open a page on the API's own origin", body=bodies.OneOrigin),
]
