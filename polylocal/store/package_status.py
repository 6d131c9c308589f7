"""Changes of the status of a build list. Only `move` changes it."""

import sqlite3

from polylocal import clock
from polylocal.packages import statuses
from polylocal.packages.statuses import BuildStatus
from polylocal.store.queries import sql_list


def move(db: sqlite3.Connection, run_pk: int, to: BuildStatus, among: frozenset[BuildStatus] | None = None) -> bool:
    """Move a build list, if its status allows that; `among`: only from these. In the caller's transaction."""
    sources = statuses.sources(to) if among is None else among
    moved = db.execute(
        f"update build_lists set status = ?, updated_at = max(updated_at, ?)"
        f" where run_pk = ? and status in {sql_list(sources)}",
        (int(to), clock.now(), run_pk),
    )
    return moved.rowcount > 0


def follow(db: sqlite3.Connection, run_pk: int) -> None:
    """Move the build list after its run has moved."""
    row = db.execute(
        "select r.status, r.exit_code, r.stop_reason, l.status as build_status from runs r"
        " join build_lists l on l.run_pk = r.pk where r.pk = ?",
        (run_pk,),
    ).fetchone()
    if row is None:
        return
    to = statuses.status_of_run(
        row["status"],
        row["exit_code"],
        is_canceled=row["build_status"] == BuildStatus.CANCELING,
        was_overdue=row["stop_reason"] is not None,
    )
    if to != row["build_status"]:
        move(db, run_pk, to)
