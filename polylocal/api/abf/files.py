"""Files of the file store by their sha1, and the repositories that package managers install from."""

import hashlib
import html
import mimetypes
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, Response

from polylocal.api.abf import shapes, simple_index
from polylocal.api.abf.calls import AbfCall, Endpoint, failure, json_response
from polylocal.api.abf.values import Json
from polylocal.api.file_responses import OpenFileResponse, cacheable_file, growing_file, requested_range
from polylocal.api.index_readers import IndexReaders
from polylocal.errors import NotAllowed, NotAuthenticated, NotFound
from polylocal.packages import repositories
from polylocal.packages.file_store import GUARD
from polylocal.store import Store

_MAX_NAME, _MAX_PATH = 255, 2048  # bytes
_TEXTS = (".log", ".txt", ".list", ".md5sum")
_MAX_TRIES = 5  # attempts to read a path: a publication may replace it meanwhile


def show(call: AbfCall) -> Response:
    """A file by its sha1, with or without `.log`. Results of hidden projects are for the readers of the project."""
    sha1 = call.parameter("sha1").removesuffix(".log")
    found = call.store.files.get(sha1)
    path = call.context.file_store.path(sha1)
    if path is None:
        raise NotFound
    if not call.store.files.may_read(sha1, call.user_or_none):
        if call.user_or_none is None:
            raise NotAuthenticated
        raise NotAllowed
    is_text = found.file_name.endswith(_TEXTS) or call.parameter("sha1").endswith(".log")
    try:
        response = growing_file(path, "text/plain; charset=utf-8" if is_text else "application/octet-stream")
    except FileNotFoundError as error:  # it was removed since
        raise NotFound from error
    response.headers["ETag"] = f'"{sha1}"'
    kind = "inline" if is_text else "attachment"
    response.headers["Content-Disposition"] = f"{kind}; filename*=utf-8''{quote(os.fsencode(found.file_name))}"
    return response


def find(call: AbfCall) -> list[Json]:
    sha1 = (call.query("hash") or "").lower()
    try:
        found = call.store.files.get(sha1)
    except NotFound:
        return []
    if not call.store.files.may_read(sha1, call.user):
        return []
    user = call.store.users.by_id(found.user_id) if found.user_id else None
    return [shapes.stored_file(found, user)]


def upload(call: AbfCall) -> Response:
    part = call.section("file_store").get("file")
    if not isinstance(part, UploadFile):
        return failure("file_store", "File has not been show", "File can't be blank")
    call.context.check_room()
    staged = call.context.file_store.stage(part.file)
    with GUARD:
        stored = call.context.file_store.commit(staged)
        call.store.files.add(stored.sha1, part.filename or stored.sha1, stored.size, call.user)
    return json_response({"sha1_hash": stored.sha1}, 201)


def download(call: AbfCall) -> Response:
    """A file or a folder of a repository. Open platforms need no credentials."""
    path = call.request.path_params.get("path", "")
    if len(os.fsencode(path)) > _MAX_PATH:
        raise NotFound
    parts = [part for part in path.split("/") if part not in ("", ".")]  # apt asks for `release/./Packages`
    # no unfinished files, no `..`, no names that no file can have
    if any(part.startswith(".") or "\0" in part or len(os.fsencode(part)) > _MAX_NAME for part in parts):
        raise NotFound
    root = call.context.home.downloads
    if parts:
        _check_rights(call, parts[0])
    else:
        root.mkdir(parents=True, exist_ok=True)  # nothing was published yet
    target = root.joinpath(*parts)
    readers, client = call.context.index_readers, call.request.client.host if call.request.client else ""
    response = _first_existing(call, _signatures(readers, client, target)) or _read_current(call, target, parts)
    if target.match(repositories.REPOMD) and isinstance(response, OpenFileResponse) and response.status_code == 200:
        readers.remember(client, target, hashlib.sha256(response.file.read()).hexdigest())
        response.file.seek(0)
    return response


def _check_rights(call: AbfCall, platform_name: str) -> None:
    platform = call.store.platforms.by_name(platform_name)
    if not platform.is_open and call.user_or_none is None:
        raise NotAuthenticated
    if not platform.is_open:
        call.require(call.may_see(platform))


