"""What runs kept: as one archive, as a tree, file by file."""

from __future__ import annotations

import mimetypes
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from starlette.responses import JSONResponse, Response, StreamingResponse

from polylocal.api.endpoint import Call, Endpoint, Query, file_as_it_is, refuse
from polylocal.api.resources.runs import TreeItem
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
    folders = {entry.name for entry in entries if _is_folder(entry)}
    return {
        "files": [
            (_shown(entry.name), entry.stat(follow_symlinks=False).st_size)
            for entry in entries
            if entry.name not in folders
        ],
        "dirs": [_shown(name) for name in sorted(folders)],
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
    try:
        found = (folder / path.lstrip("/")).resolve()
        found.exists()
    except (OSError, RuntimeError) as error:  # names that are too long, links to themselves
        raise refuse(f"`{path:.100}` can't be a path in the outputs folder.") from error
    if not found.is_relative_to(folder):
        raise refuse(f"`{path}` leads out of the outputs folder.")
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _shown(name: str) -> str:
    """A name that need not be UTF-8, as text."""
    return os.fsencode(name).decode(errors="replace")


def _archive(folder: Path) -> Iterator[bytes]:
    """The tar is written on a thread of its own into a pipe: of a large file only some pieces are in memory."""
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write_archive, args=(folder, writing), name="archive", daemon=True)
    writer.start()
    with open(reading, "rb", buffering=0) as pipe:  # closed early, it ends the writer
        while chunk := pipe.read(_CHUNK):
            yield chunk
    writer.join()


def _write_archive(folder: Path, to: int) -> None:
    with suppress(BrokenPipeError), open(to, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|gz") as tar:
        for path in sorted(folder.rglob("*")):
            with suppress(FileNotFoundError):  # a running program may take its files away again
                if path.is_symlink() or path.is_dir() or path.is_file():
                    tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)


_GZIP = "application/gzip"
_PATH = (Query("path", "a path inside the outputs folder"),)


def _endpoints(kind: Kind) -> list[Endpoint]:
    one = f"/api/v1/{{user}}/{{project}}/{kind.plural}/{{id:id}}/outputs"
    media = "application/octet-stream"
    return [
        Endpoint("GET", one, download, f"Download the outputs of a {kind}", media=_GZIP),
        Endpoint("GET", f"{one}/download", download, f"Download the outputs of a {kind}", media=_GZIP),
        Endpoint("GET", f"{one}/tree", tree, "List a folder of the outputs", answer=TreeItem, query=_PATH),
        Endpoint("GET", f"{one}/files", file, "Get one file of the outputs", media=media, query=_PATH),
    ]


ENDPOINTS = [*_endpoints(Kind.JOB), *_endpoints(Kind.EXPERIMENT)]
