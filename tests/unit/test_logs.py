"""A log is always a prefix of the run's output. After catching up with the engine it contains each byte once.

`engine_view` simulates the engine's json-file storage: each stream is stored line by line, a line in pieces of 16 KiB,
and each piece as text in which an invalid byte of UTF-8 is replaced by U+FFFD.
"""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polylocal.files import logs
from polylocal.files.logs import STDERR, STDOUT, LogWriter, Piece, StoredLogFilter

Pieces = list[tuple[int, bytes]]

ENGINE_PIECE = 16 * 1024
LOST = "\ufffd".encode()
STREAMS = (STDOUT, STDERR)

# (stream, unit, repetitions): short in a report, long in a log
Rough = list[tuple[int, bytes, int]]

TIMES = st.just(1) | st.sampled_from([2, 8192, 16383, 16384, 20000])
# half of a U+FFFD that the run wrote can't be distinguished from one that the engine inserted
LETTERS = st.characters(codec="utf-8", exclude_characters="\ufffd")
TEXT_UNITS = st.text(LETTERS, max_size=12).map(str.encode) | st.sampled_from(["a\n", "\n", "üö", "😀\n", "é"]).map(
    str.encode
)
UNITS = TEXT_UNITS | st.binary(max_size=12) | st.sampled_from([b"\xe2\x82", b"\xac", b"\xf0\x9f", b"\r\n", b"\xff"])
TEXTS = st.lists(st.tuples(st.sampled_from(STREAMS), TEXT_UNITS, st.just(1)), max_size=12)
LONGER = st.lists(
    st.tuples(st.sampled_from(STREAMS), st.sampled_from([b"x", b"\xff", "é".encode()]), TIMES), max_size=2
)
BYTES = st.builds(
    lambda *parts: sum(parts, []),
    st.lists(st.tuples(st.sampled_from(STREAMS), UNITS, st.just(1)), max_size=8),
    LONGER,
    st.lists(st.tuples(st.sampled_from(STREAMS), UNITS, st.just(1)), max_size=4),
)
CUTS = st.integers(0, 60) | st.integers(0, 100_000)


def expand(rough: Rough) -> Pieces:
    return [(stream, unit * times) for stream, unit, times in rough]


def engine_view(data: bytes) -> list[bytes]:
    """The engine's bytes for each byte of the output."""
    view: list[bytes] = []
    for line in data.split(b"\n"):
        for at in range(0, len(line), ENGINE_PIECE):
            view += stored(line[at : at + ENGINE_PIECE])
        view.append(b"\n")
    return view[: len(data)]


def stored(piece: bytes) -> list[bytes]:
    if piece.isascii():
        return [bytes([byte]) for byte in piece]
    view: list[bytes] = []
    while len(view) < len(piece):
        length = next((n for n in range(1, 5) if is_character(piece[len(view) : len(view) + n])), 0)
        view += [bytes([byte]) for byte in piece[len(view) : len(view) + length]] if length else [LOST]
    return view


def is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def of_stream(pieces: Pieces, stream: int) -> bytes:
    return b"".join(data for number, data in pieces if number == stream)


def cut_at(pieces: Pieces, cut: int) -> Pieces:
    """The first `cut` bytes."""
    kept: Pieces = []
    for stream, data in pieces:
        kept.append((stream, data[:cut]))
        cut -= len(data[:cut])
    return kept


def without_half_lost(pieces: Pieces) -> Pieces:
    """The pieces without an incomplete U+FFFD at the end of a stream."""
    kept = list(pieces)
    for stream in STREAMS:
        last = max((n for n, piece in enumerate(kept) if piece[0] == stream and piece[1]), default=None)
        if last is not None:
            kept[last] = (stream, kept[last][1].removesuffix(LOST[:2]).removesuffix(LOST[:1]))
    return kept


def size_of(pieces: Pieces) -> int:
    return sum(len(data) for _, data in pieces)


def frames_of(views: dict[int, list[bytes]], length: int) -> Pieces:
    """The frames of both streams, alternating, as the engine sends them."""
    wholes = {stream: b"".join(view) for stream, view in views.items()}
    chunks = [[(s, whole[at : at + length]) for at in range(0, len(whole), length)] for s, whole in wholes.items()]
    return [frame for turn in zip_longest(*chunks) for frame in turn if frame]


