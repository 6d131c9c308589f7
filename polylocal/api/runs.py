"""The endpoints that all kinds of runs share, and those of builds and jobs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.responses import Response

from polylocal.api import bodies, bookmarks, run_creation, secrets_owner
from polylocal.api.api_context import ApiContext
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty_response, refusal, run_path, runs_path
from polylocal.api.kinds import TRAITS, with_article
from polylocal.api.paging import LIMIT, envelope, page, window
from polylocal.api.run_objects import detail, items
from polylocal.api.shapes import Json
from polylocal.api.shapes.platform import TokenItem
from polylocal.api.shapes.projects import CodeReferenceItem, code_reference_item
from polylocal.api.shapes.runs import SHAPES, status_item
from polylocal.errors import InvalidInput, NotAllowed
from polylocal.statuses import Kind, Status
from polylocal.store.queries import SORTABLE
from polylocal.store.rows import Project, Run, User
from polylocal.store.runs import Runs

_LIVE = (Status.SCHEDULED, Status.STARTING, Status.RUNNING)
MAX_STATUSES = 10_000  # reported statuses of a run; its end is recorded in any case
STATUSES_PAGE = 100  # clients ask for one page and take it for the whole history


def index(call: Call) -> Json:
    count, found = call.store.runs.page(call.project, call.kind, **selection(call))
    return envelope(call.request, count, items(found, call.user, call.store))


def selection(call: Call, condition: str = "", default: int = LIMIT) -> Json:
    """The part of a list that the query string selects, as arguments of `store.runs.page`.

    `condition`: a further one, in the syntax of `query`.
    """
    limit, offset = window(call.request, default)
    query = ",".join(part for part in (call.query("query"), condition) if part)
    return {"query": query, "sort": call.query("sort"), "limit": limit, "offset": offset}


def create(call: Call) -> Json:
    new = run_creation.check(call.project, call.user, call.kind, call.body(bodies.NewRunBody), call.context)
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
        merged = {name: _merge(getattr(run, _COLUMNS.get(name, name), None), new) for name, new in given.items()}
        given = bodies.read(bodies.ChangedRun, merged).given()
    return {_COLUMNS.get(name, name): value for name, value in given.items() if name != "merge"}


def _action(act: Callable[[Runs, Run], object], past: str, status: int = 200) -> Callable[[Call], Response]:
    """The handler of an action on one run. `past`: its word in the activity log."""

    def handle(call: Call) -> Response:
        act(call.store.runs, call.run)
        call.note(past, call.run)
        return empty_response(status)

    return handle


delete = _action(Runs.delete, "deleted", 204)
stop = _action(Runs.request_stop, "stopped")
archive = _action(Runs.archive, "archived")
restore = _action(Runs.restore, "restored")


def reconcile(call: Call) -> Response:
    """A client reports the status of a run that it executes itself. For a managed run the call has no effect."""
    body = call.body(bodies.NewStatus)
    if not call.run.is_managed:
        _check_history(call.run)
        call.store.runs.transition(call.run, body.status, "Status was reconciled.")
    return empty_response()


def token(call: Call) -> TokenItem:
    """The run's own token, for the run itself while it is live."""
    if call.run.status not in _LIVE or call.run_pk != call.run.pk:
        raise NotAllowed
    return own_token(call)


def own_token(call: Call) -> TokenItem:
    """The token of the request."""
    _, _, given = call.request.headers.get("authorization", "").partition(" ")
    return {"token": given.strip()}


def clone(strategy: str, past: str, call: Call) -> Json:
    """`past`: the word of the action in the activity log."""
    new = run_creation.check_clone(call.project, call.user, call.run, strategy, call.body(bodies.Cloning), call.context)
    made = call.store.runs.insert(call.project, call.user, new)
    call.note(past, made)
    return _answer(call, made)


def invalidate(call: Call) -> Response:
    call.store.runs.record(call.run, is_valid=False)
    return empty_response()


def heartbeat(call: Call) -> Response:
    """Without effect: the daemon watches the containers themselves."""
    return empty_response()


def statuses(call: Call, shape: Callable[..., Any] = status_item) -> Json:
    find = partial(call.store.runs.statuses, call.run)
    return page(call.request, find, lambda row: shape(row, call.run), STATUSES_PAGE)


def add_status(call: Call) -> Json:
    """A client reports a status. The transition table decides whether the run takes it."""
    body = call.body(bodies.NewStatus)
    run, status = call.run, body.status
    _check_history(run)
    moved = call.store.runs.transition(run, status, body.message, details=body.details, traceback=body.traceback)
    if not moved:
        raise refusal(f"The {run.kind} is {call.store.runs.by_pk(run.pk).status} and can't become {status}.")
    return status_item(call.store.runs.newest_status(run), run)


