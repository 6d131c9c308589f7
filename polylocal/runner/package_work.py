"""Package builds: a container builds packages from a commit, and may install packages of other builds."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from polylocal.errors import EngineError
from polylocal.files.folders import remove_tree
from polylocal.packages.file_store import GUARD
from polylocal.runner.container_operation import ContainerOperation, ContainerWork
from polylocal.runner.outcome import Outcome
from polylocal.runner.package_container import PackageContainer
from polylocal.runner.package_results import Results
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.rows import Run

log = logging.getLogger(__name__)


class PackageWork(ContainerWork):
    """A build list of ABF."""

    def time_limit_s(self, run: Run, context: RunnerContext) -> float | None:
        lists, platforms = context.store.build_lists, context.store.platforms
        return float(platforms.get(lists.of_run(run.pk).build_for_platform_id).time_living)

    def create(self, operation: ContainerOperation) -> str:
        return PackageContainer(operation).create()

    def image(self, run: Run, context: RunnerContext) -> str:
        return run.specification.build.image or ""

    def writable_folders(self, run: Run, context: RunnerContext) -> list[Path]:
        return [context.home.handover(run.uuid)]

    def max_losses(self, run: Run) -> int:
        return 1  # as in ABF: a lost worker is not the build's fault

    def retries_failed_start(self, operation: ContainerOperation, reason: str) -> bool:
        run = operation.run
        if operation.execution.is_cancelled() or run.restarts >= self.max_losses(run):
            return False
        operation.execution.log_message(f"its container could not be started: {reason}; trying again")
        recorded = {"restarts": run.restarts + 1, "container_id": None}
        if not operation.record_restart(f"Could not start: {reason}: trying again", recorded):
            return False
        if run.container_id:
            try:
                operation.context.engine.remove(run.container_id)
            except EngineError as error:
                log.warning("run=%s: a container stays for now: %s", run.label, error)
        return True

    def before_final_status(self, operation: ContainerOperation, recorded: Mapping[str, object]) -> None:
        if "exit_code" not in recorded:  # without an ended container the folders were not reclaimed before
            operation.reclaim_folders(None)

    def end(self, operation: ContainerOperation, end: Outcome, recorded: Mapping[str, object]) -> Outcome | None:
        return Results(operation).end(end, recorded)

    def remove(self, run: Run, context: RunnerContext) -> int:
        for folder in context.home.downloads.glob(f"*/container/{run.id}"):
            remove_tree(folder)
        return 0

    def remove_rows(self, run: Run, context: RunnerContext) -> None:
        files = context.store.files.of_run(run)
        super().remove_rows(run, context)
        if files:
            forget_files(context, files)


def forget_files(context: RunnerContext, among: Iterable[str] | None = None) -> None:
    """Remove the files of these sha1 that no build has any more; None: all of them, and unfinished uploads."""
    with GUARD:
        for sha1 in context.store.files.remove_unused(among):
            context.file_store.remove(sha1)
        if among is None:
            context.file_store.remove_temporary_files()
            for sha1 in context.store.files.without_row(context.file_store.names()):
                context.file_store.remove(sha1)
