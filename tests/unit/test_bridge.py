"""The addresses where the daemon listens for containers."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fake_engine import FakeEngine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support import eventually

from polylocal.daemon.bridge import Gateways, serve_containers
from polylocal.engine.plan import HOME_LABEL, OWN_NETWORK, RUN_LABEL, ContainerPlan
from polylocal.errors import ContainerMissing, EngineError
from polylocal.settings import load
from polylocal.store import Store

GATEWAYS = {"bridge": "127.77.0.1", OWN_NETWORK: "127.77.1.1"}


class Engine(FakeEngine):
    """An engine with networks whose gateways are loopback addresses."""

    broken = ""

    def gateway(self, network: str) -> str | None:
        if network == self.broken:
            raise EngineError(f"the network {network} is broken")
        if network not in GATEWAYS:
            raise ContainerMissing(f"network {network} not found")
        return GATEWAYS[network]

    def has_run_on(self, network: str) -> None:
        labels = {HOME_LABEL: "home", RUN_LABEL: f"job/{network}"}
        self.create(ContainerPlan(f"plx-job-{network}", "base", ["/bin/sh", "-c", "sleep 60"], labels, network=network))


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "polylocal.db")
    yield store
    store.close()


def bridge(engine: Engine, store: Store, tmp_path: Path, **settings: str) -> Gateways:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the API")

    app = Starlette(routes=[Route("/", answer)])
    opened = Gateways(engine, load(home=tmp_path, **settings), 8000, store, "home")
    serve_containers(app, opened.listeners)
    return opened


def answer(url: str) -> str:
    try:
        return httpx2.get(url, timeout=5.0).text
    except httpx2.HTTPError:
        return ""


def test_runs_reach_the_api_on_the_gateway_of_the_own_network(engine: Engine, store: Store, tmp_path: Path) -> None:
    url = bridge(engine, store, tmp_path).url()
    assert url.startswith(f"http://{GATEWAYS[OWN_NETWORK]}:")
    assert eventually(lambda: answer(url)) == "the API"


def test_runs_that_an_earlier_daemon_started_on_another_network_still_reach_it(
    engine: Engine, store: Store, tmp_path: Path
) -> None:
    engine.has_run_on("bridge")
    opened = bridge(engine, store, tmp_path)
    opened.open()
    assert {url.rpartition(":")[0] for url in opened._urls.values()} == {
        f"http://{address}" for address in GATEWAYS.values()
    }
    for url in opened._urls.values():
        assert eventually(lambda url=url: answer(url)) == "the API"


def test_each_gateway_keeps_its_port_from_one_daemon_to_the_next(engine: Engine, store: Store, tmp_path: Path) -> None:
    with socket.create_server((GATEWAYS["bridge"], 0)) as free:
        port = str(free.getsockname()[1])
    store.save_fact("bridge_port", port)  # as stored by a daemon that used only one network
    engine.has_run_on("bridge")
    opened = bridge(engine, store, tmp_path)
    opened.open()
    assert answer(f"http://{GATEWAYS['bridge']}:{port}") == "the API"
    assert store.fact(f"bridge_port {GATEWAYS['bridge']}") == port


def test_without_such_runs_nothing_else_is_listened_on(engine: Engine, store: Store, tmp_path: Path) -> None:
    opened = bridge(engine, store, tmp_path)
    opened.open()
    assert list(opened._urls) == [GATEWAYS[OWN_NETWORK]]


def test_a_missing_or_broken_network_blocks_no_other(
    engine: Engine, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.has_run_on("gone")
    engine.has_run_on("bridge")
    engine.broken = OWN_NETWORK
    opened = bridge(engine, store, tmp_path)
    with caplog.at_level(logging.WARNING):
        opened.open()
    assert list(opened._urls) == [GATEWAYS["bridge"]]
    assert "the network gone can't reach the API" in caplog.text
    with pytest.raises(EngineError, match="broken"):
        opened.url()


def test_a_gateway_that_changed_is_listened_on_as_well(
    engine: Engine, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = bridge(engine, store, tmp_path)
    first = opened.url()
    monkeypatch.setitem(GATEWAYS, OWN_NETWORK, "127.77.2.1")
    second = opened.url()
    assert first != second
    assert eventually(lambda: answer(second)) == "the API"


def test_runs_on_the_hosts_network_use_loopback(engine: Engine, store: Store, tmp_path: Path) -> None:
    assert bridge(engine, store, tmp_path, network="host").url() == "http://127.0.0.1:8000"
