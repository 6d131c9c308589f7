"""Free space on the disk of the home folder, and the size of files and folders."""

import errno
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from polylocal.files.folders import walk

_CACHED_S = 1.0  # seconds that a result is reused
# errors of a disk that is full or can't be written: they may pass
TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_MIN_FILES = 1000  # that the file system can still create


@dataclass(frozen=True)
class Item:
    """An image, a container, a folder or a log that polylocal made and that uses disk space."""

    kind: str
    name: str
    id: str  # the engine's, or the path relative to the home folder
    size_bytes: int
    last_used: str  # "": unknown
    reason: str  # why it is removed or kept
    goes: bool = False  # garbage collection removes it
    can_go: bool = False  # garbage collection may remove it to free space


class Disk:
    """The file system of `folder`. Thread-safe."""

    def __init__(self, folder: Path, min_free_mib: int) -> None:
        self._folder = folder
        self._min_free_mib = min_free_mib
        self._looked_at = -_CACHED_S
        self._problem: str | None = None

    def problem(self) -> str | None:
        """The reason why no new work can begin, in one sentence; None: there is enough space."""
        now = time.monotonic()
        if now - self._looked_at >= _CACHED_S:
            self._problem = self._examine()
            self._looked_at = now
        return self._problem

    def free_mib(self) -> float:
        return shutil.disk_usage(self._folder).free / 2**20

    def _examine(self) -> str | None:
        try:
            free_mib = self.free_mib()
            files = os.statvfs(self._folder)
        except OSError as error:
            return f"The disk of {self._folder} can't be examined: {error.strerror or error}."
        if files.f_files and files.f_favail < _MIN_FILES:  # some file systems do not count them
            return (
                f"The disk of {self._folder} has room for {files.f_favail} more files, and nothing new begins below"
                f" {_MIN_FILES}. `polylocal gc` makes room."
            )
        if free_mib >= self._min_free_mib:
            return None
        return (
            f"The disk of {self._folder} is full: {free_mib:.0f} MiB are free, and nothing new begins below"
            f" {self._min_free_mib} (min_free_mib). `polylocal gc` makes room."
        )


def is_trouble(error: OSError) -> bool:
    """Whether the cause of an error is the disk: full, read-only or broken."""
    return error.errno in TROUBLE


def is_shortage(error: OSError) -> bool:
    """Whether the cause of an error is a lack of file descriptors or memory, which may pass."""
    return error.errno in _SHORTAGE


def is_transient(error: BaseException) -> bool:
    """Whether an error is caused by the disk or a shortage, so that a later attempt may succeed."""
    return isinstance(error, OSError) and (is_trouble(error) or is_shortage(error))


def size_of(path: Path) -> int:
    """Bytes on the disk of a file or of a folder with its contents; 0 if it is missing. Links are not followed."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_blocks * 512
        return sum(_sizes(path))
    return 0


def _sizes(folder: Path) -> Iterable[int]:
    counted: set[tuple[int, int]] = set()  # device and inode of files with several names
    for entry in walk(folder):
        about = entry.stat
        if about.st_nlink > 1 and entry.is_file:
            if (about.st_dev, about.st_ino) in counted:
                continue
            counted.add((about.st_dev, about.st_ino))
        yield about.st_blocks * 512


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner only."""
    beside = path.with_name(f"{path.name}.new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
