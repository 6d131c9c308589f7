"""Log files: the bytes that a run wrote, and beside them when and on which stream each piece came.

`<uuid>.log` holds the bytes. `<uuid>.log.times` holds fixed records (offset, microseconds since 1970, stream), each
written before the bytes that it speaks of, so the file is at all times a prefix of what the run wrote and every byte
in it is accounted for. Both sides use this module: the runner writes, the API reads.
"""

from __future__ import annotations

import codecs
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from polylocal.errors import StoreError
from polylocal.text import visible

STDOUT, STDERR = 1, 2
OWN = 3  # what polylocal itself has to say in a log: gaps and cuts. No part of what the run wrote
LOST = 4  # the same, where lines are missing that were in the log before
MARK = "polylocal: "  # each line of ours begins with it

_RECORD = struct.Struct("<QqB")
_CHUNK = 1 << 20
_STORED = 0x10  # flag beside the stream in a record
_SAME_MOMENT_US = 1000  # pieces of one stream within a millisecond share a record
_REPLACED = "\ufffd".encode()  # what the engine gives for a byte that is not UTF-8
_Number = tuple[int, int]  # a file's device and inode, which no other file has while it is open
_ENGINE_PIECE = 16 * 1024  # the engine stores a longer line in pieces of this many bytes


@dataclass(frozen=True)
class Piece:
    """A stretch of the log: from `offset` on, until the next piece, it came on `stream` at `time_us`.

    `is_stored`: it was caught up from the engine's storage, so it is in the form that the engine gives back.
    """

    offset: int
    time_us: int
    stream: int
    is_stored: bool = False


@dataclass
class Position:
    """How far the log of one stream is, in terms that survive the engine's own storage.

    The engine keeps lines as JSON text: bytes that are not UTF-8 come back as U+FFFD. Line ends are never changed,
    so whole lines are counted, and only the unfinished last line is measured, as the engine would give it.
    """

    lines: int = 0
    unfinished: int = 0  # bytes, as the engine gives them
    begun: bytes = b""  # the first bytes of a character whose rest has not come yet

    def skip(self, data: bytes) -> bytes:
        """What is left of `data` behind the unfinished line, which gets shorter by what was skipped."""
        skipped = min(self.unfinished, len(data))
        self.unfinished -= skipped
        return data[skipped:]


class LogChanged(Exception):
    """The log was changed by somebody else while it was written: shortened, removed or replaced, or its times were."""


