"""The kinds of runs: one object for each, in one table.

A new kind of run is a new class here, or in its own module, and a line in the table.
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polylocal.engine.containers import ContainerState
from polylocal.errors import ImageMissing, InvalidInput
from polylocal.files.folders import remove_tree
from polylocal.planning import container
from polylocal.runner import provision, workspace
from polylocal.runner.building import BuildWork
from polylocal.runner.container_operation import ContainerOperation, ContainerWork, NotReady, log
from polylocal.runner.execution import Execution, Work
from polylocal.runner.package_work import PackageWork
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.workspace import Workspace
from polylocal.statuses import Kind
from polylocal.store.rows import Run


class CommandWork(ContainerWork):
    """Jobs and experiments: a command in the image of a build."""

    def workspace(self, run: Run, context: RunnerContext) -> Workspace:
        """Prepare the folders that only containers of this kind have."""
        return Workspace()

    def create(self, operation: ContainerOperation) -> str:
        run, context = operation.run, operation.context
        build = context.store.runs.by_pk(run.build_pk) if run.build_pk else None
        if build is None:
            raise InvalidInput(["its build was deleted"])

        def create() -> str:
            return provision.make_container(run, build, context, self.workspace)

        try:
            return operation.execution.call_engine(create)
        except ImageMissing as error:
            log.info("run=%s: the image of %s was removed, it is built again", run.label, build.label)
            context.store.queue.detach_build(run, build)
            raise NotReady from error

    def image(self, run: Run, context: RunnerContext) -> str:
        build = context.store.runs.by_pk(run.build_pk or 0)
        return build.image_id or container.image_name(build)


class ServerWork(CommandWork):
    """Programs with pages for a browser. They run until a user stops them."""

    has_address = True

    def time_limit_s(self, run: Run, context: RunnerContext) -> float | None:
        return None

    def address_columns(self, run: Run, state: ContainerState) -> dict[str, Any]:
        found = state.endpoint(container.SERVER_PORTS[run.kind])
        return {"port": found.port, "address": found.host} if found else {"port": None, "address": None}

    @abstractmethod
    def workspace(self, run: Run, context: RunnerContext) -> Workspace: ...


class NotebookWork(ServerWork):
    """A notebook changes a checkout of the code. The changes become a commit at its end."""

    def workspace(self, run: Run, context: RunnerContext) -> Workspace:
        return Workspace(code=workspace.check_out_code(run, context), server_token=workspace.server_token(run, context))

    def writable_folders(self, run: Run, context: RunnerContext) -> list[Path]:
        return [*super().writable_folders(run, context), context.home.work(run.uuid)]

    def before_final_status(self, operation: ContainerOperation, recorded: Mapping[str, object]) -> None:
        workspace.commit_and_remove(operation.run, operation.context)

    def remove(self, run: Run, context: RunnerContext) -> int:
        """Remove the checkout, which is left where it could not be committed."""
        folder = context.home.work(run.uuid)
        for path in (folder, workspace.removal_path(folder)):
            remove_tree(path)
        return 0


class TensorboardWork(ServerWork):
    """A tensorboard reads the outputs of experiments."""

    def workspace(self, run: Run, context: RunnerContext) -> Workspace:
        return Workspace(watched=workspace.watched_outputs(run, context))


# a group has no entry, since it only creates experiments
WORKS: Mapping[Kind, Work] = {
    Kind.BUILD: BuildWork(),
    Kind.JOB: CommandWork(),
    Kind.EXPERIMENT: CommandWork(),
    Kind.NOTEBOOK: NotebookWork(),
    Kind.TENSORBOARD: TensorboardWork(),
    Kind.PACKAGE: PackageWork(),
}


def execution_of(run: Run, context: RunnerContext) -> Execution:
    """The execution of a run, by its kind. Raises KeyError for a group."""
    return Execution(run, WORKS[run.kind], context)
