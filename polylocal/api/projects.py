"""The endpoints of projects."""

from functools import partial

from starlette.responses import Response

from polylocal.api import bodies, bookmarks
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import PROJECT, Access, Call, Endpoint, empty_response
from polylocal.api.paging import LIMIT, envelope, window
from polylocal.api.server_programs import PROGRAMS, newest_server, running_server
from polylocal.api.shapes import Json
from polylocal.api.shapes.projects import ProjectDetail, ProjectItem, project_detail, project_item
from polylocal.errors import InvalidInput
from polylocal.statuses import Kind
from polylocal.store import Store
from polylocal.store.rows import Project, User


def index(call: Call) -> Json:
    count, found = _page(call, LIMIT)
    marked = call.store.bookmarks.among(call.user, found)
    return envelope(call.request, count, [project_item(project, project.id in marked) for project in found])


def create(call: Call) -> ProjectItem:
    values = call.body(bodies.NewProject).given()
    values = {name: value for name, value in values.items() if value is not None or name != "is_public"}
    project = call.store.projects.create(call.user, values)
    call.note("created", project)
    return project_item(project, bookmarked=False)


def names(call: Call) -> Json:
    """The names alone, all on one page."""
    count, found = _page(call, _ALL_NAMES)
    shown = [{"user": project.user, "unique_name": project.unique_name} for project in found]
    return envelope(call.request, count, shown, _ALL_NAMES)


def _page(call: Call, default: int) -> tuple[int, list[Project]]:
    """Count and page of the projects of the path's user that the caller may read."""
    owner = call.store.users.get(call.parameter("user"))
    limit, offset = window(call.request, default)
    reads_all = call.user.is_superuser or owner.id == call.user.id
    return call.store.projects.page(owner.username, public_only=not reads_all, limit=limit, offset=offset)


def show(call: Call) -> ProjectDetail:
    call.note_view(call.project)
    return detail(call.project, call.user, call.context)


def update(call: Call) -> ProjectDetail:
    body = call.body(bodies.ChangedProject)
    changed = call.store.projects.change(call.project, partial(_changes, body, call.store))
    call.note("updated", changed)
    return detail(changed, call.user, call.context)


def _changes(body: bodies.ChangedProject, store: Store, project: Project) -> Json:
    """The columns that a body changes. Raises InvalidInput."""
    values = {name: value for name, value in body.given().items() if value is not None or name not in _NEVER_NULL}
    values.pop("merge", None)
    if body.merge and body.tags is not None:
        tags = list(dict.fromkeys([*(project.tags or []), *body.tags]))
        values["tags"] = bodies.read(bodies.ChangedProject, {"tags": tags}).tags
    if values.get("name", project.name) != project.name:
        _check_servers(project, store)
    return values


def _check_servers(project: Project, store: Store) -> None:
    """The paths of running notebooks and tensorboards have the project's name. Raises InvalidInput while one runs."""
    for kind in PROGRAMS:
        if running_server(store, project, kind):
            raise InvalidInput({"name": [f"Stop the {kind} before the project gets another name."]})


def replace(call: Call) -> ProjectDetail:
    """As PATCH, but the keys that a creation requires are required."""
    call.body(bodies.NewProject)
    return update(call)


def delete(call: Call) -> Response:
    call.note("deleted", call.project)  # before the deletion: the activity log takes no deleted project
    call.store.projects.delete(call.project)
    return empty_response(204)


def archive(call: Call) -> Response:
    call.store.projects.archive(call.project)
    call.note("archived", call.project)
    return empty_response()


def restore(call: Call) -> Response:
    if call.project.archived_at:
        call.store.projects.restore(call.project)
        call.note("restored", call.project)
    return empty_response()


def invalidate_builds(call: Call) -> Response:
    call.store.queue.invalidate_builds(call.project)
    return empty_response()


def detail(project: Project, user: User, context: ApiContext) -> ProjectDetail:
    """A project by itself, as `user` sees it."""
    store = context.store
    return project_detail(
        project,
        notebook=newest_server(store, project, Kind.NOTEBOOK),
        tensorboard=newest_server(store, project, Kind.TENSORBOARD),
        bookmarked=project.id in store.bookmarks.among(user, [project]),
        counts=store.projects.counts(project),
        has_code=context.repository(project).exists,
    )


_ALL_NAMES = 300_000
_NEVER_NULL = ("name", "is_public")
_list = partial(Endpoint, "GET", access=Access.USER, many=True)
_new, _changed, _detail = bodies.NewProject, bodies.ChangedProject, ProjectDetail

ENDPOINTS = [
    Endpoint("POST", "/api/v1/projects", create, "Create a project", Access.USER, _new, ProjectItem, status=201),
    _list("/api/v1/{user}", index, "List a user's projects", answer=ProjectItem),
    Endpoint("GET", PROJECT, show, "Get a project", answer=_detail),
    Endpoint("PATCH", PROJECT, update, "Change a project", Access.WRITE, _changed, _detail),
    Endpoint("PUT", PROJECT, replace, "Replace a project's description", Access.WRITE, _new, _detail),
    Endpoint("DELETE", PROJECT, delete, "Delete a project with all its runs", Access.WRITE, status=204),
    Endpoint("POST", f"{PROJECT}/archive", archive, "Archive a project", Access.WRITE),
    Endpoint("POST", f"{PROJECT}/restore", restore, "Restore an archived project", Access.WRITE, finds_archived=True),
    _list("/api/v1/{user}/projects/names", names, "Names of projects", answer=Json),
    _list("/api/v1/{user}/projects/name", names, "Names of projects", answer=Json),
    *bookmarks.of_path(PROJECT, "a project"),
    Endpoint("POST", f"{PROJECT}/builds/invalidate", invalidate_builds, "Use none of the builds again", Access.WRITE),
]
