"""git over HTTP: clone, fetch and push, by git's own `http-backend`."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from polylocal.api.abf.wire import Ask
from polylocal.api.services import Services
from polylocal.errors import NotAllowed, NotFound, SetupError
from polylocal.repos import ENVIRONMENT, Repository
from polylocal.store.rows import Project

_SERVICES = frozenset({"git-upload-pack", "git-receive-pack"})
_PATHS = frozenset({"info/refs", *_SERVICES})
_CHUNK = 1 << 16


async def spooled(request: Request, limit: int) -> IO[bytes]:
    """The body of a request in a file. Raises ValueError: it is larger than `limit` bytes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed by who reads it
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise ValueError(f"The body has more than the {limit} bytes that are taken here.")
            file.write(chunk)
        file.flush()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def serve(ask: Ask, body: IO[bytes]) -> Response:
    """Everybody who may read the project clones it; its owner pushes. `body` is closed at the end."""
    with ExitStack() as stack:
        stack.enter_context(body)
        path = ask.word("path")
        if path not in _PATHS or ask.request.method not in ("GET", "POST"):
            raise NotFound
        project = ask.store.projects.get(ask.word("owner"), ask.word("project"))
        ask.need(ask.may_read(project))
        is_push = "git-receive-pack" in (path, ask.query("service"))
        if is_push:
            _check_push(ask, project)
        repository = ask.services.repository(project)
        repository.create(project.default_branch)
        if path == "git-receive-pack":
            stack.enter_context(repository.changed_by_git())
            ask.services.check_room()
        process = _started(ask, repository, path, body)
        try:
            status, headers = _head(process)
        except BaseException:
            _end(process)
            raise
        rest = _rest(process)
        if path == "git-receive-pack":  # its answer is short, and the lock is not held for a slow reader
            return Response(b"".join(rest), status, headers)
        begun = next(rest, b"")  # a generator that nobody ever began would not end the process either
        return StreamingResponse(itertools.chain([begun], rest), status, headers)


def _check_push(ask: Ask, project: Project) -> None:
    if not ask.may_write(project) or project.git_url:  # the code of another repository is fetched, not pushed
        raise NotAllowed


def _started(ask: Ask, repository: Repository, path: str, body: IO[bytes]) -> subprocess.Popen[bytes]:
    headers = ask.request.headers
    environment = {
        **ENVIRONMENT,
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_PROJECT_ROOT": str(repository.path.parent),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{repository.path.name}/{path}",
        "QUERY_STRING": ask.request.url.query,
        "REQUEST_METHOD": ask.request.method,
        "CONTENT_TYPE": headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
        "GIT_PROTOCOL": headers.get("git-protocol", ""),
        "REMOTE_USER": ask.user.username,
        "REMOTE_ADDR": ask.request.client.host if ask.request.client else "",
        "GIT_COMMITTER_NAME": ask.user.username,
        "GIT_COMMITTER_EMAIL": ask.user.email or f"{ask.user.username}@polylocal",
    }
    environment["CONTENT_LENGTH"] = str(os.fstat(body.fileno()).st_size)
    try:
        return subprocess.Popen(
            ["git", "http-backend"],
            env=environment,
            stdin=body,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise SetupError("the program `git` is not installed; polylocal keeps code with it") from error


def _head(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, str]]:
    """The status and the headers that a CGI program begins with."""
    status, headers = 200, {}
    while process.stdout and (line := process.stdout.readline().strip()):
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers[name] = value.strip()
    return status, headers


def _rest(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    try:
        while process.stdout and (chunk := process.stdout.read1(_CHUNK)):  # type: ignore[attr-defined]
            yield chunk
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It has ended, or nobody reads any more."""
    if process.stdout:
        process.stdout.close()
    process.kill()
    process.wait()


def limit(services: Services) -> int:
    """Bytes of a push."""
    return services.settings.max_upload_mib * 2**20
