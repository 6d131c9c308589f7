"""Groups of experiments: those that a search makes, and selections of what is there."""

from __future__ import annotations

from starlette.responses import Response

from polylocal.api import bodies, experiments, results, runs
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty, refuse
from polylocal.api.run_creation import make
from polylocal.api.shapes import Json
from polylocal.api.shapes.experiments import MetricItem
from polylocal.api.shapes.groups import GroupDetail, GroupItem, GroupResults, GroupStatusItem
from polylocal.statuses import Kind
from polylocal.store.rows import Run


def create(call: Call) -> Json:
    """With a polyaxonfile a search; without one a selection, of `experiment_ids`."""
    body = call.body(bodies.NewGroup)
    selected = _selected(call, body.experiment_ids) if body.experiment_ids else []
    if body.source is None and body.check_specification:
        raise refuse("Experiment Group expects a `content`.")
    group = make(call, Kind.GROUP, body)
    if group.group_type == "selection":
        call.store.groups.select(group, selected, None)
    call.note("created", group)
    return runs.whole(call, group)


def stop(call: Call) -> Response:
    """`pending`: only what has not begun."""
    call.store.groups.stop(call.run, pending_only=call.body(bodies.StoppedGroup).pending)
    call.note("stopped", call.run)
    return empty()


def select(call: Call) -> Json:
    """Change what a selection holds."""
    body = call.body(bodies.ChangedSelection)
    group = call.store.runs.get(call.project, Kind.GROUP, call.number("id"))
    if group.group_type != "selection":
        raise refuse("This group is a not a selection.")
    call.store.groups.select(group, _selected(call, body.experiment_ids), body.operation)
    return runs.detail(call, call.store.runs.by_pk(group.pk))


def table(call: Call) -> GroupResults | Response:
    """`?metric=` and `?optimization=` where the search has none; `?format=csv`."""
    try:
        named = results.parameters(call.query("metric"), call.query("optimization"))
    except ValueError as error:
        raise refuse("optimization is `maximize` or `minimize`.") from error
    found = results.results(call.store, call.run, named)
    if call.query("format") == "csv":
        return Response(results.as_csv(found), media_type="text/csv")
    return found


def _selected(call: Call, ids: list[int]) -> list[Run]:
    found = call.store.groups.find(call.project, ids)
    if len(found) != len(set(ids)):
        raise refuse("Experiments selection is not valid.")
    return found


_ALL = "/api/v1/{user}/{project}/groups"
_ONE = f"{_ALL}/{{id:id}}"
_SELECTION = "/api/v1/{user}/{project}/selections/{id:id}"

ENDPOINTS = [
    runs.listing(Kind.GROUP, GroupItem),
    Endpoint("POST", _ALL, create, "Create a group", Access.WRITE, bodies.NewGroup, GroupDetail, status=201),
    *runs.common(Kind.GROUP, GroupDetail, GroupStatusItem),
    Endpoint("POST", f"{_ONE}/stop", stop, "Stop a group", Access.WRITE, bodies.StoppedGroup),
    Endpoint("GET", f"{_ONE}/metrics", experiments.metrics, "Metrics of a group", answer=MetricItem, many=True),
    Endpoint(
        "GET",
        f"{_ONE}/results",
        table,
        "What the experiments of a group have come to, the best first",
        answer=GroupResults,
        query=(
            Query("metric", "the metric to compare by; default: that of the search"),
            Query("optimization", "`maximize` or `minimize` it"),
            Query("format", "csv: as a table for other programs"),
        ),
    ),
    Endpoint(
        "PUT", _SELECTION, select, "Change what a selection holds", Access.WRITE, bodies.ChangedSelection, GroupDetail
    ),
    Endpoint("PATCH", _SELECTION, select, "The same", Access.WRITE, bodies.ChangedSelection, GroupDetail),
]
