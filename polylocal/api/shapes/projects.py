"""Projects and their code as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import shaped
from polylocal.api.shapes.groups import under_way
from polylocal.git.repository import without_secrets
from polylocal.store.rows import CodeReference, Project, Run


class ProjectItem(TypedDict):
    """A project in a list."""

    id: int
    uuid: str
    user: str
    name: str
    unique_name: str
    description: str | None
    tags: list[str] | None
    created_at: str
    updated_at: str
    is_public: bool
    owner: str
    bookmarked: bool


class ProjectDetail(TypedDict):
    """A project by itself."""

    id: int
    uuid: str
    user: str
    name: str
    unique_name: str
    description: str | None
    tags: list[str] | None
    created_at: str
    updated_at: str
    is_public: bool
    has_code: bool
    has_tensorboard: bool | None
    has_notebook: bool | None
    num_experiment_groups: int
    num_independent_experiments: int
    num_experiments: int
    num_jobs: int
    num_builds: int
    bookmarked: bool
    owner: str
    readme: str | None
    notebook: int | None
    tensorboard: int | None


class CodeReferenceItem(TypedDict):
    id: int | None
    branch: str | None
    commit: str | None
    head: str | None
    is_dirty: bool
    git_url: str | None
    repo: str | None
    external_repo: str | None


class CiItem(TypedDict):
    """What happens when new code comes."""

    config: Json
    created_at: str | None
    updated_at: str | None


class RepoItem(TypedDict):
    project: str
    created_at: str
    updated_at: str
    is_public: bool
    git_url: str | None


def project_item(project: Project, bookmarked: bool) -> ProjectItem:
    return shaped(ProjectItem, project, owner=project.user, bookmarked=bookmarked)


def project_detail(
    project: Project,
    bookmarked: bool,
    counts: Mapping[str, int],
    has_code: bool,
    notebook: Run | None,
    tensorboard: Run | None,
) -> ProjectDetail:
    """`counts` are the visible runs per kind, and `independent` the experiments of no group."""
    return shaped(
        ProjectDetail,
        project,
        owner=project.user,
        bookmarked=bookmarked,
        has_code=has_code,
        has_tensorboard=under_way(tensorboard),
        has_notebook=under_way(notebook),
        num_experiment_groups=counts.get("group", 0),
        num_independent_experiments=counts.get("independent", 0),
        num_experiments=counts.get("experiment", 0),
        num_jobs=counts.get("job", 0),
        num_builds=counts.get("build", 0),
        notebook=notebook.id if notebook else None,
        tensorboard=tensorboard.id if tensorboard else None,
    )


def code_reference_item(reference: CodeReference | None, project: Project) -> CodeReferenceItem:
    """Nulls where a run has no code."""
    return {
        "id": reference.id if reference else None,
        "branch": reference.branch if reference else None,
        "commit": reference.commit if reference else None,
        "head": reference.head if reference else None,
        "is_dirty": reference.is_dirty if reference else False,
        "git_url": reference.git_url if reference else None,
        "repo": project.unique_name if reference else None,
        "external_repo": without_secrets(project.git_url) if reference and project.git_url else None,
    }


def ci_item(project: Project) -> CiItem:
    return {"config": project.ci or {}, "created_at": project.ci_created_at, "updated_at": project.ci_updated_at}
