"""Projects."""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from polylocal.api import bodies
from polylocal.api.endpoint import Access, Call, Endpoint, empty
from polylocal.api.paging import envelope, window
from polylocal.api.shapes import Json
from polylocal.api.shapes.projects import ProjectDetail, ProjectItem, project_detail, project_item
from polylocal.errors import InvalidInput
from polylocal.statuses import Kind, is_done
from polylocal.store.rows import Project


def index(call: Call) -> Json:
    owner = call.store.users.get(call.parameter("user"))
    limit, offset = window(call.request)
    is_mine = call.user.is_superuser or owner.id == call.user.id
    count, projects = call.store.projects.page(owner.username, public_only=not is_mine, limit=limit, offset=offset)
    marked = call.store.bookmarks.of(call.user, projects)
    return envelope(call.request, count, [project_item(project, project.id in marked) for project in projects])


def create(call: Call) -> ProjectItem:
    values = call.body(bodies.NewProject).given()
    values = {name: value for name, value in values.items() if value is not None or name != "is_public"}
    project = call.store.projects.create(call.user, values)
    call.note("created", project)
    return project_item(project, bookmarked=False)


def names(call: Call) -> Json:
    """Only what they are called, all of them."""
    owner = call.store.users.get(call.parameter("user"))
    limit, offset = window(call.request, _ALL_NAMES)
    is_mine = call.user.is_superuser or owner.id == call.user.id
    count, found = call.store.projects.page(owner.username, public_only=not is_mine, limit=limit, offset=offset)
    shown = [{"user": project.user, "unique_name": project.unique_name} for project in found]
    return envelope(call.request, count, shown, _ALL_NAMES)


def show(call: Call) -> ProjectDetail:
    call.note_view(call.project)
    return _detail(call, call.project)


def update(call: Call) -> ProjectDetail:
    body = call.body(bodies.ChangedProject)
    changed = call.store.projects.change(call.project, partial(_changes, call, body))
    call.note("updated", changed)
    return _detail(call, changed)


def _changes(call: Call, body: bodies.ChangedProject, project: Project) -> Json:
    """The columns that a body changes. Raises InvalidInput."""
    values = {name: value for name, value in body.given().items() if value is not None or name not in _NEVER_NULL}
    if body.merge and body.tags is not None:
        tags = list(dict.fromkeys([*(project.tags or []), *body.tags]))
        values["tags"] = bodies.read(bodies.ChangedProject, {"tags": tags}).tags
    if values.get("name", project.name) != project.name:
        _check_servers(call)
    return values


def _check_servers(call: Call) -> None:
    """The pages of what runs have the project's name in their paths."""
    for kind in (Kind.NOTEBOOK, Kind.TENSORBOARD):
        running = call.store.runs.server(call.project, kind)
        if running and not is_done(running.status):
            raise InvalidInput({"name": [f"Stop the {kind} before the project gets another name."]})


def replace(call: Call) -> ProjectDetail:
    """PUT: as PATCH, but what is required on creation is required here too."""
    call.body(bodies.NewProject)
    return update(call)


def delete(call: Call) -> Response:
    call.note("deleted", call.project)  # before it goes: nothing can be noted of what is not there
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
    call.store.runs.invalidate_builds(call.project)
    return empty()


def _detail(call: Call, project: Project) -> ProjectDetail:
    runs = call.store.runs
    return project_detail(
        project,
        notebook=runs.server(project, Kind.NOTEBOOK),
        tensorboard=runs.server(project, Kind.TENSORBOARD),
        bookmarked=project.id in call.store.bookmarks.of(call.user, [project]),
        counts=call.store.projects.counts(project),
        has_code=call.context.repository(project).exists,
    )


_ALL_NAMES = 300_000
_NEVER_NULL = ("name", "is_public")
_ONE = "/api/v1/{user}/{project}"

ENDPOINTS = [
    Endpoint(
        "POST",
        "/api/v1/projects",
        create,
        "Create a project",
        Access.USER,
        bodies.NewProject,
        ProjectItem,
        status=201,
    ),
    Endpoint("GET", "/api/v1/{user}", index, "List a user's projects", Access.USER, answer=ProjectItem, many=True),
    Endpoint("GET", _ONE, show, "Get a project", answer=ProjectDetail),
    Endpoint("PATCH", _ONE, update, "Change a project", Access.WRITE, bodies.ChangedProject, ProjectDetail),
    Endpoint("PUT", _ONE, replace, "Replace a project's description", Access.WRITE, bodies.NewProject, ProjectDetail),
    Endpoint("DELETE", _ONE, delete, "Delete a project and all that is in it", Access.WRITE, status=204),
    Endpoint("POST", f"{_ONE}/archive", archive, "Put a project out of sight", Access.WRITE),
    Endpoint("POST", f"{_ONE}/restore", restore, "Bring an archived project back", Access.WRITE, finds_archived=True),
    Endpoint("GET", "/api/v1/{user}/projects/names", names, "Names of projects", Access.USER, answer=Json, many=True),
    Endpoint("GET", "/api/v1/{user}/projects/name", names, "The same", Access.USER, answer=Json, many=True),
    Endpoint("POST", f"{_ONE}/bookmark", bookmark, "Bookmark a project", status=201),
    Endpoint("DELETE", f"{_ONE}/unbookmark", unbookmark, "Remove the bookmark of a project", status=204),
    Endpoint("POST", f"{_ONE}/builds/invalidate", invalidate_builds, "Use no build so far again", Access.WRITE),
]
