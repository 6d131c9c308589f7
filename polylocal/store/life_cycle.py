"""Changes of the status of a run, and entries of its history. Only `move` changes a status."""

import sqlite3
import uuid as uuids
from collections.abc import Mapping
from typing import Any

from polylocal import clock
from polylocal.statuses import STARTS, STOPS, TRANSITIONS, Kind, Status, is_done
from polylocal.store import package_status
from polylocal.store.database import insert
from polylocal.store.queries import OPEN, sql_list
from polylocal.store.rows import Run, to_json

MAX_MESSAGE = 256  # characters, the documented limit of a status message


def move(
    db: sqlite3.Connection,
    pk: int,
    to: Status,
    message: str | None = None,
    details: Mapping[str, Any] | None = None,
    traceback: str | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> bool:
    """`Runs.transition` of one row, in the caller's transaction."""
    now = _now(db, pk)
    values: dict[str, Any] = {**(recorded or {}), "status": str(to), "updated_at": now}
    sets = [f"{column} = :{column}" for column in values] + ["status_entries = status_entries + 1"]
    if to in STARTS or is_done(to):
        values["started"] = now
        sets.append(f"started_at = coalesce(started_at, {':started' if to in STARTS else 'created_at'})")
    if is_done(to):
        sets.append("finished_at = :updated_at")
    query = f"update runs set {', '.join(sets)} where pk = :pk and status in {sql_list(TRANSITIONS[to])} returning kind"
    moved = db.execute(query, {**values, "pk": pk}).fetchall()
    if not moved:
        return False
    add_entry(db, pk, to, now, message, details, traceback)
    if is_done(to):
        db.execute("delete from tokens where run_pk = ?", (pk,))  # the token of a run is valid while it is open
    if moved[0]["kind"] == Kind.PACKAGE:
        package_status.follow(db, pk)
    return True


def note(db: sqlite3.Connection, pk: int, message: str, details: Mapping[str, Any] | None = None) -> None:
    """`Runs.note` in the caller's transaction."""
    row = db.execute("select status from runs where pk = ?", (pk,)).fetchone()
    if row:
        add_entry(db, pk, row["status"], _now(db, pk), message, details)


def end_dependents(db: sqlite3.Connection, build: Run, to: Status, reason: str | None) -> list[int]:
    """End the runs that wait for a build that ended without an image. Returns the pks of all that wait for the build.

    In the caller's transaction.
    """
    if not is_done(to):
        return []
    waiting = f"select r.pk from runs r where r.build_pk = ? and r.kind <> 'build' and {OPEN}"
    pks = [row["pk"] for row in db.execute(waiting, (build.pk,)).fetchall()]
    if to is not Status.SUCCEEDED:
        details = {"build_job": build.unique_name, "uuid": build.uuid, "failure_time": clock.now(), "reason": reason}
        end = Status.STOPPED if to in STOPS else Status.FAILED
        for pk in pks:
            move(db, pk, end, f"Build {end}", details)
    return pks


def add_entry(
    db: sqlite3.Connection,
    pk: int,
    status: str,
    now: str,
    message: str | None,
    details: Mapping[str, Any] | None = None,
    traceback: str | None = None,
) -> None:
    """Add an entry to the history of a run."""
    row = {"uuid": uuids.uuid4().hex, "run_pk": pk, "created_at": now, "status": str(status)}
    row |= {"message": shorten(message), "traceback": traceback, "details": to_json(details)}
    insert(db, "statuses", row)


def _now(db: sqlite3.Connection, pk: int) -> str:
    """The present time, but not before the last entry of the history: clocks may be set back."""
    last = db.execute("select created_at from statuses where run_pk = ? order by id desc limit 1", (pk,)).fetchone()
    return max(clock.now(), last["created_at"]) if last else clock.now()


def shorten(message: str | None) -> str | None:
    """Cut a message to the documented length, visibly."""
    if message is None or len(message) <= MAX_MESSAGE:
        return message
    return message[: MAX_MESSAGE - 1] + "…"
