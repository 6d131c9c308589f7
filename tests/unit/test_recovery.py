"""Containers found at the start of a daemon: which ones are removed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from polylocal import clock
from polylocal.engine.containers import Found
from polylocal.runner.gc import Removal, unneeded_containers
from polylocal.store.rows import Run

NOW = "2018-08-23T12:00:00.000000+00:00"
A_MINUTE_AGO = "2018-08-23T11:59:00.000000+00:00"
CONTAINER = Found("c1", "job/abc", "exited")


def run(**values: Any) -> Run:
    blank: dict[str, Any] = {field.name: None for field in fields(Run)}
    return Run(**{**blank, "kind": "job", "id": 7, "uuid": "abc", "status": "running", **values})


def test_a_container_without_a_row_goes() -> None:
    assert unneeded_containers([CONTAINER], {}, set(), NOW) == [Removal("c1", "abc", "no run knows it")]


def test_a_container_of_a_done_run_is_removed() -> None:
    done = run(status="failed", finished_at=A_MINUTE_AGO)
    assert unneeded_containers([CONTAINER], {"abc": done}, set(), NOW) == [Removal("c1", "abc", "job/7 is failed")]


@pytest.mark.parametrize("status", ["created", "building", "scheduled", "running", "unknown", "warning"])
def test_a_container_of_an_open_run_stays(status: str) -> None:
    assert unneeded_containers([CONTAINER], {"abc": run(status=status)}, set(), NOW) == []


@pytest.mark.parametrize("runs", [{}, {"abc": run(status="succeeded", finished_at=A_MINUTE_AGO)}])
def test_what_a_thread_has_in_hand_stays(runs: dict[str, Run]) -> None:
    assert unneeded_containers([CONTAINER], runs, {"abc"}, NOW) == []


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"ttl": 61}, True),
        ({"ttl": 60}, False),
        ({"ttl": 0}, False),
        ({"ttl": None}, False),
        ({"ttl": 3600, "deleted_at": A_MINUTE_AGO}, False),
        ({"ttl": 3600, "finished_at": None}, False),
    ],
)
def test_a_done_container_is_kept_for_its_ttl(values: dict[str, Any], kept: bool) -> None:
    done = run(**{"status": "succeeded", "finished_at": A_MINUTE_AGO, **values})
    assert (unneeded_containers([CONTAINER], {"abc": done}, set(), NOW) == []) is kept


@pytest.mark.parametrize(("status", "goes"), [("running", False), ("paused", False), ("exited", True), ("dead", True)])
def test_a_helper_at_work_is_let_be(status: str, goes: bool) -> None:
    """It belongs to no run. If its daemon is gone, it has already ended."""
    removals = [Removal("h1", "", "no run knows it")] if goes else []
    assert unneeded_containers([Found("h1", "", status)], {"abc": run()}, set(), NOW) == removals


@pytest.mark.parametrize(("seconds", "goes"), [(1, False), (3600, True)])
def test_a_helper_is_given_time_to_be_started(seconds: float, goes: bool) -> None:
    made = Found("h1", "", "created", clock.parse(NOW).timestamp() - seconds)
    assert bool(unneeded_containers([made], {}, set(), NOW)) is goes


def test_a_container_of_a_run_that_nobody_knows_goes_even_while_it_works() -> None:
    assert unneeded_containers([Found("c1", "job/abc", "running")], {}, set(), NOW) == [
        Removal("c1", "abc", "no run knows it")
    ]


def test_each_container_is_judged_by_itself() -> None:
    found = [CONTAINER, Found("c2", "build/def", "running"), Found("c3", "", "exited")]
    runs = {"abc": run(), "def": run(kind="build", id=2, uuid="def", status="stopped")}
    assert [removal.container_id for removal in unneeded_containers(found, runs, set(), NOW)] == ["c2", "c3"]


def test_a_helper_of_an_earlier_daemon_is_removed_at_once() -> None:
    made = Found("h1", "", "created", clock.parse(NOW).timestamp() - 30)
    assert unneeded_containers([made], {}, set(), NOW, A_MINUTE_AGO) == []
    assert unneeded_containers([made], {}, set(), NOW, NOW) == [Removal("h1", "", "no run knows it")]
