"""Notebooks and tensorboards: started, stopped, listed. Their pages are served by `proxy`."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from polylocal.api import bodies, runs
from polylocal.api.endpoint import Access, Call, Endpoint, empty, refuse
from polylocal.api.run_creation import make
from polylocal.api.shapes.platform import TokenItem
from polylocal.api.shapes.servers import ServerDetail, ServerItem, TensorboardItem
from polylocal.errors import NotAllowed
from polylocal.statuses import Kind, is_done
from polylocal.store.rows import Run


def start_notebook(call: Call) -> Response:
    return _start(call, Kind.NOTEBOOK, None)


def start_tensorboard(call: Call) -> Response:
    """Of the project, or of the experiment or the group of the path."""
    return _start(call, Kind.TENSORBOARD, _shown(call))


def stop_notebook(call: Call) -> Response:
    """What was changed in it becomes the newest commit of the project's code, unless `commit` is false."""
    keeps = call.body(bodies.StoppedNotebook).commit
    running = _running(call, Kind.NOTEBOOK, None)
    if running:
        call.store.runs.record(running, keeps_changes=keeps)
        _stop(call, running)
    return empty()


def stop_tensorboard(call: Call) -> Response:
    running = _running(call, Kind.TENSORBOARD, _shown(call))
    if running:
        _stop(call, running)
    return empty()


def notebook_token(call: Call) -> TokenItem:
    """A notebook's own token for the notebook itself."""
    running = _running(call, Kind.NOTEBOOK, None)
    if running is None or call.run_pk != running.pk:
        raise NotAllowed
    return runs.own_token(call)


def _stop(call: Call, running: Run) -> None:
    call.store.runs.request_stop(running)
    call.note("stopped", running)


def _start(call: Call, kind: Kind, of: Run | None) -> Response:
    """One at a time: 201 with a new one, 200 with the one that is there."""
    body = call.body(bodies.NewRunBody)
    with call.context.starting:  # two clicks at the same time are one start
        running = _running(call, kind, of)
        if running and running.stop_requested_at and kind is Kind.NOTEBOOK:
            raise refuse("The notebook is being stopped, and its changes are put away: start it again in a moment.")
        if running and not running.stop_requested_at:
            return JSONResponse(runs.detail(call, running))
        if body.source is None:
            body = body.model_copy(update={"content": _default(call, kind)})
        started = make(call, kind, body, of=of)
    call.note("started", started)
    return JSONResponse(runs.detail(call, started), status_code=201)


def _default(call: Call, kind: Kind) -> dict[str, Any]:
    """The polyaxonfile of who sends none."""
    settings = call.context.settings
    image = settings.notebook_image if kind is Kind.NOTEBOOK else settings.tensorboard_image
    if not image:
        raise refuse(f"Please provide a polyaxonfile, or set a default {kind} image.")
    return {"version": 1, "kind": kind.value, "build": {"image": image}}


def _shown(call: Call) -> Run | None:
    """The experiment or the group that the path names."""
    kind = call.endpoint.kind
    return call.run if kind in (Kind.EXPERIMENT, Kind.GROUP) else None


def _running(call: Call, kind: Kind, of: Run | None) -> Run | None:
    experiment = of if of and of.kind == Kind.EXPERIMENT else None
    group = of if of and of.kind == Kind.GROUP else None
    newest = call.store.runs.server(call.project, kind, experiment=experiment, group=group)
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
