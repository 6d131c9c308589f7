"""Logs that another program shortens, removes or replaces while they are written and read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from polylocal.api.logs import Plain
from polylocal.files import logs
from polylocal.files.logs import LOST, OWN, STDERR, STDOUT, LogChanged, LogWriter, Stamped, pieces, streams


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, len(b"".join(path.read_bytes().splitlines(keepends=True)[:5])))


def turn(path: Path) -> None:
    """Rotate the file as logrotate does."""
    path.rename(path.with_name("a.log.1"))
    path.touch()


CHANGES: list[tuple[Callable[[Path], None], int]] = [(remove, 10), (empty, 10), (halve, 5), (turn, 10)]


@pytest.mark.parametrize(("change", "missing"), CHANGES)
def test_missing_lines_are_reported_with_their_number(path: Path, change: Callable[[Path], None], missing: int) -> None:
    with LogWriter(path) as writer:
        for n in range(10):
            writer.write_line(f"line {n}")
        change(path)
        writer.write_line("line 10")
        writer.write_line("line 11")
    kept = b"".join(b"line %d\n" % n for n in range(10 - missing))
    mark = f"polylocal: {missing} lines are missing here: the log was changed from outside\n".encode()
    assert path.read_bytes() == kept + mark + b"line 10\nline 11\n"
    assert list(streams(path))[-2:] == [(LOST, mark), (STDOUT, b"line 10\nline 11\n")]


def test_missing_lines_of_an_earlier_writer_are_reported_without_a_number(path: Path) -> None:
    with LogWriter(path) as writer:
        writer.append(b"a\nb\nc\n")
    with LogWriter(path) as writer:
        writer.append(b"d\n")
        os.truncate(path, 3)
        writer.append(b"e\n")
    assert path.read_bytes() == (
        b"a\nb\npolylocal: at least one line is missing here: the log was changed from outside\ne\n"
    )


def test_a_cut_line_is_ended_before_the_report(path: Path) -> None:
    with LogWriter(path) as writer:
        writer.append(b"one\ntwo\n")
        os.truncate(path, 6)
        writer.write_gap("something else")
    first, second, third, fourth = path.read_bytes().splitlines()
    assert (first, second, fourth) == (b"one", b"tw", b"polylocal: something else")
    assert third.startswith(b"polylocal: one line is missing here")


def test_lines_appended_by_others_are_no_loss(path: Path) -> None:
    """Clients report lines for a run from outside its container. Each client has a separate writer."""
    with LogWriter(path) as one, LogWriter(path) as two:
        one.write_line("a")
        two.write_line("b")
        one.write_line("c")
    assert path.read_bytes() == b"a\nb\nc\n"


@pytest.mark.parametrize("change", [change for change, _ in CHANGES])
@pytest.mark.parametrize("is_times", [False, True])
def test_a_caller_that_can_fetch_lines_again_is_notified_before_any_write(
    path: Path, change: Callable[[Path], None], is_times: bool
) -> None:
    with LogWriter(path, may_reread=True) as writer:
        for n in range(10):
            writer.append(b"line %d\n" % n, STDOUT if n % 2 else STDERR)
        if is_times:
            os.truncate(logs.times_of(path), 17)
        else:
            change(path)
        assert writer.has_changed()
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(LogChanged):
            writer.append(b"line 10\n")
        assert (path.read_bytes() if path.exists() else None) == before
        writer.reopen()
        assert not writer.has_changed()
        if is_times:
            assert not logs.has_times(path)
        writer.rewind(14)
        assert path.read_bytes() in (b"line 0\nline 1\n", b"")
        assert logs.has_times(path)


def test_a_log_without_times_is_known(path: Path) -> None:
    assert logs.has_times(path)
    with LogWriter(path) as writer:
        writer.append(b"a\n")
    assert logs.has_times(path)
    logs.times_of(path).unlink()
    assert not logs.has_times(path)


# -- followers ---------------------------------------------------------------------------------------------------


def read(source: Plain | Stamped) -> bytes:
    return b"".join(source.read())


def write(path: Path, lines: range, *, rest: bytes = b"") -> None:
    with LogWriter(path) as writer:
        for n in lines:
            writer.append(b"line %d\n" % n, STDOUT if n % 3 else STDERR)
        writer.append(rest)


@pytest.mark.parametrize("change", [change for change, _ in CHANGES])
def test_a_follower_gets_each_line_once_when_lines_are_written_again(
    path: Path, change: Callable[[Path], None]
) -> None:
    write(path, range(10), rest=b"li")
    plain, stamped = Plain(path), Stamped(path)
    assert read(plain).endswith(b"line 9\nli")
    assert read(stamped).count(b" -- ") == 11
    left = [line for line in path.read_bytes().splitlines() if line.startswith(b"line")]
    change(path)
    left = path.read_bytes().splitlines() if path.exists() else []
    assert read(plain) == read(stamped) == b""
    write(path, range(len(left), 7))
    assert read(plain) == read(stamped) == b""
    write(path, range(7, 12))
    assert read(plain) == b"ne 10\nline 11\n"
    again = read(stamped)
    assert again.startswith(b"ne 10\n")
    assert again.endswith(b" -- line 11\n")
    assert read(plain) == read(stamped) == b""


@pytest.mark.parametrize(("change", "missing"), CHANGES)
def test_a_follower_reads_the_report_of_missing_lines_and_continues(
    path: Path, change: Callable[[Path], None], missing: int
) -> None:
    with LogWriter(path) as writer:
        for n in range(10):
            writer.write_line(f"line {n}")
        plain, stamped = Plain(path), Stamped(path)
        assert len(read(plain).splitlines()) == len(read(stamped).splitlines()) == 10
        change(path)
        assert read(plain) == read(stamped) == b""
        writer.write_line("line 10")
        mark = f"polylocal: {missing} lines are missing here: the log was changed from outside".encode()
        assert read(plain).splitlines() == [mark, b"line 10"]
        assert [line.partition(b" -- ")[2] for line in read(stamped).splitlines()] == [mark, b"line 10"]
        writer.write_line("line 11")
        assert read(plain) == b"line 11\n"
        change(path)
        assert read(plain) == b""
        writer.write_line("line 12")
        assert read(plain).splitlines()[-1] == b"line 12"


def test_a_program_that_prints_the_same_text_changes_nothing(path: Path) -> None:
    with LogWriter(path) as writer:
        writer.append(b"polylocal: 9 lines are missing here: the log was changed from outside\n")
        for n in range(3):
            writer.append(b"%d\n" % n)
    plain = Plain(path)
    read(plain)
    kept = path.read_bytes()
    copy = shutil.copy(path, path.with_name("copy"))
    os.replace(copy, path)
    assert read(plain) == b""
    path.write_bytes(kept + b"new\n")
    assert read(plain) == b"new\n"
    assert {piece.stream for piece in pieces(path)} <= {STDOUT, OWN}


def test_a_piece_costs_one_look_at_each_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    look, fstat = os.stat, os.fstat
    with LogWriter(path) as writer:
        writer.append(b"first\n")
        monkeypatch.setattr(os, "stat", lambda *a, **k: looks.append(a) or look(*a, **k))
        monkeypatch.setattr(os, "fstat", lambda *a: looks.append(a) or fstat(*a))
        for _ in range(10):
            writer.append(b"line\n")
        monkeypatch.undo()
    assert len(looks) == 2 * 10


def test_a_follower_reads_a_report_once_though_the_log_changes_again(path: Path) -> None:
    tail = Plain(path)
    with LogWriter(path) as writer:
        writer.append(b"".join(b"line %d\n" % n for n in range(20)))
        given = b"".join(tail.read())
        os.truncate(path, 0)
        writer.append(b"after 1\nafter 2\n")
        given += b"".join(tail.read())
        os.truncate(path, path.stat().st_size - len(b"after 2\n"))
        given += b"".join(tail.read())
        writer.append(b"end\n")
        given += b"".join(tail.read())
    assert given.count(b"20 lines are missing here") == 1
    assert given.count(b"after 1\n") == 1
    assert given.endswith(b"one line is missing here: the log was changed from outside\nend\n")