def _read_current(call: AbfCall, target: Path, parts: list[str]) -> Response:
    """The response from one publication, even if others replace it meanwhile. Raises NotFound."""
    for _ in range(_MAX_TRIES):
        path = target.resolve()  # in the folder of one publication
        try:
            found = _respond(call, path, parts)
        except (FileNotFoundError, NotADirectoryError):
            if target.resolve() == path:
                break
        else:
            if isinstance(found, OpenFileResponse) or target.resolve() == path:
                return found  # the list of a replaced folder may lack files that are removed already
    else:
        raise NotFound
    if earlier := _first_existing(call, repositories.leftovers(target)):
        return earlier
    raise NotFound


def _respond(call: AbfCall, path: Path, parts: list[str]) -> Response:
    """A file, or the page of a folder: its `index.html`, or a list of its entries.

    Raises FileNotFoundError, NotADirectoryError: the path does not exist, or a publication removed it just now.
    """
    try:
        return _file(call, path)
    except IsADirectoryError:
        pass
    requested: str = call.request.scope["polylocal.path"]
    if not requested.endswith("/"):  # links in the page are relative to it
        return RedirectResponse(f"{quote(call.request.scope['path'])}/", 301)  # two slashes would name a host
    with os.scandir(path) as found:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in found if entry.name[0] != ".")
    if "index.json" in names and "index.html" in names:
        return _negotiate(call, path)
    if "index.html" in names:
        return _file(call, path / "index.html")
    if not parts:
        names = [name for name in names if _is_open(name.rstrip("/"), call.store)]
    title = html.escape("/".join(["downloads", *parts]))
    links = "".join(f'<a href="{quote(name)}">{html.escape(name)}</a><br>\n' for name in names)
    return HTMLResponse(f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>\n{links}</body></html>\n")


def _signatures(readers: IndexReaders, client: str, target: Path) -> Sequence[Path]:
    """The possible paths of the signature of the `repomd.xml` that this client read, perhaps before a publication."""
    digest = readers.recall(client, target.with_suffix("")) if target.match(repositories.REPOMD_SIGNATURE) else None
    if digest is None:
        return ()
    signature = target.parent.parent / repositories.signature_path(digest)
    return signature, *repositories.leftovers(signature)


def _first_existing(call: AbfCall, paths: Iterable[Path]) -> Response | None:
    """The first of the files that exists."""
    for path in paths:
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return _file(call, path)
    return None


def _negotiate(call: AbfCall, folder: Path) -> Response:
    """A page of an index in HTML or JSON, as the client accepts. Raises OSError, HTTPException 406."""
    media = simple_index.content_type(call.request.headers.getlist("accept"), call.query("format"))
    response = _file(call, folder / simple_index.FILES[media], media)
    response.headers["Vary"] = "Accept"
    return response


def _file(call: AbfCall, path: Path, media: str | None = None) -> Response:
    """`media`: the negotiated content type; None: by the name of the file. Raises OSError."""
    variant = f"-{media}" if media else ""
    media = media or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    answer = cacheable_file(path.open("rb"), media, variant)
    return requested_range(answer, call.request.headers.get("range"), call.request.headers.get("if-range"))


def _is_open(platform: str, store: Store) -> bool:
    try:
        return store.platforms.by_name(platform).is_open
    except NotFound:
        return False


_STORE, _UPLOAD, _DOWNLOADS = "/api/v1/file_stores", "/api/v1/upload", "/downloads"
_PATH = f"{_DOWNLOADS}/{{path:path}}"
_anonymous = partial(Endpoint, "GET", is_anonymous=True)

ENDPOINTS = [
    Endpoint("GET", _STORE, find, "Find a file by its sha1: `hash=`", "any user"),
    _anonymous(f"{_STORE}/{{sha1}}", show, "Get a file", "anyone; files of a hidden project: its readers"),
    Endpoint("POST", _UPLOAD, upload, "Store a file: the part `file_store[file]`", "any user", is_upload=True),
    _anonymous(_PATH, download, "Repositories and containers", "anyone; a hidden platform: its owner"),
    _anonymous(_DOWNLOADS, download, "The platforms", "anyone"),
]
