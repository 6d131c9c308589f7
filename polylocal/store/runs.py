"""Runs of all kinds: one table and one life cycle. One function, `transition`, moves a status."""

import hashlib
import json
import sqlite3
import uuid as uuids
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polylocal import clock
from polylocal.errors import InvalidInput, NotFound
from polylocal.paths import OUTPUTS, run_outputs
from polylocal.statuses import STARTS, TRANSITIONS, Kind, Status, is_done
from polylocal.store import built_images, package_status, queries, run_values
from polylocal.store.database import Database, delete_in_parts
from polylocal.store.projects import reference_code
from polylocal.store.queries import OPEN, SELECT, VISIBLE
from polylocal.store.rows import Project, QueuedRun, Run, StatusRow, User, json_columns, row_of, rows_of, to_json

MAX_MESSAGE = 256  # characters, the documented limit of a status message

WORK = "r.kind not in ('group', 'build', 'package')"  # runs that need an image of a build
# a run with the runs that belong to it: experiments of a group, tensorboards of both
_WITH = """(pk = :pk or group_pk = :pk or experiment_pk = :pk
    or experiment_pk in (select pk from runs where group_pk = :pk and kind = 'experiment'))"""
SERVERS = "('notebook', 'tensorboard')"
_NOT_BEGUN = "('created', 'unschedulable')"  # statuses of a build that has not begun
_PENDING = f"""{OPEN} and r.is_managed and r.container_id is null and r.stop_requested_at is null
    and r.deleted_at is null"""
_ABOUT = frozenset({"name", "description", "readme", "tags", "data_refs", "run_env", "backend", "params", "framework"})
_INSERTABLE = _ABOUT | {"is_managed", "ttl", "priority", "experiment_pk", "group_type", "is_held"}
_INSERTABLE |= {"search_algorithm", "concurrency", "iteration"}
_PATCHABLE = _ABOUT | {"dockerfile", "node"}
_RECORDED = frozenset(
    {
        "container_id",
        "exit_code",
        "restarts",
        "restarted_after",
        "dockerfile",
        "image_id",
        "builder",
        "shell",
        "locale",
        "node",
    }
    | {"is_valid", "outputs", "code_id", "port", "address", "keeps_changes", "iteration", "suggested", "log_start"}
)
_JSON = json_columns(Run)


@dataclass(frozen=True)
class NewRun:
    """The values of a new run."""

    kind: Kind
    content: str | None = None
    config: Mapping[str, Any] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)  # name, description, tags … as the caller sent them
    resources: Mapping[str, Any] | None = None
    code_id: int | None = None
    code: Mapping[str, Any] | None = None  # in place of `code_id`: its commit, head and branch, referenced on insertion
    build_pk: int | None = None
    build_key: str | None = None
    original: Run | None = None
    cloning_strategy: str | None = None
    group: Run | None = None  # of an experiment or a tensorboard
    outputs: str | None = None  # the path of the outputs folder; None: a new one
    warnings: Sequence[str] = ()  # sentences for the creator
    message: str | None = None  # of the first status
    notes: Sequence[str] = ()  # messages of further entries of its history
    secrets_user_id: int | None = None  # the user whose secrets it names; None: its own user


