"""Separate origins of notebooks and tensorboards, which a browser enters with a one-time code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from polylocal.api import proxy
from polylocal.api.api_context import ApiContext
from polylocal.api.origins import host_name, own_origin, server_of
from polylocal.api.sessions import ONE_ORIGIN, PAGE, SESSION
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import FILES, Caller, P, on_loopback, write
from .program import Program, running

KEY = "jupyters-own-token"
NOTEBOOK, TENSORBOARD = "/notebook/root/quick-start", "/tensorboard/root/quick-start"
KINDS = {NOTEBOOK: Kind.NOTEBOOK, TENSORBOARD: Kind.TENSORBOARD}
each_page = pytest.mark.parametrize("page", [NOTEBOOK, TENSORBOARD])


@pytest.fixture(scope="module")
def one_program() -> Iterator[Program]:
    with running(Program()) as found:
        yield found


@pytest.fixture
def program(one_program: Program) -> Program:
    one_program.asked.clear()
    return one_program


@pytest.fixture
def live(context: ApiContext) -> Iterator[str]:
    with on_loopback(context) as url:
        yield url


class Browser:
    """Stores cookies by host, as browsers do, and connects to 127.0.0.1 for names below `localhost`."""

    def __init__(self, live: str) -> None:
        self.place = urlsplit(live).netloc
        self.jar: dict[str, dict[str, str]] = {}
        self._http = httpx2.Client(base_url=live, timeout=60, follow_redirects=False, trust_env=False)

    def ask(self, url: str, method: str = "GET", **more: Any) -> httpx2.Response:
        """Send one request without following redirects."""
        where = urlsplit(url)
        host = where.netloc or self.place
        kept = self.jar.setdefault(host, {})
        headers = {"Host": host, **more.pop("headers", {})}
        if kept:
            headers.setdefault("Cookie", "; ".join(f"{name}={value}" for name, value in kept.items()))
        path = where.path + (f"?{where.query}" if where.query else "")
        answer = self._http.request(method, path, headers=headers, **more)
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                kept[name] = morsel.value
        return answer

    def open(self, url: str) -> tuple[str, httpx2.Response]:
        """Follow redirects to the end, as a navigation does: the last URL and its answer."""
        for _ in range(10):
            answer = self.ask(url)
            if answer.status_code not in (302, 303, 307):
                return url, answer
            there = answer.headers["location"]
            url = there if there.startswith("http") else f"http://{urlsplit(url).netloc or self.place}{there}"
        raise AssertionError(f"it goes on and on: {url}")

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def browse(live: str) -> Iterator[Callable[[], Browser]]:
    opened: list[Browser] = []

    def made() -> Browser:
        opened.append(Browser(live))
        return opened[-1]

    yield made
    for browser in opened:
        browser.close()


@pytest.fixture
def start(store: Store, root: User, project: Project, context: ApiContext, program: Program) -> Callable[..., Run]:
    def made(page: str, project: Project = project, user: User = root) -> Run:
        run = store.runs.insert(project, user, NewRun(KINDS[page], config=FILES[KINDS[page]]))
        store.runs.transition(run, Status.RUNNING, recorded={"container_id": "c", "port": program.port})
        write(context.home.server_token(run.uuid), KEY)
        return store.runs.by_pk(run.pk)

    return made


def headers_of(asked: dict[str, Any]) -> dict[str, str]:
    return dict(asked["headers"])


def own(run: Run, browser: Browser, path: str = "/") -> str:
    return f"http://{host_name(run)}:{browser.place.partition(':')[2]}{path}"


# -- log-in by code -------------------------------------------------------------------------------------------------


@each_page
def test_a_browser_is_sent_on_to_the_servers_own_origin(
    page: str, browse: Callable[[], Browser], start: Callable[..., Run], program: Program, api: Caller
) -> None:
    run, browser = start(page), browse()
    url, answer = browser.open(f"{page}/tree?a=%2Fb&token={api.token}")
    path = f"{page}/tree" if page == NOTEBOOK else "/tree"
    assert url == own(run, browser, f"{path}?a=%2Fb")
    assert answer.status_code == 200
    assert (program.asked[-1]["path"], program.asked[-1]["query"]) == (path, "a=%2Fb")
    assert set(browser.jar[urlsplit(url).netloc]) == {PAGE}  # of that host alone
    assert set(browser.jar[browser.place]) == {SESSION, "user"}
    told = json.dumps(program.asked, default=str)
    secrets = [str(api.token), *(value for kept in browser.jar.values() for value in kept.values() if len(value) > 20)]
    assert [secret for secret in secrets if secret in told] == []


@each_page
def test_a_program_with_a_token_is_answered_at_the_path_itself(
    page: str, browse: Callable[[], Browser], start: Callable[..., Run], api: Caller
) -> None:
    start(page)
    answer = browse().ask(f"{page}/teapot", headers={"Authorization": f"Token {api.token}"})
    assert (answer.status_code, answer.headers["x-own"]) == (418, "1")
    assert answer.headers.get_list("content-security-policy") == ["frame-ancestors 'self'"]


def test_a_code_is_good_once_and_for_its_own_server(
    browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, program: Program
) -> None:
    notebook, tensorboard, browser, thief = start(NOTEBOOK), start(TENSORBOARD), browse(), browse()
    browser.ask(f"{NOTEBOOK}/?token={api.token}")
    address = browser.ask(f"{NOTEBOOK}/").headers["location"]
    query = urlsplit(address).query
    wrong = thief.ask(own(tensorboard, thief, f"/polylocal/v1/enter?{query}"))
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (403, False)
    late = browser.ask(address)  # after use at another server the code is invalid
    assert (late.status_code, "set-cookie" in late.headers) == (403, False)
    address = browser.ask(f"{NOTEBOOK}/").headers["location"]
    assert browser.ask(address).status_code == 303
    again = thief.ask(address)
    assert (again.status_code, "set-cookie" in again.headers) == (403, False)
    assert thief.ask(own(notebook, thief)).status_code == 401
    assert program.asked == []


@pytest.mark.parametrize("code", ["", "code=", "code=x", f"code={'0' * 40}", "code=%00"])
def test_invalid_codes(browse: Callable[[], Browser], start: Callable[..., Run], code: str) -> None:
    run, browser = start(NOTEBOOK), browse()
    answer = browser.ask(own(run, browser, f"/polylocal/v1/enter?{code}"))
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert f"http://127.0.0.1:{browser.place.partition(':')[2]}{NOTEBOOK}/" in answer.text  # a link to log in


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_only_a_typed_address_or_a_page_of_this_origin_logs_in_by_a_query(
    browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, site: str
) -> None:
    start(NOTEBOOK)
    browser = browse()
    answer = browser.ask(f"{NOTEBOOK}/?token={api.token}", headers={"Sec-Fetch-Site": site})
    assert (answer.status_code, "set-cookie" in answer.headers) == (303, False)


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example", "/%5Cevil.example", "///evil.example"])
@each_page
def test_redirects_never_leave_this_host(
    page: str, path: str, browse: Callable[[], Browser], start: Callable[..., Run], api: Caller
) -> None:
    run, browser = start(page), browse()
    browser.open(f"{page}/?token={api.token}")
    entered = browser.ask(browser.ask(f"{page}{path}").headers["location"])
    assert urlsplit(entered.headers["location"]).netloc == ""
    assert entered.headers["location"][1:2] not in ("/", "\\")
    for asked in (own(run, browser, path), own(run, browser, f"{page}{path}")):
        answer = browser.ask(asked)
        assert answer.headers.get("location", "/x")[1:2] not in ("/", "\\")


# -- the access that one origin's cookie gives ----------------------------------------------------------------------


def entered(browser: Browser, page: str, token: str | None) -> str:
    """The value of the cookie that a browser has for a server's own origin."""
    url, answer = browser.open(f"{page}/?token={token}")
    assert answer.status_code == 200, answer.text
    return browser.jar[urlsplit(url).netloc][PAGE]


