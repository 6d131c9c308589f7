"""Notebooks and tensorboards: start, stop and list. `proxy` serves their pages."""

from typing import Any

from starlette.responses import JSONResponse, Response

from polylocal.api import bodies, run_creation, runs
from polylocal.api.endpoint import Access, Call, Endpoint, empty, refuse
from polylocal.api.shapes.platform import TokenItem
from polylocal.api.shapes.runs import ServerDetail, ServerItem, TensorboardItem
from polylocal.errors import InvalidInput, NotAllowed
from polylocal.settings import Settings
from polylocal.statuses import Kind, is_done
from polylocal.store import Store
from polylocal.store.rows import Project, Run


def start_notebook(call: Call) -> Response:
    return _start(call, Kind.NOTEBOOK, None)


def start_tensorboard(call: Call) -> Response:
    """The tensorboard of the project, or of the experiment or group of the path."""
    return _start(call, Kind.TENSORBOARD, _shown(call))


def stop_notebook(call: Call) -> Response:
    """The changes made in the notebook become the newest commit of the project's code, unless `commit` is false."""
    keeps = call.body(bodies.StoppedNotebook).commit
    running = _running(call.project, Kind.NOTEBOOK, None, call.store)
    if running:
        call.store.runs.record(running, keeps_changes=keeps)
        _stop(call, running)
    return empty()


def stop_tensorboard(call: Call) -> Response:
    running = _running(call.project, Kind.TENSORBOARD, _shown(call), call.store)
    if running:
        _stop(call, running)
    return empty()


def notebook_token(call: Call) -> TokenItem:
    """The notebook's own token, for the notebook itself."""
    running = _running(call.project, Kind.NOTEBOOK, None, call.store)
    if running is None or call.run_pk != running.pk:
        raise NotAllowed
    return runs.own_token(call)


def _stop(call: Call, running: Run) -> None:
    call.store.runs.request_stop(running)
    call.note("stopped", running)


def _start(call: Call, kind: Kind, shown: Run | None) -> Response:
    """Only one runs at a time: 201 with a new one, or 200 with the running one."""
    body = call.body(bodies.NewRunBody)
    project, user, context = call.project, call.user, call.context
    with context.server_start_lock:  # two requests at the same time start one
        running = _running(project, kind, shown, call.store)
        if running and running.stop_requested_at and kind is Kind.NOTEBOOK:
            raise refuse("The notebook is being stopped, and its changes are committed: start it again in a moment.")
        if running and not running.stop_requested_at:
            return JSONResponse(runs.detail(running, project, user, context))
        if body.source is None:
            body = body.model_copy(update={"content": _default(kind, context.settings)})
        new = run_creation.check(project, user, kind, body, context, shown=shown)
        started = call.store.runs.insert(project, user, new)
    call.note("started", started)
    return JSONResponse(runs.detail(started, project, user, context), status_code=201)


def _default(kind: Kind, settings: Settings) -> dict[str, Any]:
    """The polyaxonfile in place of none. Raises InvalidInput: no image is set."""
    image = settings.notebook_image if kind is Kind.NOTEBOOK else settings.tensorboard_image
    if not image:
        raise InvalidInput([f"Please provide a polyaxonfile, or set a default {kind} image."])
    return {"version": 1, "kind": kind.value, "build": {"image": image}}


def _shown(call: Call) -> Run | None:
    """The experiment or the group that the path names."""
    kind = call.endpoint.kind
    return call.run if kind in (Kind.EXPERIMENT, Kind.GROUP) else None


def _running(project: Project, kind: Kind, shown: Run | None, store: Store) -> Run | None:
    experiment = shown if shown and shown.kind is Kind.EXPERIMENT else None
    group = shown if shown and shown.kind is Kind.GROUP else None
    newest = store.runs.server(project, kind, experiment=experiment, group=group)
    return newest if newest and not is_done(newest.status) else None


_PROJECT = "/api/v1/{user}/{project}"
NOTEBOOK_TOKEN = f"{_PROJECT}/notebook/impersonatetoken"
_SCOPES = {
    "the project": f"{_PROJECT}/tensorboard",
    "an experiment": f"{_PROJECT}/experiments/{{id:id}}/tensorboard",
    "a group": f"{_PROJECT}/groups/{{id:id}}/tensorboard",
}


def _tensorboards(scope: str, path: str) -> list[Endpoint]:
    body, answer = bodies.NewRunBody, ServerDetail
    about = f"the tensorboard of {scope}"
    return [
        Endpoint("POST", f"{path}/start", start_tensorboard, f"Start {about}", Access.WRITE, body, answer, status=201),
        Endpoint("POST", f"{path}/stop", stop_tensorboard, f"Stop {about}", Access.WRITE),
    ]


ENDPOINTS = [
    Endpoint(
        "POST",
        f"{_PROJECT}/notebook/start",
        start_notebook,
        "Start the notebook of the project",
        Access.WRITE,
        bodies.NewRunBody,
        ServerDetail,
        status=201,
    ),
    Endpoint(
        "POST", f"{_PROJECT}/notebook/stop", stop_notebook, "Stop the notebook", Access.WRITE, bodies.StoppedNotebook
    ),
    Endpoint("POST", NOTEBOOK_TOKEN, notebook_token, "A token for the notebook itself", answer=TokenItem),
    *(endpoint for scope, path in _SCOPES.items() for endpoint in _tensorboards(scope, path)),
    runs.listing(Kind.NOTEBOOK, ServerItem),
    *runs.common(Kind.NOTEBOOK, ServerDetail),
    *runs.carried_out(Kind.NOTEBOOK),
    runs.listing(Kind.TENSORBOARD, TensorboardItem),
    *runs.common(Kind.TENSORBOARD, ServerDetail),
    *runs.carried_out(Kind.TENSORBOARD),
]
