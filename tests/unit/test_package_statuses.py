"""The states of build lists: the transition table, compared with the documents, and the status after a run's end."""

from __future__ import annotations

from itertools import product

import pytest

from polylocal.packages import statuses
from polylocal.packages.statuses import CONTAINER_WORDS, TRANSITIONS, WORDS, BuildStatus, ContainerStatus
from polylocal.statuses import Status, is_done

# from → to, according to the documents and ABF's server of that time; only admins may do 6000 → 7000
DOCUMENTED = {
    (4000, 2000),  # created, then queued
    (2000, 3000),  # a worker takes it
    (2000, 10000),  # cancel
    (3000, 10000),
    (10000, 5000),  # any later report of the worker is ignored
    (3000, 0),  # exit 0
    (3000, 11000),  # exit 5
    (3000, 15000),  # exit 6
    (3000, 666),  # any other exit
    (3000, 2000),  # infrastructure trouble: queued again
    (3000, 5000),  # `time_living` is over
    (0, 7000),  # publish, or auto-publish
    (8000, 7000),
    (11000, 7000),
    (6000, 7000),
    (7000, 6000),
    (7000, 8000),
    (7000, 777),
    (0, 9000),  # reject
    (8000, 9000),
}
# a daemon may die after the start of a container and see only its end
UNSEEN_START = {(2000, 0), (2000, 11000), (2000, 15000), (2000, 666), (2000, 5000)}
FINAL = {5000, 666, 777, 9000, 15000}
BEGUN = {"building", "scheduled", "starting", "running"}


def pairs() -> set[tuple[int, int]]:
    return {(int(source), int(step.target)) for step in TRANSITIONS for source in step.sources}


def test_the_table_is_that_of_the_documents() -> None:
    assert pairs() == DOCUMENTED | UNSEEN_START


def test_final_statuses_lead_nowhere_and_all_others_lead_on() -> None:
    assert {int(status) for status in BuildStatus} - {source for source, _ in pairs()} == FINAL


def test_every_status_but_the_first_is_reached_from_the_first() -> None:
    reached, ahead = set(), {4000}
    while ahead:
        reached |= ahead
        ahead = {target for source, target in pairs() if source in reached} - reached
    assert reached == {int(status) for status in BuildStatus}


@pytest.mark.parametrize("target", sorted(BuildStatus))
def test_the_sources_of_a_status_are_those_of_its_rows(target: BuildStatus) -> None:
    assert statuses.sources(target) == {source for source, to in pairs() if to == target}


def test_only_codes_that_the_client_knows_are_there() -> None:
    known = {0, 666, 777, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 11000, 15000}
    assert {int(status) for status in BuildStatus} == known
    assert {int(status) for status in ContainerStatus} == {4000, 6000, 7000, 8000}


def test_allowed_actions_by_status() -> None:
    assert {2000, 3000} == statuses.sources(BuildStatus.CANCELING)
    assert {0, 8000, 11000} == statuses.PUBLISHABLE
    assert {0, 8000} == statuses.REJECTABLE
    assert {0, 11000} == statuses.CONTAINABLE
    assert {4000, 8000} == statuses.CONTAINER_REQUESTS
    assert statuses.TIME_LIVING_S == (600, 360_000)


def test_every_status_has_its_own_message() -> None:
    assert set(WORDS) == set(BuildStatus)
    assert len(set(WORDS.values())) == len(WORDS)
    assert set(CONTAINER_WORDS) == set(ContainerStatus)


@pytest.mark.parametrize("status", sorted(Status))
def test_the_status_after_a_run(status: Status) -> None:
    codes = [None, 0, 1, 3, 5, 6, 127, 137, 143, 255]
    for exit_code, is_canceled, was_overdue in product(codes, (False, True), (False, True)):
        found = statuses.status_of_run(status, exit_code, is_canceled=is_canceled, was_overdue=was_overdue)
        if not is_done(status):
            open_ones = 3000 if status in BEGUN else 2000
            assert found == (10000 if is_canceled else open_ones)
        elif is_canceled:
            assert found == 5000
        elif status == "succeeded":
            assert found == 0
        elif was_overdue or status in ("stopped", "skipped"):
            assert found == 5000
        else:
            assert found == {5: 11000, 6: 15000}.get(exit_code or 0, 666)


def test_no_exit_code_but_a_success_is_complete() -> None:
    ends = {statuses.status_of_run("failed", code, is_canceled=False, was_overdue=False) for code in range(256)}
    assert BuildStatus.COMPLETE not in ends


def test_statuses_of_runs_are_reachable_in_the_table() -> None:
    for status in Status:
        for code in (0, 1, 5, 6):
            for is_canceled in (False, True):
                found = statuses.status_of_run(status, code, is_canceled=is_canceled, was_overdue=False)
                before = {10000} if is_canceled else {2000, 3000}
                assert found in before or any((source, found) in pairs() for source in before)
