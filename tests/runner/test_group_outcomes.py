"""Searches without a result: their end, and their early end. On the fake engine."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.runner.groups import Groups
from polylocal.statuses import Status, is_done
from polylocal.store.rows import Run

from .conftest import Rig, Supervise

METRIC = {"name": "loss", "optimization": "minimize"}
BAND = {
    "matrix": {"lr": {"uniform": "0:1"}},
    "seed": 7,
    "concurrency": 9,
    "hyperband": {"max_iter": 3, "eta": 3, "resource": {"name": "epochs", "type": "int"}, "metric": METRIC},
}


def grid(n: int, **more: Any) -> dict[str, Any]:
    return {"matrix": {"n": {"range": [0, n, 1]}}, **more}


def ended(rig: Rig, supervise: Supervise, group: Run, max_runs: int = 4) -> tuple[str, str | None]:
    supervise(lambda: is_done(rig.again(group).status), max_runs=max_runs)
    return rig.again(group).status, rig.message(group)


def statuses(rig: Rig, group: Run) -> list[str]:
    return [member.status for member in rig.members(group)]


def tended(rig: Rig, group: Run, times: int = 1) -> Run:
    """Advance a group by new daemons, one for each step."""
    for _ in range(times):
        rig.tend(rig.again(group))
    return rig.again(group)


def end(rig: Rig, members: list[Run], *ends: Status) -> None:
    for member, status in zip(members, ends, strict=True):
        rig.store.runs.transition(member, Status.RUNNING, recorded={"container_id": f"c{member.pk}"})
        rig.store.runs.transition(member, status)


def test_a_group_whose_experiments_all_fail_has_failed(rig: Rig, supervise: Supervise) -> None:
    group = rig.group(grid(4, concurrency=2), "exit 1")
    assert ended(rig, supervise, group) == ("failed", "All 4 experiments failed: 4 failed")
    assert rig.history(group) == ["created", "running", "failed"]
    wanted = {"reason": "experiments", "experiments": 4, "failed": 4}
    assert rig.store.runs.newest_status(group).details == wanted


def test_one_that_succeeds_is_enough(rig: Rig, supervise: Supervise) -> None:
    group = rig.group(grid(3), "exit {{ n }}")
    assert ended(rig, supervise, group) == ("succeeded", "All experiments are done: 2 failed, 1 succeeded")


def test_a_group_whose_experiments_were_all_stopped_is_stopped(rig: Rig) -> None:
    group = tended(rig, rig.group(grid(2, concurrency=2)), 2)
    end(rig, rig.members(group), Status.STOPPED, Status.STOPPED)
    group = tended(rig, group, 2)
    assert (group.status, rig.message(group)) == ("stopped", "All 2 experiments were stopped: 2 stopped")


# -- builds -----------------------------------------------------------------------------------------------------------


def test_builds_that_depend_on_the_params_fail_one_by_one(rig: Rig, supervise: Supervise) -> None:
    group = rig.group({"matrix": {"n": {"values": [3, 0]}}}, build={"image": "base", "build_steps": ["exit {{ n }}"]})
    assert ended(rig, supervise, group) == ("succeeded", "All experiments are done: 1 failed, 1 succeeded")
    assert rig.engine.builds == 2


def test_all_builds_fail_that_depend_on_the_params(rig: Rig, supervise: Supervise) -> None:
    group = rig.group({"matrix": {"n": {"values": [3, 4]}}}, build={"image": "base", "build_steps": ["exit {{ n }}"]})
    assert ended(rig, supervise, group) == ("failed", "All 2 experiments failed: 2 failed")
    assert (rig.store.runs.newest_status(group).details or {})["reason"] == "build"


def test_a_build_that_fails_is_not_tried_again_by_later_experiments_of_hyperband(
    rig: Rig, supervise: Supervise
) -> None:
    group = rig.group(BAND, build={"image": "base", "build_steps": ["exit 3"]})
    status, message = ended(rig, supervise, group)
    assert status == "failed"
    assert message == "All 3 experiments failed: 3 failed"
    assert rig.engine.builds == 1


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_hyperband_without_the_metric_has_failed(rig: Rig, supervise: Supervise) -> None:
    status, message = ended(rig, supervise, rig.group(BAND))
    assert status == "failed"
    assert (message or "").startswith("No experiment reported the metric `loss`: ")


def test_bayesian_optimisation_without_the_metric_has_failed(rig: Rig, supervise: Supervise) -> None:
    bo = {"n_initial_trials": 2, "n_iterations": 1, "metric": METRIC}
    group = rig.group({"matrix": {"lr": {"uniform": "0:1"}}, "budget": {"n_experiments": 2}, "bo": bo})
    wanted = ("failed", "No experiment reported the metric `loss`: 2 succeeded")
    assert ended(rig, supervise, group) == wanted


def test_a_metric_that_ends_as_nan_everywhere_was_reported(rig: Rig) -> None:
    group = tended(rig, rig.group({**BAND, "early_stopping": [{"metric": "loss", "value": 0.0}]}), 2)
    for member in rig.members(group):
        rig.store.metrics.add(member, [({"loss": 0.5}, None), ({"loss": float("nan")}, None)])
    assert rig.store.groups.reported_metrics(group, ["loss", "accuracy"]) == {"loss": False}
    rig.store.metrics.add(rig.members(group)[0], [({"loss": 0.5}, None)])
    assert rig.store.groups.reported_metrics(group, ["loss", "accuracy"]) == {"loss": True}


@pytest.mark.parametrize("told", [True, False])
def test_early_stopping_without_its_metric_is_said(rig: Rig, told: bool) -> None:
    group = rig.group(grid(2, concurrency=2, early_stopping=[{"metric": "loss", "value": 0.0}]))
    members = rig.members(tended(rig, group, 2))
    if told:
        rig.store.metrics.add(members[0], [({"loss": -1.0}, None)])
    end(rig, members, Status.SUCCEEDED, Status.SUCCEEDED)
    group = tended(rig, group, 2)
    said = "" if told else ". No experiment reported the metric `loss`: early stopping judged none"
    assert (group.status, rig.message(group)) == ("succeeded", f"All experiments are done: 2 succeeded{said}")


# -- a limit of failures ----------------------------------------------------------------------------------------------


def test_after_so_many_failures_no_further_experiment_begins(rig: Rig, supervise: Supervise) -> None:
    group = rig.group(grid(8, max_failures=2), "exit 1")
    wanted = "2 experiments failed, and `max_failures` is 2: 2 failed, 6 stopped"
    assert ended(rig, supervise, group) == ("failed", wanted)
    assert rig.history(group) == ["created", "running", "failed"]
    dropped = rig.members(group)[-1]
    assert rig.history(dropped) == ["created", "stopped"]
    assert rig.message(dropped) == "2 experiments failed, and `max_failures` is 2"


def test_what_runs_at_the_limit_may_finish_and_what_waits_does_not_begin(rig: Rig) -> None:
    group = tended(rig, rig.group(grid(6, concurrency=4, max_failures=2)), 2)
    runs, first = rig.store.runs, rig.members(group)
    end(rig, first[:2], Status.FAILED, Status.FAILED)
    runs.transition(first[2], Status.RUNNING, recorded={"container_id": "c"})
    build = rig.built(rig.submit("true")).build_pk
    runs._set(first[3].pk, {"build_pk": build})  # in the queue, or in a thread's hands
    group = tended(rig, group, 2)
    found = rig.members(group)
    assert [member.status for member in found] == ["failed", "failed", "running", "building", "stopped", "stopped"]
    assert [member.stop_requested_at is not None for member in found[2:4]] == [False, True]
    assert group.status == "running"
    runs.transition(found[3], Status.STOPPED)
    runs.transition(found[2], Status.SUCCEEDED)
    group = tended(rig, group)
    wanted = "2 experiments failed, and `max_failures` is 2: 2 failed, 3 stopped, 1 succeeded"
    assert (group.status, rig.message(group)) == ("failed", wanted)


def test_fewer_failures_change_nothing(rig: Rig, supervise: Supervise) -> None:
    group = rig.group(grid(4, max_failures=4), "exit {{ n }}")
    assert ended(rig, supervise, group) == ("succeeded", "All experiments are done: 3 failed, 1 succeeded")


def test_no_further_iteration_and_no_further_chunk_is_made(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polylocal.runner.groups.CHUNK", 2)
    group = tended(rig, rig.group(grid(6, concurrency=2, max_failures=1)))
    rig.store.groups.release(group)
    end(rig, rig.members(group), Status.FAILED, Status.SUCCEEDED)
    group = tended(rig, group, 3)
    assert len(rig.members(group)) == 2
    wanted = "1 experiment failed, and `max_failures` is 1: 1 failed, 1 succeeded"
    assert (group.status, rig.message(group)) == ("failed", wanted)


def test_a_daemon_for_every_look(rig: Rig) -> None:
    group = rig.group(grid(5, concurrency=2, max_failures=3))
    for _ in range(30):
        Groups(rig.context(), lambda: None).advance_all()
        begun = [run for run in rig.members(group) if not run.is_held and not is_done(run.status)]
        end(rig, begun, *[Status.FAILED] * len(begun))
    assert statuses(rig, group) == ["failed"] * 4 + ["stopped"]
    assert rig.history(group) == ["created", "running", "failed"]
