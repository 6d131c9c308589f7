"""One real daemon with the real engine for all tests of a module. Its containers and images are removed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Daemon, running_daemon, sweep

from polylocal.client.http import Client
from polylocal.store import Store


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.csv").write_text("1,2,3\n")
    return folder


@pytest.fixture(scope="module")
def daemon(engine_address: str, tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("daemon") / "home"
    home.mkdir()
    elsewhere = f'{{path = "{data_folder}", mount = "/mnt/of/its/own", read_only = true}}'
    (home / "polylocal.toml").write_text(f'[data]\ntraining = "{data_folder}"\nelsewhere = {elsewhere}\n')
    fallbacks = {"POLYLOCAL_IMAGE_FALLBACKS": os.environ["POLYLOCAL_IMAGE_FALLBACKS"]} if _has_fallbacks() else {}
    with running_daemon(home, "--max-runs", "4", env={"POLYLOCAL_GRACE_S": "2", **fallbacks}) as started:
        yield started
    store = Store(home / "polylocal.db")
    installation = store.installation()
    store.close()
    sweep(engine_address, installation)


def _has_fallbacks() -> bool:
    return "POLYLOCAL_IMAGE_FALLBACKS" in os.environ


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    made = daemon.client()
    yield made
    made.close()


@pytest.fixture
def cli_env(daemon: Daemon) -> dict[str, str]:
    """The environment of a user of this daemon."""
    return {**os.environ, "POLYLOCAL_HOME": str(daemon.home), "NO_COLOR": "1", "COLUMNS": "120"}
