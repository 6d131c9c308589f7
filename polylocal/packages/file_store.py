"""The file store: a folder with one file for each content, named by the sha1 of the content."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import threading
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from polylocal.files.folders import Entry

_SHA1 = re.compile(r"[0-9a-f]{40}")
_CHUNK = 1 << 20
_PREFIX = ".new-"
# errors of link(2): two file systems, no hard links, too many links, no permission, or a removed file
_NO_LINK = frozenset(
    {errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOENT}
)
_OWN_PREFIX = f"{_PREFIX}{secrets.token_hex(4)}-"  # prefix of the staged files of this process
# Held from the commit of a file until a row refers to it, and during the removal of files without a row: otherwise the
# removal could take a file that was just committed.
GUARD = threading.RLock()


@dataclass(frozen=True)
class Stored:
    """A file in the store."""

    sha1: str
    size: int  # bytes


@dataclass(frozen=True)
class Staged(Stored):
    """A complete file under a temporary name. `FileStore.commit` gives it its name."""

    path: Path


class FileStore:
    """Stores files by the sha1 of their content. Thread-safe: readers never see a partial file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, content: BinaryIO) -> Stored:
        """Store a content. Idempotent. Raises OSError."""
        return self.commit(self.stage(content))

    def commit(self, staged: Staged) -> Stored:
        """Give a staged file its name. From now on readers find it. Raises OSError."""
        staged.path.rename(self.folder / staged.sha1)
        return Stored(staged.sha1, staged.size)

    def stage(self, content: BinaryIO) -> Staged:
        """Copy a content to a temporary file, without a lock. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha1(usedforsecurity=False), 0
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=_OWN_PREFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), 0o644)  # package managers in builds may run as any user
                os.fsync(file.fileno())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Staged(digest.hexdigest(), size, Path(name))

    def link(self, entry: Entry, file: FileIO) -> Staged | None:
        """Stage a file by a hard link instead of a copy. None: the file system allows no link, so the caller must copy.

        `file`: the opened entry, at position 0. Nothing may write to it any more, and this process's user must own it:
        its mode becomes 0644, and its modification time now. Raises OSError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{_OWN_PREFIX}{secrets.token_hex(8)}"
        try:
            os.link(entry.name, path, src_dir_fd=entry.parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise
        try:
            if not os.path.samestat(path.lstat(), os.fstat(file.fileno())):  # another file has this name now
                path.unlink()
                return None
            digest = hashlib.sha1(usedforsecurity=False)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            os.fchmod(file.fileno(), 0o644)
            os.utime(file.fileno())
            os.fsync(file.fileno())
            return Staged(digest.hexdigest(), os.fstat(file.fileno()).st_size, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def is_on_file_system_of(self, folder: Path) -> bool:
        """Whether a folder is on the same file system as the store, so that its files can be linked."""
        try:
            return folder.stat().st_dev == self._nearest().stat().st_dev
        except FileNotFoundError:
            return False

    def free_bytes(self) -> int:
        """The free space of the file system, in bytes."""
        return shutil.disk_usage(self._nearest()).free

    def _nearest(self) -> Path:
        """The folder, or its nearest ancestor that exists."""
        return next(path for path in (self.folder, *self.folder.parents) if path.exists())

    def path(self, sha1: str) -> Path | None:
        """The path of a file by its sha1. None: there is no such file."""
        path = self.folder / sha1
        return path if _SHA1.fullmatch(sha1) and path.is_file() else None

    def names(self) -> list[str]:
        """The sha1 of every stored file, in no order."""
        try:
            return [name for name in os.listdir(self.folder) if _SHA1.fullmatch(name)]
        except FileNotFoundError:
            return []

    def remove_temporary_files(self) -> None:
        """Remove the temporary files of earlier processes."""
        for path in self.folder.glob(f"{_PREFIX}*"):
            if not path.name.startswith(_OWN_PREFIX):
                path.unlink(missing_ok=True)

    def remove(self, sha1: str) -> None:
        """Remove a file if it exists."""
        (self.folder / sha1).unlink(missing_ok=True)
