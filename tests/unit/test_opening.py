"""The choice of the engine, and of a proxy for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest

from polylocal.daemon import engine_setup
from polylocal.engine import opening
from polylocal.engine.docker.client import Client
from polylocal.engine.docker.probe import Attempt, Report
from polylocal.settings import load

NOBODY = Report(None, (), "No Docker engine answers")


def test_the_engine_that_answers_is_used() -> None:
    found = Attempt("unix:///run/docker.sock", "default socket", "answers")
    assert opening.address_of(Report(found, (found,), ""), "tcp://other:2375") == "unix:///run/docker.sock"


@pytest.mark.parametrize(
    ("wanted", "docker_host", "address"),
    [
        ("tcp://wanted:2375", "tcp://named:2375", "tcp://wanted:2375"),
        (None, "tcp://named:2375", "tcp://named:2375"),
        (None, "", opening.DEFAULT_ADDRESS),
    ],
)
def test_without_an_answer_the_engine_is_expected_where_it_was_named(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, docker_host: str, address: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    assert opening.address_of(NOBODY, wanted) == address


@pytest.mark.parametrize(
    ("address", "uses_proxy"),
    [
        ("tcp://127.0.0.1:2375", False),
        ("localhost:2375", False),
        ("tcp://[::1]:2375", False),
        ("https://engine.example:2376", True),
        ("engine.example:2375", True),
    ],
)
def test_an_engine_on_this_machine_is_not_reached_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, uses_proxy: bool
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(engine_setup, "open_engine", lambda address, **more: asked.update(more, address=address))
    engine_setup.engine_at(address, load(home=tmp_path, node="box"))
    assert (asked["address"], asked["uses_proxy"], asked["node"]) == (address, uses_proxy, "box")


@pytest.mark.parametrize(
    ("address", "uses_proxy", "trusts"),
    [
        ("tcp://engine.example:2375", True, True),
        ("tcp://engine.example:2375", False, False),
        ("unix:///run/docker.sock", True, False),
    ],
)
def test_the_client_reads_proxies_from_the_environment_only_where_it_may(
    monkeypatch: pytest.MonkeyPatch, address: str, uses_proxy: bool, trusts: bool
) -> None:
    trusted: list[bool] = []

    def version(client: Client) -> str:
        trusted.append(client.trust_env)
        return "1.41"

    monkeypatch.setattr(docker.APIClient, "_retrieve_server_version", version)
    Client(base_url=address, uses_proxy=uses_proxy).close()
    assert trusted == [trusts]
