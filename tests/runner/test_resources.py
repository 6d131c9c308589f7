"""Resources of runs: concurrency, refusals before a build, limits of containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fake_engine import FakeEngine
from support import eventually

from polylocal.engine.host import EngineInfo
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.supervisor import Supervisor
from polylocal.statuses import Kind, Status, is_done
from polylocal.store import NewRun
from polylocal.store.rows import Run

from .conftest import Rig, Supervise

GPU = {"environment": {"resources": {"gpu": {"limits": 1}}}}


def asking(**resources: Any) -> dict[str, Any]:
    return {"environment": {"resources": resources}}


def done(rig: Rig, *runs: Run) -> bool:
    return all(is_done(rig.again(run).status) for run in runs)


def running(rig: Rig) -> int:
    return sum(container.status == "running" for container in rig.engine.made.values())


@pytest.fixture
def small(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A machine of two cores."""

    def info(engine: FakeEngine) -> EngineInfo:
        engine._answer()
        return EngineInfo("Fake", "1.0", "1.41", "fake://", 2, 4096.0, "/", False, False)

    monkeypatch.setattr(FakeEngine, "info", info)
    return rig


def test_as_many_run_at_a_time_as_their_requests_have_room(small: Rig, supervise: Supervise) -> None:
    wanted = asking(cpu={"requests": 0.5, "limits": 2}, memory={"requests": 64, "limits": 4096})
    runs = [small.submit("sleep 60", **wanted) for _ in range(3)]
    supervise(lambda: running(small) == 3, max_runs=3)
    for run in runs:
        small.store.runs.request_stop(run)
    supervise(lambda: done(small, *runs))


def test_a_limit_above_the_machine_is_cut_to_it_and_told(small: Rig, supervise: Supervise) -> None:
    run = small.submit("sleep 60", **asking(cpu={"requests": 1, "limits": 8}, memory={"requests": 1, "limits": 9999}))
    supervise(lambda: small.again(run).status == "running")
    limits = small.container(run).plan.limits
    assert (limits.cpus, limits.memory_mib) == (2, 4096)
    told = [message for message in small.messages(run) if message and message.startswith("environment.")]
    assert told == [
        "environment.resources.cpu.limits: The limit of 8 cores is cut to what this machine has, 2 cores.",
        "environment.resources.memory.limits: The limit of 9999 MiB of memory is cut to what this machine has,"
        " 4096 MiB of memory.",
    ]


def test_a_cut_that_was_told_when_the_run_was_made_is_not_told_again(small: Rig) -> None:
    run = small.submit("true", **asking(cpu={"requests": 1, "limits": 8}))
    text = "The limit of 8 cores is cut to what this machine has, 2 cores."
    small.store.runs._set(run.pk, {"warnings": f'["job.yml, line 8, environment.resources.cpu.limits: {text}"]'})
    Supervisor(small.context()).resolve_builds()
    assert not [message for message in small.messages(run) if message and "cut to" in message]


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpu": {"requests": 3}}, "environment.resources.cpu.requests: The run asks for 3 cores; this machine has 2."),
        (
            {"gpu": {"limits": 1}},
            "environment.resources.gpu.limits: The run asks for 1 GPU; this machine has none that the engine can give"
            " (polylocal doctor says why); take `gpu` out to run on the processor.",
        ),
    ],
)
def test_what_can_not_run_fails_before_any_build(
    small: Rig, supervise: Supervise, resources: Any, message: str
) -> None:
    job, experiment = small.submit("true", **asking(**resources)), small.experiment("true", **asking(**resources))
    servers = [small.server(kind, **asking(**resources)) for kind in (Kind.NOTEBOOK, Kind.TENSORBOARD)]
    supervise(lambda: done(small, job, experiment, *servers))
    for run in (job, experiment, *servers):
        assert small.history(run) == ["created", "failed"]
        last = small.store.runs.newest_status(run)
        assert (last.message, last.details) == (message, {"reason": "resources"})
        assert small.again(run).build_pk is None
    assert small.engine.builds == 0


def test_a_run_of_an_older_version_that_asks_for_half_a_gpu(small: Rig, supervise: Supervise) -> None:
    run = small.submit("true", **GPU)
    config = {**(run.config or {}), **asking(gpu={"limits": 0.5})}
    small.store.runs._set(run.pk, {"config": json.dumps(config)})
    supervise(lambda: done(small, run))
    assert "whole GPUs, not 0.5" in (small.message(run) or "")
    assert small.engine.builds == 0


