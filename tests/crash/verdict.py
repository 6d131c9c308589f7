"""The verdict after random faults: compares API, files and engine with the records of each run's program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polylocal.clock import parse
from polylocal.files import logs
from polylocal.statuses import is_done

from .work import STREAMS, Truth, Work, compare, has_gap_marker

REASONS = frozenset(("program", "memory", "build", "engine-lost", "host", "disk-full", "start", "resources"))
NOT_ITS_FAULT = frozenset(("engine-lost", "host"))
_RESTART = re.compile(r"restart (\d+) of (\d+)")
_ASIDE = frozenset(("warning", "unschedulable", "unknown"))  # statuses that may occur in between
_ORDER = {
    "job": ("created", "building", "scheduled", "starting", "running"),
    "build": ("created", "scheduled", "building", "starting", "running"),
}


@dataclass(frozen=True)
class Seen:
    """The state of a run at the end, as the API reports it."""

    kind: str
    label: str
    status: str
    history: list[dict[str, Any]]
    log: Path
    work: Work | None = None  # None: a build on behalf of a job
    stop_was_asked: bool = False

    @property
    def restarts(self) -> int:
        return sum(_is_restart(entry) for entry in self.history)

    @property
    def last(self) -> Mapping[str, Any]:
        return self.history[-1] if self.history else {}

    @property
    def reason(self) -> str | None:
        found: str | None = (self.last.get("details") or {}).get("reason")
        return found


def problems(seen: Seen, truths: Path) -> Iterator[str]:
    yield from _of_history(seen)
    yield from _of_end(seen)
    if seen.work and seen.kind == "job":
        truth = Truth(truths / seen.work.name)
        yield from _of_job(seen, truth)
        yield from _of_log(seen, truth, seen.work.shape.unit)
    elif seen.work:
        yield from _of_build(seen, seen.work)


def _of_history(seen: Seen) -> Iterator[str]:
    words = [entry["status"] for entry in seen.history]
    finals = [word for word in words if is_done(word)]
    if len(finals) != 1 or not is_done(words[-1]):
        yield f"has not exactly one final status, at the end: {words}"
    moments = [parse(entry["created_at"]) for entry in seen.history]
    for earlier, later in zip(moments, moments[1:], strict=False):
        if later < earlier:
            yield f"its history goes back in time, from {earlier} to {later}"
            break
    place = 0
    for entry in seen.history:
        word = entry["status"]
        if _is_restart(entry):
            place = 1
        if word in _ASIDE or is_done(word):
            continue
        here = _ORDER[seen.kind].index(word)
        if here < place:
            yield f"its status went backwards: {words}"
            break
        place = here


def _of_end(seen: Seen) -> Iterator[str]:
    if seen.status == "failed" and seen.reason not in REASONS and not _is_of_its_build(seen):
        yield f"failed without one of the known reasons: {seen.last}"
    if seen.status == "stopped" and seen.work and not seen.stop_was_asked:
        yield f"is stopped, and nobody asked for that: {seen.last}"


def _of_job(seen: Seen, truth: Truth) -> Iterator[str]:
    starts, ends = truth.starts, truth.ends
    if starts > 1 + seen.restarts:
        yield f"was started {starts} times with {seen.restarts} restarts recorded"
    code = ends.get(starts)
    if seen.status == "succeeded" and code != 0:
        yield f"succeeded, and its program {f'ended with {code}' if code else 'never came to its end'}"
    if seen.status == "failed" and code == 0 and seen.reason not in NOT_ITS_FAULT:
        yield f"failed ({seen.last.get('message')}), and its program ended with 0"
    if seen.status == "failed" and seen.reason == "program" and not code:
        yield f"its program is said to have failed ({seen.last.get('message')}), and it was killed before its end"


def _of_build(seen: Seen, work: Work) -> Iterator[str]:
    if seen.status == "succeeded" and work.shape.expected == "failed":
        yield "succeeded, and one of its steps fails"
    if seen.status == "failed" and work.shape.expected == "succeeded" and seen.reason not in NOT_ITS_FAULT:
        yield f"failed, and nothing in it does: {seen.last.get('message')}"


def _of_log(seen: Seen, truth: Truth, unit: int) -> Iterator[str]:
    try:
        whole = seen.log.read_bytes()
    except FileNotFoundError:
        whole = b""
    has_gap, ends = has_gap_marker(whole), truth.ends

    def may_lack(attempt: int, count: int) -> bool:
        """A reported gap, or bytes that were recorded but not yet printed when the program was killed."""
        return has_gap or (attempt not in ends and count <= unit)

    pieces: dict[int, list[bytes]] = {number: [] for number in STREAMS.values()}
    for number, data in logs.streams(seen.log):
        pieces.setdefault(number, []).append(data)  # polylocal's own lines may have a separate stream
    for name, number in STREAMS.items():
        problem = compare(b"".join(pieces[number]), truth.output(name), may_lack)
        if problem:
            yield f"its log ({name}) {problem}"


def _is_restart(entry: Mapping[str, Any]) -> bool:
    return entry["status"] == "warning" and _RESTART.search(entry["message"] or "") is not None


def _is_of_its_build(seen: Seen) -> bool:
    """The reason is in the build's own history."""
    return "build_job" in (seen.last.get("details") or {})