def _check_history(run: Run) -> None:
    if run.status_entries >= MAX_STATUSES:
        raise refusal(f"The history of the {run.kind} has {run.status_entries} reported statuses, and takes no more.")


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
    if run.is_managed and TRAITS[run.kind].has_checkout and "commit" in given:
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


def _answer(call: Call, run: Run) -> Json:
    return detail(run, call.project, call.user, call.context)


def _merge(old: object, new: object) -> object:
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


def listing(kind: Kind, handler: Callable[[Call], Json] = index, more: tuple[Query, ...] = ()) -> Endpoint:
    """The list of a kind. `more`: the parameters of its own `handler`."""
    item, query = SHAPES[kind].item, FILTERS + more
    return Endpoint("GET", runs_path(kind), handler, f"List {kind.plural}", answer=item, many=True, query=query)


def creation(kind: Kind) -> Endpoint:
    about, body, answer = f"Create {with_article(kind)}", bodies.NewRunBody, SHAPES[kind].detail
    return Endpoint("POST", runs_path(kind), create, about, Access.WRITE, body, answer, status=201)


def common(kind: Kind) -> list[Endpoint]:
    """The endpoints of every kind."""
    one, detail, entry = run_path(kind), SHAPES[kind].detail, SHAPES[kind].status
    history, a_run = f"{one}/statuses", with_article(kind)
    about = f"Report a status of {a_run}"
    return [
        Endpoint("GET", one, show, f"Get {a_run}", answer=detail),
        Endpoint("PATCH", one, update, f"Change {a_run}", Access.TRACK, bodies.ChangedRun, detail),
        Endpoint("PUT", one, update, f"Change {a_run}", Access.WRITE, bodies.ChangedRun, detail),
        Endpoint("DELETE", one, delete, f"Stop and delete {a_run}", Access.WRITE, status=204),
        Endpoint("POST", f"{one}/archive", archive, f"Archive {a_run}", Access.WRITE),
        Endpoint("POST", f"{one}/restore", restore, f"Restore an archived {kind}", Access.WRITE, finds_archived=True),
        Endpoint("GET", history, statuses, f"The history of {a_run}", answer=entry, many=True, query=_PAGE),
        Endpoint("POST", history, add_status, about, Access.TRACK, bodies.NewStatus, entry, status=201),
        Endpoint("GET", f"{history}/{{uuid}}", status, "An entry of the history", answer=entry),
        *bookmarks.of_path(one, a_run),
    ]


def carried_out(kind: Kind) -> list[Endpoint]:
    """The further endpoints of the kinds that run in containers: all but groups."""
    one, a_run = run_path(kind), with_article(kind)
    code, about, own_token = f"{one}/coderef", f"Report the code of {a_run}", "A token for the run itself"
    body, answer = bodies.NewCodeReference, CodeReferenceItem
    return [
        Endpoint("POST", f"{one}/stop", stop, f"Stop {a_run}", Access.WRITE),
        Endpoint("GET", code, code_reference, f"The code of {a_run}", answer=answer),
        Endpoint("POST", code, add_code_reference, about, Access.TRACK, body, answer, status=201),
        Endpoint("POST", f"{one}/_heartbeat", heartbeat, f"Report that {a_run} is alive", Access.TRACK),
        Endpoint("POST", f"{one}/_reconcile", reconcile, "Report a status again", Access.TRACK, bodies.NewStatus),
        Endpoint("POST", f"{one}/impersonatetoken", token, own_token, Access.TRACK, answer=TokenItem),
    ]


def cloning(kind: Kind) -> list[Endpoint]:
    one, a_run, body, answer = run_path(kind), with_article(kind), bodies.Cloning, SHAPES[kind].detail
    return [
        Endpoint("POST", f"{one}/{word}", partial(clone, word, past), about, Access.WRITE, body, answer, status=201)
        for word, past, about in (
            ("restart", "restarted", f"Run {a_run} again from the start, with its own outputs"),
            ("resume", "resumed", f"Run {a_run} again in the outputs of the original"),
            ("copy", "copied", f"Run {a_run} again with a copy of its outputs"),
        )
    ]


_INVALIDATE = f"{run_path(Kind.BUILD)}/invalidate"

ENDPOINTS = [
    listing(Kind.BUILD),
    creation(Kind.BUILD),
    *common(Kind.BUILD),
    *carried_out(Kind.BUILD),
    Endpoint("POST", _INVALIDATE, invalidate, "Stop using a build for new runs", Access.WRITE),
    listing(Kind.JOB),
    creation(Kind.JOB),
    *common(Kind.JOB),
    *carried_out(Kind.JOB),
    *cloning(Kind.JOB),
]
