"""Publishes packages: into repositories, and into a container of each build."""

import io
import logging
import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from polylocal.errors import PackageError, StoreError
from polylocal.files.disk import is_transient
from polylocal.files.folders import remove_tree
from polylocal.packages import extra, reading, repositories
from polylocal.packages.facts import Facts
from polylocal.packages.file_store import GUARD, FileStore
from polylocal.packages.repositories import FolderContent
from polylocal.packages.signing import Key, Keys
from polylocal.packages.statuses import BuildStatus, ContainerStatus
from polylocal.runner.package_work import forget_files
from polylocal.runner.repository_layout import RepositoryLayout
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.files import FileFacts
from polylocal.store.rows import BuildList, NewFile, Platform, Repository

log = logging.getLogger(__name__)

RETRY_S = 15.0  # between two attempts after a temporary failure
SUBFOLDERS = ("release", "updates")


class Publisher:
    """Publishes builds. Any step can be the last one of this process; the next process then repeats it."""

    def __init__(self, context: RunnerContext) -> None:
        self._context = context
        self._lists = context.store.build_lists
        self._platforms = context.store.platforms
        self._layout = RepositoryLayout(context)
        self._has_checked_folders = False
        self._not_before = 0.0
        self._retry_at: dict[int, float] = {}  # by repository that could not be written
        self._keys = Keys(context.home.signing)
        self._expire_at = math.inf  # the next time that files of earlier generations may expire

    def is_due(self) -> bool:
        if time.monotonic() < self._not_before:
            return False
        if not self._has_checked_folders:
            self._find_lost_folders()
            self._has_checked_folders = True
            self._remove_expired()
        return time.monotonic() >= self._expire_at or bool(
            self._lists.awaiting_container() or self._lists.awaiting_publication() or self._stale_repositories()
        )

    def publish(self) -> None:
        for build_list in self._lists.awaiting_container():
            self._create_container(build_list)
        waiting = sorted(self._lists.awaiting_publication(), key=lambda found: found.save_to_repository_id)
        for repository_id, found in groupby(waiting, key=lambda found: found.save_to_repository_id):
            self._publish_builds(self._platforms.repository(repository_id), list(found))
        for repository_id in self._stale_repositories():
            self._rewrite(self._platforms.repository(repository_id))
        if time.monotonic() >= self._expire_at:
            self._remove_expired()

    def _remove_expired(self) -> None:
        """Remove the files of earlier generations that have expired."""
        folders = repositories.folders_with_leftovers(self._context.home.downloads)
        remaining = [self._has_leftovers(path) for path in folders]
        self._expire_at = time.monotonic() + repositories.SLOT_S if any(remaining) else math.inf

    def _has_leftovers(self, path: Path) -> bool:
        """Remove expired files of one folder. Returns whether younger ones remain."""
        try:
            return repositories.remove_expired_leftovers(path)
        except OSError as error:
            log.warning("files of earlier generations in %s can't be removed: %s", path, error)
            return True

    def _write(
        self, saved_to: Platform, contents: Sequence[FolderContent], keep_readable: Collection[str] | None = None
    ) -> None:
        """`keep_readable`: see `FolderContent`. Raises PackageError, OSError: then no repository has changed."""
        key = self._publish_key(saved_to)
        facts = KnownFacts(self._context.store.file_facts, self._context.file_store, contents)
        try:
            repositories.write([replace(content, key=key, keep_readable=keep_readable) for content in contents], facts)
        finally:
            facts.keep()
        self._expire_at = min(self._expire_at, time.monotonic() + repositories.KEEP_READABLE_S)

    def _publish_key(self, saved_to: Platform) -> Key | None:
        """Publish the key of a platform and return it. Raises PackageError, OSError.

        None: this daemon can't sign, and no client expects a signature, because the platform never had a key.
        """
        name, downloads = saved_to.name, self._context.home.downloads
        if not (extra.has("pysequoia") or self._keys.has(name) or repositories.has_key(downloads, name)):
            log.warning("the repositories of %s are not signed: %s", name, extra.install_hint("a signature"))
            return None
        key = self._keys.get(name, saved_to.distrib_type)
        repositories.publish_key(downloads, name, key)
        return key

    def _stale_repositories(self) -> list[int]:
        now = time.monotonic()
        return [number for number in self._lists.stale_repositories() if now >= self._retry_at.get(number, 0.0)]

    def _find_lost_folders(self) -> None:
        """Have missing folders written again from the file store: backups leave them out. Remove files and folders that
        belong to no build.
        """
        forget_files(self._context)
        for repository_id in self._lists.published_repositories():
            repository = self._platforms.repository(repository_id)
            saved_to = self._platforms.get(repository.platform_id)
            published = self._lists.published(repository_id)
            if not all(self._layout.is_published(repository, saved_to, found) for found in published):
                self._lists.set_stale(repository_id)
        for build_list in self._lists.with_container():
            if not self._layout.has_container(build_list):
                self._lists.request_lost_container(build_list)
        existing = {folder.name: folder for folder in self._context.home.downloads.glob("*/container/*")}
        known = {str(found.id) for found in self._lists.by_ids(int(name) for name in existing if name.isdecimal())}
        for name in existing.keys() - known:  # of builds that were deleted while their folders were written
            remove_tree(existing[name])

    def _publish_builds(self, repository: Repository, waiting: Sequence[BuildList]) -> None:
        """Publish all waiting builds together; if that fails, one by one, so that only the broken one fails."""
        if self._platforms.repository(repository.id).is_locked:  # since the queue was read
            return
        ready = [build_list for build_list in waiting if self._is_ready(repository, build_list)]
        if not ready:
            return
        saved_to = self._platforms.get(repository.platform_id)
        try:
            stays = self._lists.not_withdrawn(repository.id)
            self._write(saved_to, self._layout.changed_folders(repository, saved_to, ready), stays)
        except StoreError:
            raise
        except Exception as error:  # any error: the builds behind it must not wait
            if self._postpone(error):
                return
            if len(ready) > 1:
                for build_list in ready:
                    self._publish_builds(repository, [build_list])
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
        packages = self._lists.packages([build_list.run_pk])
        if not self._platforms.has_project(repository, build_list.project_id):
            where = f"{repository.platform_name}/{repository.name}"
            self._fail(build_list, BuildStatus.PUBLISH_FAILED, f"the project is not in the repository {where} any more")
        elif not packages:
            self._fail(build_list, BuildStatus.PUBLISH_FAILED, "the build has no packages")
        elif lost := self._layout.lost_files(packages):
            self._fail(build_list, BuildStatus.PACKAGES_FAIL, f"the file store has lost {lost}")
        else:
            return True
        return False

    def _rewrite(self, repository: Repository) -> None:
        """Write a repository again after a project was removed from it."""
        saved_to = self._platforms.get(repository.platform_id)
        for sub in SUBFOLDERS:
            try:
                contents = self._layout.all_folders(repository, saved_to, sub)
                self._write(saved_to, contents, self._lists.not_withdrawn(repository.id))
            except StoreError:
                raise
            except Exception as error:  # any error: other repositories must not wait
                log.warning("repository %s/%s can't be written again: %s", saved_to.name, repository.name, error)
                self._retry_at[repository.id] = time.monotonic() + RETRY_S
                return
        self._lists.set_fresh(repository)

    def _package_version(self, saved_to: Platform, build_list: BuildList) -> str | None:
        """The version of the source package, or of another package if the build made none."""
        packages = sorted(self._lists.packages([build_list.run_pk]), key=lambda package: package.type != "source")
        if not packages:
            return None
        first = packages[0]
        return f"{saved_to.name}-{first.version}" + (f"-{first.release}" if first.release else "")

    def _create_container(self, build_list: BuildList) -> None:
        repository = self._platforms.repository(build_list.save_to_repository_id)
        try:
            self._write(self._platforms.get(repository.platform_id), self._layout.container_folders(build_list))
        except StoreError:
            raise
        except Exception as error:  # any error: the builds behind it must not wait
            if self._postpone(error):
                return
            log.warning("build list %s: no container: %s", build_list.id, error)
            with GUARD:
                self._lists.set_container(build_list, ContainerStatus.FAILED, [self._log(build_list, str(error))])
            return
        self._lists.set_container(build_list, ContainerStatus.PUBLISHED)

    def _postpone(self, error: Exception) -> bool:
        """Whether the error is a lack of disk space or memory. It fails no build: the queue waits for `RETRY_S`."""
        if not is_transient(error):
            return False
        log.warning("publishing is postponed: %s", error)
        self._not_before = time.monotonic() + RETRY_S
        return True

    def _fail(self, build_list: BuildList, to: BuildStatus, message: str) -> None:
        log.warning("build list %s could not be published: %s", build_list.id, message)
        with GUARD:
            self._lists.set_failed(build_list, to, [self._log(build_list, message)], message)

    def _log(self, build_list: BuildList, message: str) -> NewFile:
        stored = self._context.file_store.save(io.BytesIO(f"{message}\n".encode()))
        return NewFile(stored.sha1, f"abfworker::publish-worker-{build_list.id}.log", stored.size)


class KnownFacts:
    """Returns the facts about a file for an index: from the store, or else from the file itself."""

    def __init__(self, store: FileFacts, file_store: FileStore, contents: Iterable[FolderContent]) -> None:
        self._store = store
        self._file_store = file_store
        paths = [path for content in contents for path in content.files.values()]
        named = {path.name for path in paths if path.parent == file_store.folder}
        self._known = store.get(named)
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
