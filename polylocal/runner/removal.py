"""What is left of a deleted run is removed."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from polylocal.errors import EngineError
from polylocal.files import logs
from polylocal.files.disk import size_of
from polylocal.files.folders import remove_tree
from polylocal.planning import container
from polylocal.runner import ownership, packages
from polylocal.runner.runner_context import RunnerContext
from polylocal.statuses import Kind
from polylocal.store.rows import Run

log = logging.getLogger(__name__)


class StillInUse(EngineError):
    """It can be removed when its last container is gone."""


def remove(run: Run, context: RunnerContext) -> None:
    """Everything of a run that is done: container, image, log, files; then its row. Says what was freed.

    Raises OSError or StillInUse where something can't be removed: the row stays, so that it is not forgotten.
    """
    if run.container_id:
        context.engine.remove(run.container_id)
    freed = sum(map(size_of, _paths(run, context)))
    if run.kind == Kind.BUILD:
        freed += _remove_images(run, context)
    elif run.outputs and not context.store.runs.shares_outputs(run):
        _reclaim(run, context)
    path = context.log_path(run)
    for file in (path, logs.times_of(path)):
        file.unlink(missing_ok=True)
    if run.outputs and not context.store.runs.shares_outputs(run):
        remove_tree(context.outputs_path(run))
        with suppress(OSError):  # the folder of a group goes with the last experiment in it
            context.outputs_path(run).parent.rmdir()
    work = context.home.work(run.uuid)
    for folder in (context.home.handover(run.uuid), work, work.with_name(f"{work.name}.gone")):
        remove_tree(folder)
    files = context.store.build_lists.files_of(run)
    if run.kind == Kind.PACKAGE:
        packages.remove_container(run, context)
    context.store.runs.remove(run)
    if files:
        packages.forget_files(context, files)
    log.info("run=%s removed, %.1f MiB freed", run.label, freed / 2**20)


def _paths(run: Run, context: RunnerContext) -> list[Path]:
    mine = [context.log_path(run)]
    if run.outputs and not context.store.runs.shares_outputs(run):
        mine.append(context.outputs_path(run))
    return mine


def _remove_images(build: Run, context: RunnerContext) -> int:
    """All that the build made: one that was stopped or made twice may have left some without a name.

    Raises StillInUse: a container is made of one, and nothing would know of it without the row.
    """
    engine, freed = context.engine, 0
    for image in engine.images(context.installation, context.store.built_images.ledger()):
        if image.build != build.uuid or not image.is_proven:
            continue
        for name in image.names or [image.id]:  # the project may have had another name
            if not engine.remove_image(name):
                raise StillInUse(f"a container uses the image {name}")
        freed += 0 if image.has_other_names else image.size_bytes
    return freed


def _reclaim(run: Run, context: RunnerContext) -> None:
    """What a program wrote as another user can't be removed as it is."""
    folder = context.outputs_path(run)
    if not ownership.has_foreign(folder, context.uid):
        return
    build = context.store.runs.by_pk(run.build_pk) if run.build_pk else None
    image = (build.image_id or container.image_name(build)) if build else ""
    if problem := ownership.reclaim(folder, context.uid, context.gid, context.engine, image, context.installation):
        log.warning("run=%s: what it kept can't be removed: %s", run.label, problem)
