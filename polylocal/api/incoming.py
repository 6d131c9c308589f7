"""Bodies as they come: JSON, forms, and never more of either than is taken."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

MAX_BODY = 16 * 2**20  # bytes of a body that is not an upload


@asynccontextmanager
async def body(request: Request, limit: int = MAX_BODY) -> AsyncIterator[object]:
    """JSON, a form, or nothing: `{}`. The files of a form are closed at the end. Raises HTTPException: 400, 413."""
    limited = _limited(request, limit)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
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

    async def receive() -> Message:
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
        data = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
        if b"\\u" in raw:
            json.dumps(data, ensure_ascii=False).encode()  # halves of characters can't be kept
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"JSON parse error - {error}") from error
    return data


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _refuse(word)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number that can be kept")
