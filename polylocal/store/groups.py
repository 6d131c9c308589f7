"""Groups: rows of the table of runs, and the experiments that they create, release and count."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polylocal import clock
from polylocal.statuses import FAILURES, Kind, Status
from polylocal.store import queries
from polylocal.store.database import Tables
from polylocal.store.life_cycle import move
from polylocal.store.queries import OPEN, SELECT, VISIBLE, sql_list
from polylocal.store.rows import Json, Project, Run, User, read_row
from polylocal.store.runs import NewRun, insert
from polylocal.text import non_finite


@dataclass(frozen=True)
class ExperimentSummary:
    """The part of an experiment that a search needs."""

    pk: int
    id: int
    iteration: int
    status: str
    params: Json
    measured: Json  # the last value of each metric; a word instead of one that is not finite
    is_held: bool
    is_stopping: bool
    is_own: bool  # created by the group, not selected into it
    has_begun: bool
    started_at: str | None
    finished_at: str | None

    @property
    def last_metric(self) -> Json:
        return non_finite.finite_ones(self.measured)

    @property
    def last_metric_not_finite(self) -> dict[str, str]:
        return non_finite.words(self.measured)


@dataclass(frozen=True)
class Progress:
    """Counts of the visible experiments of a group."""

    made: int
    open: int
    held: int
    failed: int


STOPPED = "User stopped experiment group"
STOPPED_PENDING = "User stopped pending experiments"

_MEMBERS = "r.group_pk = ? and r.kind = 'experiment'"
_NOT_RESOLVED = sql_list({Status.CREATED, Status.RESUMING})


class Groups(Tables):
    def open_groups(self) -> list[Run]:
        """Open groups, the oldest first."""
        # by the index of open groups: SQLite's own choice would scan all groups
        found = f"select r.pk from runs r indexed by runs_groups where r.kind = 'group' and {OPEN}"
        condition = f"r.pk in ({found}) and r.group_type = 'study' and r.is_managed and r.deleted_at is null"
        return self._database.rows(Run, f"{SELECT} where {condition} order by r.pk")

    def members(self, group: Run) -> list[ExperimentSummary]:
        """The visible experiments of a group, the oldest first; of a selection, the selected ones."""
        among = queries.members_of(group)
        query = (
            "select pk, id, iteration, status, coalesce(params, '{}') as params, started_at, finished_at, is_held,"
            f" coalesce({queries.LAST_METRIC}, '{{}}') as measured, stop_requested_at is not null as is_stopping,"
            " group_pk is ? as is_own, container_id is not null or not is_managed as has_begun"
            f" from runs r where {among.sql} and r.kind = 'experiment' and {VISIBLE} order by r.pk"
        )
        return self._database.rows(ExperimentSummary, query, (group.pk, *among.values))

    def progress(self, group: Run) -> Progress:
        """The counts of a group, without reading its experiments."""
        query = (
            f"select count(*), count(*) filter (where {OPEN}), count(*) filter (where {OPEN} and r.is_held),"
            f" count(*) filter (where r.status in {sql_list(FAILURES)})"
            f" from runs r where {_MEMBERS} and {VISIBLE}"
        )
        with self._database.read() as db:
            return Progress(*db.execute(query, (group.pk,)).fetchone())

    def running_experiments(self, group: Run) -> list[int]:
        """The pks of running experiments without a stop request."""
        query = f"select r.pk from runs r where {_MEMBERS} and r.status = 'running' and r.stop_requested_at is null"
        return self._database.column(query, (group.pk,))

    def has_reached(self, group: Run, metric: str, value: float, *, maximize: bool) -> bool:
        """Whether any visible experiment has a last value of the metric as good as `value`."""
        query = (
            "select 1 from run_values v join runs r on r.pk = v.run_pk where v.space = 'metric' and v.name = ?"
            f" and v.number {'>=' if maximize else '<='} ? and {_MEMBERS} and {VISIBLE} limit 1"
        )
        return self._database.value(query, (metric, value, group.pk)) is not None

    def reported_metrics(self, group: Run, metrics: Iterable[str]) -> dict[str, bool]:
        """The metrics that visible experiments reported, each with whether any last value is finite."""
        query = (
            "select v.name, max(v.number is not null) as is_finite from run_values v join runs r on r.pk = v.run_pk"
            " where v.space = 'metric' and v.name in (select value from json_each(?))"
            f" and {_MEMBERS} and {VISIBLE} group by v.name"
        )
        with self._database.read() as db:
            found = db.execute(query, (json.dumps(list(metrics)), group.pk)).fetchall()
        return {row["name"]: bool(row["is_finite"]) for row in found}

    def failed_build(self, group: Run) -> str | None:
        """The unique name of a failed build, if no visible experiment of the group got past its build."""
        query = (
            f"select r.build_pk, b.status, r.container_id from runs r left join runs b on b.pk = r.build_pk"
            f" where {_MEMBERS} and {VISIBLE} and r.build_pk is not null"
        )
        with self._database.read() as db:
            rows = db.execute(query, (group.pk,)).fetchall()
            failed = [row["build_pk"] for row in rows if row["status"] in FAILURES]
            if not failed or len(failed) < len(rows):
                return None
            build = read_row(Run, db.execute(f"{SELECT} where r.pk = ?", (failed[0],)).fetchone())
        return build.unique_name

    def counts(self, group: Run) -> Counter[str]:
        """The number of visible experiments by status; of a selection, of the selected ones."""
        query = f"select r.status, count(*) as n from runs r where {_MEMBERS} and {VISIBLE} group by r.status"
        if group.group_type == "selection":
            query = (
                "select r.status, count(*) as n from selections s join runs r on r.pk = s.experiment_pk"
                f" where s.group_pk = ? and {VISIBLE} group by r.status"
            )
        with self._database.read() as db:
            return Counter({row["status"]: row["n"] for row in db.execute(query, (group.pk,))})

    def suggest(self, group: Run, project: Project, user: User, experiments: Sequence[NewRun]) -> bool:
        """Create the next experiments of a group, as held ones. The group is then running.

        `group` has the number that its iteration has created so far. Returns False, and creates none, if the row has
        another number.
        """
        with self._changing(group.pk) as db:
            claimed = db.execute(
                "update runs as r set suggested = suggested + ? where pk = ? and suggested = ? and iteration = ?"
                f" and {OPEN} and {VISIBLE} and stop_requested_at is null",
                (len(experiments), group.pk, group.suggested, group.iteration),
            ).rowcount
            if claimed:
                move(db, group.pk, Status.RUNNING)
            for experiment in experiments if claimed else ():
                pk = insert(db, project, user, experiment)
                # None if that user is gone: the experiments get no secrets then, not those of the group's user
                db.execute("update runs set secrets_user_id = ? where pk = ?", (group.secrets_user_id, pk))
        return bool(claimed)

    def advance(self, group: Run) -> None:
        """Begin the next iteration, once."""
        with self._changing(group.pk) as db:
            next_one = "update runs as r set iteration = iteration + 1, suggested = 0"
            db.execute(f"{next_one} where pk = ? and iteration = ? and {OPEN}", (group.pk, group.iteration))

    def release(self, group: Run) -> int:
        """Release the oldest held experiments, up to the group's concurrency. Returns their number."""
        counted = (
            "select count(*) filter (where r.is_held), count(*) filter (where not r.is_held)"
            f" from runs r where {_MEMBERS} and {OPEN} and r.deleted_at is null"
        )
        with self._database.read() as db:  # usually there is nothing to do, and no reason to wait for writers
            held, active = db.execute(counted, (group.pk,)).fetchone()
        if not held or active >= (group.concurrency or 1):
            return 0
        with self._database.write() as db:
            _, active = db.execute(counted, (group.pk,)).fetchone()
            room = max(0, (group.concurrency or 1) - active)
            released = db.execute(
                f"update runs set is_held = 0 where pk in (select r.pk from runs r where {_MEMBERS} and {OPEN}"
                f" and r.is_held and {VISIBLE} order by r.pk limit ?)",
                (group.pk, room),
            ).rowcount
        if released:
            self._notify(group.pk)
        return int(released)

    def cancel_held(self, group: Run, message: str) -> None:
        """Stop the held experiments only."""
        with self._database.write() as db:
            dropped = _cancel(db, group, "r.is_held", message)
        if dropped:
            self._notify(group.pk)

    def fail_unresolved(self, group: Run, message: str, details: Mapping[str, Any]) -> None:
        """End the experiments without a build: the build that they share with the others has failed."""
        which = "r.build_pk is null and r.status = 'created' and r.is_managed"
        if not self._has_open(group, which):
            return
        with self._changing(group.pk) as db:
            _cancel(db, group, which, message, Status.FAILED, details)

    def cancel_pending(self, group: Run, message: str) -> None:
        """Stop the experiments that have not begun. The running ones and the group continue.

        The runner may be starting those that have a build, so it is requested to stop them.
        """
        pending = "r.container_id is null and r.is_managed and r.stop_requested_at is null"
        if not self._has_open(group, pending):
            return
        with self._changing(group.pk) as db:
            _cancel(db, group, f"{pending} and (r.is_held or r.build_pk is null)", message)  # no thread has these
            db.execute(
                f"update runs as r set stop_requested_at = ? where {_MEMBERS} and {OPEN} and {pending}",
                (clock.now(), group.pk),
            )

    def _has_open(self, group: Run, which: str) -> bool:
        """A first check without a transaction: usually there is nothing to do, and no reason to wait for writers."""
        query = f"select 1 from runs r where {_MEMBERS} and {OPEN} and {which} limit 1"
        return self._database.value(query, (group.pk,)) is not None

    def stop(self, group: Run, *, pending_only: bool, message: str | None = None) -> None:
        """Stop the group, and all of its experiments or those that have not begun.

        The runner may be starting those that have a build, so it is requested to stop them.
        """
        why = message or (STOPPED_PENDING if pending_only else STOPPED)
        waiting = f"and r.container_id is null and r.status in {_NOT_RESOLVED}" if pending_only else ""
        with self._changing(group.pk) as db:
            unresolved = f"r.build_pk is null and r.status in {_NOT_RESOLVED}"
            _cancel(db, group, f"(r.is_held or ({unresolved}))", why)  # no thread has these
            db.execute(
                "update runs as r set stop_requested_at = coalesce(stop_requested_at, ?)"
                f" where {_MEMBERS} and {OPEN} {waiting}",
                (clock.now(), group.pk),
            )
            move(db, group.pk, Status.STOPPED, message or STOPPED)

    def select(self, group: Run, experiments: Iterable[Run], operation: str | None) -> None:
        """Make these the experiments of a selection (None), `add` them to it, or `remove` them."""
        pairs = [(group.pk, experiment.pk) for experiment in experiments]
        with self._changing(group.pk) as db:
            if operation == "remove":
                db.executemany("delete from selections where group_pk = ? and experiment_pk = ?", pairs)
            else:
                if operation is None:
                    db.execute("delete from selections where group_pk = ?", (group.pk,))
                db.executemany("insert or ignore into selections values (?, ?)", pairs)
            db.execute("update runs set updated_at = ? where pk = ?", (clock.now(), group.pk))

    def experiments_by_id(self, project: Project, ids: Iterable[int]) -> list[Run]:
        """The visible experiments of a project with these ids. Unknown ids are ignored."""
        among = "r.id in (select value from json_each(?))"
        query = f"{SELECT} where r.project_id = ? and r.kind = ? and {VISIBLE} and {among} order by r.pk"
        return self._database.rows(Run, query, (project.id, str(Kind.EXPERIMENT), json.dumps(list(ids))))


def _cancel(
    db: sqlite3.Connection,
    group: Run,
    which: str,
    message: str,
    to: Status = Status.STOPPED,
    details: Mapping[str, Any] | None = None,
) -> int:
    found = db.execute(f"select r.pk from runs r where {_MEMBERS} and {OPEN} and {which}", (group.pk,)).fetchall()
    for row in found:
        move(db, row["pk"], to, message, details)
    return len(found)
