"""A daemon that is killed during builds: the next start removes the leftovers, and continues."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import docker
import pytest
from support import Daemon, build, eventually

from polylocal.engine.plan import IMAGE_LABEL
from polylocal.store import Store

from .test_kill import finished, log_has, look, submit

pytestmark = pytest.mark.engine


def installation(daemon: Daemon) -> str:
    store = Store(daemon.home / "polylocal.db")
    try:
        return store.installation()
    finally:
        store.close()


def test_build_contexts_of_a_killed_daemon_are_removed(start: Callable[[], Daemon]) -> None:
    daemon = start()
    run = submit(daemon, build(build_steps=[f"echo {uuid.uuid4().hex}; sleep 30"]), "build")
    scratch = daemon.home / "scratch"
    left = eventually(lambda: scratch.is_dir() and list(scratch.iterdir()), 60)
    daemon.kill()
    assert all(path.exists() for path in left)
    (daemon.home / "code" / "upload-left").mkdir(parents=True)
    daemon = start()
    eventually(lambda: not any(path.exists() for path in left))
    assert not (daemon.home / "code" / "upload-left").exists()
    look(daemon, lambda client: client.stop(run))
    assert finished(daemon, run)["last_status"] == "stopped"
    eventually(lambda: not list(scratch.iterdir()))


def test_build_steps_of_a_killed_daemon_are_removed(
    start: Callable[[], Daemon], raw_engine: docker.DockerClient
) -> None:
    daemon = start()
    mark = uuid.uuid4().hex
    run = submit(daemon, build(build_steps=[f"echo {mark} > /about", "sleep 30"]), "build")

    def left() -> list[str]:
        found = raw_engine.api.images(filters={"label": f"{IMAGE_LABEL}={installation(daemon)}", "dangling": True})
        return [image["Id"] for image in found]

    eventually(lambda: log_has(daemon, run, b": RUN sleep 30"), 60)
    assert left()
    daemon.kill()
    store = Store(daemon.home / "polylocal.db")
    store.runs.delete(store.runs.by_pk(1))  # while no daemon runs
    store.close()
    daemon = start()

    def is_clean() -> bool:
        look(daemon, lambda client: client.gc(None))  # the automatic collection begins half a minute later
        return not left()

    eventually(is_clean, 60)
