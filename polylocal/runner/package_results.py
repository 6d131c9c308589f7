"""Collects the results of a package build into the file store, after its container has ended."""

import errno
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from polylocal.errors import EngineError, PackageError, StoreError
from polylocal.files import sparse
from polylocal.files.disk import is_shortage, is_trouble, size_of
from polylocal.files.folders import Entry, remove_tree, walk
from polylocal.packages import description, kinds, reading, versions
from polylocal.packages.file_store import GUARD, Staged
from polylocal.runner.container_operation import ContainerOperation
from polylocal.runner.outcome import Outcome
from polylocal.runner.package_container import work_folder
from polylocal.statuses import Status
from polylocal.store.build_lists import BuildResults
from polylocal.store.rows import NewFile, NewPackage
from polylocal.text import visible

log = logging.getLogger(__name__)

DATA = "container_data.json"  # in it a build itself names the packages among its results
UNREADABLE = "results"  # the reason if the packages of a build can't be read
KEEPS_PACKAGES = (0, 5)  # exit codes: success; packages whose tests failed
MAX_RESULTS = 100_000  # files
MAX_HOLES = 1 << 30  # bytes in the holes of one of them
MIN_RETRY_S, MAX_RETRY_S = 2.0, 60.0  # between two attempts to store results that have no room
_MAX_DATA = 1 << 24
_MAX_NAME = 100  # characters of a name in a message


@dataclass
class _Collection:
    """The results of a build that are being stored. All attempts share it."""

    kind: str | None  # `distrib_type` of the platform that the build is for
    exit_code: object
    may_link: bool  # no program can write to the results any more
    staged: dict[str, Staged] = field(default_factory=dict)  # by path among the results; "" is the log
    by_inode: dict[tuple[int, int], Staged] = field(default_factory=dict)  # of files that have several names
    said: set[str] = field(default_factory=set)  # lines that were written to the build's log

    def forget(self) -> None:
        """Remove the files that were not committed."""
        for file in self.staged.values():
            file.path.unlink(missing_ok=True)
        self.staged.clear()
        self.by_inode.clear()


