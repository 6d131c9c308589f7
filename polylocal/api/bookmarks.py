"""Bookmarks and archives: lists over all projects of a user."""

from collections.abc import Callable
from functools import partial
from typing import Any

from polylocal.api.endpoint import Access, Call, Endpoint
from polylocal.api.paging import envelope, window
from polylocal.api.shapes import Json
from polylocal.api.shapes.projects import project_item
from polylocal.api.shapes.runs import item
from polylocal.statuses import POLYAXON_KINDS, Kind
from polylocal.store.queries import Page
from polylocal.store.rows import User


def bookmarked_projects(call: Call) -> Json:
    user = _whose(call)
    count, found = call.store.bookmarks.projects(user, _page(call)) if user else (0, [])
    return envelope(call.request, count, [{"content_object": _light(project_item(project, True))} for project in found])


def bookmarked_runs(kind: Kind, call: Call) -> Json:
    user = _whose(call)
    count, found = call.store.bookmarks.runs(user, kind, _page(call)) if user else (0, [])
    return envelope(call.request, count, [{"content_object": _light(item(run, True))} for run in found])


def archived_projects(call: Call) -> Json:
    user = _whose(call)
    count, found = call.store.projects.archives(user, _page(call)) if user else (0, [])
    marked = call.store.bookmarks.of(call.user, found)
    shown = [
        {**project_item(project, project.id in marked), "deleted": project.archived_at is not None} for project in found
    ]
    return envelope(call.request, count, shown)


def archived_runs(kind: Kind, call: Call) -> Json:
    user = _whose(call)
    count, found = call.store.runs.archives(user, kind, _page(call)) if user else (0, [])
    marked = call.store.bookmarks.of(call.user, found)
    return envelope(call.request, count, [{**item(run, run.pk in marked), "deleted": True} for run in found])


def _whose(call: Call) -> User | None:
    """The user of the path; None: the caller may not see that user's lists. Raises NotFound."""
    user = call.store.users.get(call.parameter("user"))
    return user if user.id == call.user.id or call.user.is_superuser else None


def _page(call: Call) -> Page:
    limit, offset = window(call.request)
    return Page(limit, offset, call.query("sort"))


def _light(shown: Any) -> Json:
    return {name: value for name, value in shown.items() if name != "bookmarked"}


def _lists(word: str, about: str, projects: Callable[[Call], Json], of_runs: Any) -> list[Endpoint]:
    path = f"/api/v1/{word}/{{user}}"
    found = [Endpoint("GET", f"{path}/projects", projects, f"{about} projects", Access.USER, answer=Json, many=True)]
    for kind in POLYAXON_KINDS:
        handler = partial(of_runs, kind)
        about_them = f"{about} {kind.plural}"
        found.append(Endpoint("GET", f"{path}/{kind.plural}", handler, about_them, Access.USER, answer=Json, many=True))
    return found


ENDPOINTS = [
    *_lists("bookmarks", "Bookmarked", bookmarked_projects, bookmarked_runs),
    *_lists("archives", "Archived", archived_projects, archived_runs),
]
