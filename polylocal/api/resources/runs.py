"""Builds, jobs, and what every run has as JSON. Pure."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.resources import Json
from polylocal.statuses import Kind
from polylocal.store.rows import Run, StatusRow


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
