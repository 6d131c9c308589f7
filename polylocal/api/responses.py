"""JSON responses."""

import json
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response

_AT_ONCE = 500  # results: the encoder holds the interpreter's lock meanwhile


def json_response(content: object, status: int = 200) -> Response:
    """A `JSONResponse`. Encodes a long list in parts, so that other threads run in between."""
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(results, list) or len(results) <= _AT_ONCE:
        return JSONResponse(content, status_code=status)
    begin = _encode({**content, "results": []}).removesuffix("]}").encode()  # `results` is the last key of every page
    return Response(begin + b",".join(_parts(results)) + b"]}", status, None, "application/json")


def _parts(results: list[Any]) -> Iterator[bytes]:
    for start in range(0, len(results), _AT_ONCE):
        yield _encode(results[start : start + _AT_ONCE])[1:-1].encode()


def _encode(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
