"""Safe access to folders while a container writes into them.

A program may replace a folder by a link between a check and the use of a path. So no path is checked first: each part
is opened relative to the folder before it, the kernel follows no links, and later steps use the open descriptor.
"""

import errno
import io
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from polylocal.files import sparse

MAX_DEPTH = 500  # deepest folder that `walk` enters
MAX_LINKS = 40  # followed to open one path; the kernel has the same limit
MAX_PATH = 4096
MAX_SORTED = 100_000  # names of one folder that are sorted
MAX_OPEN = 50  # folders held open at once while a tree is removed
MAX_STEPS = 100_000  # folders opened for one path; after a `..` the path is opened again from the top
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # without O_NONBLOCK, opening a pipe blocks
_FOLDER = _READ | os.O_DIRECTORY | os.O_NOFOLLOW
_IS_LINK = (errno.ELOOP, errno.EMLINK)  # FreeBSD reports the second
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = getattr(os, "O_PATH", 0)  # Linux: opens a device without activating it


class LeadsOut(Exception):
    """The path leaves the folder, directly or through a link."""


@dataclass(frozen=True)
class Entry:
    """An entry of a folder. The descriptor `parent` is valid until the walk continues."""

    path: str  # relative to the top of the walk
    name: str
    parent: int
    stat: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.stat.st_mode)

    @property
    def target(self) -> str | None:
        """The target of a link; None for other entries."""
        return os.readlink(self.name, dir_fd=self.parent) if stat.S_ISLNK(self.stat.st_mode) else None

    def open(self) -> io.FileIO:
        """Open the file. Raises OSError if it was replaced by something else."""
        opened = _open_plain(self.name, self.parent)
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)
        return open(opened, "rb", buffering=0)


