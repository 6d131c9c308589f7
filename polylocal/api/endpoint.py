"""One row of the route table, and the one call that it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar, cast

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse

from polylocal.api import bodies
from polylocal.api.api_context import ApiContext
from polylocal.api.login_throttle import where
from polylocal.api.quotas import Holder, holders_of
from polylocal.api.shapes.platform import TokenItem
from polylocal.api.worker_pools import stream
from polylocal.errors import InvalidInput, NotAllowed
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store.rows import Project, Run, User
from polylocal.store.users import Credentials, Users

AnyBody = TypeVar("AnyBody", bound=bodies.Body)


class IdConvertor(Convertor[int]):
    """Numbers that a row can have: a longer one is no path of ours."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", IdConvertor())


class Access(StrEnum):
    """Who may call. A project is read by everybody if it is public, and written by its owner and by admins."""

    ANYONE = "anyone"
    USER = "any user"
    READ = "readers of the project"
    WRITE = "the project's owner"
    TRACK = "the project's owner, or the run itself"
    ADMIN = "admins"


class Threads(StrEnum):
    """Where a handler runs."""

    SHARED = "the web server's threads"
    LONG = "threads of long operations"
    STATUS = "threads of the daemon's own status"
    NONE = "the event loop: it only answers"


@dataclass(frozen=True)
class Query:
    """A query parameter, for the record."""

    name: str
    about: str


@dataclass(frozen=True)
class Endpoint:
    method: str
    path: str  # without a trailing slash: all forms are served
    handler: Callable[[Call], Any]
    about: str
    access: Access = Access.READ
    body: type[bodies.Body] | None = None
    answer: Any = None  # a TypedDict, or None for no body
    many: bool = False  # answered as a page of `answer`
    status: int = 200
    media: str = "application/json"
    query: tuple[Query, ...] = ()
    is_upload: bool = False
    refusal: str = ""  # the media type of a 401 that is no JSON
    threads: Threads = Threads.SHARED
    finds_archived: bool = False  # looks up what its path is about by itself

    @property
    def is_long(self) -> bool:
        return self.is_upload or self.threads is Threads.LONG

    @property
    def kind(self) -> Kind | None:
        """The kind of run that the path is about."""
        word = self.path.partition("/{project}/")[2].partition("/")[0]
        return next((kind for kind in POLYAXON_KINDS if kind.plural == word), None)


class Call:
    """One request: who asks, about what, with which body."""

    def __init__(self, request: HTTPConnection, endpoint: Endpoint, context: ApiContext) -> None:
        self.request = request
        self.endpoint = endpoint
        self.context = context
        self.store = context.store
        self.credentials: Credentials | None = None
        self.identify: Callable[[HTTPConnection, Users], Credentials] | None = None  # None: by the header
        self.data: object = {}

    @property
    def user(self) -> User:
        if self.credentials is None:
            raise RuntimeError(f"{self.endpoint.path} is open to anyone and knows no user")
        return self.credentials.user

    @property
    def run_pk(self) -> int | None:
        """Set when a run's own token is used."""
        return self.credentials.run_pk if self.credentials else None

    @property
    def holders(self) -> tuple[Holder, ...]:
        """Whose share of the daemon's places this takes."""
        if self.credentials is None:
            return (("address", where(self.request.client.host if self.request.client else "")),)
        return holders_of(self.credentials)

    def parameter(self, name: str) -> str:
        return cast(str, self.request.path_params[name])

    def query(self, name: str) -> str | None:
        return self.request.query_params.get(name)

    def flag(self, name: str) -> bool:
        return (self.query(name) or "").lower() in ("true", "1", "yes")

    def body(self, model: type[AnyBody]) -> AnyBody:
        return bodies.read(model, self.data)

    def note(self, action: str, thing: Project | Run) -> None:
        """For the activity log: what a person did. What runs say of themselves is in their history."""
        if self.run_pk is None:
            self.store.activities.add(self.user, action, thing)

    def note_view(self, thing: Project | Run) -> None:
        if self.run_pk is None:
            self.store.activities.view(self.user, thing)

    @cached_property
    def project(self) -> Project:
        """The project of the path, if the caller may do with it what the endpoint does."""
        projects = self.store.projects
        find = projects.archived if self.endpoint.finds_archived else projects.get
        found = find(self.parameter("user"), self.parameter("project"))
        self.check_right(found)
        return found

    def check_right(self, found: Project) -> None:
        """Raises NotAllowed."""
        is_mine = self.user.is_superuser or found.user_id == self.user.id
        reads_only = self.endpoint.access is Access.READ  # a bookmark is the reader's own: it changes nothing
        if not is_mine and not (found.is_public and reads_only):
            raise NotAllowed
        if self.run_pk is not None:
            self._check_run_token(found, reads_only)

    @cached_property
    def run(self) -> Run:
        """The run of the path; another project's run of this number is not found."""
        kind = self.endpoint.kind
        if kind is None:
            raise RuntimeError(f"{self.endpoint.path} is not about a run")
        find = self.store.runs.archived if self.endpoint.finds_archived else self.store.runs.get
        return find(self.project, kind, self.number("id"))

    def number(self, name: str) -> int:
        return cast(int, self.request.path_params[name])

    def _check_run_token(self, project: Project, reads_only: bool) -> None:
        """A run's token reads its own project, and writes what its own run is told to write."""
        own = self.store.runs.by_pk(self.run_pk or 0)
        is_about_itself = (
            self.endpoint.access is Access.TRACK and self.endpoint.kind == own.kind and self.number("id") == own.id
        )
        only_looks = reads_only and (self.endpoint.method in ("GET", "WS") or self.endpoint.answer is TokenItem)
        if own.project_id != project.id or not (only_looks or is_about_itself):
            raise NotAllowed


class MadeAnswer(StreamingResponse):
    """What a program or a thread of its own makes while it is sent: it is at work as long as its reader takes."""

    def __init__(
        self,
        pieces: Iterator[bytes],
        status: int = 200,
        headers: dict[str, str] | None = None,
        media: str | None = None,
    ) -> None:
        super().__init__(stream(pieces, of_program=True), status, headers, media)


def refuse(message: str) -> InvalidInput:
    """The answer of a view that finds something wrong: a list with one sentence."""
    return InvalidInput([message])


def empty(status: int = 200) -> Response:
    """Actions answer with a status and nothing else."""
    return Response(status_code=status)
