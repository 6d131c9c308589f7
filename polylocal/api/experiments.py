"""Endpoints that only experiments have: metrics, params, the one task, tokens for tracking."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

from starlette.responses import Response

from polylocal import clock
from polylocal.api import bodies, runs
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty_response, refusal, run_path, runs_path
from polylocal.api.paging import LIMIT, envelope, page, window
from polylocal.api.run_objects import items
from polylocal.api.shapes import Json
from polylocal.api.shapes.base import as_shape
from polylocal.api.shapes.experiments import ExperimentJobItem, MetricItem, MetricsItem, ParamsItem, experiment_job_item
from polylocal.api.shapes.platform import TokenItem
from polylocal.api.shapes.runs import ExperimentItem, ExperimentStatusItem, StatusItem, task_status_item
from polylocal.errors import InvalidInput, NotFound
from polylocal.statuses import Kind
from polylocal.store.rows import Run
from polylocal.store.runs import Runs

MAX_ENTRIES = 5000  # of one request
METRICS_PAGE = 300_000  # clients ask for all of them at once


def index(call: Call) -> Json:
    """A list of experiments; with `metrics` or `params` (`declarations`) only these of each experiment."""
    group_number, is_independent = call.query("group"), call.flag("independent")
    if is_independent and group_number:
        raise refusal("You cannot filter for independent experiments and group experiments at the same time.")
    group = call.store.runs.by_name(call.project, Kind.GROUP, group_number) if group_number else None
    default = METRICS_PAGE if call.flag("all") else LIMIT
    selected = runs.selection(call, "independent:true" if is_independent else "", default)
    count, found = call.store.runs.page(call.project, call.kind, group=group, **selected)
    if call.flag("metrics"):
        results: list[Any] = [as_shape(MetricsItem, run) for run in found]
    elif call.flag("params") or call.flag("declarations"):
        results = [as_shape(ParamsItem, run) for run in found]
    else:
        results = items(found, call.user, call.store)
    return envelope(call.request, count, results, default)


def metrics(call: Call) -> Json:
    return page(call.request, partial(call.store.metrics.page, call.run), partial(as_shape, MetricItem), METRICS_PAGE)


def add_metrics(call: Call) -> MetricItem | Response:
    """Takes one object or a list: clients send the metrics of a second together."""
    if call.data in ({}, []):
        return empty_response(201)  # clients send an empty body at their end
    sent = call.data if isinstance(call.data, list) else [call.data]
    if len(sent) > MAX_ENTRIES:
        raise refusal(f"One request takes at most {MAX_ENTRIES} entries of metrics, this one has {len(sent)}.")
    checked = [bodies.read(bodies.NewMetric, one) for one in sent]
    entries = [(one.values, clock.stamp(one.created_at) if one.created_at else None) for one in checked]
    made = call.store.metrics.add(call.run, entries)
    return empty_response(201) if isinstance(call.data, list) else as_shape(MetricItem, made[0])


def jobs(call: Call) -> Json:
    """One task, `master`, once there is a container."""
    found = [experiment_job_item(call.run)] if call.run.container_id else []
    return envelope(call.request, len(found), found)


def job(call: Call) -> ExperimentJobItem:
    _check_job(call)
    return experiment_job_item(call.run)


def refuse_change(call: Call) -> NoReturn:
    """Tasks can't be changed: only distributed experiments had several."""
    _check_job(call)
    raise refusal("The one task of an experiment can't be changed: change or delete the experiment.")


def job_statuses(call: Call) -> Json:
    _check_job(call)
    return runs.statuses(call, task_status_item)


def _for_many(act: Callable[[Runs, Run], object], past: str) -> Callable[[Call], Response]:
    """The handler of an action on the experiments that the body names. `past`: its word in the activity log."""

    def handle(call: Call) -> Response:
        for run in _named_experiments(call):
            act(call.store.runs, run)
            call.note(past, run)
        return empty_response()

    return handle


stop_many, delete_many = _for_many(Runs.request_stop, "stopped"), _for_many(Runs.delete, "deleted")


