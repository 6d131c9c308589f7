"""The pages of notebooks and tensorboards, in front of small test servers."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from api_support import api_context
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient
from support import eventually
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from polylocal import clock
from polylocal.api import forwarding, middleware, permission_watch
from polylocal.api.api_context import ApiContext
from polylocal.api.sessions import ONE_ORIGIN, SESSION, USER_COOKIE
from polylocal.errors import NotFound
from polylocal.settings import load
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import FILES, Caller, P, clear_store, on_loopback, write
from .program import POSING, Program, running

NOTEBOOK, TENSORBOARD = "/notebook/root/quick-start", "/tensorboard/root/quick-start"
SCOPES = {"": None, "/experiments/1": Kind.EXPERIMENT, "/groups/1": Kind.GROUP}
KEY = "jupyters-own-token"
PAGES = [NOTEBOOK, *(f"{TENSORBOARD}{scope}" for scope in SCOPES)]
each_page = pytest.mark.parametrize("page", PAGES)


# -- the program behind the page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_program() -> Iterator[Program]:
    with running(Program()) as found:
        yield found


@pytest.fixture
def program(one_program: Program) -> Iterator[Program]:
    """A program with an empty record for each test."""
    one_program.asked.clear()
    one_program.go_on.clear()
    yield one_program
    one_program.go_on.set()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ApiContext]]:
    """One real socket for all tests: (URL, API context)."""
    home = tmp_path_factory.mktemp("home")
    store = Store(home / "polylocal.db")
    context = api_context(load(home=home), store)
    with on_loopback(context) as url:
        yield url, context
    store.close()


@pytest.fixture
def live(daemon: tuple[str, ApiContext]) -> str:
    return daemon[0]


@pytest.fixture
def context(daemon: tuple[str, ApiContext]) -> ApiContext:
    return daemon[1]


@pytest.fixture
def store(context: ApiContext) -> Store:
    return clear_store(context.store)


Start = Callable[..., Run]


@pytest.fixture
def start(store: Store, root: User, project: Project, context: ApiContext) -> Start:
    """start(page, program) → the run behind a page, inserted into the store directly."""

    def made(page: str, program: Program | Silent | None, status: Status | None = Status.RUNNING) -> Run:
        kind = Kind.NOTEBOOK if page.startswith("/notebook") else Kind.TENSORBOARD
        about = SCOPES[page.removeprefix(TENSORBOARD)] if kind is Kind.TENSORBOARD else None
        shown = thing(about) if about else None
        values = {"experiment_pk": shown.pk} if shown and about is Kind.EXPERIMENT else {}
        group = shown if about is Kind.GROUP else None
        run = store.runs.insert(project, root, NewRun(kind, config=FILES[kind], values=values, group=group))
        recorded = {"container_id": "c", "port": program.port if program else None}
        if status:
            store.runs.transition(run, status, recorded=recorded)
        write(context.home.server_token(run.uuid), KEY)
        return store.runs.by_pk(run.pk)

    def thing(kind: Kind) -> Run:
        try:
            return store.runs.find(kind, 1)
        except NotFound:
            return store.runs.insert(project, root, NewRun(kind, config=FILES[kind]))

    return made


@pytest.fixture
def browser(live: str, store: Store, root: User) -> Iterator[httpx2.Client]:
    """A browser with root's session that has chosen the API's own origin for pages."""
    with httpx2.Client(base_url=live, timeout=60.0, follow_redirects=False) as client:
        client.cookies.set(SESSION, store.users.new_session(root))
        client.cookies.set(USER_COOKIE, "root")
        client.cookies.set(ONE_ORIGIN, "1")
        yield client


@pytest.fixture
def stranger(live: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=live, timeout=60.0, follow_redirects=False) as client:
        yield client


def cookies(session: str) -> str:
    """The cookies of a browser that has chosen the API's own origin for pages."""
    return f"{SESSION}={session}; {ONE_ORIGIN}=1"


def is_sent_on(answer: httpx2.Response) -> bool:
    """Whether the response redirects to the separate origin of a server."""
    return answer.status_code == 303 and ".localhost:" in answer.headers["location"]


def headers_of(asked: dict[str, Any]) -> dict[str, str]:
    return dict(asked["headers"])


# -- access ---------------------------------------------------------------------------------------------------------


@each_page
def test_a_stranger_gets_a_form(page: str, stranger: httpx2.Client, program: Program, start: Start) -> None:
    start(page, program)
    for path in (page, f"{page}/", f"{page}/tree?a=b"):
        answer = stranger.get(path)
        assert answer.status_code == 401
        assert answer.headers["content-type"].startswith("text/html")
        assert 'action="/polylocal/v1/session"' in answer.text
        assert answer.headers["cache-control"] == "no-store"
    assert program.asked == []


