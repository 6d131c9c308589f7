"""Responses whose body is an open file or the output of a program.

A file is opened first. Size, tag and bytes of the response belong to this one file, even if another file takes its name
or a program appends to it meanwhile.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from polylocal.api.worker_pools import stream

_CHUNK = 1 << 18  # bytes
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


class GeneratedResponse(StreamingResponse):
    """Streams the output of a program or thread while it is produced. The program runs as long as the client reads."""

    def __init__(self, pieces: Iterator[bytes], *arguments: Any, **more: Any) -> None:
        """The further arguments are those of StreamingResponse."""
        super().__init__(stream(pieces, of_program=True), *arguments, **more)


class OpenFileResponse(StreamingResponse):
    """Sends `size` bytes of an open file from its position on, and closes it."""

    def __init__(self, file: BinaryIO, size: int, media: str, headers: Mapping[str, str], status: int = 200) -> None:
        super().__init__(stream(_pieces(file, size)), status, {**headers, "Content-Length": str(size)}, media)
        self.file = file
        self.size = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope.get("method") == "HEAD":
                await Response(status_code=self.status_code, headers=dict(self.headers))(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            self.file.close()


def growing_file(path: Path, media: str) -> OpenFileResponse:
    """A file that may be growing, up to its present end. Raises OSError."""
    return attachment(path.open("rb"), path.name, media)


def attachment(file: BinaryIO, name: str, media: str) -> OpenFileResponse:
    """The rest of an open file, as an attachment of this name."""
    plain = name.isascii() and name.isprintable() and not set(name) & set('"\\')
    shown = f'filename="{name}"' if plain else f"filename*=utf-8''{quote(os.fsencode(name))}"
    return OpenFileResponse(file, _rest(file), media, {"Content-Disposition": f"attachment; {shown}"})


def cacheable_file(file: BinaryIO, media: str, variant: str = "") -> OpenFileResponse:
    """The rest of an open file. A file that replaces it under the same name has another tag.

    `variant`: a part of the tag, for a file that is served as several content types. There is no `Last-Modified`, since
    two publications within one second would share it.
    """
    about = os.fstat(file.fileno())
    tag = f'"{about.st_ino:x}-{about.st_mtime_ns:x}-{about.st_size:x}{variant}"'
    return OpenFileResponse(file, _rest(file), media, {"ETag": tag, "Accept-Ranges": "bytes"})


def requested_range(answer: OpenFileResponse, wanted: str | None, only_if: str | None) -> Response:
    """The requested range of bytes (RFC 9110, section 14), or the whole file without one.

    `wanted`: the header `Range`. `only_if`: the header `If-Range`; a tag other than the answer's means the whole file.
    """
    span = _span(wanted or "", answer.size)
    if span is None or (only_if is not None and only_if != answer.headers.get("etag")):
        return answer
    begin, end = span
    headers = {name: answer.headers[name] for name in answer.headers if name not in ("content-length", "content-type")}
    if begin >= end:
        answer.file.close()
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{answer.size}"})
    answer.file.seek(begin, os.SEEK_CUR)
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{answer.size}"
    return OpenFileResponse(answer.file, end - begin, answer.headers["content-type"], headers, status=206)


def _span(wanted: str, size: int) -> tuple[int, int] | None:
    """The first byte of the range and the one after its last; the range is empty if the first is not less.

    None: there is no range, or several, which a server may ignore.
    """
    found = _RANGE.fullmatch(wanted.replace(" ", ""))
    if found is None:
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if not last:
        return int(first), size
    return (int(first), min(size, int(last) + 1)) if int(first) <= int(last) else None


def _rest(file: BinaryIO) -> int:
    return max(0, os.fstat(file.fileno()).st_size - file.tell())


def _pieces(file: BinaryIO, left: int) -> Iterator[bytes]:
    with file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk
