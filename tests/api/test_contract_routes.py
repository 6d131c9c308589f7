"""Every path of the contract is served: `contract/routes.txt` lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.routing import Match, Route, WebSocketRoute
from starlette.testclient import TestClient

from polylocal.api.app import ENDPOINTS
from polylocal.store.rows import Run

from .conftest import Caller, P, fill_path

LIST = Path(__file__).with_name("contract") / "routes.txt"


def documented() -> list[str]:
    """`METHOD path`, with one line for each kind."""
    found = []
    for line in LIST.read_text().splitlines():
        if line and not line.startswith("#"):
            method, path, *words = line.split()
            found += [f"{method} {path.replace('{kind}', word)}" for word in words or [""]]
    return found


def test_the_list_has_no_line_twice() -> None:
    assert len(documented()) == len(set(documented()))
    assert len(documented()) > 250
    assert not [line for line in documented() if "{kind}" in line]


def test_every_documented_path_is_served(http: TestClient) -> None:
    """By a route that takes the method. Endpoints share routes: their own table says which methods a path takes."""
    methods = {(e.method, shape(e.path)) for e in ENDPOINTS}
    missing = []
    for line in documented():
        method, _, path = line.partition(" ")
        route = route_of(http, method, fill_path(path))
        is_page = path.startswith(("/notebook/", "/tensorboard/"))
        if route is None or not (is_page or method == "WS" or (method, shape(route)) in methods):
            missing.append(line)
    assert missing == []


def route_of(http: TestClient, method: str, path: str) -> str | None:
    """The path of the route that a request is given to."""
    wanted = WebSocketRoute if method == "WS" else Route
    scope = {"type": "websocket" if method == "WS" else "http", "method": method, "path": path}
    for route in http.app.routes:  # type: ignore[attr-defined]
        if isinstance(route, wanted) and route.matches(scope)[0] is Match.FULL:
            return route.path
    return None


def shape(path: str) -> str:
    return re.sub(r"\{(\w+)(:\w+)?\}", "{}", path)


@pytest.mark.parametrize("path", [P, f"{P}/jobs", f"{P}/jobs/1", "/api/v1/users", "/api/v1/root"])
def test_a_path_with_its_format_behind_it(path: str, api: Caller, a_job: Run) -> None:
    """Every path of the API takes `.json`."""
    assert api.get(f"{path}.json").json() == api.get(path).json()
    assert api.get("/api/v1/openapi.json").json()["openapi"]
