"""Platforms, which packages are built for, and repositories, which they are published to."""

import re
from functools import partial
from typing import Any

from starlette.responses import Response

from polylocal.api.abf import shapes
from polylocal.api.abf.calls import AbfCall, Endpoint, failure, success
from polylocal.api.abf.values import Json, boolean, integer, text
from polylocal.api.shapes.base import pick
from polylocal.errors import InvalidInput, NotFound, PackageError
from polylocal.packages import arches, builder_images, kinds, signing
from polylocal.packages.statuses import TIME_LIVING_S
from polylocal.store import Store
from polylocal.store.queries import Page
from polylocal.store.rows import Platform, Project, Repository, User

_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9_.]{0,99}")  # a folder has this name
_NOT_A_FOLDER = ("container", "repository")
_MAX_PLATFORMS = 10_000


def all_arches(call: AbfCall) -> Json:
    """The architectures that this machine can build for."""
    return {"architectures": [pick(arch, "id name") for arch in call.store.platforms.arches(arches.buildable())]}


def index(call: AbfCall) -> Json:
    wanted = call.query("type")
    kind = wanted if wanted in ("main", "personal") else None
    found = call.store.platforms.page(call.user, call.page, platform_type=kind)
    query = f"?type={kind}" if kind else ""
    return {
        "platforms": [shapes.platform_for_build(platform, *_details(platform, call.store)) for platform in found],
        "url": f"/api/v1/platforms.json{query}",
    }


def for_build(call: AbfCall) -> Json:
    found = call.store.platforms.page(call.user, Page(_MAX_PLATFORMS, 0), platform_type="main")
    shown = [shapes.platform_for_build(platform, *_details(platform, call.store)) for platform in found]
    return {"platforms": shown, "url": "/api/v1/platforms/platforms_for_build.json"}


def _details(platform: Platform, store: Store) -> tuple[User, list[Repository]]:
    return store.users.by_id(platform.owner_id), store.platforms.repositories([platform.id])


def show(call: AbfCall) -> Json:
    platform = _find_platform(call)
    return {"platform": shapes.platform_detail(platform, *_details(platform, call.store))}


def _find_platform(call: AbfCall) -> Platform:
    platform = call.store.platforms.get(call.id())
    call.require(call.may_see(platform))
    return platform


def key(call: AbfCall) -> Json | Response:
    """The public key that verifies the repositories of a platform. It is generated if it does not exist."""
    platform = _find_platform(call)
    try:
        found = signing.Keys(call.context.home.signing).get(platform.name, platform.distrib_type)
    except PackageError as error:
        return failure("platform", str(error))
    return {"platform": {**pick(platform, "id name"), "fingerprint": found.fingerprint, "key": found.public}}


def create(call: AbfCall) -> Json | Response:
    call.require(call.user.is_superuser)
    fields = call.section("platform")
    values, problems = _values_of_platform(fields)
    name = text(fields.get("name"))
    if name is None:
        problems.insert(0, "Name can't be blank")
    elif not _is_name(name) or name.lower().endswith("_personal"):
        problems.insert(0, "Name is invalid")
    if fields.get("distrib_type") not in kinds.KINDS:
        problems.append("Distrib type is not included in the list")
    owner = call.named_owner(fields)
    problems += [] if owner else ["Owner can't be blank"]
    if problems or owner is None:
        return failure("platform", "Platform has not been created", *problems)
    kind = fields["distrib_type"]
    given = {**values, "name": name, "distrib_type": kind}
    try:
        made = call.store.platforms.create(owner, given)
    except InvalidInput as error:
        return failure("platform", "Platform has not been created", *error.messages)
    message = "Platform has been created successfully"
    if made.build_image is None and made.build_command is None:
        image = builder_images.default(kind, call.context.has_image)
        message = ". ".join(filter(None, [message, builder_images.advice(kind, image)]))
    return success("platform", made.id, message)


def update(call: AbfCall) -> Json | Response:
    platform = call.store.platforms.get(call.id())
    call.require(call.may_manage(platform))
    fields = call.section("platform")
    values, problems = _values_of_platform(fields)
    owner = call.named_owner(fields)
    problems += [] if owner else ["Owner can't be blank"]
    if problems or owner is None:
        return failure("platform", "Platform has not been updated", *problems)
    if platform.is_main and integer(fields.get("owner_id")) is not None:
        values["owner_id"] = owner.id
    if not platform.is_main:
        values.pop("released", None)
    call.store.platforms.update(platform, values)
    return success("platform", platform.id, "Platform has been updated successfully")


def _values_of_platform(fields: Json) -> tuple[dict[str, Any], list[str]]:
    """The columns that a caller sets, and the problems of their values."""
    values: dict[str, Any] = {}
    problems = []
    for name in ("description", "default_branch", "build_image", "build_command"):
        if name in fields:
            values[name] = text(fields[name])
    for name in ("released", "build_network"):
        if fields.get(name) is not None:
            values[name] = boolean(fields[name], False)
    if fields.get("visibility") is not None:
        if fields["visibility"] not in ("open", "hidden"):
            problems.append("Visibility is not included in the list")
        values["is_open"] = fields["visibility"] == "open"
    if fields.get("time_living") is not None:
        seconds, (least, most) = integer(fields["time_living"]), TIME_LIVING_S
        if seconds is None or not least <= seconds <= most:
            problems.append(f"Time living must be a number of seconds from {least} to {most}")
        values["time_living"] = seconds
    return values, problems


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name.lower() not in _NOT_A_FOLDER


