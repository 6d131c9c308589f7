"""Prepares the folders of notebooks (code) and tensorboards (outputs), and commits the changes of notebooks."""

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from polylocal.errors import PolylocalError
from polylocal.files.folders import remove_tree
from polylocal.paths import run_outputs
from polylocal.planning import container
from polylocal.runner import ownership
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.rows import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """The folders that only notebooks and tensorboards have."""

    code: Path | None = None  # a checkout, for a notebook
    watched: tuple[Path, PurePosixPath] | None = None  # outputs here and in the container, for a tensorboard
    server_token: str | None = None  # of Jupyter


def check_out_code(run: Run, context: RunnerContext) -> Path:
    """The folder with a notebook's code. It is checked out once, and never overwritten."""
    folder = context.home.work(run.uuid)
    if not folder.exists():
        context.repository(run).checkout(run.commit, folder)
    ownership.open_to_all(folder)
    return folder


def commit_and_remove(run: Run, context: RunnerContext) -> None:
    """Commit the changes of a notebook, unless its run discards them, and remove its folder. Idempotent.

    If some changes could not be committed, the folder stays, and the run's history names it.
    """
    folder = context.home.work(run.uuid)
    gone = removal_path(folder)  # renamed first: a partly removed folder must not look like the code
    _remove(gone)
    if not folder.exists():
        return
    try:
        if context.store.runs.by_pk(run.pk).keeps_changes:
            done = context.repository(run).commit_folder(folder, run.commit, run.user)
            if done.commit:
                message = f"The notebook's changes are commit {done.commit[:12]} of the project's code"
                context.store.runs.note(run, message)
            if done.left_out:
                names = ", ".join(done.left_out[:3]) + (" …" if len(done.left_out) > 3 else "")
                context.store.runs.note(run, f"Not committed, and kept in {folder}: {names}")
                return
        folder.rename(gone)
        _remove(gone)
    except (PolylocalError, OSError) as error:
        log.warning("run=%s: its changes stay in %s: %s", run.label, folder, error)
        context.store.runs.note(run, f"The notebook's changes could not be committed, they stay in {folder}: {error}")


def removal_path(folder: Path) -> Path:
    """The name of a folder that is being removed."""
    return folder.with_name(f"{folder.name}.gone")


def _remove(folder: Path) -> None:
    try:
        remove_tree(folder)
    except OSError as error:
        log.warning("%s stays until its run is removed: %s", folder, error)


def watched_outputs(run: Run, context: RunnerContext) -> tuple[Path, PurePosixPath]:
    """The outputs that a tensorboard shows, of an experiment, a group or a project: folder, path in the container."""
    home = context.home
    if run.experiment_pk:
        experiment = context.store.runs.by_pk(run.experiment_pk)
        folder, inside = context.outputs_path(experiment), container.outputs_path(experiment)
    elif run.group_id:
        folder = home.outputs(run.project_uuid, "group", run.group_id)
        inside = container.OUTPUTS / run.owner / run.project_name / run_outputs("group", run.group_id)
    else:
        folder = home.project_outputs(run.project_uuid)
        inside = container.OUTPUTS / run.owner / run.project_name
    folder.mkdir(parents=True, exist_ok=True)
    return folder, inside


def server_token(run: Run, context: RunnerContext) -> str:
    """The token of a notebook's Jupyter server, created once in a file that the daemon's proxy reads."""
    file = context.home.server_token(run.uuid)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.with_name(f"{file.name}.new")
        handle.touch(mode=0o600)
        handle.write_text(secrets.token_hex(20))
        handle.replace(file)
    return file.read_text()
