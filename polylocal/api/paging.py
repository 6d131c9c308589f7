"""Pages of lists, with links to the next and the previous page."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import HTTPConnection

LIMIT = 20
_MOST = 2**31


def window(request: HTTPConnection, default: int = LIMIT) -> tuple[int, int]:
    """`limit` and `offset` of the query string. Values that are no numbers are ignored."""
    limit = number(request.query_params.get("limit"))
    return limit if limit else default, number(request.query_params.get("offset")) or 0


def envelope(request: HTTPConnection, count: int, results: Sequence[Any], default: int = LIMIT) -> dict[str, Any]:
    limit, offset = window(request, default)
    further = offset + limit < count
    back = max(0, offset - limit)
    return {
        "count": count,
        "next": _link(request, limit, offset + limit) if further else None,
        "previous": _link(request, limit, back) if offset > 0 else None,
        "results": list(results),
    }


def _link(request: HTTPConnection, limit: int, offset: int) -> str:
    parameters = [item for item in request.query_params.multi_items() if item[0] not in ("limit", "offset")]
    parameters += [("limit", str(limit)), *([("offset", str(offset))] if offset else [])]
    path = request.scope.get("polylocal.path") or request.url.path
    return (
        f"{request.url.scheme}://{request.url.netloc}{path}?{urlencode(sorted(parameters, key=lambda item: item[0]))}"
    )


def number(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(int(text[:12]), _MOST)
