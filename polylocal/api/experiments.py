"""The endpoints of experiments alone: metrics, params, the one task, tokens for tracking."""

from collections.abc import Mapping
from typing import NoReturn

from starlette.responses import Response

from polylocal import clock
from polylocal.api import bodies, runs
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty, refuse
from polylocal.api.paging import LIMIT, envelope, window
from polylocal.api.shapes import Json
from polylocal.api.shapes.base import shaped
from polylocal.api.shapes.experiments import ExperimentJobItem, MetricItem, MetricsItem, ParamsItem, experiment_job_item
from polylocal.api.shapes.platform import TokenItem
from polylocal.api.shapes.runs import (
    ExperimentDetail,
    ExperimentItem,
    ExperimentStatusItem,
    StatusItem,
    item,
    task_status_item,
)
from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind
from polylocal.store.rows import Run

MAX_ENTRIES = 5000  # of one request
METRICS_PAGE = 300_000  # clients ask for all of them at once


def index(call: Call) -> Json:
    """A list of experiments; with `metrics` or `params` (`declarations`) only these of each experiment."""
    if call.flag("independent") and call.query("group"):
        message = "You cannot filter for independent experiments and group experiments at the same time."
        raise refuse(message)
    group = _group(call)
    default = METRICS_PAGE if call.flag("all") else LIMIT
    more = "independent:true" if call.flag("independent") else ""
    count, found = runs.page(call, group=group, more=more, default=default)
    if call.flag("metrics"):
        return envelope(call.request, count, [shaped(MetricsItem, run) for run in found], default)
    if call.flag("params") or call.flag("declarations"):
        return envelope(call.request, count, [shaped(ParamsItem, run) for run in found], default)
    return runs.listed(call, count, found, default)


def metrics(call: Call) -> Json:
    limit, offset = window(call.request, METRICS_PAGE)
    count, rows = call.store.metrics.page(call.run, limit=limit, offset=offset)
    return envelope(call.request, count, [shaped(MetricItem, row) for row in rows], METRICS_PAGE)


def add_metrics(call: Call) -> MetricItem | Response:
    """Takes one object or a list: clients send the metrics of a second together."""
    if call.data in ({}, []):
        return empty(201)  # clients send an empty body at their end
    sent = call.data if isinstance(call.data, list) else [call.data]
    if len(sent) > MAX_ENTRIES:
        raise refuse(f"One request takes at most {MAX_ENTRIES} entries of metrics, this one has {len(sent)}.")
    checked = [bodies.read(bodies.NewMetric, one) for one in sent]
    entries = [(one.values, clock.stamp(one.created_at) if one.created_at else None) for one in checked]
    made = call.store.metrics.add(call.run, entries)
    return empty(201) if isinstance(call.data, list) else shaped(MetricItem, made[0])


def jobs(call: Call) -> Json:
    """One task, `master`, once there is a container."""
    found = [experiment_job_item(call.run)] if call.run.container_id else []
    return envelope(call.request, len(found), found)


def job(call: Call) -> ExperimentJobItem:
    _check_job(call)
    return experiment_job_item(call.run)


def fixed(call: Call) -> NoReturn:
    """Tasks can't be changed: only distributed experiments had several."""
    _check_job(call)
    raise refuse("The one task of an experiment can't be changed: change or delete the experiment.")


def job_statuses(call: Call) -> Json:
    _check_job(call)
    limit, offset = window(call.request, runs.STATUSES_PAGE)
    count, rows = call.store.runs.statuses(call.run, limit=limit, offset=offset)
    return envelope(call.request, count, [task_status_item(row, call.run) for row in rows], runs.STATUSES_PAGE)


def stop_many(call: Call) -> Response:
    for run in _many(call):
        call.store.runs.request_stop(run)
        call.note("stopped", run)
    return empty()


def delete_many(call: Call) -> Response:
    for run in _many(call):
        call.store.runs.delete(run)
        call.note("deleted", run)
    return empty()


def everywhere(call: Call) -> Json:
    """The experiments of all projects that the caller may read."""
    limit, _ = window(call.request)
    found = call.store.runs.latest(call.user, kind=Kind.EXPERIMENT, is_open=False, limit=min(limit, 1000))
    marked = call.store.bookmarks.of(call.user, found)
    return envelope(call.request, len(found), [item(run, run.pk in marked) for run in found])


