"""The image of a deleted build is removed after its last container."""

from __future__ import annotations

from support import eventually

from polylocal.errors import NotFound
from polylocal.runner.supervisor import Supervisor
from polylocal.runner.work import execution_of

from .conftest import Rig, Supervise


def is_gone(rig: Rig, pk: int) -> bool:
    try:
        rig.store.runs.by_pk(pk)
    except NotFound:
        return True
    return False


def test_a_project_that_is_deleted_while_a_job_of_it_runs_leaves_no_image(rig: Rig, supervise: Supervise) -> None:
    run = rig.submit("sleep 60", build={"image": "base", "build_steps": ["true 1"]})
    supervise(lambda: rig.again(run).status == "running")
    build = rig.store.runs.by_pk(rig.again(run).build_pk or 0)
    assert build.image_id in rig.engine.local.values()
    rig.store.projects.delete(rig.project)
    supervise(lambda: is_gone(rig, run.pk) and is_gone(rig, build.pk))
    assert build.image_id not in rig.engine.local.values()
    assert not rig.engine.made


def test_a_build_that_is_deleted_while_a_job_uses_it_goes_after_the_job(rig: Rig, supervise: Supervise) -> None:
    run = rig.submit("sleep 60", build={"image": "base", "build_steps": ["true 1"]})
    supervise(lambda: rig.again(run).status == "running")
    build = rig.store.runs.by_pk(rig.again(run).build_pk or 0)
    rig.store.runs.delete(build)
    for _ in range(3):
        Supervisor(rig.context()).housekeeping.remove_deleted()
    assert not is_gone(rig, build.pk)
    assert build.image_id in rig.engine.local.values()
    rig.store.runs.request_stop(run)
    supervise(lambda: is_gone(rig, build.pk))
    assert build.image_id not in rig.engine.local.values()


def test_the_row_stays_while_a_container_that_is_kept_needs_the_image(rig: Rig) -> None:
    run = rig.submit("true", build={"image": "base", "build_steps": ["true 1"]})
    rig.store.runs._set(run.pk, {"ttl": 3600})
    run = rig.run(run)
    build = rig.store.runs.by_pk(run.build_pk or 0)
    assert rig.container(run).status == "exited"
    rig.store.runs.delete(build)
    supervisor = Supervisor(rig.context())
    supervisor.housekeeping.remove_deleted()
    assert not is_gone(rig, build.pk)
    rig.engine.remove(run.container_id or "")
    supervisor.housekeeping.retry_removals()
    supervisor.housekeeping.remove_deleted()
    assert eventually(lambda: is_gone(rig, build.pk))
    assert build.image_id not in rig.engine.local.values()


def test_a_deleted_build_is_tried_again_when_a_run_has_ended(rig: Rig) -> None:
    """The row of a run is done a moment before its container is removed."""
    run = rig.submit("true", build={"image": "base", "build_steps": ["true 1"]})
    rig.store.runs._set(run.pk, {"ttl": 3600})
    run = rig.run(run)
    build = rig.store.runs.by_pk(run.build_pk or 0)
    rig.store.runs.delete(build)
    supervisor = Supervisor(rig.context())
    supervisor.housekeeping.remove_deleted()
    rig.engine.remove(run.container_id or "")
    supervisor.housekeeping.remove_deleted()
    assert not is_gone(rig, build.pk), "it was not postponed"
    supervisor.carry_out(execution_of(rig.submit("true"), rig.context()))
    supervisor.housekeeping.remove_deleted()
    assert is_gone(rig, build.pk)
