"""The endpoints of projects."""

from functools import partial

from starlette.responses import Response

from polylocal.api import bodies
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Access, Call, Endpoint, empty
from polylocal.api.paging import LIMIT, envelope, window
from polylocal.api.shapes import Json
from polylocal.api.shapes.projects import ProjectDetail, ProjectItem, project_detail, project_item
from polylocal.errors import InvalidInput
from polylocal.statuses import Kind, is_done
from polylocal.store import Store
from polylocal.store.rows import Project, User


def index(call: Call) -> Json:
    count, projects = _page(call, LIMIT)
    marked = call.store.bookmarks.of(call.user, projects)
    return envelope(call.request, count, [project_item(project, project.id in marked) for project in projects])


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
    if body.merge and body.tags is not None:
        tags = list(dict.fromkeys([*(project.tags or []), *body.tags]))
        values["tags"] = bodies.read(bodies.ChangedProject, {"tags": tags}).tags
    if values.get("name", project.name) != project.name:
        _check_servers(project, store)
    return values


def _check_servers(project: Project, store: Store) -> None:
    """The paths of running notebooks and tensorboards have the project's name. Raises InvalidInput while one runs."""
    for kind in (Kind.NOTEBOOK, Kind.TENSORBOARD):
        running = store.runs.server(project, kind)
        if running and not is_done(running.status):
            raise InvalidInput({"name": [f"Stop the {kind} before the project gets another name."]})


def replace(call: Call) -> ProjectDetail:
    """As PATCH, but the keys that a creation requires are required."""
    call.body(bodies.NewProject)
    return update(call)


def delete(call: Call) -> Response:
    call.note("deleted", call.project)  # before the deletion: the activity log takes no deleted project
    call.store.projects.delete(call.project)
    return empty(204)


def archive(call: Call) -> Response:
    call.store.projects.archive(call.project)
    call.note("archived", call.project)
    return empty()


def restore(call: Call) -> Response:
    if call.project.archived_at:
        call.store.projects.restore(call.project)
        call.note("restored", call.project)
    return empty()


def bookmark(call: Call) -> Response:
    call.store.bookmarks.add(call.user, call.project)
    return empty(201)


def unbookmark(call: Call) -> Response:
    call.store.bookmarks.remove(call.user, call.project)
    return empty(204)


def invalidate_builds(call: Call) -> Response:
    call.store.queue.invalidate_builds(call.project)
    return empty()


def detail(project: Project, user: User, context: ApiContext) -> ProjectDetail:
    """A project by itself, as `user` sees it."""
    store = context.store
    return project_detail(
        project,
        notebook=store.runs.server(project, Kind.NOTEBOOK),
        tensorboard=store.runs.server(project, Kind.TENSORBOARD),
        bookmarked=project.id in store.bookmarks.of(user, [project]),
        counts=store.projects.counts(project),
        has_code=context.repository(project).exists,
    )


_ALL_NAMES = 300_000
_NEVER_NULL = ("name", "is_public")
_ONE = "/api/v1/{user}/{project}"

ENDPOINTS = [
    Endpoint(
        "POST", "/api/v1/projects", create, "Create a project", Access.USER, bodies.NewProject, ProjectItem, status=201
    ),
    Endpoint("GET", "/api/v1/{user}", index, "List a user's projects", Access.USER, answer=ProjectItem, many=True),
    Endpoint("GET", _ONE, show, "Get a project", answer=ProjectDetail),
    Endpoint("PATCH", _ONE, update, "Change a project", Access.WRITE, bodies.ChangedProject, ProjectDetail),
    Endpoint("PUT", _ONE, replace, "Replace a project's description", Access.WRITE, bodies.NewProject, ProjectDetail),
    Endpoint("DELETE", _ONE, delete, "Delete a project with all its runs", Access.WRITE, status=204),
    Endpoint("POST", f"{_ONE}/archive", archive, "Archive a project", Access.WRITE),
    Endpoint("POST", f"{_ONE}/restore", restore, "Restore an archived project", Access.WRITE, finds_archived=True),
    Endpoint("GET", "/api/v1/{user}/projects/names", names, "Names of projects", Access.USER, answer=Json, many=True),
    Endpoint("GET", "/api/v1/{user}/projects/name", names, "Names of projects", Access.USER, answer=Json, many=True),
    Endpoint("POST", f"{_ONE}/bookmark", bookmark, "Bookmark a project", status=201),
    Endpoint("DELETE", f"{_ONE}/unbookmark", unbookmark, "Remove the bookmark of a project", status=204),
    Endpoint("POST", f"{_ONE}/builds/invalidate", invalidate_builds, "Use none of the builds again", Access.WRITE),
]
