"""Runs of every kind: what holds for builds and jobs alike is written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from polylocal.api import bodies
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty, refuse
from polylocal.api.making import clone, make
from polylocal.api.paging import envelope, window
from polylocal.api.resources import (
    BuildDetail,
    BuildItem,
    CodeReferenceItem,
    ExperimentStatusItem,
    JobDetail,
    JobItem,
    Json,
    StatusItem,
    build_detail,
    build_item,
    code_reference_item,
    experiment_detail,
    experiment_item,
    experiment_status_item,
    job_detail,
    job_item,
    status_item,
)
from polylocal.polyaxonfile import of_config
from polylocal.statuses import Kind, Status
from polylocal.store.rows import Run, StatusRow

STATUSES_PAGE = 100  # a client that asks for one page must see all of a history


def index(call: Call) -> Json:
    count, runs = page(call)
    marked = call.store.bookmarks.of(call.user, runs)
    return envelope(call.request, count, [_ITEMS[_kind(call)](run, run.pk in marked) for run in runs])


def page(call: Call) -> tuple[int, list[Run]]:
    """The runs that the query string asks for."""
    limit, offset = window(call.request)
    return call.store.runs.page(
        call.project, _kind(call), query=call.query("query"), sort=call.query("sort"), limit=limit, offset=offset
    )


def create(call: Call) -> Json:
    return _whole(call, make(call, _kind(call), call.body(bodies.NewRunBody)))


def show(call: Call) -> Json:
    return _detail(call, call.run)


def update(call: Call) -> Json:
    body = call.body(bodies.ChangedRun)
    values = {_COLUMNS.get(name, name): value for name, value in body.given().items()}
    if body.merge:
        values = {name: _merged(getattr(call.run, name, None), value) for name, value in values.items()}
    return _detail(call, call.store.runs.update(call.run, values))


def delete(call: Call) -> Response:
    call.store.runs.delete(call.run)
    return empty(204)


def stop(call: Call) -> Response:
    call.store.runs.request_stop(call.run)
    return empty()


def restart(call: Call) -> Json:
    return _detail(call, clone(call, call.run, "restart", call.body(bodies.Cloning)))


def resume(call: Call) -> Json:
    return _detail(call, clone(call, call.run, "resume", call.body(bodies.Cloning)))


def copy(call: Call) -> Json:
    return _detail(call, clone(call, call.run, "copy", call.body(bodies.Cloning)))


def bookmark(call: Call) -> Response:
    call.store.bookmarks.add(call.user, call.run)
    return empty(201)


def unbookmark(call: Call) -> Response:
    call.store.bookmarks.remove(call.user, call.run)
    return empty(204)


def invalidate(call: Call) -> Response:
    call.store.runs.record(call.run, is_valid=False)
    return empty()


def heartbeat(call: Call) -> Response:
    """Accepted and not needed: the daemon watches the containers themselves."""
    return empty()


def statuses(call: Call) -> Json:
    limit, offset = window(call.request, STATUSES_PAGE)
    count, rows = call.store.runs.statuses(call.run, limit=limit, offset=offset)
    return envelope(call.request, count, [_status(row, call.run) for row in rows], STATUSES_PAGE)


def add_status(call: Call) -> Json:
    """A client reports. What a managed run may become is decided by the transition table."""
    body = call.body(bodies.NewStatus)
    run, status = call.run, Status(body.status)
    moved = call.store.runs.transition(run, status, body.message, details=body.details, traceback=body.traceback)
    if not moved:
        raise refuse(f"The {run.kind} is {call.store.runs.by_pk(run.pk).status} and can't become {status}.")
    _, rows = call.store.runs.statuses(run, limit=1, offset=call.store.runs.statuses(run, limit=0, offset=0)[0] - 1)
    return _status(rows[0], run)


def status(call: Call) -> Json:
    return _status(call.store.runs.status_entry(call.run, call.parameter("uuid")), call.run)


def _status(row: StatusRow, run: Run) -> Json:
    return {**(experiment_status_item if run.kind == Kind.EXPERIMENT else status_item)(row, run)}


def code_reference(call: Call) -> CodeReferenceItem:
    run = call.run
    reference = call.store.projects.code_reference(run.code_id) if run.code_id else None
    return code_reference_item(reference, call.project)


def add_code_reference(call: Call) -> CodeReferenceItem:
    given = {name: value for name, value in call.body(bodies.NewCodeReference).given().items() if value is not None}
    reference = call.store.projects.reference_code(call.project, given)
    call.store.runs.record(call.run, code_id=reference.id)
    return code_reference_item(reference, call.project)


def _kind(call: Call) -> Kind:
    kind = call.endpoint.kind
    if kind is None:
        raise RuntimeError(f"{call.endpoint.path} is not about a kind of run")
    return kind


def _detail(call: Call, run: Run) -> Json:
    bookmarked = run.pk in call.store.bookmarks.of(call.user, [run])
    warnings = _warnings(run)
    if run.kind == Kind.BUILD:
        return {**build_detail(run, bookmarked, call.store.runs.dependents(run), warnings)}
    outputs = call.services.outputs(run)
    detail = experiment_detail if run.kind == Kind.EXPERIMENT else job_detail
    return {**detail(run, bookmarked, str(outputs) if outputs else None, warnings)}


def _whole(call: Call, run: Run) -> Json:
    """What a creation answers: the keys of a list first, as documented, then everything else."""
    return {**_ITEMS[Kind(run.kind)](run, False), **_detail(call, run)}


def item(run: Run, bookmarked: bool) -> Any:
    """A run as it stands in lists."""
    return _ITEMS[Kind(run.kind)](run, bookmarked)


def _warnings(run: Run) -> list[str]:
    if not run.config:
        return []
    ignored = of_config(Kind(run.kind), run.content or "", run.config).ignored
    return [f"`{key}` has no effect on a single node." for key in ignored]


def _merged(old: object, new: object) -> object:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **new}
    if isinstance(old, list) and isinstance(new, list):
        return list(dict.fromkeys([*old, *new]))
    return new


_ITEMS: dict[Kind, Callable[[Run, bool], Any]] = {
    Kind.BUILD: build_item,
    Kind.JOB: job_item,
    Kind.EXPERIMENT: experiment_item,
}
_COLUMNS = {"node_scheduled": "node", "declarations": "params"}  # where a body says it otherwise than the store
FILTERS = (
    Query("query", "conditions, `field:operation[,…]`"),
    Query("sort", "created_at, updated_at, started_at, finished_at; `-` before it: descending"),
    Query("limit", "results a page (20)"),
    Query("offset", "results to skip"),
)
_PAGE = FILTERS[2:]


def common(
    kind: Kind, item: Any, detail: Any, listed: Callable[[Call], Json] | None = None, more: tuple[Query, ...] = ()
) -> list[Endpoint]:
    """The endpoints of every kind of run; `listed`, with `more` parameters, is the list of a kind that has its own."""
    line = ExperimentStatusItem if kind is Kind.EXPERIMENT else StatusItem
    every = f"/api/v1/{{user}}/{{project}}/{kind.plural}"
    one = f"{every}/{{id:id}}"
    return [
        Endpoint("GET", every, listed or index, f"List {kind.plural}", answer=item, many=True, query=FILTERS + more),
        Endpoint("POST", every, create, f"Create a {kind}", Access.WRITE, bodies.NewRunBody, detail, status=201),
        Endpoint("GET", one, show, f"Get a {kind}", answer=detail),
        Endpoint("PATCH", one, update, f"Change a {kind}", Access.TRACK, bodies.ChangedRun, detail),
        Endpoint("PUT", one, update, f"Change a {kind}", Access.WRITE, bodies.ChangedRun, detail),
        Endpoint("DELETE", one, delete, f"Stop and delete a {kind}", Access.WRITE, status=204),
        Endpoint("POST", f"{one}/stop", stop, f"Stop a {kind}", Access.WRITE),
        Endpoint("GET", f"{one}/statuses", statuses, f"The history of a {kind}", answer=line, many=True, query=_PAGE),
        Endpoint(
            "POST",
            f"{one}/statuses",
            add_status,
            f"Report a status of a {kind}",
            Access.TRACK,
            bodies.NewStatus,
            line,
            status=201,
        ),
        Endpoint("GET", f"{one}/statuses/{{uuid}}", status, "One line of the history", answer=line),
        Endpoint("POST", f"{one}/bookmark", bookmark, f"Bookmark a {kind}", status=201),
        Endpoint("DELETE", f"{one}/unbookmark", unbookmark, f"Remove the bookmark of a {kind}", status=204),
        Endpoint("GET", f"{one}/coderef", code_reference, f"The code of a {kind}", answer=CodeReferenceItem),
        Endpoint(
            "POST",
            f"{one}/coderef",
            add_code_reference,
            f"Report the code of a {kind}",
            Access.TRACK,
            bodies.NewCodeReference,
            CodeReferenceItem,
            status=201,
        ),
        Endpoint("POST", f"{one}/_heartbeat", heartbeat, f"A {kind} is alive", Access.TRACK),
    ]


def cloning(kind: Kind, detail: Any) -> list[Endpoint]:
    one = f"/api/v1/{{user}}/{{project}}/{kind.plural}/{{id:id}}"
    abouts = {
        "restart": (restart, "from the start, with outputs of its own"),
        "resume": (resume, "in the outputs of the original"),
        "copy": (copy, "with a copy of its outputs"),
    }
    return [
        Endpoint(
            "POST",
            f"{one}/{word}",
            handler,
            f"Run a {kind} again {how}",
            Access.WRITE,
            bodies.Cloning,
            detail,
            status=201,
        )
        for word, (handler, how) in abouts.items()
    ]


ENDPOINTS = [
    *common(Kind.BUILD, BuildItem, BuildDetail),
    Endpoint(
        "POST",
        "/api/v1/{user}/{project}/builds/{id:id}/invalidate",
        invalidate,
        "Do not use this build again",
        Access.WRITE,
    ),
    *common(Kind.JOB, JobItem, JobDetail),
    *cloning(Kind.JOB, JobDetail),
]
