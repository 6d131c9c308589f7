"""Computes the folders of repositories and of containers of builds, with their files, from the rows."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from polylocal.errors import PackageError
from polylocal.packages import arches, repositories
from polylocal.packages.debs import Release
from polylocal.packages.repositories import SOURCES, FolderContent
from polylocal.runner.package_container import repository_folder
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.rows import BuildList, PackageRow, Platform, Repository

log = logging.getLogger(__name__)


class RepositoryLayout:
    """Reads rows and the file store. Changes nothing."""

    def __init__(self, context: RunnerContext) -> None:
        self._context = context
        self._lists = context.store.build_lists
        self._platforms = context.store.platforms

    def changed_folders(
        self, repository: Repository, saved_to: Platform, ready: Sequence[BuildList]
    ) -> list[FolderContent]:
        """New contents of each changed folder: current files, minus replaced ones, plus the new builds'."""
        sub = saved_to.subfolder
        last = {_key(build_list): build_list for build_list in ready}  # of several builds of one project, the last one
        published = self._lists.published(repository.id)
        stay = [found for found in published if found.published_into == sub and _key(found) not in last]
        changed = {(build_list.build_for_platform_id, build_list.arch_id) for build_list in ready}
        new = {build_list.run_pk for build_list in last.values()}
        return self._folders(repository, saved_to, sub, [*stay, *last.values()], changed, new)

    def all_folders(self, repository: Repository, saved_to: Platform, sub: str) -> list[FolderContent]:
        """Contents of all existing folders of a repository; those without a build are empty."""
        held = [found for found in self._lists.published(repository.id) if found.published_into == sub]
        contents = self._folders(repository, saved_to, sub, held, {_key(found)[1:] for found in held})
        known = {content.path for content in contents}
        return contents + [
            FolderContent(path, {}, kind, release=_release(saved_to, sub, path.parent.parent.name))
            for path, kind in self._existing_folders(repository, saved_to, sub)
            if path not in known
        ]

    def is_published(self, repository: Repository, saved_to: Platform, found: BuildList) -> bool:
        """Whether the folders with the packages of a published build exist."""
        build_for, sub = self._platforms.get(found.build_for_platform_id), found.published_into or ""
        folders = (
            repository_folder(self._context, saved_to, build_for, repository, arch, sub) for arch in self._arches(found)
        )
        return all(folder.is_symlink() for folder in folders)

    def container_folders(self, build_list: BuildList) -> list[FolderContent]:
        """The folders of the container of a build. Raises PackageError: the file store has lost a package."""
        packages = self._lists.packages([build_list.run_pk])
        if lost := self.lost_files(packages):
            raise PackageError(f"the file store has lost {lost}")
        kind = self._platforms.get(build_list.build_for_platform_id).distrib_type
        repository = self._platforms.repository(build_list.save_to_repository_id)
        saved_to = self._platforms.get(repository.platform_id)
        contents = []
        for arch, path in zip(self._arches(build_list), self._container_paths(build_list), strict=True):
            files = self._files(packages, "source" if arch == SOURCES else "binary", path)
            contents.append(FolderContent(path, files, kind, release=_release(saved_to, "release", arch)))
        return contents

    def has_container(self, build_list: BuildList) -> bool:
        return all(path.is_symlink() for path in self._container_paths(build_list))

    def lost_files(self, packages: Iterable[PackageRow]) -> str:
        """The names of packages that the file store has lost; "": none."""
        lost = [package.file_name for package in packages if self._context.file_store.path(package.sha1) is None]
        return ", ".join(lost)

    def _folders(
        self,
        repository: Repository,
        saved_to: Platform,
        sub: str,
        held: Sequence[BuildList],
        changed: Iterable[tuple[int, int]],
        new: Collection[int] = (),
    ) -> list[FolderContent]:
        """`new`: pks of the builds that are added. Raises PackageError."""
        projects = {build_list.run_pk: build_list.project_id for build_list in held}
        packages: dict[int, list[PackageRow]] = {}
        for package in self._lists.packages(build_list.run_pk for build_list in held):
            packages.setdefault(package.run_pk, []).append(package)
        contents: dict[Path, FolderContent] = {}
        for build_for_id, arch_id in changed:
            build_for = self._platforms.get(build_for_id)
            here = [found for found in held if found.build_for_platform_id == build_for_id]
            source = [(found, package) for found in here for package in packages.get(found.run_pk, ())]
            binary = [package for found, package in source if found.arch_id == arch_id]
            yanked = {package.file_name: found.yanked for found, package in source if found.yanked is not None}
            for arch, kind, among in (
                (self._platforms.arch(arch_id).name, "binary", binary),
                (SOURCES, "source", [package for _, package in source]),
            ):
                path = repository_folder(self._context, saved_to, build_for, repository, arch, sub)
                files = self._files(among, kind, path)
                _check_owners([package for package in among if package.type == kind], projects, new)
                # a broken file fails its own build while that is new; later it must not fail other builds
                settled = files.keys() - {package.file_name for package in among if package.run_pk in new}
                release = _release(saved_to, sub, arch)
                contents[path] = FolderContent(
                    path, files, build_for.distrib_type, yanked=yanked, release=release, already_published=settled
                )
        return list(contents.values())

    def _files(self, packages: Iterable[PackageRow], kind: str, folder: Path) -> dict[str, Path]:
        """The files of a folder. A file that the store has lost is taken from the published folder, or left out."""
        found = {}
        for package in packages:
            if package.type != kind:
                continue
            path = self._context.file_store.path(package.sha1) or folder.resolve() / package.file_name
            if path.is_file():
                found[package.file_name] = path
            else:
                log.warning("the file store has lost %s, it is left out of %s", package.file_name, folder)
        return found

    def _existing_folders(
        self, repository: Repository, saved_to: Platform, sub: str
    ) -> Iterator[tuple[Path, str | None]]:
        """The existing folders of a repository, and the kind of each."""
        root = self._context.home.downloads / saved_to.name / "repository"
        pattern = f"*/{repository.name}/{sub}" if saved_to.is_main else f"*/*/{repository.name}/{sub}"
        for path in root.glob(pattern):
            if path.is_symlink():
                built_for = saved_to if saved_to.is_main else self._platforms.by_name(path.relative_to(root).parts[0])
                yield path, built_for.distrib_type

    def _container_paths(self, build_list: BuildList) -> list[Path]:
        repository, downloads = (
            self._platforms.repository(build_list.save_to_repository_id),
            self._context.home.downloads,
        )
        return [
            repositories.container(downloads, repository.platform_name, build_list.id, arch=arch, name=repository.name)
            for arch in self._arches(build_list)
        ]

    def _arches(self, build_list: BuildList) -> tuple[str, str]:
        """The names of the folders with the binary packages and the source packages of a build."""
        return self._platforms.arch(build_list.arch_id).name, SOURCES


def _release(saved_to: Platform, sub: str, arch: str) -> Release:
    """`arch`: an architecture as ABF names it, or the folder of sources."""
    architectures = () if arch == SOURCES else (arches.debian(arch),)
    return Release(sub, architectures, saved_to.origin, saved_to.name if saved_to.origin else None)


def _check_owners(packages: Iterable[PackageRow], projects: Mapping[int, int], new: Collection[int]) -> None:
    """A later build of the same project may replace a file; a build of another project must not.

    `projects`: by the pk of their builds. Raises PackageError where one of the two is of a build in `new`.
    """
    owners: dict[str, PackageRow] = {}
    for package in packages:
        other = owners.setdefault(package.file_name, package)
        if other.sha1 == package.sha1 or projects[other.run_pk] == projects[package.run_pk]:
            continue
        if other.run_pk in new or package.run_pk in new:
            raise PackageError(f"another project has published another {package.file_name} in this repository")


def _key(build_list: BuildList) -> tuple[int, int, int]:
    """Project, platform to build for, architecture."""
    return build_list.project_id, build_list.build_for_platform_id, build_list.arch_id