def index_of_all(call: Call) -> Json:
    """The experiments of all projects that the caller may read."""
    limit, _ = window(call.request)
    found = call.store.runs.latest(call.user, kind=Kind.EXPERIMENT, is_open=False, limit=min(limit, 1000))
    return envelope(call.request, len(found), items(found, call.user, call.store))


def _check_job(call: Call) -> None:
    if call.number("jid") != call.run.id or not call.run.container_id:
        raise NotFound


def _named_experiments(call: Call) -> list[Run]:
    """The experiments that the body names. Raises NotFound before any of them is changed."""
    ids = call.data.get("ids") if isinstance(call.data, Mapping) else None
    if not isinstance(ids, list) or not all(isinstance(one, int) and 0 <= one < 2**63 for one in ids):
        raise InvalidInput({"ids": ["A list of ids is required."]})
    return [call.store.runs.get(call.project, Kind.EXPERIMENT, run_id) for run_id in ids]


_ALL, _ONE = runs_path(Kind.EXPERIMENT), run_path(Kind.EXPERIMENT)
_JOBS, _JOB = f"{_ONE}/jobs", f"{_ONE}/jobs/{{jid:id}}"
_HISTORY, _ENTRY = f"{_JOB}/statuses", f"{_JOB}/statuses/{{uuid}}"
_QUERY = (
    Query("independent", "true: not of a group"),
    Query("group", "the id of a group"),
    Query("metrics", "true: only the last metrics of each"),
    Query("all", "true: all on one page"),
    Query("params", "true: only the params of each (`declarations` in older clients)"),
)
_list = partial(Endpoint, "GET", many=True)
_report = partial(Endpoint, "POST", access=Access.TRACK)
_TOKEN, _STATUS_ABOUT, _STATUS = "A token for tracking", "Report a status of the task", bodies.NewStatus

ENDPOINTS = [
    _list("/api/v1/experiments", index_of_all, "Experiments of all projects", Access.USER, answer=ExperimentItem),
    runs.listing(Kind.EXPERIMENT, index, _QUERY),
    runs.creation(Kind.EXPERIMENT),
    *runs.common(Kind.EXPERIMENT),
    *runs.carried_out(Kind.EXPERIMENT),
    *runs.cloning(Kind.EXPERIMENT),
    Endpoint("POST", f"{_ALL}/stop", stop_many, "Stop several experiments", Access.WRITE),
    Endpoint("DELETE", f"{_ALL}/delete", delete_many, "Delete several experiments", Access.WRITE),
    _list(f"{_ONE}/metrics", metrics, "The metrics of an experiment", answer=MetricItem),
    _report(f"{_ONE}/metrics", add_metrics, "Report metrics", body=bodies.NewMetric, answer=MetricItem, status=201),
    _list(_JOBS, jobs, "The tasks of an experiment", answer=ExperimentJobItem),
    Endpoint("GET", _JOB, job, "The task of an experiment", answer=ExperimentJobItem),
    *(
        Endpoint(method, _JOB, refuse_change, "Refused: change the experiment", Access.WRITE, status=400)
        for method in ("PATCH", "PUT", "DELETE")
    ),
    Endpoint("PATCH", _ENTRY, refuse_change, "Refused: history stays", Access.WRITE, status=400),
    _list(_HISTORY, job_statuses, "The history of the task", answer=StatusItem),
    _report(_HISTORY, runs.add_status, _STATUS_ABOUT, body=_STATUS, answer=ExperimentStatusItem, status=201),
    Endpoint("GET", _ENTRY, runs.status, "An entry of it", answer=ExperimentStatusItem),
    _report(f"{_JOBS}/{{uuid}}/_reconcile", runs.reconcile, f"{_STATUS_ABOUT} again", body=_STATUS),
    _report(f"{_ONE}/ephemeraltoken", runs.token, _TOKEN, answer=TokenItem),
    _report(f"{_ONE}/token", runs.token, _TOKEN, answer=TokenItem),
]
