"""Groups of experiments as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.resources import Json
from polylocal.statuses import Status
from polylocal.store.rows import ChartView, Run, StatusRow

_PENDING = (Status.CREATED, Status.RESUMING)
_RUNNING = (Status.SCHEDULED, Status.BUILDING, Status.STARTING, Status.RUNNING)


class GroupItem(TypedDict):
    """A group in a list."""

    id: int
    uuid: str
    name: str | None
    unique_name: str
    user: str
    description: str | None
    last_status: str
    project: str
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    tags: list[str] | None
    concurrency: int | None
    search_algorithm: str | None
    bookmarked: bool
    group_type: str
    backend: str | None
    is_managed: bool


class GroupDetail(GroupItem):
    """A group by itself."""

    current_iteration: int
    content: str
    hptuning: Json | None
    config: Json | None
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
    warnings: list[str]


class GroupStatusItem(TypedDict):
    """One line of a group's history."""

    id: int
    uuid: str
    created_at: str
    message: str | None
    status: str
    details: Json | None
    experiment_group: int
    traceback: str | None


class ChartViewItem(TypedDict):
    """Charts that somebody put together."""

    id: int
    uuid: str
    name: str | None
    charts: list[Json] | Json
    meta: Json | None
    created_at: str
    updated_at: str


def group_item(run: Run, bookmarked: bool) -> GroupItem:
    return {
        "id": run.id,
        "uuid": run.uuid,
        "name": run.name,
        "unique_name": run.unique_name,
        "user": run.user,
        "description": run.description,
        "last_status": run.status,
        "project": run.project,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "tags": run.tags,
        "concurrency": run.concurrency,
        "search_algorithm": run.search_algorithm,
        "bookmarked": bookmarked,
        "group_type": run.group_type or "study",
        "backend": run.backend,
        "is_managed": run.is_managed,
    }


def group_detail(
    run: Run, bookmarked: bool, counts: Mapping[str, int], tensorboard: Run | None, warnings: list[str]
) -> GroupDetail:
    """`counts` are the experiments of the group per status."""
    return {
        **group_item(run, bookmarked),
        "current_iteration": run.iteration + (1 if run.suggested else 0),  # those that have begun
        "content": run.content or "",  # older clients take no null here
        "hptuning": (run.config or {}).get("hptuning"),
        "config": run.config,
        "has_tensorboard": under_way(tensorboard),
        "tensorboard": tensorboard.id if tensorboard else None,
        "num_experiments": sum(counts.values()),
        "num_pending_experiments": sum(counts.get(status, 0) for status in _PENDING),
        "num_running_experiments": sum(counts.get(status, 0) for status in _RUNNING),
        "num_scheduled_experiments": counts.get(Status.SCHEDULED, 0),
        "num_succeeded_experiments": counts.get(Status.SUCCEEDED, 0),
        "num_failed_experiments": counts.get(Status.FAILED, 0) + counts.get(Status.UPSTREAM_FAILED, 0),
        "num_stopped_experiments": counts.get(Status.STOPPED, 0),
        "readme": run.readme,
        "warnings": warnings,
    }


def group_status_item(status: StatusRow, run: Run) -> GroupStatusItem:
    return {
        "id": status.id,
        "uuid": status.uuid,
        "created_at": status.created_at,
        "message": status.message,
        "status": status.status,
        "details": status.details,
        "experiment_group": run.id,
        "traceback": status.traceback,
    }


def chart_view_item(view: ChartView) -> ChartViewItem:
    return {
        "id": view.id,
        "uuid": view.uuid,
        "name": view.name,
        "charts": view.charts,
        "meta": view.meta,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
    }


def under_way(server: Run | None) -> bool | None:
    """What `has_notebook` and `has_tensorboard` say: null, where there never was one."""
    return None if server is None else server.finished_at is None
