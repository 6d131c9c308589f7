"""Who is it, and may they?"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from starlette.requests import HTTPConnection

from polylocal.api.endpoint import Access, Call
from polylocal.api.quotas import credential_of, holders_of
from polylocal.errors import NotAllowed, NotAuthenticated, NotFound
from polylocal.store.rows import Project, Run
from polylocal.store.users import Credentials, Users

Identify = Callable[[HTTPConnection, Users], Credentials]

BRIDGE = "polylocal.bridge"  # set in the scope of requests that come from containers
_SCHEMES = ("token", "bearer", "ephemeraltoken", "internaltoken")  # Prometheus and others say Bearer
# where a run's token may say whose it is
_OF_ANY_RUN = frozenset({"/api/v1/users"})


def admit(call: Call) -> None:
    """Before anything of a body is looked at: who is it, may they, and is there what the path is about?"""
    know(call)
    check(call)


def know(call: Call, identify: Identify | None = None) -> None:
    """Who is it? `identify` is asked where the header alone does not say it. Raises NotAuthenticated, NotAllowed."""
    call.identify = identify
    call.credentials = (identify or authenticate)(call.request, call.store.users)
    call.context.shares.work.remember(credential_of(call.request), holders_of(call.credentials))


def check(call: Call) -> None:
    """May they, and is there what the path is about? Raises NotAllowed, NotFound."""
    endpoint = call.endpoint
    if endpoint.access is Access.ADMIN and not call.user.is_superuser:
        raise NotAllowed
    of_nobodys_project = endpoint.access in (Access.USER, Access.ADMIN)
    if call.run_pk is not None and of_nobodys_project and endpoint.path not in _OF_ANY_RUN:
        raise NotAllowed  # a run's token is for its own project, whoever started it
    if "{project}" in endpoint.path and not endpoint.finds_archived:
        _ = call.run if "{id:id}" in endpoint.path and endpoint.kind else call.project


def check_again(call: Call) -> None:
    """Whether a call that was let in would be so now, about the same project and run, whatever they are called by now.

    Raises NotAuthenticated, NotAllowed, NotFound.
    """
    identify = call.identify or authenticate
    credentials = identify(call.request, call.store.users)
    if call.credentials is None or _who(credentials) != _who(call.credentials):
        raise NotAuthenticated("Invalid token.")
    again = Call(call.request, call.endpoint, call.context)
    again.credentials = credentials
    if call.endpoint.access is Access.ADMIN and not credentials.user.is_superuser:
        raise NotAllowed
    if "{project}" in call.endpoint.path:
        project = call.store.projects.by_id(call.project.id)
        _check_visible(call, project)
        again.check_right(project)
        if "{id:id}" in call.endpoint.path and call.endpoint.kind:
            _check_visible(call, call.store.runs.by_pk(call.run.pk))


def key_of(call: Call) -> Hashable:
    """The same for calls that `check_again` has the same answer for."""
    about: tuple[object, ...] = ()
    if "{project}" in call.endpoint.path:
        has_run = "{id:id}" in call.endpoint.path and call.endpoint.kind
        about = (call.project.id, call.run.pk if has_run else None)
    request = call.request
    shown = [request.headers.get("authorization")]
    if call.identify:  # the header alone says it otherwise, whatever else stands beside it
        shown += [request.headers.get("cookie"), request.query_params.get("token")]
    return (*shown, call.identify, call.endpoint.access, call.endpoint.method, about)


def _who(credentials: Credentials) -> tuple[int, int | None]:
    return credentials.user.id, credentials.run_pk


def _check_visible(call: Call, thing: Project | Run) -> None:
    if thing.deleted_at or (thing.archived_at and not call.endpoint.finds_archived):
        raise NotFound


def authenticate(request: HTTPConnection, users: Users) -> Credentials:
    """By the header that every client sends. Raises NotAuthenticated."""
    header = request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    if scheme.lower() not in _SCHEMES:
        raise NotAuthenticated("Authentication credentials were not provided.")
    return by_token(request, users, token.strip())


def by_token(request: HTTPConnection, users: Users, token: str) -> Credentials:
    """Whose token is this, and may it come from where it comes from? Raises NotAuthenticated."""
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
