"""Unpacks an uploaded tar archive into files, folders and links in a new folder, and refuses everything else.

Python's `tarfile` only reads the headers: its extraction follows links and trusts sizes. The limits count the bytes
after decompression, whatever the headers say.
"""

from __future__ import annotations

import bz2
import errno
import io
import lzma
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from polylocal.errors import InvalidInput
from polylocal.files.links import leads_out

MAX_HEADER = 1 << 18  # bytes of the headers of one member: long names, PAX records
MAX_HEADERS = 32 << 20  # bytes of all headers together, beyond the usual size per member: parsing is slow
MAX_NAME = 2048  # bytes of a path; the system's limit of 4096 includes the folder above
MAX_STREAMS = 100_000  # concatenated compressed streams, as bgzip writes them
MAX_STEPS = 1_000_000  # path components visited to resolve all links
_MEMORY = 128 << 20  # bytes of memory for decompressing xz; `xz -9` needs 65 MiB
_CHUNK = 1 << 18
_BLOCK = 512
_MAX_RECORDS = 1000
# names of git's own files as some file systems see them: HFS+ ignores these characters, NTFS a suffix
_INVISIBLE = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])
_GIT_FOLDERS = frozenset({".git", "git~1"})
# `tarfile` needs quadratic time to parse long numbers (CVE-2024-6232); no valid record has one
_LONG_NUMBER = re.compile(rb"[0-9]{256}")
# errors that a name in the archive can cause: the archive is at fault, not the disk
_NAME_FAULTS = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EINVAL, errno.EMLINK}
)
_ADVICE = "Leave out what the code does not need with .polyaxonignore, or raise the setting."
_HINT = "Name it in .polyaxonignore; runs get data from outside the code by data_refs."
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@dataclass(frozen=True)
class Limits:
    """The most that code may unpack to. Both are settings."""

    max_unpacked_mib: int = 4096
    max_upload_files: int = 100_000

    @property
    def size(self) -> int:
        return self.max_unpacked_mib << 20


def unpack(archive: BinaryIO, folder: Path, limits: Limits | None = None) -> None:
    """Unpack into an empty folder. Raises InvalidInput; then the folder may have partial contents."""
    with _translated_errors():
        top = os.open(folder, _FOLDER)
        try:
            _Unpacking(top, limits or Limits()).read(archive)
        finally:
            os.close(top)


class _Refused(Exception):
    """The archive is refused. The message has the reason and advice."""


