"""Backs up a home folder into one archive while its daemon works: a snapshot of the database, then the files.

The files are copied after the snapshot, so they are never older than the rows that refer to them. Files that are newer
look as after a crash, from which every start recovers.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from polylocal import __version__, clock
from polylocal.errors import SetupError, StoreError
from polylocal.files.archives import Archive, kind
from polylocal.files.folders import Entry, walk
from polylocal.files.sparse import Content
from polylocal.paths import BY_NAME, OUTPUTS, Home
from polylocal.store import snapshots

FORMAT = 1
MANIFEST = "polylocal-backup.json"
# written by polylocal only; contain no links
PRIVATE_FOLDERS = ("secrets", "signing", "logs", "code", "contexts", "files")
# written by users' programs; may contain links
USER_FOLDERS = ("notebooks", OUTPUTS)
_COMPRESSION = 3
_INCOMPLETE = (".new", ".gone")  # workspaces that are being created or removed

Say = Callable[[str], None]


@dataclass(frozen=True)
class Manifest:
    """Describes a backup; its first member."""

    format: int
    polylocal: str
    made_at: str
    home: str
    installation: str
    runs: int
    with_outputs: bool


@dataclass(frozen=True)
class BackupResult:
    """The result of a backup. `content`: bytes in the files; `size`: bytes of the archive."""

    runs: int
    files: int
    content: int
    size: int
    seconds: float


def make(
    home: Home, to: Path, *, with_outputs: bool = True, replace: bool = False, say: Say = lambda line: None
) -> BackupResult:
    """Write the archive, completely or not at all. `say` receives a sentence for each file that was left out.

    Raises SetupError.
    """
    started = time.monotonic()
    if not home.database.exists():
        raise SetupError(f"there is no database in {home.root}: nothing to back up")
    _refuse_target(home, to, replace)
    with _open_target(to) as (file, beside):
        snapshot = _take_snapshot(home, beside)
        manifest = Manifest(
            format=FORMAT,
            polylocal=__version__,
            made_at=clock.now(),
            home=str(home.root.resolve()),
            installation=snapshot.installation,
            runs=snapshot.runs,
            with_outputs=with_outputs,
        )
        archive = _Archive(file, say)
        try:
            archive.text(MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
            archive.entry(beside, home.database.name)
            _add_files(archive, home, snapshot.under_way, with_outputs)
        finally:
            archive.close()
    return BackupResult(snapshot.runs, archive.files, archive.content, to.stat().st_size, time.monotonic() - started)


def _take_snapshot(home: Home, to: Path) -> snapshots.Snapshot:
    try:
        return snapshots.take(home.database, to)
    except StoreError as error:
        raise SetupError(f"no backup was made: {error}") from error


def _refuse_target(home: Home, to: Path, replace: bool) -> None:
    if os.path.isdir(to):  # os.path: returns False for invalid names
        raise SetupError(f"{to} is a folder; name the file to write the backup to, such as {to / 'polylocal.tar.gz'}")
    if os.path.lexists(to) and not replace:
        raise SetupError(f"{to} exists already; choose another name, or replace it with --force")
    if to.resolve().is_relative_to(home.root.resolve()):
        raise SetupError(f"{to} is in the home folder itself; choose a place outside {home.root}")


@contextmanager
def _open_target(to: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield the open file `to`.part, which is renamed at the end, and the path of an empty file for the snapshot.

    Both are removed if the block fails.
    """
    part, beside = to.with_name(f"{to.name}.part"), to.with_name(f"{to.name}.part.db")
    try:
        with _open_locked(part, to) as file:
            try:
                _remove_database(beside)
                os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                yield file, beside
                file.flush()
                os.fsync(file.fileno())
                _remove_database(beside)
                part.rename(to)
                _sync_folder(to.parent)
            except BaseException:
                _remove_database(beside)
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise SetupError(f"the backup can't be written to {to}: {error.strerror or error}; nothing was kept") from error


