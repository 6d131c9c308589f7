"""The request kernel with a third table: HTML pages with separate access rules and error messages."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.testclient import TestClient

from polylocal.api import body_parsing, kernel
from polylocal.api.api_context import ApiContext
from polylocal.api.body_parsing import Read
from polylocal.errors import EngineUnreachable, NotAllowed, NotAuthenticated, NotFound
from polylocal.store.rows import User
from polylocal.store.users import Credentials

MAX_BODY = 100  # bytes of a body


@dataclass(frozen=True)
class Endpoint(kernel.BaseEndpoint):
    @property
    def max_body(self) -> int:
        return MAX_BODY


class Call(kernel.BaseCall[Endpoint]):
    """The cookie names the user."""

    no_credentials: ClassVar[str] = "Log in first."

    def admit(self) -> None:
        name = self.request.cookies.get("name")
        if name == "eve":
            raise NotAllowed
        if name:
            self.set_credentials(Credentials(self.store.users.get(name), None))

    def check_again(self) -> None:
        self.admit()

    @property
    def permission_key(self) -> Hashable:
        return self.request.cookies.get("name")


def hello(call: Call) -> str:
    return f"Hello {call.user.username}, at number {call.number('id')}."


def echo(call: Call) -> str:
    return f"{call.user_or_none and call.user.username} sent {call.data}"


def away(call: Call) -> str:
    raise EngineUnreachable("the engine is away")


def missing(call: Call) -> str:
    raise NotFound("no such page")


def bug(call: Call) -> str:
    raise ZeroDivisionError


ENDPOINTS = [
    Endpoint("GET", "/hello/{id:id}", hello, "A greeting"),
    Endpoint("GET", "/echo", echo, "An echo without a body"),
    Endpoint("POST", "/echo", echo, "An echo"),
    Endpoint("PUT", "/echo", echo, "A long echo", threads=kernel.Threads.LONG),
    *(Endpoint("GET", f"/{handler.__name__}", handler, "An error") for handler in (away, missing, bug)),
]


def read_body(request: Request, call: Call) -> AbstractAsyncContextManager[Read]:
    return body_parsing.open_body(request, call.body_limit)


def words(failure: kernel.Failure) -> Response:
    status = 303 if isinstance(failure.error, NotAuthenticated) else failure.status
    return HTMLResponse(f"<p>{failure.message}", status, headers=dict(failure.headers))


@pytest.fixture
def pages(context: ApiContext, root: User) -> Iterator[TestClient]:
    table = kernel.Table(ENDPOINTS, Call, read_body, lambda call, result: HTMLResponse(f"<h1>{result}"))
    app = kernel.application(table.routes(context), words)
    with TestClient(app, cookies={"name": "root"}, follow_redirects=False, raise_server_exceptions=False) as client:
        yield client


def test_results_are_rendered_by_the_table(pages: TestClient) -> None:
    assert pages.get("/hello/7").text == "<h1>Hello root, at number 7."
    assert pages.get("/echo").text == "<h1>root sent {}"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_bodies_are_parsed_and_limited(pages: TestClient, method: str) -> None:
    assert pages.request(method, "/echo", json=[1]).text == "<h1>root sent [1]"
    answer = pages.request(method, "/echo", content=b" " * (MAX_BODY + 1))
    assert (answer.status_code, answer.text[:3]) == (413, "<p>")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_the_body_of_a_refused_caller_is_not_read(pages: TestClient, method: str) -> None:
    pages.cookies.set("name", "eve")
    answer = pages.request(method, "/echo", content=b" " * (MAX_BODY + 1))  # too long: refused before it is read
    assert (answer.status_code, answer.text) == (403, f"<p>{NotAllowed()}")


def test_an_anonymous_call_has_no_user(pages: TestClient) -> None:
    pages.cookies.clear()
    assert pages.post("/echo", json={}).text == "<h1>None sent {}"
    answer = pages.get("/hello/7")
    assert (answer.status_code, answer.text) == (303, "<p>Log in first.")


@pytest.mark.parametrize(
    ("method", "path", "expected", "header"),
    [
        ("GET", "/nowhere", (404, "<p>Not found."), {}),
        ("GET", "/hello/x", (404, "<p>Not found."), {}),
        ("PUT", "/hello/7", (405, '<p>Method "PUT" not allowed.'), {"allow": "GET"}),
        ("DELETE", "/echo", (405, '<p>Method "DELETE" not allowed.'), {"allow": "GET, POST, PUT"}),
        ("GET", "/missing", (404, "<p>no such page"), {}),
        ("GET", "/away", (503, "<p>the engine is away"), {"retry-after": "5"}),
        ("GET", "/bug", (500, "<p>Internal error; the daemon's log has the details."), {}),
    ],
)
def test_errors_have_the_format_of_the_table(
    pages: TestClient, method: str, path: str, expected: tuple[int, str], header: dict[str, Any]
) -> None:
    answer = pages.request(method, path)
    assert (answer.status_code, answer.text) == expected
    assert header.items() <= answer.headers.items()


def test_a_head_is_the_answer_to_a_get_without_its_body(pages: TestClient) -> None:
    answer = pages.head("/hello/7")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert pages.head("/nowhere").status_code == 404