class Results:
    """Stores the results of one build, and records its end."""

    def __init__(self, operation: ContainerOperation) -> None:
        self._operation = operation
        self._execution = operation.execution
        self._context = operation.context
        self.run = operation.run

    def end(self, end: Outcome, recorded: Mapping[str, object]) -> Outcome | None:
        """Store the results before the final status is recorded, so that readers of the status find them.

        Results that can't be stored change the end of the build.
        """
        run, context = self.run, self._context
        self._operation.complete_log()
        lists = context.store.build_lists
        platform = context.store.platforms.get(lists.of_run(run.pk).build_for_platform_id)
        collection = _Collection(platform.distrib_type, recorded.get("exit_code"), may_link=self._has_stopped(recorded))
        try:
            end, harvest = self._collect_with_retries(end, collection)
            if end.details and end.details.get("reason") == UNREADABLE:
                recorded = {**recorded, "exit_code": None}  # there are no packages, whatever the exit code
            with GUARD:
                for file in set(collection.staged.values()):
                    context.file_store.commit(file)
                is_recorded = lists.conclude(
                    run,
                    end.status,
                    end.message,
                    details=end.details,
                    recorded=recorded,
                    results=harvest,
                    is_newer=partial(versions.is_newer, platform.distrib_type),
                )
            return end if is_recorded else None
        finally:
            collection.forget()

    def _has_stopped(self, recorded: Mapping[str, object]) -> bool:
        """Whether no program of the container can write to the results any more."""
        container_id = self.run.container_id
        if not container_id or recorded.get("exit_code") is not None:
            return True
        try:
            return self._operation.inspect(container_id).is_finished
        except EngineError as error:  # an unknown container may still run on another engine
            log.warning("run=%s: its results are copied, since its container may still run: %s", self.run.label, error)
            return False

    def _collect_with_retries(self, end: Outcome, collection: _Collection) -> tuple[Outcome, BuildResults]:
        """The end of the build, and its results. Results that can't be read fail it; a full disk makes it wait.

        Cancelling the build ends the wait and discards the results. Raises StoreError; OSError where this process
        lacks descriptors or memory.
        """
        pause_s = MIN_RETRY_S
        while True:
            try:
                return self._try_collect(end, collection)
            except OSError as error:
                if not is_trouble(error):
                    raise
                self._log_no_space(error, collection)
            if self._wait_for_cancel(pause_s):
                return self._execution.stop_outcome(), self._discard(collection)
            pause_s = min(2 * pause_s, MAX_RETRY_S)

    def _try_collect(self, end: Outcome, collection: _Collection) -> tuple[Outcome, BuildResults]:
        """Raises OSError where the disk is full, or the process lacks descriptors or memory."""
        try:
            return self._collect(end, collection)
        except (PackageError, OSError) as error:
            if isinstance(error, OSError) and (is_trouble(error) or is_shortage(error)):
                raise
            words = f"its results can't be stored: {_printable(error)}"
        except Exception as error:
            log.exception("run=%s: its results can't be stored", self.run.label)
            words = f"its results can't be stored: {type(error).__name__}: {_printable(error)}"
        self._log_once(words, collection)
        details = {"reason": UNREADABLE, "exit_code": collection.exit_code}
        return Outcome(Status.FAILED, words, details), BuildResults((), self._main_log(collection.staged))

    def _log_once(self, words: str, collection: _Collection) -> None:
        if words not in collection.said:
            self._execution.log_message(words)
            collection.said.add(words)

    def _log_no_space(self, error: OSError, collection: _Collection) -> None:
        words = (
            f"its results can't be stored: {error.strerror or error}. They are stored when that has passed;"
            f" `polylocal package cancel {self.run.id}` discards them"
        )
        try:
            self._log_once(words, collection)
        except StoreError as trouble:  # the log may be on the same disk
            log.warning("run=%s: %s, and this can't be written to its log: %s", self.run.label, words, trouble)

    def _wait_for_cancel(self, seconds: float) -> bool:
        self._execution.stop_clock()  # the time limit is for the container, which has ended
        self._execution.wait_for_stop(seconds)
        return self._execution.is_cancelled()

    def _discard(self, collection: _Collection) -> BuildResults:
        """The log alone, if the removed results made space for it."""
        collection.forget()
        try:
            remove_tree(work_folder(self.run, self._context) / "results")
            return BuildResults((), self._main_log(collection.staged))
        except OSError as error:
            log.warning("run=%s: its log is not stored as a file of the build: %s", self.run.label, error)
            return BuildResults()

    def _collect(self, end: Outcome, collection: _Collection) -> tuple[Outcome, BuildResults]:
        results, exit_code = work_folder(self.run, self._context) / "results", collection.exit_code
        self._check_space(results, collection)
        found = walk(results, could_not_read=_raise_unreadable) if results.is_dir() else ()
        files: dict[str, NewFile] = {}
        for entry in found:
            if entry.is_file:
                files[entry.path] = self._store_file(entry, collection)
            if len(files) > MAX_RESULTS:
                raise PackageError(f"there are more than {MAX_RESULTS} of them")
        packages: list[NewPackage] = []
        if exit_code in KEEPS_PACKAGES:
            try:
                packages = _find_packages(files, collection, lambda words: self._log_once(words, collection))
            except PackageError as error:
                words = _printable(error)
                self._log_once(words, collection)
                end = Outcome(Status.FAILED, words, {"reason": UNREADABLE, "exit_code": exit_code})
        taken = {package.sha1 for package in packages}
        others = [file for path, file in files.items() if file.sha1 not in taken and path != DATA]
        return end, BuildResults(packages, [*self._main_log(collection.staged), *others])

    def _check_space(self, results: Path, collection: _Collection) -> None:
        """Raises OSError (ENOSPC) before anything is copied, if the results can't fit on the disk."""
        file_store = self._context.file_store
        if collection.may_link and file_store.is_on_file_system_of(results):
            return
        missing = size_of(results) - sum(file.size for file in set(collection.staged.values()))
        if missing > file_store.free_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file_store.folder))

    def _store_file(self, entry: Entry, collection: _Collection) -> NewFile:
        file_store = self._context.file_store
        with entry.open() as file:  # follows no link, even if a program is still running
            about = os.fstat(file.fileno())
            if sparse.has_more_holes(file.fileno(), MAX_HOLES):
                raise PackageError(f"{entry.path} is a sparse file of {about.st_size} bytes")
            file.seek(0)  # the search for holes has moved it
            number = (about.st_dev, about.st_ino)
            stored = collection.staged.get(entry.path) or collection.by_inode.get(number)
            if stored is None and collection.may_link and about.st_uid == self._context.uid:
                stored = file_store.link(entry, file)
            stored = collection.staged[entry.path] = stored or file_store.stage(file)
            if about.st_nlink > 1:
                collection.by_inode[number] = stored
        return NewFile(stored.sha1, os.fsencode(entry.name).decode("utf-8", "replace"), stored.size)

    def _main_log(self, staged: dict[str, Staged]) -> list[NewFile]:
        path = self._context.log_path(self.run)
        if not path.exists():
            return []
        if (former := staged.pop("", None)) is not None:  # the log has grown since
            former.path.unlink(missing_ok=True)
        with path.open("rb") as file:
            stored = staged[""] = self._context.file_store.stage(file)
        return [NewFile(stored.sha1, f"abfworker::rpm-worker-{self.run.id}.log", stored.size)]


