"""Users: logging in and out, by token, by password and with a browser; what admins do with them."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response

from polylocal.api import access, bodies, pages
from polylocal.api.access import BRIDGE
from polylocal.api.attempts import where
from polylocal.api.endpoint import Access, Call, Endpoint, empty
from polylocal.api.resources.platform import TokenItem, UserItem, user_item
from polylocal.errors import InvalidInput, NotAllowed, NotAuthenticated
from polylocal.store.rows import User
from polylocal.store.users import Credentials, Users

SESSION = "polylocal_session"
USER_COOKIE = "user"  # who one is, for pages; older dashboards read it


def login(call: Call) -> Response:
    """By name and password; with `login` a browser is let in as well."""
    if call.request.scope.get(BRIDGE):
        raise NotAuthenticated("Containers have the tokens of their runs, and no passwords.")
    body = call.body(bodies.Login)
    attempts, client = call.services.attempts, call.request.client
    who = f"{body.username} {where(client.host if client else '')}"
    if wait_s := attempts.wait_s(who):
        words = f"Too many wrong passwords; try again in {math.ceil(wait_s)} seconds."
        raise HTTPException(429, words, {"Retry-After": str(math.ceil(wait_s))})
    with call.services.shares.logins.place(("name", who)), attempts.place():
        user = call.store.users.check_password(body.username, body.password)
    if user is None:
        attempts.was_wrong(who)
        raise InvalidInput({"non_field_errors": ["Unable to log in with provided credentials."]})
    attempts.was_right(who)
    answer = JSONResponse({"token": call.store.users.new_token(user)})
    if body.login:
        give_session(answer, call.store.users, user)
    return answer


def open_session(call: Call) -> Response:
    """The form of a page: a token, and where to go on."""
    body = call.body(bodies.NewSession)
    try:
        found = access.by_token(call.request, call.store.users, body.token.strip())
        if found.run_pk is not None:
            raise NotAuthenticated("This token is a run's own.")
    except NotAuthenticated as error:
        return pages.page(401, "Log in", pages.form(_own_page(body.next), str(error)))
    answer = RedirectResponse(_own_page(body.next), 303)
    give_session(answer, call.store.users, found.user)
    return answer


def refresh_session(call: Call) -> Response:
    if call.run_pk is not None:
        raise NotAllowed
    answer = empty()
    give_session(answer, call.store.users, call.user)
    return answer


def logout(call: Call) -> Response:
    """Ends the browser's session. A token stays good: it may be in a script."""
    session = call.request.cookies.get(SESSION)
    if session:
        call.store.users.end_session(session)
    answer = empty()
    for name in (SESSION, USER_COOKIE, "token"):
        answer.delete_cookie(name)
    return answer


def whoami(call: Call) -> UserItem:
    return user_item(call.user)


def activate(call: Call) -> Response:
    call.store.users.update(_named(call), is_active=True)
    return empty()


def delete(call: Call) -> Response:
    user = _named(call)
    call.store.users.delete(user)
    call.services.vault.forget(user.username)
    return empty(204)


def grant(call: Call) -> Response:
    call.store.users.update(_named(call), is_superuser=True)
    return empty()


def revoke(call: Call) -> Response:
    call.store.users.update(_named(call), is_superuser=False)
    return empty()


def of_browser(request: HTTPConnection, users: Users) -> Credentials:
    """By the cookie of a page of ours, or else by the header. Raises NotAuthenticated, NotAllowed.

    The cookie first: Jupyter's pages send a header of their own with all that they ask for.
    """
    session = request.cookies.get(SESSION)
    found = users.by_token(session, is_session=True) if session else None
    if found is None:
        return access.authenticate(request, users)
    if not found.user.is_active:
        raise NotAuthenticated("User inactive or deleted.")
    _check_origin(request)
    return found


def _check_origin(request: HTTPConnection) -> None:
    """A browser sends our cookie with what other pages ask for, too; it says which page that is."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise NotAllowed("This was asked for by a page of another site.")


def give_session(answer: Response, users: Users, user: User) -> None:
    answer.set_cookie(SESSION, users.new_session(user), httponly=True, samesite="lax", path="/")
    answer.set_cookie(USER_COOKIE, user.username, samesite="lax", path="/")


def _own_page(path: str) -> str:
    """Only pages of ours: nobody is sent away by a link that somebody made up."""
    return path if path.startswith(("/notebook/", "/tensorboard/")) else "/healthz"


def _named(call: Call) -> User:
    return call.store.users.get(call.parameter("username"))


ENDPOINTS = [
    Endpoint("POST", "/api/v1/users/token", login, "Log in by password", Access.ANYONE, bodies.Login, TokenItem),
    Endpoint("GET", "/api/v1/users", whoami, "Who one is", Access.USER, answer=UserItem),
    Endpoint("GET", "/api/v1/users/logout", logout, "End the browser's session", Access.ANYONE),
    Endpoint("POST", "/api/v1/users/session/refresh", refresh_session, "Let a browser in", Access.USER),
    Endpoint("POST", "/api/v1/users/activate/{username}", activate, "Let a user in", Access.ADMIN),
    Endpoint("DELETE", "/api/v1/users/delete/{username}", delete, "Delete a user", Access.ADMIN, status=204),
    Endpoint("POST", "/api/v1/superusers/grant/{username}", grant, "Make a user an admin", Access.ADMIN),
    Endpoint("POST", "/api/v1/superusers/revoke/{username}", revoke, "Make an admin a user", Access.ADMIN),
    Endpoint(
        "POST",
        "/polylocal/v1/session",
        open_session,
        "Let a browser in by a token",
        Access.ANYONE,
        bodies.NewSession,
        status=303,
        refusal="text/html",
    ),
]
