"""The calls on build lists: the eight of the "Build lists" document, and the log."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

from starlette.responses import Response

from polylocal import clock
from polylocal.api.abf import build_list_creation, shapes
from polylocal.api.abf.calls import AbfCall, Endpoint, failure, success
from polylocal.api.abf.values import Json, boolean, integer
from polylocal.api.api_context import ApiContext
from polylocal.api.file_responses import attachment
from polylocal.errors import NotFound
from polylocal.packages import repositories
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.store import Store
from polylocal.store.build_lists import Filters
from polylocal.store.rows import BuildList, Platform, Project, Repository, User

_SUBJECT = "build_list"


def show(call: AbfCall) -> Json:
    found, project = _find_readable(call)
    return {_SUBJECT: detail(found, project, call.base, call.context)}


def create(call: AbfCall) -> Json | Response:
    try:
        new = build_list_creation.check(call.section(_SUBJECT), call.user, call.context)
    except build_list_creation.InvalidBuildList as error:
        return failure(_SUBJECT, "BuildList has not been created", *error.problems)
    made = call.store.build_lists.create(new.project, call.user, new.run, new.values)
    return success(_SUBJECT, made.id, "BuildList has been created successfully")


def cancel(call: AbfCall) -> Json | Response:
    found, project = _find(call)
    call.require(call.may_write(project))
    if not call.store.build_lists.cancel(found):
        return failure(_SUBJECT, "Errors during build cancelation!")
    return success(_SUBJECT, found.id, "Build canceled")


def publish(call: AbfCall) -> Json | Response:
    found, project = _find(call)
    saved_to, platform = _find_target(found, call.store)
    is_again = found.status == BuildStatus.PUBLISHED
    is_manager = call.may_manage(platform)
    needs_manager = is_again or not saved_to.publish_without_qa
    call.require(is_manager if needs_manager else call.may_write(project))
    has_project = call.store.platforms.has_project(saved_to, found.project_id)
    can_be = has_project and _has_published_dependencies(found, platform, call.store)
    if not can_be or not call.store.build_lists.publish(found, call.user, again=is_manager):
        return failure(_SUBJECT, "Errors during build publishing!")
    return success(_SUBJECT, found.id, "Build is queued for publishing")


def _has_published_dependencies(found: BuildList, platform: Platform, store: Store) -> bool:
    """Whether the build lists that it was built with are published, as a main platform requires."""
    if not platform.is_main:
        return True
    others = store.build_lists.by_ids(found.extra_build_lists)
    is_whole = len(others) == len(found.extra_build_lists)
    return is_whole and all(other.status == BuildStatus.PUBLISHED for other in others)


def create_container(call: AbfCall) -> Json | Response:
    found, project = _find(call)
    _, platform = _find_target(found, call.store)
    call.require(call.may_write(project) or call.may_manage(platform))
    if not call.store.build_lists.request_container(found):
        return failure(_SUBJECT, "Errors during container creating!")
    return success(_SUBJECT, found.id, "Container is queued for creating")


def reject_publish(call: AbfCall) -> Json | Response:
    found, _ = _find(call)
    saved_to, platform = _find_target(found, call.store)
    call.require(call.may_manage(platform))
    if saved_to.publish_without_qa or not call.store.build_lists.reject(found, call.user):
        return failure(_SUBJECT, "Rejecting publishing failed")
    return success(_SUBJECT, found.id, "Publishing rejected")


def index(call: AbfCall) -> Json | Response:
    return _page(call, None, "owned")


def index_of_project(call: AbfCall) -> Json | Response:
    project = call.project(call.id())
    call.require(call.may_read(project))
    return _page(call, project, "everything")


def log(call: AbfCall) -> Response:
    """The log of the build so far, from byte `offset` on."""
    found, _ = _find_readable(call)
    path = call.context.home.log("package", found.uuid)
    offset = integer(call.query("offset")) or 0
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NotFound from error
    file.seek(min(max(0, offset), os.fstat(file.fileno()).st_size))
    response = attachment(file, f"{found.id}.log", "text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = "inline"
    response.headers["ETag"] = f'"{found.uuid}-{response.headers["Content-Length"]}-{offset}"'
    return response


def _find(call: AbfCall) -> tuple[BuildList, Project]:
    found = call.store.build_lists.get(call.id())
    return found, call.project(found.project_id)


def _find_readable(call: AbfCall) -> tuple[BuildList, Project]:
    found, project = _find(call)
    call.require(found.user_id == call.user.id or call.may_read(project))  # its creator needs no right to the project
    return found, project


def _find_target(found: BuildList, store: Store) -> tuple[Repository, Platform]:
    repository = store.platforms.repository(found.save_to_repository_id)
    return repository, store.platforms.get(repository.platform_id)


def detail(found: BuildList, project: Project, base: str, context: ApiContext) -> Json:
    """A build list by itself. `base`: the URL of this server, as the caller addresses it."""
    store, users, lists = context.store.platforms, context.store.users, context.store.build_lists
    wanted = {*found.include_repos, *found.extra_repositories, found.save_to_repository_id}
    known = {repository.id: repository for repository in store.repositories_by_id(wanted)}
    save_to, arch = known[found.save_to_repository_id], store.arch(found.arch_id)
    related = shapes.RelatedRows(
        base=base,
        project=project,
        owner=users.by_id(project.user_id),
        user=users.by_id(found.user_id),
        publisher=users.by_id(found.publisher_id) if found.publisher_id else None,
        build_for=store.get(found.build_for_platform_id),
        arch=arch,
        repositories=known,
        platforms={number: store.get(number) for number in {found.platform_id for found in known.values()}},
        extra_build_lists=[_reference(other, base, context) for other in lists.by_ids(found.extra_build_lists)],
        packages=lists.packages([found.run_pk]),
        results=lists.results(found),
        container_path=_container_path(found, save_to, arch.name, base, context),
        refusal=lists.refusal(found),
    )
    return shapes.build_list(found, related)


def _reference(other: BuildList, base: str, context: ApiContext) -> Json:
    save_to = context.store.platforms.repository(other.save_to_repository_id)
    path = _container_path(other, save_to, context.store.platforms.arch(other.arch_id).name, base, context)
    about = {"id": other.id, "status": other.status, "container_path": path}
    return {**about, "url": shapes.build_list_url(other.id)}


def _container_path(found: BuildList, save_to: Repository, arch: str, base: str, context: ApiContext) -> str:
    if found.container_status != ContainerStatus.PUBLISHED:
        return ""
    downloads = context.home.downloads
    path = repositories.container(downloads, save_to.platform_name, found.id, arch=arch, name=save_to.name)
    return f"{base}/downloads/{path.relative_to(downloads).as_posix()}/"


def _page(call: AbfCall, project: Project | None, ownership: str) -> Json | Response:
    fields = call.filters()
    if problems := _problems(fields):
        return failure(_SUBJECT, "Build lists can't be filtered", *problems)
    filters = filters_of(fields, call.user, project, ownership)
    query = urlencode([(f"filter[{name}]", value) for name, value in fields.items()])
    return {
        "build_lists": rows(call.store.build_lists.page(call.user, filters, call.page) if filters else [], call.store),
        "url": "/api/v1/build_lists.json" + (f"?{query}" if query else ""),
    }


def rows(found: Sequence[BuildList], store: Store) -> list[Json]:
    """Build lists as they are in lists."""
    names = {number: store.projects.by_id(number).name for number in {item.project_id for item in found}}
    return [shapes.build_list_row(item, names[item.project_id]) for item in found]


def _problems(fields: dict[str, str]) -> list[str]:
    """The problems of a filter. A value that is ignored would make the list longer than the caller wants.

    A malformed number is accepted: no build list matches it.
    """
    if "id" in fields:  # no other filter counts then
        return []
    problems = []
    if fields.get("ownership", "index") not in _OWNERSHIPS:
        problems.append(f"Ownership must be one of {', '.join(_OWNERSHIPS)}")
    for name in ("updated_at_start", "updated_at_end"):
        if name in fields and _parse_moment(fields[name]) is None:
            words = name.replace("_", " ").capitalize()
            problems.append(f"{words} must be seconds since 1970, or a day written as dd/mm/yyyy")
    return problems


def filters_of(fields: dict[str, str], user: User, project: Project | None, ownership: str) -> Filters | None:
    """The filters of a query string as conditions; None: no build list can meet them.

    `ownership` counts where the query string names none. An `id` excludes all other filters.
    """
    project_id = project.id if project else None
    names = ("id",) if "id" in fields else _NUMBERS
    numbers = {name: integer(fields[name]) for name in names if name in fields}
    platforms = {numbers.pop(name) for name in _PLATFORMS if name in numbers}
    if None in numbers.values() or None in platforms or len(platforms) > 1:
        return None
    if "id" in fields:
        return Filters(id=numbers["id"], project_id=project_id)
    if _names_other_builds(fields):
        return None
    ownership = fields.get("ownership") or ownership
    return Filters(
        project_id=project_id,
        user_id=user.id if ownership == "owned" else None,
        related_user_id=user.id if ownership == "related" else None,
        save_to_platform_id=next(iter(platforms), None),
        project_name=fields.get("project_name"),
        project_version=fields.get("project_version"),
        updated_from=_parse_moment(fields.get("updated_at_start")),
        updated_until=_parse_moment(fields.get("updated_at_end"), is_end=True),
        **numbers,
    )


def _names_other_builds(fields: dict[str, str]) -> bool:
    """Whether the filter selects only kinds of builds that polylocal does not have."""
    return (
        boolean(fields.get("is_circle"), False)
        or fields.get("mass_build_id", "-1") != "-1"
        or not boolean(fields.get("new_core"), True)
    )


def _parse_moment(fields: str | None, *, is_end: bool = False) -> str | None:
    """The first or last moment that a text names, as a stamp; None: the text names none.

    A text is a whole second in unix time, or a day as `dd/mm/yyyy`.
    """
    if fields is None:
        return None
    number = integer(fields)
    try:
        if number is not None and str(number) == fields.strip():
            start, length = datetime.fromtimestamp(number, UTC), timedelta(seconds=1)
        else:
            start, length = datetime.strptime(fields.strip(), "%d/%m/%Y").replace(tzinfo=UTC), timedelta(days=1)
        return clock.stamp(start + length - timedelta(microseconds=1) if is_end else start)
    except (ValueError, OverflowError, OSError):  # no date, or a date out of range
        return None


_OWNERSHIPS = ("owned", "related", "index", "everything")  # the last two: all that the caller may read
_PLATFORMS = ("save_to_platform_id", "platform_id")  # two names of one filter
_NUMBERS = ("status", "arch_id", "build_for_platform_id", "save_to_repository_id", *_PLATFORMS)
_ALL, _ONE = "/api/v1/build_lists", "/api/v1/build_lists/{id:id}"
_OF_PROJECT = "/api/v1/projects/{id:id}/build_lists"
_WRITERS, _ADMINS = "writers of the project", "admins of the platform"
_put = partial(Endpoint, "PUT")

ENDPOINTS = [
    Endpoint("GET", _ALL, index, "List build lists", "any user: those that they may read"),
    Endpoint("POST", _ALL, create, "Create a build list", _WRITERS),
    Endpoint("GET", _ONE, show, "Get a build list", "readers of the project, and its creator"),
    _put(f"{_ONE}/cancel", cancel, "Cancel a build list", _WRITERS),
    _put(f"{_ONE}/publish", publish, "Publish a build list", f"{_WRITERS}; with QA, {_ADMINS}"),
    _put(f"{_ONE}/create_container", create_container, "Make a container of a build list", f"{_WRITERS}, {_ADMINS}"),
    _put(f"{_ONE}/reject_publish", reject_publish, "Reject a build list", _ADMINS),
    Endpoint("GET", _OF_PROJECT, index_of_project, "List those of a project", "readers of the project"),
    Endpoint("GET", "/build_lists/{id:id}/log", log, "Get the log of a build list", "as for the build list"),
]
