"""Bodies as they come: JSON, forms, and never more of either than is taken."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message
from typing import Any, NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message as Received

MAX_BODY = 16 * 2**20  # bytes of a body that is not an upload
MAX_ANONYMOUS = 64 * 1024  # of one whose sender nobody knows yet


@asynccontextmanager
async def body(request: Request, limit: int = MAX_BODY) -> AsyncIterator[object]:
    """JSON, a form, or nothing: `{}`. The files of a form are closed at the end. Raises HTTPException: 400, 413."""
    limited = _limited(request, limit)
    about = Message()
    about["content-type"] = request.headers.get("content-type", "")
    media = about.get_content_type()
    charset = about.get_param("charset", "utf-8")
    if str(charset).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPException(400, f"Bodies are read as UTF-8, not as {str(charset)[:40]!r}.")
    if media not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        yield _json(await limited.body())
        return
    async with limited.form() as form:
        yield {name: values[0] if len(values) == 1 else values for name in form if (values := form.getlist(name))}


def _limited(request: Request, limit: int) -> Request:
    """The same request, refused as soon as more than `limit` bytes of a body are announced or come."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limit:
        raise HTTPException(413, f"The body has {length[:20]} bytes, more than the {limit} that are taken here.")
    seen = 0

    async def receive() -> Received:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, f"The body has more than the {limit} bytes that are taken here.")
        return message

    return Request(request.scope, receive)


def _json(raw: bytes) -> object:
    if not raw.strip():
        return {}
    try:
        return parsed(raw.decode("utf-8-sig"))
    except ValueError as error:
        raise HTTPException(400, f"JSON parse error - {error}") from error


def parsed(text: str) -> Any:
    """What a JSON text says. Raises ValueError, also for what could not be kept: NaN, halves of characters."""
    try:
        data = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("too many brackets in each other") from error
    return data


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _refuse(word)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number that can be kept")
