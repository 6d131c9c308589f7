"""What runs kept: as one archive, as a tree, file by file."""

from __future__ import annotations

import io
import mimetypes
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from starlette.responses import JSONResponse, Response, StreamingResponse

from polylocal.api.endpoint import Call, Endpoint, Query, file_as_it_is, refuse
from polylocal.api.resources import TreeItem
from polylocal.errors import NotFound
from polylocal.statuses import Kind

_CHUNK = 1 << 18


def download(call: Call) -> Response:
    """Everything as tar.gz, made while it is sent; names are relative to the outputs folder."""
    folder = _folder(call)
    if not folder.is_dir():
        raise NotFound("The run has no outputs.")
    name = f"{call.run.unique_name.replace('.', '_')}.tar.gz"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_archive(folder), media_type="application/gzip", headers=headers)


def tree(call: Call) -> TreeItem:
    folder = _inside(call, call.query("path") or "")
    if not folder.is_dir():
        raise refuse(f"There is no folder `{call.query('path') or ''}` in the outputs.")
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    return {
        "files": [(entry.name, entry.stat(follow_symlinks=False).st_size) for entry in entries if not entry.is_dir()],
        "dirs": [entry.name for entry in entries if entry.is_dir()],
    }


def file(call: Call) -> Response:
    path = call.query("path")
    if not path:
        raise refuse("Files view expect a path to the file.")
    found = _inside(call, path)
    if not found.is_file():
        return JSONResponse(f"File not found: file_path={path}", status_code=404)
    return file_as_it_is(found, mimetypes.guess_type(found.name)[0] or "application/octet-stream")


def _folder(call: Call) -> Path:
    folder = call.services.outputs(call.run)
    if folder is None:
        raise NotFound("The run has no outputs.")
    return folder


def _inside(call: Call, path: str) -> Path:
    """A path in the outputs; links are followed only as far as they stay inside."""
    folder = _folder(call).resolve()
    if "\0" in path:
        raise refuse("The path holds a zero byte.")
    found = (folder / path.lstrip("/")).resolve()
    if not found.is_relative_to(folder):
        raise refuse(f"`{path}` leads out of the outputs folder.")
    return found


class _Pipe(io.RawIOBase):
    """What is written to it is taken out again piece by piece: a tar is made and sent at the same time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self._parts.append(bytes(cast(bytes, data)))
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def _archive(folder: Path) -> Iterator[bytes]:
    pipe = _Pipe()
    with tarfile.open(fileobj=pipe, mode="w|gz", bufsize=_CHUNK) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or path.is_dir() or path.is_file():
                tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
                yield pipe.take()
    yield pipe.take()


_ONE = f"/api/v1/{{user}}/{{project}}/{Kind.JOB.plural}/{{id:int}}/outputs"
_GZIP = "application/gzip"
_PATH = (Query("path", "a path inside the outputs folder"),)

ENDPOINTS = [
    Endpoint("GET", _ONE, download, "Download the outputs of a job", media=_GZIP),
    Endpoint("GET", f"{_ONE}/download", download, "Download the outputs of a job", media=_GZIP),
    Endpoint("GET", f"{_ONE}/tree", tree, "List a folder of the outputs", answer=TreeItem, query=_PATH),
    Endpoint(
        "GET", f"{_ONE}/files", file, "Get one file of the outputs", media="application/octet-stream", query=_PATH
    ),
]