def write(path: Path, pieces: Pieces, *, is_stored: bool = False) -> None:
    with LogWriter(path) as writer:
        for stream, data in pieces:
            writer.append(data, stream, is_stored=is_stored)


def catch_up(path: Path, frames: Pieces) -> None:
    missing = StoredLogFilter(logs.positions(path))
    write(path, [(stream, missing(stream, data)) for stream, data in frames], is_stored=True)


def read_streams(path: Path) -> dict[int, bytes]:
    found = list(logs.streams(path))
    return {stream: of_stream(found, stream) for stream in STREAMS}


def new_log(folder: str) -> Path:
    return Path(folder, "run.log")


def first_difference(path: Path, kept: Pieces, views: dict[int, list[bytes]]) -> str | None:
    """The first position where the log differs from the stored bytes followed once by the engine's next bytes."""
    for stream, found in read_streams(path).items():
        had = of_stream(kept, stream)
        wanted = had + b"".join(views[stream][len(had) :])
        if found != wanted:
            at = next((n for n, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), len(found))
            return f"stream {stream} at {at}: {found[at : at + 20]!r} is not {wanted[at : at + 20]!r}"
    return None


# -- writing and reading -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=2000)
@given(BYTES)
def test_a_log_is_the_bytes_in_the_order_they_came_and_each_on_its_stream(rough: Rough) -> None:
    pieces = expand(rough)
    with tempfile.TemporaryDirectory() as folder:
        path = new_log(folder)
        write(path, pieces)
        assert b"".join(logs.read(path)) == b"".join(data for _, data in pieces)
        assert read_streams(path) == {stream: of_stream(pieces, stream) for stream in STREAMS}


@settings(max_examples=40, deadline=2000)
@given(BYTES, st.integers(0, 300))
def test_reading_may_begin_anywhere(rough: Rough, start: int) -> None:
    pieces = expand(rough)
    with tempfile.TemporaryDirectory() as folder:
        path = new_log(folder)
        write(path, pieces)
        whole = b"".join(data for _, data in pieces)
        assert b"".join(logs.read(path, start)) == whole[start:]
        assert b"".join(data for _, data in logs.streams(path, start)) == whole[start:]


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "none.log"
    assert list(logs.read(path)) == list(logs.pieces(path)) == list(logs.with_timestamps(path)) == []


def test_a_log_is_continued_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.log"
    write(path, [(STDOUT, b"one\ntw")])
    write(path, [(STDOUT, b"o\n")])
    assert path.read_bytes() == b"one\ntwo\n"


