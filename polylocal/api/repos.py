"""The code of a project: upload, download, external repositories."""

import tempfile
from datetime import UTC, datetime
from functools import partial

from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from polylocal import clock
from polylocal.api import bodies, ci
from polylocal.api.api_context import ApiContext
from polylocal.api.body_parsing import parse_json
from polylocal.api.endpoint import PROJECT, Access, Call, Endpoint, Query, empty_response, refusal
from polylocal.api.file_responses import attachment
from polylocal.api.kernel import Threads
from polylocal.api.server_programs import running_server
from polylocal.api.shapes import Json
from polylocal.api.shapes.projects import RepoItem
from polylocal.errors import InvalidInput, NotAllowed, NotFound
from polylocal.git.remotes import without_secrets
from polylocal.git.repository import Repository
from polylocal.statuses import Kind
from polylocal.store import Store
from polylocal.store.rows import Project, User


def upload(call: Call) -> Response:
    """The form part `repo` is a tar, gzipped or not. An upload without changes makes no new commit."""
    project = call.project  # checks the right to write before the archive is read
    part = call.data.get("repo") if isinstance(call.data, dict) else None
    if not isinstance(part, UploadFile):
        raise InvalidInput({"repo": ["No file was submitted: send the tar.gz as the form part `repo`."]})
    _check_upload(project, call.context)
    call.context.repository(project).upload(part.file, call.user.username, call.context.code_limits)
    call.note("updated", project)
    return ci.start(call) if _wants_ci(call.data) else empty_response()


def limits(call: Call) -> Json:
    """The limits of an upload. Answers with the error that an upload would get, so that clients can ask first."""
    _check_upload(call.project, call.context)
    settings = call.context.settings
    return {name: getattr(settings, name) for name in ("max_upload_mib", "max_unpacked_mib", "max_upload_files")}


def _check_upload(project: Project, context: ApiContext) -> None:
    if project.git_url:
        raise NotAllowed(_EXTERNAL.format(name=project.name))
    _check_notebook(project, context.store)
    context.check_room()


def external(call: Call) -> Response:
    """Take the code of the project from a git URL, and fetch it at once."""
    project, body = call.project, call.body(bodies.ExternalRepo)
    if project.git_url and project.git_url != body.git_url:
        raise refusal(f"Project was already initialized with a different git url: {without_secrets(project.git_url)}")
    if project.git_url is None and call.context.repository(project).exists:
        raise NotAllowed(f"The Project `{project.name}` has uploaded code. Delete it first: DELETE …/repo/.")
    _check_notebook(project, call.store)
    warnings = _fetch(project, call.user, body.git_url, call.context, by_admin=call.user.is_superuser)
    status = 200 if project.git_url else 201
    return JSONResponse({"warnings": warnings}, status_code=status) if warnings else empty_response(status)


def sync(call: Call) -> Response:
    """Fetch new commits, and start the project's CI."""
    project = call.project
    if not project.git_url:
        raise NotFound
    _check_notebook(project, call.store)
    warnings = _fetch(project, call.user, project.git_url, call.context, by_admin=project.git_by_admin)
    answer = ci.start(call)
    if not warnings:
        return answer
    detail = {} if answer.status_code == 201 else {"detail": ci.NOT_TRIGGERED}
    return JSONResponse({**detail, "warnings": warnings}, status_code=answer.status_code)


def _fetch(project: Project, user: User, git_url: str, context: ApiContext, *, by_admin: bool) -> list[str]:
    """Returns a sentence for each part of the code that could not be fetched. `by_admin`: an admin gave the URL."""
    # only admins may open paths of this machine, and repositories that need the keys of the daemon's owner; an admin
    # who fetches the URL of another user does not open them for that user
    is_trusted = user.is_superuser and by_admin
    protocols = "http:https:ssh:git:file" if is_trusted else "http:https:ssh:git"
    context.check_room()
    warnings: list[str] = []
    hosts = context.settings.local_git_hosts
    context.repository(project).fetch(git_url, protocols, with_keys=is_trusted, local_hosts=hosts, warn=warnings.append)
    context.store.projects.set_repository(project, git_url, by_admin=by_admin)
    return warnings


