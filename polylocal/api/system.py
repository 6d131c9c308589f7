"""Versions of the daemon, and runs over all projects for the command line."""

from functools import partial

from starlette.responses import Response

from polylocal import __version__
from polylocal.api import rights
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Access, Call, Endpoint, Query, refusal
from polylocal.api.paging import envelope, number
from polylocal.api.run_objects import items, table_rows
from polylocal.api.runs import FILTERS, selection
from polylocal.api.shapes import Json
from polylocal.api.shapes.platform import LogHandlerItem, VersionsItem
from polylocal.api.shapes.runs import RunItem
from polylocal.errors import NotAllowed, NotFound
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store import Store, queries
from polylocal.store.rows import Project, Run, User

# the original clients compare their versions with these; 0.6.1 is the newest client that exists
CLIENT_VERSIONS: VersionsItem = {"latest_version": "0.6.1", "min_version": "0.0.5"}
_MAX_RUNS = 1000


def versions(call: Call) -> VersionsItem:
    return CLIENT_VERSIONS


def chart_version(call: Call) -> Json:
    return {"version": CLIENT_VERSIONS["latest_version"]}


def log_handler(call: Call) -> LogHandlerItem:
    """No dsn: so the original clients report no crashes."""
    return {"dsn": None, "environment": "polylocal", "tags": {"polylocal": __version__}}


def no_user(call: Call) -> Response:
    """Clients without a user ask for the projects of an empty name."""
    raise NotFound


def runs(call: Call) -> Json:
    """The last changed runs of all projects that the caller may read, or a page of the runs of one project."""
    kind = call.query("kind")
    if kind and kind not in set(Kind):
        raise refusal(f"There is no kind `{kind}` of run; the kinds are {', '.join(Kind)}.")
    limit = number(call.query("limit") or "20")
    if not limit or limit > _MAX_RUNS:
        raise refusal(f"`limit` is a number from 1 to {_MAX_RUNS}.")
    if named := call.query("project"):
        return _of_project(call, _find_project(named, call.user, call.store), Kind(kind) if kind else None)
    if call.query("query") or call.query("sort"):
        raise refusal("`query` and `sort` need the `project`: `user/name`.")
    found = call.store.runs.latest(call.user, kind=kind, is_open=call.flag("open"), limit=limit)
    return {"count": len(found), "next": None, "previous": None, "results": table_rows(found, call.user, call.context)}


def _of_project(call: Call, project: Project, kind: Kind | None) -> Json:
    """A page of runs of a kind, or of all kinds. Each run also has the keys of the lists of its kind."""
    queries.check_sort(call.query("sort"), kind)
    count, found = call.store.runs.page(project, kind, only_open=call.flag("open"), **selection(call))
    return envelope(call.request, count, _rows_with_items(found, call.user, call.context))


def _rows_with_items(found: list[Run], user: User, context: ApiContext) -> list[Json]:
    listed = [run for run in found if run.kind in POLYAXON_KINDS]
    known = {run.pk: item for run, item in zip(listed, items(listed, user, context.store), strict=True)}
    rows = zip(found, table_rows(found, user, context), strict=True)
    return [{**known.get(run.pk, {}), **row} for run, row in rows]


def _find_project(named: str, user: User, store: Store) -> Project:
    """A project by `user/name` or `user.name`, if the user may read it. Raises NotFound, NotAllowed."""
    owner, _, name = named.rpartition("/" if "/" in named else ".")
    return _check_readable(store.projects.get(owner, name), user)


def _check_readable(project: Project, user: User) -> Project:
    if not rights.may_read(user, project):
        raise NotAllowed
    return project


def run(call: Call) -> RunItem:
    """A run by kind and number alone."""
    found = find(call.parameter("kind"), call.number("id"), call.user, call.store)
    return table_rows([found], call.user, call.context)[0]


def find(kind: str, run_id: int, user: User, store: Store) -> Run:
    """A run of any project that the user may read. Raises NotFound, NotAllowed."""
    if kind not in set(Kind):
        raise NotFound
    found = store.runs.find(Kind(kind), run_id)
    _check_readable(store.projects.by_id(found.project_id), user)
    return found


_RUNS = "/polylocal/v1/runs"
_RUNS_ABOUT = "The last changed runs of all projects, or of one"
_QUERY = (
    Query("kind", "only this kind"),
    Query("open", "true: only runs that are not done"),
    Query("project", "`user/name`: the runs of this project, with `query`, `sort` and `offset`"),
    *FILTERS,
)
_versions = partial(Endpoint, "GET", access=Access.ANYONE, answer=VersionsItem)

ENDPOINTS = [
    _versions("/api/v1/versions/cli", versions, "Versions for the client"),
    _versions("/api/v1/versions/platform", versions, "Versions"),
    _versions("/api/v1/versions/lib", versions, "Versions"),
    Endpoint("GET", "/api/v1/versions/chart", chart_version, "Version", Access.ANYONE, answer=Json),
    Endpoint("GET", "/api/v1/log_handler", log_handler, "Where clients report", Access.ANYONE, answer=LogHandlerItem),
    Endpoint("GET", "/api/v1", no_user, "Nothing: for clients that are not logged in", Access.USER),
    Endpoint("GET", _RUNS, runs, _RUNS_ABOUT, Access.USER, answer=RunItem, many=True, query=_QUERY),
    Endpoint("GET", f"{_RUNS}/{{kind}}/{{id:id}}", run, "Find a run", Access.USER, answer=RunItem),
]
