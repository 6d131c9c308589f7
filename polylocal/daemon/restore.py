"""Restores a backup: unpacks it into a folder beside the home folder, checks it and renames the folder."""

import fcntl
import gzip
import io
import json
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import IO

from polylocal.daemon import home_lock
from polylocal.daemon.backup import FORMAT, MANIFEST, PRIVATE_FOLDERS, USER_FOLDERS, Manifest
from polylocal.errors import SetupError, StoreError
from polylocal.paths import Home
from polylocal.store import snapshots

_CHUNK = 1 << 18
_MANIFEST_BYTES = 1 << 20
_FILES = (Home(Path()).database.name, Home(Path()).token.name, Home(Path()).settings.name)


@dataclass(frozen=True)
class Restored:
    """The result of a restore. `is_new`: the folder differs from the original, so it is a new installation."""

    manifest: Manifest
    files: int
    content: int
    under_way: int
    is_new: bool
    seconds: float


def restore(file: Path, home: Home) -> Restored:
    """Restore a backup into a home folder, completely or not at all. Raises SetupError."""
    started = time.monotonic()
    place = home.root.resolve()
    _refuse_place(home, place)
    with _open(file) as (tar, unzipped):
        manifest = _read_manifest(tar, file)
        with _restoring_folder(place) as folder:
            try:
                unpacked = _Unpacker(folder, file)
                unpacked.all(tar)
                while unzipped.read(_CHUNK):  # read to the end to verify the checksum
                    continue
                found, is_new = _accept_database(Home(folder), manifest, place, file)
                unpacked.finish()
                _move_into_place(folder, place)
            except gzip.BadGzipFile:
                raise
            except OSError as error:
                raise SetupError(f"{place} can't be restored: {error.strerror or error}; nothing was kept") from error
    seconds = time.monotonic() - started
    return Restored(manifest, unpacked.files, unpacked.content, len(found.under_way), is_new, seconds)


def _refuse_place(home: Home, place: Path) -> None:
    try:
        if not os.listdir(place):
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise SetupError(f"{home.root} can't be a home folder: {error.strerror}") from error
    here = home_lock.running(home)
    if here:
        raise SetupError(
            f"a daemon is running for {home.root} (process {here.pid}); name another folder with --home,"
            " or stop it with `polylocal stop` and move the folder away"
        )
    raise SetupError(f"{home.root} is not empty; name another folder with --home, or move it away first")


@contextmanager
def _open(file: Path) -> Iterator[tuple[tarfile.TarFile, gzip.GzipFile]]:
    """Open a backup as a stream. Raises SetupError for every fault of the file."""
    try:
        with gzip.open(file) as unzipped, tarfile.open(fileobj=unzipped, mode="r|", encoding="utf-8") as tar:
            yield tar, unzipped
    except EOFError as error:
        raise SetupError(f"{file} is incomplete: its end is missing; take another backup") from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        raise SetupError(f"{file} is not a backup of polylocal, or is damaged: {error}") from error
    except OSError as error:
        raise SetupError(f"{file} can't be read: {error.strerror or error}") from error


def _read_manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    first = tar.next()
    content = tar.extractfile(first) if first and first.name == MANIFEST and first.isreg() else None
    if content is None:
        raise SetupError(f"{file} is not a backup of polylocal: it does not begin with {MANIFEST}")
    try:
        found = json.loads(content.read(_MANIFEST_BYTES))
        if found["format"] > FORMAT:
            raise SetupError(f"{file} was made by polylocal {found['polylocal']}, in a newer form; update polylocal")
        return Manifest(**{field.name: found[field.name] for field in fields(Manifest)})
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{file} is not a backup of polylocal: its {MANIFEST} can't be read ({error!r})") from error


