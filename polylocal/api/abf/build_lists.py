"""Build lists: the eight calls of the document."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from polylocal import clock
from polylocal.api.abf import build_list_creation, shapes
from polylocal.api.abf.calls import AbfCall, Endpoint, Json, boolean, done, integer, refused
from polylocal.api.file_responses import opened_file
from polylocal.errors import NotFound
from polylocal.packages import repositories
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.store.build_lists import Where
from polylocal.store.rows import BuildList, Platform, Project, Repository

_SUBJECT = "build_list"


def show(call: AbfCall) -> Json:
    found, project = _readable(call)
    return {_SUBJECT: _shown(call, found, project)}


def create(call: AbfCall) -> Json | Response:
    return build_list_creation.create(call)


def cancel(call: AbfCall) -> Json | Response:
    found, project = _found(call)
    call.require(call.may_write(project))
    if not call.store.build_lists.cancel(found):
        return refused(_SUBJECT, "Errors during build cancelation!")
    return done(_SUBJECT, found.id, "Build canceled")


def publish(call: AbfCall) -> Json | Response:
    found, project = _found(call)
    saved_to, platform = _saved_to(call, found)
    is_again = found.status == BuildStatus.PUBLISHED
    is_manager = call.may_manage(platform)
    needs_manager = is_again or not saved_to.publish_without_qa
    call.require(is_manager if needs_manager else call.may_write(project))
    can_be = call.store.platforms.has_project(saved_to, found.project_id) and _may_follow(call, found, platform)
    if not can_be or not call.store.build_lists.publish(found, call.user, again=is_manager):
        return refused(_SUBJECT, "Errors during build publishing!")
    return done(_SUBJECT, found.id, "Build is queued for publishing")


def _may_follow(call: AbfCall, found: BuildList, platform: Platform) -> bool:
    """What it was built with must be published before it, where it goes to a main platform."""
    if not platform.is_main:
        return True
    others = call.store.build_lists.by_ids(found.extra_build_lists)
    is_whole = len(others) == len(found.extra_build_lists)
    return is_whole and all(other.status == BuildStatus.PUBLISHED for other in others)


def create_container(call: AbfCall) -> Json | Response:
    found, project = _found(call)
    _, platform = _saved_to(call, found)
    call.require(call.may_write(project) or call.may_manage(platform))
    if not call.store.build_lists.ask_for_container(found):
        return refused(_SUBJECT, "Errors during container creating!")
    return done(_SUBJECT, found.id, "Container is queued for creating")


def reject_publish(call: AbfCall) -> Json | Response:
    found, _ = _found(call)
    saved_to, platform = _saved_to(call, found)
    call.require(call.may_manage(platform))
    if saved_to.publish_without_qa or not call.store.build_lists.reject(found, call.user):
        return refused(_SUBJECT, "Rejecting publishing failed")
    return done(_SUBJECT, found.id, "Publishing rejected")


def index(call: AbfCall) -> Json | Response:
    return _listed(call, None, "owned")


def index_of_project(call: AbfCall) -> Json | Response:
    project = call.project(call.id())
    call.require(call.may_read(project))
    return _listed(call, project, "everything")


def log(call: AbfCall) -> Response:
    """What the build has written so far; from `offset` bytes on."""
    found, _ = _readable(call)
    path = call.context.home.log("package", found.uuid)
    offset = integer(call.query("offset")) or 0
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NotFound from error
    file.seek(min(max(0, offset), os.fstat(file.fileno()).st_size))
    response = opened_file(file, f"{found.id}.log", "text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = "inline"
    response.headers["ETag"] = f'"{found.uuid}-{response.headers["Content-Length"]}-{offset}"'
    return response


def _found(call: AbfCall) -> tuple[BuildList, Project]:
    found = call.store.build_lists.get(call.id())
    return found, call.project(found.project_id)


def _readable(call: AbfCall) -> tuple[BuildList, Project]:
    found, project = _found(call)
    call.require(found.user_id == call.user.id or call.may_read(project))  # one's own needs no right to the project
    return found, project


def _saved_to(call: AbfCall, found: BuildList) -> tuple[Repository, Platform]:
    repository = call.store.platforms.repository(found.save_to_repository_id)
    return repository, call.store.platforms.get(repository.platform_id)


# -- one of them -----------------------------------------------------------------------------------------------------


def _shown(call: AbfCall, found: BuildList, project: Project) -> Json:
    store, users = call.store.platforms, call.store.users
    wanted = {*found.include_repos, *found.extra_repositories, found.save_to_repository_id}
    known = {repository.id: repository for repository in store.repositories_by_id(wanted)}
    platforms = {number: store.get(number) for number in {found.platform_id for found in known.values()}}
    save_to = known[found.save_to_repository_id]
    arch = store.arch(found.arch_id)
    others = call.store.build_lists.by_ids(found.extra_build_lists)
    around = shapes.Around(
        base=call.base,
        project=project,
        owner=users.by_id(project.user_id),
        user=users.by_id(found.user_id),
        publisher=users.by_id(found.publisher_id) if found.publisher_id else None,
        build_for=store.get(found.build_for_platform_id),
        save_to=save_to,
        arch=arch,
        platforms=platforms,
        include_repos=[known[number] for number in found.include_repos if number in known],
        extra_repositories=[known[number] for number in found.extra_repositories if number in known],
        extra_build_lists=[_other(call, other) for other in others],
        packages=call.store.build_lists.packages([found.run_pk]),
        results=call.store.build_lists.results(found),
        container_path=_container_path(call, found, save_to, arch.name),
        refusal=call.store.build_lists.refusal(found),
    )
    return shapes.build_list(found, around)


def _other(call: AbfCall, other: BuildList) -> Json:
    save_to = call.store.platforms.repository(other.save_to_repository_id)
    path = _container_path(call, other, save_to, call.store.platforms.arch(other.arch_id).name)
    about = {"id": other.id, "status": other.status, "container_path": path}
    return {**about, "url": shapes.build_list_url(other.id)}


def _container_path(call: AbfCall, found: BuildList, save_to: Repository, arch: str) -> str:
    if found.container_status != ContainerStatus.PUBLISHED:
        return ""
    downloads = call.context.home.downloads
    path = repositories.container(downloads, save_to.platform_name, found.id, arch=arch, name=save_to.name)
    return f"{call.base}/downloads/{path.relative_to(downloads).as_posix()}/"


# -- many of them ----------------------------------------------------------------------------------------------------


def _listed(call: AbfCall, project: Project | None, ownership: str) -> Json | Response:
    filters = call.filters()
    if problems := _problems(filters):
        return refused(_SUBJECT, "Build lists can't be filtered", *problems)
    where = _where(call, filters, project, ownership)
    found = call.store.build_lists.page(where, call.page) if where else []
    names = {number: call.store.projects.by_id(number).name for number in {item.project_id for item in found}}
    asked = urlencode([(f"filter[{name}]", value) for name, value in filters.items()])
    return {
        "build_lists": [shapes.build_list_row(item, names[item.project_id]) for item in found],
        "url": "/api/v1/build_lists.json" + (f"?{asked}" if asked else ""),
    }


def _problems(filters: dict[str, str]) -> list[str]:
    """What a filter says that it can't say; one that would be ignored shows more than was asked for.

    A number that is none is no problem: nothing has it.
    """
    if "id" in filters:  # alone: nothing else counts then
        return []
    problems = []
    if filters.get("ownership", "index") not in _OWNERSHIPS:
        problems.append(f"Ownership must be one of {', '.join(_OWNERSHIPS)}")
    for name in ("updated_at_start", "updated_at_end"):
        if name in filters and _moment(filters[name]) is None:
            words = name.replace("_", " ").capitalize()
            problems.append(f"{words} must be seconds since 1970, or a day written as dd/mm/yyyy")
    return problems


def _where(call: AbfCall, filters: dict[str, str], project: Project | None, ownership: str) -> Where | None:
    """None: nothing can be found by this."""
    user = call.user
    conditions = ["(? or j.is_public or j.user_id = ? or r.user_id = ?)", "j.archived_at is null"]
    values: list[Any] = [user.is_superuser, user.id, user.id]
    if project:
        conditions.append("r.project_id = ?")
        values.append(project.id)
    if "id" in filters:  # alone: nothing else counts then
        number = integer(filters["id"])
        return None if number is None else Where([*conditions, "r.id = ?"], [*values, number])
    if _is_of_nothing_here(filters):
        return None
    owner = _OWNERSHIP.get(filters.get("ownership") or ownership)
    if owner:
        conditions.append(owner)
        values += [user.id] * owner.count("?")
    for name, column in _EQUAL.items():
        if name in filters:
            number = integer(filters[name])
            if number is None:
                return None
            conditions.append(f"{column} = ?")
            values.append(number)
    for name, (condition, read) in _COMPARED.items():
        if name in filters and (value := read(filters[name])) is not None:
            conditions.append(condition)
            values.append(value)
    return Where(conditions, values)


def _is_of_nothing_here(filters: dict[str, str]) -> bool:
    """Recurrent and mass builds, and those of the old core: there are none."""
    return (
        boolean(filters.get("is_circle"), False)
        or filters.get("mass_build_id", "-1") != "-1"
        or not boolean(filters.get("new_core"), True)
    )


def _moment(said: str, *, is_end: bool = False) -> str | None:
    """Unix seconds, the whole second; or a day, `dd/mm/yyyy`, from its first to its last moment. None: neither."""
    number = integer(said)
    try:
        if number is not None and str(number) == said.strip():
            start, length = datetime.fromtimestamp(number, UTC), timedelta(seconds=1)
        else:
            start, length = datetime.strptime(said.strip(), "%d/%m/%Y").replace(tzinfo=UTC), timedelta(days=1)
        return clock.stamp(start + length - timedelta(microseconds=1) if is_end else start)
    except (ValueError, OverflowError, OSError):  # beyond it there is no date
        return None


_OWNERSHIP = {"owned": "r.user_id = ?", "related": "(r.user_id = ? or j.user_id = ?)"}
_OWNERSHIPS = (*_OWNERSHIP, "index", "everything")  # the last two: all that one may read
_EQUAL = {
    "status": "l.status",
    "arch_id": "l.arch_id",
    "save_to_platform_id": "s.id",
    "platform_id": "s.id",
    "build_for_platform_id": "l.build_for_platform_id",
    "save_to_repository_id": "l.save_to_repository_id",
}
_COMPARED: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "project_name": ("instr(casefold(j.name), casefold(?))", str),
    "project_version": ("l.project_version = ?", str),
    "updated_at_start": ("l.updated_at >= ?", _moment),
    "updated_at_end": ("l.updated_at <= ?", partial(_moment, is_end=True)),
}
_ONE = "/api/v1/build_lists/{id:id}"

ENDPOINTS = [
    Endpoint("GET", "/api/v1/build_lists", index, "List build lists", "anybody: what they may read"),
    Endpoint("POST", "/api/v1/build_lists", create, "Create a build list", "writers of the project"),
    Endpoint("GET", _ONE, show, "Get a build list", "readers of the project, and who made it"),
    Endpoint("PUT", f"{_ONE}/cancel", cancel, "Cancel it", "writers of the project"),
    Endpoint(
        "PUT", f"{_ONE}/publish", publish, "Publish it", "writers of the project; with QA, admins of the platform"
    ),
    Endpoint(
        "PUT",
        f"{_ONE}/create_container",
        create_container,
        "Make a container of it",
        "writers of the project, admins of the platform",
    ),
    Endpoint("PUT", f"{_ONE}/reject_publish", reject_publish, "Reject it", "admins of the platform"),
    Endpoint("GET", "/api/v1/projects/{id:id}/build_lists", index_of_project, "Of a project", "readers of the project"),
    Endpoint("GET", "/build_lists/{id:id}/log", log, "What the build has written so far", "as for the build list"),
]
