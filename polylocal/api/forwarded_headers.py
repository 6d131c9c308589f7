"""The headers that pass between a browser and the program of a notebook or tensorboard: two allow-lists. Pure.

A program's answer is a stranger's: a header that logs a person out (`Clear-Site-Data`), widens the reach of a service
worker (`Service-Worker-Allowed`), or names a place for reports has effects beyond the page. A browser's request carries
what says who the person is. So only the headers that pages need are passed on, in both directions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

RawHeaders = list[tuple[bytes, bytes]]

_REQUEST = frozenset(
    "accept accept-encoding accept-language cache-control content-disposition content-encoding content-language"
    " content-length content-type date dnt if-match if-modified-since if-none-match if-range if-unmodified-since"
    " last-event-id max-forwards origin pragma prefer priority range referer save-data"
    " upgrade-insecure-requests user-agent".split()
)
_ANSWER = frozenset(
    "accept-ranges age allow cache-control content-disposition content-encoding content-language content-length"
    " content-location content-range content-security-policy content-security-policy-report-only content-type"
    " cross-origin-embedder-policy cross-origin-opener-policy cross-origin-resource-policy date deprecation etag"
    " expires last-modified location permissions-policy pragma preference-applied priority referrer-policy refresh"
    " retry-after server server-timing sourcemap timing-allow-origin vary".split()
)
# families that are the business of a page and its program
_REQUEST_FAMILIES = ("x-", "sec-fetch-", "sec-ch-")
_ANSWER_FAMILIES = ("x-",)
# of those families: a proxy's words about the client, words for the API, and words to browsers about the whole host
_NOT_REQUESTED = ("x-forwarded", "x-real-ip", "x-original", "x-rewrite", "x-polyaxon", "x-polylocal", "x-http-method")
_NOT_ANSWERED = ("x-accel", "x-sendfile", "x-frame-options", "x-content-type-options", "x-permitted", "x-dns-prefetch")
# the page of a program may be framed by its own pages, and nobody guesses what its files are
_ADDED = [(b"content-security-policy", b"frame-ancestors 'self'"), (b"x-content-type-options", b"nosniff")]


def of_request(headers: Iterable[tuple[str, str]], our_cookies: Collection[str]) -> list[tuple[str, str]]:
    """What a program may know of a request: nothing that says who the person is."""
    passed = []
    for name, value in headers:
        name = name.lower()
        if name == "cookie":
            if kept := _other_cookies(value, our_cookies):
                passed.append((name, kept))
        elif _passes(name, _REQUEST, _REQUEST_FAMILIES, _NOT_REQUESTED):
            passed.append((name, value))
    return passed


def of_answer(headers: Iterable[tuple[bytes, bytes]], our_cookies: Collection[str], path: str = "/") -> RawHeaders:
    """What a browser may be told by a program, and what is said for it.

    `path`: the program's cookies reach no path outside of it; `/` where the host is the program's own.
    """
    passed: RawHeaders = []
    for name, value in headers:
        name = name.lower()
        if name == b"set-cookie":
            if cookie := own_cookie(value, our_cookies, path):
                passed.append((name, cookie))
        elif _passes(name.decode("latin-1"), _ANSWER, _ANSWER_FAMILIES, _NOT_ANSWERED):
            passed.append((name, value))
    return [*passed, *_ADDED]


def own_cookie(value: bytes, our_cookies: Collection[str], path: str = "/") -> bytes | None:
    """A program's `Set-Cookie` for its own host alone; None: it has the name of one of ours.

    `Domain` would hand it to other hosts, so it is left out; `Path` is kept inside `path`.
    """
    pair, *attributes = value.split(b";")
    # browsers leave out blanks, and where nothing stands before the `=` they send what stands behind it
    named = pair.lstrip(b"= \t").partition(b"=")[0].strip().decode("latin-1")
    if named in our_cookies:
        return None
    kept, inside = [pair], path == "/"
    for attribute in attributes:
        word, _, given = (part.strip() for part in attribute.partition(b"="))
        if word.lower() == b"domain":
            continue
        if word.lower() == b"path" and path != "/":
            if not (given.decode("latin-1") + "/").startswith(path.rstrip("/") + "/"):
                continue
            inside = True
        kept.append(attribute)
    return b";".join(kept if inside else [*kept, b" Path=" + path.encode()])


def _other_cookies(value: str, our_cookies: Collection[str]) -> str:
    cookies = [part.strip() for part in value.split(";")]
    return "; ".join(part for part in cookies if part and part.partition("=")[0].strip() not in our_cookies)


def _passes(name: str, names: Collection[str], families: tuple[str, ...], not_of_them: tuple[str, ...]) -> bool:
    return name in names or (name.startswith(families) and not name.startswith(not_of_them))