def _check_notebook(project: Project, store: Store) -> None:
    """A notebook works on the code, and commits its changes at its end. Raises NotAllowed while one runs."""
    if running_server(store, project, Kind.NOTEBOOK):
        raise NotAllowed(_NOTEBOOK.format(name=project.name))


def _wants_ci(data: object) -> bool:
    text = data.get("json") if isinstance(data, dict) else None
    try:
        options = parse_json(str(text or "{}"))
    except ValueError:
        return False
    return isinstance(options, dict) and options.get("sync") is True


def download(call: Call) -> Response:
    """The code of the newest commit, or of `commit`, as tar.gz without an enclosing folder."""
    project, repository = call.project, call.context.repository(call.project)
    wanted = call.query("commit")
    commit = repository.resolve(wanted or "HEAD")
    if commit is None:
        raise NotFound(f"The project has no commit `{wanted}`." if wanted else "No code was uploaded to this project.")
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed after the answer was sent; it has no name, so a crash leaves nothing
    try:
        repository.archive(commit, file, gzip=True)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return attachment(file, f"{project.name}-{wanted or 'master'}.tar.gz", _GZIP)


def show(call: Call) -> RepoItem:
    return describe(call.project, call.context.repository(call.project))


def describe(project: Project, repository: Repository) -> RepoItem:
    """Raises NotFound: the project has no code, or it is deleted at this moment."""
    if not repository.exists:
        raise NotFound
    try:
        changed, created = ((repository.path / name).stat().st_mtime for name in ("refs/heads", "info"))
    except FileNotFoundError as error:
        raise NotFound from error
    return {
        "project": project.name,
        "created_at": clock.stamp(datetime.fromtimestamp(created, UTC)),
        "updated_at": clock.stamp(datetime.fromtimestamp(changed, UTC)),
        "is_public": project.is_public,
        "git_url": without_secrets(project.git_url) if project.git_url else None,
    }


def update(call: Call) -> RepoItem:
    """The code is as public as its project, so this changes both."""
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
    _check_notebook(call.project, call.store)
    repository.remove()
    call.store.projects.set_repository(call.project, None)
    return empty_response(204)


_EXTERNAL = "The Project `{name}` is currently using an external_repo as main code tracker."
_NOTEBOOK = (
    "The Project `{name}` is currently running a Notebook. You must stop it before uploading a new version of the code."
)
_GZIP = "application/gzip"
_REPO = f"{PROJECT}/repo"
_LIMITS = "/polylocal/v1/code/{user}/{project}/upload"
_LIMITS_ABOUT = "The limits of an upload of code, if the caller may upload now"
_COMMIT = (Query("commit", "a commit instead of the newest: a hash (at least 7 digits), a branch, a tag, or HEAD"),)
_write, _long = partial(Endpoint, access=Access.WRITE), partial(Endpoint, threads=Threads.LONG)
_write_long = partial(_long, access=Access.WRITE)

ENDPOINTS = [
    _write("PUT", f"{_REPO}/upload", upload, "Upload the code of a project", is_upload=True),
    _write("GET", _LIMITS, limits, _LIMITS_ABOUT, answer=Json),
    _long("GET", f"{_REPO}/download", download, "Download the code of a project", media=_GZIP, query=_COMMIT),
    _write_long("POST", f"{_REPO}/external", external, "Use the code of a git URL", body=bodies.ExternalRepo),
    _write_long("POST", f"{_REPO}/sync", sync, "Fetch new commits from the git URL"),
    Endpoint("GET", _REPO, show, "About the code of a project", answer=RepoItem),
    _write("PATCH", _REPO, update, "Make the code public or private", body=bodies.ChangedRepo, answer=RepoItem),
    _write("PUT", _REPO, update, "The same", body=bodies.ChangedRepo, answer=RepoItem),
    _write("DELETE", _REPO, delete, "Delete the code of a project", status=204),
]