class Runs:
    def __init__(self, database: Database, hint: Callable[[int], None]) -> None:
        self._database = database
        self._hint = hint

    # -- creating and finding -----------------------------------------------------------------------------------------

    def insert(self, project: Project, user: User, new: NewRun) -> Run:
        """Insert a run and its first status, in one transaction."""
        with self._database.write() as db:
            pk = insert(db, project, user, new)
        self._hint(pk)
        return self.by_pk(pk)

    def get(self, project: Project, kind: Kind, run_id: int) -> Run:
        query = f"{SELECT} where r.kind = ? and r.id = ? and r.project_id = ? and {VISIBLE}"
        return self._one(query, (kind, run_id, project.id))

    def archived(self, project: Project, kind: Kind, run_id: int) -> Run:
        """A run, also an archived one. Raises NotFound."""
        query = f"{SELECT} where r.kind = ? and r.id = ? and r.project_id = ? and r.deleted_at is null"
        return self._one(query, (kind, run_id, project.id))

    def find(self, kind: Kind, run_id: int) -> Run:
        return self._one(f"{SELECT} where r.kind = ? and r.id = ? and {VISIBLE}", (kind, run_id))

    def named(self, project: Project, kind: Kind, name: str) -> Run:
        """A run by id, by name or by unique name. Raises NotFound."""
        if name.isascii() and name.isdigit() and len(name) < 19:
            return self.get(project, kind, int(name))
        if name.startswith(f"{project.unique_name}.") and name.rpartition(".")[2].isdigit():
            found = self.get(project, kind, int(name.rpartition(".")[2][:18]))
            if found.unique_name == name:
                return found
        query = f"{SELECT} where r.kind = ? and r.name = ? and r.project_id = ? and {VISIBLE}"
        return self._one(query, (kind, name, project.id))

    def by_pk(self, pk: int) -> Run:
        """A run by its pk, also a deleted one that is not removed yet. Raises NotFound."""
        return self._one(f"{SELECT} where r.pk = ?", (pk,))

    def by_uuid(self, uuid: str) -> Run | None:
        runs = self._many(f"{SELECT} where r.uuid = ?", (uuid,))
        return runs[0] if runs else None

    def page(
        self,
        project: Project,
        kind: Kind | None,
        *,
        query: str | None,
        sort: str | None,
        limit: int,
        offset: int,
        group: Run | None = None,
        only_open: bool = False,
    ) -> tuple[int, list[Run]]:
        """Count and one page of runs. `group`: only of this group. Without conditions the count is a stored counter.

        `kind` None: runs of all kinds.
        """
        where = queries.where(query, kind) if query else None
        if only_open:
            where = queries.Where(f"{OPEN} and ({where.sql})", where.values) if where else queries.Where(OPEN, ())
        if group:
            members = queries.of_group(group)
            both = f"{members.sql} and ({where.sql})" if where else members.sql
            where = queries.Where(both, (*members.values, *(where.values if where else ())))
        condition = f"r.project_id = ? and {VISIBLE}" + (" and r.kind = ?" if kind else "")
        values: tuple[Any, ...] = (project.id, str(kind)) if kind else (project.id,)
        by = queries.order(sort, kind)
        if where is not None:
            condition, values = f"{condition} and ({where.sql})", (*values, *where.values)
        among = f"from runs r {queries.joins(condition)} where {condition}"
        with self._database.read() as db:
            if where is None:
                counted = "select coalesce(sum(n), 0) from counters where project_id = ?"
                count = db.execute(f"{counted} and kind = ?" if kind else counted, values).fetchone()[0]
            else:
                count = db.execute(f"select count(*) {among}", values).fetchone()[0]
            # first the pks of the page, then its rows: sorted and skipped rows are never read as a whole
            if kind is None and where is None and by.sql == queries.NEWEST:
                pks = _newest(db, project, limit, offset)
            else:
                one_page = f"select r.pk {among} order by {by.sql} limit ? offset ?"
                pks = [row["pk"] for row in db.execute(one_page, (*values, *by.values, limit, offset))]
            rows = db.execute(f"{SELECT} where r.pk in (select value from json_each(?))", (json.dumps(pks),)).fetchall()
        by_pk = {run.pk: run for run in rows_of(Run, rows)}
        return count, [by_pk[pk] for pk in pks]

    def latest(self, user: User, *, kind: str | None, is_open: bool, limit: int) -> list[Run]:
        """The last changed runs of all projects that the user may read."""
        condition = f"{VISIBLE} and p.archived_at is null and (? or p.is_public or p.user_id = ?)"
        values: list[Any] = [user.is_superuser, user.id]
        if kind:
            condition, values = f"{condition} and r.kind = ?", [*values, kind]
        if is_open:
            condition = f"{condition} and {OPEN}"
        newest = f"{SELECT} where {condition} order by r.updated_at desc, r.pk desc limit ?"
        return self._many(newest, (*values, limit))

    def archives(self, user: User, kind: Kind, page: queries.Page) -> tuple[int, list[Run]]:
        """Count and one page of the archived runs in a user's projects, the last archived first."""
        where = "where r.kind = ? and r.archived_at is not null and r.deleted_at is null and p.user_id = ?"
        by = queries.by_dates(page.sort, "r", "r.archived_at desc, r.pk desc")
        with self._database.read() as db:
            counted = f"select count(*) from runs r join projects p on p.id = r.project_id {where}"
            count = db.execute(counted, (str(kind), user.id)).fetchone()[0]
            found = f"{SELECT} {where} order by {by} limit ? offset ?"
            rows = db.execute(found, (str(kind), user.id, page.limit, page.offset)).fetchall()
        return count, [row_of(Run, row) for row in rows]

    def dependents(self, build: Run) -> dict[str, int]:
        """The number of visible runs that use this build, by kind."""
        query = "select kind, count(*) from runs where build_pk = ? and deleted_at is null group by kind"
        with self._database.read() as db:
            return dict(db.execute(query, (build.pk,)).fetchall())

    # -- life cycle -----------------------------------------------------------------------------------------------

    def transition(
        self,
        run: Run,
        to: Status,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        traceback: str | None = None,
        recorded: Mapping[str, Any] | None = None,
    ) -> bool:
        """Move a run, if its status allows that: one update and one entry of the history, in one transaction.

        `recorded` are columns that become true at the same moment. False: the run had moved on and nothing was
        written. The end of a build moves the runs that wait for it, in the same transaction.
        """
        with self._database.write() as db:
            moved = move(db, run.pk, to, message, details, traceback, recorded)
            waiting = _carry_over(db, run, to, message) if moved and run.kind == Kind.BUILD else []
        for pk in (run.pk, *waiting) if moved else ():
            self._hint(pk)
        return moved

    def note(self, run: Run, message: str, details: Mapping[str, Any] | None = None) -> None:
        """Add an entry to the history that repeats the status, with a message."""
        with self._database.write() as db:
            note(db, run.pk, message, details)
        self._hint(run.pk)

    def statuses(self, run: Run, *, limit: int, offset: int) -> tuple[int, list[StatusRow]]:
        query = "select * from statuses where run_pk = ? order by id limit ? offset ?"
        with self._database.read() as db:
            count = db.execute("select count(*) from statuses where run_pk = ?", (run.pk,)).fetchone()[0]
            return count, [row_of(StatusRow, row) for row in db.execute(query, (run.pk, limit, offset))]

    def newest_messages(self, runs: Iterable[Run]) -> dict[int, str | None]:
        """The message of the last entry of each run's history, by pk."""
        last = "select max(id) from statuses where run_pk in (select value from json_each(?)) group by run_pk"
        with self._database.read() as db:
            found = f"select run_pk, message from statuses where id in ({last})"
            return dict(db.execute(found, (json.dumps([run.pk for run in runs]),)).fetchall())

    def newest_status(self, run: Run) -> StatusRow:
        with self._database.read() as db:
            row = db.execute("select * from statuses where run_pk = ? order by id desc limit 1", (run.pk,)).fetchone()
        if row is None:
            raise NotFound  # it was removed at the same time
        return row_of(StatusRow, row)

    def seconds_since_running(self, run: Run) -> float:
        """Seconds since its history first had the status running; 0 if it never had.

        On the machine's own clock, which nobody sets, from the first time that this is asked; by the times in the
        history only where the machine was started anew since, or does not say.
        """
        query = (
            "select boot_id, running_at_s, (select min(created_at) from statuses where run_pk = pk"
            " and status = 'running') as since from runs where pk = ?"
        )
        boot = clock.boot_id()
        with self._database.write() as db:
            row = db.execute(query, (run.pk,)).fetchone()
            if boot and row["boot_id"] == boot:
                return clock.uptime_s() - float(row["running_at_s"])
            passed = max(0.0, clock.seconds_between(row["since"], clock.now())) if row["since"] else 0.0
            if boot and row["since"]:
                values = (boot, clock.uptime_s() - passed, run.pk)
                db.execute("update runs set boot_id = ?, running_at_s = ? where pk = ?", values)
        return passed

    def running_since(self, run: Run) -> str | None:
        """The time of the last entry `running` of its history. None: there is none, or the run is removed."""
        query = "select created_at from statuses where run_pk = ? and status = 'running' order by id desc limit 1"
        with self._database.read() as db:
            row = db.execute(query, (run.pk,)).fetchone()
        return row["created_at"] if row else None

    def status_entry(self, run: Run, uuid: str) -> StatusRow:
        with self._database.read() as db:
            row = db.execute("select * from statuses where run_pk = ? and uuid = ?", (run.pk, uuid)).fetchone()
        if row is None:
            raise NotFound
        return row_of(StatusRow, row)

    def request_stop(self, run: Run, reason: str | None = None) -> None:
        """Request a stop, which the runner carries out. Has no effect on a run that is done.

        `reason`: why, if not because a person wants it; the first word counts.
        """
        stops = "stop_reason = iif(stop_requested_at is null, ?, stop_reason)"
        with self._database.write() as db:
            db.execute(
                f"update runs as r set {stops}, stop_requested_at = coalesce(stop_requested_at, ?)"
                f" where pk = ? and {OPEN}",
                (reason, clock.now(), run.pk),
            )
        self._hint(run.pk)

    # -- changing --------------------------------------------------------------------------------------------------

    def update(self, run: Run, values: Mapping[str, Any]) -> Run:
        """Change the columns that a person may change. Raises InvalidInput for a name of another run of the project."""
        return self.change(run, lambda _: values)

    def change(self, run: Run, values_for: Callable[[Run], Mapping[str, Any]]) -> Run:
        """Change a run to values that depend on the old ones: `values_for` gets the row of this transaction.

        What it raises ends the transaction, and nothing is changed.
        """
        with self._database.write() as db:
            found = db.execute(f"{SELECT} where r.pk = ?", (run.pk,)).fetchone()
            if found is None:
                raise NotFound  # it was removed since it was read
            values = {k: v for k, v in values_for(row_of(Run, found)).items() if k in _PATCHABLE}
            row = {k: to_json(v) if k in _JSON else v for k, v in values.items()} | {"updated_at": clock.now()}
            sets = ", ".join(f"{column} = :{column}" for column in row)
            try:
                db.execute(f"update runs set {sets} where pk = :pk", {**row, "pk": run.pk})
            except sqlite3.IntegrityError as error:
                message = f"A {run.kind} with name `{values.get('name')}` already exists in this project."
                raise InvalidInput({"name": [message]}) from error
            if "params" in values:
                run_values.set_params(db, run.pk, values["params"])
        self._hint(run.pk)
        return self.by_pk(run.pk)

    def record(self, run: Run, **columns: Any) -> Run:
        """Set columns for the runner. This does not count as a change of the run."""
        unknown = columns.keys() - _RECORDED
        if unknown:
            raise TypeError(f"not for the runner to record: {sorted(unknown)}")
        self._set(run.pk, columns)
        return self.by_pk(run.pk)

    def invalidate_builds(self, project: Project) -> None:
        """Mark all builds of a project as not reusable."""
        with self._database.write() as db:
            db.execute("update runs set is_valid = 0 where project_id = ? and kind = 'build'", (project.id,))

    def archive(self, run: Run) -> None:
        """Archive a run and the runs that belong to it: they are invisible until it is restored. Open ones stop."""
        now = clock.now()
        among = f"archived_at is null and deleted_at is null and {_WITH}"
        values = {"now": now, "pk": run.pk}
        with self._database.write() as db:
            db.execute(
                f"update runs as r set stop_requested_at = coalesce(stop_requested_at, :now) where {among} and {OPEN}",
                values,
            )
            db.execute(f"update runs set archived_at = :now where {among}", values)
        self._hint(run.pk)

    def restore(self, run: Run) -> None:
        """Restore a run, with the runs that were archived together with it."""
        with self._database.write() as db:
            db.execute(
                f"update runs set archived_at = null where archived_at = :at and {_WITH}",
                {"at": run.archived_at, "pk": run.pk},
            )
        self._hint(run.pk)

    def delete(self, run: Run) -> None:
        """Delete a run and the runs that belong to it: they are invisible at once, and the runner removes them."""
        with self._database.write() as db:
            db.execute(
                f"update runs set deleted_at = :now where {_WITH} and deleted_at is null",
                {"now": clock.now(), "pk": run.pk},
            )
            db.execute(  # runs that wait for this build ask for another one
                "update runs set build_pk = null where build_pk = ? and container_id is null"
                " and status in ('created', 'building', 'unschedulable')",
                (run.pk,),
            )
        self._hint(run.pk)

    def remove(self, run: Run) -> None:
        """Remove the row, after everything else of the run was removed."""
        for table in ("metrics", "statuses"):
            delete_in_parts(self._database, table, "run_pk = ?", (run.pk,))
        with self._database.write() as db:
            db.execute("delete from bookmarks where subject = ? and object_id = ?", (run.kind, run.pk))
            db.execute("delete from runs where pk = ?", (run.pk,))
        self._hint(run.pk)

    def shares_outputs(self, run: Run) -> bool:
        query = "select 1 from runs where outputs = ? and pk <> ? limit 1"
        with self._database.read() as db:
            return db.execute(query, (run.outputs, run.pk)).fetchone() is not None

    # -- for the runner -----------------------------------------------------------------------------------------------

    def unresolved(self, limit: int) -> list[Run]:
        """Runs that need an image and have no build yet, the oldest first."""
        return self._many(
            f"{SELECT} where {_PENDING} and {WORK} and r.build_pk is null and not r.is_held"
            " order by r.priority desc, r.pk limit ?",
            (limit,),
        )

    def attach_build(self, run: Run, build: NewRun, *, anew: bool) -> Run | None:
        """Give a run its build: the newest good one with the key of `build`, a running one, or `build` itself.

        `build.secrets_user_id` is set where the build takes secrets: one that took another user's is not used.
        All in one transaction: ten runs at once share one build. `anew` always makes a new one. A run whose build
        is still to be made becomes `building`. Returns the build; None: the run needs none any more.
        """
        with self._database.write() as db:
            if not db.execute(
                f"select 1 from runs r where pk = ? and build_pk is null and {OPEN}", (run.pk,)
            ).fetchone():
                return None  # it was stopped or deleted, or has a build already
            found = None if anew else _reusable_build(db, build)
            if found and not built_images.may_share(db, run.user_id, found["uuid"]):
                found = None  # it was built from an image that this user may not use
            pk = found["pk"] if found else _insert_build_for(db, run, build)
            db.execute("update runs set build_pk = ?, updated_at = ? where pk = ?", (pk, clock.now(), run.pk))
            if not found or found["status"] != Status.SUCCEEDED:
                move(db, run.pk, Status.BUILDING, "Building container", None, None, None)
        self._hint(pk)
        self._hint(run.pk)
        return self.by_pk(pk)

    def detach_build(self, run: Run, build: Run) -> None:
        """Mark a build whose image is gone as not reusable. The run then gets another build."""
        with self._database.write() as db:
            db.execute("update runs set is_valid = 0 where pk = ?", (build.pk,))
            row = db.execute(f"select status from runs r where pk = ? and {OPEN}", (run.pk,)).fetchone()
            if row:
                message = "The image is gone: building it again"
                _record_status(db, run.pk, row["status"], _moment(db, run.pk), message, None, None)
                db.execute("update runs set build_pk = null where pk = ?", (run.pk,))
        self._hint(run.pk)

    def with_resources(self) -> list[Run]:
        """Open runs that request resources and have no container, and groups without experiments."""
        return self._many(
            f"{SELECT} where {_PENDING} and r.resources is not null and not r.is_held"
            " and (r.kind <> 'group' or r.status = 'created') order by r.pk"
        )

    def runnable(self, limit: int, *, servers: bool = False) -> list[Run]:
        """The queue: waiting builds, and runs whose image is ready; by priority, then by age.

        `servers`: notebooks and tensorboards, which have a queue of their own.
        """
        # by the index of open runs: SQLite's own choice would scan all servers
        kinds = f"{'' if servers else 'not '}in {SERVERS}"
        found = f"select r.pk from runs r indexed by runs_open where {OPEN} and r.kind {kinds}"
        return self._many(
            f"{SELECT} where r.pk in ({found}) and {_PENDING} and not r.is_held"
            f" and (case r.kind when 'build' then r.status in {_NOT_BEGUN} when 'package' then 1"
            " else b.status = 'succeeded' end)"
            " order by r.priority desc, r.pk limit ?",
            (limit,),
        )

    def waiting(self, limit: int) -> list[Run]:
        """Builds and runs that wait to start, without those whose status says already why they can't."""
        return self._many(
            f"{SELECT} where {_PENDING} and r.kind <> 'group' and not r.is_held"
            " and r.status in ('created', 'resuming', 'building', 'warning')"
            " and (r.kind <> 'build' or r.status = 'created')"
            " order by r.priority desc, r.pk limit ?",
            (limit,),
        )

    def server(
        self, project: Project, kind: Kind, *, experiment: Run | None = None, group: Run | None = None
    ) -> Run | None:
        """The newest notebook or tensorboard of a project, or of one experiment or group in it."""
        # the kind is part of the text: SQLite does not use the index of servers otherwise
        of = f"r.project_id = ? and r.kind = '{kind}' and r.kind in {SERVERS}"
        of += " and r.experiment_pk is ? and r.group_pk is ?"
        values = (project.id, experiment.pk if experiment else None, group.pk if group else None)
        found = self._many(f"{SELECT} where {of} and {VISIBLE} order by r.pk desc limit 1", values)
        return found[0] if found else None

    def begun(self) -> list[Run]:
        """Managed runs that have begun, and that a new daemon must take up."""
        return self._many(
            f"{SELECT} where {OPEN} and r.is_managed and (r.container_id is not null"
            f" or (r.kind = 'build' and r.status not in {_NOT_BEGUN})) order by r.pk"
        )

    def stopping(self) -> list[Run]:
        """Open runs with a stop request, including deleted ones."""
        wanted = "(r.stop_requested_at is not null or r.deleted_at is not null)"
        return self._many(f"{SELECT} where {OPEN} and {wanted} order by r.pk")

    def deleted(self) -> list[Run]:
        """Deleted runs that are done and can be removed. Builds come after the runs that need their images."""
        gone = f"r.deleted_at is not null and not ({OPEN})"
        needed = f"""r.kind = 'build' and exists (select 1 from runs u where u.build_pk = r.pk and u.kind <> 'build'
            and (u.deleted_at is not null or {OPEN.replace("r.", "u.")}))"""
        return self._many(f"{SELECT} where {gone} and not ({needed}) order by r.deleted_at, r.pk limit 100")

    def queue(self, *, held: Iterable[int] = ()) -> list[QueuedRun]:
        """All runs that have not begun, by priority, then by age, and the groups that have made no experiment yet.

        Experiments that their group holds may be many: only those with the pks `held` are included.
        """
        members = f"from runs m where m.group_pk = r.group_pk and m.kind = 'experiment' and {OPEN.replace('r.', 'm.')}"
        released = f"(select count(*) {members} and not m.is_held and m.deleted_at is null)"
        query = (
            "select r.pk, r.kind, r.id, o.username as owner, p.name as project_name, g.id as group_id, r.is_held,"
            " b.id as build_id, b.status as build_status, iif(r.kind = 'group', null, r.resources) as resources,"
            f" g.concurrency, iif(r.is_held, {released}, 0) as released"
            " from runs r join projects p on p.id = r.project_id join users o on o.id = p.user_id"
            " left join runs b on b.pk = r.build_pk and b.deleted_at is null left join runs g on g.pk = r.group_pk"
            f" where r.pk in (select r.pk from runs r indexed by runs_open where {OPEN}) and {_PENDING}"
            f" and (case r.kind when 'build' then r.status in {_NOT_BEGUN} when 'group' then r.status = 'created'"
            " else 1 end) and (not r.is_held or r.pk in (select value from json_each(?)))"
            " order by r.priority desc, r.pk"
        )
        with self._database.read() as db:
            return rows_of(QueuedRun, db.execute(query, (json.dumps([*held]),)))

    # -- helpers --------------------------------------------------------------------------------------------------

    def _one(self, query: str, values: tuple[Any, ...]) -> Run:
        runs = self._many(query, values)
        if not runs:
            raise NotFound
        return runs[0]

    def _many(self, query: str, values: Iterable[Any] = ()) -> list[Run]:
        with self._database.read() as db:
            return rows_of(Run, db.execute(query, tuple(values)))

    def _set(self, pk: int, row: Mapping[str, Any]) -> None:
        sets = ", ".join(f"{column} = :{column}" for column in row)
        with self._database.write() as db:
            db.execute(f"update runs set {sets} where pk = :pk", {**row, "pk": pk})