def test_pieces_within_a_millisecond_share_a_record(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with LogWriter(path) as writer:
        for time_us in (1000, 1999, 2000, 2100):
            writer.append(b"x", STDOUT, time_us)
    assert list(logs.pieces(path)) == [Piece(0, 1000, STDOUT), Piece(2, 2000, STDOUT)]


def test_another_stream_or_an_earlier_time_begins_a_record(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with LogWriter(path) as writer:
        writer.append(b"a", STDOUT, 5000)
        writer.append(b"b", STDERR, 5000)
        writer.append(b"c", STDERR, 4999)
    assert [piece.offset for piece in logs.pieces(path)] == [0, 1, 2]


def test_nothing_appended_leaves_no_record(tmp_path: Path) -> None:
    write(tmp_path / "run.log", [(STDOUT, b"")])
    assert list(logs.pieces(tmp_path / "run.log")) == []


def test_a_line_of_our_own_ends_in_one_newline(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "run.log") as writer:
        writer.write_line("building\n\n")
        writer.write_line("ü")
        assert writer.size == len("building\nü\n".encode())
    assert (tmp_path / "run.log").read_text() == "building\nü\n"


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "run.log")
    writer.close()
    writer.close()


# -- with time stamps --------------------------------------------------------------------------------------------


def stamped(tmp_path: Path, *pieces: tuple[int, bytes]) -> bytes:
    with LogWriter(tmp_path / "run.log") as writer:
        for time_us, data in pieces:
            writer.append(data, STDOUT, time_us)
    return b"".join(logs.with_timestamps(tmp_path / "run.log"))


def test_each_line_has_its_time_before_it(tmp_path: Path) -> None:
    assert stamped(tmp_path, (1534711222_000000, b"hello\nyou\n"), (1534711223_000000, b"there")) == (
        b"2018-08-19 20:40:22 UTC -- hello\n2018-08-19 20:40:22 UTC -- you\n2018-08-19 20:40:23 UTC -- there"
    )


def test_a_line_in_pieces_has_the_time_of_its_first(tmp_path: Path) -> None:
    first, second = 1534711222_000000, 1534711223_000000
    found = stamped(tmp_path, (first, b"he"), (second, b"llo\n"), (second, b"\n"))
    assert found == b"2018-08-19 20:40:22 UTC -- hello\n2018-08-19 20:40:23 UTC -- \n"


@settings(max_examples=40, deadline=2000)
@given(TEXTS)
def test_stamps_stand_before_every_line_and_nowhere_else(rough: Rough) -> None:
    pieces = expand(rough)
    with tempfile.TemporaryDirectory() as folder:
        path = new_log(folder)
        with LogWriter(path) as writer:
            for stream, data in pieces:
                writer.append(data, stream, 0)
        whole = b"".join(data for _, data in pieces)
        prefix = b"1970-01-01 00:00:00 UTC -- "
        lines = whole.split(b"\n")
        expected = [prefix + line for line in lines[:-1]] + [prefix + lines[-1] if lines[-1] else b""]
        assert b"".join(logs.with_timestamps(path)) == b"\n".join(expected)


def test_a_log_larger_than_a_chunk_keeps_its_lines_whole(tmp_path: Path) -> None:
    line = b"x" * 700 + b"\n"
    found = stamped(tmp_path, (0, line * 4000))
    assert found == (b"1970-01-01 00:00:00 UTC -- " + line) * 4000


# -- cut logs that catch up --------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=120, deadline=3000)
@given(BYTES, CUTS, st.sampled_from([7, 16384, 1 << 20]))
@example([(STDOUT, b"caf\xc3\xa9 au lait\n", 1)], 4, 1 << 20)
@example([(STDERR, b"\xe2\x82\xac", 1)], 2, 1 << 20)
@example([(STDOUT, b"a", 1), (STDOUT, "é".encode(), 9000)], 16385, 16384)
def test_lines_lost_at_any_cut_are_caught_up_exactly_once(rough: Rough, cut: int, length: int) -> None:
    pieces = expand(rough)
    kept = without_half_lost(cut_at(pieces, cut % (size_of(pieces) + 1)))
    with tempfile.TemporaryDirectory() as folder:
        path = new_log(folder)
        write(path, kept)
        views = {stream: engine_view(of_stream(pieces, stream)) for stream in STREAMS}
        catch_up(path, frames_of(views, max(length, size_of(pieces) // 1000)))
        assert first_difference(path, kept, views) is None


@settings(max_examples=80, deadline=2000)
@given(TEXTS, st.integers(0, 100))
def test_utf8_comes_back_byte_for_byte(rough: Rough, cut: int) -> None:
    pieces = expand(rough)
    with tempfile.TemporaryDirectory() as folder:
        path = new_log(folder)
        write(path, cut_at(pieces, cut % (size_of(pieces) + 1)))
        whole = {stream: of_stream(pieces, stream) for stream in STREAMS}
        catch_up(path, [(stream, data) for stream, data in whole.items()])
        assert read_streams(path) == whole


@settings(max_examples=50, deadline=3000)
@given(BYTES, CUTS, CUTS)
@example([(STDOUT, b"\xff", 6000), (STDOUT, "é".encode(), 4000)], 101, 5899 * 3 + 2)
def test_a_catch_up_that_is_cut_too_is_caught_up(rough: Rough, first: int, second: int) -> None:
    pieces = expand(rough)
    kept = without_half_lost(cut_at(pieces, first % (size_of(pieces) + 1)))
    with tempfile.TemporaryDirectory() as folder:
        path = new_log(folder)
        write(path, kept)
        views = {stream: engine_view(of_stream(pieces, stream)) for stream in STREAMS}
        frames, missing = frames_of(views, 16384), StoredLogFilter(logs.positions(path))
        late = [(stream, missing(stream, data)) for stream, data in frames]
        write(path, without_half_lost(cut_at(late, second % (size_of(late) + 1))), is_stored=True)
        catch_up(path, frames)
        assert first_difference(path, kept, views) is None


def test_a_complete_log_takes_nothing_more(tmp_path: Path) -> None:
    pieces = [(STDOUT, b"one\n"), (STDERR, b"two"), (STDOUT, b"\xff\xfe three")]
    write(tmp_path / "run.log", pieces)
    missing = StoredLogFilter(logs.positions(tmp_path / "run.log"))
    frames = [(stream, b"".join(engine_view(of_stream(pieces, stream)))) for stream in STREAMS]
    assert [missing(stream, data) for stream, data in frames] == [b"", b""]


def test_positions_count_lines_and_measure_the_unfinished_one(tmp_path: Path) -> None:
    write(tmp_path / "run.log", [(STDOUT, b"one\ntw"), (STDERR, b"\xff\xff"), (STDOUT, b"o\nthree")])
    found = logs.positions(tmp_path / "run.log")
    assert (found[STDOUT].lines, found[STDOUT].unfinished) == (2, 5)
    assert (found[STDERR].lines, found[STDERR].unfinished) == (0, 6)


# -- crashes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(8))
def test_records_without_bytes_are_dropped_when_a_log_is_opened_again(tmp_path: Path, size: int) -> None:
    path = tmp_path / "run.log"
    write(path, [(STDOUT, b"aaa"), (STDERR, b"bb"), (STDOUT, b"cc")])
    os.truncate(path, size)
    write(path, [(STDERR, b"later")])
    assert [piece.offset for piece in logs.pieces(path)] == [*[at for at in (0, 3, 5) if at < size], size]
    assert list(logs.streams(path))[-1] == (STDERR, b"later")


def test_a_torn_record_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write(path, [(STDOUT, b"aaa")])
    with logs.times_of(path).open("ab") as times:
        times.write(b"\x03\x00")
    write(path, [(STDERR, b"bb")])
    assert list(logs.streams(path)) == [(STDOUT, b"aaa"), (STDERR, b"bb")]


def test_a_record_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    write(path, [(STDOUT, b"aaa")])
    with logs.times_of(path).open("ab") as times:
        times.write(b"\x03\x00")
    assert [piece.offset for piece in logs.pieces(path)] == [0]


# -- size --------------------------------------------------------------------------------------------------------


def test_memory_stays_flat_for_a_long_log(tmp_path: Path) -> None:
    path, block = tmp_path / "run.log", (b"x" * 999 + b"\n") * 1000
    tracemalloc.start()
    try:
        with LogWriter(path) as writer:
            for number in range(50):
                writer.append(block, STDOUT, number * 10_000)
        missing = StoredLogFilter(logs.positions(path))
        assert sum(len(missing(STDOUT, data)) for data in logs.read(path)) == 0
        assert sum(map(len, logs.with_timestamps(path))) == 50_000 * (27 + 1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_sentences_of_our_own_steer_no_terminal_and_look_like_no_line_of_the_run(tmp_path: Path) -> None:
    """They contain names of images and files, and messages of the engine. The run's own bytes stay unchanged."""
    path = tmp_path / "run.log"
    with LogWriter(path) as writer:
        writer.append(b"\x1b[31mred\n")
        writer.write_line("Step 1/2 : \x1b[1mof a build\x1b[0m")
        writer.write_message("there is no image \x1b]52;c;x\x07\nfaked")
        writer.write_gap("file \x9b31m\u202e\nfaked is left out")
    assert path.read_bytes() == (
        b"\x1b[31mred\nStep 1/2 : \x1b[1mof a build\x1b[0m\n"
        b"there is no image \\x1b]52;c;x\\x07\n    faked\n"
        b"polylocal: file \\x9b31m\\u202e\\nfaked is left out\n"
    )
