"""Log files: the output of a run, and the time and the stream of each piece of it.

`<uuid>.log` contains the bytes. `<uuid>.log.times` contains records of a fixed size (offset, microseconds since 1970,
stream). A record is written before its bytes. So at any time the log is a prefix of the run's output, and each byte
has a record. The runner writes with this module, the API reads.
"""

from __future__ import annotations

import codecs
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from polylocal.engine.containers import STORED_PIECE
from polylocal.errors import StoreError
from polylocal.text import visible

STDOUT, STDERR = 1, 2
OWN = 3  # polylocal's own messages: gaps and cuts. Not part of the run's output
LOST = 4  # a message of polylocal that lines of the log were lost
MARK = "polylocal: "  # prefix of polylocal's own lines

_RECORD = struct.Struct("<QqB")
_CHUNK = 1 << 20
_STORED = 0x10  # flag in the stream byte of a record
_SAME_MOMENT_US = 1000  # pieces of one stream within a millisecond share a record
_REPLACED = "\ufffd".encode()  # what the engine returns for a byte that is not UTF-8
_Number = tuple[int, int]  # device and inode; unique while the file is open


@dataclass(frozen=True)
class Piece:
    """A piece of the log, from `offset` to the next piece: its time in microseconds and its stream.

    `is_stored`: the piece was read from the engine's storage, not live, so it has the form that the engine returns.
    """

    offset: int
    time_us: int
    stream: int
    is_stored: bool = False


@dataclass
class Position:
    """The end of one stream of the log, in units that the engine's storage preserves.

    The engine stores lines as JSON text and returns U+FFFD for bytes that are not UTF-8. It never changes line ends:
    complete lines are counted, and only the incomplete last line is measured in the bytes that the engine returns.
    """

    lines: int = 0
    unfinished: int = 0  # bytes of the incomplete line, as the engine returns them
    begun: bytes = b""  # the first bytes of an incomplete character

    def skip(self, data: bytes) -> bytes:
        """Remove the counted lines and bytes from the start of `data`, and from the counts."""
        if self.lines:
            count = data.count(b"\n")
            if count < self.lines:
                self.lines -= count
                return b""
            at = -1
            for _ in range(self.lines):
                at = data.index(b"\n", at + 1)
            data, self.lines = data[at + 1 :], 0
        skipped = min(self.unfinished, len(data))
        self.unfinished -= skipped
        return data[skipped:]


class LogChanged(Exception):
    """Another process shortened, removed or replaced the log or its times while it was written."""