def test_a_cookie_opens_its_own_server_and_nothing_else(
    browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, program: Program, store: Store, root: User
) -> None:
    notebook, tensorboard, browser = start(NOTEBOOK), start(TENSORBOARD), browse()
    mine, session = entered(browser, NOTEBOOK, api.token), browser.jar[browser.place][SESSION]
    assert browser.ask(own(notebook, browser, "/x")).status_code == 200
    program.asked.clear()
    for cookie in (f"{PAGE}={mine}", f"{SESSION}={mine}", f"{SESSION}={session}", f"{PAGE}={session}"):
        headers = {"Cookie": cookie}
        if mine in cookie and PAGE in cookie:
            assert browser.ask(own(tensorboard, browser, "/x"), headers=headers).status_code == 401
        else:
            assert browser.ask(own(notebook, browser, "/x"), headers=headers).status_code == 401
        for path in ("/api/v1/users/", P, "/polylocal/v1/runs"):
            assert browser.ask(path, headers=headers).status_code == 401
    assert browser.ask(f"{NOTEBOOK}/", headers={"Cookie": f"{PAGE}={mine}; {SESSION}={mine}"}).status_code == 401
    assert program.asked == []


def test_the_api_is_not_served_at_the_origin_of_a_server(
    browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, program: Program
) -> None:
    run, browser = start(NOTEBOOK), browse()
    entered(browser, NOTEBOOK, api.token)
    program.asked.clear()
    for path in ("/api/v1/users/", "/healthz", "/downloads/", "/api/v1/users/token", "/metrics"):
        browser.ask(own(run, browser, path), headers={"Authorization": f"Token {api.token}"})
    assert [asked["path"] for asked in program.asked] == [
        *("/api/v1/users/", "/healthz", "/downloads/", "/api/v1/users/token", "/metrics")
    ]
    for path in ("/polylocal/v1/session", "/polylocal/v1/runs"):
        assert browser.ask(own(run, browser, path), method="POST", data={"token": str(api.token)}).status_code == 404
    assert len(program.asked) == 5
    assert str(api.token) not in json.dumps(program.asked, default=str)