def _group(call: Call) -> Run | None:
    number = call.query("group")
    return call.store.runs.named(call.project, Kind.GROUP, number) if number else None


def _check_job(call: Call) -> None:
    if call.number("jid") != call.run.id or not call.run.container_id:
        raise NotFound


def _many(call: Call) -> list[Run]:
    """The experiments that the body names. Raises NotFound before any of them is changed."""
    ids = call.data.get("ids") if isinstance(call.data, Mapping) else None
    if not isinstance(ids, list) or not all(isinstance(one, int) and 0 <= one < 2**63 for one in ids):
        raise InvalidInput({"ids": ["A list of ids is required."]})
    return [call.store.runs.get(call.project, Kind.EXPERIMENT, run_id) for run_id in ids]


_ALL = "/api/v1/{user}/{project}/experiments"
_ONE = f"{_ALL}/{{id:id}}"
_HISTORY = "Refused: history stays"
_LIST = (
    Query("independent", "true: not of a group"),
    Query("group", "the id of a group"),
    Query("metrics", "true: only the last metrics of each"),
    Query("all", "true: all on one page"),
    Query("params", "true: only the params of each (`declarations` in older clients)"),
)

ENDPOINTS = [
    Endpoint(
        "GET",
        "/api/v1/experiments",
        everywhere,
        "Experiments of all projects",
        Access.USER,
        answer=ExperimentItem,
        many=True,
    ),
    runs.listing(Kind.EXPERIMENT, ExperimentItem, index, _LIST),
    runs.creation(Kind.EXPERIMENT, ExperimentDetail),
    *runs.common(Kind.EXPERIMENT, ExperimentDetail, ExperimentStatusItem),
    *runs.carried_out(Kind.EXPERIMENT),
    *runs.cloning(Kind.EXPERIMENT, ExperimentDetail),
    Endpoint("POST", f"{_ALL}/stop", stop_many, "Stop several experiments", Access.WRITE),
    Endpoint("DELETE", f"{_ALL}/delete", delete_many, "Delete several experiments", Access.WRITE),
    Endpoint("GET", f"{_ONE}/metrics", metrics, "The metrics of an experiment", answer=MetricItem, many=True),
    Endpoint(
        "POST", f"{_ONE}/metrics", add_metrics, "Report metrics", Access.TRACK, bodies.NewMetric, MetricItem, status=201
    ),
    Endpoint("GET", f"{_ONE}/jobs", jobs, "The tasks of an experiment", answer=ExperimentJobItem, many=True),
    Endpoint("GET", f"{_ONE}/jobs/{{jid:id}}", job, "The task of an experiment", answer=ExperimentJobItem),
    Endpoint("PATCH", f"{_ONE}/jobs/{{jid:id}}", fixed, "Refused: change the experiment", Access.WRITE, status=400),
    Endpoint("PUT", f"{_ONE}/jobs/{{jid:id}}", fixed, "Refused: change the experiment", Access.WRITE, status=400),
    Endpoint("DELETE", f"{_ONE}/jobs/{{jid:id}}", fixed, "Refused: change the experiment", Access.WRITE, status=400),
    Endpoint(
        "PATCH", f"{_ONE}/jobs/{{jid:id}}/statuses/{{uuid}}", fixed, "Refused: history stays", Access.WRITE, status=400
    ),
    Endpoint(
        "GET", f"{_ONE}/jobs/{{jid:id}}/statuses", job_statuses, "The history of the task", answer=StatusItem, many=True
    ),
    Endpoint(
        "POST",
        f"{_ONE}/jobs/{{jid:id}}/statuses",
        runs.add_status,
        "Report a status of the task",
        Access.TRACK,
        bodies.NewStatus,
        ExperimentStatusItem,
        status=201,
    ),
    Endpoint(
        "GET", f"{_ONE}/jobs/{{jid:id}}/statuses/{{uuid}}", runs.status, "An entry of it", answer=ExperimentStatusItem
    ),
    Endpoint(
        "POST",
        f"{_ONE}/jobs/{{uuid}}/_reconcile",
        runs.reconcile,
        "Report a status of the task again",
        Access.TRACK,
        bodies.NewStatus,
    ),
    Endpoint("POST", f"{_ONE}/ephemeraltoken", runs.token, "A token for tracking", Access.TRACK, answer=TokenItem),
    Endpoint("POST", f"{_ONE}/token", runs.token, "A token for tracking", Access.TRACK, answer=TokenItem),
]
