"""Versions of the daemon, and runs over all projects for the command line."""

from collections.abc import Sequence

from starlette.responses import Response

from polylocal import __version__
from polylocal.api import rights
from polylocal.api import runs as all_runs
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Access, Call, Endpoint, Query, refuse
from polylocal.api.paging import envelope, number, window
from polylocal.api.shapes import Json
from polylocal.api.shapes.platform import LogHandlerItem, VersionsItem
from polylocal.api.shapes.runs import RunItem, item, run_item
from polylocal.api.waiting import waits_for
from polylocal.errors import NotAllowed, NotFound
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store import queries
from polylocal.store.rows import Project, Run, User

# the original clients compare their versions with these; 0.6.1 is the newest client that exists
CLIENT_VERSIONS: VersionsItem = {"latest_version": "0.6.1", "min_version": "0.0.5"}
_MOST = 1000


def versions(call: Call) -> VersionsItem:
    return CLIENT_VERSIONS


def chart_version(call: Call) -> Json:
    return {"version": CLIENT_VERSIONS["latest_version"]}


def log_handler(call: Call) -> LogHandlerItem:
    """No dsn: the original clients report their crashes to nobody."""
    return {"dsn": None, "environment": "polylocal", "tags": {"polylocal": __version__}}


def logged_out(call: Call) -> Response:
    """Clients without a user ask for the projects of an empty name."""
    raise NotFound


def runs(call: Call) -> Json:
    """The last changed runs of all projects that the caller may read, or a page of the runs of one project."""
    kind = call.query("kind")
    if kind and kind not in set(Kind):
        raise refuse(f"There is no kind `{kind}` of run; the kinds are {', '.join(Kind)}.")
    limit = number(call.query("limit") or "20")
    if not limit or limit > _MOST:
        raise refuse(f"`limit` is a number from 1 to {_MOST}.")
    if named := call.query("project"):
        return _of_project(call, _project(call, named), Kind(kind) if kind else None)
    if call.query("query") or call.query("sort"):
        raise refuse("`query` and `sort` need the `project` whose runs are meant: `user/name`.")
    found = call.store.runs.latest(call.user, kind=kind, is_open=call.flag("open"), limit=limit)
    return {"count": len(found), "next": None, "previous": None, "results": items(found, call.user, call.context)}


def _of_project(call: Call, project: Project, kind: Kind | None) -> Json:
    """A page of runs of a kind, or of all kinds. Each run also has the keys of the lists of its kind."""
    query, sort = call.query("query"), call.query("sort")
    queries.check_sort(sort, kind)
    limit, offset = window(call.request)
    count, found = call.store.runs.page(
        project, kind, query=query, sort=sort, limit=limit, offset=offset, only_open=call.flag("open")
    )
    marked = call.store.bookmarks.of(call.user, found)
    known = {run.pk: item(run, run.pk in marked) for run in found if run.kind in POLYAXON_KINDS}
    listed = zip(found, items(found, call.user, call.context), strict=True)
    return envelope(call.request, count, [{**known.get(run.pk, {}), **about} for run, about in listed])


def _project(call: Call, named: str) -> Project:
    """A project by `user/name` or `user.name`, if the caller may read it. Raises NotFound, NotAllowed."""
    owner, _, name = named.rpartition("/" if "/" in named else ".")
    project = call.store.projects.get(owner, name)
    _check_readable(call, project)
    return project


def _check_readable(call: Call, project: Project) -> None:
    if not rights.may_read(call.user, project):
        raise NotAllowed


def run(call: Call) -> RunItem:
    """A run by kind and number alone."""
    return items([find(call)], call.user, call.context)[0]


def find(call: Call) -> Run:
    """The run of the path, if the caller may read its project. Raises NotFound, NotAllowed."""
    if call.parameter("kind") not in set(Kind):
        raise NotFound
    found = call.store.runs.find(Kind(call.parameter("kind")), call.number("id"))
    _check_readable(call, call.store.projects.by_id(found.project_id))
    return found


def items(found: Sequence[Run], user: User, context: ApiContext) -> list[RunItem]:
    """Rows of a table of runs, for `user`."""
    messages = context.store.runs.newest_messages(found)
    reasons = waits_for(context, user, found)
    return [run_item(run, messages.get(run.pk), reasons.get(run.pk)) for run in found]


ENDPOINTS = [
    Endpoint("GET", "/api/v1/versions/cli", versions, "Versions for the client", Access.ANYONE, answer=VersionsItem),
    Endpoint("GET", "/api/v1/versions/platform", versions, "Versions", Access.ANYONE, answer=VersionsItem),
    Endpoint("GET", "/api/v1/versions/lib", versions, "Versions", Access.ANYONE, answer=VersionsItem),
    Endpoint("GET", "/api/v1/versions/chart", chart_version, "Version", Access.ANYONE, answer=Json),
    Endpoint("GET", "/api/v1/log_handler", log_handler, "Where clients report", Access.ANYONE, answer=LogHandlerItem),
    Endpoint("GET", "/api/v1", logged_out, "Nothing: for clients that are not logged in", Access.USER),
    Endpoint(
        "GET",
        "/polylocal/v1/runs",
        runs,
        "The last changed runs of all projects, or of one",
        Access.USER,
        answer=RunItem,
        many=True,
        query=(
            Query("kind", "only this kind"),
            Query("open", "true: only what is not done"),
            Query("project", "`user/name`: the runs of this project, with `query`, `sort` and `offset`"),
            *all_runs.FILTERS,
        ),
    ),
    Endpoint("GET", "/polylocal/v1/runs/{kind}/{id:id}", run, "Find a run", Access.USER, answer=RunItem),
]
