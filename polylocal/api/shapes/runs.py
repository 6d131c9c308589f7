"""Builds, jobs, and what every run has as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import shaped
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
    return shaped(BuildItem, run, bookmarked=bookmarked)


def build_detail(run: Run, bookmarked: bool, used_by: Mapping[str, int], warnings: list[str]) -> BuildDetail:
    """`used_by` are the runs that use it, per kind."""
    jobs, experiments = used_by.get(Kind.JOB, 0), used_by.get(Kind.EXPERIMENT, 0)
    return shaped(
        BuildDetail, run, bookmarked=bookmarked, num_jobs=jobs, num_experiments=experiments, warnings=warnings
    )


def job_item(run: Run, bookmarked: bool) -> JobItem:
    return shaped(JobItem, run, bookmarked=bookmarked)


def job_detail(run: Run, bookmarked: bool, outputs_path: str | None, warnings: list[str]) -> JobDetail:
    return shaped(JobDetail, run, bookmarked=bookmarked, outputs_path=outputs_path, warnings=warnings)


def status_item(status: StatusRow, run: Run) -> StatusItem:
    return shaped(StatusItem, status, job=run.id)


def run_item(run: Run, message: str | None, waits_for: str | None) -> RunItem:
    return shaped(RunItem, run, message=message, waits_for=waits_for)
