"""The transition table, compared with the documented one."""

from __future__ import annotations

import pytest

from polylocal.statuses import DONE, FAILURES, NOT_DONE, STARTS, STOPS, TRANSITIONS, WAITING, Kind, Status, is_done

OPEN = "created resuming warning unschedulable building scheduled starting running unknown".split()
FINISHED = "succeeded failed upstream_failed stopped skipped".split()

# target → the documented sources that remain, since a done run must not move
DOCUMENTED = {
    "building": {"created", "resuming", "scheduled", "unschedulable", "unknown", "warning"},
    "scheduled": {"created", "building", "resuming", "unschedulable", "unknown", "warning"},
    "running": {"created", "scheduled", "building", "unknown", "resuming", "unschedulable", "warning", "starting"},
    "resuming": {"created", "warning"},
    "unknown": set(OPEN) - {"unknown"},
    "warning": set(OPEN) - {"warning"},
    "unschedulable": set(OPEN) - {"unschedulable"},
}


def test_the_statuses_are_those_of_the_documents() -> None:
    assert set(Status) == {*OPEN, *FINISHED}


@pytest.mark.parametrize("target", sorted(DOCUMENTED))
def test_a_status_is_reached_from_its_documented_sources(target: str) -> None:
    assert TRANSITIONS[Status(target)] == DOCUMENTED[target]


@pytest.mark.parametrize("target", FINISHED)
def test_every_open_run_may_end(target: str) -> None:
    assert {source for source in Status if source in TRANSITIONS[Status(target)]} == set(OPEN)


@pytest.mark.parametrize("source", FINISHED)
def test_a_done_run_moves_nowhere(source: str) -> None:
    assert is_done(source)
    assert not [target for target in Status if source in TRANSITIONS[target]]


def test_no_status_leads_back_to_created() -> None:
    assert TRANSITIONS[Status.CREATED] == frozenset()


def test_every_status_has_a_row_and_is_open_or_done() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert set(Status) == DONE | NOT_DONE
    assert not DONE & NOT_DONE
    assert not STARTS & DONE


@pytest.mark.parametrize(("kind", "plural"), [(Kind.BUILD, "builds"), (Kind.JOB, "jobs")])
def test_the_plural_is_the_word_in_urls(kind: Kind, plural: str) -> None:
    assert kind.plural == plural


def test_no_unknown_word_counts_as_done() -> None:
    assert not is_done("finished")


def test_a_status_waits_or_starts_or_is_done() -> None:
    """The store and `packages.statuses` build their lists from these sets: a new status must be in one of them."""
    assert sorted([*WAITING, *STARTS, *FAILURES, *STOPS, Status.SUCCEEDED]) == sorted(Status)
    assert {*FAILURES, *STOPS, Status.SUCCEEDED} == DONE
