"""Property: a run continues after kill -9 of the daemon at any call, any number of times.

The daemon is an Execution whose every call to the engine or the store may be its last, before or after it took effect.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polylocal.runner.work import execution_of
from polylocal.settings import load
from polylocal.store import Store

from .conftest import Rig

pytestmark = pytest.mark.usefixtures("hasty")

COMMANDS = ["true", "exit 3", "echo a; echo b >&2; sleep 0.02; printf c", "echo x; sleep 0.05; echo y; exit 1"]


class Killed(BaseException):
    """The process was killed: no code handles this."""


class Mortal:
    """Forwards calls, and raises Killed at the n-th one."""

    def __init__(self, target: Any, countdown: list[int], after: bool) -> None:
        self._target = target
        self._countdown = countdown
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in ("runs", "users", "projects", "groups"):
            return Mortal(found, self._countdown, self._after)
        if not callable(found) or name.startswith("_"):
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            self._countdown[0] -= 1
            if self._countdown[0] == 0 and not self._after:
                raise Killed
            result = found(*arguments, **more)
            if self._countdown[0] == 0:
                raise Killed
            return result

        return call


def fresh_rig(folder: str) -> Rig:
    home = Path(folder) / "home"
    home.mkdir()
    read = load(home=home).model_copy(update={"grace_s": 0.2, "poll_s": 0.05})
    store = Store(read.folders.database)
    user = store.users.add("root", is_superuser=True)
    return Rig(read, store, FakeEngine(), store.projects.create(user, {"name": "p"}), user)


def until_done(rig: Rig, pk: int, deaths: list[tuple[int, bool]]) -> int:
    """Run daemons that die as planned; the last one survives. Returns the number of deaths."""
    died = 0
    for number, after in [*deaths, (10**9, False)]:
        run = rig.store.runs.by_pk(pk)
        if run.finished_at:
            break
        countdown = [number]
        try:
            context = rig.context(Mortal(rig.engine, countdown, after), Mortal(rig.store, countdown, after))
            execution_of(run, context)()
        except Killed:
            died += 1
    return died


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    command=st.sampled_from(COMMANDS),
    max_restarts=st.sampled_from([0, 2]),
    deaths=st.lists(st.tuples(st.integers(1, 45), st.booleans()), max_size=4),
)
def test_a_job_survives_its_daemon(command: str, max_restarts: int, deaths: list[tuple[int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = fresh_rig(folder)
        undisturbed = rig.run(rig.submit(command, environment={"max_restarts": max_restarts}))
        run = rig.built(rig.submit(command, environment={"max_restarts": max_restarts}))
        until_done(rig, run.pk, deaths)
        run = rig.again(run)
        assert (run.status, run.exit_code, run.restarts) == (
            undisturbed.status,
            undisturbed.exit_code,
            undisturbed.restarts,
        )
        assert sorted(rig.log(run).splitlines()) == sorted(rig.log(undisturbed).splitlines())
        history = rig.history(run)
        assert history.count("created") == 1
        assert history[-1] == undisturbed.status
        assert from_running(history) == from_running(rig.history(undisturbed))
        leftover = [c for c in rig.engine.made.values() if c.status == "running"]
        assert not leftover
        rig.store.close()


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.sampled_from([["true"], ["exit 2"]]),
    deaths=st.lists(st.tuples(st.integers(1, 25), st.booleans()), max_size=3),
)
def test_a_build_survives_its_daemon(steps: list[str], deaths: list[tuple[int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = fresh_rig(folder)
        run = rig.submit("true")
        rig.store.runs._set(run.pk, {"config": _with_steps(run.config or {}, steps)})
        from polylocal.runner.supervisor import Supervisor

        Supervisor(rig.context()).resolve_builds()
        build = rig.store.runs.by_pk(rig.again(run).build_pk or 0)
        until_done(rig, build.pk, deaths)
        build, run = rig.again(build), rig.again(run)
        assert build.status == ("succeeded" if steps == ["true"] else "failed")
        assert run.status == ("building" if steps == ["true"] else "failed")
        assert rig.history(build).count("created") == 1
        rig.store.close()


def from_running(history: list[str]) -> list[str]:
    return [status for status in history if status not in ("created", "building", "scheduled")]


def _with_steps(config: dict[str, Any], steps: list[str]) -> str:
    import json

    return json.dumps({**config, "build": {"image": "base", "build_steps": steps}})
