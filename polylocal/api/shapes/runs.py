"""Runs of all kinds as JSON: in lists, by themselves, and their history. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import as_shape, documented
from polylocal.statuses import Kind
from polylocal.store.rows import Run, StatusRow


class NamedRun(TypedDict):
    id: int
    uuid: str
    name: str | None
    unique_name: str


class RunShape(NamedRun):
    """The keys of all kinds in lists."""

    user: str
    description: str | None
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    last_status: str
    tags: list[str] | None
    project: str
    bookmarked: bool
    backend: str | None
    is_managed: bool


class BuildItem(RunShape):
    """A build in a list."""

    pod_id: str | None


@documented(
    "id uuid name unique_name user description created_at updated_at last_status started_at finished_at tags project"
    " build_job"
)
class JobItem(BuildItem):
    """A job in a list."""

    build_job: str | None
    original: str | None
    cloning_strategy: str | None


class LastNotFinite(TypedDict, total=False):
    """`nan`, `inf` or `-inf` for each value in `last_metric` that JSON has no number for, and that is null there."""

    last_metric_not_finite: dict[str, str]


_EXPERIMENT = (
    "id uuid name unique_name user description created_at updated_at started_at finished_at last_status original"
    " project experiment_group build_job tags"
)


@documented(_EXPERIMENT)
class ExperimentItem(JobItem, LastNotFinite):
    """An experiment in a list."""

    experiment_group: str | None
    last_metric: Json | None
    declarations: Json | None
    params: Json | None
    framework: str | None


_GROUP = (
    "id uuid name unique_name user description last_status project created_at updated_at started_at finished_at tags"
    " concurrency search_algorithm"
)


@documented(_GROUP)
class GroupItem(RunShape):
    """A group in a list."""

    concurrency: int | None
    search_algorithm: str | None
    group_type: str


class ServerItem(BuildItem):
    """A notebook in a list."""

    build_job: str | None
    node_scheduled: str | None


@documented(
    "id uuid name unique_name pod_id build_job node_scheduled user description created_at updated_at started_at"
    " finished_at last_status tags project experiment_group experiment"
)
class TensorboardItem(ServerItem):
    """A tensorboard in a list; both `experiment_group` and `experiment` null: it shows the whole project."""

    experiment_group: int | None
    experiment: int | None


class RunFile(TypedDict):
    """The compiled polyaxonfile of a run."""

    config: Json | None
    warnings: list[str]


class ExecutedRun(RunFile):
    content: str | None
    resources: Json | None
    commit: str | None


class ClonableRun(ExecutedRun):
    is_clone: bool
    node_scheduled: str | None
    readme: str | None
    run_env: Json | None
    data_refs: Json | None
    outputs_path: str | None
    exit_code: int | None
    restarts: int
    priority: int
    ttl: int | None


@documented(
    "id uuid name unique_name user description created_at updated_at started_at finished_at last_status tags project"
    " config resources node_scheduled num_jobs num_experiments dockerfile commit bookmarked"
)
class BuildDetail(BuildItem, ExecutedRun):
    """A build by itself."""

    node_scheduled: str | None
    num_jobs: int
    num_experiments: int
    dockerfile: str | None
    builder: str | None


@documented(
    "id uuid name unique_name user description created_at updated_at last_status started_at finished_at tags project"
    " build_job is_clone original config resources node_scheduled bookmarked"
)
class JobDetail(JobItem, ClonableRun):
    """A job by itself."""


@documented(_EXPERIMENT)
class ExperimentDetail(ExperimentItem, ClonableRun):
    """An experiment by itself."""

    original_experiment: int | None
    num_jobs: int
    has_tensorboard: bool | None
    tensorboard: int | None
    code_reference: int | None


class BestExperiment(TypedDict):
    """The experiment with the best last metric, of those that succeeded."""

    id: int
    unique_name: str
    metric: str
    value: float
    params: Json


@documented(_GROUP)
class GroupDetail(GroupItem, RunFile):
    """A group by itself."""

    current_iteration: int
    content: str
    hptuning: Json | None
    has_tensorboard: bool | None
    tensorboard: int | None
    num_experiments: int
    num_pending_experiments: int
    num_running_experiments: int
    num_scheduled_experiments: int
    num_succeeded_experiments: int
    num_failed_experiments: int
    num_stopped_experiments: int
    readme: str | None
    best_experiment: BestExperiment | None


class ServerDetail(TensorboardItem, ExecutedRun):
    """A notebook or a tensorboard by itself; `url` is its path in the daemon."""

    exit_code: int | None
    readme: str | None
    url: str


class StatusShape(TypedDict):
    id: int
    uuid: str
    created_at: str
    message: str | None
    status: str
    details: Json | None


class StatusItem(StatusShape):
    """One entry of a run's history."""

    job: int
    traceback: str | None


