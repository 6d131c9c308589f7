"""Projects and their code as JSON. Pure."""

from collections.abc import Mapping
from typing import cast

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import as_shape
from polylocal.api.shapes.runs import server_keys
from polylocal.git.remotes import without_secrets
from polylocal.statuses import Kind
from polylocal.store.rows import CodeReference, Project, Run


class ProjectShape(TypedDict):
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


class ProjectItem(ProjectShape):
    """A project in a list."""

    owner: str
    bookmarked: bool


class ProjectDetail(ProjectShape):
    """A project by itself."""

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
    """The continuous integration of a project."""

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
    return as_shape(ProjectItem, project, owner=project.user, bookmarked=bookmarked)


def project_detail(
    project: Project,
    bookmarked: bool,
    counts: Mapping[str, int],
    has_code: bool,
    notebook: Run | None,
    tensorboard: Run | None,
) -> ProjectDetail:
    """`counts`: the visible runs by kind, and as `independent` the experiments of no group."""
    return as_shape(
        ProjectDetail,
        project,
        owner=project.user,
        bookmarked=bookmarked,
        has_code=has_code,
        num_experiment_groups=counts.get("group", 0),
        **{f"num_{name}s": counts.get(name, 0) for name in ("experiment", "job", "build")},
        num_independent_experiments=counts.get("independent", 0),
        **server_keys(Kind.NOTEBOOK, notebook),
        **server_keys(Kind.TENSORBOARD, tensorboard),
    )


def code_reference_item(reference: CodeReference | None, project: Project) -> CodeReferenceItem:
    """All values of a run without code are null."""
    if reference is None:
        return cast(CodeReferenceItem, {**dict.fromkeys(CodeReferenceItem.__annotations__), "is_dirty": False})
    external = without_secrets(project.git_url) if project.git_url else None
    return as_shape(CodeReferenceItem, reference, repo=project.unique_name, external_repo=external)


def ci_item(project: Project) -> CiItem:
    return {"config": project.ci or {}, "created_at": project.ci_created_at, "updated_at": project.ci_updated_at}
