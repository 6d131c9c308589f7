"""A notebook in a real browser: opening, editing and stopping it through the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Response, expect
from support import BUSYBOX, eventually

from ui.site import IMAGE, TIMEOUT_MS, Site, Visitor

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

NOTEBOOK = {"kind": "notebook", "build": IMAGE}


KERNEL = "Python 3 (ipykernel)"


def notebook_file() -> str:
    """A notebook with one empty cell and a preset kernel, so that Jupyter does not ask for one."""
    kernel = {"name": "python3", "display_name": KERNEL, "language": "python"}
    cell = {"cell_type": "code", "id": "first", "metadata": {}, "outputs": [], "source": "", "execution_count": None}
    return json.dumps({"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


FILES = {"work.ipynb": notebook_file(), "train.py": "print('training')\n"}


def run_cell(page: Page, source: str, output: str) -> None:
    """Type into the last cell, run it, and check its output.

    It first waits for the name of the kernel: the page says "idle" before it is connected, and a cell that is run then
    replaces the existing kernel. It repeats the attempt: once the kernel has sent its language, editors are created
    again without the typed text, and before Jupyter has loaded its settings the keys have no effect.
    """
    expect(page.locator(".jp-Toolbar-kernelName")).to_have_text(KERNEL)
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle")
    cell = page.locator(".jp-CodeCell .cm-content[data-language=python]").last

    def is_run() -> bool:
        cell.fill(source)
        if source.splitlines()[-1] not in cell.inner_text():
            return False
        cell.press("Shift+Enter")
        try:
            expect(page.locator(".jp-OutputArea-output").last).to_have_text(output, timeout=15_000)
        except AssertionError:
            return False
        return True

    try:
        eventually(is_run, 120)
    except AssertionError as error:
        raise AssertionError(f"{source!r} was not run; the page says:\n{page.locator('body').inner_text()}") from error


@contextmanager
def with_log_of_jupyter(site: Site, project: str) -> Iterator[None]:
    """Adds Jupyter's log to a failed assertion. The log shows whether a kernel died or another one was started."""
    try:
        yield
    except AssertionError as error:
        newest = site.call("GET", f"{project}/notebooks/", params={"sort": "-id"}).json()["results"][0]
        error.add_note(site.call("GET", f"{project}/notebooks/{newest['id']}/logs").text)
        raise


def save(page: Page) -> None:
    with page.expect_response(lambda answer: answer.request.method == "PUT" and "/contents/" in answer.url) as answer:
        page.keyboard.press("Control+s")
    assert answer.value.ok


def refusals(page: Page) -> list[str]:
    """The failed requests of this browser's pages from now on."""
    found: list[str] = []

    def look(answer: Response) -> None:
        if answer.status >= 400 and not answer.request.is_navigation_request():
            found.append(f"{answer.status} {answer.request.method} {answer.url}")

    page.context.on("response", look)
    return found


def test_work_is_saved_and_committed(site: Site, visitor: Visitor) -> None:
    """The page waits for the image and the program automatically."""
    project = site.project("paper", FILES)
    run = site.launch(f"{project}/notebook", NOTEBOOK)
    page = visitor()
    refused = refusals(page)
    page.goto(f"{site.url}/notebook/{project}/?token={site.token}")
    expect(page.get_by_role("heading", name="Starting")).to_be_visible()
    expect(page.get_by_text("train.py")).to_be_visible(timeout=TIMEOUT_MS)
    assert "token" not in page.url
    assert refused == []

    with page.context.expect_page() as opened:
        page.get_by_text("work.ipynb").dblclick()
    notebook = opened.value
    run_cell(notebook, "n = open('made.txt', 'w').write('by hand')\nprint(f'wrote {n}')", "wrote 7")
    save(notebook)
    assert refused == []

    site.call("POST", f"{project}/notebook/stop/")
    site.wait_for_status(run, "stopped")
    code = site.code(project)
    assert (code["made.txt"], code["train.py"]) == ("by hand", FILES["train.py"])
    assert "wrote 7" in code["work.ipynb"]
    page.reload()
    expect(page.get_by_role("heading", name="Not running")).to_be_visible()


def socket_of(page: Page, project: str) -> str:
    """The result of opening a websocket to the notebook: open or refused."""
    script = """path => new Promise(done => {
        const socket = new WebSocket(`ws://${location.host}${path}`)
        socket.onopen = () => done("open")
        socket.onerror = () => done("refused")
    })"""
    return page.evaluate(script, f"/notebook/{project}/api/events/subscribe")


@pytest.fixture(scope="module")
def running(site: Site) -> str:
    """The path of a private project with a running notebook, in the other one of Jupyter's two interfaces.

    The last test stops it.
    """
    project = site.project("mine", FILES, is_public=False)
    site.start(f"{project}/notebook", {**NOTEBOOK, "backend": "lab"})
    return project


def test_a_token_is_asked_for(site: Site, running: str, visitor: Visitor) -> None:
    page = visitor()
    page.goto(f"{site.url}/notebook/{running}/lab?token=wrong")
    for token, expected in (("mistyped", "Invalid token"), (site.token, "train.py")):
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.get_by_placeholder("token").fill(token)
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_text(expected).first).to_be_visible(timeout=TIMEOUT_MS)
    assert urlsplit(page.url).path.startswith(f"/notebook/{running}/lab")
    assert urlsplit(page.url).hostname.endswith(".localhost")  # at a separate origin
    assert socket_of(page, running) == "open"


def test_another_user_is_refused(site: Site, running: str, visitor: Visitor) -> None:
    page, token = visitor(), site.add_user("eve")
    answer = page.goto(f"{site.url}/notebook/{running}/?token={token}")
    assert answer.status in (403, 404)
    expect(page.get_by_role("heading", name="Not")).to_be_visible()
    assert socket_of(page, running) == "refused"


def test_the_page_works_again_after_kill_9(site: Site, running: str, visitor: Visitor) -> None:
    page = visitor()
    page.goto(f"{site.url}/notebook/{running}/lab/tree/work.ipynb?token={site.token}")
    run_cell(page, "kept = 6 * 7\nprint('set')", "set")
    save(page)
    again = page.context.new_page()
    page.close()  # closes its connections, too: it would start another kernel when its own is gone
    site.restart()
    again.goto(f"{site.url}/notebook/{running}/lab/tree/work.ipynb")
    expect(again.locator(".jp-OutputArea-output").last).to_have_text("set")
    with with_log_of_jupyter(site, running):
        run_cell(again, "print(kept)", "42")


def test_an_image_without_jupyter(site: Site) -> None:
    project = site.project("bare")
    run = site.launch(f"{project}/notebook", {"kind": "notebook", "build": {"image": BUSYBOX}})
    site.wait_for_status(run, "failed")
    assert "the image has no jupyter: install it with a build step, `pip install notebook`" in site.history(run)[-1][1]


def test_work_is_discarded_when_asked(site: Site, running: str, visitor: Visitor) -> None:
    page = visitor()
    page.goto(f"{site.url}/notebook/{running}/lab/tree/work.ipynb?token={site.token}")
    run_cell(page, "print(open('made.txt', 'w').write('by hand'))", "7")
    save(page)
    assert site.call("POST", f"{running}/notebook/stop/", json={"commit": False}).text == ""
    newest = site.call("GET", f"{running}/notebooks/", params={"sort": "-id"}).json()["results"][0]
    site.wait_for_status(f"{running}/notebooks/{newest['id']}", "stopped")
    assert site.code(running) == FILES
