"""Rows → JSON. Pure. The documents' keys in the documents' order, then the keys of later versions."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.statuses import Kind
from polylocal.store.rows import CodeReference, MetricRow, Project, Run, StatusRow, User

Json = dict[str, Any]


class ProjectItem(TypedDict):
    """A project in a list."""

    id: int
    uuid: str
    user: str
    name: str
    unique_name: str
    description: str | None
    tags: list[str] | None
    created_at: str
    updated_at: str
    is_public: bool
    owner: str
    bookmarked: bool


class ProjectDetail(TypedDict):
    """A project by itself."""

    id: int
    uuid: str
    user: str
    name: str
    unique_name: str
    description: str | None
    tags: list[str] | None
    created_at: str
    updated_at: str
    is_public: bool
    has_code: bool
    has_tensorboard: bool | None
    has_notebook: bool | None
    num_experiment_groups: int
    num_independent_experiments: int
    num_experiments: int
    num_jobs: int
    num_builds: int
    bookmarked: bool
    owner: str
    readme: str | None


class BuildItem(TypedDict):
    """A build in a list."""

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
    tags: list[str] | None
    project: str
    bookmarked: bool
    pod_id: str | None
    backend: str | None
    is_managed: bool


class BuildDetail(TypedDict):
    """A build by itself."""

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
    tags: list[str] | None
    project: str
    config: Json | None
    resources: Json | None
    node_scheduled: str | None
    num_jobs: int
    num_experiments: int
    dockerfile: str | None
    commit: str | None
    bookmarked: bool
    pod_id: str | None
    backend: str | None
    is_managed: bool
    content: str | None
    builder: str | None
    warnings: list[str]


class JobItem(TypedDict):
    """A job in a list."""

    id: int
    uuid: str
    name: str | None
    unique_name: str
    user: str
    description: str | None
    created_at: str
    updated_at: str
    last_status: str
    started_at: str | None
    finished_at: str | None
    tags: list[str] | None
    project: str
    build_job: str | None
    bookmarked: bool
    pod_id: str | None
    original: str | None
    cloning_strategy: str | None
    backend: str | None
    is_managed: bool


class JobDetail(TypedDict):
    """A job by itself."""

    id: int
    uuid: str
    name: str | None
    unique_name: str
    user: str
    description: str | None
    created_at: str
    updated_at: str
    last_status: str
    started_at: str | None
    finished_at: str | None
    tags: list[str] | None
    project: str
    build_job: str | None
    is_clone: bool
    original: str | None
    config: Json | None
    resources: Json | None
    node_scheduled: str | None
    bookmarked: bool
    pod_id: str | None
    cloning_strategy: str | None
    backend: str | None
    is_managed: bool
    content: str | None
    readme: str | None
    run_env: Json | None
    data_refs: Json | None
    commit: str | None
    outputs_path: str | None
    exit_code: int | None
    restarts: int
    priority: int
    ttl: int | None
    warnings: list[str]


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


class StatusItem(TypedDict):
    """One line of a run's history."""

    id: int
    uuid: str
    created_at: str
    message: str | None
    status: str
    details: Json | None
    job: int
    traceback: str | None


class CodeReferenceItem(TypedDict):
    id: int | None
    branch: str | None
    commit: str | None
    head: str | None
    is_dirty: bool
    git_url: str | None
    repo: str | None
    external_repo: str | None


class RepoItem(TypedDict):
    project: str
    created_at: str
    updated_at: str
    is_public: bool


class TreeItem(TypedDict):
    """A folder of outputs: names of folders, and [name, size in bytes] of files."""

    files: list[tuple[str, int]]
    dirs: list[str]


class RunItem(TypedDict):
    """A run of any kind, for tables over all projects."""

    kind: str
    id: int
    uuid: str
    name: str | None
    unique_name: str
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


class UserItem(TypedDict):
    username: str
    email: str | None
    is_superuser: bool


class TokenItem(TypedDict):
    token: str


class VersionsItem(TypedDict):
    latest_version: str
    min_version: str


class LogHandlerItem(TypedDict):
    dsn: str | None
    environment: str
    tags: dict[str, str]


def project_item(project: Project, bookmarked: bool) -> ProjectItem:
    return {
        "id": project.id,
        "uuid": project.uuid,
        "user": project.user,
        "name": project.name,
        "unique_name": project.unique_name,
        "description": project.description,
        "tags": project.tags,
        "created_at": project.created_at,
        "updated_at": project.updated_at,
        "is_public": project.is_public,
        "owner": project.user,
        "bookmarked": bookmarked,
    }


def project_detail(project: Project, bookmarked: bool, counts: dict[str, int], has_code: bool) -> ProjectDetail:
    return {
        "id": project.id,
        "uuid": project.uuid,
        "user": project.user,
        "name": project.name,
        "unique_name": project.unique_name,
        "description": project.description,
        "tags": project.tags,
        "created_at": project.created_at,
        "updated_at": project.updated_at,
        "is_public": project.is_public,
        "has_code": has_code,
        "has_tensorboard": None,  # null: none was ever made
        "has_notebook": None,
        "num_experiment_groups": counts.get("group", 0),
        "num_independent_experiments": counts.get("experiment", 0),
        "num_experiments": counts.get("experiment", 0),
        "num_jobs": counts.get("job", 0),
        "num_builds": counts.get("build", 0),
        "bookmarked": bookmarked,
        "owner": project.user,
        "readme": project.readme,
    }