def show_repository(call: AbfCall) -> Json:
    repository, platform = _find_repository(call)
    call.require(call.may_see(platform))
    return {"repository": shapes.repository_detail(repository)}


def _find_repository(call: AbfCall) -> tuple[Repository, Platform]:
    repository = call.store.platforms.repository(call.id())
    return repository, call.store.platforms.get(repository.platform_id)


def _find_managed(call: AbfCall) -> Repository:
    repository, platform = _find_repository(call)
    call.require(call.may_manage(platform))
    return repository


def create_repository(call: AbfCall) -> Json | Response:
    fields = call.section("repository")
    try:
        platform = call.store.platforms.get(integer(fields.get("platform_id")) or 0)
    except NotFound:
        return failure("repository", "Repository has not been created", "Platform can't be blank")
    call.require(call.may_manage(platform))
    name = text(fields.get("name"))
    if name is None or not _is_name(name):
        problem = "Name can't be blank" if name is None else "Name is invalid"
        return failure("repository", "Repository has not been created", problem)
    values = _values_of_repository(fields)
    try:
        made = call.store.platforms.add_repository(platform, {"name": name, **values})
    except InvalidInput as error:
        return failure("repository", "Repository has not been created", *error.messages)
    return success("repository", made.id, "Repository has been created successfully")


def update_repository(call: AbfCall) -> Json:
    repository = _find_managed(call)
    call.store.platforms.update_repository(repository, _values_of_repository(call.section("repository")))
    return success("repository", repository.id, "Repository has been updated successfully")


def _values_of_repository(fields: Json) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if "description" in fields:
        values["description"] = text(fields["description"])
    if fields.get("publish_without_qa") is not None:
        values["publish_without_qa"] = boolean(fields["publish_without_qa"], True)
    return values


def add_project(call: AbfCall) -> Json | Response:
    repository, project = _find_managed(call), _find_project(call)
    call.require(call.may_read(project))
    try:
        call.store.platforms.add_project(repository, project)
    except InvalidInput as error:
        return failure("repository", f"Project '{project.id}' has not been added to repository", *error.messages)
    return success("repository", repository.id, f"Project '{project.id}' has been added to repository successfully")


def remove_project(call: AbfCall) -> Json:
    repository, project = _find_managed(call), _find_project(call)
    call.store.platforms.remove_project(repository, project)
    return success("repository", repository.id, f"Project '{project.id}' has been removed from repository successfully")


def _find_project(call: AbfCall) -> Project:
    number = call.value("project_id")
    return call.project(integer(call.query("project_id") if number is None else number))


def projects_of(call: AbfCall) -> Json:
    repository, platform = _find_repository(call)
    call.require(call.may_see(platform))
    numbers = call.store.platforms.projects_of(repository, call.user, call.page)
    found = [call.store.projects.by_id(number) for number in numbers]
    blocks = [shapes.project_block(item, call.store.users.by_id(item.user_id), call.base) for item in found]
    held = {**shapes.repository_name(repository), "projects": blocks}  # clients look for them here
    return {"repository": held, "projects": blocks, "url": f"/api/v1/repositories/{repository.id}/projects.json"}


def set_lock(is_locked: bool, call: AbfCall) -> Json:
    """Publications wait while the repository is locked."""
    repository = _find_managed(call)
    call.store.platforms.update_repository(repository, {"is_locked": is_locked})
    if not is_locked:
        call.store.build_lists.notify()
    action = "added" if is_locked else "removed"
    return success("repository", repository.id, f"'.repo.lock' file has been {action} successfully")


_PLATFORM = "/api/v1/platforms/{id:id}"
_OWNER = "the platform's owner"
_REPOSITORY = "/api/v1/repositories/{id:id}"

ENDPOINTS = [
    Endpoint("GET", "/api/v1/arches", all_arches, "Architectures that can be built for", "any user"),
    Endpoint("GET", "/api/v1/platforms/platforms_for_build", for_build, "Platforms to build for", "any user"),
    Endpoint("GET", "/api/v1/platforms", index, "List platforms; `type=main` or `personal`", "any user"),
    Endpoint("POST", "/api/v1/platforms", create, "Create a main platform", "admins"),
    Endpoint("GET", _PLATFORM, show, "Get a platform", "any user; a hidden one: its owner"),
    Endpoint("GET", f"{_PLATFORM}/key", key, "The public key that signs it", "any user; a hidden one: its owner"),
    Endpoint("PUT", _PLATFORM, update, "Change a platform", "its owner"),
    Endpoint("POST", "/api/v1/repositories", create_repository, "Create a repository", _OWNER),
    Endpoint("GET", _REPOSITORY, show_repository, "Get a repository", "as for its platform"),
    Endpoint("PUT", _REPOSITORY, update_repository, "Change a repository", _OWNER),
    Endpoint("GET", f"{_REPOSITORY}/projects", projects_of, "The projects of a repository", "as for its platform"),
    Endpoint("PUT", f"{_REPOSITORY}/add_project", add_project, "Add a project", _OWNER),
    Endpoint("DELETE", f"{_REPOSITORY}/remove_project", remove_project, "End that", _OWNER),
    Endpoint("PUT", f"{_REPOSITORY}/add_repo_lock_file", partial(set_lock, True), "Lock a repository", _OWNER),
    Endpoint(
        "DELETE",
        f"{_REPOSITORY}/remove_repo_lock_file",
        partial(set_lock, False),
        "Unlock a repository",
        _OWNER,
    ),
]