def _newest(db: sqlite3.Connection, project: Project, limit: int, offset: int) -> list[int]:
    """A page of a project's runs of all kinds, the last changed first. Each kind has an index in this order."""
    of_kind = (
        f"select * from (select r.pk, r.updated_at from runs r where r.project_id = :project and r.kind = '{{kind}}'"
        f" and {VISIBLE} order by {queries.NEWEST} limit :limit + :offset)"
    )
    all_kinds = " union all ".join(of_kind.format(kind=kind) for kind in Kind)
    page = f"select pk from ({all_kinds}) order by updated_at desc, pk desc limit :limit offset :offset"
    values = {"project": project.id, "limit": limit, "offset": offset}
    return [row["pk"] for row in db.execute(page, values)]


def insert(db: sqlite3.Connection, project: Project, user: User, new: NewRun) -> int:
    """Insert a run and its first status, in the caller's transaction. Returns its pk."""
    now = clock.now()
    if db.execute("select 1 from projects where id = ? and deleted_at is null", (project.id,)).fetchone() is None:
        raise NotFound  # the project was deleted since it was read: nothing would ever remove the run
    if new.build_pk is not None:
        _check_build(db, new.build_pk)
    run_id = _next_id(db, new.kind)
    given = {k: v for k, v in new.values.items() if k in _INSERTABLE and v is not None}
    row = {k: to_json(v) if k in _JSON else v for k, v in given.items()}
    row |= {
        "kind": str(new.kind),
        "id": run_id,
        "uuid": uuids.uuid4().hex,
        "project_id": project.id,
        "user_id": user.id,
        "secrets_user_id": new.secrets_user_id or user.id,
        "name": _free_name(db, project, new),
        "content": new.content,
        "config": to_json(new.config),
        "resources": to_json(new.resources),
        "status": str(Status.CREATED),
        "created_at": now,
        "updated_at": now,
        "build_pk": new.build_pk,
        "build_key": new.build_key,
        "original_pk": new.original.pk if new.original else None,
        "group_pk": new.group.pk if new.group else None,
        "cloning_strategy": new.cloning_strategy,
        "code_id": reference_code(db, project, new.code) if new.code else new.code_id,
        "outputs": new.outputs or _outputs(project, new, run_id),
        "warnings": to_json(list(new.warnings)),
    }
    columns, marks = ", ".join(row), ", ".join(f":{column}" for column in row)
    pk: int = db.execute(f"insert into runs ({columns}) values ({marks}) returning pk", row).fetchone()[0]
    if params := given.get("params"):
        run_values.set_params(db, pk, params)
    first, *others = [*filter(None, [new.message]), *new.notes] or [""]
    for message in (first or None, *others):
        _record_status(db, pk, Status.CREATED, now, message, None, None)
    return pk


