"""Builds that runs share, reuse and wait for; and the queue."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support import count_ahead

from polylocal.errors import InvalidInput
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

BUILD = NewRun(Kind.BUILD, build_key="key")


@pytest.fixture
def job(store: Store, root: User, project: Project) -> Any:
    """Returns `job(**values)`, which inserts a job."""
    return lambda **values: store.runs.insert(project, root, NewRun(Kind.JOB, values=values))


def fresh(store: Store, run: Run) -> Run:
    return store.runs.by_pk(run.pk)


def last(store: Store, run: Run) -> tuple[str, str | None]:
    count, _ = store.runs.statuses(run, limit=0, offset=0)
    row = store.runs.statuses(run, limit=1, offset=count - 1)[1][0]
    return row.status, row.message


# -- shared ------------------------------------------------------------------------------------------------------


def test_a_run_gets_its_build_and_waits_for_it(store: Store, job: Any) -> None:
    run = job(priority=3)
    build = store.queue.attach_build(run, BUILD, anew=False)
    assert (build.kind, build.status, build.priority, build.user) == ("build", "created", 3, "root")
    assert fresh(store, run).build_name == build.unique_name
    assert last(store, run) == ("building", "Building container")


def test_ten_runs_at_once_share_one_build(store: Store, job: Any) -> None:
    runs, barrier = [job() for _ in range(10)], threading.Barrier(10)

    def attach(run: Run) -> None:
        barrier.wait()
        store.queue.attach_build(run, BUILD, anew=False)

    threads = [threading.Thread(target=attach, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {fresh(store, run).build_id for run in runs} == {1}
    assert store.runs.dependents(store.runs.find(Kind.BUILD, 1)) == {"job": 10}


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.BUILDING, Status.RUNNING])
def test_a_build_under_way_is_waited_for(store: Store, job: Any, status: Status) -> None:
    build = store.queue.attach_build(job(), BUILD, anew=False)
    store.runs.transition(build, status)
    run = job()
    assert store.queue.attach_build(run, BUILD, anew=False).pk == build.pk
    assert last(store, run) == ("building", "Building container")


def test_a_finished_build_is_used_again_and_nobody_waits(store: Store, job: Any) -> None:
    build = store.queue.attach_build(job(), BUILD, anew=False)
    store.runs.transition(build, Status.SUCCEEDED)
    run = job()
    assert store.queue.attach_build(run, BUILD, anew=False).pk == build.pk
    assert last(store, run) == ("created", None)


@pytest.mark.parametrize("status", [Status.FAILED, Status.STOPPED, Status.UPSTREAM_FAILED, Status.SKIPPED])
def test_a_build_that_did_not_succeed_is_not_used_again(store: Store, job: Any, status: Status) -> None:
    build = store.queue.attach_build(job(), BUILD, anew=False)
    store.runs.transition(build, status)
    assert store.queue.attach_build(job(), BUILD, anew=False).pk != build.pk


def test_nocache_always_builds_anew(store: Store, job: Any) -> None:
    builds = [store.queue.attach_build(job(), BUILD, anew=True) for _ in range(2)]
    assert len({build.pk for build in builds}) == 2


def test_the_newest_build_wins(store: Store, job: Any) -> None:
    builds = [store.queue.attach_build(job(), BUILD, anew=True) for _ in range(3)]
    for build in builds:
        store.runs.transition(build, Status.SUCCEEDED)
    assert store.queue.attach_build(job(), BUILD, anew=False).pk == builds[-1].pk


def test_an_invalidated_build_is_not_used_again(store: Store, project: Project, job: Any) -> None:
    build = store.queue.attach_build(job(), BUILD, anew=False)
    store.runs.transition(build, Status.SUCCEEDED)
    store.queue.invalidate_builds(project)
    assert not fresh(store, build).is_valid
    assert store.queue.attach_build(job(), BUILD, anew=False).pk != build.pk


def test_a_build_that_is_deleted_or_to_be_stopped_is_not_used_again(store: Store, job: Any) -> None:
    for end in (store.runs.delete, store.runs.request_stop):
        build = store.queue.attach_build(job(), BUILD, anew=False)
        end(build)
        assert store.queue.attach_build(job(), BUILD, anew=False).pk != build.pk


def test_another_key_is_another_build(store: Store, job: Any) -> None:
    keys = [BUILD, NewRun(Kind.BUILD, build_key="other"), NewRun(Kind.BUILD), NewRun(Kind.BUILD)]
    assert len({store.queue.attach_build(job(), new, anew=False).pk for new in keys}) == 4


def test_a_build_whose_image_is_gone_is_left_and_asked_for_again(store: Store, job: Any) -> None:
    run = job()
    build = store.queue.attach_build(run, BUILD, anew=False)
    store.runs.transition(build, Status.SUCCEEDED)
    store.queue.detach_build(run, build)
    assert fresh(store, run).build_pk is None
    assert not fresh(store, build).is_valid
    assert last(store, run)[1] == "The image is gone: building it again"
    assert [each.pk for each in store.queue.unresolved(9)] == [run.pk]
    assert store.queue.attach_build(run, BUILD, anew=False).pk != build.pk


def test_a_run_that_is_gone_can_be_detached(store: Store, job: Any) -> None:
    run = job()
    build = store.queue.attach_build(run, BUILD, anew=False)
    store.runs.remove(run)
    store.queue.detach_build(run, build)
    assert not fresh(store, build).is_valid


def test_a_run_that_is_done_asks_for_no_build(store: Store, project: Project, job: Any) -> None:
    run = job()
    store.runs.transition(run, Status.STOPPED)
    before = fresh(store, run)
    store.queue.attach_build(run, BUILD, anew=False)
    assert fresh(store, run) == before
    assert store.projects.counts(project).get("build", 0) == 0


def test_deleting_a_build_lets_those_who_wait_ask_for_another(store: Store, job: Any) -> None:
    waiting, running = job(), job()
    build = store.queue.attach_build(waiting, BUILD, anew=False)
    store.queue.attach_build(running, BUILD, anew=False)
    store.runs.record(running, container_id="c")
    store.runs.delete(build)
    assert [run.pk for run in store.queue.unresolved(9)] == [waiting.pk]
    assert fresh(store, running).build_pk == build.pk
    assert fresh(store, running).build_name is None


# -- ended together ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.FAILED, Status.STOPPED])
def test_the_end_of_a_build_is_the_end_of_those_who_wait(store: Store, job: Any, status: Status) -> None:
    runs = [job(), job()]
    build = [store.queue.attach_build(run, BUILD, anew=False) for run in runs][0]
    bystander = job()
    store.runs.transition(build, status, "no such base image")
    for run in runs:
        rows = store.runs.statuses(run, limit=9, offset=0)[1]
        assert (rows[-1].status, rows[-1].message) == (status, f"Build {status}")
        wanted = {"build_job": build.unique_name, "uuid": build.uuid, "reason": "no such base image"}
        assert rows[-1].details is not None
        assert rows[-1].details.items() >= wanted.items()
        assert rows[-1].details["failure_time"]
        assert fresh(store, run).finished_at is not None
    assert fresh(store, bystander).status == "created"


def test_a_build_that_succeeds_moves_nobody_and_hints_everybody(store: Store, job: Any) -> None:
    run, hinted = job(), list[int]()
    build = store.queue.attach_build(run, BUILD, anew=False)
    store.subscribe(hinted.append)
    store.runs.transition(build, Status.SUCCEEDED)
    assert hinted == [build.pk, run.pk]
    assert fresh(store, run).status == "building"


def test_those_who_are_done_are_left_alone(store: Store, job: Any) -> None:
    run = job()
    build = store.queue.attach_build(run, BUILD, anew=False)
    store.runs.transition(run, Status.STOPPED, "Job was stopped.")
    store.runs.transition(build, Status.FAILED)
    assert last(store, run) == ("stopped", "Job was stopped.")


def test_the_end_of_a_job_moves_nobody(store: Store, job: Any) -> None:
    run = job()
    build = store.queue.attach_build(run, BUILD, anew=False)
    store.runs.transition(run, Status.FAILED)
    assert fresh(store, build).status == "created"


@pytest.mark.parametrize("status", [Status.UPSTREAM_FAILED, Status.SKIPPED])
def test_nobody_waits_for_ever_for_a_build_that_ended_otherwise(store: Store, job: Any, status: Status) -> None:
    run = job()
    build = store.queue.attach_build(run, BUILD, anew=False)
    store.runs.transition(build, status)
    assert fresh(store, run).finished_at is not None


def test_nobody_waits_for_ever_for_a_build_that_had_ended_before(store: Store, root: User, project: Project) -> None:
    build = store.runs.insert(project, root, BUILD)
    store.runs.transition(build, Status.FAILED)
    with pytest.raises(InvalidInput, match="The build 1 is failed: it has no image to run"):
        store.runs.insert(project, root, NewRun(Kind.JOB, build_pk=build.pk))


# -- the queue ---------------------------------------------------------------------------------------------------


def test_the_queue_goes_by_priority_and_then_by_age(store: Store, root: User, project: Project) -> None:
    builds = [
        store.runs.insert(project, root, NewRun(Kind.BUILD, values={"priority": priority})) for priority in (0, 5, 0, 5)
    ]
    assert [run.id for run in store.queue.runnable(9)] == [2, 4, 1, 3]
    assert [run.id for run in store.queue.runnable(2)] == [2, 4]
    assert [count_ahead(store, build) for build in builds] == [2, 0, 3, 1]


def test_a_job_is_runnable_when_its_image_is_there(store: Store, job: Any) -> None:
    run = job()
    assert store.queue.runnable(9) == []
    assert [each.pk for each in store.queue.unresolved(9)] == [run.pk]
    build = store.queue.attach_build(run, BUILD, anew=False)
    assert [each.pk for each in store.queue.runnable(9)] == [build.pk]
    assert store.queue.unresolved(9) == []
    store.runs.transition(build, Status.SUCCEEDED)
    assert [each.pk for each in store.queue.runnable(9)] == [run.pk]


def test_a_build_is_taken_once(store: Store, job: Any) -> None:
    build = store.queue.attach_build(job(), BUILD, anew=False)
    store.runs.transition(build, Status.SCHEDULED)
    assert store.queue.runnable(9) == []
    assert [each.pk for each in store.queue.begun()] == [build.pk]


@pytest.mark.parametrize("end", ["request_stop", "delete"])
def test_what_is_to_be_stopped_is_not_taken(store: Store, job: Any, end: str) -> None:
    run = job()
    build = store.queue.attach_build(run, BUILD, anew=False)
    store.runs.transition(build, Status.SUCCEEDED)
    getattr(store.runs, end)(run)
    assert store.queue.runnable(9) == store.queue.unresolved(9) == []


def test_what_is_not_managed_is_nobodys_work(store: Store, root: User, project: Project) -> None:
    for kind in Kind:
        store.runs.insert(project, root, NewRun(kind, values={"is_managed": False}))
    assert store.queue.runnable(9) == store.queue.unresolved(9) == store.queue.begun() == []


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.STARTING, Status.RUNNING, Status.WARNING, Status.UNKNOWN])
def test_what_was_begun_is_taken_up_again_and_what_is_done_is_not(store: Store, job: Any, status: Status) -> None:
    run, _ = job(), job()
    store.runs.transition(run, status, recorded={"container_id": "c"})
    assert [each.pk for each in store.queue.begun()] == [run.pk]
    store.runs.transition(run, Status.FAILED)
    assert store.queue.begun() == []


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.RUNNING, Status.WARNING, Status.UNKNOWN])
def test_what_a_client_reports_of_a_waiting_run_does_not_strand_it(store: Store, job: Any, status: Status) -> None:
    """A run has begun when it has a container."""
    run = job()
    store.runs.transition(run, status, "reported")
    assert store.queue.begun() == []
    assert [each.pk for each in store.queue.unresolved(9)] == [run.pk]
    build = store.queue.attach_build(run, BUILD, anew=False)
    store.runs.transition(build, Status.SUCCEEDED)
    assert [each.pk for each in store.queue.runnable(9)] == [run.pk]


def test_a_run_with_a_container_was_begun(store: Store, job: Any) -> None:
    run = store.runs.record(job(), container_id="c")
    assert [each.pk for each in store.queue.begun()] == [run.pk]
    assert store.queue.unresolved(9) == store.queue.runnable(9) == []
