"""The headers that pass between a browser and the program of a notebook or tensorboard: two allow-lists. Pure.

A program's response is untrusted: a header that logs the user out (`Clear-Site-Data`), widens the scope of a service
worker (`Service-Worker-Allowed`) or names an address for reports has effects beyond the page. A browser's request
carries the user's credentials. So only headers that pages need are passed on, in both directions.
"""

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
# prefixes of headers between a page and its program
_REQUEST_FAMILIES = ("x-", "sec-fetch-", "sec-ch-")
_ANSWER_FAMILIES = ("x-",)
# exceptions: headers of proxies about the client, headers for the API, and headers to browsers about the whole host
_NOT_REQUESTED = ("x-forwarded", "x-real-ip", "x-original", "x-rewrite", "x-polyaxon", "x-polylocal", "x-http-method")
_NOT_ANSWERED = ("x-accel", "x-sendfile", "x-frame-options", "x-content-type-options", "x-permitted", "x-dns-prefetch")
# only pages of the same origin may frame a program's page, and browsers don't guess content types
_ADDED = [(b"content-security-policy", b"frame-ancestors 'self'"), (b"x-content-type-options", b"nosniff")]


def request_headers(headers: Iterable[tuple[str, str]], our_cookies: Collection[str]) -> list[tuple[str, str]]:
    """The headers of a request that a program gets, without credentials of the user."""
    passed = []
    for name, value in headers:
        name = name.lower()
        if name == "cookie":
            if kept := _other_cookies(value, our_cookies):
                passed.append((name, kept))
        elif _passes(name, _REQUEST, _REQUEST_FAMILIES, _NOT_REQUESTED):
            passed.append((name, value))
    return passed


def response_headers(headers: RawHeaders, our_cookies: Collection[str], path: str = "/") -> RawHeaders:
    """The headers of a program's response that a browser gets, and those that we add.

    `path` limits the program's cookies: `/` where the host is the program's own.
    """
    passed: RawHeaders = []
    for name, value in headers:
        name = name.lower()
        if name == b"set-cookie":
            if cookie := limited_cookie(value, our_cookies, path):
                passed.append((name, cookie))
        elif _passes(name.decode("latin-1"), _ANSWER, _ANSWER_FAMILIES, _NOT_ANSWERED):
            passed.append((name, value))
    return [*passed, *_ADDED]


def limited_cookie(value: bytes, our_cookies: Collection[str], path: str = "/") -> bytes | None:
    """A program's `Set-Cookie`, limited to its own host; None: it has the name of one of our cookies.

    Removes `Domain`, which would send the cookie to other hosts, and a `Path` outside of `path`.
    """
    pair, *attributes = value.split(b";")
    # browsers ignore blanks, and a cookie without a name is sent as its value alone
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
