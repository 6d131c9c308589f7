"""Two people at one daemon, each with the original command line in another version."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from clients.originals import VERSIONS, Person, Program, environment, resident
from support import Daemon, eventually, running_daemon, sweep

from polylocal.client import Client, RunReference
from polylocal.statuses import is_done
from polylocal.store import Store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Environments are made, and images with Python are built, within the time of whichever test comes first."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def programs() -> Iterator[dict[str, Program]]:
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        folders = pool.map(environment, VERSIONS)
        yield {
            version: stack.enter_context(resident(version, folder))
            for version, folder in zip(VERSIONS, folders, strict=True)
        }


@pytest.fixture(scope="session")
def daemon(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("daemon") / "home"
    with running_daemon(home, "--max-runs", "6", env={"POLYLOCAL_GRACE_S": "1"}) as started:
        yield started
    store = Store(home / "polylocal.db")
    installation = store.installation()
    store.close()
    sweep(engine_address, installation)


@pytest.fixture(scope="session")
def accounts(daemon: Daemon) -> dict[str, tuple[str, str, str]]:
    """For each version a name, a password and a token."""
    return {version: _add_user(daemon, f"ann-{version.replace('.', '')}", "s3cret word") for version in VERSIONS}


def _add_user(daemon: Daemon, name: str, password: str) -> tuple[str, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "polylocal", "user", "add", name, "--password-stdin"],
        input=password + "\n",
        env={**os.environ, "POLYLOCAL_HOME": str(daemon.home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return name, password, done.stdout.strip()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stranger(
    version: str, programs: dict[str, Program], accounts: dict[str, tuple[str, str, str]], tmp_path: Path
) -> Iterator[Person]:
    """Somebody who has an account, and a program that was never used."""
    home, folder = tmp_path / "person", tmp_path / "work"
    home.mkdir()
    folder.mkdir()
    person = Person(*accounts[version], programs[version], home, folder)
    yield person
    for command in person.begun:
        command.end()


@pytest.fixture
def configured(stranger: Person, daemon: Daemon) -> Person:
    """Somebody whose program knows where the daemon is."""
    port = daemon.url.rpartition(":")[2]
    ports = [f"--http_port={port}", f"--ws_port={port}"] if stranger.is_old else [f"--port={port}"]
    stranger.polyaxon("config", "set", "--host=127.0.0.1", *ports, "--use_https=false")
    return stranger


@pytest.fixture
def person(configured: Person) -> Person:
    """Somebody who is logged in."""
    configured.polyaxon("login", "--token", configured.token)
    return configured


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    """What is stored, as the admin sees it."""
    made = daemon.client()
    yield made
    made.close()


def finished(client: Client, run: RunReference) -> dict[str, Any]:
    """The run when it is done."""
    return eventually(lambda: (found := client.run(run)) and is_done(found["last_status"]) and found, 120)


def log(client: Client, run: RunReference) -> bytes:
    with client.logs(run) as chunks:
        return b"".join(chunks)
