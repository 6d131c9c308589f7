"""Yanking of published Python packages (PEP 592), and its undoing.

The "Build lists" document has no such calls, so their paths begin with `/polylocal/v1`. Credentials and answers are as
for the calls of the document.
"""

from starlette.responses import Response

from polylocal.api.abf.calls import AbfCall, Endpoint, failure, success
from polylocal.api.abf.values import Json
from polylocal.store import Store
from polylocal.store.rows import BuildList, Repository
from polylocal.text import visible

_SUBJECT = "build_list"
_PATH = "/polylocal/v1/build_lists/{id:id}/yank"
_RIGHT = "writers of the project, admins of the platform; with QA, admins of the platform only"
MAX_REASON = 200  # characters


def yank(call: AbfCall) -> Json | Response:
    """The body may have a `reason`. It replaces an earlier one."""
    found, repository = _find_publishable(call)
    reason = call.value("reason")
    if problem := _reason_problem(reason) or _kind_problem(found, call.store):
        return failure(_SUBJECT, problem)
    if not call.store.build_lists.yank(found, str(reason or "").strip()):
        return failure(_SUBJECT, _absence_problem(found))
    return success(_SUBJECT, found.id, f"Build is yanked{_delay_note(repository)}")


def undo(call: AbfCall) -> Json | Response:
    found, repository = _find_publishable(call)
    if not call.store.build_lists.undo_yank(found):
        return failure(_SUBJECT, f"Build list {found.id} is not yanked")
    return success(_SUBJECT, found.id, f"Build is not yanked any more{_delay_note(repository)}")


def _find_publishable(call: AbfCall) -> tuple[BuildList, Repository]:
    """The build list, and its repository. Raises NotFound; NotAllowed: the caller may not publish there."""
    found = call.store.build_lists.get(call.id())
    project = call.project(found.project_id)
    repository = call.store.platforms.repository(found.save_to_repository_id)
    is_manager = call.may_manage(call.store.platforms.get(repository.platform_id))
    call.require(is_manager or (repository.publish_without_qa and call.may_write(project)))
    return found, repository


def _reason_problem(reason: object) -> str | None:
    if reason is None:
        return None
    if not isinstance(reason, str):
        return "`reason` must be a text"
    text = reason.strip()
    if len(text) > MAX_REASON:
        return f"`reason` has {len(text)} characters; the most are {MAX_REASON}"
    if visible.one_line(text) != text:  # pages contain it, and pip prints it on terminals
        return "`reason` must be one line without control characters and invisible ones"
    return None


def _kind_problem(found: BuildList, store: Store) -> str | None:
    built_for = store.platforms.get(found.build_for_platform_id)
    if built_for.distrib_type == "pypi":
        return None
    kind = built_for.distrib_type or "other"
    return f"Only Python packages can be yanked, and these are {kind} packages: publish a newer version instead"


def _absence_problem(found: BuildList) -> str:
    if found.published_at is None:
        return f"Build list {found.id} is not published"
    return f"The packages of build list {found.id} are not in the repository any more"


def _delay_note(repository: Repository) -> str:
    return "; the index changes when the repository is unlocked" if repository.is_locked else ""


ENDPOINTS = [
    Endpoint("PUT", _PATH, yank, "Yank published Python packages; `reason`", _RIGHT),
    Endpoint("DELETE", _PATH, undo, "Undo the yanking", _RIGHT),
]
