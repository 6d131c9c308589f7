"""Experiments and groups, and what they measured as JSON. Pure."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.resources import Json
from polylocal.api.resources.groups import under_way
from polylocal.store.rows import MetricRow, Run, StatusRow


class ExperimentItem(TypedDict):
    """An experiment in a list."""

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


class ExperimentDetail(ExperimentItem):
    """An experiment by itself."""

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


class MetricsItem(TypedDict):
    """An experiment in a list of metrics."""

    id: int
    uuid: str
    name: str | None
    unique_name: str
    last_metric: Json | None
    started_at: str | None
    finished_at: str | None


class MetricItem(TypedDict):
    """Values that were measured at one moment."""

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
    return {
        "id": run.id,
        "uuid": run.uuid,
        "name": run.name,
        "unique_name": run.unique_name,
        "user": run.user,
        "description": run.description,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "last_status": run.status,
        "original": run.original_name,
        "project": run.project,
        "experiment_group": run.group_name,
        "build_job": run.build_name,
        "tags": run.tags,
        "last_metric": run.last_metric,
        "declarations": run.params,
        "bookmarked": bookmarked,
        "params": run.params,
        "pod_id": run.pod_id,
        "cloning_strategy": run.cloning_strategy,
        "backend": run.backend,
        "framework": run.framework,
        "is_managed": run.is_managed,
    }


def experiment_detail(
    run: Run, bookmarked: bool, outputs_path: str | None, tensorboard: Run | None, warnings: list[str]
) -> ExperimentDetail:
    return {
        **experiment_item(run, bookmarked),
        "original_experiment": run.original_id,
        "config": run.config,
        "resources": run.resources,
        "num_jobs": 1 if run.container_id else 0,
        "is_clone": run.original_pk is not None,
        "has_tensorboard": under_way(tensorboard),
        "tensorboard": tensorboard.id if tensorboard else None,
        "content": run.content,
        "readme": run.readme,
        "run_env": run.run_env,
        "data_refs": run.data_refs,
        "code_reference": run.code_id,
        "node_scheduled": run.node,
        "commit": run.commit,
        "outputs_path": outputs_path,
        "exit_code": run.exit_code,
        "restarts": run.restarts,
        "priority": run.priority,
        "ttl": run.ttl,
        "warnings": warnings,
    }


def metrics_item(run: Run) -> MetricsItem:
    return {
        "id": run.id,
        "uuid": run.uuid,
        "name": run.name,
        "unique_name": run.unique_name,
        "last_metric": run.last_metric,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def params_item(run: Run) -> Json:
    """An experiment in a list of params, under their old and their new name."""
    named = {"id": run.id, "uuid": run.uuid, "name": run.name, "unique_name": run.unique_name}
    return {**named, "declarations": run.params, "params": run.params}


def metric_item(metric: MetricRow) -> MetricItem:
    return {
        "id": metric.id,
        "uuid": metric.uuid,
        "created_at": metric.created_at,
        "values": metric.values,
        "experiment": metric.experiment,
    }


def experiment_job_item(run: Run) -> ExperimentJobItem:
    """A run has one task, so the task has the run's number."""
    return {
        "id": run.id,
        "uuid": run.uuid,
        "unique_name": f"{run.unique_name}.{run.id}.master",
        "role": "master",
        "experiment": run.id,
        "last_status": run.status,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "resources": run.resources,
        "node_scheduled": run.node,
        "pod_id": run.pod_id,
        "definition": {},
    }


def experiment_status_item(status: StatusRow, run: Run) -> ExperimentStatusItem:
    return {
        "id": status.id,
        "uuid": status.uuid,
        "created_at": status.created_at,
        "message": status.message,
        "status": status.status,
        "details": status.details,
        "experiment": run.id,
        "traceback": status.traceback,
    }
