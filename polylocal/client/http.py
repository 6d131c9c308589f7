"""The HTTP client of the command line. Uses URLs and JSON, and no code of the server."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from polylocal.client.connection import Connection, Response
from polylocal.errors import InvalidInput, NotAllowed, NotAuthenticated, NotFound, PolylocalError, SetupError

Json = dict[str, Any]
_MAX_RUNS = 1000  # on one page
_SLOW_S = 600.0  # seconds; the server may measure or remove all images of an engine
_CHUNK = 1 << 20  # bytes

_ERRORS: Mapping[int, type[PolylocalError]] = {401: NotAuthenticated, 403: NotAllowed, 404: NotFound}


@dataclass(frozen=True)
class RunReference:
    """The owner, project, kind and number of a run."""

    owner: str
    project: str
    kind: str
    id: int

    @property
    def path(self) -> str:
        return f"/api/v1/{self.owner}/{self.project}/{self.kind}s/{self.id}"

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"


class Client:
    """A connection to one daemon. Raises the errors of `polylocal.errors` with the server's messages."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._http = Connection(url, {"Authorization": f"Token {token}"} if token else {})

    def close(self) -> None:
        self._http.close()

    # -- users and projects ---------------------------------------------------------------------------------------

    def whoami(self) -> Json:
        return self.json("GET", "/api/v1/users/")

    def projects(self, owner: str) -> list[Json]:
        return list(self._pages(f"/api/v1/{owner}/"))

    def project(self, owner: str, name: str) -> Json:
        return self.json("GET", f"/api/v1/{owner}/{name}/")

    def create_project(self, values: Json) -> Json:
        return self.json("POST", "/api/v1/projects/", json=values)

    def update_project(self, owner: str, name: str, values: Json) -> Json:
        return self.json("PATCH", f"/api/v1/{owner}/{name}/", json=values)

    def delete_project(self, owner: str, name: str) -> None:
        self.call("DELETE", f"/api/v1/{owner}/{name}/")

    def upload_limits(self, owner: str, name: str) -> Json:
        """The limits of uploads; empty if an older daemon does not report them. Raises the same errors as an upload."""
        try:
            return self.json("GET", f"/polylocal/v1/code/{owner}/{name}/upload")
        except NotFound:
            self.project(owner, name)
            return {}

    def upload(self, owner: str, name: str, archive: BinaryIO) -> None:
        headers, body = _form(archive)
        self.call("PUT", f"/api/v1/{owner}/{name}/repo/upload/", headers=headers, body=body, timeout=_SLOW_S)

    # -- runs -----------------------------------------------------------------------------------------------------

    def create_run(self, owner: str, project: str, kind: str, body: Json) -> Json:
        """Create a run. For a notebook or a tensorboard, returns the running one if there is one."""
        where = f"{kind}/start" if kind in ("notebook", "tensorboard") else f"{kind}s"
        return self.json("POST", f"/api/v1/{owner}/{project}/{where}/", json=body)

    def group_results(self, group: RunReference, metric: str | None, minimize: bool) -> Json:
        wanted = {"metric": metric, "optimization": "minimize" if minimize else "maximize"} if metric else {}
        return self.json("GET", f"{group.path}/results/", params=wanted)

    def group_table(self, group: RunReference, metric: str | None, minimize: bool) -> str:
        """The results as CSV."""
        wanted = {"metric": metric, "optimization": "minimize" if minimize else "maximize"} if metric else {}
        return self.call("GET", f"{group.path}/results/", params={**wanted, "format": "csv"}).text

    def find_run(self, kind: str, run_id: int) -> Json:
        """A run by kind and number, with its project and the reason why it waits."""
        return self.json("GET", f"/polylocal/v1/runs/{kind}/{run_id}")

    def runs(
        self,
        *,
        kind: str | None,
        is_open: bool,
        limit: int,
        project: str | None = None,
        query: str | None = None,
        sort: str | None = None,
    ) -> list[Json]:
        """The runs of all projects, last changed first; or those of `project` (`user/name`) that match `query`."""
        given = {"kind": kind, "project": project, "query": query, "sort": sort, "open": str(is_open).lower()}
        parameters = {name: value for name, value in given.items() if value}
        results: list[Json] = []
        while True:
            left = limit - len(results)
            parameters |= {"limit": str(min(left, _MAX_RUNS) if project else left), "offset": str(len(results))}
            page = self.json("GET", "/polylocal/v1/runs", params=parameters)
            results += page["results"]
            if len(results) >= limit or not page["next"]:
                return results

    def run(self, run: RunReference) -> Json:
        return self.json("GET", f"{run.path}/")

    def statuses(self, run: RunReference) -> list[Json]:
        return list(self._pages(f"{run.path}/statuses/"))

    def stop(self, run: RunReference) -> None:
        self.call("POST", f"{run.path}/stop/")

    def delete(self, run: RunReference) -> None:
        self.call("DELETE", f"{run.path}/")

    def disk_of_run(self, run: RunReference) -> Json:
        """The disk usage of a run, in bytes."""
        return self.json("GET", f"/polylocal/v1/runs/{run.kind}/{run.id}/disk")

    def disk_of_project(self, owner: str, name: str) -> Json:
        return self.json("GET", f"/polylocal/v1/disk/{owner}/{name}")

    def disk_usage(self, budget_gib: float | None) -> Json:
        """The items that use disk space, and whether `gc` would remove them."""
        parameters = {} if budget_gib is None else {"budget_gib": budget_gib}
        return self.json("GET", "/polylocal/v1/disk", params=parameters, timeout=_SLOW_S)

    def gc(self, budget_gib: float | None) -> Json:
        return self.json("POST", "/polylocal/v1/gc", json={"budget_gib": budget_gib}, timeout=_SLOW_S)

    def clone(self, run: RunReference, how: str, body: Json) -> Json:
        return self.json("POST", f"{run.path}/{how}/", json=body)

    @contextmanager
    def logs(self, run: RunReference, *, follow: bool = False, timestamps: bool = False) -> Iterator[Iterator[bytes]]:
        """Stream the log; yields nothing if there is no log yet."""
        parameters = {"follow": str(follow).lower(), "timestamps": str(timestamps).lower()}
        with self._stream(f"{run.path}/logs/", parameters, missing_is_empty=True) as chunks:
            yield chunks

    def download_outputs(self, run: RunReference, to: Path) -> int:
        """Save the outputs as tar.gz; returns the number of bytes."""
        with self._stream(f"{run.path}/outputs/download/", {}) as chunks, to.open("wb") as file:
            return sum(file.write(chunk) for chunk in chunks)

    # -- helpers --------------------------------------------------------------------------------------------------

    @contextmanager
    def _stream(self, path: str, parameters: Json, missing_is_empty: bool = False) -> Iterator[Iterator[bytes]]:
        with self._http.stream(path, parameters) as answer:
            if not isinstance(answer, Response):
                yield answer
            elif missing_is_empty and answer.status == 404 and answer.text.startswith('"'):
                yield iter(())  # the run exists, but has no log yet
            else:
                _raise(answer)

    def _pages(self, path: str) -> Iterator[Json]:
        offset = 0
        while True:
            page = self.json("GET", path, params={"offset": str(offset)})
            yield from page["results"]
            offset += len(page["results"])
            if not page["next"] or not page["results"]:
                return

    def json(self, method: str, path: str, **more: Any) -> Json:
        """Send a request and decode the JSON response. `more`: arguments of `Connection.request`."""
        response = self.call(method, path, **more)
        try:
            found: Json = response.json()
        except ValueError as error:
            raise SetupError(f"the server at {self.url} is not a polylocal daemon: it does not send JSON") from error
        return found

    def call(self, method: str, path: str, **more: Any) -> Response:
        """Send a request. `more`: arguments of `Connection.request`."""
        response = self._http.request(method, path, **more)
        if not response.is_success:
            _raise(response)
        return response