def _outputs(project: Project, new: NewRun, run_id: int) -> str | None:
    """The outputs folder of a new run. It has the uuid of the project, since names of projects are reused.

    An experiment's lies in that of its group. Groups and package builds have none.
    """
    if new.kind in (Kind.GROUP, Kind.PACKAGE):
        return None
    return f"{OUTPUTS}/{project.uuid}/{run_outputs(new.kind, run_id, new.group.id if new.group else None)}"


def _check_build(db: sqlite3.Connection, pk: int) -> None:
    """Check the build of a new run, in the transaction that inserts it. A failed build has no image."""
    row = db.execute("select id, status from runs where pk = ? and deleted_at is null", (pk,)).fetchone()
    if row is None or (is_done(row["status"]) and row["status"] != Status.SUCCEEDED):
        state = f"The build {row['id']} is {row['status']}" if row else "The build is deleted"
        raise InvalidInput([f"{state}: it has no image to run."])


def _next_id(db: sqlite3.Connection, kind: Kind) -> int:
    upsert = "insert into sequences values (?, 1) on conflict do update set last = last + 1 returning last"
    found: int = db.execute(upsert, (str(kind),)).fetchone()[0]
    return found


def _free_name(db: sqlite3.Connection, project: Project, new: NewRun) -> str | None:
    """The requested name, with a suffix `-N` if another run of the project has it."""
    wanted: str | None = new.values.get("name") or None
    taken = "select 1 from runs where project_id = ? and kind = ? and name = ? and deleted_at is null"
    name, n = wanted, 1
    while name and db.execute(taken, (project.id, str(new.kind), name)).fetchone():
        name, n = f"{wanted}-{n}", n + 1
    return name


