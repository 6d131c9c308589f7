"""Identifies callers by their tokens."""

from collections.abc import Callable

from starlette.requests import HTTPConnection

from polylocal.errors import NotAuthenticated
from polylocal.store.users import Credentials, Users

Identify = Callable[[HTTPConnection, Users], Credentials]

BRIDGE = "polylocal.bridge"  # in the scope of requests from containers
_SCHEMES = ("token", "bearer", "ephemeraltoken", "internaltoken")  # Prometheus and others say Bearer


def authenticate(request: HTTPConnection, users: Users) -> Credentials:
    """Identify the caller by the header `Authorization`. Raises NotAuthenticated."""
    header = request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    if scheme.lower() not in _SCHEMES:
        raise NotAuthenticated("Authentication credentials were not provided.")
    return by_token(request, users, token.strip())


def by_token(request: HTTPConnection, users: Users, token: str) -> Credentials:
    """The credentials of a token. Requests from containers need a run's token. Raises NotAuthenticated."""
    if not token:
        raise NotAuthenticated("Invalid token header. No credentials provided.")
    if " " in token:
        raise NotAuthenticated("Invalid token header. Token string should not contain spaces.")
    credentials = users.by_token(token)
    if credentials is None or (request.scope.get(BRIDGE) and credentials.run_pk is None):
        raise NotAuthenticated("Invalid token.")
    if not credentials.user.is_active:
        raise NotAuthenticated("User inactive or deleted.")
    return credentials
