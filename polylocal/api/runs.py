"""The endpoints that all kinds of runs share, and those of builds and jobs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.responses import Response

from polylocal.api import bodies, results, run_creation, secrets_owner
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty, refuse
from polylocal.api.paging import LIMIT, envelope, window
from polylocal.api.shapes import Json
from polylocal.api.shapes.experiments import counts_of_group
from polylocal.api.shapes.platform import TokenItem
from polylocal.api.shapes.projects import CodeReferenceItem, code_reference_item
from polylocal.api.shapes.runs import (
    BuildDetail,
    BuildItem,
    JobDetail,
    JobItem,
    StatusItem,
    item,
    server_keys,
    status_item,
)
from polylocal.api.shapes.runs import detail as detail_item
from polylocal.errors import InvalidInput, NotAllowed
from polylocal.statuses import Kind, Status
from polylocal.store.queries import SORTABLE
from polylocal.store.rows import Project, Run, User

_LIVE = (Status.SCHEDULED, Status.STARTING, Status.RUNNING)
MAX_STATUSES = 10_000  # reported statuses of a run; its end is recorded in any case
STATUSES_PAGE = 100  # clients ask for one page and take it for the whole history


def index(call: Call) -> Json:
    count, runs = page(call)
    return listed(call, count, runs)


def listed(call: Call, count: int, runs: list[Run], default: int = LIMIT) -> Json:
    """A page of runs, each as it is in lists."""
    marked = call.store.bookmarks.of(call.user, runs)
    return envelope(call.request, count, [item(run, run.pk in marked) for run in runs], default)


def page(call: Call, *, group: Run | None = None, more: str = "", default: int = LIMIT) -> tuple[int, list[Run]]:
    """Count and page of the runs that the query string selects; `more`: a further condition in its syntax."""
    limit, offset = window(call.request, default)
    query = ",".join(part for part in (call.query("query"), more) if part)
    return call.store.runs.page(
        call.project, _kind(call), query=query, sort=call.query("sort"), limit=limit, offset=offset, group=group
    )


def create(call: Call) -> Json:
    new = run_creation.check(call.project, call.user, _kind(call), call.body(bodies.NewRunBody), call.context)
    run = call.store.runs.insert(call.project, call.user, new)
    call.note("created", run)
    answer = _answer(call, run)
    return {key: answer[key] for key in _CREATED.get(run.kind, ())} | answer


def show(call: Call) -> Json:
    call.note_view(call.run)
    return _answer(call, call.run)


def update(call: Call) -> Json:
    body = call.body(bodies.ChangedRun)
    changed = call.store.runs.change(call.run, partial(_changes, body))
    call.note("updated", changed)
    return _answer(call, changed)


def _changes(body: bodies.ChangedRun, run: Run) -> Json:
    """The columns that a body changes. The result of a merge has the bounds of a body. Raises InvalidInput."""
    given = body.given()
    if "params" in given:
        given.pop("declarations", None)  # the older word for the same
    if body.merge:
        merged = {name: _merged(getattr(run, _COLUMNS.get(name, name), None), new) for name, new in given.items()}
        given = bodies.read(bodies.ChangedRun, merged).given()
    return {_COLUMNS.get(name, name): value for name, value in given.items() if name != "merge"}


def delete(call: Call) -> Response:
    call.store.runs.delete(call.run)
    call.note("deleted", call.run)
    return empty(204)


def stop(call: Call) -> Response:
    call.store.runs.request_stop(call.run)
    call.note("stopped", call.run)
    return empty()


def archive(call: Call) -> Response:
    call.store.runs.archive(call.run)
    call.note("archived", call.run)
    return empty()


def restore(call: Call) -> Response:
    call.store.runs.restore(call.run)
    call.note("restored", call.run)
    return empty()


def reconcile(call: Call) -> Response:
    """A client reports the status of a run that it executes itself. For a managed run the call has no effect."""
    body = call.body(bodies.NewStatus)
    if not call.run.is_managed:
        _check_history(call.run)
        call.store.runs.transition(call.run, body.status, "Status was reconciled.")
    return empty()


def token(call: Call) -> TokenItem:
    """The run's own token, for the run itself while it is live."""
    if call.run.status not in _LIVE or call.run_pk != call.run.pk:
        raise NotAllowed
    return own_token(call)


def own_token(call: Call) -> TokenItem:
    """The token of the request."""
    _, _, given = call.request.headers.get("authorization", "").partition(" ")
    return {"token": given.strip()}


def restart(call: Call) -> Json:
    return _cloned(call, "restart", "restarted")


def resume(call: Call) -> Json:
    return _cloned(call, "resume", "resumed")


def copy(call: Call) -> Json:
    return _cloned(call, "copy", "copied")


