"""Continuous integration: new code starts the run that the code itself describes."""

from typing import Any

from starlette.responses import JSONResponse, Response

from polylocal.api import bodies, run_creation
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import PROJECT, Access, Call, Endpoint, empty_response
from polylocal.api.kinds import kinds_with
from polylocal.api.shapes.projects import CiItem, ci_item
from polylocal.errors import InvalidPolyaxonfile, NotFound
from polylocal.polyaxonfile import read
from polylocal.statuses import Kind
from polylocal.store.rows import Project, Run, User

FILES = ("polyaxonci.yml", "polyaxonci.yaml", "polyaxonci.json")  # at the top of the code; the first one counts
NOT_TRIGGERED = "Could not trigger the project CI."


def show(call: Call) -> CiItem:
    _check_enabled(call.project)
    return ci_item(call.project)


def enable(call: Call) -> CiItem:
    return ci_item(call.store.projects.set_ci(call.project, call.body(bodies.Ci).config or {}))


def change(call: Call) -> CiItem:
    current = show(call)
    return enable(call) if "config" in call.body(bodies.Ci).given() else current


def replace(call: Call) -> CiItem:
    _check_enabled(call.project)
    return enable(call)


def disable(call: Call) -> Response:
    _check_enabled(call.project)
    call.store.projects.set_ci(call.project, None)
    return empty_response(204)


def _check_enabled(project: Project) -> None:
    if project.ci is None:
        raise NotFound


def start(call: Call) -> Response:
    """Start the project's CI after new code: 201 if there is a new run."""
    run = trigger(call.project, call.user, call.context)
    if run is None:
        return JSONResponse(NOT_TRIGGERED)
    call.note("created", run)
    return empty_response(201)


def trigger(project: Project, user: User, context: ApiContext) -> Run | None:
    """Start the run that the newest code describes; None: CI is off, or the code has no file that describes one.

    Raises InvalidInput: the file is not valid.
    """
    repository = context.repository(project)
    commit = repository.resolve("HEAD")
    if project.ci is None or commit is None:
        return None
    name = next((name for name in FILES if name in repository.files(commit)), None)
    if name is None:
        return None
    text = repository.read(commit, name, follows=True).decode(errors="replace")
    kind = _kind(text)
    if kind is None:
        return None
    # the code is that of the project's owner, whoever uploads it
    body, owner_id = bodies.NewRunBody(content=text), project.user_id
    new = run_creation.check(project, user, kind, body, context, secrets_user_id=owner_id)
    return context.store.runs.insert(project, user, new)


def _kind(text: str) -> Kind | None:
    try:
        data: dict[str, Any] = read(text)[0]
    except InvalidPolyaxonfile:
        return None
    return next((kind for kind in kinds_with("is_started_by_ci") if kind == data.get("kind")), None)


_CI = f"{PROJECT}/ci"

ENDPOINTS = [
    Endpoint("GET", _CI, show, "Whether new code starts a run", answer=CiItem),
    Endpoint("POST", _CI, enable, "Start a run with new code", Access.WRITE, bodies.Ci, CiItem, status=201),
    Endpoint("PATCH", _CI, change, "Change the CI", Access.WRITE, bodies.Ci, CiItem),
    Endpoint("PUT", _CI, replace, "Replace the CI", Access.WRITE, bodies.Ci, CiItem),
    Endpoint("DELETE", _CI, disable, "Start no run with new code", Access.WRITE, status=204),
]
