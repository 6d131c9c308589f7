"""A hostile notebook in a real browser. Its reader is a logged-in admin who has another notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import httpx2
import pytest
from playwright.sync_api import BrowserContext, Page
from support import eventually

from polylocal.statuses import Kind
from polylocal.store import Store
from ui.site import TIMEOUT_S, Site, Visitor

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

PROGRAMS = Path(__file__).parent / "programs"


def server(program: str) -> dict[str, Any]:
    """A notebook with one of the programs in place of Jupyter."""
    start = f"exec python3 /code/{program}.py $@"
    steps = [f"printf '#!/bin/sh\\n{start}\\n' > /usr/local/bin/jupyter", "chmod +x /usr/local/bin/jupyter"]
    build = {"image": "python:3.11-slim", "lang_env": "C.UTF-8", "build_steps": steps}
    return {"version": 1, "kind": "notebook", "build": build}


class Account:
    """A user of the daemon, by the REST API."""

    def __init__(self, site: Site, name: str, token: str) -> None:
        self.site, self.name, self.token = site, name, token

    def call(self, method: str, path: str, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Token {self.token}"}
        answer = httpx2.request(method, f"{self.site.url}/api/v1/{path}", headers=headers, timeout=60, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def start_notebook(self, project: str, program: str) -> str:
        """Returns the documented URL of the page once the notebook runs."""
        self.call("POST", "projects/", json={"name": project})
        path = f"{self.name}/{project}"
        upload(self, path, {f"{program}.py": (PROGRAMS / f"{program}.py").read_text()})
        made = self.call("POST", f"{path}/notebook/start/", json={"config": server(program)}).json()
        self.site.wait_for_status(f"{path}/notebooks/{made['id']}", "running")
        return f"{self.site.url}/notebook/{path}/"


def upload(account: Account, path: str, files: dict[str, str]) -> None:
    archive = account.site.archive(files)
    account.call("PUT", f"{path}/repo/upload/", files={"repo": ("repo.tar.gz", archive)})


@pytest.fixture(scope="module")
def urls(site: Site) -> dict[str, str]:
    """The documented URLs of the reader's notebook and of the hostile one."""
    reader, attacker = Account(site, "root", site.token), Account(site, "mallory", site.add_user("mallory"))
    return {
        "mine": reader.start_notebook("precious", "victim"),
        "hostile": attacker.start_notebook("bait", "hostile"),
        "token": attacker.token,
    }


@pytest.fixture
def reader(site: Site, urls: dict[str, str], visitor: Visitor) -> BrowserContext:
    """A browser in which the reader is logged in and has opened their own notebook."""
    page = visitor()
    page.goto(f"{urls['mine']}?token={site.token}")
    page.get_by_role("heading", name="my notebook").wait_for(timeout=TIMEOUT_S * 1000)
    return page.context


def hostile(reader: BrowserContext, urls: dict[str, str]) -> Page:
    page = reader.new_page()
    page.goto(urls["hostile"])
    page.get_by_role("heading", name="a nice notebook").wait_for()
    return page


def mine(reader: BrowserContext) -> Page:
    return reader.pages[0]


def check_nothing_changed(reader: BrowserContext, site: Site, urls: dict[str, str]) -> None:
    """The reader is still logged in, and the notebook is unchanged."""
    page = reader.new_page()
    page.goto(urls["mine"])
    page.get_by_role("heading", name="my notebook").wait_for()
    assert page.evaluate("localStorage.secret") == "kept"
    assert page.evaluate("document.cookie") == "mine=1"
    assert page.evaluate("navigator.serviceWorker.controller === null")
    sessions = [cookie for cookie in reader.cookies(site.url) if cookie["name"] in ("polylocal_session", "user")]
    assert {cookie["name"]: cookie["value"] for cookie in sessions}["user"] == "root"
    assert len(sessions) == 2
    page.close()


def tried(page: Page, script: str, argument: object = None) -> Any:
    return page.evaluate(script, argument)


READ = """async ([url, options]) => {
    try { const answer = await fetch(url, options); return answer.type === "opaque" ? "opaque" : answer.status }
    catch (error) { return error.name }
}"""


def test_each_has_an_origin_of_its_own(reader: BrowserContext, site: Site, urls: dict[str, str]) -> None:
    page = hostile(reader, urls)
    hosts = {urlsplit(url).hostname for url in (page.url, mine(reader).url, site.url)}
    assert len(hosts) == 3
    assert tried(page, "window.isSecureContext")
    check_nothing_changed(reader, site, urls)


def test_it_reads_no_cookie_no_storage_and_no_token(reader: BrowserContext, site: Site, urls: dict[str, str]) -> None:
    page = hostile(reader, urls)
    values = [cookie["value"] for cookie in reader.cookies() if len(cookie["value"]) > 20]
    assert len(values) >= 3  # the session, and one for each page
    assert tried(page, "document.cookie") == "planted=1"  # the page's own cookie, without the domain that it requested
    assert tried(page, "Object.keys(localStorage)") == []
    told = tried(page, "async () => (await fetch('told')).text()")
    assert [secret for secret in (*values, site.token) if secret in told] == []
    assert "polylocal" not in told
    check_nothing_changed(reader, site, urls)


