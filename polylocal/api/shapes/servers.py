"""Notebooks and tensorboards as JSON. Pure."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import shaped
from polylocal.store.rows import Run


class ServerItem(TypedDict):
    """A notebook in a list."""

    id: int
    uuid: str
    name: str | None
    unique_name: str
    pod_id: str | None
    build_job: str | None
    node_scheduled: str | None
    user: str
    description: str | None
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    last_status: str
    tags: list[str] | None
    project: str
    backend: str | None
    bookmarked: bool
    is_managed: bool


class TensorboardItem(TypedDict):
    """A tensorboard in a list; both `experiment_group` and `experiment` null: it shows the whole project."""

    id: int
    uuid: str
    name: str | None
    unique_name: str
    pod_id: str | None
    build_job: str | None
    node_scheduled: str | None
    user: str
    description: str | None
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    last_status: str
    tags: list[str] | None
    project: str
    experiment_group: int | None
    experiment: int | None
    backend: str | None
    bookmarked: bool
    is_managed: bool


class ServerDetail(TensorboardItem):
    """A notebook or a tensorboard by itself; `url` is its path in the daemon."""

    content: str | None
    config: Json | None
    resources: Json | None
    commit: str | None
    exit_code: int | None
    readme: str | None
    url: str
    warnings: list[str]


def server_item(run: Run, bookmarked: bool) -> ServerItem:
    return shaped(ServerItem, run, bookmarked=bookmarked)


def tensorboard_item(run: Run, bookmarked: bool) -> TensorboardItem:
    return shaped(
        TensorboardItem, run, bookmarked=bookmarked, experiment_group=run.group_id, experiment=run.experiment_id
    )


def server_detail(run: Run, bookmarked: bool, warnings: list[str]) -> ServerDetail:
    return shaped(
        ServerDetail,
        run,
        bookmarked=bookmarked,
        experiment_group=run.group_id,
        experiment=run.experiment_id,
        url=server_path(run),
        warnings=warnings,
    )


def server_path(run: Run) -> str:
    """Where the page of a notebook or a tensorboard is."""
    below = f"experiments/{run.experiment_id}/" if run.experiment_id else ""
    below = f"groups/{run.group_id}/" if run.group_id else below
    return f"/{run.kind}/{run.owner}/{run.project_name}/{below}"
