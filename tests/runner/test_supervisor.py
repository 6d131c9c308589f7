"""The supervisor: order and concurrency of runs, stops, clean-up."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest
from support import eventually

from polylocal.errors import EngineError, EngineUnreachable
from polylocal.runner import housekeeping
from polylocal.runner import supervisor as supervisor_module
from polylocal.runner.supervisor import Supervisor
from polylocal.statuses import Status


def all_done(rig, runs) -> bool:
    return all(rig.again(run).finished_at for run in runs)


def test_without_any_hint_everything_still_happens(rig, supervise):
    runs = [rig.submit("true") for _ in range(3)]
    supervise(lambda: all_done(rig, runs))
    assert [rig.again(run).status for run in runs] == ["succeeded"] * 3


def test_ten_jobs_share_one_build(rig, supervise):
    runs = [rig.submit(f"echo {n}") for n in range(10)]
    supervise(lambda: all_done(rig, runs), max_runs=4)
    assert rig.engine.builds == 1
    assert len({rig.again(run).build_pk for run in runs}) == 1
    assert {rig.again(run).status for run in runs} == {"succeeded"}


def test_a_second_job_of_the_same_spec_calls_no_builder(rig, supervise):
    first = rig.submit("true")
    supervise(lambda: all_done(rig, [first]))
    second = rig.submit("true")
    supervise(lambda: all_done(rig, [second]))
    assert rig.engine.builds == 1
    assert rig.history(second) == ["created", "scheduled", "running", "succeeded"]


def test_nocache_builds_anew(rig, supervise):
    for _ in range(2):
        run = rig.submit("true")
        rig.store.runs._set(run.pk, {"config": json.dumps({**run.config, "build": {"image": "base", "nocache": True}})})
        supervise(lambda run=run: all_done(rig, [run]))
    assert rig.engine.builds == 2


def test_no_more_than_max_runs_at_once(rig, supervise):
    runs = [rig.submit("sleep 0.2") for _ in range(6)]
    most = 0

    def watch():
        nonlocal most
        most = max(most, sum(c.status == "running" for c in rig.engine.made.values()))
        return all_done(rig, runs)

    supervise(watch, max_runs=2)
    assert most == 2


def test_first_come_first_served_within_a_priority(rig, supervise):
    ready = rig.submit("true")
    supervise(lambda: all_done(rig, [ready]), max_runs=1)
    low, high = rig.submit("echo low"), rig.submit("echo high")
    rig.store.runs._set(high.pk, {"priority": 5})
    last = rig.submit("echo last")
    supervise(lambda: all_done(rig, [low, high, last]))
    order = sorted([low, high, last], key=lambda run: rig.again(run).finished_at)
    assert [run.pk for run in order] == [high.pk, low.pk, last.pk]


def test_memory_limits_count_against_the_machine(rig, supervise):
    big = {"environment": {"resources": {"memory": {"limits": 3000}}}}
    runs = [rig.submit("sleep 0.2", **big) for _ in range(2)]
    most = 0

    def watch():
        nonlocal most
        most = max(most, sum(c.status == "running" for c in rig.engine.made.values()))
        return all_done(rig, runs)

    supervise(watch, max_runs=4)
    assert most == 1


@pytest.mark.parametrize(
    ("resources", "words"),
    [({"memory": {"limits": 99999}}, "99999 MiB of memory"), ({"cpu": {"limits": 99}}, "99 cores")],
)
def test_what_can_never_fit_fails_with_a_sentence(rig, supervise, resources, words):
    run = rig.submit("true", environment={"resources": resources})
    supervise(lambda: all_done(rig, [run]))
    assert rig.again(run).status == "failed"
    assert words in (rig.message(run) or "")


def test_stopping_what_waits(rig, supervise):
    running = [rig.submit("sleep 5") for _ in range(2)]
    waiting = rig.submit("true")
    supervise(lambda: all(rig.again(run).status == "running" for run in running))
    rig.store.runs.request_stop(waiting)
    supervise(lambda: all_done(rig, [waiting]))
    assert rig.history(waiting)[-1] == "stopped"
    for run in running:
        rig.store.runs.request_stop(run)
    supervise(lambda: all_done(rig, running))
    assert {rig.again(run).status for run in running} == {"stopped"}


def test_deleting_a_running_job_stops_it_and_removes_all_of_it(rig, supervise):
    run = rig.submit("echo hello; sleep 60")
    supervise(lambda: rig.again(run).status == "running")
    rig.store.runs.delete(run)
    supervise(lambda: rig.store.runs.by_uuid(run.uuid) is None)
    assert not rig.log_path(run).exists()
    assert not (rig.settings.home / str(run.outputs)).exists()
    assert not rig.engine.made


def test_deleting_a_project_removes_runs_images_and_code(rig, supervise):
    run = rig.submit("true")
    supervise(lambda: all_done(rig, [run]))
    rig.store.projects.delete(rig.project)
    supervise(lambda: not rig.store.projects.removable() and rig.store.runs.by_uuid(run.uuid) is None)
    assert list(rig.engine.local) == ["base"]


def test_outputs_that_a_resume_shares_stay(rig, supervise):
    from polylocal.statuses import Kind
    from polylocal.store import NewRun

    run = rig.submit("true")
    supervise(lambda: all_done(rig, [run]))
    new = NewRun(
        Kind.JOB, run.content, run.config, original=run, cloning_strategy="resume", outputs=rig.again(run).outputs
    )
    resumed = rig.store.runs.insert(rig.project, rig.user, new)
    supervise(lambda: all_done(rig, [resumed]))
    rig.store.runs.delete(run)
    supervise(lambda: rig.store.runs.by_uuid(run.uuid) is None)
    assert (rig.settings.home / str(resumed.outputs)).is_dir()


def test_containers_that_nothing_waits_for_are_removed(rig):
    run = rig.submit("sleep 60")
    plan_of_nobody = {"polylocal.home": "home", "polylocal.run": "job/nobody"}
    from polylocal.engine.plan import ContainerPlan

    orphan = rig.engine.create(ContainerPlan("plx-job-x", "base", ["/bin/sh", "-c", "true"], plan_of_nobody))
    foreign = rig.engine.create(
        ContainerPlan("other", "base", ["/bin/sh", "-c", "true"], {"polylocal.home": "elsewhere"})
    )
    supervisor = Supervisor(rig.context())
    supervisor.housekeeping.reconcile()
    assert orphan not in rig.engine.made
    assert foreign in rig.engine.made
    assert rig.again(run).status == "created"


def _left_behind(rig, run, cmd, name):
    """The container of a run that ended while no daemon ran."""
    from polylocal.engine.plan import ContainerPlan
    from polylocal.planning.container import labels

    container_id = rig.engine.create(ContainerPlan(name, "base", ["/bin/sh", "-c", cmd], labels(run, "home")))
    rig.engine.start(container_id)
    rig.engine.wait(container_id)
    return container_id


def test_the_log_of_a_container_that_was_lost_is_not_completed_behind_its_successors(rig):
    """The log has its output and a mark; the engine may find the container again at any time."""
    run = rig.run(rig.submit("echo second"))
    before = rig.log(run)
    lost = _left_behind(rig, run, "echo first; echo more of the first", "lost")
    assert rig.again(run).container_id != lost
    Supervisor(rig.context()).housekeeping.reconcile()
    assert lost not in rig.engine.made
    assert rig.log(run) == before == b"second\n"


def test_the_log_of_the_container_that_a_run_ended_in_is_completed_before_it_goes(rig):
    run = rig.built(rig.submit("true"))
    last = _left_behind(rig, run, "echo one; echo two", "last")
    rig.store.runs.transition(run, Status.RUNNING, recorded={"container_id": last})
    rig.store.runs.transition(run, Status.SUCCEEDED)
    rig.log_path(run).parent.mkdir(parents=True, exist_ok=True)
    rig.log_path(run).write_bytes(b"one\n")
    Supervisor(rig.context()).housekeeping.reconcile()
    assert last not in rig.engine.made
    assert rig.log(run) == b"one\ntwo\n"


def test_the_log_of_a_run_that_removed_its_container_meanwhile_stays_as_it_is(rig, monkeypatch):
    """The list of containers is older than the list of active runs."""
    run = rig.built(rig.submit("true"))
    last = _left_behind(rig, run, "echo one", "last")
    listed = rig.engine.containers("home")
    monkeypatch.setattr(rig.engine, "containers", lambda installation: listed)
    rig.store.runs.transition(run, Status.RUNNING, recorded={"container_id": last})
    rig.store.runs.transition(run, Status.SUCCEEDED)
    rig.log_path(run).parent.mkdir(parents=True, exist_ok=True)
    rig.log_path(run).write_bytes(b"one\n")
    rig.engine.remove(last)
    Supervisor(rig.context()).housekeeping.reconcile()
    assert rig.log(run) == b"one\n"


def test_a_helper_at_work_is_let_be_and_one_that_was_left_behind_goes(rig):
    from polylocal.engine.plan import ContainerPlan

    def helper(name, cmd):
        made = rig.engine.create(ContainerPlan(name, "base", ["/bin/sh", "-c", cmd], {"polylocal.home": "home"}))
        rig.engine.start(made)
        return made

    working, left = helper("plx-chown-1", "sleep 60"), helper("plx-chown-2", "true")
    rig.engine.wait(left)
    Supervisor(rig.context()).housekeeping.reconcile()
    assert list(rig.engine.made) == [working]
    rig.engine.stop(working, 0)


# -- what takes long, or fails, beside the queue ---------------------------------------------------------------------


def test_a_removal_that_hangs_holds_up_no_run(rig, supervise, monkeypatch):
    """An engine may take minutes to remove a large image."""
    gone = rig.submit("true")
    supervise(lambda: all_done(rig, [gone]))
    hanging, go, removed = threading.Event(), threading.Event(), []

    def hang(run, context):
        hanging.set()
        if not removed:
            go.wait(15)
        removed.append(run.pk)

    monkeypatch.setattr(housekeeping, "remove", hang)
    monkeypatch.setattr(housekeeping, "JOIN_S", 0.0)
    try:
        rig.store.runs.delete(gone)
        supervise(hanging.is_set)
        later = [rig.submit(f"echo {n}") for n in range(3)]
        supervise(lambda: all_done(rig, later))
        assert [rig.again(run).status for run in later] == ["succeeded"] * 3
        assert removed == []
    finally:
        go.set()
    eventually(lambda: supervise.supervisor.housekeeping.is_idle)
    assert removed[0] == gone.pk
    monkeypatch.undo()
    supervise(lambda: rig.store.runs.by_uuid(gone.uuid) is None)


def test_a_removal_that_hangs_is_begun_once(rig, supervise, monkeypatch):
    gone = rig.submit("true")
    supervise(lambda: all_done(rig, [gone]))
    go, begun = threading.Event(), []

    def hang(run, context):
        begun.append(threading.get_ident())
        go.wait(15)

    monkeypatch.setattr(housekeeping, "remove", hang)
    monkeypatch.setattr(housekeeping, "JOIN_S", 0.0)
    try:
        rig.store.runs.delete(gone)
        supervise(lambda: begun)
        for _ in range(5):
            supervise(lambda: True)
        assert len(begun) == 1
    finally:
        go.set()
    eventually(lambda: supervise.supervisor.housekeeping.is_idle)


@pytest.mark.parametrize("error", [EngineError("it is in use"), EngineUnreachable("no answer"), OSError("busy")])
def test_a_removal_that_fails_is_put_off_and_the_others_go_on(rig, supervise, monkeypatch, error):
    runs = [rig.submit(f"echo {n}") for n in range(3)]
    supervise(lambda: all_done(rig, runs))
    stuck = _left_behind(rig, runs[0], "true", "stuck")
    rig.store.runs.record(runs[0], container_id=stuck)
    remove, refused = rig.engine.remove, []

    def refuse(container_id):
        if container_id == stuck and not refused:
            refused.append(container_id)
            raise error
        remove(container_id)

    monkeypatch.setattr(rig.engine, "remove", refuse)
    for run in runs:
        rig.store.runs.delete(run)
    supervisor = Supervisor(rig.context())
    supervisor.housekeeping.remove_deleted()
    assert [rig.store.runs.by_uuid(run.uuid) is None for run in runs] == [False, True, True]
    supervisor.housekeeping.remove_deleted()
    assert rig.store.runs.by_uuid(runs[0].uuid), "it was not postponed"
    supervisor.housekeeping.retry_removals()  # as after RETRY_REMOVAL_S
    supervisor.housekeeping.remove_deleted()
    assert rig.store.runs.by_uuid(runs[0].uuid) is None
    assert stuck not in rig.engine.made


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_this_process_runs_out_of_puts_a_run_off(rig, supervise, monkeypatch, code):
    """A temporary lack of descriptors is not an error of the run."""
    monkeypatch.setattr(supervisor_module, "RETRY_S", 0.05)
    create, refused = rig.engine.create, []

    def refuse(plan):
        if len(refused) < 3:
            refused.append(plan.name)
            raise OSError(code, os.strerror(code))
        return create(plan)

    monkeypatch.setattr(rig.engine, "create", refuse)
    run = rig.submit("true")
    supervise(lambda: all_done(rig, [run]))
    assert (rig.again(run).status, len(refused)) == ("succeeded", 3)
    assert "failed" not in rig.history(run)


def test_the_state_of_the_queue_names_what_runs_and_what_is_tried_again(rig, supervise, monkeypatch):
    monkeypatch.setattr(supervisor_module, "RETRY_S", 60.0)
    running = rig.submit("sleep 60")
    supervise(lambda: rig.again(running).status == "running")
    monkeypatch.setattr(rig.engine, "create", lambda plan: (_ for _ in ()).throw(OSError(errno.ENOMEM, "none left")))
    delayed = rig.submit("true")
    supervise(lambda: delayed.pk in supervise.supervisor.queue_state().retries)
    state = supervise.supervisor.queue_state()
    assert [run.pk for run in state.active] == [running.pk]
    assert 0 < state.retries[delayed.pk] <= 60
    supervise(lambda: True)
    assert [run.pk for run in supervise.supervisor.queue_state().active] == [running.pk]


def test_any_other_error_of_the_system_fails_the_run(rig, supervise, monkeypatch):
    def refuse(plan):
        raise OSError(errno.EACCES, "words")

    monkeypatch.setattr(rig.engine, "create", refuse)
    run = rig.submit("true")
    supervise(lambda: all_done(rig, [run]))
    assert rig.again(run).status == "failed"


def test_a_restart_takes_up_what_was_begun(rig):
    run = rig.built(rig.submit("echo a; sleep 0.2; echo b"))
    container_id = rig.engine.create(_plan(rig, run))
    rig.store.runs.transition(run, Status.SCHEDULED, recorded={"container_id": container_id})
    rig.engine.start(container_id)
    supervisor = Supervisor(rig.context())
    supervisor.resume_interrupted()
    eventually(lambda: rig.again(run).finished_at)
    assert rig.again(run).status == "succeeded"
    assert rig.log(run) == b"a\nb\n"
    eventually(lambda: not supervisor.executions())


def test_unmanaged_runs_are_left_to_their_clients(rig, supervise):
    from polylocal.statuses import Kind
    from polylocal.store import NewRun

    tracked = rig.store.runs.insert(rig.project, rig.user, NewRun(Kind.JOB, values={"is_managed": False}))
    other = rig.submit("true")
    supervise(lambda: all_done(rig, [other]))
    assert rig.again(tracked).status == "created"


def _plan(rig, run):
    from polylocal.engine.plan import ContainerPlan
    from polylocal.planning.container import labels

    command = ["/bin/bash", "-c", run.config["run"]["cmd"]]
    image = rig.store.runs.by_pk(run.build_pk).image_id
    return ContainerPlan(run.container_name, image, command, labels(run, "home"))
