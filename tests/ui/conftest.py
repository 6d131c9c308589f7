"""A real browser and a real daemon, shared by the tests of this folder."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, ProxySettings, expect, sync_playwright
from support import start_daemon, sweep

from polylocal.store import Store
from ui import quiet
from ui.site import Site, Visitor

TIMEOUT_MS = 120_000  # for a slow machine; waits end as soon as the page is ready
# root can't use the sandbox; without WebGL, TensorBoard draws its curves as elements that tests can find
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-3d-apis"]


@pytest.fixture(scope="package")
def site(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("ui") / "home"
    flags, env = ("--max-runs", "4"), {"POLYLOCAL_GRACE_S": "5"}
    made = Site(start_daemon(home, *flags, env=env), flags, env)
    yield made
    made.daemon.kill()
    store = Store(home / "polylocal.db")
    installation = store.installation()
    store.close()
    sweep(engine_address, installation)


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Tests fail without a browser; scripts/ensure-browser installs one where possible."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("POLYLOCAL_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail("tests of pages need a browser: scripts/ensure-browser finds or installs one")
    launcher = tmp_path_factory.mktemp("browser") / "chromium"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join((sys.executable, quiet.__file__, found))} "$@"\n')
    launcher.chmod(0o755)
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        # Playwright excludes loopback addresses from a proxy by default
        proxy: ProxySettings = {"server": quiet.PROXY_URL, "bypass": "<-loopback>"}
        browser = playwright.chromium.launch(executable_path=launcher, args=CHROMIUM_FLAGS, proxy=proxy)
        yield browser
        browser.close()


def _report_failed_requests(page: Page) -> None:
    """Print failed requests, since the page itself only says that something failed."""
    page.on("requestfailed", lambda asked: print(f"{page.url}: {asked.method} {asked.url}: {asked.failure}"))


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """A page in a fresh browser context, without cookies and history."""
    contexts = []

    def visit() -> Page:
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        context.on("page", _report_failed_requests)
        return context.new_page()

    yield visit
    for context in contexts:
        context.close()