@pytest.mark.parametrize(
    "end",
    [
        lambda store, user, browser: browser.ask("/api/v1/users/logout/", "POST"),
        lambda store, user, browser: store.users.revoke(user),
        lambda store, user, browser: store.users.update(user, is_active=False),
        lambda store, user, browser: store.users.update(user, is_superuser=False),
    ],
    ids=["logged out", "revoked", "deactivated", "no admin any more"],
)
def test_the_cookie_ends_with_the_right_to_the_page(
    end: Callable[..., object], browse: Callable[[], Browser], start: Callable[..., Run], store: Store
) -> None:
    admin = store.users.add("guest", is_superuser=True)
    run, browser = start(NOTEBOOK), browse()
    entered(browser, NOTEBOOK, store.users.new_token(admin))
    end(store, admin, browser)
    assert browser.ask(own(run, browser, "/x")).status_code in (401, 403)


def test_who_may_open_which_origin(
    browse: Callable[[], Browser], start: Callable[..., Run], as_ann: Caller, api: Caller
) -> None:
    """A notebook is for its owner. A tensorboard is as public as its project."""
    start(NOTEBOOK)
    tensorboard, browser = start(TENSORBOARD), browse()
    assert browser.open(f"{NOTEBOOK}/?token={as_ann.token}")[1].status_code == 403
    assert browser.open(f"{TENSORBOARD}/?token={as_ann.token}")[1].status_code == 200
    api.patch(P, {"is_public": False})
    assert browser.ask(own(tensorboard, browser, "/x")).status_code == 403
    assert browser.open(f"{TENSORBOARD}/")[1].status_code == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:{port}", "http://tensorboard-0.localhost:{port}", "null"])
