"""Experiments and groups, and what they measured as JSON. Pure."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import shaped
from polylocal.api.shapes.groups import under_way
from polylocal.store.rows import MetricRow, Run, StatusRow


class LastNotFinite(TypedDict, total=False):
    """`nan`, `inf` or `-inf` for each value in `last_metric` that JSON has no number for, and that is null there."""

    last_metric_not_finite: dict[str, str]


class _Item(TypedDict):
    id: int
    uuid: str
    name: str | None
    unique_name: str
    user: str
    description: str | None
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    last_status: str
    original: str | None
    project: str
    experiment_group: str | None
    build_job: str | None
    tags: list[str] | None
    last_metric: Json | None
    declarations: Json | None
    bookmarked: bool
    params: Json | None
    pod_id: str | None
    cloning_strategy: str | None
    backend: str | None
    framework: str | None
    is_managed: bool


class ExperimentItem(_Item, LastNotFinite):
    """An experiment in a list."""


class _Detail(_Item):
    original_experiment: int | None
    config: Json | None
    resources: Json | None
    num_jobs: int
    is_clone: bool
    has_tensorboard: bool | None
    tensorboard: int | None
    content: str | None
    readme: str | None
    run_env: Json | None
    data_refs: Json | None
    code_reference: int | None
    node_scheduled: str | None
    commit: str | None
    outputs_path: str | None
    exit_code: int | None
    restarts: int
    priority: int
    ttl: int | None
    warnings: list[str]


class ExperimentDetail(_Detail, LastNotFinite):
    """An experiment by itself."""


class _Metrics(TypedDict):
    id: int
    uuid: str
    name: str | None
    unique_name: str
    last_metric: Json | None
    started_at: str | None
    finished_at: str | None


class MetricsItem(_Metrics, LastNotFinite):
    """An experiment in a list of metrics."""


class ParamsItem(TypedDict):
    """An experiment in a list of params, under their old and their new name."""

    id: int
    uuid: str
    name: str | None
    unique_name: str
    declarations: Json | None
    params: Json | None


class _Measured(TypedDict):
    id: int
    uuid: str
    created_at: str
    values: Json
    experiment: int


class MetricItem(_Measured, total=False):
    """Values that were measured at one moment; `not_finite` has `nan`, `inf` or `-inf` for each that is null."""

    not_finite: dict[str, str]


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


class ExperimentStatusItem(TypedDict):
    """One line of an experiment's history."""

    id: int
    uuid: str
    created_at: str
    message: str | None
    status: str
    details: Json | None
    experiment: int
    traceback: str | None


def experiment_item(run: Run, bookmarked: bool) -> ExperimentItem:
    return shaped(ExperimentItem, run, bookmarked=bookmarked)


def experiment_detail(
    run: Run, bookmarked: bool, outputs_path: str | None, tensorboard: Run | None, warnings: list[str]
) -> ExperimentDetail:
    return shaped(
        ExperimentDetail,
        run,
        bookmarked=bookmarked,
        num_jobs=1 if run.container_id else 0,
        has_tensorboard=under_way(tensorboard),
        tensorboard=tensorboard.id if tensorboard else None,
        outputs_path=outputs_path,
        warnings=warnings,
    )


def metrics_item(run: Run) -> MetricsItem:
    return shaped(MetricsItem, run)


def params_item(run: Run) -> ParamsItem:
    return shaped(ParamsItem, run)


def metric_item(metric: MetricRow) -> MetricItem:
    return shaped(MetricItem, metric)


def experiment_job_item(run: Run) -> ExperimentJobItem:
    """A run has one task, so the task has the run's number."""
    name = f"{run.unique_name}.{run.id}.master"
    return shaped(ExperimentJobItem, run, unique_name=name, role="master", experiment=run.id, definition={})


def experiment_status_item(status: StatusRow, run: Run) -> ExperimentStatusItem:
    return shaped(ExperimentStatusItem, status, experiment=run.id)
