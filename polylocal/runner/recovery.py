"""Compares containers with the rows of runs, and decides which containers to remove. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from polylocal import clock
from polylocal.engine.containers import Found
from polylocal.statuses import is_done
from polylocal.store.rows import Run

_STARTED_S = 600.0  # a helper is started right after its creation


@dataclass(frozen=True)
class Remove:
    """A container that nobody needs any more."""

    container_id: str
    run: str  # uuid; there may be no such run
    why: str


def plan(
    found: Iterable[Found], runs: dict[str, Run], active: Collection[str], now: str, started_at: str = ""
) -> list[Remove]:
    """The containers with our label that must be removed.

    `runs` are the rows by uuid. `active` are the uuids of runs that have a thread, which removes their containers.
    A container is removed if it has no row, or if its run is done and its ttl has passed. A container without a run is
    a helper. It is removed after its end, if it was not started for long, or if an earlier daemon created it;
    `started_at` is the start of this one.
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
            return True  # the engine's times are whole seconds
        return clock.parse(now).timestamp() - helper.created_at > _STARTED_S
    return helper.status in ("exited", "dead")


def _is_kept(run: Run, now: str) -> bool:
    if not run.ttl or not run.finished_at or run.deleted_at:
        return False
    return clock.seconds_between(run.finished_at, now) < run.ttl
