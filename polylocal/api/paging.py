"""Pages of lists, with links to the next and the previous page."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import HTTPConnection

Row = TypeVar("Row")

LIMIT = 20
_MAX_NUMBER = 2**31


def window(request: HTTPConnection, default: int = LIMIT) -> tuple[int, int]:
    """`limit` and `offset` of the query string. Values that are not numbers are ignored."""
    limit = number(request.query_params.get("limit"))
    return limit if limit else default, number(request.query_params.get("offset")) or 0


def page(
    request: HTTPConnection,
    find: Callable[..., tuple[int, Sequence[Row]]],
    shape: Callable[[Row], Any],
    default: int = LIMIT,
) -> dict[str, Any]:
    """The requested page. `find` takes `limit` and `offset`, and returns the count of all rows and the page."""
    limit, offset = window(request, default)
    count, rows = find(limit=limit, offset=offset)
    return envelope(request, count, [shape(row) for row in rows], default)


def envelope(request: HTTPConnection, count: int, results: Sequence[Any], default: int = LIMIT) -> dict[str, Any]:
    """A page of results with its links. `count`: of all results."""
    limit, offset = window(request, default)
    further = offset + limit < count
    return {
        "count": count,
        "next": _link(request, limit, offset + limit) if further else None,
        "previous": _link(request, limit, max(0, offset - limit)) if offset > 0 else None,
        "results": list(results),
    }


def _link(request: HTTPConnection, limit: int, offset: int) -> str:
    parameters = [item for item in request.query_params.multi_items() if item[0] not in ("limit", "offset")]
    parameters += [("limit", str(limit)), *([("offset", str(offset))] if offset else [])]
    path = request.scope.get("polylocal.path") or request.url.path
    query = urlencode(sorted(parameters, key=lambda item: item[0]))
    return f"{request.url.scheme}://{request.url.netloc}{path}?{query}"


def number(text: str | None) -> int | None:
    """The number that a text is, at most 2³¹; None: it is not a number."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(int(text[:12]), _MAX_NUMBER)
