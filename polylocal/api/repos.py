"""The code of a project: upload, download, and what is known of it."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime

from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.responses import FileResponse, Response

from polylocal import clock
from polylocal.api.endpoint import Access, Call, Endpoint, Query, empty
from polylocal.api.resources import RepoItem
from polylocal.errors import InvalidInput, NotFound


def upload(call: Call) -> Response:
    """The part `repo` of a form, a tar (gzipped or not). An upload that changes nothing makes no new commit."""
    project = call.project  # the right to write is checked before the archive is looked at
    part = call.data.get("repo") if isinstance(call.data, dict) else None
    if not isinstance(part, UploadFile):
        raise InvalidInput({"repo": ["No file was submitted: send the tar.gz as the form part `repo`."]})
    call.services.repository(project).upload(part.file, call.user.username)
    return empty()


def download(call: Call) -> Response:
    """The code as tar.gz, without a folder around it; of the newest commit, or of `?commit=`."""
    project, repository = call.project, call.services.repository(call.project)
    wanted = call.query("commit")
    commit = repository.resolve(wanted or "HEAD")
    if commit is None:
        raise NotFound(f"The project has no commit `{wanted}`." if wanted else "No code was uploaded to this project.")
    handle, path = tempfile.mkstemp(suffix=".tar.gz")
    with os.fdopen(handle, "wb") as file:
        repository.archive(commit, file, gzip=True)
    name = f"{project.name}-{wanted or 'master'}.tar.gz"
    return FileResponse(path, media_type="application/gzip", filename=name, background=BackgroundTask(os.unlink, path))


def show(call: Call) -> RepoItem:
    project, repository = call.project, call.services.repository(call.project)
    if not repository.exists:
        raise NotFound
    changed = datetime.fromtimestamp((repository.path / "refs" / "heads").stat().st_mtime, UTC)
    created = datetime.fromtimestamp((repository.path / "info").stat().st_mtime, UTC)
    return {
        "project": project.name,
        "created_at": clock.stamp(created),
        "updated_at": clock.stamp(changed),
        "is_public": project.is_public,
    }


def delete(call: Call) -> Response:
    repository = call.services.repository(call.project)
    if not repository.exists:
        raise NotFound
    repository.remove()
    return empty(204)


_REPO = "/api/v1/{user}/{project}/repo"
_COMMIT = (Query("commit", "a commit instead of the newest"),)

ENDPOINTS = [
    Endpoint("PUT", f"{_REPO}/upload", upload, "Upload the code of a project", Access.WRITE, is_upload=True),
    Endpoint(
        "GET", f"{_REPO}/download", download, "Download the code of a project", media="application/gzip", query=_COMMIT
    ),
    Endpoint("GET", _REPO, show, "What is known of the code", answer=RepoItem),
    Endpoint("DELETE", _REPO, delete, "Delete the code of a project", Access.WRITE, status=204),
]
