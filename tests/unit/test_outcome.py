"""The final status of a run, from the facts about its container."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.runner.outcome import Ending, build_failed, lost, not_started, of, should_restart
from polylocal.statuses import Kind, Status

FAILED, STOPPED, SUCCEEDED = Status.FAILED, Status.STOPPED, Status.SUCCEEDED


@pytest.mark.parametrize(
    ("ending", "status", "message"),
    [
        (Ending(0), SUCCEEDED, "Completed"),
        (Ending(0, out_of_memory=True), SUCCEEDED, "Completed"),
        (Ending(0, engine_was_away=True), SUCCEEDED, "Completed"),
        (Ending(1), FAILED, "Exit code 1"),
        (Ending(1, last_line="  no\tsuch   file "), FAILED, "Exit code 1: no such file"),
        (Ending(137), FAILED, "Exit code 137 (SIGKILL)"),
        (Ending(139, last_line="bye"), FAILED, "Exit code 139 (SIGSEGV): bye"),
        (Ending(255), FAILED, "Exit code 255"),
        (Ending(128), FAILED, "Exit code 128"),
        (Ending(137, out_of_memory=True), FAILED, "Out of memory: killed (exit code 137)"),
        (
            Ending(1, out_of_memory=True, memory_limit_mib=64),
            FAILED,
            "Out of memory (limit 64 MiB): killed (exit code 1)",
        ),
        (
            Ending(137, memory_limit_mib=0.5),
            FAILED,
            "Exit code 137: killed, most likely out of memory (limit 0.5 MiB)",
        ),
        (Ending(0, stop_requested=True), STOPPED, "Job was stopped."),
        (Ending(137, stop_requested=True, memory_limit_mib=1), STOPPED, "Job was stopped."),
        (Ending(143, stop_requested=True, engine_was_away=True), STOPPED, "Job was stopped."),
        (Ending(1, deleted=True, stop_requested=True), STOPPED, "Job is scheduled for deletion."),
        (Ending(1, engine_was_away=True), FAILED, "Exit code 1"),
    ],
)
def test_the_end_of_a_job(ending: Ending, status: Status, message: str) -> None:
    outcome = of(Kind.JOB, ending)
    assert (outcome.status, outcome.message) == (status, message)


@pytest.mark.parametrize("code", [137, 143, 255])
def test_a_container_that_died_with_the_engine_is_lost_and_not_the_programs_fault(code: int) -> None:
    outcome = of(Kind.JOB, Ending(code, engine_was_away=True, out_of_memory=True))
    assert outcome.status == FAILED
    assert outcome.message.startswith("engine-lost: ")
    assert outcome.details == {"reason": "engine-lost", "exit_code": code}


@pytest.mark.parametrize(
    ("ending", "details"),
    [
        (Ending(0), {"exit_code": 0}),
        (Ending(3), {"reason": "program", "exit_code": 3}),
        (Ending(3, out_of_memory=True), {"reason": "memory", "exit_code": 3}),
        (Ending(3, stop_requested=True), {"exit_code": 3}),
    ],
)
def test_details_say_why(ending: Ending, details: dict[str, Any]) -> None:
    assert of(Kind.JOB, ending).details == details


def test_the_messages_of_a_build() -> None:
    assert of(Kind.BUILD, Ending(1, stop_requested=True)).message == "BuildJob was stopped."
    assert of(Kind.BUILD, Ending(1, deleted=True)).message == "Build is scheduled for deletion."


def test_a_long_last_line_is_cut() -> None:
    assert len(of(Kind.JOB, Ending(1, last_line="x" * 10_000)).message) < 256


def test_a_container_that_never_started_or_was_lost_has_failed() -> None:
    assert not_started("no such image").message == "Could not start: no such image"
    assert not_started("x").status == lost("y").status == FAILED
    assert lost("gone").details == {"reason": "engine-lost", "exit_code": None}


@pytest.mark.parametrize(("step", "where"), [("Step 3/5 : RUN x", " at Step 3/5 : RUN x"), ("", "")])
def test_a_failed_build_names_its_step(step: str, where: str) -> None:
    outcome = build_failed("no such command", step)
    assert (outcome.status, outcome.message) == (FAILED, f"Build failed{where}: no such command")


@pytest.mark.parametrize(
    ("ending", "restarts", "most", "again"),
    [
        (Ending(1), 0, 1, True),
        (Ending(1), 1, 1, False),
        (Ending(1), 0, 0, False),
        (Ending(0), 0, 5, False),
        (Ending(1, stop_requested=True), 0, 5, False),
        (Ending(1, deleted=True), 0, 5, False),
        (Ending(137, out_of_memory=True), 4, 5, True),
    ],
)
def test_restarts(ending: Ending, restarts: int, most: int, again: bool) -> None:
    assert should_restart(ending, restarts, most) is again


@pytest.mark.parametrize(
    ("ending", "is_lost"),
    [
        (Ending(137, was_unseen=True), True),  # an engine that starts kills the containers that it finds
        (Ending(143, was_unseen=True), True),
        (Ending(255, was_unseen=True), False),  # `sys.exit(-1)`
        (Ending(1, was_unseen=True), False),
        (Ending(137, was_unseen=True, memory_limit_mib=64), False),
        (Ending(255, was_unseen=True, was_rebooted=True), True),
        (Ending(255, was_unseen=True, engine_was_restarted=True), True),
        (Ending(137, was_unseen=True, engine_was_restarted=True, memory_limit_mib=64), True),
        (Ending(137, was_unseen=True, engine_was_restarted=True, memory_limit_mib=64, out_of_memory=True), False),
        (Ending(255, was_unseen=True, engine_was_restarted=True, stop_requested=True), False),
        (Ending(1, was_unseen=True, engine_was_restarted=True), False),
        (Ending(137, was_unseen=True, was_rebooted=True, memory_limit_mib=64), True),
        (Ending(137, was_signalled=True), True),
        (Ending(137, was_signalled=True, stop_requested=True), False),
        (Ending(137), False),
    ],
)
def test_a_container_whose_end_was_not_seen(ending: Ending, is_lost: bool) -> None:
    assert ending.is_lost is is_lost
    assert ((of(Kind.JOB, ending).details or {}).get("reason") == "engine-lost") is is_lost


def test_a_program_that_comes_to_its_end_at_the_limit_has_succeeded() -> None:
    ending = Ending(0, stop_requested=True, time_limit_s=5)
    assert of(Kind.JOB, ending).status is SUCCEEDED
    saved = of(Kind.JOB, Ending(0, stop_requested=True, time_limit_s=5, was_terminated=True))
    assert (saved.status, (saved.details or {})["exit_code"]) == (FAILED, 0)  # it was told to end, and did not complete
    late = of(Kind.JOB, Ending(143, stop_requested=True, time_limit_s=5))
    assert (late.status, (late.details or {})["reason"]) == (FAILED, "time-limit")
