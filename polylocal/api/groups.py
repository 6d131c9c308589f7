"""Groups of experiments: searches, which create their experiments, and selections of existing ones."""

from starlette.responses import Response

from polylocal.api import bodies, experiments, results, run_creation, runs
from polylocal.api.endpoint import (
    PROJECT,
    Access,
    Call,
    Endpoint,
    Query,
    empty_response,
    refusal,
    run_path,
    runs_path,
)
from polylocal.api.run_objects import detail
from polylocal.api.shapes import Json
from polylocal.api.shapes.experiments import GroupResults, MetricItem
from polylocal.api.shapes.runs import GroupDetail
from polylocal.statuses import Kind
from polylocal.store import Store
from polylocal.store.rows import Project, Run


def create(call: Call) -> Json:
    """A search with a polyaxonfile; without one a selection of `experiment_ids`."""
    body = call.body(bodies.NewGroup)
    selected = _find_selected(call.project, body.experiment_ids, call.store) if body.experiment_ids else []
    if body.source is None and body.check_specification:
        raise refusal("Experiment Group expects a `content`.")
    new = run_creation.check(call.project, call.user, Kind.GROUP, body, call.context)
    group = call.store.runs.insert(call.project, call.user, new)
    if group.group_type == "selection":
        call.store.groups.select(group, selected, None)
    call.note("created", group)
    return detail(group, call.project, call.user, call.context)


def stop(call: Call) -> Response:
    """With `pending`, only the experiments that have not begun are stopped."""
    call.store.groups.stop(call.run, pending_only=call.body(bodies.StoppedGroup).pending)
    call.note("stopped", call.run)
    return empty_response()


def select(call: Call) -> Json:
    """Change the experiments of a selection."""
    body = call.body(bodies.ChangedSelection)
    group = call.store.runs.get(call.project, Kind.GROUP, call.number("id"))
    if group.group_type != "selection":
        raise refusal("This group is a not a selection.")
    call.store.groups.select(group, _find_selected(call.project, body.experiment_ids, call.store), body.operation)
    return detail(call.store.runs.by_pk(group.pk), call.project, call.user, call.context)


def table(call: Call) -> GroupResults | Response:
    """The results of a group. `metric` and `optimization` replace those of the search."""
    try:
        named = results.parameters(call.query("metric"), call.query("optimization"))
    except ValueError as error:
        raise refusal("optimization is `maximize` or `minimize`.") from error
    found = results.results(call.store, call.run, named)
    if call.query("format") == "csv":
        return Response(results.as_csv(found), media_type="text/csv")
    return found


def _find_selected(project: Project, ids: list[int], store: Store) -> list[Run]:
    found = store.groups.experiments_by_id(project, ids)
    if len(found) != len(set(ids)):
        raise refusal("Experiments selection is not valid.")
    return found


_ALL, _ONE, _SELECTION = runs_path(Kind.GROUP), run_path(Kind.GROUP), f"{PROJECT}/selections/{{id:id}}"
_TABLE = (
    Query("metric", "the metric to compare by; default: that of the search"),
    Query("optimization", "`maximize` or `minimize` it"),
    Query("format", "csv: as a table for other programs"),
)
_TABLE_ABOUT = "The results of the experiments of a group, the best first"
_SELECT_ABOUT = {"PUT": "Change the experiments of a selection", "PATCH": "The same"}

ENDPOINTS = [
    runs.listing(Kind.GROUP),
    Endpoint("POST", _ALL, create, "Create a group", Access.WRITE, bodies.NewGroup, GroupDetail, status=201),
    *runs.common(Kind.GROUP),
    Endpoint("POST", f"{_ONE}/stop", stop, "Stop a group", Access.WRITE, bodies.StoppedGroup),
    Endpoint("GET", f"{_ONE}/metrics", experiments.metrics, "Metrics of a group", answer=MetricItem, many=True),
    Endpoint("GET", f"{_ONE}/results", table, _TABLE_ABOUT, answer=GroupResults, query=_TABLE),
    *(
        Endpoint(method, _SELECTION, select, about, Access.WRITE, bodies.ChangedSelection, GroupDetail)
        for method, about in _SELECT_ABOUT.items()
    ),
]
