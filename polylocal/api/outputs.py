"""The outputs of runs: as one archive, as a tree, and file by file."""

import itertools
import mimetypes
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from starlette.responses import JSONResponse, Response

from polylocal.api.endpoint import Call, Endpoint, Query, refusal, run_path
from polylocal.api.file_responses import GeneratedResponse, attachment
from polylocal.api.kinds import kinds_with, with_article
from polylocal.api.shapes.runs import TreeItem
from polylocal.errors import NotFound
from polylocal.files import folders
from polylocal.files.archives import Archive
from polylocal.statuses import Kind

MAX_LISTED = 100_000  # entries of one folder in one answer
_CHUNK = 1 << 18


def download(call: Call) -> Response:
    """All outputs as tar.gz, generated while it is sent. Names are relative to the outputs folder."""
    folder = _outputs_folder(call)
    if not folder.is_dir():
        raise NotFound("The run has no outputs.")
    name = f"{call.run.unique_name.replace('.', '_')}.tar.gz"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return GeneratedResponse(_archive(folder), headers=headers, media_type=_GZIP)


def tree(call: Call) -> TreeItem:
    path, top = call.query("path") or "", _outputs_folder(call)
    missing = refusal(f"There is no folder `{path:.100}` in the outputs.")
    try:
        opened = _open(top, path)
    except OSError as error:
        raise missing from error
    with folders.closing(opened):
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            raise missing
        found = list(itertools.islice(folders.entries(opened), MAX_LISTED + 1))
    if len(found) > MAX_LISTED:
        raise refusal(f"The folder has more than {MAX_LISTED} entries: download the outputs to see them.")
    inside = {name for name, about in found if _is_folder(top, f"{path}/{name}", about)}
    return {
        "files": [(_as_text(name), about.st_size) for name, about in found if name not in inside],
        "dirs": [_as_text(name) for name in sorted(inside)],
    }


def file(call: Call) -> Response:
    path = call.query("path")
    if not path:
        raise refusal("Files view expect a path to the file.")
    try:
        opened = _open(_outputs_folder(call), path)
    except OSError:
        return _file_not_found(path)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        return _file_not_found(path)
    name = path.rstrip("/").rpartition("/")[2]
    return attachment(open(opened, "rb"), name, mimetypes.guess_type(name)[0] or "application/octet-stream")


def _file_not_found(path: str) -> Response:
    return JSONResponse(f"File not found: file_path={path}", status_code=404)


def _outputs_folder(call: Call) -> Path:
    """The outputs folder of the run. Raises NotFound."""
    if call.run.outputs is None:
        raise NotFound("The run has no outputs.")
    return call.context.outputs_path(call.run)


def _open(folder: Path, path: str) -> int:
    """Open a path in the outputs. Links are followed inside the folder only. Raises OSError, InvalidInput."""
    if "\0" in path:
        raise refusal("The path contains a NUL byte.")
    try:
        return folders.open_inside(folder, path)
    except folders.LeadsOut as error:
        raise refusal(f"`{path:.100}` leads out of the outputs folder.") from error
    except UnicodeEncodeError as error:
        raise refusal("The path contains an incomplete character.") from error


def _is_folder(top: Path, path: str, about: os.stat_result) -> bool:
    """Whether an entry is a folder, or a link to a folder inside the outputs."""
    if not stat.S_ISLNK(about.st_mode):
        return stat.S_ISDIR(about.st_mode)
    with suppress(OSError, folders.LeadsOut), folders.closing(folders.open_inside(top, path)) as opened:
        return stat.S_ISDIR(os.fstat(opened).st_mode)
    return False


def _as_text(name: str) -> str:
    """A name as text; bytes that are not UTF-8 are replaced."""
    return os.fsencode(name).decode(errors="replace")


def _archive(folder: Path) -> Iterator[bytes]:
    """The archive in chunks. A thread writes it into a pipe, so large files are never in memory as a whole."""
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write_archive, args=(folder, writing), name="archive", daemon=True)
    writer.start()
    with open(reading, "rb", buffering=0) as pipe:  # if the client disconnects, the closed pipe ends the thread
        while chunk := pipe.read(_CHUNK):
            yield chunk
    writer.join()


def _write_archive(folder: Path, to: int) -> None:
    with suppress(BrokenPipeError), open(to, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|gz") as tar:
        archive = Archive(tar, with_owners=True)
        for entry in folders.walk(folder):
            archive.add(entry, entry.path, entry.path)


_GZIP = "application/gzip"
_PATH = (Query("path", "a path inside the outputs folder"),)


def _endpoints(kind: Kind) -> list[Endpoint]:
    one = f"{run_path(kind)}/outputs"
    media = "application/octet-stream"
    return [
        Endpoint("GET", one, download, f"Download the outputs of {with_article(kind)}", media=_GZIP),
        Endpoint("GET", f"{one}/download", download, f"Download the outputs of {with_article(kind)}", media=_GZIP),
        Endpoint("GET", f"{one}/tree", tree, "List a folder of the outputs", answer=TreeItem, query=_PATH),
        Endpoint("GET", f"{one}/files", file, "Get one file of the outputs", media=media, query=_PATH),
    ]


ENDPOINTS = [endpoint for kind in kinds_with("has_outputs") for endpoint in _endpoints(kind)]
