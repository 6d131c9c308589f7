"""Projects in the ABF API."""

import re
from typing import Any

from starlette.responses import Response

from polylocal.api.abf import shapes
from polylocal.api.abf.calls import AbfCall, Endpoint, failure, success
from polylocal.api.abf.values import Json, boolean, integer, text
from polylocal.api.bodies import is_reserved
from polylocal.errors import InvalidInput, NotFound
from polylocal.git import revisions
from polylocal.polyaxonfile.models import MAX_NAME, SLUG

_SUBJECT = "project"
_VISIBILITIES = ("open", "hidden")
_MAX_PROJECTS = 10_000
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def show(call: AbfCall) -> Json:
    project = call.project(call.id())
    call.require(call.may_read(project))
    platforms = call.store.platforms
    owner = call.store.users.by_id(project.user_id)
    statistics = call.store.build_lists.statistics(project)
    return {_SUBJECT: shapes.project_detail(project, owner, call.base, platforms.repositories_of(project), statistics)}


def get_id(call: AbfCall) -> Json:
    """A project by owner and name, in any case."""
    owner = call.store.users.by_name_or_address(call.query("owner") or "")
    if owner is None:
        raise NotFound
    name = call.query("name") or ""
    _, projects = call.store.projects.page(owner.username, public_only=False, limit=_MAX_PROJECTS, offset=0)
    found = [project for project in projects if project.name.casefold() == name.casefold()]
    if not found:
        raise NotFound
    project = next((project for project in found if project.name == name), found[0])
    call.require(call.may_read(project))
    return {_SUBJECT: {**shapes.project_block(project, owner, call.base), "owner": shapes.member(owner)}}


def index(call: AbfCall) -> Json:
    """The projects of the caller; for admins all projects."""
    found = call.store.projects.readable(call.user, call.page, owned=not call.user.is_superuser)
    owners = {number: call.store.users.by_id(number) for number in {project.user_id for project in found}}
    blocks = [shapes.project_block(project, owners[project.user_id], call.base) for project in found]
    return {"projects": blocks, "url": "/api/v1/projects.json"}


def create(call: AbfCall) -> Json | Response:
    fields = call.section(_SUBJECT)
    call.require(integer(fields.get("owner_id")) in (None, call.user.id) or call.user.is_superuser)
    owner, problems = call.named_owner(fields), _problems(fields, is_new=True)
    if owner is None:
        problems.append("Owner can't be blank")
    if problems or owner is None:
        return failure(_SUBJECT, "Project has not been created", *problems)
    call.context.check_room()
    values = {"name": text(fields.get("name")), **_values(fields)}
    try:
        project = call.store.projects.create(owner, values)
    except InvalidInput:
        return failure(_SUBJECT, "Project has not been created", "Name has already been taken")
    call.context.repository(project).create(project.default_branch)
    platforms = call.store.platforms
    personal = platforms.by_name(f"{owner.username}_personal")
    platforms.add_project(platforms.repositories([personal.id])[0], project)
    call.store.activities.add(call.user, "created", project)
    return success(_SUBJECT, project.id, "Project has been created successfully")


def _problems(fields: Json, *, is_new: bool) -> list[str]:
    problems = []
    name = text(fields.get("name"))
    if is_new and name is None:
        problems.append("Name can't be blank")
    elif is_new and name and (not re.fullmatch(SLUG, name) or len(name) > MAX_NAME or is_reserved(name)):
        problems.append("Name is invalid")
    if fields.get("visibility") is not None and fields["visibility"] not in _VISIBILITIES:
        problems.append("Visibility is not included in the list")
    branch = text(fields.get("default_branch"))
    if branch and not _is_branch(branch):
        problems.append("Default branch is invalid")
    if fields.get("owner_type") not in (None, "", "User"):
        problems.append("Owner type is not included in the list")
    return problems


def _is_branch(name: str) -> bool:
    return len(name) <= 100 and revisions.is_ref(name) and all(map(_PART.fullmatch, name.split("/")))


def _values(fields: Json) -> dict[str, Any]:
    """The columns that a caller sets."""
    values: dict[str, Any] = {}
    if "description" in fields:
        values["description"] = text(fields["description"])
    if text(fields.get("visibility")):
        values["is_public"] = fields["visibility"] == "open"
    if fields.get("is_package") is not None:
        values["is_package"] = boolean(fields["is_package"], True)
    if text(fields.get("default_branch")):
        values["default_branch"] = text(fields["default_branch"])
    return values


def update(call: AbfCall) -> Json | Response:
    project = call.project(call.id())
    call.require(call.may_write(project))
    fields = call.section(_SUBJECT)
    if problems := _problems(fields, is_new=False):
        return failure(_SUBJECT, "Project has not been updated", *problems)
    changed = call.store.projects.update(project, _values(fields))
    if changed.default_branch != project.default_branch:
        call.context.repository(project).set_head(changed.default_branch)
    call.store.activities.add(call.user, "updated", project)
    return success(_SUBJECT, project.id, "Project has been updated successfully")


def destroy(call: AbfCall) -> Json:
    """Delete a project with all its runs and build lists."""
    project = call.project(call.id())
    call.require(call.may_write(project))
    call.store.activities.add(call.user, "deleted", project)
    call.store.projects.delete(project)
    return success(_SUBJECT, project.id, "Project has been destroyed successfully")


def refs(call: AbfCall) -> Json:
    project = call.project(call.id())
    call.require(call.may_read(project))
    found = call.context.repository(project).refs()
    types = {True: "tag", False: "commit"}
    refs_list = [{"ref": ref.name, "object": {"type": types[ref.is_tag], "sha": ref.commit}} for ref in found]
    return {"refs_list": refs_list, "url": f"/api/v1/projects/{project.id}/refs_list.json"}


_ALL, _ONE = "/api/v1/projects", "/api/v1/projects/{id:id}"

ENDPOINTS = [
    Endpoint("GET", "/api/v1/projects/get_id", get_id, "Find a project by its owner and name", "its readers"),
    Endpoint("GET", _ALL, index, "The caller's projects", "any user"),
    Endpoint("POST", _ALL, create, "Create a project, with a git repository", "any user; for others: admins"),
    Endpoint("GET", _ONE, show, "Get a project", "its readers"),
    Endpoint("PUT", _ONE, update, "Change a project", "its owner"),
    Endpoint("DELETE", _ONE, destroy, "Destroy a project with its runs and build lists", "its owner"),
    Endpoint("GET", f"{_ONE}/refs_list", refs, "Its branches and tags", "its readers"),
]