class _Unpacking:
    def __init__(self, top: int, limits: Limits) -> None:
        self._top = top
        self._limits = limits
        self._bytes = self._count = self._steps = 0
        self._folders: set[tuple[str, ...]] = set()
        self._links: list[tuple[str, ...]] = []

    def read(self, archive: BinaryIO) -> None:
        # the stream has padding and headers besides the contents
        tape = _Tape(
            _decompress(archive), self._limits.size + self._limits.max_upload_files * 2 * _BLOCK, self._too_large
        )
        with tarfile.TarFile(fileobj=tape) as tar:  # type: ignore[arg-type]  # has the methods that tarfile calls
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all members
                if len(tar.pax_headers) > _MAX_RECORDS:  # tarfile copies them for each member
                    raise _Refused("Its global headers are too large. Pack it with another program.")
                self._add(member, tar, tape)
                tape.expect_header()
        if tape.last.strip(b"\0"):
            raise tarfile.ReadError("a header in it is damaged")
        self._check_links()

    def _add(self, member: tarfile.TarInfo, tar: tarfile.TarFile, tape: _Tape) -> None:
        parts = _parts(member)
        if any(map(_is_git_folder, parts)):  # git would record a submodule instead of the files
            return
        self._count_one()
        shown = repr(member.name)
        if member.issparse():
            raise _Refused(f"{shown} is a sparse file. Pack without `--sparse`.")
        if member.isdir():
            os.close(self._enter(parts, shown))
            return
        if not parts:
            raise _Refused(f"{shown} names the folder itself.")
        parent = self._enter(parts[:-1], shown)
        try:
            self._make(member, parts, parent, tar, tape)
        finally:
            os.close(parent)

    def _make(
        self, member: tarfile.TarInfo, parts: tuple[str, ...], parent: int, tar: tarfile.TarFile, tape: _Tape
    ) -> None:
        name, shown = parts[-1], repr(member.name)
        if member.islnk():
            self._link(member, parent, name)
        elif member.issym():
            if name.lower() == ".gitmodules":
                raise _Refused(f"{shown} is a link, and git refuses a link of this name. Pack the file itself.")
            if member.linkname.startswith("/") or not member.linkname:
                raise _Refused(
                    f"{shown} is a link to {member.linkname!r}, which is not a path inside the archive. {_HINT}"
                )
            _remove_earlier(name, parent)
            os.symlink(member.linkname, name, dir_fd=parent)
            self._links.append(parts)
        elif member.isreg():
            self._count_bytes(member.size)
            _remove_earlier(name, parent)
            file = os.open(name, _NEW, 0o755 if member.mode & 0o100 else 0o644, dir_fd=parent)
            with open(file, "wb", buffering=0) as out:
                self._copy(member, tar, tape, out)
        else:
            raise _Refused(f"{shown} is neither a file, a folder nor a link.")

    def _copy(self, member: tarfile.TarInfo, tar: tarfile.TarFile, tape: _Tape, out: io.FileIO) -> None:
        tape.expect_content()
        content, left = tar.extractfile(member), member.size
        while content and left:
            chunk = content.read(min(_CHUNK, left))
            if not chunk:
                raise tarfile.ReadError("unexpected end of data")
            out.write(chunk)
            left -= len(chunk)

    def _link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        """A hard link to an earlier member. It counts as a separate file, since git reads it again."""
        shown = repr(member.name)
        parts = _split(member.linkname)
        if not parts or ".." in parts or member.linkname.startswith("/"):
            raise _Refused(f"{shown} is a link to {member.linkname!r}, outside of the archive.")
        with suppress(FileNotFoundError):
            source = self._enter(parts[:-1], shown, make=False)
            try:
                found = os.stat(parts[-1], dir_fd=source, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode):
                    raise _Refused(f"{shown} is a link to {member.linkname!r}, which is not a file.")
                self._count_bytes(found.st_size)
                os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                self._replace(parts[-1], source, name, parent)
            finally:
                os.close(source)
            return
        raise _Refused(f"{shown} is a link to {member.linkname!r}, which does not come before it.")

    def _replace(self, target: str, source: int, name: str, parent: int) -> None:
        there, wanted = (os.stat(n, dir_fd=at, follow_symlinks=False) for n, at in ((name, parent), (target, source)))
        if not os.path.samestat(there, wanted):  # a link to itself changes nothing
            _remove_earlier(name, parent)
            os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _enter(self, parts: tuple[str, ...], shown: str, make: bool = True) -> int:
        """Open a folder of the archive component by component, without following links."""
        at = os.dup(self._top)
        for depth, part in enumerate(parts, 1):
            try:
                if make and parts[:depth] not in self._folders:
                    self._make_folder(part, at)
                    self._folders.add(parts[:depth])
                inner = os.open(part, _FOLDER, dir_fd=at)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                    raise _Refused(f"{shown} is below {part!r}, which is not a folder.") from error
                raise
            finally:
                os.close(at)
            at = inner
        return at

    def _make_folder(self, name: str, at: int) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=at)
            self._count_one()

    def _count_one(self) -> None:
        self._count += 1
        if self._count > self._limits.max_upload_files:
            most = self._limits.max_upload_files
            raise _Refused(f"It contains more than {most} files and folders (max_upload_files). {_ADVICE}")

    def _count_bytes(self, size: int) -> None:
        if size < 0:
            raise tarfile.ReadError("a size below 0")
        self._bytes += size
        if self._bytes > self._limits.size:
            raise self._too_large()

    def _too_large(self) -> _Refused:
        most = self._limits.max_unpacked_mib
        return _Refused(f"Unpacked it is larger than {most} MiB (max_unpacked_mib). {_ADVICE}")

    def _check_links(self) -> None:
        """Resolve every link in the final tree: a link may pass through others."""
        for parts in self._links:
            path = "/".join(parts)
            if leads_out(path, self._target, self._count_step):
                raise _Refused(f"{path!r} is a link that leads out of the archive. {_HINT}")

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _Refused("Its links lead through too many others.")

    def _target(self, path: str) -> str | None:
        try:
            return os.readlink(path, dir_fd=self._top)
        except OSError:
            return None  # not a link, or missing


