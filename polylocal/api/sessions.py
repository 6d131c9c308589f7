"""Sessions of browsers: cookies that identify a user.

The session's cookie belongs to the host of the API and opens pages, never the API. The cookie of a page belongs to the
own origin of one notebook or tensorboard and opens that server alone; it ends with its session.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from polylocal.api import access
from polylocal.errors import NotAllowed, NotAuthenticated
from polylocal.store.rows import Run, User
from polylocal.store.users import SESSION_S, Credentials, Users

SESSION = "polylocal_session"
USER_COOKIE = "user"  # the user's name; older dashboards read it
PAGE = "polylocal_page"
ONE_ORIGIN = "polylocal_one_origin"  # the user chose to open this page on the host of the API
_OLD_TOKEN = "token"  # of older dashboards
OURS = frozenset({SESSION, USER_COOKIE, PAGE, ONE_ORIGIN, _OLD_TOKEN})  # programs of servers neither get nor set them


def set_session_cookie(answer: Response, users: Users, user: User) -> None:
    """Open a session for this user in the browser."""
    answer.set_cookie(SESSION, users.new_session(user), httponly=True, samesite="lax", path="/")
    answer.set_cookie(USER_COOKIE, user.username, samesite="lax", path="/")


def end_session(request: HTTPConnection, answer: Response, users: Users) -> None:
    """Log a browser out, also of the pages of servers. Idempotent."""
    if session := request.cookies.get(SESSION):
        users.end_session(session)
    for name in (SESSION, USER_COOKIE, _OLD_TOKEN):
        answer.delete_cookie(name)


def set_page_cookie(answer: Response, users: Users, session: str, run: Run) -> bool:
    """Open a server's own origin to the browser. False: the session has ended meanwhile."""
    made = users.new_page_session(session, run.pk)
    if made is None:
        return False
    answer.set_cookie(PAGE, made, max_age=SESSION_S, httponly=True, samesite="lax", path="/")
    return True


def session_credentials(request: HTTPConnection, users: Users) -> Credentials | None:
    """The credentials of the session in the cookie; None: there is none. Raises NotAuthenticated, NotAllowed."""
    session = request.cookies.get(SESSION)
    found = users.by_token(session, is_session=True) if session else None
    return _check_credentials(request, found)


def identify_visitor(request: HTTPConnection, users: Users) -> Credentials:
    """Identify the visitor of a documented path: a program by its header, or else a browser by its session.

    Besides a session, a header with another token is ignored: Jupyter's pages send Jupyter's. Raises NotAuthenticated,
    NotAllowed.
    """
    try:
        return access.authenticate(request, users)
    except NotAuthenticated:
        found = session_credentials(request, users)
        if found is None:
            raise
        return found


def has_token(request: HTTPConnection, users: Users) -> bool:
    """Whether the request has a valid token in its header, as programs send it."""
    try:
        access.authenticate(request, users)
    except NotAuthenticated:
        return False
    return True


@dataclass(frozen=True)
class PageVisitor:
    """Identifies the visitor of a server's own origin: by its cookie, or else by the header that programs send.

    The cookie is first, since Jupyter's pages send a header of their own. Raises NotAuthenticated, NotAllowed.
    """

    run_pk: int

    def __call__(self, request: HTTPConnection, users: Users) -> Credentials:
        page = request.cookies.get(PAGE)
        found = _check_credentials(request, users.by_page_session(page, self.run_pk) if page else None)
        return found or access.authenticate(request, users)


def is_typed_or_own(request: HTTPConnection) -> bool:
    """Whether a request comes from a user's own input, a page of this origin or a program, not from another page.

    Browsers say so in `Sec-Fetch-Site` (Fetch Metadata); programs and old browsers send no such header.
    """
    return request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _check_credentials(request: HTTPConnection, found: Credentials | None) -> Credentials | None:
    if found is None:
        return None
    if not found.user.is_active:
        raise NotAuthenticated("User inactive or deleted.")
    # refuse requests of other pages: browsers send cookies with them, and name the page in `Origin`
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise NotAllowed("A page of another site sent this request.")
    return found