def open_inside(folder: Path, path: str) -> int:
    """Open a file or a folder by its path inside `folder`, following links that stay inside.

    Returns a descriptor of a regular file or a folder. Raises LeadsOut, OSError.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    tops = {str(folder), os.path.realpath(folder)}
    here: list[str] = []  # real folders, no links
    ahead, links, steps = path.split("/")[::-1], 0, MAX_STEPS
    at = os.open(folder, _READ | os.O_DIRECTORY)
    try:
        while ahead:
            part = ahead.pop()
            steps -= len(here) if part == ".." else 1
            if steps < 0:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if part == ".." and not here:
                raise LeadsOut(path)
            if part == "..":
                here.pop()
                at = _replace_descriptor(at, _open_folder(folder, here))
            elif part not in ("", "."):
                try:
                    at = _replace_descriptor(at, _open_plain(part, at))
                    here.append(part)
                except OSError as error:
                    if error.errno not in _IS_LINK:
                        raise
                    target = os.readlink(part, dir_fd=at)
                    links += 1
                    if links > MAX_LINKS or len(here) > MAX_DEPTH:
                        raise
                    if target.startswith("/"):
                        target = _path_below(target, tops)
                        here = []
                        at = _replace_descriptor(at, _open_folder(folder, here))
                    ahead += target.split("/")[::-1]
        return os.dup(at)
    finally:
        os.close(at)


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace_descriptor(old: int, new: int) -> int:
    os.close(old)
    return new


def _path_below(target: str, tops: set[str]) -> str:
    """The part of an absolute path below the folder. Raises LeadsOut."""
    for top in tops:
        if target == top or target.startswith(f"{top}/"):
            return target[len(top) :]
    raise LeadsOut(target)


def _open_plain(name: str, parent: int) -> int:
    """Open a regular file or a folder. Raises OSError: ELOOP for a link, ENXIO for other kinds."""
    if _HANDLE:
        with closing(os.open(name, _HANDLE | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as handle:
            _check_plain(os.fstat(handle))
            return os.open(f"/proc/self/fd/{handle}", _READ)
    _check_plain(os.stat(name, dir_fd=parent, follow_symlinks=False))
    opened = os.open(name, _READ | os.O_NOFOLLOW, dir_fd=parent)
    try:
        _check_plain(os.fstat(opened))
    except OSError:
        os.close(opened)
        raise
    return opened


def _check_plain(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))


def entries(descriptor: int) -> Iterator[tuple[str, os.stat_result]]:
    """(name, status) of the entries of an open folder, without those that vanish meanwhile.

    The first MAX_SORTED entries are sorted by name; larger folders are not held in memory as a whole.
    """
    with os.scandir(descriptor) as scanned:
        names = (entry.name for entry in scanned)
        first = sorted(itertools.islice(names, MAX_SORTED))
        for name in itertools.chain(first, names):
            with suppress(FileNotFoundError):
                yield name, os.stat(name, dir_fd=descriptor, follow_symlinks=False)


def walk(
    folder: Path,
    *,
    every_kind: bool = False,
    enter: Callable[[Entry], bool] = lambda entry: True,
    could_not_read: Callable[[str, str], None] = lambda path, why: None,
) -> Iterator[Entry]:
    """Yield every folder, file and link below `folder`, each folder before its contents; `every_kind`: all entries.

    Entries that vanish meanwhile are left out. Entries that can't be read, are more than MAX_DEPTH folders deep or have
    a path of more than MAX_PATH bytes are reported to `could_not_read` with the path and the reason. Only folders that
    `enter` accepts are entered.
    """
    ahead: list[tuple[str, ...]] = [()]
    while ahead:
        parts = ahead.pop()
        try:
            opened = _open_folder(folder, parts)
        except FileNotFoundError:
            continue
        except OSError as error:
            could_not_read("/".join(parts), error.strerror or str(error))
            continue
        folders: list[tuple[str, ...]] = []
        try:
            for name, found in entries(opened):
                entry = Entry("/".join([*parts, name]), name, opened, found)
                if len(os.fsencode(entry.path)) > MAX_PATH:
                    could_not_read(entry.path, f"its path has more than {MAX_PATH} bytes")
                    continue
                if every_kind or entry.is_folder or entry.is_file or stat.S_ISLNK(found.st_mode):
                    yield entry
                if entry.is_folder and enter(entry):
                    if len(parts) < MAX_DEPTH:
                        folders.append((*parts, name))
                    else:
                        could_not_read(entry.path, f"it is more than {MAX_DEPTH} folders deep")
        except OSError as error:  # the folder may be listed, but not searched
            could_not_read("/".join(parts), error.strerror or str(error))
        finally:
            os.close(opened)
        ahead += reversed(folders)


def _open_folder(folder: Path, parts: Sequence[str]) -> int:
    """Open a folder from the top. Waiting folders are kept as paths, since descriptors are scarce."""
    at = os.open(folder, _READ | os.O_DIRECTORY)
    for part in parts:
        try:
            inner = os.open(part, _FOLDER, dir_fd=at)
        finally:
            os.close(at)
        at = inner
    return at


def copy_tree(source: Path, target: Path) -> None:
    """Copy folders, files (with modes and times) and links (as links) into a folder, which may have contents.

    Holes and hard links are kept. No link is followed on either side, even if a container changes both meanwhile.
    Unreadable entries are left out. Raises OSError if the target can't be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    copies: dict[tuple[int, int], str] = {}  # path of the copy, for files with several names
    for entry in walk(source):
        with closing(_open_folder(target, entry.path.split("/")[:-1])) as parent:
            if entry.is_file and entry.stat.st_nlink > 1:
                number = (entry.stat.st_dev, entry.stat.st_ino)
                if _link_copy(target, copies.get(number), entry, parent):
                    continue
                copies[number] = entry.path
            _copy(entry, parent)


def _link_copy(target: Path, first: str | None, entry: Entry, parent: int) -> bool:
    """Hard-link to the copy at path `first`. False: there is no copy yet, or no further link is possible."""
    if first is None:
        return False
    *parts, name = first.split("/")
    try:
        with closing(_open_folder(target, parts)) as there:
            with suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=parent)
            os.link(name, entry.name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EMLINK, errno.ENOENT, errno.EPERM):
            return False
        raise
    return True