def build_item(run: Run, bookmarked: bool) -> BuildItem:
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
        "tags": run.tags,
        "project": run.project,
        "bookmarked": bookmarked,
        "pod_id": run.pod_id,
        "backend": run.backend,
        "is_managed": run.is_managed,
    }


def build_detail(run: Run, bookmarked: bool, used_by: dict[str, int], warnings: list[str]) -> BuildDetail:
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
        "tags": run.tags,
        "project": run.project,
        "config": run.config,
        "resources": run.resources,
        "node_scheduled": run.node,
        "num_jobs": used_by.get(Kind.JOB, 0),
        "num_experiments": used_by.get("experiment", 0),
        "dockerfile": run.dockerfile,
        "commit": run.commit,
        "bookmarked": bookmarked,
        "pod_id": run.pod_id,
        "backend": run.backend,
        "is_managed": run.is_managed,
        "content": run.content,
        "builder": run.builder,
        "warnings": warnings,
    }


def job_item(run: Run, bookmarked: bool) -> JobItem:
    return {
        "id": run.id,
        "uuid": run.uuid,
        "name": run.name,
        "unique_name": run.unique_name,
        "user": run.user,
        "description": run.description,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "last_status": run.status,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "tags": run.tags,
        "project": run.project,
        "build_job": run.build_name,
        "bookmarked": bookmarked,
        "pod_id": run.pod_id,
        "original": run.original_name,
        "cloning_strategy": run.cloning_strategy,
        "backend": run.backend,
        "is_managed": run.is_managed,
    }


def job_detail(run: Run, bookmarked: bool, outputs_path: str | None, warnings: list[str]) -> JobDetail:
    return {
        "id": run.id,
        "uuid": run.uuid,
        "name": run.name,
        "unique_name": run.unique_name,
        "user": run.user,
        "description": run.description,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "last_status": run.status,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "tags": run.tags,
        "project": run.project,
        "build_job": run.build_name,
        "is_clone": run.original_pk is not None,
        "original": run.original_name,
        "config": run.config,
        "resources": run.resources,
        "node_scheduled": run.node,
        "bookmarked": bookmarked,
        "pod_id": run.pod_id,
        "cloning_strategy": run.cloning_strategy,
        "backend": run.backend,
        "is_managed": run.is_managed,
        "content": run.content,
        "readme": run.readme,
        "run_env": run.run_env,
        "data_refs": run.data_refs,
        "commit": run.commit,
        "outputs_path": outputs_path,
        "exit_code": run.exit_code,
        "restarts": run.restarts,
        "priority": run.priority,
        "ttl": run.ttl,
        "warnings": warnings,
    }


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
        "experiment_group": None,
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


def experiment_detail(run: Run, bookmarked: bool, outputs_path: str | None, warnings: list[str]) -> ExperimentDetail:
    return {
        **experiment_item(run, bookmarked),
        "original_experiment": run.original_id,
        "config": run.config,
        "resources": run.resources,
        "num_jobs": 1 if run.container_id else 0,
        "is_clone": run.original_pk is not None,
        "has_tensorboard": None,
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


def metric_item(metric: MetricRow, run: Run) -> MetricItem:
    return {
        "id": metric.id,
        "uuid": metric.uuid,
        "created_at": metric.created_at,
        "values": metric.values,
        "experiment": run.id,
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


def status_item(status: StatusRow, run: Run) -> StatusItem:
    return {
        "id": status.id,
        "uuid": status.uuid,
        "created_at": status.created_at,
        "message": status.message,
        "status": status.status,
        "details": status.details,
        "job": run.id,
        "traceback": status.traceback,
    }


def code_reference_item(reference: CodeReference | None, project: Project) -> CodeReferenceItem:
    """Nulls where a run has no code."""
    return {
        "id": reference.id if reference else None,
        "branch": reference.branch if reference else None,
        "commit": reference.commit if reference else None,
        "head": reference.head if reference else None,
        "is_dirty": reference.is_dirty if reference else False,
        "git_url": reference.git_url if reference else None,
        "repo": project.unique_name if reference else None,
        "external_repo": None,
    }


def run_item(run: Run, message: str | None, waits_for: str | None) -> RunItem:
    return {
        "kind": run.kind,
        "id": run.id,
        "uuid": run.uuid,
        "name": run.name,
        "unique_name": run.unique_name,
        "user": run.user,
        "owner": run.owner,
        "project": run.project,
        "project_name": run.project_name,
        "last_status": run.status,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "build_job": run.build_name,
        "message": message,
        "waits_for": waits_for,
    }


def user_item(user: User) -> UserItem:
    return {"username": user.username, "email": user.email, "is_superuser": user.is_superuser}
