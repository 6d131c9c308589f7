"""Sparse files: their data is read and written, their holes are skipped.

`truncate -s 60G` makes a file in no time that takes minutes to read. What this module does takes time by the bytes on
the disk, whatever the size says.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Sequence
from typing import BinaryIO

Extent = tuple[int, int]  # offset and length of data

LEAST = 64 * 1024  # bytes: smaller holes are handled as data
MOST_EXTENTS = 200_000
_CHUNK = 1 << 20
_BLOCK = 512
_SLACK = 1 << 30


def holes(about: os.stat_result) -> int:
    """Bytes of a file that are not on the disk. On a file system that compresses, not all of them are in holes."""
    return max(0, about.st_size - about.st_blocks * _BLOCK) if stat.S_ISREG(about.st_mode) else 0


def is_sparse(about: os.stat_result) -> bool:
    """Whether a file has holes that are worth skipping."""
    return holes(about) >= LEAST


def extents(handle: int, about: os.stat_result) -> list[Extent]:
    """Where an open file has data, in order. The whole file where the file system does not tell.

    Raises OSError EFBIG for a file with so many holes, so far apart, that no list of them can be kept.
    """
    found: list[Extent] = []
    at, least = 0, LEAST
    while at < about.st_size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            if error.errno == errno.EINVAL:
                return [(0, about.st_size)]
            raise
        at = min(os.lseek(handle, start, os.SEEK_HOLE), about.st_size)
        _add(found, start, at, least)
        if len(found) > MOST_EXTENTS:
            while len(found) > MOST_EXTENTS // 2:
                least *= 2
                found = _joined(found, least)
            if _length(found) > 4 * about.st_blocks * _BLOCK + _SLACK:
                raise OSError(errno.EFBIG, "the file has too many holes")
    return found


def has_more_holes(handle: int, most: int) -> bool:
    """Whether an open file has more than `most` bytes in holes. Raises OSError as `extents`."""
    about = os.fstat(handle)
    return holes(about) > most and about.st_size - _length(extents(handle, about)) > most


def _length(parts: Sequence[Extent]) -> int:
    return sum(length for _, length in parts)


def _joined(found: Sequence[Extent], least: int) -> list[Extent]:
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
    """Copy a file with the size that it has now, holes as holes; one that grows meanwhile is copied up to there."""
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
    """What a tar holds of an open file: exactly the bytes that its header promises, whatever happens to the file.

    One that grows is read up to its size of the beginning; one that shrinks, or can't be read, is filled up with zeros
    (`lack` of them, `why`).
    """

    def __init__(self, file: BinaryIO, size: int, parts: Sequence[Extent] | None = None) -> None:
        self._file = file
        self._parts = list(reversed(parts)) if parts is not None else [(0, size)]
        self._head = _map_of(parts, size) if parts is not None else b""
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


def _map_of(parts: Sequence[Extent], size: int) -> bytes:
    """The list of extents in front of the data, as GNU tar writes it in format 1.0."""
    listed = list(parts)
    if not listed or sum(listed[-1]) < size:
        listed.append((size, 0))
    text = f"{len(listed)}\n" + "".join(f"{start}\n{length}\n" for start, length in listed)
    return text.encode().ljust(-(-len(text) // _BLOCK) * _BLOCK, b"\0")


def prepare(member: tarfile.TarInfo, file: BinaryIO, with_holes: bool = True) -> Content:
    """The content of a file that goes into a PAX archive, and what its header says of it.

    If `with_holes`, files with holes become sparse members, as GNU tar, bsdtar and Python's own module read them.
    """
    about = os.fstat(file.fileno())
    if not with_holes or not is_sparse(about):
        content = Content(file, about.st_size)
        member.size = content.size
        return content
    parts = extents(file.fileno(), about)
    if about.st_size - _length(parts) < LEAST:  # compressed, and plain to those who unpack it
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
