"""Bodies of requests: JSON and forms, within limits.

The event loop receives the bytes. Threads parse them, so that no other client waits for that.
"""

import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message as Received

from polylocal.text import bounded_json

MAX_BODY = 16 * 2**20  # bytes of a body that is not an upload
MAX_ANONYMOUS = 64 * 1024  # bytes of a body of an anonymous request
MAX_FIELDS = 1000  # of a form
MAX_FIELD = 2**20  # bytes of a field
_PIECE = 256 * 1024  # bytes of a form that a thread parses at a time
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")

Read = Callable[[], object]


def fields(form: FormData) -> object:
    """The values of a form by name; several of one name are a list."""
    return {name: values[0] if len(values) == 1 else values for name in form if (values := form.getlist(name))}


@asynccontextmanager
async def open_body(
    request: Request, limit: int = MAX_BODY, read_form: Callable[[FormData], object] = fields
) -> AsyncIterator[Read]:
    """A function that parses the body in a thread: JSON, a form by `read_form`, or `{}` for an empty body.

    Closes the files of a form at the end. Both functions raise HTTPException 400 or 413.
    """
    limited = _with_limit(request, limit)
    about = Message()
    about["content-type"] = request.headers.get("content-type", "")
    media = about.get_content_type()
    charset = about.get_param("charset", "utf-8")
    if str(charset).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPException(400, f"Bodies are read as UTF-8, not as {str(charset)[:40]!r}.")
    if media == "multipart/form-data":
        form = await _multipart(limited)
        try:
            yield lambda: read_form(form)
        finally:
            await form.close()
        return
    raw = await limited.body()
    yield (lambda: read_form(_urlencoded(raw))) if media in _FORMS else (lambda: _json(raw))


def _with_limit(request: Request, limit: int) -> Request:
    """The same request, refused as soon as more than `limit` bytes of its body are announced or received."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limit:
        size = int(length[:20])
        raise HTTPException(413, f"The body has {size} bytes ({_size(size)}), more than the limit of {_size(limit)}.")
    seen = 0

    async def receive() -> Received:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, f"The body has more than the limit of {_size(limit)}.")
        return message

    return Request(request.scope, receive)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.1f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:.1f} KiB"


def _json(raw: bytes) -> object:
    if not raw.strip():
        return {}
    try:
        return parse_json(raw.decode("utf-8-sig"))
    except ValueError as error:
        raise HTTPException(400, f"JSON parse error - {error}") from error


parse_json = bounded_json.load


def _urlencoded(raw: bytes) -> FormData:
    if raw.count(b"&") >= MAX_FIELDS:
        raise HTTPException(400, f"Too many fields. Maximum number of fields is {MAX_FIELDS}.")
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    if any(len(name) + len(value) > MAX_FIELD for name, value in pairs):
        raise HTTPException(400, f"Field exceeded maximum size of {MAX_FIELD // 1024}KB.")
    return FormData([*pairs])


async def _multipart(request: Request) -> FormData:
    """Parse the form in pieces, each in a thread. Raises HTTPException 400."""
    parser = _MultiPart(request)
    piece = bytearray()
    try:
        parser.begin()
        async for chunk in request.stream():
            piece += chunk
            if len(piece) >= _PIECE:
                await run_in_threadpool(parser.take, bytes(piece))
                piece.clear()
        await run_in_threadpool(parser.take, bytes(piece))
        return await run_in_threadpool(parser.end)
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    finally:
        parser.close()


class _MultiPart(MultiPartParser):
    """starlette's parser, driven from outside: its coroutine only ever waits for the next piece of the body."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.headers, self._pieces(), max_files=MAX_FIELDS, max_fields=MAX_FIELDS)
        self._work: Coroutine[Any, Any, FormData] = self.parse()

    def begin(self) -> None:
        self._work.send(None)

    def take(self, piece: bytes) -> None:
        if piece:
            self._work.send(piece)

    def end(self) -> FormData:
        try:
            self._work.send(b"")
        except StopIteration as end:
            form: FormData = end.value
            whole = {id(value.file) for _, value in form.multi_items() if isinstance(value, UploadFile)}
            for file in self._files_to_close_on_error:
                if id(file) not in whole:  # the body ended inside this file
                    file.close()
            return form
        raise RuntimeError("the parser of forms waits for more than the body has")

    def close(self) -> None:
        """Close the files of a body that was not read to its end. Idempotent."""
        self._work.close()

    async def _pieces(self) -> Any:
        while piece := await _next_piece():
            yield piece

    # files are written directly, since this is a thread already: starlette would use another one

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            super().on_part_data(data, start, end)
        else:
            self._current_part.file.file.write(data[start:end])

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is None:
            super().on_part_end()
        else:
            part.file.file.seek(0)
            self.items.append((part.field_name, part.file))


@types.coroutine
def _next_piece() -> Generator[None, bytes, bytes]:
    return (yield)
