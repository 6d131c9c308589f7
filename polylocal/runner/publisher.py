"""Publishes packages: into repositories, and into a container of each build."""

import io
import logging
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from polylocal.errors import PackageError, StoreError
from polylocal.files.disk import is_transient
from polylocal.files.folders import remove_tree
from polylocal.packages import arches, extra, reading, repositories
from polylocal.packages.debs import Release
from polylocal.packages.facts import Facts
from polylocal.packages.file_store import GUARD, FileStore
from polylocal.packages.repositories import SOURCES, Shelf
from polylocal.packages.signing import Key as PlatformKey
from polylocal.packages.signing import Keys
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.runner.package_container import folder_of
from polylocal.runner.package_work import forget_files
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.files import FileFacts
from polylocal.store.rows import BuildList, NewFile, PackageRow, Platform, Repository

log = logging.getLogger(__name__)

Key = tuple[int, int, int]  # project, platform to build for, architecture
AGAIN_S = 15.0  # between two attempts after a temporary failure
SUBFOLDERS = ("release", "updates")


class Publisher:
    """Any step can be the last one of this process: an interrupted publication is done again."""

    def __init__(self, context: RunnerContext) -> None:
        self._context = context
        self._lists = context.store.build_lists
        self._platforms = context.store.platforms
        self._has_looked = False
        self._not_before = 0.0
        self._later: dict[int, float] = {}  # repositories that could not be written, and the time of the next attempt
        self._keys = Keys(context.home.signing)
        self._tidy_at = math.inf  # the next time that files of earlier generations may expire

    def is_due(self) -> bool:
        if time.monotonic() < self._not_before:
            return False
        if not self._has_looked:
            self._look_for_lost()
            self._has_looked = True
            self._tidy()
        return time.monotonic() >= self._tidy_at or bool(
            self._lists.to_contain() or self._lists.to_publish() or self._stale()
        )

    def work(self) -> None:
        for build_list in self._lists.to_contain():
            self._contain(build_list)
        waiting = sorted(self._lists.to_publish(), key=lambda found: found.save_to_repository_id)
        for repository_id, found in groupby(waiting, key=lambda found: found.save_to_repository_id):
            self._publish(self._platforms.repository(repository_id), list(found))
        for repository_id in self._stale():
            self._refresh(self._platforms.repository(repository_id))
        if time.monotonic() >= self._tidy_at:
            self._tidy()

    def _tidy(self) -> None:
        """Remove the files of earlier generations that have expired."""
        stay = [self._is_left(path) for path in repositories.with_leftovers(self._context.home.downloads)]
        self._tidy_at = time.monotonic() + repositories.SLOT_S if any(stay) else math.inf

    def _is_left(self, path: Path) -> bool:
        """Remove expired files of one folder. Returns whether younger ones are left."""
        try:
            return repositories.forget_leftovers(path)
        except OSError as error:
            log.warning("what is left of %s can't be removed: %s", path, error)
            return True

    def _write(self, saved_to: Platform, shelves: Sequence[Shelf], stays: Collection[str] | None = None) -> None:
        """`stays`: as of a shelf. Raises PackageError, OSError: then no repository has changed."""
        key = self._key(saved_to)
        facts = KnownFacts(self._context.store.file_facts, self._context.file_store, shelves)
        try:
            repositories.write([replace(shelf, key=key, stays=stays) for shelf in shelves], facts)
        finally:
            facts.keep()
        self._tidy_at = min(self._tidy_at, time.monotonic() + repositories.STAYS_S)

    def _key(self, saved_to: Platform) -> PlatformKey | None:
        """Publishes the key of a platform and returns it. Raises PackageError, OSError.

        None: this daemon can't sign, and no client expects a signature, because the platform never had a key.
        """
        name, downloads = saved_to.name, self._context.home.downloads
        if not (extra.has("pysequoia") or self._keys.has(name) or repositories.has_key(downloads, name)):
            log.warning("the repositories of %s are not signed: %s", name, extra.lack("a signature"))
            return None
        key = self._keys.of(name, saved_to.distrib_type)
        repositories.publish_key(downloads, name, key)
        return key

    def _stale(self) -> list[int]:
        now = time.monotonic()
        return [number for number in self._lists.stale_repositories() if now >= self._later.get(number, 0.0)]

    def _look_for_lost(self) -> None:
        """Write missing folders again from the file store: backups leave them out. Remove files without an owner."""
        forget_files(self._context)
        for repository_id in self._lists.published_repositories():
            repository = self._platforms.repository(repository_id)
            saved_to = self._platforms.get(repository.platform_id)
            published = self._lists.published(repository_id)
            if not all(self._is_published(repository, saved_to, found) for found in published):
                self._lists.set_stale(repository_id)
        for build_list in self._lists.contained():
            if not all(self._container(build_list, below).is_symlink() for below in (None, SOURCES)):
                self._lists.contain_again(build_list)
        lying = {folder.name: folder for folder in self._context.home.downloads.glob("*/container/*")}
        known = {str(found.id) for found in self._lists.by_ids(int(name) for name in lying if name.isdecimal())}
        for name in lying.keys() - known:  # of builds that were deleted while their folders were written
            remove_tree(lying[name])

    def _publish(self, repository: Repository, waiting: Sequence[BuildList]) -> None:
        """Publish all waiting builds together; if that fails, one by one, so that only the broken one fails."""
        if self._platforms.repository(repository.id).is_locked:  # since the queue was read
            return
        ready = [build_list for build_list in waiting if self._is_ready(repository, build_list)]
        if not ready:
            return
        saved_to = self._platforms.get(repository.platform_id)
        try:
            stays = self._lists.not_withdrawn(repository.id)
            self._write(saved_to, self._target_folders(repository, saved_to, ready), stays)
        except StoreError:
            raise
        except Exception as error:  # any error: the builds behind it must not wait
            if self._is_full(error):
                return
            if len(ready) > 1:
                for build_list in ready:
                    self._publish(repository, [build_list])
                return
            self._fail(ready[0], BuildStatus.PUBLISH_FAILED, str(error))
            return
        for build_list in ready:
            version = self._package_version(saved_to, build_list)
            if self._lists.set_published(build_list, saved_to.subfolder, version):
                log.info("build list %s published into %s/%s", build_list.id, saved_to.name, repository.name)
            else:
                self._fail(build_list, BuildStatus.PUBLISH_FAILED, "the project has left the repository meanwhile")

    def _is_ready(self, repository: Repository, build_list: BuildList) -> bool:
        if not self._platforms.has_project(repository, build_list.project_id):
            where = f"{repository.platform_name}/{repository.name}"
            self._fail(build_list, BuildStatus.PUBLISH_FAILED, f"the project is not in the repository {where} any more")
            return False
        packages = self._lists.packages([build_list.run_pk])
        if not packages:
            self._fail(build_list, BuildStatus.PUBLISH_FAILED, "the build has no packages")
            return False
        if gone := self._missing(packages):
            self._fail(build_list, BuildStatus.PACKAGES_FAIL, f"the file store has lost {gone}")
            return False
        return True

    def _missing(self, packages: Iterable[PackageRow]) -> str:
        lost = [package.file_name for package in packages if self._context.file_store.path(package.sha1) is None]
        return ", ".join(lost)

    def _target_folders(self, repository: Repository, saved_to: Platform, ready: Sequence[BuildList]) -> list[Shelf]:
        """New contents of each changed folder: current files, minus replaced ones, plus the new builds'."""
        sub = saved_to.subfolder
        replaced = {_key(build_list) for build_list in ready}
        stays = [
            found
            for found in self._lists.published(repository.id)
            if found.published_into == sub and _key(found) not in replaced
        ]
        last = {_key(build_list): build_list for build_list in ready}  # of several builds of one project, the last one
        changed = {(build_list.build_for_platform_id, build_list.arch_id) for build_list in ready}
        new = {build_list.run_pk for build_list in last.values()}
        return self._layout(repository, saved_to, sub, [*stays, *last.values()], changed, new)

    def _layout(
        self,
        repository: Repository,
        saved_to: Platform,
        sub: str,
        held: Sequence[BuildList],
        changed: Iterable[tuple[int, int]],
        new: Collection[int] = (),
    ) -> list[Shelf]:
        """`new`: pks of the builds that are added. Raises PackageError."""
        projects = {build_list.run_pk: build_list.project_id for build_list in held}
        packages: dict[int, list[PackageRow]] = {}
        for package in self._lists.packages(build_list.run_pk for build_list in held):
            packages.setdefault(package.run_pk, []).append(package)
        shelves: dict[Path, Shelf] = {}
        for build_for_id, arch_id in changed:
            build_for = self._platforms.get(build_for_id)
            here = [found for found in held if found.build_for_platform_id == build_for_id]
            binary = [p for found in here if found.arch_id == arch_id for p in packages.get(found.run_pk, ())]
            source = [p for found in here for p in packages.get(found.run_pk, ())]
            yanked = {
                package.file_name: found.yanked
                for found in here
                if found.yanked is not None
                for package in packages.get(found.run_pk, ())
            }
            for arch, kind, found in (
                (self._platforms.arch(arch_id).name, "binary", binary),
                (SOURCES, "source", source),
            ):
                path = folder_of(self._context, saved_to, build_for, repository, arch, sub)
                files = self._files(found, kind, path)
                _check_owners([package for package in found if package.type == kind], projects, new)
                # a broken file fails its own build while that is new; later it must not fail other builds
                settled = files.keys() - {package.file_name for package in found if package.run_pk in new}
                release = self._release(saved_to, sub, arch)
                shelves[path] = Shelf(
                    path, files, build_for.distrib_type, yanked=yanked, release=release, settled=settled
                )
        return list(shelves.values())

    def _release(self, saved_to: Platform, sub: str, arch: str) -> Release:
        """`arch`: an architecture as ABF names it, or the folder of sources."""
        architectures = () if arch == SOURCES else (arches.debian(arch),)
        codename = saved_to.name if saved_to.origin else None
        return Release(sub, architectures, saved_to.origin, codename)

    def _files(self, packages: Iterable[PackageRow], kind: str, lying: Path) -> dict[str, Path]:
        """The files of a folder. A file that the store has lost is taken from the published folder, or left out."""
        found = {}
        for package in packages:
            if package.type != kind:
                continue
            path = self._context.file_store.path(package.sha1) or lying.resolve() / package.file_name
            if path.is_file():
                found[package.file_name] = path
            else:
                log.warning("the file store has lost %s, it is left out of %s", package.file_name, lying)
        return found

    def _refresh(self, repository: Repository) -> None:
        """Write a repository again after a project was removed from it."""
        saved_to = self._platforms.get(repository.platform_id)
        published = self._lists.published(repository.id)
        for sub in SUBFOLDERS:
            held = [found for found in published if found.published_into == sub]
            try:
                shelves = self._layout(repository, saved_to, sub, held, {_key(found)[1:] for found in held})
                known = {shelf.path for shelf in shelves}
                shelves += [
                    Shelf(path, {}, kind, release=self._release(saved_to, sub, path.parent.parent.name))
                    for path, kind in self._existing_folders(repository, saved_to, sub)
                    if path not in known
                ]
                self._write(saved_to, shelves, self._lists.not_withdrawn(repository.id))
            except StoreError:
                raise
            except Exception as error:  # any error: other repositories must not wait
                log.warning("repository %s/%s can't be written anew: %s", saved_to.name, repository.name, error)
                self._later[repository.id] = time.monotonic() + AGAIN_S
                return
        self._lists.set_fresh(repository)

    def _existing_folders(
        self, repository: Repository, saved_to: Platform, sub: str
    ) -> Iterator[tuple[Path, str | None]]:
        """The existing folders of a repository, and the kind of each."""
        root = self._context.home.downloads / saved_to.name / "repository"
        pattern = f"*/{repository.name}/{sub}" if saved_to.is_main else f"*/*/{repository.name}/{sub}"
        for path in root.glob(pattern):
            if path.is_symlink():
                built_for = saved_to if saved_to.is_main else self._platforms.named(path.relative_to(root).parts[0])
                yield path, built_for.distrib_type

    def _is_published(self, repository: Repository, saved_to: Platform, found: BuildList) -> bool:
        build_for, arch = self._platforms.get(found.build_for_platform_id), self._platforms.arch(found.arch_id).name
        sub = found.published_into or ""
        return all(
            folder_of(self._context, saved_to, build_for, repository, below, sub).is_symlink()
            for below in (arch, SOURCES)
        )

    def _package_version(self, saved_to: Platform, build_list: BuildList) -> str | None:
        """The version of the source package, or of another package if the build made none."""
        packages = sorted(self._lists.packages([build_list.run_pk]), key=lambda package: package.type != "source")
        if not packages:
            return None
        first = packages[0]
        return f"{saved_to.name}-{first.version}" + (f"-{first.release}" if first.release else "")

    def _contain(self, build_list: BuildList) -> None:
        packages = self._lists.packages([build_list.run_pk])
        build_for = self._platforms.get(build_list.build_for_platform_id)
        repository = self._platforms.repository(build_list.save_to_repository_id)
        saved_to, arch = self._platforms.get(repository.platform_id), self._platforms.arch(build_list.arch_id).name
        try:
            if gone := self._missing(packages):
                raise PackageError(f"the file store has lost {gone}")
            shelves = []
            for below, kind in ((None, "binary"), (SOURCES, "source")):
                path = self._container(build_list, below)
                files, release = self._files(packages, kind, path), self._release(saved_to, "release", below or arch)
                shelves.append(Shelf(path, files, build_for.distrib_type, release=release))
            self._write(saved_to, shelves)
        except StoreError:
            raise
        except Exception as error:  # any error: the builds behind it must not wait
            if self._is_full(error):
                return
            log.warning("build list %s: no container: %s", build_list.id, error)
            with GUARD:
                self._lists.set_container(build_list, ContainerStatus.FAILED, [self._log(build_list, str(error))])
            return
        self._lists.set_container(build_list, ContainerStatus.PUBLISHED)

    def _container(self, build_list: BuildList, below: str | None = None) -> Path:
        """`below`: the folder of sources instead of the one of the architecture."""
        repository = self._platforms.repository(build_list.save_to_repository_id)
        return repositories.container(
            self._context.home.downloads,
            repository.platform_name,
            build_list.id,
            arch=below or self._platforms.arch(build_list.arch_id).name,
            name=repository.name,
        )

    def _is_full(self, error: Exception) -> bool:
        """A lack of disk space or memory fails no build: it stays in the queue."""
        if is_transient(error):
            log.warning("publishing is put off: %s", error)
            self._put_off()
            return True
        return False

    def _put_off(self) -> None:
        self._not_before = time.monotonic() + AGAIN_S

    def _fail(self, build_list: BuildList, to: BuildStatus, words: str) -> None:
        log.warning("build list %s could not be published: %s", build_list.id, words)
        with GUARD:
            self._lists.set_failed(build_list, to, [self._log(build_list, words)], words)

    def _log(self, build_list: BuildList, words: str) -> NewFile:
        stored = self._context.file_store.keep(io.BytesIO(f"{words}\n".encode()))
        return NewFile(stored.sha1, f"abfworker::publish-worker-{build_list.id}.log", stored.size)


class KnownFacts:
    """What indexes say of files: read from the store, or else from the file itself."""

    def __init__(self, store: FileFacts, file_store: FileStore, shelves: Iterable[Shelf]) -> None:
        self._store = store
        self._file_store = file_store
        named = {path.name for shelf in shelves for path in shelf.files.values() if path.parent == file_store.folder}
        self._known = store.of(named)
        self._new: dict[tuple[str, str], Facts] = {}

    def __call__(self, path: Path, file_name: str) -> Facts:
        """Raises PackageError, OSError."""
        kind, is_stored = reading.kind(file_name), path.parent == self._file_store.folder
        known = self._known.get((path.name, kind)) if is_stored else None
        if known and path.stat().st_size == known.size:
            return known
        found = reading.facts(path, file_name)
        if is_stored and found.sha1 != path.name:
            raise PackageError(f"{file_name} is damaged: the file store has another content under its sha1 {path.name}")
        self._new[found.sha1, kind] = found
        return found

    def keep(self) -> None:
        """Record new facts for the next publication."""
        self._store.save(self._new)


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


def _key(build_list: BuildList) -> Key:
    return build_list.project_id, build_list.build_for_platform_id, build_list.arch_id
