"""Projects."""

from __future__ import annotations

from starlette.responses import Response

from polylocal.api import bodies
from polylocal.api.endpoint import Access, Call, Endpoint, empty
from polylocal.api.paging import envelope, window
from polylocal.api.resources import Json, ProjectDetail, ProjectItem, project_detail, project_item
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
    return project_item(call.store.projects.create(call.user, values), bookmarked=False)


def show(call: Call) -> ProjectDetail:
    return _detail(call, call.project)


def update(call: Call) -> ProjectDetail:
    body = call.body(bodies.ChangedProject)
    values = {name: value for name, value in body.given().items() if value is not None or name not in _NEVER_NULL}
    if body.merge and body.tags is not None:
        values["tags"] = list(dict.fromkeys([*(call.project.tags or []), *body.tags]))
    return _detail(call, call.store.projects.update(call.project, values))


def replace(call: Call) -> ProjectDetail:
    """PUT: as PATCH, but what is required on creation is required here too."""
    call.body(bodies.NewProject)
    return update(call)


def delete(call: Call) -> Response:
    call.store.projects.delete(call.project)
    return empty(204)


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
    return project_detail(
        project,
        bookmarked=project.id in call.store.bookmarks.of(call.user, [project]),
        counts=call.store.projects.counts(project),
        has_code=call.services.repository(project).exists,
    )


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
    Endpoint("POST", f"{_ONE}/bookmark", bookmark, "Bookmark a project", status=201),
    Endpoint("DELETE", f"{_ONE}/unbookmark", unbookmark, "Remove the bookmark of a project", status=204),
    Endpoint("POST", f"{_ONE}/builds/invalidate", invalidate_builds, "Use no build so far again", Access.WRITE),
]
