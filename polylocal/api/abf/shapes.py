"""Rows as the JSON of the ABF API. Pure. Empty values are null, and never left out; times are whole unix seconds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from polylocal import clock
from polylocal.api.shapes import Json
from polylocal.api.shapes.base import pick
from polylocal.packages.refusals import Refusal
from polylocal.store.rows import Arch, BuildList, PackageRow, Platform, Project, Repository, ResultRow, StoredFile, User

PRIORITY = 50  # of all builds: there is one queue
_BUILD_LIST = (
    "id status container_status package_version use_save_to_repository update_type auto_publish_status"
    " auto_create_container use_cached_chroot use_extra_tests save_buildroot include_testing_subrepository"
    " external_nodes commit_hash last_published_commit_hash project_version extra_params"
)
_PERSON = ("professional_experience", "site", "company", "location")  # keys that are always null


def seconds(stamp: str) -> int:
    return int(clock.parse(stamp).timestamp())


def visibility(is_open: bool) -> str:
    return "open" if is_open else "hidden"


def member(user: User) -> Json:
    about = {"id": user.id, "name": user.username, "uname": user.username, "type": "User"}
    return {**about, "url": f"/api/v1/users/{user.id}.json"}


def person(user: User, projects: int, base: str) -> Json:
    """`projects`: how many the user owns. `base`: the URL of this server, as in all functions here."""
    made = seconds(user.created_at)
    return {
        **_maintainer(user),
        "language": "en",
        "own_projects_count": projects,
        **dict.fromkeys(_PERSON),
        "build_priority": PRIORITY,
        "created_at": made,
        "updated_at": made,
        "avatar_url": "",
        "html_url": f"{base}/{user.username}",
    }


def _maintainer(user: User) -> Json:
    about = {"id": user.id, "uname": user.username, "name": user.username, "email": user.email}
    return {**about, "url": f"/api/v1/users/{user.id}.json"}


def project_block(project: Project, owner: User, base: str) -> Json:
    return {
        **pick(project, "id name"),
        "fullname": f"{project.user}/{project.name}",
        "visibility": visibility(project.is_public),
        "url": f"/api/v1/projects/{project.id}.json",
        "git_url": f"{base}/{project.user}/{project.name}.git",
        "ssh_url": "",
        "maintainer": _maintainer(owner),
    }


def project_detail(
    project: Project,
    owner: User,
    base: str,
    repositories: Iterable[Repository],
    statistics: Iterable[tuple[int, int, float]],
) -> Json:
    """`statistics`: id of the architecture, number of builds, their average time in seconds."""
    return {
        **project_block(project, owner, base),
        **pick(project, "description default_branch is_package"),
        **_times(project),
        "ancestry": None,
        "has_issues": False,
        "has_wiki": False,
        "publish_i686_into_x86_64": False,
        "owner": member(owner),
        "project_statistics": [
            {"average_build_time": round(average), "build_count": count, "arch_id": arch_id}
            for arch_id, count, average in statistics
        ],
        "repositories": [{**repository_name(found), "platform": _platform_name(found)} for found in repositories],
    }


def _times(row: Project | Platform | Repository | BuildList) -> Json:
    return {"created_at": seconds(row.created_at), "updated_at": seconds(row.updated_at)}


def platform_block(platform: Platform) -> Json:
    about = {**pick(platform, "id name platform_type"), "visibility": visibility(platform.is_open)}
    return {**about, "url": f"/api/v1/platforms/{platform.id}.json"}


def platform_for_build(platform: Platform, owner: User, repositories: Iterable[Repository]) -> Json:
    names = [repository_name(found) for found in repositories]
    return {**platform_block(platform), "owner": member(owner), "repositories": names}


def platform_detail(platform: Platform, owner: User, repositories: Iterable[Repository]) -> Json:
    columns = "description released distrib_type default_branch build_image build_command build_network time_living"
    return {
        **platform_for_build(platform, owner, repositories),
        **pick(platform, columns),
        **_times(platform),
        "parent_platform_id": None,
        "products": [],
    }


def repository_name(repository: Repository) -> Json:
    return {**pick(repository, "id name"), "url": f"/api/v1/repositories/{repository.id}.json"}


def _platform_name(repository: Repository) -> Json:
    url = f"/api/v1/platforms/{repository.platform_id}.json"
    return {"id": repository.platform_id, "name": repository.platform_name, "url": url}


def repository_detail(repository: Repository) -> Json:
    about = {
        **repository_name(repository),
        **pick(repository, "description publish_without_qa"),
        **_times(repository),
    }
    return {**about, "platform": _platform_name(repository)}


def stored_file(found: StoredFile, user: User | None) -> Json:
    uploader = {"id": user.id, "uname": user.username} if user else None
    return {"sha1_hash": found.sha1, "file_name": found.file_name, "user": uploader}


@dataclass(frozen=True)
class RelatedRows:
    """Rows that a build list refers to."""

    base: str
    project: Project
    owner: User
    user: User
    publisher: User | None
    build_for: Platform
    arch: Arch
    repositories: Mapping[int, Repository]  # by id: the existing ones of those that the build list names
    platforms: Mapping[int, Platform]  # by id: the platforms of these
    extra_build_lists: Sequence[Json]
    packages: Sequence[PackageRow]
    results: Sequence[ResultRow]
    container_path: str
    refusal: Refusal | None

    def blocks(self, repository_ids: Iterable[int]) -> list[Json]:
        found = [self.repositories[number] for number in repository_ids if number in self.repositories]
        return [{**repository_name(one), "platform": platform_block(self.platforms[one.platform_id])} for one in found]


def build_list_row(found: BuildList, project_name: str) -> Json:
    return {**pick(found, "id status project_id"), "name": project_name, "url": build_list_url(found.id)}


def build_list_url(build_list_id: int) -> str:
    return f"/api/v1/build_lists/{build_list_id}.json"


def build_list(found: BuildList, related: RelatedRows) -> Json:
    files, refusal = f"{related.base}/api/v1/file_stores", related.refusal
    [save_to] = related.blocks([found.save_to_repository_id])
    return {
        **pick(found, _BUILD_LIST),
        **_times(found),
        "name": related.project.name,
        "container_path": related.container_path,
        "new_core": True,
        "project": project_block(related.project, related.owner, related.base),
        "build_for_platform": platform_block(related.build_for),
        "save_to_repository": save_to,
        "arch": pick(related.arch, "id name"),
        "is_circle": False,
        "auto_publish": found.auto_publish_status == "default",
        "priority": PRIORITY,
        "duration": _duration(found),
        "build_log_url": f"/build_lists/{found.id}/log",
        "advisory": None,
        "mass_build": None,
        "owner": member(related.owner),
        "user": member(related.user),
        "publisher": member(related.publisher) if related.publisher else None,
        "include_repos": related.blocks(found.include_repos),
        "extra_repositories": related.blocks(found.extra_repositories),
        "extra_build_lists": list(related.extra_build_lists),
        "yanked": found.yanked is not None,
        "yanked_reason": found.yanked or None,
        "packages": [_package(package, files) for package in related.packages],
        "not_published": pick(refusal, "reason message") if refusal else None,
        "logs": [{**pick(result, "file_name size"), "url": f"{files}/{result.sha1}"} for result in related.results],
        "url": build_list_url(found.id),
    }


def _package(package: PackageRow, files: str) -> Json:
    about = {**pick(package, "id name type epoch version release"), "updated_at": seconds(package.updated_at)}
    return {**about, "url": f"{files}/{package.sha1}", "dependent_projects": []}


def _duration(found: BuildList) -> int | None:
    """Seconds from start to end; None: it has not ended, or it never began."""
    if not found.started_at or not found.finished_at or found.started_at == found.created_at:
        return None
    return round(max(0.0, clock.seconds_between(found.started_at, found.finished_at)))
