"""Runs as JSON objects with values from other rows and from files: in lists, as details, and in tables."""

from collections.abc import Callable, Mapping, Sequence

from polylocal.api import results, run_creation
from polylocal.api.api_context import ApiContext
from polylocal.api.server_programs import newest_server
from polylocal.api.shapes import Json
from polylocal.api.shapes.experiments import counts_of_group
from polylocal.api.shapes.runs import RunItem, item, run_item, server_keys
from polylocal.api.shapes.runs import detail as detail_item
from polylocal.api.waiting import waits_for
from polylocal.statuses import Kind
from polylocal.store import Store
from polylocal.store.rows import Project, Run, User


def items(found: Sequence[Run], user: User, store: Store) -> list[Json]:
    """Runs as in the lists of their kinds, as `user` sees them."""
    marked = store.bookmarks.among(user, found)
    return [item(run, run.pk in marked) for run in found]


def detail(run: Run, project: Project, user: User, context: ApiContext) -> Json:
    """A run by itself, as `user` sees it."""
    bookmarked = run.pk in context.store.bookmarks.among(user, [run])
    return detail_item(run, bookmarked, _warnings(run), **VALUES[run.kind](run, project, context))


def table_rows(found: Sequence[Run], user: User, context: ApiContext) -> list[RunItem]:
    """Rows of a table of runs of all kinds, for `user`."""
    messages = context.store.runs.newest_messages(found)
    reasons = waits_for(context, user, found)
    return [run_item(run, messages.get(run.pk), reasons.get(run.pk)) for run in found]


def _warnings(run: Run) -> list[str]:
    if run.warnings is not None or not run.config:
        return run.warnings or []
    return run_creation.without_effect(run.specification)


def _build_values(run: Run, project: Project, context: ApiContext) -> Json:
    used_by = context.store.runs.dependents(run)
    return {f"num_{kind.plural}": used_by.get(kind, 0) for kind in (Kind.JOB, Kind.EXPERIMENT)}


def _outputs_values(run: Run, project: Project, context: ApiContext) -> Json:
    return {"outputs_path": str(context.outputs_path(run)) if run.outputs else None}


def _experiment_values(run: Run, project: Project, context: ApiContext) -> Json:
    tensorboard = _tensorboard_keys(run, project, context)
    return {**_outputs_values(run, project, context), "num_jobs": 1 if run.container_id else 0, **tensorboard}


def _group_values(run: Run, project: Project, context: ApiContext) -> Json:
    store = context.store
    known = {"best_experiment": results.best(store, run), **counts_of_group(store.groups.counts(run))}
    return {**known, **_tensorboard_keys(run, project, context)}


def _tensorboard_keys(run: Run, project: Project, context: ApiContext) -> Json:
    return server_keys(Kind.TENSORBOARD, newest_server(context.store, project, Kind.TENSORBOARD, run))


def _no_values(run: Run, project: Project, context: ApiContext) -> Json:
    return {}


# the values of a detail that are not columns of the run
VALUES: Mapping[Kind, Callable[[Run, Project, ApiContext], Json]] = {
    Kind.BUILD: _build_values,
    Kind.JOB: _outputs_values,
    Kind.EXPERIMENT: _experiment_values,
    Kind.GROUP: _group_values,
    Kind.NOTEBOOK: _no_values,
    Kind.TENSORBOARD: _no_values,
}