def _raise_unreadable(path: str, why: str) -> None:
    """Raises PackageError, since a part of the results would be lost; OSError for a temporary reason."""
    error = OSError(_ERRNO.get(why), why, path)
    if is_trouble(error) or is_shortage(error):
        raise error
    raise PackageError(f"{path} can't be read: {why}")


_ERRNO = {os.strerror(code): code for code in errno.errorcode}


def _find_packages(
    files: Mapping[str, NewFile], collection: _Collection, say: Callable[[str], None]
) -> list[NewPackage]:
    """The packages that the build names itself, or else all files of the platform's kind. Raises PackageError."""
    staged = collection.staged
    if DATA in files:
        return _declared_packages(files, staged[DATA].path)
    packages: dict[str, NewPackage] = {}
    parts: dict[str, description.Description] = {}
    for path, file in sorted(files.items()):
        if not kinds.is_package(file.file_name, collection.kind):
            continue
        try:
            found = reading.read(staged[path].path, file.file_name)
        except PackageError as error:
            if not kinds.may_be_other(file.file_name):
                raise
            say(f"{path} is not taken for a package: {error}")
            continue
        if found is not None:
            packages[path] = _package(file, found)
            parts |= {str(Path(path).with_name(name)): found for name in found.parts}
    for path, found in parts.items():  # a Debian source package is several files
        if path in files:
            packages[path] = _package(files[path], found)
    return _without_duplicates(packages.values())


def _without_duplicates(packages: Iterable[NewPackage]) -> list[NewPackage]:
    """The packages without duplicates. Raises PackageError for two different files of one name."""
    found: dict[tuple[str, str], NewPackage] = {}
    for package in packages:
        other = found.setdefault((package.type, package.file_name), package)
        if other.sha1 != package.sha1:
            raise PackageError(f"the build has left two different files of the name {package.file_name}")
    return list(found.values())


def _printable(error: Exception) -> str:
    """The text of an error in a form that the database takes: names in it may contain any bytes."""
    return visible.one_line(str(error))


def _package(file: NewFile, found: description.Description) -> NewPackage:
    reading.check_name(file.file_name)
    about = (found.name, found.type, found.epoch, found.version, found.release)
    return NewPackage(file.sha1, file.file_name, *about, file.size)


def _declared_packages(files: Mapping[str, NewFile], data: Path) -> list[NewPackage]:
    try:
        with data.open("rb") as opened:
            entries = json.load(io.BytesIO(opened.read(_MAX_DATA)))
        if not isinstance(entries, list):
            raise ValueError("it must be a list")
        by_name: dict[str, NewFile] = {}
        for path, file in files.items():
            by_name.setdefault(path, file)
            by_name.setdefault(file.file_name, file)
        named = [entry for entry in entries if isinstance(entry, dict) and entry.get("name")]
        return _without_duplicates(_declared_package(entry, by_name) for entry in named)
    except (ValueError, RecursionError, PackageError) as error:
        raise PackageError(f"{DATA}: {error}") from error


def _declared_package(entry: Mapping[str, object], by_name: Mapping[str, NewFile]) -> NewPackage:
    """`by_name`: the results by their paths and by their names."""
    name = str(entry.get("fullname") or "")
    file = by_name.get(name)
    if file is None:
        raise ValueError(f"`{name[:_MAX_NAME]}` is not among the results")
    kind = "source" if name.endswith((".src.rpm", ".dsc", ".tar.gz", ".tar.xz")) else "binary"
    epoch, dependents = entry.get("epoch"), entry.get("dependent_packages")
    number = "" if epoch is None else str(epoch)
    if number and not description.is_epoch(number):
        raise ValueError(f"`{number[:20]}` is not an epoch")
    said = description.Description(
        str(entry["name"]),
        kind,
        int(number) if number else None,
        str(entry.get("version") or ""),
        str(entry.get("release") or ""),
    )
    reading.check(said, file.file_name)
    made = _package(file, said)
    return replace(made, dependent_packages=list(map(str, dependents)) if isinstance(dependents, list) else [])