def _cloned(call: Call, strategy: str, action: str) -> Json:
    new = run_creation.check_clone(call.project, call.user, call.run, strategy, call.body(bodies.Cloning), call.context)
    made = call.store.runs.insert(call.project, call.user, new)
    call.note(action, made)
    return _answer(call, made)


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
    """Without effect: the daemon watches the containers themselves."""
    return empty()


def statuses(call: Call) -> Json:
    limit, offset = window(call.request, STATUSES_PAGE)
    count, rows = call.store.runs.statuses(call.run, limit=limit, offset=offset)
    return envelope(call.request, count, [status_item(row, call.run) for row in rows], STATUSES_PAGE)


def add_status(call: Call) -> Json:
    """A client reports a status. The transition table decides whether the run takes it."""
    body = call.body(bodies.NewStatus)
    run, status = call.run, body.status
    _check_history(run)
    moved = call.store.runs.transition(run, status, body.message, details=body.details, traceback=body.traceback)
    if not moved:
        raise refuse(f"The {run.kind} is {call.store.runs.by_pk(run.pk).status} and can't become {status}.")
    return status_item(call.store.runs.newest_status(run), run)


def _check_history(run: Run) -> None:
    if run.status_entries >= MAX_STATUSES:
        raise refuse(f"The history of the {run.kind} has {run.status_entries} reported statuses, and takes no more.")


def status(call: Call) -> Json:
    return status_item(call.store.runs.status_entry(call.run, call.parameter("uuid")), call.run)


def code_reference(call: Call) -> CodeReferenceItem:
    run = call.run
    reference = call.store.projects.code_reference(run.code_id) if run.code_id else None
    return code_reference_item(reference, call.project)


def add_code_reference(call: Call) -> CodeReferenceItem:
    _check_code_owner(call.run, call.user, is_own_report=call.run_pk == call.run.pk)
    given = {name: value for name, value in call.body(bodies.NewCodeReference).given().items() if value is not None}
    run = call.run
    if not given and run.code_id:  # clients outside of a git folder send nothing: the code stays
        return code_reference(call)
    if run.is_managed and run.kind in (Kind.BUILD, Kind.NOTEBOOK) and "commit" in given:
        given["commit"] = _own_commit(call.project, given["commit"], call.context)
    reference = call.store.projects.reference_code(call.project, given)
    call.store.runs.record(call.run, code_id=reference.id)
    return code_reference_item(reference, call.project)


def _check_code_owner(run: Run, user: User, *, is_own_report: bool) -> None:
    """The code of a run gets its secrets, so only the owner of the secrets may change it. Raises NotAllowed."""
    if not run.is_managed or not run.config or is_own_report or user.is_superuser:
        return
    if secrets_owner.names_secrets(run.specification) and run.secrets_user_id != user.id:
        raise NotAllowed(f"{run.label} names secrets of another user: only that user may change its code.")


def _own_commit(project: Project, named: str, context: ApiContext) -> str:
    """A commit of the project's code, which the daemon checks out for this run. Raises InvalidInput."""
    found = context.repository(project).resolve(named)
    if found is None:
        raise InvalidInput({"commit": [f"The code of this project has no commit `{named}`."]})
    return found


def _kind(call: Call) -> Kind:
    kind = call.endpoint.kind
    if kind is None:
        raise RuntimeError(f"{call.endpoint.path} is not about a kind of run")
    return kind


def _answer(call: Call, run: Run) -> Json:
    return detail(run, call.project, call.user, call.context)


def detail(run: Run, project: Project, user: User, context: ApiContext) -> Json:
    """A run by itself, as `user` sees it."""
    bookmarked = run.pk in context.store.bookmarks.of(user, [run])
    return detail_item(run, bookmarked, _warnings(run), **_values_of_kind(run, project, context))


def _values_of_kind(run: Run, project: Project, context: ApiContext) -> Json:
    """The values of a detail that are not columns of the run."""
    store = context.store
    if run.kind is Kind.BUILD:
        used_by = store.runs.dependents(run)
        return {f"num_{kind.plural}": used_by.get(kind, 0) for kind in (Kind.JOB, Kind.EXPERIMENT)}
    if run.kind is Kind.GROUP:
        tensorboard = store.runs.server(project, Kind.TENSORBOARD, group=run)
        known = {"best_experiment": results.best(store, run), **counts_of_group(store.groups.counts(run))}
        return {**known, **server_keys(Kind.TENSORBOARD, tensorboard)}
    outputs = context.outputs(run)
    known = {"outputs_path": str(outputs) if outputs else None}
    if run.kind is Kind.EXPERIMENT:
        tensorboard = store.runs.server(project, Kind.TENSORBOARD, experiment=run)
        known |= {"num_jobs": 1 if run.container_id else 0, **server_keys(Kind.TENSORBOARD, tensorboard)}
    return known


def _warnings(run: Run) -> list[str]:
    if run.warnings is not None or not run.config:
        return run.warnings or []
    return run_creation.without_effect(run.specification)


