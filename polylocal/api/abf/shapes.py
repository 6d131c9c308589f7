"""Rows → the JSON of the ABF API. Pure. Empty values are null, never left out; times are whole unix seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polylocal import clock
from polylocal.packages.refusals import Refusal
from polylocal.store.rows import Arch, BuildList, PackageRow, Platform, Project, Repository, ResultRow, StoredFile, User

Json = dict[str, Any]
PRIORITY = 50  # of everybody's builds: there is one queue


def seconds(stamp: str) -> int:
    return int(clock.parse(stamp).timestamp())


def visibility(is_open: bool) -> str:
    return "open" if is_open else "hidden"


def member(user: User) -> Json:
    about = {"id": user.id, "name": user.username, "uname": user.username, "type": "User"}
    return {**about, "url": f"/api/v1/users/{user.id}.json"}


def maintainer(user: User) -> Json:
    about = {"id": user.id, "uname": user.username, "name": user.username, "email": user.email}
    return {**about, "url": f"/api/v1/users/{user.id}.json"}


def person(user: User, projects: int, base: str) -> Json:
    made = seconds(user.created_at)
    return {
        "id": user.id,
        "name": user.username,
        "email": user.email,
        "uname": user.username,
        "language": "en",
        "own_projects_count": projects,
        "professional_experience": None,
        "site": None,
        "company": None,
        "location": None,
        "build_priority": PRIORITY,
        "created_at": made,
        "updated_at": made,
        "avatar_url": "",
        "url": f"/api/v1/users/{user.id}.json",
        "html_url": f"{base}/{user.username}",
    }


def arch(found: Arch) -> Json:
    return {"id": found.id, "name": found.name}


def project_block(project: Project, owner: User, base: str) -> Json:
    return {
        "id": project.id,
        "name": project.name,
        "fullname": f"{project.user}/{project.name}",
        "visibility": visibility(project.is_public),
        "url": f"/api/v1/projects/{project.id}.json",
        "git_url": f"{base}/{project.user}/{project.name}.git",
        "ssh_url": "",
        "maintainer": maintainer(owner),
    }


def project_detail(
    project: Project,
    owner: User,
    base: str,
    repositories: Iterable[Repository],
    statistics: Iterable[tuple[int, int, float]],
) -> Json:
    return {
        **project_block(project, owner, base),
        "description": project.description,
        "ancestry": None,
        "has_issues": False,
        "has_wiki": False,
        "default_branch": project.default_branch,
        "is_package": project.is_package,
        "publish_i686_into_x86_64": False,
        "created_at": seconds(project.created_at),
        "updated_at": seconds(project.updated_at),
        "owner": member(owner),
        "project_statistics": [
            {"average_build_time": round(average), "build_count": count, "arch_id": arch_id}
            for arch_id, count, average in statistics
        ],
        "repositories": [{**repository_name(found), "platform": _platform_name(found)} for found in repositories],
    }


def platform_block(platform: Platform) -> Json:
    return {
        "id": platform.id,
        "name": platform.name,
        "visibility": visibility(platform.is_open),
        "platform_type": platform.platform_type,
        "url": f"/api/v1/platforms/{platform.id}.json",
    }


def platform_for_build(platform: Platform, owner: User, repositories: Iterable[Repository]) -> Json:
    return {
        **platform_block(platform),
        "owner": member(owner),
        "repositories": [repository_name(found) for found in repositories],
    }


def platform_detail(platform: Platform, owner: User, repositories: Iterable[Repository]) -> Json:
    return {
        **platform_for_build(platform, owner, repositories),
        "description": platform.description,
        "parent_platform_id": None,
        "released": platform.released,
        "distrib_type": platform.distrib_type,
        "default_branch": platform.default_branch,
        "created_at": seconds(platform.created_at),
        "updated_at": seconds(platform.updated_at),
        "products": [],
        "build_image": platform.build_image,
        "build_command": platform.build_command,
        "build_network": platform.build_network,
        "time_living": platform.time_living,
    }


def repository_name(repository: Repository) -> Json:
    return {"id": repository.id, "name": repository.name, "url": f"/api/v1/repositories/{repository.id}.json"}


def _platform_name(repository: Repository) -> Json:
    url = f"/api/v1/platforms/{repository.platform_id}.json"
    return {"id": repository.platform_id, "name": repository.platform_name, "url": url}


def repository_block(repository: Repository, platform: Platform) -> Json:
    return {**repository_name(repository), "platform": platform_block(platform)}


def repository_detail(repository: Repository) -> Json:
    return {
        **repository_name(repository),
        "description": repository.description,
        "publish_without_qa": repository.publish_without_qa,
        "created_at": seconds(repository.created_at),
        "updated_at": seconds(repository.updated_at),
        "platform": _platform_name(repository),
    }


def stored_file(found: StoredFile, user: User | None) -> Json:
    who = {"id": user.id, "uname": user.username} if user else None
    return {"sha1_hash": found.sha1, "file_name": found.file_name, "user": who}


# -- build lists -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Around:
    """What a build list is shown with."""

    base: str
    project: Project
    owner: User
    user: User
    publisher: User | None
    build_for: Platform
    arch: Arch
    repositories: Mapping[int, Repository]  # all that the build list names and that are there, by their ids
    platforms: Mapping[int, Platform]  # the platforms of these, by their ids
    extra_build_lists: Sequence[Json]
    packages: Sequence[PackageRow]
    results: Sequence[ResultRow]
    container_path: str
    refusal: Refusal | None


def build_list_row(found: BuildList, project_name: str) -> Json:
    return {
        "id": found.id,
        "name": project_name,
        "status": found.status,
        "project_id": found.project_id,
        "url": build_list_url(found.id),
    }


def build_list_url(build_list_id: int) -> str:
    return f"/api/v1/build_lists/{build_list_id}.json"


def build_list(found: BuildList, around: Around) -> Json:
    files = f"{around.base}/api/v1/file_stores"

    def block(repository_id: int) -> Json:
        repository = around.repositories[repository_id]
        return repository_block(repository, around.platforms[repository.platform_id])

    def blocks(repository_ids: Iterable[int]) -> list[Json]:
        return [block(number) for number in repository_ids if number in around.repositories]

    return {
        "id": found.id,
        "name": around.project.name,
        "status": found.status,
        "container_status": found.container_status,
        "container_path": around.container_path,
        "new_core": True,
        "package_version": found.package_version,
        "project": project_block(around.project, around.owner, around.base),
        "build_for_platform": platform_block(around.build_for),
        "use_save_to_repository": found.use_save_to_repository,
        "save_to_repository": block(found.save_to_repository_id),
        "arch": arch(around.arch),
        "created_at": seconds(found.created_at),
        "updated_at": seconds(found.updated_at),
        "is_circle": False,
        "update_type": found.update_type,
        "auto_publish": found.auto_publish_status == "default",
        "auto_publish_status": found.auto_publish_status,
        "auto_create_container": found.auto_create_container,
        "use_cached_chroot": found.use_cached_chroot,
        "use_extra_tests": found.use_extra_tests,
        "save_buildroot": found.save_buildroot,
        "include_testing_subrepository": found.include_testing_subrepository,
        "external_nodes": found.external_nodes,
        "commit_hash": found.commit_hash,
        "last_published_commit_hash": found.last_published_commit_hash,
        "project_version": found.project_version,
        "priority": PRIORITY,
        "duration": _duration(found),
        "build_log_url": f"/build_lists/{found.id}/log",
        "advisory": None,
        "mass_build": None,
        "owner": member(around.owner),
        "user": member(around.user),
        "publisher": member(around.publisher) if around.publisher else None,
        "include_repos": blocks(found.include_repos),
        "extra_repositories": blocks(found.extra_repositories),
        "extra_build_lists": list(around.extra_build_lists),
        "extra_params": found.extra_params,
        "yanked": found.yanked is not None,
        "yanked_reason": found.yanked or None,
        "packages": [_package(package, files) for package in around.packages],
        "not_published": {"reason": around.refusal.reason, "message": around.refusal.message}
        if around.refusal
        else None,
        "logs": [
            {"file_name": result.file_name, "size": result.size, "url": f"{files}/{result.sha1}"}
            for result in around.results
        ],
        "url": build_list_url(found.id),
    }


def _package(package: PackageRow, files: str) -> Json:
    return {
        "id": package.id,
        "name": package.name,
        "type": package.type,
        "epoch": package.epoch,
        "version": package.version,
        "release": package.release,
        "updated_at": seconds(package.updated_at),
        "url": f"{files}/{package.sha1}",
        "dependent_projects": [],
    }


def _duration(found: BuildList) -> int | None:
    """Seconds from its start to what it came to."""
    if not found.started_at or not found.finished_at or found.started_at == found.created_at:  # it never began
        return None
    return round(max(0.0, clock.seconds_between(found.started_at, found.finished_at)))