class ExperimentStatusItem(StatusShape):
    """One entry of an experiment's history."""

    experiment: int
    traceback: str | None


class GroupStatusItem(StatusShape):
    """One entry of a group's history."""

    experiment_group: int
    traceback: str | None


class TreeItem(TypedDict):
    """A folder of outputs: names of folders, and [name, size in bytes] of files."""

    files: list[tuple[str, int]]
    dirs: list[str]


class RunItem(NamedRun):
    """A run of any kind, for tables over all projects."""

    kind: str
    user: str
    owner: str
    project: str
    project_name: str
    last_status: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    build_job: str | None
    message: str | None
    waits_for: str | None


def _group_values(run: Run) -> Json:
    hptuning = (run.config or {}).get("hptuning")
    # older clients take no null as `content` of a group
    return {"group_type": run.group_type or "study", "content": run.content or "", "hptuning": hptuning}


def _server_values(run: Run) -> Json:
    return {"experiment_group": run.group_id, "experiment": run.experiment_id, "url": server_path(run)}


@dataclass(frozen=True)
class Shapes:
    """The shapes of one kind: in lists, by itself, and of an entry of its history, where `key` has the run's number."""

    item: type[Any]
    detail: type[Any]
    status: type[Any] = StatusItem
    key: str = "job"
    values: Callable[[Run], Json] = lambda run: {}  # those that are not columns of the run


SHAPES: Mapping[Kind, Shapes] = {
    Kind.BUILD: Shapes(BuildItem, BuildDetail),
    Kind.JOB: Shapes(JobItem, JobDetail),
    Kind.EXPERIMENT: Shapes(ExperimentItem, ExperimentDetail, ExperimentStatusItem, "experiment"),
    Kind.GROUP: Shapes(GroupItem, GroupDetail, GroupStatusItem, "experiment_group", _group_values),
    Kind.NOTEBOOK: Shapes(ServerItem, ServerDetail, values=_server_values),
    Kind.TENSORBOARD: Shapes(TensorboardItem, ServerDetail, values=_server_values),
}


def item(run: Run, bookmarked: bool) -> Json:
    """A run of a Polyaxon kind in a list."""
    shapes = SHAPES[run.kind]
    return cast(Json, as_shape(shapes.item, run, bookmarked=bookmarked, **shapes.values(run)))


def detail(run: Run, bookmarked: bool, warnings: list[str], **known: Any) -> Json:
    """A run of a Polyaxon kind by itself. `known`: the values that come from other rows and from files."""
    shapes = SHAPES[run.kind]
    about = {**shapes.values(run), **known}
    return cast(Json, as_shape(shapes.detail, run, bookmarked=bookmarked, warnings=warnings, **about))


def server_path(run: Run) -> str:
    """The path of the page of a notebook or a tensorboard."""
    below = f"experiments/{run.experiment_id}/" if run.experiment_id else ""
    below = f"groups/{run.group_id}/" if run.group_id else below
    return f"/{run.kind}/{run.owner}/{run.project_name}/{below}"


def server_keys(kind: Kind, server: Run | None) -> Json:
    """`has_notebook` and `notebook`, or the same for a tensorboard; both null: there never was one."""
    return {f"has_{kind}": server and server.finished_at is None, str(kind): server and server.id}


def status_item(status: StatusRow, run: Run) -> Json:
    """An entry of the history in the shape of the run's kind."""
    shapes = SHAPES[run.kind]
    return cast(Json, as_shape(shapes.status, status, **{shapes.key: run.id}))


def task_status_item(status: StatusRow, run: Run) -> StatusItem:
    return as_shape(StatusItem, status, job=run.id)


def run_item(run: Run, message: str | None, waits_for: str | None) -> RunItem:
    return as_shape(RunItem, run, message=message, waits_for=waits_for)