class LogWriter(AbstractContextManager["LogWriter"]):
    """Appends to the log of a run, new or existing. Not thread-safe.

    Before each write, the writer checks that the files are unchanged. If another process changed them, the writer adds
    a line with the number of lost lines and continues. With `may_reread` it raises LogChanged instead: then the caller
    calls `reopen()` and fetches the lines again.
    """

    def __init__(
        self,
        path: Path,
        on_growth: Callable[[Path], None] = lambda path: None,
        *,
        max_mib: int | None = None,
        hide: Callable[[bytes], bytes] = lambda line: line,
        may_reread: bool = False,
    ) -> None:
        """`on_growth` is called after each write. `max_mib`: longest log, in MiB. `hide` masks secrets in a `line`.

        The constructor and all methods that write raise StoreError if the disk is full or read-only. The file keeps
        what was written, and a later writer can continue it.
        """
        self.path = path
        self._data_path, self._times_path = str(path), str(times_of(path))  # checked before each write
        self._on_growth = on_growth
        self._max_mib = max_mib
        self._hide = hide
        self._limit = sys.maxsize if max_mib is None else max_mib * 2**20
        self._last: Piece | None = None
        self._may_reread = may_reread
        self._begun_at = self._lines = 0  # the size when it was opened, and the lines written since then
        self._open()
        self._begun_at = self.size

    def _open(self) -> None:
        with _translated_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._data = self.path.open("ab", buffering=0)
            self._times = times_of(self.path).open("ab", buffering=0)
            self._drop_empty_records()
            self._opened = _number(os.fstat(self._data.fileno())), _number(os.fstat(self._times.fileno()))
        self._last = None

    @property
    def is_full(self) -> bool:
        """Whether the log reached its limit and was cut."""
        return self.size > self._limit

    def append(self, data: bytes, stream: int = STDOUT, time_us: int | None = None, *, is_stored: bool = False) -> None:
        """`time_us`: microseconds since 1970; None: now. `is_stored`: see `Piece`."""
        if self.is_full:
            return
        room = self._limit - self.size
        if len(data) <= room:
            self._write(data, stream, time_us, is_stored)
            return
        self._write(data[:room], stream, time_us, is_stored)
        self.write_gap(f"the log is cut here: it has reached {self._max_mib} MiB (max_log_mib)")

    def write_line(self, text: str) -> None:
        """Append a line to the log of a build."""
        self.append(self._hide(text.rstrip("\n").encode()) + b"\n")

    def write_message(self, text: str) -> None:
        """Append a message of polylocal to the log of a build, with control characters escaped."""
        self.write_line(visible.message(text))

    def write_gap(self, text: str) -> None:
        """Mark a place in the log of a run where output is missing, with the reason."""
        line = f"{MARK}{visible.one_line(text)}\n".encode()
        self._recover()
        with _translated_errors(self.path), self.path.open("rb") as file:
            file.seek(max(0, self.size - len(line)))
            end = file.read()
        if end == line:
            return  # the log already ends with this line
        self._write((b"" if not end or end.endswith(b"\n") else b"\n") + line, OWN, None, False)

    def has_changed(self) -> bool:
        """Whether another process shortened, removed or replaced the log or its times."""
        with _translated_errors(self.path):
            data, times = self._opened
            is_same = _is_unchanged(self._data_path, data, self.size)
            return not (is_same and _is_unchanged(self._times_path, times, self._times_size))

    def reopen(self) -> int:
        """Continue a log that another process changed. Returns how many of this writer's lines are missing."""
        was_replaced = not _is_unchanged(self._data_path, self._opened[0], 0)
        are_spoiled = not _is_unchanged(self._times_path, self._opened[1], self._times_size)
        self.close()
        if self._may_reread and (was_replaced or are_spoiled):  # they no longer match the bytes
            times_of(self.path).unlink(missing_ok=True)
        self._open()
        if was_replaced:
            missing = self._lines
        else:
            left = sum(chunk.count(b"\n") for chunk in read(self.path, min(self._begun_at, self.size), self.size))
            missing = max(0, self._lines - left)
        self._begun_at, self._lines = self.size, 0
        return missing

    def rewind(self, size: int) -> None:
        """Cut the log to `size` bytes, to write the rest again."""
        with _translated_errors(self.path):
            os.ftruncate(self._data.fileno(), min(size, self.size))
        self.close()
        self._open()
        if self.size and not has_times(self.path):  # the stream of the remaining bytes is unknown
            _write_all(self._times, _RECORD.pack(0, time.time_ns() // 1000, OWN))
            self._times_size += _RECORD.size
        self._begun_at, self._lines = self.size, 0

    def write_lost(self, count: int, *, is_all: bool = True) -> None:
        """Append a message that lines were lost. `is_all`: `count` is exact, not a minimum."""
        what = "one line is" if count == 1 else f"{count} lines are"
        what = what if is_all else f"at least {what}" if count else "lines are"
        text = f"{MARK}{what} missing here: the log was changed from outside\n"
        self._write(self._new_line() + text.encode(), LOST, None, False)

    def _new_line(self) -> bytes:
        """A line end if the log ends with an incomplete line."""
        return b"" if not self.size or b"".join(read(self.path, self.size - 1)) == b"\n" else b"\n"

    def _recover(self) -> None:
        if not self.has_changed():
            return
        if self._may_reread:
            raise LogChanged(str(self.path))
        begun_at = self._begun_at
        missing = self.reopen()
        if missing or self.size < begun_at:
            self.write_lost(missing, is_all=self.size >= begun_at)

    def _write(self, data: bytes, stream: int, time_us: int | None, is_stored: bool) -> None:
        if not data:
            return
        self._recover()
        here = Piece(self.size, time.time_ns() // 1000 if time_us is None else time_us, stream, is_stored)
        with _translated_errors(self.path):
            if not _shares_record(self._last, here):
                self._last = here
                _write_all(self._times, _RECORD.pack(here.offset, here.time_us, stream | (_STORED if is_stored else 0)))
                self._times_size += _RECORD.size
            _write_all(self._data, data)
        self.size += len(data)
        self._lines += data.count(b"\n")
        self._on_growth(self.path)

    def close(self) -> None:
        """Idempotent."""
        self._data.close()
        self._times.close()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _drop_empty_records(self) -> None:
        """Remove records without bytes: the process ended, or the disk was full, between the two writes."""
        self.size = self._data.seek(0, os.SEEK_END)
        records = self._times.seek(0, os.SEEK_END) // _RECORD.size
        with times_of(self.path).open("rb") as file:
            while records:
                file.seek((records - 1) * _RECORD.size)
                if _RECORD.unpack(file.read(_RECORD.size))[0] < self.size:
                    break
                records -= 1
        self._times_size = records * _RECORD.size
        os.ftruncate(self._times.fileno(), self._times_size)


def _number(about: os.stat_result) -> _Number:
    return about.st_dev, about.st_ino


def _is_unchanged(path: str, number: _Number, size: int) -> bool:
    """Whether the path still leads to the same file, which is not shorter than `size`."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return False
    # a write that failed on a full disk may have added bytes
    return _number(about) == number and about.st_size >= size


def has_times(path: Path) -> bool:
    """Whether the log has records from its first byte on. Without them, the streams of its lines are unknown."""
    if not _size(path):
        return True
    first = next(pieces(path), None)
    return first is not None and first.offset == 0


def _shares_record(last: Piece | None, here: Piece) -> bool:
    """Whether a piece can share the record of the piece before it."""
    if last is None or (last.stream, last.is_stored) != (here.stream, here.is_stored):
        return False
    return 0 <= here.time_us - last.time_us < _SAME_MOMENT_US


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"The log {path} can't be written: {error.strerror or error}") from error


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def times_of(path: Path) -> Path:
    return path.with_name(path.name + ".times")


def pieces(path: Path, start: int = 0) -> Iterator[Piece]:
    """The pieces of a log in order, beginning with the one that contains the byte `start`."""
    try:
        with times_of(path).open("rb") as file:
            file.seek(_record_of(file, start) * _RECORD.size)
            while block := file.read(_RECORD.size * 4096):
                whole = len(block) - len(block) % _RECORD.size
                for offset, time_us, stream in _RECORD.iter_unpack(block[:whole]):
                    yield Piece(offset, time_us, stream & ~_STORED, bool(stream & _STORED))
    except FileNotFoundError:
        return


def _record_of(file: BinaryIO, offset: int) -> int:
    """The index of the last record at or before `offset`, by binary search."""
    low, high = 0, file.seek(0, os.SEEK_END) // _RECORD.size
    while high - low > 1:
        middle = (low + high) // 2
        file.seek(middle * _RECORD.size)
        begins = _RECORD.unpack(file.read(_RECORD.size))[0]
        low, high = (middle, high) if begins <= offset else (low, middle)
    return low


def read(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes from `start` to `end`, or to the end of the file, in chunks; nothing if the log does not exist."""
    left = sys.maxsize if end is None else end - start
    try:
        with path.open("rb") as file:
            file.seek(start)
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk
    except FileNotFoundError:
        return


def streams(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(stream, bytes) of the log from `start` on."""
    for piece, data in _iter_pieces(path, start):
        yield piece.stream, data


@dataclass
class Tail:
    """The position of a reader who follows a log, even if the log is shortened or replaced meanwhile.

    The writer usually writes a damaged log again. So the reader starts again and skips as many lines as it has read. If
    the log contains a message that lines were lost, the reader continues with that message.
    """

    path: Path
    offset: int = 0
    _lines: int = 0  # complete lines that were returned
    _rest: int = 0  # bytes of the incomplete line that were returned
    _left: Position = field(default_factory=Position)  # to skip
    _number: _Number | None = None
    _read_at_us: int = 0

    def refresh(self) -> None:
        """Check the log for changes. To be called before each reading."""
        try:
            about = self.path.stat()
            number, size = (about.st_dev, about.st_ino), about.st_size
        except FileNotFoundError:
            number, size = None, 0
        if size < self.offset or self._number not in (None, number):
            self.offset, self._left = 0, Position(self._lines, self._rest)
        self._number = number
        now_us = time.time_ns() // 1000
        if self._left.lines or self._left.unfinished:
            offset = self._lost_at()
            if offset is None:
                return
            self.offset, self._left = offset, Position()
        self._read_at_us = now_us  # earlier messages about lost lines count as read

    def _lost_at(self) -> int | None:
        """The offset of the last message about lost lines since the last reading; None if there is none."""
        messages = [piece for piece in pieces(self.path) if piece.stream == LOST and piece.time_us >= self._read_at_us]
        return messages[-1].offset if messages else None

    def new_bytes(self, data: bytes) -> bytes:
        """The part of the next bytes that was not returned before."""
        self.offset += len(data)
        data = self._left.skip(data)
        if count := data.count(b"\n"):
            self._lines += count
            self._rest = len(data) - data.rindex(b"\n") - 1
        else:
            self._rest += len(data)
        return data


@dataclass
class Stamped(Tail):
    """The log with `YYYY-mm-dd HH:MM:SS UTC -- ` before each line, as later versions of the clients expect it.

    Each `read` returns the output since the one before.
    """

    _at_line_start: bool = True

    def read(self) -> Iterator[bytes]:
        made: list[bytes] = []
        size = 0
        self.refresh()
        for piece, found in _iter_pieces(self.path, self.offset):
            if not (data := self.new_bytes(found)):
                continue
            written = datetime.fromtimestamp(piece.time_us / 1e6, UTC)
            made.append(self._with_stamps(data, written.strftime("%Y-%m-%d %H:%M:%S UTC -- ").encode()))
            size += len(made[-1])
            if size > _CHUNK:  # large chunks: each costs the reader a switch between threads
                yield b"".join(made)
                made, size = [], 0
        if made:
            yield b"".join(made)

    def _with_stamps(self, data: bytes, stamp: bytes) -> bytes:
        first = stamp if self._at_line_start else b""
        self._at_line_start = data.endswith(b"\n")
        whole = data[:-1] if self._at_line_start else data
        return first + whole.replace(b"\n", b"\n" + stamp) + (b"\n" if self._at_line_start else b"")


def with_timestamps(path: Path) -> Iterator[bytes]:
    """The whole log with a timestamp before each line."""
    return Stamped(path).read()


def positions(path: Path, start: int = 0) -> dict[int, Position]:
    """The end of each stream, at which a resumed log continues.

    `start`: offset of the output of the present container, in bytes.
    """
    meters = {STDOUT: _LineCounter(), STDERR: _LineCounter()}
    for piece, data in _iter_pieces(path, start):
        if piece.stream in meters:
            meters[piece.stream].feed(data, piece.is_stored)
    return {stream: meter.position() for stream, meter in meters.items()}


@dataclass
class StoredLogFilter:
    """Filters the output that the engine returns from the start, and passes on the part after `positions`."""

    positions: dict[int, Position]
    _left: dict[int, Position] = field(init=False)

    def __post_init__(self) -> None:
        self._left = {s: Position(p.lines, p.unfinished, p.begun) for s, p in self.positions.items()}

    def __call__(self, stream: int, data: bytes) -> bytes:
        left = self._left.setdefault(stream, Position())
        data = left.skip(data)
        if left.begun and data:
            # the engine returns the whole character, or a replacement for each of its bytes
            n = min(len(left.begun), len(data))
            is_whole = data[:n] == left.begun[:n]
            left.unfinished = len(left.begun) if is_whole else len(left.begun) * len(_REPLACED)
            left.begun = b""
            data = left.skip(data)
        return data


def _iter_pieces(path: Path, start: int) -> Iterator[tuple[Piece, bytes]]:
    end = _size(path)  # read first: bytes up to here have records
    index = pieces(path, start)
    current = next(index, Piece(0, 0, STDOUT))
    following = next(index, None)
    offset = start
    for chunk in read(path, start, end):
        view = chunk
        while view:
            while following and following.offset <= offset:
                current, following = following, next(index, None)
            length = min(len(view), following.offset - offset) if following else len(view)
            yield current, view[:length]
            view, offset = view[length:], offset + length


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class _LineCounter:
    """Counts complete lines, and measures the incomplete one in the bytes that the engine returns."""

    def __init__(self) -> None:
        self._lines = 0
        self._restart()

    def _restart(self) -> None:
        self._measured = 0
        self._room = STORED_PIECE
        self._decoder = codecs.getincrementaldecoder("utf-8")("polylocal-replace-bytes")

    def feed(self, data: bytes, is_stored: bool) -> None:
        newlines = data.count(b"\n")
        if newlines:
            self._lines += newlines
            self._restart()
            data = data[data.rindex(b"\n") + 1 :]
        if is_stored:  # already in the form that the engine returns
            begun, _ = self._decoder.getstate()
            goes_on = data and data[0] & 0xC0 == 0x80  # the rest of a character that the engine has complete
            self._measured += len(data) + (len(begun) if goes_on else len(begun) * len(_REPLACED))
            self._decoder.reset()
            return
        while data:
            piece, data = data[: self._room], data[self._room :]
            self._measured += _length(self._decoder.decode(piece))
            self._room -= len(piece)
            if not self._room:  # the engine decodes each piece separately
                self._measured += _length(self._decoder.decode(b"", final=True))
                self._decoder.reset()
                self._room = STORED_PIECE

    def position(self) -> Position:
        begun, _ = self._decoder.getstate()
        return Position(self._lines, self._measured, begun)


def _length(text: str) -> int:
    return len(text.encode())


def _replace_bytes(error: UnicodeError) -> tuple[str, int]:
    """One U+FFFD per invalid byte, like the engine's JSON encoder."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("polylocal-replace-bytes", _replace_bytes)