def test_cards_are_given(small: Rig, supervise: Supervise) -> None:
    small.engine.cards = 2
    run = small.submit("sleep 60", **asking(gpu={"requests": 1, "limits": 4}))
    supervise(lambda: small.again(run).status == "running")
    plan = small.container(run).plan
    assert plan.limits.gpus == 2
    assert "NVIDIA_VISIBLE_DEVICES" not in plan.env


def test_a_run_that_asks_for_no_card_sees_none(small: Rig, supervise: Supervise) -> None:
    small.engine.cards = 2
    run = small.submit("sleep 60", **asking(gpu={"limits": 0}))
    supervise(lambda: small.again(run).status == "running")
    assert small.container(run).plan.env["NVIDIA_VISIBLE_DEVICES"] == "none"


def test_a_run_that_can_not_be_read_holds_up_nobody(small: Rig, supervise: Supervise) -> None:
    broken, fine = small.submit("true", **asking(cpu={"limits": 1})), small.submit("true")
    config = json.dumps({**(broken.config or {}), **asking(cpu={"limits": "lots"})})
    small.store.runs._set(broken.pk, {"config": config})
    supervise(lambda: done(small, broken, fine))
    assert small.again(fine).status == "succeeded"
    assert "Could not start build process" in (small.message(broken) or "")


def test_a_run_that_is_stopped_while_it_is_refused_does_not_begin(small: Rig) -> None:
    run = small.submit("true", **asking(cpu={"limits": 3}))
    small.store.runs.transition(run, Status.STOPPED)
    assert Supervisor(small.context()).refuse_if_impossible(run)
    assert small.history(run) == ["created", "stopped"]


# -- an engine that has not answered yet ------------------------------------------------------------------------------


@pytest.fixture
def unanswered(small: Rig) -> RunnerContext:
    """The engine has never answered."""
    small.engine.is_away = True
    return small.context()


@pytest.fixture
def away(small: Rig, unanswered: RunnerContext) -> Iterator[Supervisor]:
    supervisor = Supervisor(unanswered)
    yield supervisor
    small.engine.is_away = False
    eventually(lambda: not supervisor.executions())


def test_nothing_is_built_or_made_before_the_engine_has_answered(small: Rig, away: Supervisor) -> None:
    impossible, fine = small.submit("true", **asking(cpu={"limits": 3})), small.submit("echo fine")
    group = small.group({"matrix": {"lr": {"values": [1, 2]}}}, **asking(memory={"limits": 99999}))
    away.step()
    assert [small.again(run).status for run in (impossible, fine, group)] == ["created"] * 3
    assert small.members(group) == []
    small.engine.is_away = False
    away.step()
    assert small.history(impossible) == small.history(group) == ["created", "failed"]
    assert (small.again(impossible).build_pk, small.members(group)) == (None, [])
    assert "99999 MiB" in (small.message(group) or "")
    assert small.again(fine).build_pk


def test_a_run_of_a_build_that_is_named_is_refused_before_that_is_done(
    small: Rig, away: Supervisor, unanswered: RunnerContext
) -> None:
    build = small.store.runs.insert(small.project, small.user, _new_build())
    run = small.submit("true", **asking(cpu={"limits": 3}))
    cut = small.submit("true", **asking(cpu={"requests": 1, "limits": 3}))
    for each in (run, cut):
        small.store.runs._set(each.pk, {"build_pk": build.pk})
    away.step()
    small.engine.is_away = False
    assert unanswered.link.check()
    away.refuse_impossible()
    assert small.history(run) == ["created", "failed"]
    assert "cut to what this machine has" in (small.message(cut) or "")


def test_a_machine_that_has_become_smaller_is_looked_at_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    context = rig.context()
    supervisor = Supervisor(context)
    build = rig.store.runs.insert(rig.project, rig.user, _new_build())
    run = rig.submit("true", **asking(cpu={"limits": 3}))
    rig.store.runs._set(run.pk, {"build_pk": build.pk})
    supervisor.refuse_impossible()
    assert rig.again(run).status == "created"
    smaller = EngineInfo("Fake", "1.0", "1.41", "fake://", 2, 4096.0, "/", False, False)
    context.link.info = smaller
    supervisor.refuse_impossible()
    assert rig.history(run) == ["created", "failed"]


def _new_build() -> NewRun:
    config = {"version": 1, "kind": "build", "build": {"image": "base", "build_steps": ["sleep 60"]}}
    return NewRun(Kind.BUILD, "{}", config, build_key="k")