def move(
    db: sqlite3.Connection,
    pk: int,
    to: Status,
    message: str | None,
    details: Mapping[str, Any] | None,
    traceback: str | None,
    recorded: Mapping[str, Any] | None,
) -> bool:
    """`transition` of one row, in the caller's transaction."""
    now = _moment(db, pk)
    values: dict[str, Any] = {**(recorded or {}), "status": str(to), "updated_at": now}
    sets = [f"{column} = :{column}" for column in values] + ["status_entries = status_entries + 1"]
    if to in STARTS or is_done(to):
        values["started"] = now
        sets.append(f"started_at = coalesce(started_at, {':started' if to in STARTS else 'created_at'})")
    if is_done(to):
        sets.append("finished_at = :updated_at")
    sources = ", ".join(f"'{source}'" for source in sorted(TRANSITIONS[to]))
    moved = db.execute(
        f"update runs set {', '.join(sets)} where pk = :pk and status in ({sources}) returning kind",
        {**values, "pk": pk},
    ).fetchall()
    if not moved:
        return False
    _record_status(db, pk, to, now, message, details, traceback)
    if is_done(to):
        db.execute("delete from tokens where run_pk = ?", (pk,))  # the token of a run is valid while it is open
    if moved[0]["kind"] == Kind.PACKAGE:
        package_status.follow(db, pk)
    return True


