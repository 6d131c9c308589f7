"""The content negotiation of the Python package index (PEP 691). Pure."""

from collections.abc import Iterator, Sequence

from starlette.exceptions import HTTPException

HTML = "text/html"
V1_HTML = "application/vnd.pypi.simple.v1+html"
V1_JSON = "application/vnd.pypi.simple.v1+json"
# the files of a page by content type; the first type wins where a client accepts several equally, as browsers, `curl`
# and old versions of pip do
FILES = {HTML: "index.html", V1_JSON: "index.json", V1_HTML: "index.html"}
_LATEST = {"application/vnd.pypi.simple.latest+html": V1_HTML, "application/vnd.pypi.simple.latest+json": V1_JSON}


def content_type(accepted: Sequence[str], requested: str | None) -> str:
    """The content type of a response, a key of `FILES`. Raises HTTPException 406: the client accepts none of them.

    `accepted`: the values of the `Accept` headers; without one the client accepts all types. `requested`: the query
    parameter `format`, which has precedence.
    """
    if requested is not None:
        wanted = _LATEST.get(requested.lower(), requested.lower())
        found = wanted if wanted in FILES else None
    else:
        found = _best(list(_ranges(accepted)))
    if found is None:
        message = f"This page exists as {', '.join(FILES)}; `Accept` or `format` names none of them."
        raise HTTPException(406, message, {"Vary": "Accept"})
    return found


def _best(ranges: Sequence[tuple[str, float]]) -> str | None:
    if not ranges:
        return HTML
    qualities = {media: _quality(media, ranges) for media in FILES}
    best = max(FILES, key=lambda media: qualities[media])  # the first of equal ones
    return best if qualities[best] > 0 else None


def _quality(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of a content type. The most specific range decides (RFC 9110, section 12.5.1)."""
    for pattern in (media, f"{media.partition('/')[0]}/*", "*/*"):
        found = [quality for named, quality in ranges if named == pattern]
        if found:
            return max(found)
    return 0.0


def _ranges(accepted: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Media ranges with their qualities. Parameters other than `q` are ignored: no type here has any."""
    for element in ",".join(accepted).split(","):
        named, *parameters = (part.strip().lower() for part in element.split(";"))
        if not named:
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _number(value.strip())
        yield _LATEST.get(named, named), quality


def _number(text: str) -> float:
    """A quality from 0 to 1. A malformed one counts as 0."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 <= number <= 1 else 0.0
