"""The endpoints and calls of the Polyaxon API."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

from starlette.requests import HTTPConnection
from starlette.responses import Response

from polylocal.api import access, bodies
from polylocal.api.api_context import ApiContext
from polylocal.api.body_parsing import MAX_ANONYMOUS, MAX_BODY
from polylocal.api.kernel import BaseCall, BaseEndpoint
from polylocal.api.shapes.platform import TokenItem
from polylocal.errors import InvalidInput, NotAllowed, NotAuthenticated, NotFound
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store.rows import Project, Run
from polylocal.store.users import Credentials

AnyBody = TypeVar("AnyBody", bound=bodies.Body)

PROJECT = "/api/v1/{user}/{project}"
_FOR_ANY_RUN = frozenset({"/api/v1/users"})  # paths outside of projects that a run's token may read


class Access(StrEnum):
    """Access to an endpoint. Every user reads a public project; its owner and admins write it."""

    ANYONE = "anyone"
    USER = "any user"
    READ = "readers of the project"
    WRITE = "the project's owner"
    TRACK = "the project's owner, or the run itself"
    ADMIN = "admins"


@dataclass(frozen=True)
class Query:
    """A query parameter, for the documentation."""

    name: str
    about: str


@dataclass(frozen=True)
class Endpoint(BaseEndpoint):
    handler: Callable[[Call], Any]
    access: Access = Access.READ
    body: type[bodies.Body] | None = None
    answer: Any = None  # a TypedDict, or None for no body
    many: bool = False  # answered as a page of `answer`
    status: int = 200
    media: str = "application/json"
    query: tuple[Query, ...] = ()
    refusal: str = ""  # the media type of a 401 that is not JSON
    finds_archived: bool = False  # the handler itself looks up the project or run of the path

    @property
    def max_body(self) -> int:
        return MAX_ANONYMOUS if self.access is Access.ANYONE else MAX_BODY

    @property
    def kind(self) -> Kind | None:
        """The kind of run that the path is about."""
        word = self.path.partition("/{project}/")[2].partition("/")[0]
        return next((kind for kind in POLYAXON_KINDS if kind.plural == word), None)

    @property
    def is_about_project(self) -> bool:
        return "{project}" in self.path

    @property
    def is_about_run(self) -> bool:
        return self.is_about_project and "{id:id}" in self.path and self.kind is not None


class Call(BaseCall[Endpoint]):
    """One request to the Polyaxon API, with the project and the run of its path."""

    def __init__(self, request: HTTPConnection, endpoint: Endpoint, context: ApiContext) -> None:
        super().__init__(request, endpoint, context)
        self._identify: access.Identify | None = None  # None: by the header

    def flag(self, name: str) -> bool:
        """A parameter of the query string that is yes or no."""
        return (self.query(name) or "").lower() in ("true", "1", "yes")

    def body(self, model: type[AnyBody]) -> AnyBody:
        return bodies.read(model, self.data)

    def note(self, action: str, thing: Project | Run) -> None:
        """Note a person's action in the activity log. A run's own actions are in its history."""
        if self.run_pk is None:
            self.store.activities.add(self.user, action, thing)

    def note_view(self, thing: Project | Run) -> None:
        if self.run_pk is None:
            self.store.activities.view(self.user, thing)

    @cached_property
    def project(self) -> Project:
        """The project of the path. Raises NotFound; NotAllowed: the caller has no access to it."""
        projects = self.store.projects
        find = projects.including_archived if self.endpoint.finds_archived else projects.get
        found = find(self.parameter("user"), self.parameter("project"))
        self.check_right(found)
        return found

    @property
    def kind(self) -> Kind:
        """The kind of run that the path is about."""
        if self.endpoint.kind is None:
            raise RuntimeError(f"{self.endpoint.path} is not about a kind of run")
        return self.endpoint.kind

    @cached_property
    def run(self) -> Run:
        """The run of the path. Raises NotFound, also for a run of another project."""
        find = self.store.runs.including_archived if self.endpoint.finds_archived else self.store.runs.get
        return find(self.project, self.kind, self.number("id"))

    @property
    def subject(self) -> Project | Run:
        """The run of the path, or its project if it names no run."""
        return self.run if self.endpoint.is_about_run else self.project

    def admit(self) -> None:
        if self.endpoint.access is not Access.ANYONE:
            self.identify()
            self.check_access()

    def identify(self, identify: access.Identify | None = None) -> None:
        """Set the credentials, by the header or by another way. Raises NotAuthenticated, NotAllowed."""
        self._identify = identify
        self.set_credentials(self._identify_caller())

    def check_access(self) -> None:
        """Check the access to the endpoint and find the project and the run of the path.

        Raises NotAllowed, NotFound.
        """
        endpoint = self.endpoint
        if endpoint.access is Access.ADMIN and not self.user.is_superuser:
            raise NotAllowed
        is_outside_projects = endpoint.access in (Access.USER, Access.ADMIN)
        if self.run_pk is not None and is_outside_projects and endpoint.path not in _FOR_ANY_RUN:
            raise NotAllowed  # a run's token is for its own project, whoever started the run
        if endpoint.is_about_project and not endpoint.finds_archived:
            _ = self.subject

    def check_right(self, found: Project) -> None:
        """Check the caller's access to a project. Raises NotAllowed."""
        is_mine = self.user.is_superuser or found.user_id == self.user.id
        reads_only = self.endpoint.access is Access.READ  # a bookmark is the reader's own: it changes nothing
        if not is_mine and not (found.is_public and reads_only):
            raise NotAllowed
        if self.run_pk is not None:
            self._check_run_token(found, reads_only)

    def check_again(self) -> None:
        endpoint, store = self.endpoint, self.store
        if endpoint.access is Access.ANYONE:
            return
        again = Call(self.request, endpoint, self.context)
        again.credentials = self._identify_caller()
        if again.holders != self.holders:
            raise NotAuthenticated("Invalid token.")
        if endpoint.access is Access.ADMIN and not again.user.is_superuser:
            raise NotAllowed
        if endpoint.is_about_project:  # found by their ids, since both may have new names
            project = store.projects.by_id(self.project.id)
            self._check_exists(project)
            again.check_right(project)
            if endpoint.is_about_run:
                self._check_exists(store.runs.by_pk(self.run.pk))

    @property
    def permission_key(self) -> Hashable:
        endpoint, request = self.endpoint, self.request
        run = self.run.pk if endpoint.is_about_run else None
        about = (self.project.id, run) if endpoint.is_about_project else ()
        shown = [request.headers.get("authorization")]
        if self._identify:  # cookies and the query identify the caller, too
            shown += [request.headers.get("cookie"), request.query_params.get("token")]
        return (*shown, self._identify, endpoint.access, endpoint.method, about)

    def _identify_caller(self) -> Credentials:
        return (self._identify or access.authenticate)(self.request, self.store.users)

    def _check_exists(self, thing: Project | Run) -> None:
        if thing.deleted_at or (thing.archived_at and not self.endpoint.finds_archived):
            raise NotFound

    def _check_run_token(self, project: Project, reads_only: bool) -> None:
        """Check the access of a run's token: it reads its own project, and changes its own run. Raises NotAllowed."""
        own = self.store.runs.by_pk(self.run_pk or 0)
        endpoint = self.endpoint
        is_about_itself = endpoint.access is Access.TRACK and endpoint.kind is own.kind and self.number("id") == own.id
        only_looks = reads_only and (endpoint.method in ("GET", "WS") or endpoint.answer is TokenItem)
        if own.project_id != project.id or not (only_looks or is_about_itself):
            raise NotAllowed


def runs_path(kind: Kind) -> str:
    """The path of the runs of a kind in a project."""
    return f"{PROJECT}/{kind.plural}"


def run_path(kind: Kind) -> str:
    """The path of one run of a kind."""
    return f"{runs_path(kind)}/{{id:id}}"


def refusal(message: str) -> InvalidInput:
    """A 400 whose body is a list with one sentence."""
    return InvalidInput([message])


def empty_response(status: int = 200) -> Response:
    """The answer of an action: a status without a body."""
    return Response(status_code=status)
