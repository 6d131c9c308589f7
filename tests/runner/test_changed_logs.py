"""Logs that another process changes: their lines are fetched again from the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from polylocal.errors import EngineError
from polylocal.files import logs
from polylocal.runner.following import Follower
from polylocal.store.rows import Run

from .conftest import Rig, Supervise

WRITES = "; ".join(f"echo line {n}" + (" >&2" if n % 3 == 0 else "") for n in range(20))
LINES = [b"line %d" % n for n in range(20)]


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, 40)


def turn(path: Path) -> None:
    path.rename(path.with_name("turned"))
    path.write_bytes(b"of somebody\n")


def remove_times(path: Path) -> None:
    logs.times_of(path).unlink()


def cut_times(path: Path) -> None:
    os.truncate(logs.times_of(path), 17)


CHANGES = [remove, empty, cut, turn, remove_times, cut_times]


def by_stream(path: Path) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for stream, data in logs.streams(path):
        found[stream] = found.get(stream, b"") + data
    return found


def expected(lines: list[bytes]) -> dict[int, bytes]:
    of = {logs.STDOUT: b"", logs.STDERR: b""}
    for n, line in enumerate(lines):
        of[logs.STDOUT if n % 3 else logs.STDERR] += line + b"\n"
    return of


@pytest.fixture
def has_written(rig: Rig, supervise: Supervise) -> Callable[[str], Run]:
    def start(then: str) -> Run:
        run = rig.submit(f"{WRITES}; {then}")
        supervise(lambda: rig.log_path(run).exists() and rig.log(run).count(b"\n") == 20)
        return rig.again(run)

    return start


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("then", ["sleep 0.5", "sleep 0.5; printf end; sleep 0.2"])
def test_a_log_that_is_changed_while_it_is_written_is_whole_at_the_end(
    rig: Rig, supervise: Supervise, has_written: Callable[[str], Run], change: Callable[[Path], None], then: str
) -> None:
    run = has_written(then)
    change(rig.log_path(run))
    supervise(lambda: rig.again(run).finished_at)
    whole = expected(LINES)
    if "end" in then:
        whole[logs.STDOUT] += b"end"
    assert by_stream(rig.log_path(run)) == whole
    assert rig.again(run).status == "succeeded"


@pytest.mark.parametrize("change", [change for change in CHANGES if change is not cut_times])
def test_a_log_that_is_changed_while_no_daemon_runs_is_fetched_again(
    rig: Rig, has_written: Callable[[str], Run], change: Callable[[Path], None]
) -> None:
    run = has_written("sleep 60")
    change(rig.log_path(run))
    if change is turn:
        rig.log_path(run).write_bytes(b"")
    with Follower(run, run.container_id or "", rig.context()) as follower:
        follower.complete()
    assert by_stream(rig.log_path(run)) == expected(LINES)


def test_where_the_engine_has_the_lines_no_more_their_number_is_told(
    rig: Rig, has_written: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = has_written("sleep 60")

    def gone(*arguments: object, **more: object) -> None:
        raise EngineError("no such container")

    with Follower(run, run.container_id or "", rig.context()) as follower:
        for line in LINES:
            follower._writer.append(line + b"\n")
        rig.log_path(run).unlink()
        monkeypatch.setattr(rig.engine, "logs", gone)
        follower.complete()
    assert rig.log(run).splitlines() == [
        b"polylocal: 20 lines are missing here: the log was changed from outside",
        b"polylocal: the engine has no more of this log: its last lines may be missing here",
    ]


def test_what_an_earlier_container_wrote_can_not_be_fetched_and_that_is_told(
    rig: Rig, has_written: Callable[[str], Run]
) -> None:
    run = has_written("sleep 60")
    earlier = b"of an earlier container\n"
    with logs.LogWriter(rig.log_path(run)) as writer:
        writer.rewind(0)
        writer.append(earlier)
        for n, line in enumerate(LINES):
            writer.append(line + b"\n", logs.STDOUT if n % 3 else logs.STDERR)
    run = rig.store.runs.record(run, log_start=len(earlier))
    os.truncate(rig.log_path(run), 5)
    with Follower(run, run.container_id or "", rig.context()) as follower:
        follower.complete()
        follower.complete()
    found = by_stream(rig.log_path(run))
    assert found.pop(logs.LOST) == b"\npolylocal: lines are missing here: the log was changed from outside\n"
    assert found[logs.STDERR] == expected(LINES)[logs.STDERR]
    assert found[logs.STDOUT] == b"of an" + expected(LINES)[logs.STDOUT]


def test_a_log_that_is_changed_again_and_again_says_so(
    rig: Rig, has_written: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = has_written("sleep 60")

    def changed(follower: Follower) -> None:
        raise logs.LogChanged("again")

    monkeypatch.setattr(Follower, "_fetch_all", changed)
    with Follower(run, run.container_id or "", rig.context()) as follower:
        follower.complete()
    assert rig.log(run).endswith(b"changed from outside again and again: lines may be missing here\n")