@contextmanager
def _open_locked(part: Path, to: Path) -> Iterator[BinaryIO]:
    """Open, lock and empty a file that may exist after an interrupted backup. Raises SetupError if another one runs."""
    with os.fdopen(os.open(part, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = part.stat().st_ino == os.fstat(file.fileno()).st_ino  # not renamed meanwhile by another backup
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise SetupError(f"another backup is being written to {to}; wait for it, or choose another name")
        os.fchmod(file.fileno(), 0o600)
        file.truncate(0)
        yield file


def _remove_database(path: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _add_files(archive: _Archive, home: Home, under_way: list[str], with_outputs: bool) -> None:
    for path in (home.token, home.settings):
        archive.entry(path, path.name)
    for folder in (home.secrets, home.signing):
        archive.tree(folder, folder.name)
    archive.tree(home.logs, "logs")
    for path in _subfolders(home.root / "code"):
        if (path / "HEAD").exists():  # others are uploads in progress
            archive.repository(path, f"code/{path.name}")
    archive.tree(home.files, "files")  # published repositories are rebuilt from them
    for uuid in under_way:
        if not any(home.handover(uuid).glob("build-*")):  # a package build starts again from its commit
            archive.tree(home.handover(uuid), f"contexts/{uuid}")
    for path in _subfolders(home.root / "notebooks"):
        if not path.name.endswith(_INCOMPLETE):
            archive.user_tree(path, f"notebooks/{path.name}")
    if with_outputs:
        archive.user_tree(home.outputs_root, OUTPUTS, leave_out=BY_NAME)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


class _Archive(Archive):
    """A tar.gz of files that may grow, shrink or vanish meanwhile."""

    def __init__(self, file: BinaryIO, say: Say) -> None:
        self._gzip = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_COMPRESSION)
        tar = tarfile.TarFile(fileobj=self._gzip, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8")
        super().__init__(tar, say)

    def close(self) -> None:
        try:
            self._tar.close()
        finally:
            self._gzip.close()

    def text(self, name: str, text: str) -> None:
        member = tarfile.TarInfo(name)
        data = text.encode()
        member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
        self.write(member, Content(io.BytesIO(data), len(data)))

    def tree(self, top: Path, name: str) -> None:
        """Add a folder that only polylocal writes, with its contents, if it exists."""
        for path, inner in _walk(top, name, self._could_not_list):
            self.entry(path, inner)

    def user_tree(self, top: Path, name: str, leave_out: str = "") -> None:
        """Add a folder that users' programs write, with links, without its entry `leave_out`."""
        if not top.is_dir():
            return
        self.entry(top.resolve(), name)  # may be a link to another disk

        def could_not_read(path: str, why: str) -> None:
            self._say(f"{top / path} can't be read: {why}")

        def is_wanted(entry: Entry) -> bool:
            return not leave_out or entry.path != leave_out

        for entry in walk(top, every_kind=True, enter=is_wanted, could_not_read=could_not_read):
            if is_wanted(entry):
                self.add(entry, f"{name}/{entry.path}", top / entry.path)

    def repository(self, top: Path, name: str) -> None:
        """Add a bare repository in use: first the refs, then the objects that they need."""
        self.entry(top, name)
        others = sorted(path.name for path in top.iterdir() if path.name not in ("refs", "objects"))
        for part in ("refs", *others):  # git may move loose refs to `packed-refs`, one of the others
            whole = (top / part, f"{name}/{part}")
            for path, inner in _walk(*whole, self._could_not_list) if whole[0].is_dir() else [whole]:
                self._git_entry(path, inner)
        seen: set[str] = set()
        while not self._objects(top / "objects", f"{name}/objects", seen):
            continue  # git packed objects meanwhile: they are in a new pack

    def _objects(self, top: Path, name: str, seen: set[str]) -> bool:
        """Add new objects, packs last, since git moves objects there. Returns False if one vanished."""
        found = [(path, inner) for path, inner in _walk(top, name, self._could_not_list) if inner not in seen]
        is_whole = True
        for path, inner in sorted(found, key=lambda item: (f"{name}/pack" in item[1], item[1])):
            seen.add(inner)
            if not path.name.startswith(("tmp_", ".tmp")):  # incomplete files of git
                is_whole &= self._git_entry(path, inner)
        return is_whole

    def _git_entry(self, path: Path, name: str) -> bool:
        return path.name.endswith((".lock", ".pid")) or self.entry(path, name)  # git's lock files would block git

    def entry(self, path: Path, name: str) -> bool:
        """Add one file or folder that only polylocal writes. Returns False if it vanished."""
        try:
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                return self._file(path, name)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(about.st_mode):
            self._say(f"{path} is {kind(about.st_mode)}")
            return True
        member = self.member(name, about)
        member.type = tarfile.DIRTYPE
        self.write(member)
        return True

    def _file(self, path: Path, name: str) -> bool:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._say(f"{path} can't be read: {error.strerror}")
            return True
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(handle).st_mode
            if stat.S_ISREG(mode):
                # git briefly hard-links new objects; a restore accepts no links in these folders
                self.add_file(file, name, path, may_be_link=False)
            else:
                self._say(f"{path} is {kind(mode)}")
        return True

    def _could_not_list(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self._say(f"{error.filename} can't be read: {error.strerror}")


def _walk(top: Path, name: str, on_error: Callable[[OSError], None]) -> Iterator[tuple[Path, str]]:
    """(path, name in the archive) of a folder and its contents, sorted, each folder before its contents."""
    if not top.is_dir():
        return
    for parent, folders, files in os.walk(top, onerror=on_error):
        base = Path(parent)
        inner = name if base == top else f"{name}/{base.relative_to(top).as_posix()}"
        yield (base.resolve() if base == top else base), inner  # the top may be a link to another disk
        folders.sort()
        links = [folder for folder in folders if (base / folder).is_symlink()]
        for entry in sorted([*files, *links]):
            yield base / entry, f"{inner}/{entry}"
