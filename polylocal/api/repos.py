"""The code of a project: upload, download, and what is known of it."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime

from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from polylocal import clock
from polylocal.api import bodies, ci
from polylocal.api.body_parsing import parsed
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty, refuse
from polylocal.api.file_responses import opened_file
from polylocal.api.kernel import Threads
from polylocal.api.shapes import Json
from polylocal.api.shapes.projects import RepoItem
from polylocal.errors import InvalidInput, NotAllowed, NotFound
from polylocal.git.repository import without_secrets
from polylocal.statuses import Kind, is_done


def upload(call: Call) -> Response:
    """The part `repo` of a form, a tar (gzipped or not). An upload that changes nothing makes no new commit."""
    project = call.project  # the right to write is checked before the archive is looked at
    part = call.data.get("repo") if isinstance(call.data, dict) else None
    if not isinstance(part, UploadFile):
        raise InvalidInput({"repo": ["No file was submitted: send the tar.gz as the form part `repo`."]})
    _check_upload(call)
    call.context.repository(project).upload(part.file, call.user.username, call.context.code_limits)
    call.note("updated", project)
    return ci.answer(call) if _wants_ci(call.data) else empty()


def limits(call: Call) -> Json:
    """What an upload may come to. Refuses what an upload would be refused for, so that a client can ask first."""
    _check_upload(call)
    settings = call.context.settings
    return {name: getattr(settings, name) for name in ("max_upload_mib", "max_unpacked_mib", "max_upload_files")}


def _check_upload(call: Call) -> None:
    if call.project.git_url:
        raise NotAllowed(_EXTERNAL.format(name=call.project.name))
    _check_notebook(call)
    call.context.check_room()


def external(call: Call) -> Response:
    """The code of the project is what a git URL has; it is fetched at once."""
    project, body = call.project, call.body(bodies.ExternalRepo)
    if project.git_url and project.git_url != body.git_url:
        raise refuse(f"Project was already initialized with a different git url: {without_secrets(project.git_url)}")
    if project.git_url is None and call.context.repository(project).exists:
        raise NotAllowed(f"The Project `{project.name}` has uploaded code. Delete it first: DELETE …/repo/.")
    _check_notebook(call)
    warnings = _fetch(call, body.git_url, by_admin=call.user.is_superuser)
    status = 200 if project.git_url else 201
    return JSONResponse({"warnings": warnings}, status_code=status) if warnings else empty(status)


def sync(call: Call) -> Response:
    """Fetch what is new, and set the project's CI going."""
    if not call.project.git_url:
        raise NotFound
    _check_notebook(call)
    warnings = _fetch(call, call.project.git_url, by_admin=call.project.git_by_admin)
    answer = ci.answer(call)
    if not warnings:
        return answer
    detail = {} if answer.status_code == 201 else {"detail": ci.NOT_TRIGGERED}
    return JSONResponse({**detail, "warnings": warnings}, status_code=answer.status_code)


def _fetch(call: Call, git_url: str, *, by_admin: bool) -> list[str]:
    """What of the code could not be fetched, a sentence each.

    `by_admin`: an admin gave the URL. An admin who fetches what somebody else named does not open it for them.
    """
    # a path or a file:// of this machine, and what the daemon's owner has keys for, is an admin's to give
    mine = call.user.is_superuser and by_admin
    protocols = "http:https:ssh:git:file" if mine else "http:https:ssh:git"
    call.context.check_room()
    warnings: list[str] = []
    hosts = call.context.settings.local_git_hosts
    call.context.repository(call.project).fetch(
        git_url, protocols, with_keys=mine, local_hosts=hosts, warn=warnings.append
    )
    call.store.projects.set_repository(call.project, git_url, by_admin=by_admin)
    return warnings


def _check_notebook(call: Call) -> None:
    """A notebook works on the code, and makes it the newest at its end."""
    running = call.store.runs.server(call.project, Kind.NOTEBOOK)
    if running and not is_done(running.status):
        raise NotAllowed(_NOTEBOOK.format(name=call.project.name))