@contextmanager
def _restoring_folder(place: Path) -> Iterator[Path]:
    """Yield the empty, locked folder `<place>.restoring`; it is removed if the block fails."""
    folder = place.with_name(f"{place.name}.restoring")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SetupError(f"{folder} can't be created: {error.strerror or error}") from error
    try:
        _clear(folder, handle)
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _clear(folder: Path, handle: int) -> None:
    """Lock the folder and remove the files of an interrupted restore. Raises SetupError for other contents."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SetupError(f"another restore into {folder} is running; wait for its end") from None
    left = list(folder.iterdir())
    if left and not (folder / MANIFEST).exists():
        raise SetupError(f"{folder} is in the way, because the backup is unpacked there; move it away")
    for path in left:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.chmod(0o700)
    (folder / MANIFEST).touch()


class _Unpacker:
    """Unpacks the archive. Creates links but never follows them: no member is written below a link."""

    def __init__(self, folder: Path, file: Path) -> None:
        self.files = self.content = 0
        self._root = folder
        self._file = file
        self._folders: dict[PurePosixPath, tarfile.TarInfo | None] = {PurePosixPath("."): None}

    def all(self, tar: tarfile.TarFile) -> None:
        while member := tar.next():
            self._unpack_member(tar, member)
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all members

    def finish(self) -> None:
        """Set the modes and times of folders. This is the last step, because some modes forbid writing."""
        for name, member in reversed(self._folders.items()):
            if member:
                (self._root / name).chmod(member.mode & 0o777)
                os.utime(self._root / name, (member.mtime, member.mtime))

    def _unpack_member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = self._check_name(member)
        self._make_folder(name.parent)
        path = self._root / name
        try:
            if member.isdir():
                self._make_folder(name)
                self._folders[name] = member
            elif member.issym():
                path.symlink_to(member.linkname)
            elif member.islnk():
                self._link(path, member)
            else:
                content = tar.extractfile(member)
                assert isinstance(content, io.BufferedReader)
                self._write(path, member, content.raw)  # unbuffered, to skip holes in a stream
        except FileExistsError as error:
            raise self._damaged_error(member, "comes twice") from error

    def _check_name(self, member: tarfile.TarInfo) -> PurePosixPath:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise self._damaged_error(member, "leads out of the home folder")
        top, is_below = name.parts[0], len(name.parts) > 1
        known = (*PRIVATE_FOLDERS, *USER_FOLDERS) if is_below or member.isdir() else _FILES
        is_link = member.issym() or member.islnk()
        if top not in known or not (member.isreg() or member.isdir() or is_link):
            raise self._damaged_error(member, "does not belong in a backup")
        if is_link and top not in USER_FOLDERS:
            raise self._damaged_error(member, "is a link, which is not allowed there")
        return name

    def _link(self, path: Path, member: tarfile.TarInfo) -> None:
        """Hard-link to an earlier member, through folders that this restore created."""
        target = PurePosixPath(member.linkname)
        source = self._root / target
        known = target.parent in self._folders and target.parts[0] in USER_FOLDERS
        if not known or source.is_symlink() or not source.is_file():
            raise self._damaged_error(member, "does not belong in a backup")
        os.link(source, path, follow_symlinks=False)

    def _make_folder(self, name: PurePosixPath) -> None:
        if name in self._folders:
            return
        self._make_folder(name.parent)
        try:
            (self._root / name).mkdir(mode=0o700)
        except FileExistsError as error:  # a link or a file: this restore uses only folders that it created
            raise SetupError(f"{self._file} is damaged: {name} is both a folder and something else") from error
        self._folders[name] = None

    def _write(self, path: Path, member: tarfile.TarInfo, content: io.RawIOBase) -> None:
        extents: list[tuple[int, int]] = getattr(member, "sparse", None) or []
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            for start, length in extents or [(0, member.size)]:
                if extents:
                    content.seek(start)
                    file.seek(start)
                self.content += _copy(content, file, length)
            file.truncate(member.size)
            is_private = member.name in _FILES or member.name.startswith(("secrets/", "signing/"))
            os.fchmod(handle, 0o600 if is_private else member.mode & 0o777)
        os.utime(path, (member.mtime, member.mtime))
        self.files += 1

    def _damaged_error(self, member: tarfile.TarInfo, why: str) -> SetupError:
        return SetupError(f"{self._file} was not made by polylocal, or is damaged: {member.name!r} {why}")


def _copy(content: io.RawIOBase, file: IO[bytes], length: int) -> int:
    """Copy `length` bytes, zeros as holes. Returns the number of bytes read."""
    left = length
    while left and (chunk := content.read(min(_CHUNK, left))):
        left -= len(chunk)
        if chunk.count(0) == len(chunk):
            file.seek(len(chunk), os.SEEK_CUR)
        else:
            file.write(chunk)
    return length - left


def _accept_database(unpacked: Home, manifest: Manifest, place: Path, file: Path) -> tuple[snapshots.Snapshot, bool]:
    """Check the database, and give it a new identity if the folder differs from the original."""
    try:
        found = snapshots.inspect(unpacked.database)
        if found.newer:
            raise SetupError(
                f"{file} was made by polylocal {manifest.polylocal}, whose database is newer"
                f" ({', '.join(found.newer)}); update polylocal"
            )
        is_new = manifest.home != str(place)
        if is_new:
            snapshots.detach(unpacked.database)
    except StoreError as error:
        raise SetupError(f"{file} contains no database that can be used: {error}") from error
    return found, is_new


def _move_into_place(folder: Path, place: Path) -> None:
    os.sync()  # write everything to the disk before the rename
    (folder / MANIFEST).unlink()
    try:
        folder.rename(place)
    except OSError as error:
        raise SetupError(
            f"{place} can't be moved into place: {error.strerror}; is it in use, or a separate disk?"
            " Restore into a folder that does not exist yet"
        ) from error
