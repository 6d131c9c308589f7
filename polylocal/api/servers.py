"""Notebooks and tensorboards: start, stop and list. `proxy` serves their pages."""

from typing import Any

from starlette.responses import JSONResponse, Response

from polylocal.api import bodies, run_creation, runs
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import PROJECT, Access, Call, Endpoint, empty_response, refusal, run_path
from polylocal.api.run_objects import detail
from polylocal.api.server_programs import PROGRAMS, running_server
from polylocal.api.shapes.platform import TokenItem
from polylocal.api.shapes.runs import ServerDetail
from polylocal.errors import InvalidInput, NotAllowed
from polylocal.settings import Settings
from polylocal.statuses import Kind
from polylocal.store.rows import Project, Run, User


def start_notebook(call: Call) -> Response:
    return _start(call, Kind.NOTEBOOK, None)


def start_tensorboard(call: Call) -> Response:
    """The tensorboard of the project, or of the experiment or group of the path."""
    return _start(call, Kind.TENSORBOARD, _shown(call))


def _start(call: Call, kind: Kind, shown: Run | None) -> Response:
    run, is_new = start(call.project, call.user, kind, call.body(bodies.NewRunBody), shown, call.context)
    if is_new:
        call.note("started", run)
    return JSONResponse(detail(run, call.project, call.user, call.context), status_code=201 if is_new else 200)


def start(
    project: Project, user: User, kind: Kind, body: bodies.NewRunBody, shown: Run | None, context: ApiContext
) -> tuple[Run, bool]:
    """The running server, or a new one, and whether it is new. `shown`: the experiment or the group that it shows.

    Raises InvalidInput.
    """
    with context.server_start_lock:  # two requests at the same time start one
        running = running_server(context.store, project, kind, shown)
        if running and running.stop_requested_at and PROGRAMS[kind].commits_changes:
            raise refusal(f"The {kind} is being stopped, and its changes are committed: start it again in a moment.")
        if running and not running.stop_requested_at:
            return running, False
        if body.source is None:
            body = body.model_copy(update={"content": _default_file(kind, context.settings)})
        new = run_creation.check(project, user, kind, body, context, shown=shown)
        return context.store.runs.insert(project, user, new), True


def stop_notebook(call: Call) -> Response:
    """The changes made in the notebook become the newest commit of the project's code, unless `commit` is false."""
    keeps = call.body(bodies.StoppedNotebook).commit
    if running := running_server(call.store, call.project, Kind.NOTEBOOK):
        call.store.runs.record(running, keeps_changes=keeps)
        _stop(call, running)
    return empty_response()


def stop_tensorboard(call: Call) -> Response:
    if running := running_server(call.store, call.project, Kind.TENSORBOARD, _shown(call)):
        _stop(call, running)
    return empty_response()


def notebook_token(call: Call) -> TokenItem:
    """The notebook's own token, for the notebook itself."""
    running = running_server(call.store, call.project, Kind.NOTEBOOK)
    if running is None or call.run_pk != running.pk:
        raise NotAllowed
    return runs.own_token(call)


def _shown(call: Call) -> Run | None:
    """The experiment or the group of the path."""
    return call.run if call.endpoint.is_about_run else None


def _stop(call: Call, running: Run) -> None:
    call.store.runs.request_stop(running)
    call.note("stopped", running)


def _default_file(kind: Kind, settings: Settings) -> dict[str, Any]:
    """The polyaxonfile of a server that is started without one. Raises InvalidInput: no image is set."""
    image = PROGRAMS[kind].default_image(settings)
    if not image:
        raise InvalidInput([f"Please provide a polyaxonfile, or set a default {kind} image."])
    return {"version": 1, "kind": kind.value, "build": {"image": image}}


NOTEBOOK_TOKEN = f"{PROJECT}/notebook/impersonatetoken"
_SCOPES = {
    "the project": f"{PROJECT}/tensorboard",
    "an experiment": f"{run_path(Kind.EXPERIMENT)}/tensorboard",
    "a group": f"{run_path(Kind.GROUP)}/tensorboard",
}


_NEW, _DETAIL = bodies.NewRunBody, ServerDetail
_START, _STOP = f"{PROJECT}/notebook/start", f"{PROJECT}/notebook/stop"
_START_ABOUT = "Start the notebook of the project"


def _tensorboards(scope: str, path: str) -> list[Endpoint]:
    about = f"the tensorboard of {scope}"
    return [
        Endpoint("POST", f"{path}/start", start_tensorboard, f"Start {about}", Access.WRITE, _NEW, _DETAIL, status=201),
        Endpoint("POST", f"{path}/stop", stop_tensorboard, f"Stop {about}", Access.WRITE),
    ]


ENDPOINTS = [
    Endpoint("POST", _START, start_notebook, _START_ABOUT, Access.WRITE, _NEW, _DETAIL, status=201),
    Endpoint("POST", _STOP, stop_notebook, "Stop the notebook", Access.WRITE, bodies.StoppedNotebook),
    Endpoint("POST", NOTEBOOK_TOKEN, notebook_token, "A token for the notebook itself", answer=TokenItem),
    *(endpoint for scope, path in _SCOPES.items() for endpoint in _tensorboards(scope, path)),
    *(endpoint for kind in PROGRAMS for endpoint in (runs.listing(kind), *runs.common(kind), *runs.carried_out(kind))),
]