def _wants_ci(data: object) -> bool:
    text = data.get("json") if isinstance(data, dict) else None
    try:
        options = parsed(str(text or "{}"))
    except ValueError:
        return False
    return isinstance(options, dict) and options.get("sync") is True


def download(call: Call) -> Response:
    """The code as tar.gz, without a folder around it; of the newest commit, or of `?commit=`."""
    project, repository = call.project, call.context.repository(call.project)
    wanted = call.query("commit")
    commit = repository.resolve(wanted or "HEAD")
    if commit is None:
        raise NotFound(f"The project has no commit `{wanted}`." if wanted else "No code was uploaded to this project.")
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed when it was sent; without a name, so nothing is ever left
    try:
        repository.archive(commit, file, gzip=True)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return opened_file(file, f"{project.name}-{wanted or 'master'}.tar.gz", "application/gzip")


def show(call: Call) -> RepoItem:
    project, repository = call.project, call.context.repository(call.project)
    if not repository.exists:
        raise NotFound
    changed = datetime.fromtimestamp((repository.path / "refs" / "heads").stat().st_mtime, UTC)
    created = datetime.fromtimestamp((repository.path / "info").stat().st_mtime, UTC)
    return {
        "project": project.name,
        "created_at": clock.stamp(created),
        "updated_at": clock.stamp(changed),
        "is_public": project.is_public,
        "git_url": without_secrets(project.git_url) if project.git_url else None,
    }


def update(call: Call) -> RepoItem:
    """The code is as public as its project: this changes both."""
    is_public = call.body(bodies.ChangedRepo).is_public
    if not call.context.repository(call.project).exists:
        raise NotFound
    if is_public is not None:
        call.store.projects.update(call.project, {"is_public": is_public})
    return show(call) if is_public is None else {**show(call), "is_public": is_public}


def delete(call: Call) -> Response:
    repository = call.context.repository(call.project)
    if not repository.exists:
        raise NotFound
    _check_notebook(call)
    repository.remove()
    call.store.projects.set_repository(call.project, None)
    return empty(204)


_EXTERNAL = "The Project `{name}` is currently using an external_repo as main code tracker."
_NOTEBOOK = (
    "The Project `{name}` is currently running a Notebook. You must stop it before uploading a new version of the code."
)
_REPO = "/api/v1/{user}/{project}/repo"
_COMMIT = (Query("commit", "a commit instead of the newest: a hash (at least 7 digits), a branch, a tag, or HEAD"),)

ENDPOINTS = [
    Endpoint("PUT", f"{_REPO}/upload", upload, "Upload the code of a project", Access.WRITE, is_upload=True),
    Endpoint(
        "GET",
        "/polylocal/v1/code/{user}/{project}/upload",
        limits,
        "What an upload of code may come to, if the caller may upload now",
        Access.WRITE,
        answer=Json,
    ),
    Endpoint(
        "GET",
        f"{_REPO}/download",
        download,
        "Download the code of a project",
        media="application/gzip",
        query=_COMMIT,
        threads=Threads.LONG,
    ),
    Endpoint(
        "POST",
        f"{_REPO}/external",
        external,
        "Use the code of a git URL",
        Access.WRITE,
        bodies.ExternalRepo,
        threads=Threads.LONG,
    ),
    Endpoint("POST", f"{_REPO}/sync", sync, "Fetch what is new there", Access.WRITE, threads=Threads.LONG),
    Endpoint("GET", _REPO, show, "What is known of the code", answer=RepoItem),
    Endpoint("PATCH", _REPO, update, "Change who sees it", Access.WRITE, bodies.ChangedRepo, RepoItem),
    Endpoint("PUT", _REPO, update, "The same", Access.WRITE, bodies.ChangedRepo, RepoItem),
    Endpoint("DELETE", _REPO, delete, "Delete the code of a project", Access.WRITE, status=204),
]
