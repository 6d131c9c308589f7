"""Fixtures for all tests. Each test has a separate home folder. Containers and images of a test are removed."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import docker
import pytest
from argon2 import PasswordHasher
from httpx2._transports import default as http_transports
from hypothesis import settings as hypothesis_settings
from starlette import routing
from support import USUAL_INPUTS, sweep
from xdist.scheduler import LoadFileScheduling

from polylocal.engine.docker import probe
from polylocal.settings import Settings, load
from polylocal.store import Store, users
from polylocal.store.rows import Project, User

# the default number of generated examples; `pytest --hypothesis-profile=long` tries far more
hypothesis_settings.register_profile("moderate", max_examples=USUAL_INPUTS, deadline=None)
hypothesis_settings.register_profile("long", max_examples=20_000, deadline=None, print_blob=True)
hypothesis_settings.load_profile("moderate")


# slow tests go first, so that all worker processes end at about the same time
_LONG = (
    *("tests/clients/", "tests/crash/test_chaos.py", "tests/ui/", "tests/e2e/", "tests/crash/", "tests/engine/"),
    *("tests/api/test_extremes.py", "tests/runner/test_crash_rules.py"),
)
_TOGETHER = ("tests/clients/", "tests/ui/")  # each worker process starts their daemons, programs and browsers once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort slow files before fast ones. The order within a file stays.

    Fast files are mixed: those of one folder all wait, or all compute, and then half of the machine would be idle.
    """

    def rank(item: pytest.Item) -> tuple[int, int]:
        place = next((place for place, start in enumerate(_LONG) if item.nodeid.startswith(start)), len(_LONG))
        return place, crc32(item.nodeid.partition("::")[0].encode()) if place == len(_LONG) else 0

    items.sort(key=rank)


def pytest_collection() -> None:
    """Collect tests without garbage collection: nearly all of the new objects stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Exempt collected tests from garbage collection, which took a sixth of the time of tests without an engine."""
    gc.enable()
    gc.collect()
    gc.freeze()


class _Scheduling(LoadFileScheduling):
    """Assigns whole files to a worker process, and whole folders whose tests share expensive objects."""

    def _split_scope(self, nodeid: str) -> str:
        together = next((folder for folder in _TOGETHER if nodeid.startswith(folder)), None)
        return together or str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling | None:
    return _Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def _cheap_constants() -> Iterator[None]:
    """Weak password hashes, and one TLS context and compilation of each route, which take most of the time of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        patch.setattr(routing, "compile_path", cache(routing.compile_path))
        patch.setattr(http_transports, "create_ssl_context", cache(http_transports.create_ssl_context))
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the settings of the user who runs the tests, except for the engine's address and its images."""
    kept = {"POLYLOCAL_IMAGE_FALLBACKS"}
    for name in list(os.environ):
        if name.startswith("POLYLOCAL_") and name not in kept:
            monkeypatch.delenv(name)
    monkeypatch.setenv("POLYLOCAL_HOME", str(tmp_path / "home"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    return load(home=home)


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database. Its creation takes longer than most tests."""
    path = tmp_path_factory.mktemp("new") / "polylocal.db"
    Store(path).close()
    return path


@pytest.fixture
def store(settings: Settings, new_database: Path) -> Iterator[Store]:
    shutil.copy(new_database, settings.folders.database)
    made = Store(settings.folders.database)
    yield made
    made.close()


@pytest.fixture
def root(store: Store) -> User:
    return store.users.add("root", is_superuser=True)


@pytest.fixture
def project(store: Store, root: User) -> Project:
    return store.projects.create(root, {"name": "quick-start"})


@pytest.fixture(scope="session")
def engine_address() -> str:
    """The address of a real engine. Tests fail without one; scripts/setup starts one where possible."""
    report = probe.probe()
    if report.found is None:
        pytest.fail(f"tests with a real engine need one: {report.problem}")
    return report.found.url


@pytest.fixture
def raw_engine(engine_address: str) -> Iterator[docker.DockerClient]:
    """The plain SDK, to inspect the engine without polylocal."""
    client = docker.DockerClient(base_url=engine_address)
    yield client
    client.close()


@pytest.fixture
def to_sweep(engine_address: str) -> Iterator[list[str]]:
    """A list for ids of installations, whose containers and images are removed at the end of the test."""
    installations: list[str] = []
    yield installations
    for installation in installations:
        sweep(engine_address, installation)
