"""Groups of experiments as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import shaped
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


class BestExperiment(TypedDict):
    """The experiment with the best last metric, of those that succeeded."""

    id: int
    unique_name: str
    metric: str
    value: float
    params: Json


class _Result(TypedDict):
    id: int
    unique_name: str
    status: str
    iteration: int
    params: Json
    metrics: Json
    seconds: float | None


class ResultItem(_Result, total=False):
    """An experiment of a group in its table; `not_finite` has `nan`, `inf` or `-inf` for metrics that are null."""

    not_finite: dict[str, str]


class GroupResults(TypedDict):
    """What a search has found, the best first; `importance` says how far a numeric param decides the metric, 0 to 1."""

    metric: str | None
    optimization: str | None
    best_experiment: BestExperiment | None
    importance: dict[str, float]
    results: list[ResultItem]


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
    best_experiment: BestExperiment | None
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
    return shaped(GroupItem, run, bookmarked=bookmarked, group_type=run.group_type or "study")


def group_detail(
    run: Run,
    bookmarked: bool,
    counts: Mapping[str, int],
    tensorboard: Run | None,
    best: BestExperiment | None,
    warnings: list[str],
) -> GroupDetail:
    """`counts` are the experiments of the group per status."""
    return shaped(
        GroupDetail,
        run,
        bookmarked=bookmarked,
        group_type=run.group_type or "study",
        content=run.content or "",  # older clients take no null here
        hptuning=(run.config or {}).get("hptuning"),
        has_tensorboard=under_way(tensorboard),
        tensorboard=tensorboard.id if tensorboard else None,
        num_experiments=sum(counts.values()),
        num_pending_experiments=sum(counts.get(status, 0) for status in _PENDING),
        num_running_experiments=sum(counts.get(status, 0) for status in _RUNNING),
        num_scheduled_experiments=counts.get(Status.SCHEDULED, 0),
        num_succeeded_experiments=counts.get(Status.SUCCEEDED, 0),
        num_failed_experiments=counts.get(Status.FAILED, 0) + counts.get(Status.UPSTREAM_FAILED, 0),
        num_stopped_experiments=counts.get(Status.STOPPED, 0),
        best_experiment=best,
        warnings=warnings,
    )


def group_status_item(status: StatusRow, run: Run) -> GroupStatusItem:
    return shaped(GroupStatusItem, status, experiment_group=run.id)


def chart_view_item(view: ChartView) -> ChartViewItem:
    return shaped(ChartViewItem, view)


def under_way(server: Run | None) -> bool | None:
    """What `has_notebook` and `has_tensorboard` say: null, where there never was one."""
    return None if server is None else server.finished_at is None