def test_pages_of_other_origins_use_no_cookie(
    origin: str, browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, program: Program
) -> None:
    run, browser = start(NOTEBOOK), browse()
    cookie = entered(browser, NOTEBOOK, api.token)
    program.asked.clear()
    headers = {"Origin": origin.format(port=browser.place.partition(":")[2])}
    for method in ("GET", "POST", "DELETE"):
        assert browser.ask(own(run, browser, "/x"), method, headers=headers).status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        talk(run, browser, {"Cookie": f"{PAGE}={cookie}", **headers})
    assert refused.value.response.status_code == 403
    assert program.asked == []


def talk(run: Run, browser: Browser, headers: dict[str, str]) -> None:
    port = browser.place.partition(":")[2]
    url = own(run, browser, f"{NOTEBOOK}/ws").replace("http", "ws", 1)
    given = dict(headers)
    origin = given.pop("Origin", None)
    with connect(
        url, address=("127.0.0.1", int(port)), additional_headers=given, origin=origin, proxy=None, open_timeout=60
    ) as client:
        client.send("hello")
        assert client.recv(timeout=60) == "hello"


def test_a_websocket_at_the_own_origin(
    browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, program: Program
) -> None:
    run, browser = start(NOTEBOOK), browse()
    cookie = entered(browser, NOTEBOOK, api.token)
    talk(run, browser, {"Cookie": f"_xsrf=1; {PAGE}={cookie}", "Origin": own(run, browser).rstrip("/")})
    assert headers_of(program.asked[-1])["cookie"] == "_xsrf=1"
    for wrong in ({}, {"Cookie": f"{PAGE}=x"}, {"Cookie": f"{SESSION}={browser.jar[browser.place][SESSION]}"}):
        with pytest.raises(InvalidStatus):
            talk(run, browser, wrong)


def test_no_websocket_at_the_path_for_a_browser_that_has_the_own_origin(
    live: str, browse: Callable[[], Browser], start: Callable[..., Run], api: Caller
) -> None:
    start(NOTEBOOK)
    browser = browse()
    entered(browser, NOTEBOOK, api.token)
    session = browser.jar[browser.place][SESSION]
    url = f"{live.replace('http', 'ws', 1)}{NOTEBOOK}/ws"
    with pytest.raises(InvalidStatus), connect(url, additional_headers={"Cookie": f"{SESSION}={session}"}, proxy=None):
        pytest.fail("it was opened")


def test_an_origin_without_a_server(browse: Callable[[], Browser], start: Callable[..., Run], a_job: Run) -> None:
    start(NOTEBOOK)
    browser = browse()
    port = browser.place.partition(":")[2]
    for name in (f"notebook-{'0' * 32}", f"notebook-{a_job.uuid}", f"tensorboard-{a_job.uuid}"):
        assert browser.ask(f"http://{name}.localhost:{port}/").status_code == 404


def test_a_server_that_has_ended(
    browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, store: Store
) -> None:
    run, browser = start(NOTEBOOK), browse()
    entered(browser, NOTEBOOK, api.token)
    store.runs.transition(run, Status.STOPPED)
    answer = browser.ask(own(run, browser, f"{NOTEBOOK}/"))
    assert (answer.status_code, "Not running" in answer.text) == (404, True)


def test_containers_have_no_way_in(
    serving: Callable[..., TestClient], start: Callable[..., Run], api: Caller, program: Program
) -> None:
    bridge, run = serving(bridge=True), start(NOTEBOOK)
    headers = {"Host": host_name(run), "Authorization": f"Token {api.token}"}
    for path in ("/", "/polylocal/v1/enter?code=x", f"{NOTEBOOK}/"):
        assert bridge.get(path, headers=headers).status_code == 404
    assert program.asked == []


