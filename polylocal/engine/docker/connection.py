"""The connections to a Docker engine, and the translation of docker-py's errors into those of the contract.

docker-py is made for short programs. This package works around its traps for a daemon; each place names the issue.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, NotFound, create_api_error_from_http_exception
from docker.utils import kwargs_from_env

from polylocal.engine.docker.client import Client
from polylocal.errors import ContainerMissing, EngineError, EngineUnreachable, ImageMissing

CALL_TIMEOUT_S = 120  # docker-py's 60 s are too short for a busy engine (docker-py#2266)
POOL_SIZE = 64  # docker-py's pool of 10 drops connections under parallel runs (docker-py#1636)
# A cut connection: docker-py lets the errors of requests, urllib3 and the socket through.
CUT = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
# The last words of the API's paths that are not names.
_VERBS = frozenset("archive attach create exec history json kill logs prune start stats stop tag wait".split())

C = TypeVar("C", bound=Client)


class Connection:
    """Connects at the first call. `on_answer` gets each call of the API with its seconds."""

    def __init__(self, address: str, on_answer: Callable[[str, float], None], *, uses_proxy: bool) -> None:
        self.address = address
        self._on_answer = on_answer
        self._uses_proxy = uses_proxy
        self._connecting = threading.Lock()
        self._client: Client | None = None

    def client(self) -> Client:
        """The client that all short calls share. Raises EngineUnreachable."""
        with self._connecting:
            if self._client is None:
                self._client = self._new(CALL_TIMEOUT_S, Client)
            return self._client

    @contextmanager
    def call(self) -> Iterator[Client]:
        """The shared client, for a short call. Errors are those of the contract."""
        with translate_errors():
            yield self.client()

    @contextmanager
    def new_client(self, timeout_s: float | None, cls: type[C]) -> Iterator[C]:
        """A client for one long call (docker-py#2477). Errors are those of the contract."""
        with translate_errors(), closing(self._new(timeout_s, cls)) as client:
            yield client

    def close(self) -> None:
        client, self._client = self._client, None
        if client:
            client.close()

    def _new(self, timeout_s: float | None, cls: type[C]) -> C:
        # Without `version` the client negotiates it. A fixed one breaks on older and on much newer engines (moby 29).
        tls = kwargs_from_env().get("tls") if self.address.startswith(("tcp://", "https://")) else None
        try:
            client = cls(
                uses_proxy=self._uses_proxy,
                base_url=self.address,
                timeout=timeout_s,
                max_pool_size=POOL_SIZE,
                tls=tls or False,
            )
        except DockerException as error:  # the constructor requests the engine's version, and hides the cause
            raise EngineUnreachable(f"the engine does not answer: {error}") from error
        client.hooks["response"].append(self._report_time)
        return client

    def _report_time(self, response: requests.Response, *arguments: Any, **more: Any) -> None:
        self._on_answer(_call_of(response.request), response.elapsed.total_seconds())


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise the errors of docker-py, requests and the socket as those of the contract.

    The originals are not kept as causes. They contain URLs, and the URL of a build contains its arguments with the
    secrets among them.
    """
    try:
        try:
            yield
        except APIError:  # a subclass of HTTPError
            raise
        except requests.exceptions.HTTPError as error:  # from a request that docker-py did not make itself
            create_api_error_from_http_exception(error)
    except ImageNotFound as error:
        raise ImageMissing(error_text(error)) from None
    except NotFound as error:
        raise ContainerMissing(error_text(error)) from None
    except APIError as error:
        raise EngineError(error_text(error)) from None
    except CUT as error:
        raise EngineUnreachable(f"the engine does not answer: {_without_queries(error)}") from None
    except json.JSONDecodeError as error:
        raise EngineUnreachable(f"the engine's answer ended in the middle: {error}") from error
    except DockerException as error:  # docker-py itself refuses the arguments
        raise EngineError(str(error)) from error


def error_text(error: APIError) -> str:
    """The engine's own words."""
    return _without_queries(error.explanation or error)


def _without_queries(error: object) -> str:
    """The text of an error without the queries of its URLs."""
    return re.sub(r"\?[^\s\"']*", "", str(error)) if "://" in str(error) or "url:" in str(error) else str(error)


def _call_of(request: requests.PreparedRequest) -> str:
    """A request without the names in its path: `POST containers/start`."""
    parts = [part for part in urlsplit(request.url or "").path.split("/") if part]
    path = [part for part in parts if not part.startswith("v1.")]
    named = path[:1] + [word for word in path[-1:] if len(path) > 1 and word in _VERBS]
    return f"{request.method} {'/'.join(named)}"
