"""Reads and copies sparse files without reading their holes.

`truncate -s 60G` creates a file at once that takes minutes to read. Here the time depends on the bytes on the disk, not
on the size of the file.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Sequence
from typing import BinaryIO

Extent = tuple[int, int]  # offset and length of data

MIN_HOLE = 64 * 1024  # bytes; smaller holes count as data
MAX_EXTENTS = 200_000
_CHUNK = 1 << 20
_BLOCK = 512
_SLACK = 1 << 30


def holes(about: os.stat_result) -> int:
    """Bytes of a file that use no disk space. On a compressing file system, some of them are data."""
    return max(0, about.st_size - about.st_blocks * _BLOCK) if stat.S_ISREG(about.st_mode) else 0


def is_sparse(about: os.stat_result) -> bool:
    """Whether a file has holes large enough to skip."""
    return holes(about) >= MIN_HOLE


def extents(handle: int, about: os.stat_result) -> list[Extent]:
    """The parts of an open file that hold data, in order; the whole file if the file system does not report holes.

    Raises OSError EFBIG if the file has too many holes for a list.
    """
    found: list[Extent] = []
    at, least = 0, MIN_HOLE
    while at < about.st_size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # the rest is a hole
                break
            if error.errno == errno.EINVAL:
                return [(0, about.st_size)]
            raise
        at = min(os.lseek(handle, start, os.SEEK_HOLE), about.st_size)
        _add(found, start, at, least)
        if len(found) > MAX_EXTENTS:
            while len(found) > MAX_EXTENTS // 2:
                least *= 2
                found = _join(found, least)
            if _length(found) > 4 * about.st_blocks * _BLOCK + _SLACK:
                raise OSError(errno.EFBIG, "the file has too many holes")
    return found


def has_more_holes(handle: int, most: int) -> bool:
    """Whether an open file has more than `most` bytes in holes. Raises OSError as `extents`."""
    about = os.fstat(handle)
    return holes(about) > most and about.st_size - _length(extents(handle, about)) > most


def _length(parts: Sequence[Extent]) -> int:
    return sum(length for _, length in parts)


def _join(found: Sequence[Extent], least: int) -> list[Extent]:
    joined: list[Extent] = []
    for start, length in found:
        _add(joined, start, start + length, least)
    return joined


def _add(found: list[Extent], start: int, end: int, least: int) -> None:
    if start >= end:
        return
    if found and start - sum(found[-1]) < least:
        start, _ = found.pop()
    found.append((start, end - start))


def copy(source: BinaryIO, target: BinaryIO) -> None:
    """Copy a file up to its present size, and keep its holes."""
    about = os.fstat(source.fileno())
    for start, length in extents(source.fileno(), about):
        source.seek(start)
        target.seek(start)
        while length and (chunk := source.read(min(_CHUNK, length))):
            target.write(chunk)
            length -= len(chunk)
    target.flush()
    os.ftruncate(target.fileno(), about.st_size)


class Content:
    """The content of an open file for a tar: exactly as many bytes as its header says, even if the file changes.

    If the file shrinks or can't be read, zeros fill the rest: `lack` is their number, `why` the reason.
    """

    def __init__(self, file: BinaryIO, size: int, parts: Sequence[Extent] | None = None) -> None:
        self._file = file
        self._parts = list(reversed(parts)) if parts is not None else [(0, size)]
        self._head = _extent_map(parts, size) if parts is not None else b""
        self._is_at: int | None = None if parts is not None else 0
        self.size = len(self._head) + _length(self._parts)
        self.lack = 0
        self.why = ""

    def read(self, size: int = _CHUNK) -> bytes:
        made = bytearray(self._head[:size])
        self._head = self._head[size:]
        while len(made) < size and self._parts:
            start, length = self._parts.pop()
            wanted = min(length, size - len(made))
            made += self._read(start, wanted)
            if wanted < length:
                self._parts.append((start + wanted, length - wanted))
        return bytes(made)

    def _read(self, start: int, size: int) -> bytes:
        try:
            if self._is_at != start:
                self._file.seek(start)
            data = self._file.read(size) or b""
        except OSError as error:
            data, self.why = b"", error.strerror or str(error)
        self._is_at = start + size if len(data) == size else None
        if len(data) < size:
            self.lack += size - len(data)
            self.why = self.why or "it became shorter meanwhile"
        return data.ljust(size, b"\0")


def _extent_map(parts: Sequence[Extent], size: int) -> bytes:
    """The list of extents that precedes the data in GNU tar's sparse format 1.0."""
    listed = list(parts)
    if not listed or sum(listed[-1]) < size:
        listed.append((size, 0))
    text = f"{len(listed)}\n" + "".join(f"{start}\n{length}\n" for start, length in listed)
    return text.encode().ljust(-(-len(text) // _BLOCK) * _BLOCK, b"\0")


def prepare(member: tarfile.TarInfo, file: BinaryIO, with_holes: bool = True) -> Content:
    """Prepare the content of a file and the header of its member in a PAX archive.

    `with_holes`: write files with holes as sparse members, which GNU tar, bsdtar and Python can read.
    """
    about = os.fstat(file.fileno())
    if not with_holes or not is_sparse(about):
        content = Content(file, about.st_size)
        member.size = content.size
        return content
    parts = extents(file.fileno(), about)
    if about.st_size - _length(parts) < MIN_HOLE:  # compressed on the disk, not sparse
        return prepare(member, file, with_holes=False)
    content = Content(file, about.st_size, parts)
    folder, _, name = member.name.rpartition("/")
    member.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": member.name,
        "GNU.sparse.realsize": str(about.st_size),
    }
    member.name = "/".join(part for part in (folder, "GNUSparseFile.0", name) if part)
    member.size = content.size
    return content