def _copy(entry: Entry, parent: int) -> None:
    if entry.is_folder:
        _make_folder(entry, parent)
        return
    try:
        target = entry.target
        content = None if target is not None else entry.open()
    except OSError:
        return  # it vanished or was replaced
    with suppress(FileNotFoundError):
        os.unlink(entry.name, dir_fd=parent)
    if target is not None:
        os.symlink(target, entry.name, dir_fd=parent)
    elif content is not None:
        with content, open(os.open(entry.name, _NEW, 0o600, dir_fd=parent), "wb") as out:
            sparse.copy(content, out)
            os.fchmod(out.fileno(), stat.S_IMODE(entry.stat.st_mode) & 0o777)
            os.utime(out.fileno(), ns=(entry.stat.st_atime_ns, entry.stat.st_mtime_ns))


def _make_folder(entry: Entry, parent: int) -> None:
    try:
        os.mkdir(entry.name, dir_fd=parent)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(entry.name, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        os.unlink(entry.name, dir_fd=parent)
        os.mkdir(entry.name, dir_fd=parent)
    with closing(os.open(entry.name, _FOLDER, dir_fd=parent)) as opened:
        os.fchmod(opened, stat.S_IMODE(entry.stat.st_mode) & 0o777 | 0o700)


def set_mode(name: str, parent: int, mode: int) -> None:
    """Set the mode of an entry of an open folder, never of the target of a link. Raises OSError."""
    if not _HANDLE:
        os.chmod(name, mode, dir_fd=parent, follow_symlinks=False)
        return
    with closing(os.open(name, _HANDLE | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as handle:
        _check_plain(os.fstat(handle))
        os.chmod(f"/proc/self/fd/{handle}", mode)


def remove_tree(folder: Path) -> None:
    """Remove a folder and its contents, even without write permission on subfolders. Idempotent. Raises OSError."""
    try:
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode):
            folder.unlink()
            return
        parent = os.open(folder.parent, _READ | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    with closing(parent), suppress(FileNotFoundError):
        _remove_folder(folder.name, parent, 1)


def _remove_folder(name: str, parent: int, depth: int) -> None:
    with closing(_open_for_removal(name, parent)) as opened:
        if depth > MAX_OPEN:
            _remove_below(opened)
        else:
            for inner in _remove_files(opened):
                with suppress(FileNotFoundError):  # removed by another thread
                    _remove_folder(inner, opened, depth + 1)
    os.rmdir(name, dir_fd=parent)


def _remove_below(folder: int) -> None:
    """Remove the contents of a folder of any depth, with one descriptor that moves down, and up by `..`."""
    at = os.dup(folder)
    above: list[tuple[os.stat_result, str, list[str]]] = []  # parents: status, name, folders left
    try:
        names = list(_remove_files(at))
        while names or above:
            if names:
                name = names.pop()
                above.append((os.fstat(at), name, names))
                at = _replace_descriptor(at, _open_for_removal(name, at))
                names = list(_remove_files(at))
            else:
                parent, name, names = above.pop()
                at = _replace_descriptor(at, os.open("..", _FOLDER, dir_fd=at))
                if not os.path.samestat(parent, os.fstat(at)):
                    raise OSError(errno.ESTALE, "a folder was moved while it was removed")
                os.rmdir(name, dir_fd=at)
    finally:
        os.close(at)


def _remove_files(folder: int) -> Iterator[str]:
    """Remove all entries except folders, and yield the names of the folders."""
    with os.scandir(folder) as scanned:
        for entry in scanned:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name
            else:
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=folder)


def _open_for_removal(name: str, parent: int) -> int:
    """Open a folder to remove its contents, after adding the owner's permissions if they are missing."""
    if os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode & 0o700 != 0o700:
        with suppress(PermissionError):  # not the owner: the mode decides
            set_mode(name, parent, 0o700)
    return os.open(name, _FOLDER, dir_fd=parent)