def _merged(old: object, new: object) -> object:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **new}
    if isinstance(old, list) and isinstance(new, list):
        return list(dict.fromkeys([*old, *new]))
    return new


# the documents' order of keys in the answer to a creation, where it is not that of lists
_CREATED = {
    Kind.EXPERIMENT: ("id", "user", "name", "description", "original_experiment", "config", "declarations", "tags")
}
_COLUMNS = {"node_scheduled": "node", "declarations": "params"}  # key of a body → column, where they differ
FILTERS = (
    Query("query", "conditions, `field:operation[,…]`"),
    Query("sort", f"{', '.join(SORTABLE)}; of experiments metric.NAME, params.NAME, too; `-` before it: descending"),
    Query("limit", "results a page (20)"),
    Query("offset", "results to skip"),
)
_PAGE = FILTERS[2:]


def listing(
    kind: Kind, item: Any, listed: Callable[[Call], Json] | None = None, more: tuple[Query, ...] = ()
) -> Endpoint:
    """The list of a kind. `listed`: its own handler, with the further parameters `more`."""
    path = f"/api/v1/{{user}}/{{project}}/{kind.plural}"
    return Endpoint("GET", path, listed or index, f"List {kind.plural}", answer=item, many=True, query=FILTERS + more)


def creation(kind: Kind, detail: Any) -> Endpoint:
    path = f"/api/v1/{{user}}/{{project}}/{kind.plural}"
    return Endpoint("POST", path, create, f"Create a {kind}", Access.WRITE, bodies.NewRunBody, detail, status=201)


def common(kind: Kind, detail: Any, line: Any = StatusItem) -> list[Endpoint]:
    """The endpoints of every kind. `line`: the shape of an entry of its history."""
    one = f"/api/v1/{{user}}/{{project}}/{kind.plural}/{{id:id}}"
    history = f"{one}/statuses"
    told = f"Report a status of a {kind}"
    return [
        Endpoint("GET", one, show, f"Get a {kind}", answer=detail),
        Endpoint("PATCH", one, update, f"Change a {kind}", Access.TRACK, bodies.ChangedRun, detail),
        Endpoint("PUT", one, update, f"Change a {kind}", Access.WRITE, bodies.ChangedRun, detail),
        Endpoint("DELETE", one, delete, f"Stop and delete a {kind}", Access.WRITE, status=204),
        Endpoint("POST", f"{one}/archive", archive, f"Archive a {kind}", Access.WRITE),
        Endpoint("POST", f"{one}/restore", restore, f"Restore an archived {kind}", Access.WRITE, finds_archived=True),
        Endpoint("GET", history, statuses, f"The history of a {kind}", answer=line, many=True, query=_PAGE),
        Endpoint("POST", history, add_status, told, Access.TRACK, bodies.NewStatus, line, status=201),
        Endpoint("GET", f"{history}/{{uuid}}", status, "An entry of the history", answer=line),
        Endpoint("POST", f"{one}/bookmark", bookmark, f"Bookmark a {kind}", status=201),
        Endpoint("DELETE", f"{one}/unbookmark", unbookmark, f"Remove the bookmark of a {kind}", status=204),
    ]


def carried_out(kind: Kind) -> list[Endpoint]:
    """The further endpoints of the kinds that run in containers: all but groups."""
    one = f"/api/v1/{{user}}/{{project}}/{kind.plural}/{{id:id}}"
    code, told = f"{one}/coderef", f"Report the code of a {kind}"
    body, answer = bodies.NewCodeReference, CodeReferenceItem
    return [
        Endpoint("POST", f"{one}/stop", stop, f"Stop a {kind}", Access.WRITE),
        Endpoint("GET", code, code_reference, f"The code of a {kind}", answer=answer),
        Endpoint("POST", code, add_code_reference, told, Access.TRACK, body, answer, status=201),
        Endpoint("POST", f"{one}/_heartbeat", heartbeat, f"Report that a {kind} is alive", Access.TRACK),
        Endpoint("POST", f"{one}/_reconcile", reconcile, "Report a status again", Access.TRACK, bodies.NewStatus),
        Endpoint(
            "POST", f"{one}/impersonatetoken", token, "A token for the run itself", Access.TRACK, answer=TokenItem
        ),
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
    listing(Kind.BUILD, BuildItem),
    creation(Kind.BUILD, BuildDetail),
    *common(Kind.BUILD, BuildDetail),
    *carried_out(Kind.BUILD),
    Endpoint(
        "POST",
        "/api/v1/{user}/{project}/builds/{id:id}/invalidate",
        invalidate,
        "Stop using a build for new runs",
        Access.WRITE,
    ),
    listing(Kind.JOB, JobItem),
    creation(Kind.JOB, JobDetail),
    *common(Kind.JOB, JobDetail),
    *carried_out(Kind.JOB),
    *cloning(Kind.JOB, JobDetail),
]