class LogWriter:
    """Appends to one run's log. One thread at a time. An existing log is continued.

    Before each piece it sees whether the files are as it left them. If they are not, the log goes on with what is left
    of it, and a line says how many lines are missing; with `may_reread` LogChanged is raised instead, and the caller
    fetches the lines again after `reopen()`.
    """

    def __init__(
        self,
        path: Path,
        grew: Callable[[Path], None] = lambda path: None,
        *,
        max_mib: int | None = None,
        hide: Callable[[bytes], bytes] = lambda line: line,
        may_reread: bool = False,
    ) -> None:
        """`grew` is called after each piece: a hint for those who follow. `max_mib`: what is longer is cut, visibly.
        `hide`: what is not to be read in `line`s.

        Raises StoreError here and wherever something is written: there is no room, or the disk is read-only. The file
        holds what was written until then, and a writer that is opened later goes on.
        """
        self.path = path
        self._data_path, self._times_path = str(path), str(times_of(path))  # looked at before each piece
        self._grew = grew
        self._max_mib = max_mib
        self._hide = hide
        self._limit = sys.maxsize if max_mib is None else max_mib * 2**20
        self._last: Piece | None = None
        self._may_reread = may_reread
        self._begun_at = self._lines = 0  # the size when it was opened, and the lines written since then
        self._open()
        self._begun_at = self.size

    def _open(self) -> None:
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._data = self.path.open("ab", buffering=0)
            self._times = times_of(self.path).open("ab", buffering=0)
            self._drop_promises()
            self._opened = _number(os.fstat(self._data.fileno())), _number(os.fstat(self._times.fileno()))
        self._last = None

    @property
    def is_full(self) -> bool:
        """It was cut, and takes no more."""
        return self.size > self._limit

    def append(self, data: bytes, stream: int = STDOUT, time_us: int | None = None, *, is_stored: bool = False) -> None:
        """`time_us` None: now. `is_stored`: these bytes come from the engine's storage, not live."""
        if self.is_full:
            return
        room = self._limit - self.size
        if len(data) <= room:
            self._write(data, stream, time_us, is_stored)
            return
        self._write(data[:room], stream, time_us, is_stored)
        self.mark(f"the log is cut here: it has reached {self._max_mib} MiB (max_log_mib)")

    def line(self, text: str) -> None:
        """A line about the making of an image, in the log of a build."""
        self.append(self._hide(text.rstrip("\n").encode()) + b"\n")

    def say(self, text: str) -> None:
        """A sentence of polylocal's own there. It may name what others have named: nothing in it steers a terminal."""
        self.line(visible.message(text))

    def mark(self, text: str) -> None:
        """Say in the log of a run where and why it is not all that the run wrote."""
        line = f"{MARK}{visible.one_line(text)}\n".encode()
        self._mend()
        with _explained(self.path), self.path.open("rb") as file:
            file.seek(max(0, self.size - len(line)))
            end = file.read()
        if end == line:
            return  # it was said, and nothing has come since
        self._write((b"" if not end or end.endswith(b"\n") else b"\n") + line, OWN, None, False)

    def has_changed(self) -> bool:
        """Whether somebody else has shortened, removed or replaced the log or its times."""
        with _explained(self.path):
            data, times = self._opened
            return not (
                _is_as_left(self._data_path, data, self.size) and _is_as_left(self._times_path, times, self._times_size)
            )

    def reopen(self) -> int:
        """Go on with what is left. Returns how many lines are missing, as far as they were written by this writer."""
        was_replaced = not _is_as_left(self._data_path, self._opened[0], 0)
        are_spoiled = not _is_as_left(self._times_path, self._opened[1], self._times_size)
        self.close()
        if self._may_reread and (was_replaced or are_spoiled):  # they say nothing of the bytes any more
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
        """Forget everything behind `size`: it is written again."""
        with _explained(self.path):
            os.ftruncate(self._data.fileno(), min(size, self.size))
        self.close()
        self._open()
        if self.size and not has_times(self.path):  # whose those bytes were is not known
            _write_all(self._times, _RECORD.pack(0, time.time_ns() // 1000, OWN))
            self._times_size += _RECORD.size
        self._begun_at, self._lines = self.size, 0

    def say_lost(self, count: int, *, is_all: bool = True) -> None:
        """Say that lines are missing which were in the log before; not `is_all`: and others that nobody counted."""
        what = "one line is" if count == 1 else f"{count} lines are"
        what = what if is_all else f"at least {what}" if count else "lines are"
        text = f"{MARK}{what} missing here: the log was changed from outside\n"
        self._write(self._new_line() + text.encode(), LOST, None, False)

    def _new_line(self) -> bytes:
        """What ends a line that has not come to its end."""
        return b"" if not self.size or b"".join(read(self.path, self.size - 1)) == b"\n" else b"\n"

    def _mend(self) -> None:
        if not self.has_changed():
            return
        if self._may_reread:
            raise LogChanged(str(self.path))
        begun_at = self._begun_at
        missing = self.reopen()
        if missing or self.size < begun_at:
            self.say_lost(missing, is_all=self.size >= begun_at)

    def _write(self, data: bytes, stream: int, time_us: int | None, is_stored: bool) -> None:
        if not data:
            return
        self._mend()
        here = Piece(self.size, time.time_ns() // 1000 if time_us is None else time_us, stream, is_stored)
        with _explained(self.path):
            if not _continues(self._last, here):
                self._last = here
                _write_all(self._times, _RECORD.pack(here.offset, here.time_us, stream | (_STORED if is_stored else 0)))
                self._times_size += _RECORD.size
            _write_all(self._data, data)
        self.size += len(data)
        self._lines += data.count(b"\n")
        self._grew(self.path)

    def close(self) -> None:
        """Idempotent."""
        self._data.close()
        self._times.close()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _drop_promises(self) -> None:
        """Records whose bytes were never written: the process ended between the two, or the disk was full."""
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


def _is_as_left(path: str, number: _Number, size: int) -> bool:
    """Whether that file is there still, and no shorter."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return False
    # after a write that found no room more may lie there than was counted
    return _number(about) == number and about.st_size >= size


def has_times(path: Path) -> bool:
    """Whether the times of a log can be those of its bytes: without them nobody knows which stream a line was on."""
    if not _size(path):
        return True
    first = next(pieces(path), None)
    return first is not None and first.offset == 0


def _continues(last: Piece | None, here: Piece) -> bool:
    """Whether a piece is told apart from the one before it at all."""
    if last is None or (last.stream, last.is_stored) != (here.stream, here.is_stored):
        return False
    return 0 <= here.time_us - last.time_us < _SAME_MOMENT_US


@contextmanager
def _explained(path: Path) -> Iterator[None]:
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
    """The pieces of a log in order, from the one that holds the byte `start`; none for a log without records."""
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
    """The number of the last record that begins at or before `offset`: records have one size, so halves are tried."""
    low, high = 0, file.seek(0, os.SEEK_END) // _RECORD.size
    while high - low > 1:
        middle = (low + high) // 2
        file.seek(middle * _RECORD.size)
        begins = _RECORD.unpack(file.read(_RECORD.size))[0]
        low, high = (middle, high) if begins <= offset else (low, middle)
    return low


def read(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes from `start` to `end` (or to what there is), in chunks; nothing if there is no log yet."""
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
    """The log from `start` on as (stream, bytes)."""
    for piece, data in _by_piece(path, start):
        yield piece.stream, data


def _behind_lines(data: bytes, lines: int) -> tuple[bytes, int]:
    """What follows so many lines, and how many of them are still to come."""
    if not lines:
        return data, 0
    count = data.count(b"\n")
    if count < lines:
        return b"", lines - count
    at = -1
    for _ in range(lines):
        at = data.index(b"\n", at + 1)
    return data[at + 1 :], 0


@dataclass
class Tail:
    """How far somebody who follows a log has read it, also where the log is shortened or replaced meanwhile.

    What was read is then read over once more and left out, by its number of lines: it is written to the log again. It
    is not where the log says that lines are missing: then reading goes on with that line.
    """

    path: Path
    offset: int = 0
    _lines: int = 0  # that were given
    _rest: int = 0  # bytes that were given of a line that has no end yet
    _left_lines: int = 0  # to leave out
    _left_rest: int = 0
    _number: tuple[int, int] | None = None  # of the file
    _read_at_us: int = 0

    def begin(self) -> None:
        """Before each reading: see whether the log is still what it was."""
        try:
            about = self.path.stat()
            number, size = (about.st_dev, about.st_ino), about.st_size
        except FileNotFoundError:
            number, size = None, 0
        if size < self.offset or self._number not in (None, number):
            self.offset, self._left_lines, self._left_rest = 0, self._lines, self._rest
        self._number = number
        now_us = time.time_ns() // 1000
        if self._left_lines or self._left_rest:
            offset = self._lost_at()
            if offset is None:
                return
            self.offset, self._left_lines, self._left_rest = offset, 0, 0
        self._read_at_us = now_us  # what is said until here is read once

    def _lost_at(self) -> int | None:
        """Where the log says that lines are missing, if it has said so since the last reading."""
        said = [piece for piece in pieces(self.path) if piece.stream == LOST and piece.time_us >= self._read_at_us]
        return said[-1].offset if said else None

    def take(self, data: bytes) -> bytes:
        """What of the next bytes was not given before."""
        self.offset += len(data)
        data, self._left_lines = _behind_lines(data, self._left_lines)
        skipped = min(self._left_rest, len(data))
        self._left_rest -= skipped
        data = data[skipped:]
        if count := data.count(b"\n"):
            self._lines += count
            self._rest = len(data) - data.rindex(b"\n") - 1
        else:
            self._rest += len(data)
        return data


@dataclass
class Stamped(Tail):
    """The log with `YYYY-mm-dd HH:MM:SS UTC -- ` before each line, the form that later clients know.

    Each `read` gives what has come since the one before.
    """

    _at_line_start: bool = True

    def read(self) -> Iterator[bytes]:
        made: list[bytes] = []
        size = 0
        self.begin()
        for piece, found in _by_piece(self.path, self.offset):
            if not (data := self.take(found)):
                continue
            made.append(self._with_stamps(data, _stamp(piece)))
            size += len(made[-1])
            if size > _CHUNK:  # in few large pieces: each is a way to a thread and back for who follows
                yield b"".join(made)
                made, size = [], 0
        if made:
            yield b"".join(made)

    def _with_stamps(self, data: bytes, stamp: bytes) -> bytes:
        first = stamp if self._at_line_start else b""
        self._at_line_start = data.endswith(b"\n")
        whole = data[:-1] if self._at_line_start else data
        return first + whole.replace(b"\n", b"\n" + stamp) + (b"\n" if self._at_line_start else b"")


def _stamp(piece: Piece) -> bytes:
    return datetime.fromtimestamp(piece.time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC -- ").encode()


def stamped(path: Path) -> Iterator[bytes]:
    """All of a log as `Stamped` gives it."""
    return Stamped(path).read()


def positions(path: Path, start: int = 0) -> dict[int, Position]:
    """Where each stream stands: what a log that is taken up again must not repeat.

    `start`: where the output of the present container begins in it, in bytes.
    """
    meters = {STDOUT: _Meter(), STDERR: _Meter()}
    for piece, data in _by_piece(path, start):
        if piece.stream in meters:
            meters[piece.stream].feed(data, piece.is_stored)
    return {stream: meter.position() for stream, meter in meters.items()}


@dataclass
class CatchUp:
    """Of what the engine gives from the start, lets through only what comes after `positions`."""

    positions: dict[int, Position]
    _left: dict[int, Position] = field(init=False)

    def __post_init__(self) -> None:
        self._left = {s: Position(p.lines, p.unfinished, p.begun) for s, p in self.positions.items()}

    def __call__(self, stream: int, data: bytes) -> bytes:
        left = self._left.setdefault(stream, Position())
        data, left.lines = _behind_lines(data, left.lines)
        if left.lines:
            return b""
        data = left.skip(data)
        if left.begun and data:
            # the engine has the whole character, or found that there was none and gave something for each byte
            n = min(len(left.begun), len(data))
            is_whole = data[:n] == left.begun[:n]
            left.unfinished = len(left.begun) if is_whole else len(left.begun) * len(_REPLACED)
            left.begun = b""
            data = left.skip(data)
        return data


def _by_piece(path: Path, start: int) -> Iterator[tuple[Piece, bytes]]:
    end = _size(path)  # asked first: what was written until now has its records; what comes meanwhile may not
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


class _Meter:
    """Counts lines, and measures the unfinished one as the engine's storage would give it back."""

    def __init__(self) -> None:
        self._lines = 0
        self._measured = 0
        self._room = _ENGINE_PIECE
        self._decoder = _new_decoder()

    def feed(self, data: bytes, is_stored: bool) -> None:
        newlines = data.count(b"\n")
        if newlines:
            self._lines += newlines
            self._restart()
            data = data[data.rindex(b"\n") + 1 :]
        if is_stored:  # in the engine's form already
            begun, _ = self._decoder.getstate()
            goes_on = data and data[0] & 0xC0 == 0x80  # with the rest of the character: the engine had all of it
            self._measured += len(data) + (len(begun) if goes_on else len(begun) * len(_REPLACED))
            self._decoder.reset()
            return
        while data:
            piece, data = data[: self._room], data[self._room :]
            self._measured += _length(self._decoder.decode(piece))
            self._room -= len(piece)
            if not self._room:  # the engine decodes each of its pieces by itself
                self._measured += _length(self._decoder.decode(b"", final=True))
                self._decoder.reset()
                self._room = _ENGINE_PIECE

    def position(self) -> Position:
        begun, _ = self._decoder.getstate()
        return Position(self._lines, self._measured, begun)

    def _restart(self) -> None:
        self._measured = 0
        self._room = _ENGINE_PIECE
        self._decoder = _new_decoder()


def _new_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("polylocal-replace-bytes")


def _length(text: str) -> int:
    return len(text.encode())


def _replace_bytes(error: UnicodeError) -> tuple[str, int]:
    """One U+FFFD for each byte that is not UTF-8: what the engine's JSON writer does."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("polylocal-replace-bytes", _replace_bytes)