def note(db: sqlite3.Connection, pk: int, message: str, details: Mapping[str, Any] | None = None) -> None:
    """`Runs.note` in the caller's transaction."""
    row = db.execute("select status from runs where pk = ?", (pk,)).fetchone()
    if row:
        _record_status(db, pk, row["status"], _moment(db, pk), message, details, None)


def _moment(db: sqlite3.Connection, pk: int) -> str:
    """The present time, but not before the last entry of the history: clocks may be set back."""
    last = db.execute("select created_at from statuses where run_pk = ? order by id desc limit 1", (pk,)).fetchone()
    return max(clock.now(), last["created_at"]) if last else clock.now()


def _record_status(
    db: sqlite3.Connection,
    pk: int,
    status: str,
    now: str,
    message: str | None,
    details: Mapping[str, Any] | None,
    traceback: str | None,
) -> None:
    db.execute(
        "insert into statuses (uuid, run_pk, created_at, status, message, traceback, details)"
        " values (?, ?, ?, ?, ?, ?, ?)",
        (uuids.uuid4().hex, pk, now, str(status), shorten(message), traceback, to_json(details)),
    )


def _carry_over(db: sqlite3.Connection, build: Run, to: Status, reason: str | None) -> list[int]:
    """Carry the end of a build over to the runs that wait for it."""
    if not is_done(to):
        return []
    waiting = f"select r.pk from runs r where r.build_pk = ? and r.kind <> 'build' and {OPEN}"
    pks = [row["pk"] for row in db.execute(waiting, (build.pk,)).fetchall()]
    if to is not Status.SUCCEEDED:
        details = {"build_job": build.unique_name, "uuid": build.uuid, "failure_time": clock.now(), "reason": reason}
        end = Status.STOPPED if to in (Status.STOPPED, Status.SKIPPED) else Status.FAILED
        for pk in pks:
            move(db, pk, end, f"Build {end}", details, None, None)
    return pks


