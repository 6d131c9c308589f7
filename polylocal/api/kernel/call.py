"""Base classes of the endpoints and calls of all APIs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar, cast

from starlette.requests import HTTPConnection

from polylocal.api.api_context import ApiContext
from polylocal.api.quotas import Holder, client_address, credential_of, holders_of
from polylocal.errors import NotAuthenticated
from polylocal.store.rows import User
from polylocal.store.users import Credentials


class Threads(StrEnum):
    """Where a handler runs."""

    SHARED = "the web server's threads"
    LONG = "threads of long operations"
    STATUS = "threads of the daemon's own status"
    NONE = "the event loop, without admission"


@dataclass(frozen=True)
class BaseEndpoint:
    """One row of a table of endpoints."""

    method: str
    path: str  # without a trailing slash and without `.json`; every form of a path is served
    handler: Callable[[Any], Any]
    about: str
    _: KW_ONLY
    is_upload: bool = False
    threads: Threads = Threads.SHARED

    @property
    def is_long(self) -> bool:
        return self.is_upload or self.threads is Threads.LONG

    @property
    def max_body(self) -> int:
        """Bytes of a body that is not an upload."""
        raise NotImplementedError


AnyEndpoint = TypeVar("AnyEndpoint", bound=BaseEndpoint)


class BaseCall(ABC, Generic[AnyEndpoint]):
    """One request to one endpoint. `data` is the parsed body."""

    no_credentials: ClassVar[str] = "Authentication credentials were not provided."

    def __init__(self, request: HTTPConnection, endpoint: AnyEndpoint, context: ApiContext) -> None:
        self.request = request
        self.endpoint = endpoint
        self.context = context
        self.store = context.store
        self.credentials: Credentials | None = None
        self.data: object = {}

    @abstractmethod
    def admit(self) -> None:
        """Identify the caller and check their access to the endpoint, before the body is read.

        Raises NotAuthenticated, NotAllowed, NotFound.
        """

    @abstractmethod
    def check_again(self) -> None:
        """Check that the caller would still be admitted. Raises NotAuthenticated, NotAllowed, NotFound."""

    @property
    @abstractmethod
    def permission_key(self) -> Hashable:
        """Equal for calls for which `check_again` has the same result."""

    def set_credentials(self, credentials: Credentials) -> None:
        """Note the caller, and count their next requests against their own quota from the start."""
        self.credentials = credentials
        self.context.quotas.requests.remember(credential_of(self.request), self.holders)

    @property
    def user_or_none(self) -> User | None:
        return self.credentials.user if self.credentials else None

    @property
    def user(self) -> User:
        """Raises NotAuthenticated: the request is anonymous."""
        if self.credentials is None:
            raise NotAuthenticated(self.no_credentials)
        return self.credentials.user

    @property
    def run_pk(self) -> int | None:
        """The run whose own token the caller uses."""
        return self.credentials.run_pk if self.credentials else None

    @property
    def holders(self) -> tuple[Holder, ...]:
        """The quotas that this call counts against."""
        return holders_of(self.credentials) if self.credentials else (("address", client_address(self.request)),)

    @property
    def body_limit(self) -> int:
        """Bytes."""
        is_upload = self.endpoint.is_upload
        return self.context.settings.max_upload_mib * 2**20 if is_upload else self.endpoint.max_body

    def parameter(self, name: str) -> str:
        """A parameter of the path."""
        return cast(str, self.request.path_params[name])

    def number(self, name: str) -> int:
        """A parameter of the path that is a number."""
        return cast(int, self.request.path_params[name])

    def query(self, name: str) -> str | None:
        """A parameter of the query string."""
        return self.request.query_params.get(name)
