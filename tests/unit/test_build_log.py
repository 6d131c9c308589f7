"""Streams of events as the classic builder sends them."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.engine.docker.build_log import BuildLog
from polylocal.engine.images import BuildResult

Events = list[dict[str, Any]]

GOOD: Events = [
    {"stream": "Step 1/2 : FROM busybox"},
    {"stream": "\n"},
    {"stream": " ---> 1a2b\n"},
    {"stream": "Step 2/2 : RUN echo hi"},
    {"stream": "\n"},
    {"stream": " ---> Running in c0ffee\n"},
    {"stream": "hi\n"},
    {"aux": {"ID": "sha256:good"}},
    {"stream": "Successfully built good\n"},
    {"stream": "Successfully tagged a:b\n"},
]
BROKEN: Events = [
    *GOOD[:6],
    {"stream": "\x1b[91msh: nope: not found\n\x1b[0m"},
    {"errorDetail": {"code": 127, "message": "returned 127"}, "error": "The command returned a non-zero code: 127\n"},
]
STAGES: Events = [
    {"stream": "Step 1/4 : FROM golang AS builder\n"},
    {"aux": {"ID": "sha256:first"}},
    {"stream": "Step 3/4 : FROM busybox\n"},
    {"stream": "Step 4/4 : COPY --from=builder a /\n"},
    {"aux": {"ID": "sha256:second"}},
    {"stream": "Successfully built second\n"},
]


def read(events: Events) -> tuple[BuildLog, list[str]]:
    lines: list[str] = []
    log = BuildLog(lines.append)
    log.read(events)
    return log, lines


def test_a_build_that_succeeds() -> None:
    log, lines = read(GOOD)
    assert log.is_whole
    assert log.result() == BuildResult("sha256:good")
    assert lines[:3] == ["Step 1/2 : FROM busybox", " ---> 1a2b", "Step 2/2 : RUN echo hi"]
    assert lines[-1] == "Successfully tagged a:b"


def test_a_build_that_breaks_names_its_step_and_its_error() -> None:
    log, lines = read(BROKEN)
    assert log.is_whole
    error = "The command returned a non-zero code: 127"
    assert log.result() == BuildResult(None, error, "Step 2/2 : RUN echo hi")
    assert lines[-1] == error


def test_the_image_is_that_of_the_last_stage() -> None:
    assert read(STAGES)[0].result() == BuildResult("sha256:second")


@pytest.mark.parametrize("end", range(8))
def test_a_build_that_is_cut_in_the_middle_is_not_whole(end: int) -> None:
    assert not read(GOOD[: min(end, 7)])[0].is_whole


@pytest.mark.parametrize("end", range(5))
def test_a_build_that_is_cut_between_its_stages_is_not_whole(end: int) -> None:
    assert not read(STAGES[:end])[0].is_whole


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_lines_come_whole_however_the_stream_is_cut(size: int) -> None:
    text = "Step 1/1 : FROM a\r\nprogress\n\nlast"
    _, lines = read([{"stream": text[at : at + size]} for at in range(0, len(text), size)])
    assert lines == ["Step 1/1 : FROM a", "progress", "", "last"]


def test_progress_of_a_pull_is_said_once() -> None:
    again = [{"status": "Downloading", "id": "ab", "progressDetail": {"current": n}} for n in range(5)]
    _, lines = read([{"status": "Pulling from library/busybox", "id": "latest"}, *again, {"status": "Done"}])
    assert lines == ["latest Pulling from library/busybox", "ab Downloading", "Done"]


def test_a_reason_from_outside_is_the_error() -> None:
    log, lines = read(GOOD[:4])
    assert log.result("The build was stopped.").error == "The build was stopped."
    assert lines[-1] == "The build was stopped."


def test_events_that_mean_nothing_are_passed_over() -> None:
    log, lines = read([{}, {"aux": None}, {"aux": {"Tag": "x"}}, {"progress": "x"}])
    assert not lines
    assert not log.is_whole
