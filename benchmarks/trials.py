"""Measures the overhead of a group: a grid of programs that do nothing, on the fake engine in this process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from process import Memory
from stage import Stage, job
from table import Row

from polylocal.engine.events import Deaths
from polylocal.installation import Installation
from polylocal.polyaxonfile import parse
from polylocal.runner.engine_link import EngineLink
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.supervisor import Supervisor
from polylocal.settings import load
from polylocal.statuses import Kind, is_done
from polylocal.store import NewRun, Store
from polylocal.store.rows import Run

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_engine import FakeEngine  # the engine of the tests

CONCURRENCY = 4
_IMAGE = "base"


class _DrivenSupervisor(Supervisor):
    """Runs the supervisor's loop in this thread until a group is done."""

    def run_until_done(self, store: Store, group: Run) -> Run:
        while not is_done((found := store.runs.by_pk(group.pk)).status):
            self.step()
            self._wake.wait(self._context.settings.poll_s)
            self._wake.clear()
        while self.executions():  # the last thread may still be cleaning up
            self._wake.wait(0.01)
        return found


def measure_grid(stage: Stage, quick: bool) -> list[Row]:
    """The overhead per trial and the memory growth of one group."""
    count = 200 if quick else 1000
    home = stage.new_home()
    store = Store(home / "polylocal.db")
    supervisor = _supervisor(stage, store)
    store.subscribe(lambda pk: supervisor.wake())
    _finish(supervisor, store, _submit(store, 2 * CONCURRENCY))  # excludes modules that are loaded on first use
    with Memory(os.getpid()) as memory:
        began = time.perf_counter()
        _finish(supervisor, store, _submit(store, count))
        took = time.perf_counter() - began
    store.close()
    note = f"{count:,} trials, {CONCURRENCY} at a time, fake engine in one process"
    growth = memory.highest - memory.before
    return [
        Row("12", "a trial of a group that does nothing", "ms", (took / count * 1e3,), note=note),
        Row("12", "memory that the group adds at most", "MiB", (growth,), note=f"of {memory.before:.0f} MiB before"),
    ]


def _supervisor(stage: Stage, store: Store) -> _DrivenSupervisor:
    engine = FakeEngine([_IMAGE])
    link = EngineLink(engine, "fake://")
    link.check()
    deaths = Deaths(engine, "home", link.wait_until_back)
    engine.on_death = deaths.notify
    settings = load(home=stage.new_home()).model_copy(update={"max_runs": CONCURRENCY})
    return _DrivenSupervisor(
        RunnerContext(Installation(settings, store), engine, link, deaths, "home", lambda: "http://api:1")
    )


def _submit(store: Store, count: int) -> Run:
    hptuning = {"concurrency": CONCURRENCY, "matrix": {"n": {"range": [0, count, 1]}}}
    config = {**job("true", _IMAGE, hptuning=hptuning)["config"], "kind": "group"}
    specification = parse(config, Kind.GROUP)
    user = next(iter(store.users.all()), None) or store.users.add("root", is_superuser=True)
    project = store.projects.create(user, {"name": f"trials-{count}"})
    about = {"group_type": "study", "concurrency": CONCURRENCY, "search_algorithm": "grid"}
    return store.runs.insert(project, user, NewRun(Kind.GROUP, specification.content, specification.config, about))


def _finish(supervisor: _DrivenSupervisor, store: Store, group: Run) -> None:
    found = supervisor.run_until_done(store, group)
    if found.status != "succeeded":
        raise RuntimeError(f"{found.label} is {found.status}: {dict(store.groups.counts(group))}")