def connect(home: Path, url: str | None, token: str | None) -> Client:
    """A client for the daemon at `url`; without a `token`, uses the one of the home folder. Raises SetupError."""
    if url is None:
        raise SetupError(f"no daemon is running for {home}; start one with `polylocal start`")
    return Client(url, token or _token_of(home))


def _form(archive: BinaryIO) -> tuple[dict[str, str], Iterator[bytes]]:
    """The headers and the body of a form (`multipart/form-data`) with the file `repo`."""
    boundary = secrets.token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="repo"; filename="repo.tar.gz"\r\n'
        "Content-Type: application/gzip\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    start = archive.tell()
    size = len(head) + archive.seek(0, os.SEEK_END) - start + len(tail)
    archive.seek(start)

    def body() -> Iterator[bytes]:
        yield head
        while chunk := archive.read(_CHUNK):
            yield chunk
        yield tail

    return {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(size)}, body()


def _token_of(home: Path) -> str:
    path = home / "token"
    try:
        return os.environ.get("POLYLOCAL_TOKEN") or path.read_text().strip()
    except OSError as error:
        raise SetupError(f"no token: {path} can't be read ({error.strerror}); set POLYLOCAL_TOKEN") from error


def _raise(response: Response) -> None:
    """Raise the error of a response, with the server's message."""
    try:
        body = response.json()
    except ValueError:
        body = response.text
    if response.status == 400 and isinstance(body, dict | list) and "detail" not in body:
        raise InvalidInput(body)
    words = _message(body) if isinstance(body, dict) else body
    kind = _ERRORS.get(response.status, PolylocalError)
    raise kind(str(words or f"the daemon answered {response.status}"))


def _message(body: Json) -> str | None:
    """The message in an error response of either API."""
    inner = next((value for value in body.values() if isinstance(value, dict)), {})
    return body.get("detail") or body.get("message") or body.get("error") or inner.get("message")
