"""Git over HTTP: clone, fetch and push through git's `http-backend`."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import IO

from starlette.requests import Request
from starlette.responses import Response

from polylocal.api.abf.calls import AbfCall
from polylocal.api.api_context import ApiContext
from polylocal.api.file_responses import GeneratedResponse
from polylocal.errors import NotAllowed, NotFound
from polylocal.git import command, pre_receive
from polylocal.git.repository import Repository
from polylocal.store.rows import Project
from polylocal.system import processes

_SERVICES = frozenset({"git-upload-pack", "git-receive-pack"})
_PATHS = frozenset({"info/refs", *_SERVICES})
_CHUNK = 1 << 16
_LIMITS = processes.Limits(seconds=3600.0)  # enough for a clone over a slow connection
_PROTOCOL = re.compile(r"version=[0-2]")
_ENCODINGS = frozenset({"gzip", "x-gzip"})


async def spool(request: Request, limit: int) -> IO[bytes]:
    """The body of a request in a file. Raises ValueError: it is larger than `limit` bytes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  the reader closes it
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise ValueError(f"The body exceeds the limit of {limit} bytes.")
            file.write(chunk)
        file.flush()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def serve(call: AbfCall, body: IO[bytes]) -> Response:
    """Readers of the project may clone it, and its owner may push. `body` is closed at the end."""
    with ExitStack() as stack:
        stack.enter_context(body)
        path = call.parameter("path")
        is_known = path in _PATHS and call.query("service") in (None, *_SERVICES)
        if not is_known or call.request.method not in ("GET", "POST"):
            raise NotFound
        project = call.store.projects.get(call.parameter("owner"), call.parameter("project"))
        call.require(call.may_read(project))
        is_push = "git-receive-pack" in (path, call.query("service"))
        if is_push:
            _check_push(call, project)
        repository = call.context.repository(project)
        repository.create(project.default_branch)
        if path == "git-receive-pack":
            stack.enter_context(repository.receive_push())
            call.context.check_room()
        process = _start_backend(call, repository, path, body)
        with processes.terminating(process, keeps_running=True):
            status, headers = _read_head(process)
            rest = _read_body(process)
            if path == "git-receive-pack":  # the response is short, and a slow reader must not hold the lock
                return Response(b"".join(rest), status, headers)
            begun = next(rest, b"")  # a generator that never started would not end the process
        return GeneratedResponse(_chain(begun, rest), status, headers)


def _chain(begun: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    with closing(rest):  # type: ignore[type-var]  # a generator
        yield begun
        yield from rest


def _check_push(call: AbfCall, project: Project) -> None:
    if not call.may_write(project) or project.git_url:  # code of an external repository is fetched, not pushed
        raise NotAllowed


def _start_backend(call: AbfCall, repository: Repository, path: str, body: IO[bytes]) -> subprocess.Popen[bytes]:
    headers = call.request.headers
    service, packed = call.query("service"), headers.get("content-encoding", "")
    protocol, content_type = headers.get("git-protocol", ""), headers.get("content-type", "")
    environment = {
        **command.ENVIRONMENT,
        **pre_receive.environment(call.context.code_limits),
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_PROJECT_ROOT": str(repository.path.parent),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{repository.path.name}/{path}",
        "QUERY_STRING": f"service={service}" if service in _SERVICES else "",
        "REQUEST_METHOD": call.request.method,
        "CONTENT_TYPE": content_type if content_type == f"application/x-{path}-request" else "",
        "HTTP_CONTENT_ENCODING": packed if packed in _ENCODINGS else "",
        "GIT_PROTOCOL": protocol if _PROTOCOL.fullmatch(protocol) else "",
        "REMOTE_USER": call.user.username,
        "REMOTE_ADDR": call.request.client.host if call.request.client else "",
        "GIT_COMMITTER_NAME": call.user.username,
        "GIT_COMMITTER_EMAIL": call.user.email or f"{call.user.username}@polylocal",
    }
    environment["CONTENT_LENGTH"] = str(os.fstat(body.fileno()).st_size)
    max_bytes = str(limit(call.context))  # of the pack after decompression
    return command.start(
        "http-backend",
        env=environment,
        config={"receive.maxInputSize": max_bytes, "core.hooksPath": str(pre_receive.write_hook(repository.path))},
        stdin=body.fileno(),
        stderr=subprocess.DEVNULL,
        limits=_LIMITS,
    )


def _read_head(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, str]]:
    """The status and the headers of a CGI response."""
    status, headers = 200, {}
    while process.stdout and (line := process.stdout.readline().strip()):
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers[name] = value.strip()
    return status, headers


def _read_body(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """The body. The process ends at its end, or when the client disconnects."""
    until = time.monotonic() + _LIMITS.seconds
    try:
        while process.stdout and (chunk := process.stdout.read1(_CHUNK)):  # type: ignore[attr-defined]
            yield chunk
            if time.monotonic() > until:
                return
    finally:
        processes.terminate(process)


def limit(context: ApiContext) -> int:
    """Bytes of a push."""
    return context.settings.max_upload_mib * 2**20
