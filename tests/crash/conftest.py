"""Real daemons that are killed: what they made is found by their installation and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Daemon, start_daemon

from polylocal.store import Store

Starter = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path, swept: list[str]) -> Iterator[Starter]:
    """Start a daemon on the test's home folder, again and again if wanted; the last one is ended."""
    home = tmp_path / "home"
    started: list[Daemon] = []

    def starter(*flags: str, **env: str) -> Daemon:
        daemon = start_daemon(home, *flags, env=env)
        started.append(daemon)
        store = Store(home / "polylocal.db")
        if store.installation() not in swept:
            swept.append(store.installation())
        store.close()
        return daemon

    yield starter
    for daemon in started:
        daemon.kill()