def _remove_earlier(name: str, parent: int) -> None:
    """Remove an earlier member of the same name: the last one wins."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def _parts(member: tarfile.TarInfo) -> tuple[str, ...]:
    if member.name.startswith("/"):
        raise _Refused(f"{member.name!r} has an absolute path. Pack with paths relative to the code.")
    if len(os.fsencode(member.name)) > MAX_NAME:
        raise _Refused(f"{member.name[:60]!r}… has a path of more than {MAX_NAME} bytes.")
    parts = _split(member.name)
    if ".." in parts:
        raise _Refused(f"{member.name!r} would be outside the folder that it is unpacked into.")
    return parts


def _split(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _is_git_folder(name: str) -> bool:
    return name.translate(_INVISIBLE).partition(":")[0].rstrip(" .").lower() in _GIT_FOLDERS


class _Gzip:
    """Gives zlib's decompressor the interface of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(31)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


_xz = partial(lzma.LZMADecompressor, lzma.FORMAT_AUTO, _MEMORY)
# the first bytes of a stream → its decompressor, with the interface of bz2's
_PACKINGS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": _xz,
    b"\x5d\0\0": _xz,
}


class _Decompressed(io.RawIOBase):
    """A decompressed stream. Unlike the standard library's, it is fast for small reads and bounds lzma's memory."""

    def __init__(self, packed: BinaryIO, magic: bytes) -> None:
        self._packed = packed
        self._magic = magic
        self._new = _PACKINGS[magic]
        self._stream = self._new()
        self._streams = 1
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            if self._stream.eof and not self._next_stream():
                return 0
            data = self._rest
            if not data and self._stream.needs_input:
                data = self._packed.read(_CHUNK >> 2)
                if not data:
                    raise EOFError("it ends in the middle of its compressed data")
            self._rest = b""
            found: bytes = self._stream.decompress(data, len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)

    def _next_stream(self) -> bool:
        """Start the next of several concatenated streams. Other trailing data is padding, as for gzip."""
        self._rest = self._stream.unused_data
        if len(self._rest) < len(self._magic):
            self._rest += self._packed.read(_CHUNK >> 2)
        if not self._rest.startswith(self._magic):
            return False
        self._streams += 1
        if self._streams > MAX_STREAMS:
            raise _Refused(f"It is compressed in more than {MAX_STREAMS} pieces. Pack it in one.")
        self._stream = self._new()
        return True


def _decompress(archive: BinaryIO) -> BinaryIO:
    start = archive.read(6)
    archive.seek(0)
    for magic in _PACKINGS:
        if start.startswith(magic):
            return io.BufferedReader(_Decompressed(archive, magic), _CHUNK)
    return archive


class _Tape:
    """The input of `tarfile`: reads forward only, counts bytes, and limits the size of headers."""

    def __init__(self, source: BinaryIO, most: int, full: Callable[[], Exception]) -> None:
        self._source = source
        self._most = most
        self._too_large = full
        self._at = 0
        self._header_left: int | None = MAX_HEADER
        self._headers_left = MAX_HEADERS
        self.last = b""  # the last block read as a header

    def expect_header(self) -> None:
        self._end_header()
        self._header_left = MAX_HEADER

    def expect_content(self) -> None:
        self._end_header()
        self._header_left = None

    def _end_header(self) -> None:
        if self._header_left is not None:
            self._headers_left -= max(0, MAX_HEADER - self._header_left - 4 * _BLOCK)
        if self._headers_left < 0:
            raise _Refused(f"Its names and headers have more than {MAX_HEADERS >> 20} MiB.")

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> int:
        if position < self._at:
            raise tarfile.ReadError("a header in it leads backwards")
        while self._at < position:
            if not self._read(min(_CHUNK, position - self._at)):
                break
        return self._at

    def read(self, size: int) -> bytes:
        if size < 0:
            raise tarfile.ReadError("a size below 0")
        if self._header_left is None:
            return self._read(size)
        self._header_left -= size
        if self._header_left < 0:
            raise _Refused(f"One of its names or headers has more than {MAX_HEADER} bytes.")
        found = self._read(size)
        if _LONG_NUMBER.search(found):
            raise tarfile.ReadError("a number in a header is too long")
        if size == _BLOCK:
            self.last = found
        return found

    def _read(self, size: int) -> bytes:
        found = self._source.read(size)
        self._at += len(found)
        if self._at > self._most:
            raise self._too_large()
        return found


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except _Refused as error:
        raise InvalidInput({"repo": [f"The archive was refused: {error}"]}) from error
    except RecursionError as error:
        raise InvalidInput({"repo": ["The upload is not a tar archive: too many headers for one file"]}) from error
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _NAME_FAULTS:
            raise
        raise InvalidInput({"repo": [f"The upload is not a tar archive: {error}"]}) from error