def _reusable_build(db: sqlite3.Connection, build: NewRun) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute(
        "select pk, uuid, status from runs where build_key = :key and is_valid and deleted_at is null"
        " and (:user is null or secrets_user_id = :user)"
        " and status not in ('failed', 'upstream_failed', 'stopped', 'skipped') and stop_requested_at is null"
        " order by pk desc limit 1",
        {"key": build.build_key, "user": build.secrets_user_id},
    ).fetchone()
    return found


def _insert_build_for(db: sqlite3.Connection, run: Run, build: NewRun) -> int:
    project = row_of(
        Project,
        db.execute(
            "select p.*, u.username as user from projects p join users u on u.id = p.user_id where p.id = ?",
            (run.project_id,),
        ).fetchone(),
    )
    user = row_of(User, db.execute("select * from users where id = ?", (run.user_id,)).fetchone())
    pk = insert(db, project, user, build)
    values = (run.priority, run.secrets_user_id, pk)
    db.execute("update runs set priority = ?, secrets_user_id = ? where pk = ?", values)
    return pk


def shorten(message: str | None) -> str | None:
    """Cut a message to the documented length, visibly."""
    if message is None or len(message) <= MAX_MESSAGE:
        return message
    return message[: MAX_MESSAGE - 1] + "…"


def build_key(project_id: int, config: Mapping[str, Any], commit: str | None) -> str:
    """A key that is equal for equal builds of the same code in the same project. The order of keys does not matter."""
    text = json.dumps([project_id, config, commit], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