# -- without separate origins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["192.168.1.7:8000", "10.0.0.1"])
def test_a_browser_on_another_machine_sees_the_page_at_the_apis_origin(
    host: str, browse: Callable[[], Browser], start: Callable[..., Run], api: Caller
) -> None:
    """Names below `localhost` would lead the browser to its own machine. The log-in page explains the consequence."""
    start(NOTEBOOK)
    browser = browse()
    browser.place = host
    form = browser.ask(f"{NOTEBOOK}/")
    assert (form.status_code, "share one origin" in form.text) == (401, True)
    url, answer = browser.open(f"{NOTEBOOK}/?token={api.token}")
    assert (answer.status_code, urlsplit(url).netloc) == (200, host)


def test_the_risk_of_published_ports_is_reported(
    serving: Callable[..., TestClient], context: ApiContext, start: Callable[..., Run]
) -> None:
    start(NOTEBOOK)
    published = serving(replace(context, reaches_containers=lambda: False))
    assert "is sent your session" in published.get(f"{NOTEBOOK}/").text
    assert "is sent your session" not in serving().get(f"{NOTEBOOK}/").text


def test_on_this_machine_there_is_no_warning(browse: Callable[[], Browser], start: Callable[..., Run]) -> None:
    start(NOTEBOOK)
    assert "share one origin" not in browse().ask(f"{NOTEBOOK}/").text


def test_a_browser_that_can_not_resolve_the_name_is_offered_the_apis_origin(
    browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "_LOST_S", 0.0)
    start(NOTEBOOK)
    browser = browse()
    browser.ask(f"{NOTEBOOK}/tree?token={api.token}")
    navigation = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
    first = browser.ask(f"{NOTEBOOK}/tree", headers=navigation)
    assert first.status_code == 303  # the browser can't resolve the new name
    offered = browser.ask(f"{NOTEBOOK}/tree", headers=navigation)
    assert (offered.status_code, "shares one origin" in offered.text) == (200, True)
    form = {"next": f"{NOTEBOOK}/tree"}
    elsewhere = browser.ask(
        "/polylocal/v1/session/one-origin", "POST", data=form, headers={"Origin": "http://127.0.0.1:1"}
    )
    assert (elsewhere.status_code, ONE_ORIGIN in browser.jar[browser.place]) == (403, False)
    chosen = browser.ask("/polylocal/v1/session/one-origin", "POST", data=form)
    assert (chosen.status_code, chosen.headers["location"]) == (303, f"{NOTEBOOK}/tree")
    assert f"Path={NOTEBOOK}/" in chosen.headers["set-cookie"]  # for this page alone
    assert browser.ask(f"{NOTEBOOK}/tree", headers=navigation).status_code == 200


@pytest.mark.parametrize("rest", ["", "?a=b", "/", "/tree?a=b"])
def test_the_apis_origin_is_offered_for_each_spelling_of_a_page(
    rest: str, browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, program: Program
) -> None:
    start(TENSORBOARD)
    browser = browse()
    browser.ask(f"{TENSORBOARD}/?token={api.token}")
    chosen = browser.ask("/polylocal/v1/session/one-origin", "POST", data={"next": f"{TENSORBOARD}{rest}"})
    assert f"Path={TENSORBOARD}/;" in chosen.headers["set-cookie"]
    assert chosen.headers["location"] == f"{TENSORBOARD}/{rest.lstrip('/')}"


@pytest.mark.parametrize("page", ["b\r\nX-Y: z", "b;Domain=x", "\N{CYRILLIC SMALL LETTER BE}", "b\0", "b\n"])
@pytest.mark.parametrize("end", ["/", "/x", ""])
def test_invalid_pages_never_get_into_headers(page: str, end: str, browse: Callable[[], Browser]) -> None:
    form = {"next": f"/notebook/a/{page}{end}"}
    answer = browse().ask("/polylocal/v1/session/one-origin", "POST", data=form)
    assert (answer.status_code, "set-cookie" in answer.headers, "x-y" in answer.headers) == (400, False, False)


