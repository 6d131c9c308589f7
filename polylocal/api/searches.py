"""Saved searches and charts, the activity log, and the history of views."""

from functools import partial

from starlette.responses import Response

from polylocal.api import bodies
from polylocal.api.endpoint import Access, Call, Endpoint, empty_response, run_path
from polylocal.api.kinds import kinds_with, with_article
from polylocal.api.paging import page
from polylocal.api.shapes import Json
from polylocal.api.shapes.base import as_shape
from polylocal.api.shapes.experiments import ChartViewItem
from polylocal.api.shapes.platform import ActivityItem, SearchItem, activity_item
from polylocal.statuses import POLYAXON_KINDS, Kind

_PAGE = 300_000  # clients ask for all of them at once
_search_item, _chart_item = partial(as_shape, SearchItem), partial(as_shape, ChartViewItem)


def searches(kind: Kind, call: Call) -> Json:
    return page(call.request, partial(call.store.searches.page, call.user, call.project, kind), _search_item, _PAGE)


def add_search(kind: Kind, call: Call) -> SearchItem:
    return _search_item(call.store.searches.add(call.user, call.project, kind, call.body(bodies.NewSearch).given()))


def delete_search(kind: Kind, call: Call) -> Response:
    call.store.searches.delete(call.user, call.project, kind, call.number("sid"))
    return empty_response(204)


def chart_views(call: Call) -> Json:
    return page(call.request, partial(call.store.chart_views.page, call.run), _chart_item, _PAGE)


def add_chart_view(call: Call) -> ChartViewItem:
    return _chart_item(call.store.chart_views.add(call.run, call.body(bodies.NewChartView).given()))


def chart_view(call: Call) -> ChartViewItem:
    return _chart_item(call.store.chart_views.get(call.run, call.number("cid")))


def update_chart_view(call: Call) -> ChartViewItem:
    given = call.body(bodies.ChangedChartView).given()
    values = {name: value for name, value in given.items() if value is not None or name != "charts"}
    return _chart_item(call.store.chart_views.update(call.run, call.number("cid"), values))


def replace_chart_view(call: Call) -> ChartViewItem:
    """As PATCH, but the keys that a creation requires are required."""
    call.body(bodies.NewChartView)
    return update_chart_view(call)


def delete_chart_view(call: Call) -> Response:
    call.store.chart_views.delete(call.run, call.number("cid"))
    return empty_response(204)


def activity(call: Call) -> Json:
    """The actions in all projects that the caller may read."""
    return page(call.request, partial(call.store.activities.page, None, call.user), activity_item)


def project_activity(call: Call) -> Json:
    return page(call.request, partial(call.store.activities.page, call.project, call.user), activity_item)


def history(call: Call) -> Json:
    """The projects and runs that the caller viewed."""
    return page(call.request, partial(call.store.activities.views, call.user), activity_item)


def _of_searches(kind: Kind) -> list[Endpoint]:
    path = f"/api/v1/searches/{{user}}/{{project}}/{kind.plural}"
    find, save, delete = partial(searches, kind), partial(add_search, kind), partial(delete_search, kind)
    return [
        Endpoint("GET", path, find, f"The caller's saved searches of {kind.plural}", answer=SearchItem, many=True),
        Endpoint("POST", path, save, "Save a search", body=bodies.NewSearch, answer=SearchItem, status=201),
        Endpoint("DELETE", f"{path}/{{sid:id}}", delete, "Delete a search", status=204),
    ]


def _of_charts(kind: Kind) -> list[Endpoint]:
    path = f"{run_path(kind)}/chartviews"
    one, new, changed, item = f"{path}/{{cid:id}}", bodies.NewChartView, bodies.ChangedChartView, ChartViewItem
    return [
        Endpoint("GET", path, chart_views, f"The chart views of {with_article(kind)}", answer=item, many=True),
        Endpoint("POST", path, add_chart_view, "Save a chart view", Access.WRITE, new, item, status=201),
        Endpoint("GET", one, chart_view, "Get a chart view", answer=item),
        Endpoint("PATCH", one, update_chart_view, "Change a chart view", Access.WRITE, changed, item),
        Endpoint("PUT", one, replace_chart_view, "Replace a chart view", Access.WRITE, new, item),
        Endpoint("DELETE", one, delete_chart_view, "Delete a chart view", Access.WRITE, status=204),
    ]


_LOG = "/api/v1/activitylogs"
_log = partial(Endpoint, "GET", answer=ActivityItem, many=True)

ENDPOINTS = [
    *(endpoint for kind in POLYAXON_KINDS for endpoint in _of_searches(kind)),
    *(endpoint for kind in kinds_with("has_charts") for endpoint in _of_charts(kind)),
    _log(_LOG, activity, "The activity log", Access.USER),
    _log(f"{_LOG}/{{user}}/{{project}}", project_activity, "The activity log of a project"),
    _log("/api/v1/historylogs", history, "Views of the caller", Access.USER),
]
