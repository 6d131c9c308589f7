"""The headers that pass between a browser and a program."""

from __future__ import annotations

import pytest

from polylocal.api.forwarded_headers import limited_cookie, request_headers, response_headers

OURS = frozenset({"polylocal_session", "user"})


def answered(name: str, value: str = "x") -> str | None:
    """The header that the browser receives for one header of a program."""
    found = response_headers([(name.encode(), value.encode())], OURS)[:-2]
    return found[0][1].decode() if found else None


def asked(name: str, value: str = "x") -> str | None:
    found = request_headers([(name, value)], OURS)
    return found[0][1] if found else None


@pytest.mark.parametrize(
    "name",
    [
        *("Clear-Site-Data", "Service-Worker-Allowed", "WWW-Authenticate", "Strict-Transport-Security", "Alt-Svc"),
        *("Report-To", "NEL", "Reporting-Endpoints", "Accept-CH", "Critical-CH", "Access-Control-Allow-Origin"),
        *("Access-Control-Allow-Credentials", "Set-Cookie2", "Public-Key-Pins", "Connection", "Transfer-Encoding"),
        *("Proxy-Authenticate", "Upgrade", "Keep-Alive", "Trailer", "Link", "X-Accel-Redirect", "X-Frame-Options"),
        *("Origin-Agent-Cluster", "Speculation-Rules", "Set-Login", "X-Content-Type-Options", "Something-New"),
    ],
)
def test_headers_that_are_hidden_from_the_browser(name: str) -> None:
    assert answered(name) is None
    assert answered(name.lower()) is None


@pytest.mark.parametrize(
    "name",
    [
        *("Content-Type", "Content-Length", "Content-Encoding", "Content-Disposition", "ETag", "Last-Modified", "Vary"),
        *("Location", "Cache-Control", "Accept-Ranges", "Content-Range", "Content-Security-Policy", "Retry-After"),
        *("X-Jupyter-Thing", "Date", "Allow"),
    ],
)
def test_headers_that_pass_from_a_program(name: str) -> None:
    assert answered(name) == "x"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Authorization",
            "Proxy-Authorization",
            "Host",
            "Connection",
            "Upgrade",
            "TE",
            "X-Forwarded-For",
            "Forwarded",
        ),
        *("X-Forwarded-Host", "X-Real-IP", "X-Polyaxon-Internal", "X-HTTP-Method-Override", "Via", "Cookie2", "Expect"),
        *("Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Transfer-Encoding"),
    ],
)
def test_headers_that_are_hidden_from_a_program(name: str) -> None:
    assert asked(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *("Accept", "Accept-Language", "Content-Type", "Content-Length", "If-None-Match", "Range", "Origin", "Referer"),
        *("X-XSRFToken", "X-Requested-With", "X-TensorBoard-Feature-Flags", "Sec-Fetch-Mode", "User-Agent"),
    ],
)
def test_headers_that_pass_to_a_program(name: str) -> None:
    assert asked(name) == "x"


def test_every_answer_allows_framing_by_its_own_origin_only_and_no_sniffing() -> None:
    assert response_headers([], OURS) == [
        (b"content-security-policy", b"frame-ancestors 'self'"),
        (b"x-content-type-options", b"nosniff"),
    ]


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        ("_xsrf=2|a; Path=/; HttpOnly", "_xsrf=2|a; Path=/; HttpOnly"),
        ("a=b; Domain=localhost; Path=/x", "a=b; Path=/x"),
        ("a=b; dOmAiN = .127.0.0.1", "a=b"),
        ("a=b;domain=localhost;Secure;SameSite=None", "a=b;Secure;SameSite=None"),
        ("users=1", "users=1"),
    ],
)
def test_a_cookie_is_for_its_own_host(cookie: str, kept: str) -> None:
    found = limited_cookie(cookie.encode(), OURS)
    assert found is not None
    assert found.decode() == kept


@pytest.mark.parametrize(
    "cookie", ["user=x", " user =x; Path=/", "=user=x", "polylocal_session", "polylocal_session\t= y", "\tuser=x"]
)
def test_a_cookie_with_a_name_of_ours_is_left_out(cookie: str) -> None:
    assert limited_cookie(cookie.encode(), OURS) is None


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        ("a=b", "a=b; Path=/notebook/u/p/"),
        ("a=b; Path=/", "a=b; Path=/notebook/u/p/"),
        ("a=b; path=/notebook/u/other/", "a=b; Path=/notebook/u/p/"),
        ("a=b; Path=/notebook/u/pp", "a=b; Path=/notebook/u/p/"),
        ("a=b; Path=/notebook/u/p", "a=b; Path=/notebook/u/p"),
        ("a=b; Path=/notebook/u/p/api; Secure", "a=b; Path=/notebook/u/p/api; Secure"),
    ],
)
def test_a_cookie_stays_below_the_page_where_pages_share_a_host(cookie: str, kept: str) -> None:
    found = limited_cookie(cookie.encode(), OURS, "/notebook/u/p/")
    assert found is not None
    assert found.decode() == kept


def test_cookies_of_ours_reach_no_program() -> None:
    line = "polylocal_session=s; a=b; user=root;  c=d=e ; user =x"
    assert request_headers([("Cookie", line)], OURS) == [("cookie", "a=b; c=d=e")]
    assert request_headers([("Cookie", "user=root")], OURS) == []