def test_a_prefetched_page_is_not_a_lost_one(
    browse: Callable[[], Browser], start: Callable[..., Run], api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Browsers prefetch pages that a user may open, and don't follow redirects to other hosts then."""
    monkeypatch.setattr(proxy, "_LOST_S", 0.0)
    start(NOTEBOOK)
    browser = browse()
    browser.ask(f"{NOTEBOOK}/tree?token={api.token}")
    navigation = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
    guessed = browser.ask(f"{NOTEBOOK}/tree", headers={**navigation, "Sec-Purpose": "prefetch;prerender"})
    assert guessed.status_code == 503  # a status that browsers don't show
    assert browser.ask(f"{NOTEBOOK}/tree", headers=navigation).status_code == 303


# -- names and headers ----------------------------------------------------------------------------------------------


def test_names_of_own_origins(start: Callable[..., Run]) -> None:
    run = start(NOTEBOOK)
    name = host_name(run)
    for host in (name, f"{name}:8000", f"{name.upper()}:1", f"{name}.:8000", f"x.{name}", f"a.b.{name}:1"):
        assert server_of(host) == (Kind.NOTEBOOK, run.uuid)
    others = ("", "localhost", "127.0.0.1:8000", f"x{name}", f"{name}.evil.example", f"job-{run.uuid}.localhost")
    for host in (None, *others):
        assert server_of(host) is None


@pytest.mark.parametrize(
    ("host", "listens_on", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", ":8000"),
        ("localhost:9000", "127.0.0.1", ":9000"),  # through a tunnel
        ("box.localhost", "0.0.0.0", ""),
        ("[::1]:8000", "::1", ":8000"),
        ("192.168.1.7:8000", "0.0.0.0", None),
        ("box.lan:8000", "0.0.0.0", None),
        ("127.0.0.1:8000", "127.0.0.2", None),  # names below localhost lead to 127.0.0.1
        ("192.168.1.7:8000", "192.168.1.7", None),
        (None, "127.0.0.1", None),
    ],
)
def test_which_browsers_have_own_origins(
    host: str | None, listens_on: str, port: str | None, start: Callable[..., Run]
) -> None:
    run = start(TENSORBOARD)
    expected = None if port is None else f"http://tensorboard-{run.uuid}.localhost{port}"
    assert own_origin(run, host, listens_on) == expected


def test_our_own_pages_are_strict(browse: Callable[[], Browser], start: Callable[..., Run]) -> None:
    run, browser = start(NOTEBOOK), browse()
    for url in (f"{NOTEBOOK}/", "/notebook/root/nosuch/", own(run, browser), own(run, browser, "/polylocal/v1/enter")):
        answer = browser.ask(url)
        assert answer.headers["content-type"].startswith("text/html")
        policy = answer.headers["content-security-policy"]
        for rule in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert rule in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"]


@pytest.mark.parametrize("path", ["/healthz", P, "/api/v1/openapi.json", "/downloads/", "/nosuch"])
def test_data_is_not_a_page(path: str, nobody: Caller) -> None:
    """Not even for a browser that is tricked into taking it for a page."""
    policy = nobody.get(path).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "sandbox" in policy


@each_page
def test_a_program_is_asked_at_its_own_address(
    page: str, browse: Callable[[], Browser], start: Callable[..., Run], store: Store, api: Caller
) -> None:
    """Without published container ports on this machine."""
    with running(Program(), "127.0.0.9") as elsewhere:
        run, browser = start(page), browse()
        store.runs.record(run, address="127.0.0.9", port=elsewhere.port)
        assert browser.open(f"{page}/x?token={api.token}")[1].status_code == 200
        assert len(elsewhere.asked) == 1
