"""Rows and containers → what to do about those that don't belong to each other. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from polylocal import clock
from polylocal.engine.base import Found
from polylocal.statuses import is_done
from polylocal.store.rows import Run

_STARTED_S = 600.0  # a helper is started right after it was made


@dataclass(frozen=True)
class Remove:
    """A container that nothing waits for any more."""

    container_id: str
    run: str  # uuid; there may be no such run
    why: str


def plan(
    found: Iterable[Found], runs: dict[str, Run], active: Collection[str], now: str, started_at: str = ""
) -> list[Remove]:
    """What to remove of the containers with our label.

    `runs` are the rows by uuid; `active` the uuids of runs that a thread has in hand: their containers are theirs.
    A container without a row, or of a run that is done and need not be kept any longer, goes. What carries no run is a
    helper of ours: it goes once it has done its work, or if nobody has started it for long, or if it was made by a
    daemon before this one, which started at `started_at`.
    """
    removals = []
    for container in found:
        uuid = container.run.partition("/")[2]
        if uuid in active:
            continue
        run = runs.get(uuid)
        if not container.run and not _is_left_over(container, now, started_at):
            continue
        if run is None:
            removals.append(Remove(container.id, uuid, "no run knows it"))
        elif is_done(run.status) and not _is_kept(run, now):
            removals.append(Remove(container.id, uuid, f"{run.label} is {run.status}"))
    return removals


def _is_left_over(helper: Found, now: str, started_at: str) -> bool:
    if helper.status == "created":
        if started_at and helper.created_at and helper.created_at < clock.parse(started_at).timestamp() - 1:
            return True  # the engine says whole seconds
        return clock.parse(now).timestamp() - helper.created_at > _STARTED_S
    return helper.status in ("exited", "dead")


def _is_kept(run: Run, now: str) -> bool:
    if not run.ttl or not run.finished_at or run.deleted_at:
        return False
    return clock.seconds_between(run.finished_at, now) < run.ttl
