"""The file store: every file under the sha1 of its content, once."""

from __future__ import annotations

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
_NEW = ".new-"
# another file system, one without links or with no more of them; a file that may not be linked, or lost its name
_NO_LINK = frozenset(
    {errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOENT}
)
_OURS = f"{_NEW}{secrets.token_hex(4)}-"  # what is written by this process
# held from where a file is committed until a row speaks of it, and while files go that no row speaks of
GUARD = threading.RLock()


@dataclass(frozen=True)
class Stored:
    sha1: str
    size: int  # bytes


@dataclass(frozen=True)
class Staged:
    sha1: str
    size: int  # bytes
    path: Path


class FileStore:
    """Thread-safe: a file appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, content: BinaryIO) -> Stored:
        """Idempotent. Raises OSError."""
        return self.commit(self.stage(content))

    def commit(self, staged: Staged) -> Stored:
        """From here on it is there."""
        staged.path.rename(self.folder / staged.sha1)
        return Stored(staged.sha1, staged.size)

    def stage(self, content: BinaryIO) -> Staged:
        """A file on its way in: it takes as long as it takes, and nobody waits. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha1(usedforsecurity=False), 0
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=_OURS)
        try:
            with os.fdopen(handle, "wb") as file:
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), 0o644)  # package managers in builds read it as whatever user they are
                os.fsync(file.fileno())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Staged(digest.hexdigest(), size, Path(name))

    def link(self, entry: Entry, file: FileIO) -> Staged | None:
        """A file on its way in that is not copied: it gets a second name here. None: it can only be copied.

        `file` is the entry, opened and at its beginning. Nothing may write to it any more, and it must belong to this
        process's user: its mode becomes 0644 and its time of change now. Raises OSError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{_OURS}{secrets.token_hex(8)}"
        try:
            os.link(entry.name, path, src_dir_fd=entry.parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise
        try:
            if not os.path.samestat(path.lstat(), os.fstat(file.fileno())):  # another file has taken the name meanwhile
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

    def is_beside(self, folder: Path) -> bool:
        """Whether a folder lies on the file system of this one, so that its files need not be copied."""
        try:
            return folder.stat().st_dev == self._nearest().stat().st_dev
        except FileNotFoundError:
            return False

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._nearest()).free

    def _nearest(self) -> Path:
        """The folder, or what it will be made in."""
        return next(path for path in (self.folder, *self.folder.parents) if path.exists())

    def path(self, sha1: str) -> Path | None:
        """None: there is no such file."""
        path = self.folder / sha1
        return path if _SHA1.fullmatch(sha1) and path.is_file() else None

    def names(self) -> list[str]:
        """The sha1 of every file."""
        try:
            return [name for name in os.listdir(self.folder) if _SHA1.fullmatch(name)]
        except FileNotFoundError:
            return []

    def sweep(self) -> None:
        """Remove what was being written when a process before this one ended."""
        for path in self.folder.glob(f"{_NEW}*"):
            if not path.name.startswith(_OURS):
                path.unlink(missing_ok=True)

    def forget(self, sha1: str) -> None:
        (self.folder / sha1).unlink(missing_ok=True)
