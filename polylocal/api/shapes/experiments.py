"""Metrics, params, tasks and results of experiments, and charts of them, as JSON. Pure."""

from collections.abc import Mapping

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import as_shape
from polylocal.api.shapes.runs import BestExperiment, LastNotFinite, NamedRun
from polylocal.statuses import Status
from polylocal.store.rows import Run

_PENDING = (Status.CREATED, Status.RESUMING)
_RUNNING = (Status.SCHEDULED, Status.BUILDING, Status.STARTING, Status.RUNNING)


class MetricsItem(NamedRun, LastNotFinite):
    """An experiment in a list of metrics."""

    last_metric: Json | None
    started_at: str | None
    finished_at: str | None


class ParamsItem(NamedRun):
    """An experiment in a list of params, under their old and their new name."""

    declarations: Json | None
    params: Json | None


class NotFinite(TypedDict, total=False):
    """`nan`, `inf` or `-inf` for each value that JSON has no number for, and that is null."""

    not_finite: dict[str, str]


class MetricItem(NotFinite):
    """The values of one moment."""

    id: int
    uuid: str
    created_at: str
    values: Json
    experiment: int


class ExperimentJobItem(TypedDict):
    """The one task of an experiment, in the words of distributed ones."""

    id: int
    uuid: str
    unique_name: str
    role: str
    experiment: int
    last_status: str
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    resources: Json | None
    node_scheduled: str | None
    pod_id: str | None
    definition: Json


class ResultItem(NotFinite):
    """An experiment in the table of its group."""

    id: int
    unique_name: str
    status: str
    iteration: int
    params: Json
    metrics: Json
    seconds: float | None


class GroupResults(TypedDict):
    """The results of a group, the best first.

    `importance`: how far each numeric param determines the metric, 0 to 1.
    """

    metric: str | None
    optimization: str | None
    best_experiment: BestExperiment | None
    importance: dict[str, float]
    results: list[ResultItem]


class ChartViewItem(TypedDict):
    """A set of charts that a user keeps."""

    id: int
    uuid: str
    name: str | None
    charts: list[Json] | Json
    meta: Json | None
    created_at: str
    updated_at: str


def experiment_job_item(run: Run) -> ExperimentJobItem:
    """A run has one task, so the task has the number of the run."""
    name = f"{run.unique_name}.{run.id}.master"
    return as_shape(ExperimentJobItem, run, unique_name=name, role="master", experiment=run.id, definition={})


def counts_of_group(counts: Mapping[str, int]) -> Json:
    """The keys `num_…experiments` of a group. `counts`: its experiments by status."""
    return {
        "num_experiments": sum(counts.values()),
        "num_pending_experiments": sum(counts.get(status, 0) for status in _PENDING),
        "num_running_experiments": sum(counts.get(status, 0) for status in _RUNNING),
        "num_scheduled_experiments": counts.get(Status.SCHEDULED, 0),
        "num_succeeded_experiments": counts.get(Status.SUCCEEDED, 0),
        "num_failed_experiments": counts.get(Status.FAILED, 0) + counts.get(Status.UPSTREAM_FAILED, 0),
        "num_stopped_experiments": counts.get(Status.STOPPED, 0),
    }
