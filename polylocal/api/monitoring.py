"""Health, metrics and disk usage of the daemon."""

import math
from collections.abc import Iterable
from functools import partial

from starlette.responses import JSONResponse, Response

from polylocal.api import bodies, system
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty_response, refusal
from polylocal.api.kernel import Threads
from polylocal.api.kinds import TRAITS
from polylocal.api.shapes import Json
from polylocal.api.shapes.platform import RoomItem, disk_item
from polylocal.errors import EngineUnreachable, StoreError
from polylocal.files.disk import Item, size_of
from polylocal.store import Store
from polylocal.store.rows import Run

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"  # its text format


def health(call: Call) -> Response:
    return empty_response()


def status(call: Call) -> Response:
    context = call.context
    components = {
        "engine": context.engine_state(),
        "store": _store_state(context.store),
        "disk": context.disk.problem(),
        "scheduler": context.scheduler_state(),
    }
    return JSONResponse({name: _component(problem) for name, problem in components.items()})


def _store_state(store: Store) -> str | None:
    """The reason why the database does not answer; None: it answers."""
    try:
        store.fact("installation")
    except StoreError as error:
        return str(error)
    return None


def _component(problem: str | None) -> Json:
    return {"is_healthy": problem is None, "message": problem or "", "severity": "error" if problem else "info"}


def metrics(call: Call) -> Response:
    return Response(call.context.monitor.text(), media_type=_PROMETHEUS)


def room(call: Call) -> RoomItem:
    """The items that `collect` would remove or keep."""
    return _room(call.context.disk_usage(_budget(call)))


def collect(call: Call) -> RoomItem:
    """Remove what is not needed. Answers with the removed items, and the kept ones with the reasons."""
    return _room(call.context.free_disk(call.body(bodies.Collection).budget_gib))


def _budget(call: Call) -> float | None:
    text = call.query("budget_gib")
    try:
        budget = float(text) if text else None
    except ValueError as error:
        raise refusal("`budget_gib` is a number.") from error
    if budget is not None and not (math.isfinite(budget) and budget >= 0):
        raise refusal("`budget_gib` is a number of GiB, 0 or more.")
    return budget


def _room(items: Iterable[Item]) -> RoomItem:
    results = [disk_item(item) for item in items]
    return {"freed_bytes": sum(item["size_bytes"] for item in results if item["goes"]), "results": results}


def of_run(call: Call) -> Json:
    """The bytes on the disk that the deletion of a run frees."""
    found = system.find(call.parameter("kind"), call.number("id"), call.user, call.store)
    return _sizes([found], call.context)


def of_project(call: Call) -> Json:
    """The bytes on the disk that the deletion of a project frees."""
    found = _sizes(call.store.usage.runs_of_project(call.project), call.context)
    found["code_bytes"] = size_of(call.context.home.code(call.project.uuid))
    found["size_bytes"] += found["code_bytes"]
    return found


def _sizes(runs: Iterable[Run], context: ApiContext) -> Json:
    logs = outputs = 0
    builds = set[str]()
    for run in runs:
        logs += size_of(context.log_path(run))
        if TRAITS[run.kind].makes_image:
            builds.add(run.uuid)
        elif run.outputs and not context.store.runs.shares_outputs(run):
            outputs += size_of(context.outputs_path(run))
    images = _image_bytes(builds, context) if builds else 0
    return {"logs_bytes": logs, "outputs_bytes": outputs, "images_bytes": images, "size_bytes": logs + outputs + images}


def _image_bytes(builds: set[str], context: ApiContext) -> int:
    try:
        return sum(size for build, size in context.image_sizes() if build in builds)
    except EngineUnreachable:
        return 0


_long = partial(Endpoint, threads=Threads.LONG)
_BUDGET = (Query("budget_gib", "GiB that images may take, instead of the setting"),)

_now = partial(Endpoint, "GET", access=Access.ANYONE, threads=Threads.NONE)
_state = partial(Endpoint, "GET", access=Access.ANYONE, answer=Json, threads=Threads.STATUS)

ENDPOINTS = [
    _now("/healthz", health, "Whether the daemon answers"),
    _now("/_health", health, "The same, under its older name"),
    _state("/statusz", status, "The state of each component"),
    _state("/_status", status, "The same, under its older name"),
    Endpoint("GET", "/metrics", metrics, "Figures for Prometheus", Access.USER, media=_PROMETHEUS),
    _long("GET", "/polylocal/v1/disk", room, "Disk usage of all parts", Access.ADMIN, answer=RoomItem, query=_BUDGET),
    _long("POST", "/polylocal/v1/gc", collect, "Remove what is not needed", Access.ADMIN, bodies.Collection, RoomItem),
    _long("GET", "/polylocal/v1/runs/{kind}/{id:id}/disk", of_run, "Disk usage of a run", Access.USER, answer=Json),
    _long("GET", "/polylocal/v1/disk/{user}/{project}", of_project, "Disk usage of a project", answer=Json),
]
