"""Removes everything that a deleted run has left."""

import logging
from contextlib import suppress
from pathlib import Path

from polylocal.files import logs
from polylocal.files.disk import size_of
from polylocal.files.folders import remove_tree
from polylocal.planning import container
from polylocal.runner import ownership, package_work
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.work import WORKS
from polylocal.store.rows import Run

log = logging.getLogger(__name__)


def remove(run: Run, context: RunnerContext) -> None:
    """Remove everything of a run that is done: container, images, log, files, and then its row.

    Raises OSError, StillInUse: something can't be removed. The row is kept, so that the removal is tried again.
    """
    if run.container_id:
        context.engine.remove(run.container_id)
    freed = sum(map(size_of, _paths(run, context)))
    freed += WORKS[run.kind].remove(run, context) if run.kind in WORKS else 0
    if run.outputs and not context.store.runs.shares_outputs(run):
        _reclaim(run, context)
    path = context.log_path(run)
    for file in (path, logs.times_of(path)):
        file.unlink(missing_ok=True)
    if run.outputs and not context.store.runs.shares_outputs(run):
        remove_tree(context.outputs_path(run))
        with suppress(OSError):  # the folder of a group is removed with its last experiment
            context.outputs_path(run).parent.rmdir()
    remove_tree(context.home.handover(run.uuid))
    files = context.store.files.of_run(run)
    context.store.runs.remove(run)
    if files:
        package_work.forget_files(context, files)
    log.info("run=%s removed, %.1f MiB freed", run.label, freed / 2**20)


def _paths(run: Run, context: RunnerContext) -> list[Path]:
    mine = [context.log_path(run)]
    if run.outputs and not context.store.runs.shares_outputs(run):
        mine.append(context.outputs_path(run))
    return mine


def _reclaim(run: Run, context: RunnerContext) -> None:
    """Give files that a program wrote as another user to the daemon's user, so that they can be removed."""
    folder = context.outputs_path(run)
    if not ownership.has_foreign(folder, context.uid):
        return
    build = context.store.runs.by_pk(run.build_pk) if run.build_pk else None
    image = (build.image_id or container.image_name(build)) if build else ""
    if problem := ownership.reclaim(folder, context.uid, context.gid, context.engine, image, context.installation_id):
        log.warning("run=%s: what it kept can't be removed: %s", run.label, problem)
