"""The checks of the random faults themselves: they find every prepared error."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from polylocal.clock import stamp
from polylocal.files.logs import STDERR, STDOUT, LogWriter

from .chaos import DAEMON_AND_ENGINE, plan
from .verdict import Seen, problems
from .work import Work

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def entries(*words: str, **last: Any) -> list[dict[str, Any]]:
    made = [
        {"status": word, "message": None, "details": None, "created_at": stamp(BEGAN + timedelta(seconds=n))}
        for n, word in enumerate(words)
    ]
    made[-1].update(last)
    return made


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    """A run without errors: two lines on stdout, one on stderr."""
    truth = tmp_path / "truth" / "w1"
    truth.mkdir(parents=True)
    (truth / "starts").write_text("once\n")
    (truth / "ends").write_text("1 0\n")
    (truth / "out.1").write_text("1:a\n1:b\n")
    (truth / "err.1").write_text("1:e\n")
    log = tmp_path / "run.log"
    with LogWriter(log) as writer:
        writer.append(b"1:a\n", STDOUT)
        writer.append(b"1:e\n", STDERR)
        writer.append(b"1:b\n", STDOUT)
    history = entries("created", "building", "scheduled", "running", "succeeded")
    return Seen("job", "a.b.jobs.1", "succeeded", history, log, Work("w1", "both", 1))


def found(seen: Seen) -> str:
    return "; ".join(problems(seen, seen.log.parent / "truth"))


def failed(seen: Seen, reason: str) -> Seen:
    history = entries("created", "scheduled", "running", "failed", details={"reason": reason})
    return replace(seen, status="failed", history=history)


def truth(seen: Seen) -> Path:
    return seen.log.parent / "truth" / "w1"


def test_a_correct_run_has_no_problem(seen: Seen) -> None:
    assert found(seen) == ""


def test_a_log_that_was_cut(seen: Seen) -> None:
    with seen.log.open("r+b") as file:
        file.truncate(10)
    assert "(out) lacks 2 bytes of attempt 1" in found(seen)


def test_a_reported_gap(seen: Seen) -> None:
    with seen.log.open("r+b") as file:
        file.truncate(8)
    with LogWriter(seen.log) as writer:
        writer.append(b"polylocal: its last output may be missing here\n", 3)
    assert found(seen) == ""


@pytest.mark.parametrize(
    ("said", "logged", "problem"),
    [
        ("1:a\n1:b\n", b"1:a\n1:a\n1:b\n", "has 6 bytes that its program did not write"),
        ("1:a\n1:b\n", b"1:b\n", "has 2 bytes that its program did not write"),
        ("1:a\n1:b\n", b"1:a\npolylocal: a gap\n1:c\n", "has 2 bytes that its program did not write"),
        ("1:a\n1:b\n", b"1:a\n1\npolylocal: a gap\n", ""),
    ],
)
def test_bytes_in_a_log(seen: Seen, said: str, logged: bytes, problem: str) -> None:
    (truth(seen) / "out.1").write_text(said)
    (truth(seen) / "err.1").unlink()
    seen.log.unlink()
    seen.log.with_name(f"{seen.log.name}.times").unlink()
    with LogWriter(seen.log) as writer:
        writer.append(logged)
    assert problem in found(seen)
    assert bool(problem) == bool(found(seen))


def test_the_last_line_of_a_program_that_was_killed(seen: Seen) -> None:
    (truth(seen) / "ends").unlink()
    (truth(seen) / "out.1").write_text("1:a\n1:b\n1:noted, not said\n")
    assert found(failed(seen, "engine-lost")) == ""
    (truth(seen) / "out.1").write_text("1:a\n1:b\n" + "1:noted, not said\n" * 3)
    assert "lacks" in found(failed(seen, "engine-lost"))


def test_a_program_that_was_started_twice(seen: Seen) -> None:
    (truth(seen) / "starts").write_text("once\ntwice\n")
    assert "was started 2 times with 0 restarts recorded" in found(seen)


def test_a_success_without_an_end(seen: Seen) -> None:
    (truth(seen) / "ends").unlink()
    assert "its program never came to its end" in found(seen)


def test_a_success_with_exit_code_3(seen: Seen) -> None:
    (truth(seen) / "ends").write_text("1 3\n")
    assert "its program ended with 3" in found(seen)


def test_a_failure_of_a_program_that_ended_with_0(seen: Seen) -> None:
    assert "its program ended with 0" in found(failed(seen, "start"))
    assert found(failed(seen, "engine-lost")) == ""


def test_a_failure_without_a_reason(seen: Seen) -> None:
    assert "without one of the known reasons" in found(failed(seen, "whatever"))


def test_a_stop_without_a_request(seen: Seen) -> None:
    stopped = replace(seen, status="stopped", history=entries("created", "running", "stopped"))
    assert "nobody asked for that" in found(stopped)
    assert found(replace(stopped, stop_was_asked=True)) == ""


@pytest.mark.parametrize(
    "words",
    [
        ("created", "running", "scheduled", "succeeded"),
        ("created", "running", "building", "succeeded"),
        ("created", "running", "warning", "scheduled", "succeeded"),
    ],
)
def test_a_history_that_goes_backwards(seen: Seen, words: tuple[str, ...]) -> None:
    assert "its status went backwards" in found(replace(seen, history=entries(*words)))


def test_a_restart_that_is_recorded(seen: Seen) -> None:
    history = entries("created", "running", "warning", "scheduled", "running", "succeeded")
    history[2]["message"] = "Exit code 3: restart 1 of 1"
    assert found(replace(seen, history=history)) == ""


def test_a_history_that_goes_back_in_time(seen: Seen) -> None:
    history = entries("created", "running", "succeeded", created_at=stamp(BEGAN - timedelta(hours=1)))
    assert "goes back in time" in found(replace(seen, history=history))


@pytest.mark.parametrize("words", [("created", "running"), ("created", "succeeded", "failed"), ("failed", "running")])
def test_not_exactly_one_end(seen: Seen, words: tuple[str, ...]) -> None:
    assert "has not exactly one final status" in found(replace(seen, history=entries(*words)))


def test_a_plan_follows_from_its_seed() -> None:
    one, same, other = (plan(seed, DAEMON_AND_ENGINE, 12) for seed in (7, 7, 8))
    assert one == same
    assert one != other
    assert sum(step.work is None for step in one) == sum(DAEMON_AND_ENGINE.values())
