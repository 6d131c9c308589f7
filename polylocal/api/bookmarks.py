"""Bookmarks and archives: bookmarking, and the lists over all projects of a user."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from starlette.responses import Response

from polylocal.api.endpoint import Access, Call, Endpoint, empty_response
from polylocal.api.paging import envelope, window
from polylocal.api.shapes import Json
from polylocal.api.shapes.projects import project_item
from polylocal.api.shapes.runs import item
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store.queries import Page
from polylocal.store.rows import User

Row = TypeVar("Row")


def add(call: Call) -> Response:
    call.store.bookmarks.add(call.user, call.subject)
    return empty_response(201)


def remove(call: Call) -> Response:
    call.store.bookmarks.remove(call.user, call.subject)
    return empty_response(204)


def bookmarked_projects(call: Call) -> Json:
    count, found = _find(call, call.store.bookmarks.projects)
    return envelope(call.request, count, [_bookmark(project_item(project, True)) for project in found])


def bookmarked_runs(kind: Kind, call: Call) -> Json:
    count, found = _find(call, lambda user, page: call.store.bookmarks.runs(user, kind, page))
    return envelope(call.request, count, [_bookmark(item(run, True)) for run in found])


def archived_projects(call: Call) -> Json:
    count, found = _find(call, call.store.projects.archives)
    marked = call.store.bookmarks.among(call.user, found)
    results = [
        {**project_item(project, project.id in marked), "deleted": project.archived_at is not None} for project in found
    ]
    return envelope(call.request, count, results)


def archived_runs(kind: Kind, call: Call) -> Json:
    count, found = _find(call, lambda user, page: call.store.runs.archives(user, kind, page))
    marked = call.store.bookmarks.among(call.user, found)
    return envelope(call.request, count, [{**item(run, run.pk in marked), "deleted": True} for run in found])


def _find(call: Call, find: Callable[[User, Page], tuple[int, list[Row]]]) -> tuple[int, list[Row]]:
    """The requested page of a list of the path's user; empty if the caller may not see it. Raises NotFound."""
    user = call.store.users.get(call.parameter("user"))
    if user.id != call.user.id and not call.user.is_superuser:
        return 0, []
    limit, offset = window(call.request)
    return find(user, Page(limit, offset, call.query("sort")))


def _bookmark(shown: Any) -> Json:
    return {"content_object": {name: value for name, value in shown.items() if name != "bookmarked"}}


def of_path(path: str, noun: str) -> list[Endpoint]:
    """The endpoints that bookmark the project or the run of a path."""
    return [
        Endpoint("POST", f"{path}/bookmark", add, f"Bookmark {noun}", status=201),
        Endpoint("DELETE", f"{path}/unbookmark", remove, f"Remove the bookmark of {noun}", status=204),
    ]


def _lists(
    word: str, about: str, projects: Callable[[Call], Json], of_runs: Callable[[Kind, Call], Json]
) -> list[Endpoint]:
    handlers: dict[str, Callable[[Call], Json]] = {
        "projects": projects,
        **{kind.plural: partial(of_runs, kind) for kind in POLYAXON_KINDS},
    }
    return [
        Endpoint("GET", f"/api/v1/{word}/{{user}}/{name}", run, f"{about} {name}", Access.USER, answer=Json, many=True)
        for name, run in handlers.items()
    ]


ENDPOINTS = [
    *_lists("bookmarks", "Bookmarked", bookmarked_projects, bookmarked_runs),
    *_lists("archives", "Archived", archived_projects, archived_runs),
]
