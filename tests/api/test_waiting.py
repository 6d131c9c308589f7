"""The reasons for waiting that users get for a run that has not begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from polylocal.api.api_context import ApiContext
from polylocal.api.waiting import waits_for
from polylocal.installation import Installation
from polylocal.planning.queue import QueueState
from polylocal.polyaxonfile import Capacity
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller

Make = Callable[..., Run]

STARTING = "the scheduler, which starts it next"


@pytest.fixture
def make(store: Store, project: Project, root: User) -> Make:
    def insert(kind: Kind = Kind.JOB, resources: Any = None, **more: Any) -> Run:
        return store.runs.insert(project, root, NewRun(kind, resources=resources, **more))

    return insert


@pytest.fixture
def told(context: ApiContext, root: User, store: Store) -> Callable[..., dict[str, str]]:
    """told(run, …, active=, retries=, by=, slots=, …) → {name of a run: reason}, with 4 cores and 4096 MiB."""

    def ask(
        *runs: Run, active: Any = (), retries: Any = None, by: User = root, slots: int = 2, **more: Any
    ) -> dict[str, str]:
        state = QueueState([store.runs.by_pk(run.pk) for run in active], retries or {})
        settings = context.settings.model_copy(update={"max_runs": slots})
        parts = {"queue_state": lambda: state, "capacity": lambda with_gpus: Capacity(4, 4096.4), **more}
        parts["installation"] = Installation(settings, store)
        fresh = [store.runs.by_pk(run.pk) for run in runs]
        found = waits_for(replace(context, **parts), by, fresh)
        return {run.unique_name: found[run.pk] for run in runs if run.pk in found}

    return ask


def test_a_run_waits_for_a_slot_that_others_have(make: Make, told: Any) -> None:
    running, first, second = make(), make(), make()
    other = make(Kind.EXPERIMENT)
    assert told(running, first, second, active=[running, other]) == {
        first.unique_name: "a free slot: 0 before it, 2 at a time",
        second.unique_name: "a free slot: 1 before it, 2 at a time",
    }


def test_a_run_waits_for_memory_and_those_behind_it_for_their_turn(make: Make, told: Any) -> None:
    running = make(resources={"memory": {"limits": 3000}})
    first, second, third = make(resources={"memory": {"requests": 2000}}), make(), make()
    shortage = f"2000 MiB of memory: 1096 of 4096 free (held by {running.unique_name})"
    assert told(first, third, active=[running]) == {
        first.unique_name: shortage,
        third.unique_name: f"its turn: 2 before it, and {first.unique_name} waits for {shortage}",
    }
    assert told(second, active=[running])[second.unique_name].startswith("its turn: 1 before it")


def test_a_run_waits_for_cores(make: Make, told: Any) -> None:
    running = [make(resources={"cpu": {"requests": amount}}) for amount in (0.5, 1.5, 1, 1)]
    waiting = make(resources={"cpu": {"requests": 2}})
    names = [running[n].unique_name for n in (1, 2, 3)]
    words = f"2 cores: 0 of 4 free (held by {names[0]}, {names[1]}, {names[2]} and 1 other run)"
    assert told(waiting, active=running, slots=9) == {waiting.unique_name: words}


@pytest.mark.parametrize("kind", [Kind.NOTEBOOK, Kind.TENSORBOARD])
def test_a_server_never_waits_for_a_slot(kind: Kind, make: Make, told: Any) -> None:
    running = [make(resources={"cpu": {"requests": 2}}), make()]
    small, large = make(kind), make(kind, {"cpu": {"requests": 3}})
    assert told(small, large, active=running) == {
        large.unique_name: f"3 cores: 2 of 4 free (held by {running[0].unique_name})"
    }


def test_a_held_experiment_waits_for_its_group(make: Make, told: Any) -> None:
    group = make(Kind.GROUP, values={"group_type": "study", "concurrency": 2})
    released, _ = (make(Kind.EXPERIMENT, group=group) for _ in range(2))
    held = make(Kind.EXPERIMENT, group=group, values={"is_held": True})
    assert told(group, released, held) == {
        released.unique_name: STARTING,
        held.unique_name: f"its group, {group.unique_name}: 2 begun, 2 at a time",
    }


def test_a_run_waits_for_its_build(make: Make, told: Any, store: Store) -> None:
    run = make()
    build = store.queue.attach_build(run, NewRun(Kind.BUILD, build_key="k"), anew=False)
    assert build
    assert told(run, build) == {
        run.unique_name: f"its build, {build.unique_name}",
        build.unique_name: STARTING,
    }
    store.runs.transition(build, Status.BUILDING)
    assert told(run, build, active=[build]) == {run.unique_name: f"its build, {build.unique_name}"}
    store.runs.transition(build, Status.SUCCEEDED)
    assert told(run) == {run.unique_name: STARTING}


def test_a_run_that_was_put_off_waits_for_another_try(make: Make, told: Any) -> None:
    run = make()
    assert told(run, retries={run.pk: 1.2}) == {run.unique_name: "another try, in 2 s"}


def test_a_run_that_a_thread_works_on_waits_for_nothing(make: Make, told: Any) -> None:
    run = make()
    assert told(run, active=[run]) == {}


def test_runs_that_never_begin_here_wait_for_nothing(make: Make, told: Any, store: Store) -> None:
    tracked, stopping, done = make(values={"is_managed": False}), make(), make()
    store.runs.request_stop(stopping)
    store.runs.transition(done, Status.STOPPED)
    impossible = make(resources={"cpu": {"requests": 5}})
    assert told(tracked, stopping, done, impossible) == {}


def test_reasons_that_block_everything_come_first(make: Make, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, group = make(), make(Kind.GROUP, values={"group_type": "study"})
    late = {"scheduler_state": lambda: "The queue was not processed for 90 s."}
    words = "the scheduler: The queue was not processed for 90 s."
    assert told(run, group, **late) == {run.unique_name: words, group.unique_name: words}
    away = {"engine_state": lambda: "the engine at x to answer", **late}
    assert told(run, retries={run.pk: 1.0}, **away) == {run.unique_name: "the engine at x to answer"}
    monkeypatch.setattr("polylocal.files.disk.Disk.problem", lambda self: "The disk is full.")
    assert told(run, **away) == {run.unique_name: "The disk is full."}


def test_names_of_other_users_runs_are_not_revealed(make: Make, told: Any, store: Store, ann: User) -> None:
    own = store.projects.create(ann, {"name": "own"})
    mine = store.runs.insert(own, ann, NewRun(Kind.JOB, resources={"cpu": {"requests": 1}}))
    others = [make(resources={"cpu": {"requests": 1}}) for _ in range(2)]
    first = make(resources={"cpu": {"requests": 3}})
    last = store.runs.insert(own, ann, NewRun(Kind.JOB))
    words = told(last, active=[mine, *others], by=ann, slots=4)[last.unique_name]
    held = f"(held by {mine.unique_name} and 2 other runs)"
    assert words == f"its turn: 1 before it, and the first one waits for 3 cores: 1 of 4 free {held}"
    words = told(first, active=others, by=ann, slots=4, retries={mine.pk: 1.0})[first.unique_name]
    assert words == "3 cores: 2 of 4 free (held by 2 runs of other users)"


def test_the_list_and_one_run_say_the_same(
    context: ApiContext, serving: Callable[..., TestClient], store: Store, root: User, make: Make
) -> None:
    running = make(resources={"memory": {"limits": 3000}})
    waiting = make(resources={"memory": {"limits": 2000}})
    state = QueueState([running])
    parts = {"queue_state": lambda: state, "capacity": lambda with_gpus: Capacity(4, 4096.4)}
    api = Caller(serving(replace(context, **parts)), store.users.new_token(root))
    listed = {run["id"]: run["waits_for"] for run in api.get("/polylocal/v1/runs").json()["results"]}
    words = f"2000 MiB of memory: 1096 of 4096 free (held by {running.unique_name})"
    assert listed == {running.id: None, waiting.id: words}
    assert api.get(f"/polylocal/v1/runs/job/{waiting.id}").json()["waits_for"] == words
