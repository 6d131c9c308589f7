"""Logs at their size limit, polylocal's own lines in logs, and a disk that fills up during a write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import fill, small_disk

from polylocal.errors import StoreError
from polylocal.files import logs
from polylocal.files.logs import OWN, STDERR, STDOUT, LogWriter, StoredLogFilter

MIB = 1 << 20
CUT = b"polylocal: the log is cut here: it has reached 1 MiB (max_log_mib)\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.log"


def test_a_log_is_cut_at_its_limit_with_one_note(path: Path) -> None:
    line = b"x" * 999 + b"\n"
    with LogWriter(path, max_mib=1) as writer:
        for _ in range(1100):
            writer.append(line)
        assert writer.is_full
    data = path.read_bytes()
    assert data == (line * 1100)[:MIB] + b"\n" + CUT
    assert [piece.stream for piece in logs.pieces(path)][-1] == OWN


def test_a_cut_log_stays_cut_when_it_is_opened_again(path: Path) -> None:
    with LogWriter(path, max_mib=1) as writer:
        writer.append(b"x" * (MIB + 1))
    before = path.read_bytes()
    with LogWriter(path, max_mib=1) as writer:
        assert writer.is_full
        writer.append(b"more", STDERR)
    assert path.read_bytes() == before


def test_a_log_of_just_its_limit_is_whole(path: Path) -> None:
    with LogWriter(path, max_mib=1) as writer:
        writer.append(b"x" * MIB)
        assert not writer.is_full
        writer.append(b"")
    assert path.read_bytes() == b"x" * MIB
    with LogWriter(path, max_mib=1) as writer:
        writer.append(b"y")
    assert path.read_bytes() == b"x" * MIB + b"\n" + CUT


@pytest.mark.parametrize(
    ("before", "expected"), [(b"", b""), (b"one\n", b"one\n"), (b"half", b"half\n")], ids=["empty", "line", "half"]
)
def test_a_line_of_our_own_begins_a_line(path: Path, before: bytes, expected: bytes) -> None:
    with LogWriter(path) as writer:
        writer.append(before)
        writer.write_gap("words")
        writer.append(b"after\n")
    assert path.read_bytes() == expected + b"polylocal: words\nafter\n"
    assert [stream for stream, _ in logs.streams(path)][-2:] == [OWN, STDOUT]


def test_our_own_lines_are_not_part_of_the_runs_output(path: Path) -> None:
    with LogWriter(path) as writer:
        writer.append(b"one\ntw")
        writer.append(b"e\n", STDERR)
        writer.write_gap("words\nand words")
        writer.append(b"o\nthr")
    found = logs.positions(path)
    assert (found[STDOUT].lines, found[STDOUT].unfinished) == (2, 3)
    assert (found[STDERR].lines, found[STDERR].unfinished) == (1, 0)
    assert OWN not in found


def test_a_new_container_is_counted_from_where_its_output_begins(path: Path) -> None:
    with LogWriter(path) as writer:
        writer.append(b"first\nfirst\n")
        writer.write_gap("another one")
        start = writer.size
        writer.append(b"second\nha")
    found = logs.positions(path, start)
    assert (found[STDOUT].lines, found[STDOUT].unfinished) == (1, 2)
    assert logs.positions(path, path.stat().st_size)[STDOUT].lines == 0
    missing = StoredLogFilter(found)
    assert missing(STDOUT, b"second\nhalf\nthird\n") == b"lf\nthird\n"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=9)), max_size=9), st.integers(0, 80))
def test_marks_anywhere_change_no_position(tmp_path: Path, pieces: list[tuple[int, bytes]], at: int) -> None:
    plain, marked = tmp_path / "plain.log", tmp_path / "marked.log"
    for path in (plain, marked):
        path.unlink(missing_ok=True)
        logs.times_of(path).unlink(missing_ok=True)
        with LogWriter(path) as writer:
            for number, (stream, data) in enumerate(pieces):
                if path is marked and number == at % (len(pieces) or 1):
                    writer.write_gap("words")
                writer.append(data, stream)
    assert logs.positions(plain) == logs.positions(marked)


# -- full disk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [0, 4096, 8192, 20_000])
def test_a_write_without_room_leaves_a_prefix_and_continues_exactly(tmp_path: Path, leave: int) -> None:
    """The write may stop in the bytes or in the records. The log is a prefix of the output, by stream."""
    whole = {
        STDOUT: b"".join(b"out %d\n" % n for n in range(3000)),
        STDERR: b"".join(b"err %d\n" % n for n in range(999)),
    }
    with small_disk(tmp_path / "small", 2) as folder:
        path = folder / "run.log"
        with LogWriter(path) as writer:
            writer.append(whole[STDOUT][:1000], STDOUT, 1)
            ballast = fill(folder, leave)
            with pytest.raises(StoreError, match="No space left on device"):
                write_on(writer, whole)
        kept = read_streams(path)
        for stream, data in kept.items():
            assert whole[stream].startswith(data)
        ballast.unlink()
        missing = StoredLogFilter(logs.positions(path))
        with LogWriter(path) as writer:
            for stream, data in whole.items():
                writer.append(missing(stream, data), stream, is_stored=True)
        assert read_streams(path) == whole
        offsets = [piece.offset for piece in logs.pieces(path)]
        assert offsets == sorted(offsets)
        assert offsets[-1] < path.stat().st_size


def write_on(writer: LogWriter, whole: dict[int, bytes]) -> None:
    """Write small pieces, each with a separate record."""
    for start in range(1000, 50_000, 700):
        writer.append(whole[STDOUT][start : start + 700], STDOUT, start * 10_000)
        writer.append(whole[STDERR][start - 1000 : start - 300], STDERR, start * 10_000)


def read_streams(path: Path) -> dict[int, bytes]:
    found = {STDOUT: b"", STDERR: b""}
    for stream, data in logs.streams(path):
        found[stream] += data
    return found


def test_a_log_that_can_not_be_opened_is_the_stores_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be written"):
        LogWriter(tmp_path / "file" / "run.log")
