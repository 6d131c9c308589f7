"""Real daemons that the tests kill. Their containers and images are found by the installation's label and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support import Daemon, start_daemon, sweep

from polylocal.store import Store

Starter = Callable[..., Daemon]
HOST_NETWORK = {"POLYLOCAL_NETWORK": "host"}  # a separate network takes more than half of a container's start
OWN_NETWORK = {"POLYLOCAL_NETWORK": "polylocal"}  # on it, containers reach the next daemon at the address of the last


@pytest.fixture
def start(tmp_path: Path, to_sweep: list[str]) -> Iterator[Starter]:
    """Start daemons on the test's home folder, one after the other. The last one is killed at the end."""
    home = tmp_path / "home"
    started: list[Daemon] = []

    def starter(*flags: str, **env: str) -> Daemon:
        daemon = start_daemon(home, *flags, env={**HOST_NETWORK, **env})
        started.append(daemon)
        store = Store(home / "polylocal.db")
        if store.installation() not in to_sweep:
            to_sweep.append(store.installation())
        store.close()
        return daemon

    yield starter
    for daemon in started:
        daemon.kill()


@pytest.fixture(scope="module")
def shared_start(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Like `start`, for modules whose tests may share a home folder. See `reusable_daemon`."""
    with reusable_daemon(tmp_path_factory.mktemp("kept") / "home", engine_address) as starter:
        yield starter


@contextmanager
def reusable_daemon(home: Path, engine_address: str, prefix: Sequence[str] = ()) -> Iterator[Starter]:
    """Start daemons on one home folder. A running daemon is reused if flags and settings are the same.

    At the end the daemon is killed, and its containers and images are removed.
    """
    daemon: Daemon | None = None
    wanted: object = None

    def starter(*flags: str, **env: str) -> Daemon:
        nonlocal daemon, wanted
        if daemon and daemon.process.poll() is None:
            if wanted == (flags, env):
                return daemon
            daemon.kill()
        daemon = start_daemon(home, *flags, env={**HOST_NETWORK, **env}, prefix=prefix)
        wanted = (flags, env)
        return daemon

    yield starter
    if daemon:
        daemon.kill()
        with closing(Store(home / "polylocal.db")) as store:
            installation = store.installation()
        sweep(engine_address, installation)