def test_it_asks_other_origins_for_nothing_as_its_reader(
    reader: BrowserContext, site: Site, urls: dict[str, str]
) -> None:
    page = hostile(reader, urls)
    own = mine(reader).url
    seen = mine(reader).evaluate("async () => (await fetch('seen')).json()")
    with_cookies = {"credentials": "include"}
    for url in (f"{site.url}/api/v1/users/", f"{site.url}/api/v1/root/precious/", urls["mine"], own, site.url):
        assert tried(page, READ, [url, with_cookies]) == "TypeError"
        for method in ("GET", "POST"):  # the page can't read the answer, but the request must not have an effect either
            assert tried(page, READ, [url, {**with_cookies, "mode": "no-cors", "method": method}]) == "opaque"
    socket = """url => new Promise(done => {
        const socket = new WebSocket(url.replace("http", "ws") + "api/events")
        socket.onopen = () => done("open"); socket.onerror = () => done("refused")
    })"""
    for url in (own, urls["mine"]):
        assert tried(page, socket, url) == "refused"
    assert mine(reader).evaluate("async () => (await fetch('seen')).json()") == seen
    check_nothing_changed(reader, site, urls)


def test_no_service_worker_takes_over(reader: BrowserContext, site: Site, urls: dict[str, str]) -> None:
    page = hostile(reader, urls)
    register = """async scope => {
        try { return (await navigator.serviceWorker.register("worker.js", {scope})).scope }
        catch (error) { return error.name }
    }"""
    assert tried(page, register, "/") == "SecurityError"  # the header that would allow it is not passed on
    own = tried(page, register, urlsplit(page.url).path)
    assert urlsplit(own).hostname == urlsplit(page.url).hostname  # below its own path, at its own origin
    check_nothing_changed(reader, site, urls)
    form = reader.browser.new_context().new_page()
    form.goto(urls["mine"])
    form.get_by_role("heading", name="Log in").wait_for()
    form.context.close()


def test_it_clears_and_plants_nothing(reader: BrowserContext, site: Site, urls: dict[str, str]) -> None:
    page = hostile(reader, urls)
    tried(page, "async () => { await fetch('again'); await fetch('again', {method: 'POST'}) }")
    for domain in ("localhost", ".localhost", "127.0.0.1", urlsplit(mine(reader).url).hostname):
        tried(page, "domain => { document.cookie = `polylocal_session=x; path=/; domain=${domain}` }", domain)
        tried(page, "domain => { document.cookie = `polylocal_page=x; path=/; domain=${domain}` }", domain)
    own = urlsplit(page.url).hostname
    planted = [cookie for cookie in reader.cookies() if cookie["domain"] != own and cookie["value"] in ("x", "hostile")]
    assert planted == []
    page.reload()
    page.get_by_role("heading", name="a nice notebook").wait_for()  # it still has the cookie of its own origin
    check_nothing_changed(reader, site, urls)


def test_it_frames_no_page_and_gets_hold_of_no_window(reader: BrowserContext, site: Site, urls: dict[str, str]) -> None:
    page = hostile(reader, urls)
    frame = """url => new Promise(done => {
        const frame = document.createElement("iframe")
        frame.onload = () => done()
        frame.src = url
        document.body.append(frame)
    })"""
    nobody = f"{site.url}/notebook/root/nosuch/"
    for url in (urls["mine"], nobody, f"{site.url}/api/v1/users/", f"{site.url}/healthz", mine(reader).url):
        tried(page, frame, url)

    def framed() -> set[str]:
        tried(page, "1")  # handles all events that the browser has already sent
        return {found.url for found in page.frames if found.parent_frame}

    eventually(lambda: "" not in framed())  # no request is pending
    assert framed() == {"chrome-error://chromewebdata/"}
    with page.expect_popup() as opened:
        tried(page, "url => { window.opened = window.open(url) }", urls["mine"])
    opened.value.wait_for_load_state()
    reach = "() => { try { return window.opened.document.title } catch (error) { return error.name } }"
    assert tried(page, reach) == "SecurityError"
    check_nothing_changed(reader, site, urls)


def test_it_can_not_change_the_readers_login(reader: BrowserContext, site: Site, urls: dict[str, str]) -> None:
    page = hostile(reader, urls)
    image = """url => new Promise(done => {
        const image = new Image(); image.onload = image.onerror = () => done(); image.src = url
    })"""
    tried(page, image, f"{site.url}/api/v1/users/logout/")
    for path in ("/polylocal/v1/session", "/polylocal/v1/session/one-origin", "/api/v1/users/logout/"):
        with page.expect_popup() as opened:
            tried(
                page,
                """([url, token]) => {
                    const form = document.createElement("form")
                    Object.assign(form, {method: "post", action: url, target: "_blank"})
                    for (const [name, value] of [["token", token], ["next", "/notebook/root/precious/"]]) {
                        form.append(Object.assign(document.createElement("input"), {name, value}))
                    }
                    document.body.append(form)
                    form.submit()
                }""",
                [site.url + path, urls["token"]],
            )
        opened.value.wait_for_load_state()
        assert "page of another site" in opened.value.content()
    with page.expect_popup() as opened:  # a link that contains credentials
        tried(page, "url => { window.open(url) }", f"{urls['mine']}?token={urls['token']}")
    opened.value.get_by_role("heading", name="my notebook").wait_for()
    check_nothing_changed(reader, site, urls)


def test_no_container_port_is_published_at_the_apis_address(site: Site, urls: dict[str, str]) -> None:
    """Browsers send cookies to all ports of a host, so a container on another port would receive them."""
    store = Store(site.daemon.home / "polylocal.db")
    project = store.projects.get("mallory", "bait")
    run = store.runs.server(project, Kind.NOTEBOOK)
    store.close()
    client = docker.from_env()
    found = client.api.inspect_container(run.container_id)
    client.close()
    assert not any((found["NetworkSettings"]["Ports"] or {}).values())
    assert run.address not in (None, "127.0.0.1", urlsplit(site.url).hostname)
