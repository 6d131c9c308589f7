"""Removes all files, images and rows of a deleted run."""

import logging
from contextlib import suppress
from pathlib import Path

from polylocal.files import logs
from polylocal.files.disk import size_of
from polylocal.files.folders import remove_tree
from polylocal.planning import container
from polylocal.runner import ownership
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.work import WORKS
from polylocal.store.rows import Run

log = logging.getLogger(__name__)


def remove(run: Run, context: RunnerContext) -> None:
    """Remove everything of a run that is done: container, images, log, files, and then its row.

    Raises OSError, StillInUse: something can't be removed. The row stays, so that the removal is tried again.
    """
    if run.container_id:
        context.engine.remove(run.container_id)
    work = WORKS.get(run.kind)  # None: a group, which leaves a row and files only
    log_path = context.log_path(run)
    outputs = context.outputs_path(run) if run.outputs and not context.store.runs.shares_outputs(run) else None
    freed = size_of(log_path) + (size_of(outputs) if outputs else 0)
    freed += work.remove(run, context) if work else 0
    if outputs:
        _reclaim(run, outputs, context)
    for file in (log_path, logs.times_of(log_path)):
        file.unlink(missing_ok=True)
    if outputs:
        remove_tree(outputs)
        with suppress(OSError):  # the folder of a group is removed with its last experiment
            outputs.parent.rmdir()
    remove_tree(context.home.handover(run.uuid))
    if work:
        work.remove_rows(run, context)
    else:
        context.store.runs.remove(run)
    log.info("run=%s removed, %.1f MiB freed", run.label, freed / 2**20)


def _reclaim(run: Run, outputs: Path, context: RunnerContext) -> None:
    """Give files that a program wrote as another user to the daemon's user, so that they can be removed."""
    build = context.store.runs.by_pk(run.build_pk) if run.build_pk else None
    image = (build.image_id or container.image_name(build)) if build else ""
    if problem := ownership.reclaim(outputs, context.uid, context.gid, context.engine, image, context.installation_id):
        log.warning("run=%s: its outputs can't be removed: %s", run.label, problem)