@each_page
def test_a_token_in_the_query_becomes_a_cookie(
    page: str, stranger: httpx2.Client, program: Program, start: Start, api: Caller
) -> None:
    start(page, program)
    answer = stranger.get(f"{page}/tree?a=b&token={api.token}&c=d%20e")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{page}/tree?a=b&c=d%20e")
    assert api.token not in answer.headers["set-cookie"]
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert is_sent_on(stranger.get(answer.headers["location"]))
    assert str(api.token) not in json.dumps(program.asked, default=str)


@each_page
def test_a_link_from_another_site_does_not_log_in(
    page: str, stranger: httpx2.Client, program: Program, start: Start, api: Caller
) -> None:
    """Otherwise the page could log a visitor in as its own user, and then read along."""
    start(page, program)
    path = f"{page}/tree?a=b&token={api.token}"
    answer = stranger.get(path, headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{page}/tree?a=b")
    assert "set-cookie" not in answer.headers
    assert stranger.get(answer.headers["location"]).status_code == 401
    for site, is_let_in in (("none", True), ("same-origin", True), ("same-site", False)):  # same-site: another port
        answer = stranger.get(path, headers={"Sec-Fetch-Site": site})
        assert ("set-cookie" in answer.headers) is is_let_in


@each_page
def test_the_form_lets_in(page: str, stranger: httpx2.Client, program: Program, start: Start, api: Caller) -> None:
    start(page, program)
    answer = stranger.post("/polylocal/v1/session", data={"token": api.token, "next": f"{page}/tree"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{page}/tree")
    assert is_sent_on(stranger.get(f"{page}/tree"))


def test_the_login_form_escapes_its_path(stranger: httpx2.Client, project: Project) -> None:
    answer = stranger.get(f"{NOTEBOOK}/%22%3E%3Cscript%3Ealert(1)%3C/script%3E?a=%22%3E%3Cb")
    assert answer.status_code == 401
    assert "<script>" not in answer.text


@each_page
def test_a_wrong_token_gives_no_access(page: str, stranger: httpx2.Client, program: Program, start: Start) -> None:
    start(page, program)
    for token in ("nosuch", "", "a%20b"):
        answer = stranger.get(f"{page}/?token={token}")
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    stranger.cookies.set(SESSION, "nosuch")
    assert stranger.get(f"{page}/").status_code == 401
    assert program.asked == []


def test_a_token_is_no_session(stranger: httpx2.Client, program: Program, start: Start, api: Caller) -> None:
    start(NOTEBOOK, program)
    stranger.cookies.set(SESSION, str(api.token))
    assert stranger.get(f"{NOTEBOOK}/").status_code == 401


@each_page
def test_a_header_lets_in(page: str, stranger: httpx2.Client, program: Program, start: Start, api: Caller) -> None:
    """The header is for programs, which have no cookies."""
    start(page, program)
    assert stranger.get(f"{page}/", headers={"Authorization": f"Token {api.token}"}).status_code == 200
    assert str(api.token) not in json.dumps(program.asked, default=str)


def test_a_runs_token_gives_no_access(
    stranger: httpx2.Client, program: Program, start: Start, token_of: Callable[[Run], str]
) -> None:
    run = start(NOTEBOOK, program)
    start(TENSORBOARD, program)
    token = token_of(run)
    for page in (NOTEBOOK, TENSORBOARD):
        assert stranger.get(f"{page}/?token={token}").status_code in (401, 403)
        assert stranger.get(f"{page}/", headers={"Authorization": f"Token {token}"}).status_code in (401, 403)
    assert program.asked == []


def test_a_deactivated_user(browser: httpx2.Client, program: Program, start: Start, store: Store, root: User) -> None:
    start(NOTEBOOK, program)
    assert browser.get(f"{NOTEBOOK}/").status_code == 200
    store.users.add("other", is_superuser=True)
    store.users.update(root, is_active=False)
    assert browser.get(f"{NOTEBOOK}/").status_code == 401


def test_the_servers_that_a_user_sees(
    stranger: httpx2.Client, program: Program, start: Start, store: Store, ann: User, api: Caller
) -> None:
    """A notebook executes its user's input, so it is for the owner only. A tensorboard is as public as its project."""
    for page in PAGES:
        start(page, program)
    stranger.cookies.set(SESSION, store.users.new_session(ann))
    stranger.cookies.set(ONE_ORIGIN, "1")
    assert {page: stranger.get(f"{page}/").status_code for page in PAGES} == {
        p: 403 if p == NOTEBOOK else 200 for p in PAGES
    }
    api.patch(P, {"is_public": False})
    answers = [stranger.get(f"{page}/") for page in PAGES]
    assert {answer.status_code for answer in answers} == {403}
    assert all(answer.headers["content-type"].startswith("text/html") for answer in answers)
    assert len(program.asked) == len(PAGES) - 1


@each_page
def test_the_page_of_another_site_gets_nothing(
    page: str, browser: httpx2.Client, program: Program, start: Start
) -> None:
    start(page, program)
    for origin in ("https://example.org", "http://127.0.0.1:1", "null"):
        for method in ("GET", "POST"):
            assert browser.request(method, f"{page}/", headers={"Origin": origin}).status_code == 403
    assert program.asked == []
    own = str(browser.base_url).rstrip("/")
    assert browser.post(f"{page}/", headers={"Origin": own}).status_code == 200


def test_the_cookie_opens_nothing_of_the_api(browser: httpx2.Client, project: Project, a_job: Run) -> None:
    for path in ("/api/v1/users/", P, f"{P}/jobs/1/", f"{P}/jobs/1/logs/", "/polylocal/v1/runs"):
        assert browser.get(path).status_code == 401
    assert browser.post("/api/v1/projects/", json={"name": "x"}).status_code == 401
    assert browser.delete(f"{P}/jobs/1/").status_code == 401


def test_containers_open_no_pages(
    serving: Callable[..., TestClient], start: Start, program: Program, store: Store, root: User, api: Caller
) -> None:
    start(NOTEBOOK, program)
    bridge = serving(bridge=True)
    bridge.cookies.set(SESSION, store.users.new_session(root))
    for path in (f"{NOTEBOOK}/", f"{NOTEBOOK}/?token={api.token}"):
        assert bridge.get(path).status_code == 404
    assert bridge.get(f"{NOTEBOOK}/", headers={"Authorization": f"Token {api.token}"}).status_code == 404
    assert program.asked == []


# -- requests to the program ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [NOTEBOOK, TENSORBOARD])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods_and_bodies(page: str, method: str, browser: httpx2.Client, program: Program, start: Start) -> None:
    start(page, program)
    content = bytes(range(256)) * 1000 if method in ("POST", "PUT", "PATCH") else b""
    answer = browser.request(method, f"{page}/api/x?a=b&a=c%20d&e", content=content, headers={"X-Own": "1"})
    [asked] = program.asked
    assert (asked["method"], asked["body"]) == (method, content)
    assert asked["query"] == "a=b&a=c%20d&e"
    assert asked["path"] == (f"{page}/api/x" if page == NOTEBOOK else "/api/x")
    assert headers_of(asked)["x-own"] == "1"
    assert answer.status_code == 200
    assert answer.content == b"" if method == "HEAD" else answer.json()["method"] == method
    if method == "HEAD":
        assert int(answer.headers["content-length"]) > 0


def test_a_body_without_a_length(browser: httpx2.Client, program: Program, start: Start) -> None:
    start(NOTEBOOK, program)
    answer = browser.post(f"{NOTEBOOK}/api", content=(b"x" * 10_000 for _ in range(50)))
    assert answer.status_code == 200
    assert program.asked[-1]["body"] == b"x" * 500_000


@each_page
def test_no_secret_reaches_the_program(
    page: str, browser: httpx2.Client, program: Program, start: Start, api: Caller
) -> None:
    """Except for the program's own token, which the daemon sends to a notebook."""
    start(page, program)
    browser.cookies.set("_xsrf", "2|abc")
    session = browser.cookies[SESSION]
    mine = {"Authorization": f"Token {api.token}"}
    browser.get(f"{page}/", headers=mine)
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        browser.request(method, f"{page}/x?token={api.token}&a=b", headers=mine)
        assert program.asked[-1]["query"] == "a=b"
    text = json.dumps(program.asked, default=str)
    assert session not in text
    assert str(api.token) not in text
    for asked in program.asked:
        found = headers_of(asked)
        assert found["cookie"] == "_xsrf=2|abc"
        assert found.get("authorization") == (f"token {KEY}" if page == NOTEBOOK else None)


def test_credentials_of_the_programs_own_pages(browser: httpx2.Client, program: Program, start: Start) -> None:
    """Jupyter's pages send Jupyter's token in headers and queries. The daemon passes it on."""
    start(NOTEBOOK, program)
    answer = browser.get(f"{NOTEBOOK}/api", headers={"Authorization": f"token {KEY}"})
    assert answer.status_code == 200
    assert browser.get(f"{NOTEBOOK}/files/x?token={KEY}").status_code == 200
    assert program.asked[-1]["query"] == f"token={KEY}"
    assert headers_of(program.asked[-1])["authorization"] == f"token {KEY}"


@pytest.mark.parametrize("cookie", ['username-8888="2|1:0|10:99|x"', "a=b; c=d=e", "_xsrf=2|1|2", "a=%20b%22"])
def test_cookies_reach_the_program_as_they_are(
    cookie: str, browser: httpx2.Client, program: Program, start: Start
) -> None:
    start(NOTEBOOK, program)
    session = browser.cookies[SESSION]
    ours = f"{cookies(session)}; user=root"
    for line in (f"{ours}; {cookie}", f"{cookie}; {ours}"):
        browser.cookies.clear()
        assert browser.get(f"{NOTEBOOK}/", headers={"Cookie": line}).status_code == 200
        assert headers_of(program.asked[-1])["cookie"] == cookie


def test_hop_by_hop_headers_are_not_passed_on(browser: httpx2.Client, program: Program, start: Start) -> None:
    start(NOTEBOOK, program)
    browser.get(f"{NOTEBOOK}/", headers={"TE": "trailers", "Keep-Alive": "5", "Proxy-Authorization": "x", "X-Own": "1"})
    found = headers_of(program.asked[-1])
    assert {"te", "keep-alive", "proxy-authorization"} & set(found) == set()
    assert found["host"] == urlsplit(str(browser.base_url)).netloc  # so that the program's links lead to the daemon


@pytest.mark.parametrize(
    "path",
    [
        "/files/a%20b/c%2Fd.ipynb",
        "/files/%E2%9C%93/%C3%BC",
        "/files/100%25",
        "/files/a%3Fb%23c",
        "/a//b///c",
        "/a/b/",
        "/a;b=c/@d:e,f!$&'()*+=~",
        "/x?a=%2F&b=%3F&c=a+b&d=?&e=%25",
        "/x.json",
    ],
)
@pytest.mark.parametrize("page", [NOTEBOOK, TENSORBOARD])
def test_a_path_reaches_the_program_as_it_is(
    page: str, path: str, live: str, browser: httpx2.Client, program: Program, start: Start
) -> None:
    start(page, program)
    status, _, _ = raw(live, page + path, browser.cookies[SESSION])
    assert status == 200
    asked = program.asked[-1]
    found = asked["path"] + (f"?{asked['query']}" if asked["query"] else "")
    assert found == (page + path if page == NOTEBOOK else path)


def raw(live: str, path: str, session: str | None = None) -> tuple[int, dict[str, str], bytes]:
    """Send a request for exactly this path."""
    place = urlsplit(live)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
    try:
        connection.request("GET", path, headers={"Cookie": cookies(session)} if session else {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/a%3Fb%25c.ipynb", "/files/a%20b/", "/", "/a//b"])
def test_a_path_survives_the_exchange_of_a_token(
    path: str, live: str, program: Program, start: Start, api: Caller
) -> None:
    start(NOTEBOOK, program)
    status, headers, _ = raw(live, f"{NOTEBOOK}{path}?token={api.token}&a=%2F")
    assert (status, headers["location"]) == (303, f"{NOTEBOOK}{path}?a=%2F")


@pytest.mark.parametrize("slashes", ["//", "///", "/\\"])
def test_a_path_names_no_other_host(slashes: str, live: str, program: Program, start: Start, api: Caller) -> None:
    start(NOTEBOOK, program)
    status, headers, _ = raw(live, f"{slashes}{NOTEBOOK[1:]}/?token={api.token}")
    assert status in (303, 404)
    location = headers.get("location", "/x")
    assert location.startswith("/")
    assert location[1] not in "/\\"


@each_page
def test_a_page_without_its_last_slash(page: str, browser: httpx2.Client, program: Program, start: Start) -> None:
    """The page's links are relative to the path with the slash."""
    start(page, program)
    answer = browser.get(page)
    assert (answer.status_code, answer.headers["location"]) == (307, f"{page}/")
    assert browser.get(f"{page}?a=b").headers["location"] in (f"{page}/?a=b", f"{page}/")
    assert browser.get(f"{page}/").json()["path"] == (f"{page}/" if page == NOTEBOOK else "/")


def test_each_page_has_its_own_program(browser: httpx2.Client, start: Start) -> None:
    with ExitStack() as stack:
        programs = {page: stack.enter_context(running(Program())) for page in PAGES}
        for page, program in programs.items():
            start(page, program)
        for page, program in programs.items():
            assert browser.get(f"{page}/x").status_code == 200
            assert [len(other.asked) for other in programs.values()].count(1) == list(PAGES).index(page) + 1
            assert len(program.asked) == 1


# -- responses of the program ---------------------------------------------------------------------------------------


@pytest.fixture
def notebook(start: Start, program: Program) -> Run:
    return start(NOTEBOOK, program)


def test_statuses_and_headers_are_passed_back(browser: httpx2.Client, notebook: Run) -> None:
    answer = browser.get(f"{NOTEBOOK}/teapot")
    assert (answer.status_code, answer.text, answer.headers["x-own"]) == (418, "short and stout", "1")
    assert browser.get(f"{NOTEBOOK}/none").status_code == 204


def test_redirects_are_passed_back(browser: httpx2.Client, notebook: Run, program: Program) -> None:
    answer = browser.get(f"{NOTEBOOK}/moved")
    assert (answer.status_code, answer.headers["location"]) == (302, "/elsewhere?a=b")
    assert len(program.asked) == 1


def test_cookies_are_passed_back(browser: httpx2.Client, notebook: Run) -> None:
    answer = browser.get(f"{NOTEBOOK}/cookies")
    path = f" Path={NOTEBOOK}/"  # only for this page if it shares an origin with others
    assert answer.headers.get_list("set-cookie") == [f"_xsrf=2|a;{path}", f"other=1;{path}"]


def test_cookies_of_one_program_reach_no_other_program(
    live: str, start: Start, program: Program, store: Store, root: User
) -> None:
    """They don't reach another user's browser either: the daemon stores none."""
    start(NOTEBOOK, program)
    headers = {"Authorization": f"Token {store.users.new_token(root)}"}
    with running(Program()) as other:
        start(TENSORBOARD, other)
        for path in (f"{NOTEBOOK}/cookies", f"{NOTEBOOK}/x", f"{TENSORBOARD}/x"):
            assert httpx2.get(f"{live}{path}", headers=headers).status_code == 200
    for asked in (program.asked[-1], other.asked[-1]):
        assert "cookie" not in headers_of(asked)


def test_no_program_logs_anybody_in_or_out(browser: httpx2.Client, notebook: Run) -> None:
    """Whatever form the names of our cookies have."""
    session = browser.cookies[SESSION]
    answer = browser.get(f"{NOTEBOOK}/posing")
    kept = [cookie.decode().partition(";")[0] for cookie in POSING[-3:]]
    assert [cookie.partition(";")[0] for cookie in answer.headers.get_list("set-cookie")] == kept
    assert (browser.cookies[SESSION], browser.cookies[USER_COOKIE]) == (session, "root")


def test_compressed_responses_stay_compressed(live: str, browser: httpx2.Client, notebook: Run) -> None:
    status, headers, content = raw(live, f"{NOTEBOOK}/packed", browser.cookies[SESSION])
    assert (status, headers["content-encoding"], content) == (200, "gzip", b"\x1f\x8bas it is")
    assert headers["content-type"] == "x/y"


def test_an_answer_comes_as_it_is_written(browser: httpx2.Client, notebook: Run, program: Program) -> None:
    with browser.stream("GET", f"{NOTEBOOK}/stream") as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"one"  # the program waits until this chunk has arrived
        program.go_on.set()
        assert b"".join(chunks) == b"two"


def test_many_at_once(browser: httpx2.Client, notebook: Run, program: Program) -> None:
    """More open connections than a client's usual limit."""
    with ExitStack() as stack:
        session = browser.cookies[SESSION]
        limits = httpx2.Limits(max_connections=None)
        many = stack.enter_context(httpx2.Client(base_url=browser.base_url, timeout=60.0, limits=limits))
        many.cookies.set(SESSION, session)
        many.cookies.set(ONE_ORIGIN, "1")
        for _ in range(30):
            answer = stack.enter_context(many.stream("GET", f"{NOTEBOOK}/stream"))
            assert next(answer.iter_raw()) == b"one"
        assert browser.get(f"{NOTEBOOK}/x").status_code == 200
        program.go_on.set()


class Silent:
    """A program that accepts connections and never answers."""

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        listener.settimeout(30)

    def asked(self) -> socket.socket:
        """Accept the next connection, and read its request."""
        peer = self._listener.accept()[0]
        peer.settimeout(30)
        found = b""
        while b"\r\n\r\n" not in found:
            found += peer.recv(65536)
        return peer


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield Silent(listener)


def begun(live: str, session: str, method: str = "GET", body: str = "") -> socket.socket:
    """A request for a page, on a separate connection."""
    return requested(live, f"{method} {NOTEBOOK}/api/x", session, f"Content-Length: {len(body)}\r\n\r\n{body}")


def requested(url: str, what: str, session: str, rest: str) -> socket.socket:
    """A connection with a request for a page by a browser with a session. `rest` follows the cookies."""
    place = urlsplit(url)
    peer = socket.create_connection((str(place.hostname), place.port), 30)
    head = f"{what} HTTP/1.1\r\nHost: {place.netloc}\r\nCookie: {cookies(session)}\r\n"
    peer.sendall(f"{head}{rest}".encode())
    return peer


def test_a_program_that_never_answers_takes_no_slot_of_others(
    context: ApiContext, silent: Silent, start: Start, browser: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware.ConcurrencyLimit.__init__, "__defaults__", (1, middleware.MAX_OPEN))
    start(NOTEBOOK, silent)
    with on_loopback(context) as url, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(begun(url, browser.cookies[SESSION]))
            stack.enter_context(silent.asked())
        assert stack.enter_context(httpx2.Client(base_url=url)).get("/api/v1/users/").status_code == 401


@pytest.mark.parametrize(("method", "body"), [("GET", ""), ("POST", "{}")])
def test_a_program_notices_that_its_client_has_left(
    live: str, silent: Silent, start: Start, browser: httpx2.Client, method: str, body: str
) -> None:
    start(NOTEBOOK, silent)
    client = begun(live, browser.cookies[SESSION], method, body)
    with silent.asked() as asked:
        client.close()
        rest = b""
        while piece := asked.recv(64):
            rest += piece
        assert rest in (b"", body.encode())  # the body may follow the head


def handshake(url: str, session: str) -> socket.socket:
    """The request for a websocket, on a separate connection."""
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    return requested(
        url, f"GET {NOTEBOOK}/ws", session, f"{upgrade}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )


def test_a_program_that_accepts_no_websocket_takes_no_slot_of_others(
    context: ApiContext, silent: Silent, start: Start, browser: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each open handshake counts for its client until the client leaves."""
    monkeypatch.setattr(middleware.ConcurrencyLimit.__init__, "__defaults__", (1, middleware.MAX_OPEN))
    start(NOTEBOOK, silent)
    with on_loopback(context) as url, ExitStack() as stack:
        pairs = []
        for _ in range(3):
            client = stack.enter_context(handshake(url, browser.cookies[SESSION]))
            pairs.append((client, stack.enter_context(silent.asked())))
        assert stack.enter_context(httpx2.Client(base_url=url)).get("/api/v1/users/").status_code == 401
        assert context.quotas.streams.in_use == 3
        for client, program in pairs:
            client.close()
            assert program.recv(1) == b""
        eventually(lambda: context.quotas.streams.in_use == 0)


def test_pages_are_looked_up_in_the_share_of_their_user(
    live: str, browser: httpx2.Client, notebook: Run, context: ApiContext, root: User, talk: Talk
) -> None:
    cookie = cookies(browser.cookies[SESSION])

    def page() -> int:
        return httpx2.get(f"{live}{NOTEBOOK}/x", headers={"Cookie": cookie}).status_code

    assert page() == 200  # from now on the user of this session is known
    with ExitStack() as stack:
        with suppress(HTTPException):
            while True:
                stack.enter_context(context.quotas.requests._quota.slot(("user", root.id)))
        assert page() == 503
        assert refused(talk, f"{NOTEBOOK}/ws", cookie=cookie) == 403
        assert context.quotas.streams.in_use == 0
    assert page() == 200


# -- programs that don't answer -------------------------------------------------------------------------------------


@each_page
def test_nothing_is_running(page: str, browser: httpx2.Client, start: Start, store: Store, program: Program) -> None:
    run = start(page, program)
    store.runs.transition(run, Status.STOPPED)
    for path in (page, f"{page}/", f"{page}/tree"):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "Not running" in answer.text
    assert program.asked == []


def test_nothing_was_ever_running(browser: httpx2.Client, project: Project) -> None:
    for page in (NOTEBOOK, TENSORBOARD):
        assert browser.get(f"{page}/").status_code == 404
        assert "Not running" in browser.get(f"{page}/").text
    for page in ("/notebook/root/nosuch", "/tensorboard/root/nosuch", f"{TENSORBOARD}/experiments/9"):
        answer = browser.get(f"{page}/")
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")


@each_page
@pytest.mark.parametrize("status", [None, Status.BUILDING, Status.SCHEDULED])
def test_it_is_starting(page: str, status: Status | None, browser: httpx2.Client, start: Start) -> None:
    start(page, None, status)
    answer = browser.get(f"{page}/")
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")
    assert int(answer.headers["refresh"]) >= 1


@each_page
def test_the_program_does_not_listen_yet(page: str, browser: httpx2.Client, start: Start) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # no program listens there
        start(page, Program(port=nobody.getsockname()[1]))
        answer = browser.get(f"{page}/")
    assert (answer.status_code, "refresh" in answer.headers) == (503, True)


def test_the_program_hangs_up(
    browser: httpx2.Client, start: Start, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shortly after the start of its container, the program may not listen yet. The same holds after a long build or a
    restart. If it has run for long, it is broken.
    """
    with socket.socket() as rude:
        rude.bind(("127.0.0.1", 0))
        rude.listen(8)

        def hang_up() -> None:
            for _ in range(8):
                rude.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        run = start(NOTEBOOK, Program(port=rude.getsockname()[1]))
        assert browser.get(f"{NOTEBOOK}/").status_code == 503
        with store.database.write() as db:
            db.execute("update runs set started_at = '2018-08-19T22:00:00.000000+00:00' where pk = ?", (run.pk,))
        assert browser.get(f"{NOTEBOOK}/").status_code == 503
        later = clock.stamp(clock.parse(clock.now()) + timedelta(seconds=130))
        monkeypatch.setattr(clock, "now", lambda: later)
        assert browser.get(f"{NOTEBOOK}/").status_code == 502
        for status in (Status.WARNING, Status.RUNNING):  # a restart
            assert store.runs.transition(run, status)
        assert browser.get(f"{NOTEBOOK}/").status_code == 503
        thread.join()


def test_parts_of_a_page_are_waited_for(browser: httpx2.Client, start: Start) -> None:
    """A browser requests the parts of a page once. Without one of them it shows a broken page for good."""
    with socket.socket() as slow:
        slow.bind(("127.0.0.1", 0))
        slow.listen(8)

        def come_up() -> None:
            for _ in range(3):
                slow.accept()[0].close()
            with slow.accept()[0] as client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\na {}\n")

        thread = threading.Thread(target=come_up, daemon=True)
        thread.start()
        start(NOTEBOOK, Program(port=slow.getsockname()[1]))
        answer = browser.get(f"{NOTEBOOK}/theme.css", headers={"Sec-Fetch-Dest": "style"})
        assert (answer.status_code, answer.text) == (200, "a {}\n")
        thread.join()


# -- websockets -----------------------------------------------------------------------------------------------------

Talk = Callable[..., ClientConnection]


@pytest.fixture
def talk(live: str, store: Store, root: User) -> Iterator[Talk]:
    """talk(path, …) → a websocket with a session's cookie."""
    with ExitStack() as stack:

        def open_(path: str, cookie: str = cookies(store.users.new_session(root)), **more: Any) -> ClientConnection:
            headers = {**({"Cookie": cookie} if cookie else {}), **more.pop("headers", {})}
            place = live.replace("http", "ws", 1) + path
            return stack.enter_context(
                connect(
                    place,
                    additional_headers=headers,
                    proxy=None,
                    open_timeout=60,
                    close_timeout=5,
                    max_size=None,
                    **more,
                )
            )

        yield open_


@each_page
def test_text_and_bytes(page: str, talk: Talk, program: Program, start: Start) -> None:
    start(page, program)
    client = talk(f"{page}/api/kernels/1/channels?session_id=a%2Fb")
    large = bytes(range(256)) * 8192  # 2 MiB
    for message in ("hello", "", "ümläut ✓", b"\0\xff", b"", "x" * 200_000, large):
        client.send(message)
        assert client.recv(timeout=60) == message
    [asked] = program.asked
    assert asked["path"] == (f"{page}/api/kernels/1/channels" if page == NOTEBOOK else "/api/kernels/1/channels")
    assert asked["query"] == "session_id=a%2Fb"


def test_subprotocols(talk: Talk, program: Program, notebook: Run) -> None:
    """The program chooses."""
    assert talk(f"{NOTEBOOK}/ws", subprotocols=["v0.kernel", "v1.kernel.websocket.jupyter.org"]).subprotocol == (
        "v1.kernel.websocket.jupyter.org"
    )
    assert talk(f"{NOTEBOOK}/ws").subprotocol is None


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4001])
def test_the_program_closes(code: int, talk: Talk, notebook: Run) -> None:
    client = talk(f"{NOTEBOOK}/ws")
    client.send(f"close {code}")
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


@pytest.mark.parametrize("code", [1000, 4001])
def test_the_browser_closes(code: int, talk: Talk, program: Program, notebook: Run) -> None:
    client = talk(f"{NOTEBOOK}/ws")
    client.send("x")
    client.recv(timeout=60)
    client.close(code)
    assert eventually(lambda: program.asked[0].get("closed")) == code


def test_a_browser_that_is_killed(talk: Talk, program: Program, notebook: Run) -> None:
    client = talk(f"{NOTEBOOK}/ws")
    client.send("x")
    client.recv(timeout=60)
    client.socket.shutdown(socket.SHUT_RDWR)
    assert eventually(lambda: program.asked[0].get("closed"))


def test_no_secret_reaches_the_program_by_a_websocket(
    talk: Talk, program: Program, start: Start, api: Caller, store: Store, root: User
) -> None:
    for page in (NOTEBOOK, TENSORBOARD):
        start(page, program)
        session = store.users.new_session(root)
        headers = {"Authorization": f"Token {api.token}", "X-Own": "1"}
        talk(f"{page}/ws?token={api.token}&a=b", cookie=f"_xsrf=2|a; {cookies(session)}; user=root", headers=headers)
        asked = program.asked[-1]
        assert asked["query"] == "a=b"
        found = headers_of(asked)
        assert (found["cookie"], found["x-own"]) == ("_xsrf=2|a", "1")
        assert found.get("authorization") == (f"token {KEY}" if page == NOTEBOOK else None)
        text = json.dumps(asked, default=str)
        assert session not in text
        assert str(api.token) not in text


def test_a_message_that_is_too_large_ends_it(talk: Talk, notebook: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message would occupy memory completely, once for each client."""
    monkeypatch.setattr(forwarding, "_MAX_MESSAGE", 10_000)
    client = talk(f"{NOTEBOOK}/ws")
    client.send("x" * 10_000)
    assert len(client.recv(timeout=60)) == 10_000
    client.send("x" * 10_001)
    with pytest.raises(ConnectionClosed):
        client.recv(timeout=60)


def refused(talk: Talk, path: str, **more: Any) -> int:
    with pytest.raises(InvalidStatus) as refusal:
        talk(path, **more)
    status: int = refusal.value.response.status_code
    return status


@each_page
def test_callers_without_access_open_no_websocket(
    page: str,
    talk: Talk,
    program: Program,
    start: Start,
    store: Store,
    ann: User,
    api: Caller,
    token_of: Callable[[Run], str],
) -> None:
    run = start(page, program)
    path = f"{page}/ws"
    assert refused(talk, path, cookie="") == 403
    assert refused(talk, path, cookie=cookies("nosuch")) == 403
    assert refused(talk, path, cookie=cookies(str(api.token))) == 403
    assert refused(talk, path, cookie="", headers={"Authorization": f"Token {token_of(run)}"}) == 403
    for origin in ("https://example.org", "null"):
        assert refused(talk, path, origin=origin) == 403
    api.patch(P, {"is_public": False})
    assert refused(talk, path, cookie=cookies(store.users.new_session(ann))) == 403
    assert program.asked == []


def test_a_page_of_ours_talks(live: str, talk: Talk, program: Program, notebook: Run) -> None:
    talk(f"{NOTEBOOK}/ws", origin=live)
    found = headers_of(program.asked[-1])
    assert urlsplit(found["origin"]).netloc == found["host"]  # Jupyter compares the two


def test_websockets_without_a_program_are_refused(talk: Talk, store: Store, start: Start, program: Program) -> None:
    run = start(NOTEBOOK, program)
    assert refused(talk, f"{NOTEBOOK}/refused") in (403, 500, 502)
    store.runs.transition(run, Status.STOPPED)
    assert refused(talk, f"{NOTEBOOK}/ws") in (403, 404)
    start(NOTEBOOK, None, None)
    assert refused(talk, f"{NOTEBOOK}/ws") in (403, 503)
    assert refused(talk, "/notebook/root/nosuch/ws") in (403, 404)


# -- lost access ------------------------------------------------------------------------------------------------------

ENDS: dict[str, Callable[[Store, User, str], object]] = {
    "logged out": lambda store, root, session: store.users.end_session(session),
    "deactivated": lambda store, root, session: _update(store, "update users set is_active = 0"),
    "archived": lambda store, root, session: store.projects.archive(store.projects.get("root", "quick-start")),
}


def _update(store: Store, change: str) -> None:
    with store.database.write() as db:
        db.execute(change)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("page", [NOTEBOOK, TENSORBOARD])
def test_open_connections_end_with_the_permission(
    page: str,
    end: str,
    browser: httpx2.Client,
    talk: Talk,
    program: Program,
    start: Start,
    store: Store,
    context: ApiContext,
    root: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(permission_watch, "POLL_S", 0.05)
    start(page, program)
    session = browser.cookies[SESSION]
    client = talk(f"{page}/ws", cookie=cookies(session))
    client.send("hello")
    assert client.recv(timeout=60) == "hello"
    with browser.stream("GET", f"{page}/stream") as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"one"
        assert context.quotas.streams.in_use == 2
        ENDS[end](store, root, session)
        with pytest.raises(httpx2.HTTPError):
            list(chunks)
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    eventually(lambda: context.quotas.streams.in_use == 0)


@pytest.mark.parametrize("upgrade", ["", "Connection: Upgrade\r\nUpgrade: other\r\n"])
def test_a_program_that_switches_protocols_is_not_shown(
    upgrade: str, browser: httpx2.Client, start: Start, silent: Silent, context: ApiContext
) -> None:
    start(NOTEBOOK, silent)
    found: list[httpx2.Response] = []
    thread = threading.Thread(target=lambda: found.append(browser.post(f"{NOTEBOOK}/x")))
    thread.start()
    with silent.asked() as peer:
        peer.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\nHTTP/1.1 200 OK\r\n\r\nx".encode())
        thread.join()
    assert found[0].status_code == 502
    eventually(lambda: context.quotas.streams.in_use == 0)


def test_unanswered_requests_hold_a_slot_of_their_caller(
    browser: httpx2.Client, start: Start, context: ApiContext
) -> None:
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        start(NOTEBOOK, silent := Silent(listener))
        thread = threading.Thread(target=lambda: browser.get(f"{NOTEBOOK}/x"))
        thread.start()
        peer = stack.enter_context(silent.asked())
        eventually(lambda: context.quotas.streams.in_use == 1)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        thread.join()
        eventually(lambda: context.quotas.streams.in_use == 0)
