"""Runs of all kinds, which share one table and one life cycle."""

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
from polylocal.statuses import Kind, Status, is_done
from polylocal.store import database, life_cycle, queries, run_values
from polylocal.store.database import Tables, delete_in_parts
from polylocal.store.projects import reference_code
from polylocal.store.queries import OPEN, SELECT, SERVERS, VISIBLE
from polylocal.store.rows import Project, Run, StatusRow, User, columns_of, json_columns, read_row, read_rows, to_json

# a run with the runs that belong to it: experiments of a group, tensorboards of both
_WITH = """(pk = :pk or group_pk = :pk or experiment_pk = :pk
    or experiment_pk in (select pk from runs where group_pk = :pk and kind = 'experiment'))"""
_WAITS_FOR_BUILD = queries.sql_list({Status.CREATED, Status.BUILDING, Status.UNSCHEDULABLE})
_ABOUT = frozenset({"name", "description", "readme", "tags", "data_refs", "run_env", "backend", "params", "framework"})
_INSERTED = _ABOUT | {"is_managed", "ttl", "priority", "experiment_pk", "group_type", "is_held"}
_INSERTED |= {"search_algorithm", "concurrency", "iteration"}
_PATCHED = _ABOUT | {"dockerfile", "node"}
_RECORDED = frozenset(
    "container_id exit_code restarts restarted_after dockerfile image_id builder shell locale node is_valid outputs"
    " code_id port address keeps_changes iteration suggested log_start".split()
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


class Runs(Tables):
    # -- creation and lists -------------------------------------------------------------------------------------------

    def insert(self, project: Project, user: User, new: NewRun) -> Run:
        """Insert a run and its first status, in one transaction."""
        with self._database.write() as db:
            pk = insert(db, project, user, new)
        self._notify(pk)
        return self.by_pk(pk)

    def get(self, project: Project, kind: Kind, run_id: int) -> Run:
        query = f"{SELECT} where r.kind = ? and r.id = ? and r.project_id = ? and {VISIBLE}"
        return self._database.one(Run, query, (kind, run_id, project.id))

    def including_archived(self, project: Project, kind: Kind, run_id: int) -> Run:
        """A run, also an archived one. Raises NotFound."""
        query = f"{SELECT} where r.kind = ? and r.id = ? and r.project_id = ? and r.deleted_at is null"
        return self._database.one(Run, query, (kind, run_id, project.id))

    def find(self, kind: Kind, run_id: int) -> Run:
        return self._database.one(Run, f"{SELECT} where r.kind = ? and r.id = ? and {VISIBLE}", (kind, run_id))

    def by_name(self, project: Project, kind: Kind, name: str) -> Run:
        """A run by id, by name or by unique name. Raises NotFound."""
        if name.isascii() and name.isdigit() and len(name) < 19:
            return self.get(project, kind, int(name))
        if name.startswith(f"{project.unique_name}.") and name.rpartition(".")[2].isdigit():
            found = self.get(project, kind, int(name.rpartition(".")[2][:18]))
            if found.unique_name == name:
                return found
        query = f"{SELECT} where r.kind = ? and r.name = ? and r.project_id = ? and {VISIBLE}"
        return self._database.one(Run, query, (kind, name, project.id))

    def by_pk(self, pk: int) -> Run:
        """A run by its pk, also a deleted one that is not removed yet. Raises NotFound."""
        return self._database.one(Run, f"{SELECT} where r.pk = ?", (pk,))

    def by_uuid(self, uuid: str) -> Run | None:
        return self._database.first(Run, f"{SELECT} where r.uuid = ?", (uuid,))

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
            members = queries.members_of(group)
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
        by_pk = {run.pk: run for run in read_rows(Run, rows)}
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
        return self._database.rows(Run, newest, (*values, limit))

    def archives(self, user: User, kind: Kind, page: queries.Page) -> tuple[int, list[Run]]:
        """Count and one page of the archived runs in a user's projects, the last archived first."""
        where = "where r.kind = ? and r.archived_at is not null and r.deleted_at is null and p.user_id = ?"
        count = f"select count(*) from runs r join projects p on p.id = r.project_id {where}"
        found = f"{SELECT} {where} order by {queries.order_by_dates(page.sort, 'r', 'r.archived_at desc, r.pk desc')}"
        return self._database.page(Run, count, found, (str(kind), user.id), page.limit, page.offset)

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
        """Move a run to a status, and add an entry to its history, in one transaction.

        `recorded`: columns to set with the status. Returns False, and writes nothing, if the present status does not
        allow that. A build that fails ends the runs that wait for it, in the same transaction.
        """
        with self._database.write() as db:
            moved = life_cycle.move(db, run.pk, to, message, details, traceback, recorded)
            is_build = moved and run.kind is Kind.BUILD
            waiting = life_cycle.end_dependents(db, run, to, message) if is_build else []
        for pk in (run.pk, *waiting) if moved else ():
            self._notify(pk)
        return moved

    def note(self, run: Run, message: str, details: Mapping[str, Any] | None = None) -> None:
        """Add an entry to the history that repeats the status, with a message."""
        with self._changing(run.pk) as db:
            life_cycle.note(db, run.pk, message, details)

    def statuses(self, run: Run, *, limit: int, offset: int) -> tuple[int, list[StatusRow]]:
        count = "select count(*) from statuses where run_pk = ?"
        found = "select * from statuses where run_pk = ? order by id"
        return self._database.page(StatusRow, count, found, (run.pk,), limit, offset)

    def newest_messages(self, runs: Iterable[Run]) -> dict[int, str | None]:
        """The message of the last entry of each run's history, by pk."""
        last = "select max(id) from statuses where run_pk in (select value from json_each(?)) group by run_pk"
        with self._database.read() as db:
            found = f"select run_pk, message from statuses where id in ({last})"
            return dict(db.execute(found, (json.dumps([run.pk for run in runs]),)).fetchall())

    def newest_status(self, run: Run) -> StatusRow:
        query = "select * from statuses where run_pk = ? order by id desc limit 1"
        return self._database.one(StatusRow, query, (run.pk,))

    def seconds_since_running(self, run: Run) -> float:
        """Seconds since the run first had the status running; 0 if it never had.

        Uses the machine's monotonic clock since the first call. After a restart of the machine, or if the machine does
        not tell its restarts, uses the timestamps of the history.
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
        since: str | None = self._database.value(query, (run.pk,))
        return since

    def status_entry(self, run: Run, uuid: str) -> StatusRow:
        return self._database.one(StatusRow, "select * from statuses where run_pk = ? and uuid = ?", (run.pk, uuid))

    def request_stop(self, run: Run, reason: str | None = None) -> None:
        """Request a stop, which the runner carries out. Has no effect on a run that is done.

        `reason`: set unless a user requests the stop. Only the first request sets it.
        """
        stop = "stop_reason = iif(stop_requested_at is null, ?, stop_reason)"
        stop += ", stop_requested_at = coalesce(stop_requested_at, ?)"
        with self._changing(run.pk) as db:
            db.execute(f"update runs as r set {stop} where pk = ? and {OPEN}", (reason, clock.now(), run.pk))

    # -- changes ---------------------------------------------------------------------------------------------------

    def update(self, run: Run, values: Mapping[str, Any]) -> Run:
        """Change the columns that a user may change. Raises InvalidInput for a name of another run of the project."""
        return self.change(run, lambda _: values)

    def change(self, run: Run, values_for: Callable[[Run], Mapping[str, Any]]) -> Run:
        """Change a run to values that depend on the old ones: `values_for` gets the row of this transaction.

        An exception of `values_for` ends the transaction, and nothing is changed.
        """
        with self._changing(run.pk) as db:
            found = db.execute(f"{SELECT} where r.pk = ?", (run.pk,)).fetchone()
            if found is None:
                raise NotFound  # it was removed since it was read
            values = values_for(read_row(Run, found))
            row = columns_of(values, _PATCHED, _JSON) | {"updated_at": clock.now()}
            try:
                database.update(db, "runs", row, pk=run.pk)
            except sqlite3.IntegrityError as error:
                message = f"A {run.kind} with name `{values.get('name')}` already exists in this project."
                raise InvalidInput({"name": [message]}) from error
            if "params" in values:
                run_values.set_params(db, run.pk, values["params"])
        return self.by_pk(run.pk)

    def record(self, run: Run, **columns: Any) -> Run:
        """Set columns for the runner. This does not count as a change of the run."""
        self._set(run.pk, columns_of(columns, _RECORDED, _JSON))
        return self.by_pk(run.pk)

    def _set(self, pk: int, row: Mapping[str, Any]) -> None:
        with self._database.write() as db:
            database.update(db, "runs", row, pk=pk)

    def archive(self, run: Run) -> None:
        """Archive a run and the runs that belong to it: they are invisible until it is restored. Open ones stop."""
        now = clock.now()
        among = f"archived_at is null and deleted_at is null and {_WITH}"
        values = {"now": now, "pk": run.pk}
        with self._changing(run.pk) as db:
            stop = "update runs as r set stop_requested_at = coalesce(stop_requested_at, :now)"
            db.execute(f"{stop} where {among} and {OPEN}", values)
            db.execute(f"update runs set archived_at = :now where {among}", values)

    def restore(self, run: Run) -> None:
        """Restore a run, with the runs that were archived together with it."""
        with self._changing(run.pk) as db:
            restore = f"update runs set archived_at = null where archived_at = :at and {_WITH}"
            db.execute(restore, {"at": run.archived_at, "pk": run.pk})

    def delete(self, run: Run) -> None:
        """Delete a run and the runs that belong to it: they are invisible at once, and the runner removes them."""
        with self._changing(run.pk) as db:
            delete = f"update runs set deleted_at = :now where {_WITH} and deleted_at is null"
            db.execute(delete, {"now": clock.now(), "pk": run.pk})
            # runs that wait for this build get another one
            waiting = f"build_pk = ? and container_id is null and status in {_WAITS_FOR_BUILD}"
            db.execute(f"update runs set build_pk = null where {waiting}", (run.pk,))

    def remove(self, run: Run) -> None:
        """Remove the row, after everything else of the run was removed."""
        for table in ("metrics", "statuses"):
            delete_in_parts(self._database, table, "run_pk = ?", (run.pk,))
        with self._changing(run.pk) as db:
            db.execute("delete from bookmarks where subject = ? and object_id = ?", (run.kind, run.pk))
            db.execute("delete from runs where pk = ?", (run.pk,))

    def shares_outputs(self, run: Run) -> bool:
        query = "select 1 from runs where outputs = ? and pk <> ? limit 1"
        return self._database.value(query, (run.outputs, run.pk)) is not None

    def server(
        self, project: Project, kind: Kind, *, experiment: Run | None = None, group: Run | None = None
    ) -> Run | None:
        """The newest notebook or tensorboard of a project, or of one experiment or group in it."""
        # the kind is part of the text: SQLite does not use the index of servers otherwise
        of = f"r.project_id = ? and r.kind = '{kind}' and r.kind in {SERVERS}"
        of += " and r.experiment_pk is ? and r.group_pk is ?"
        values = (project.id, experiment.pk if experiment else None, group.pk if group else None)
        return self._database.first(Run, f"{SELECT} where {of} and {VISIBLE} order by r.pk desc limit 1", values)


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
    given = {name: value for name, value in new.values.items() if value is not None}
    row = columns_of(given, _INSERTED, _JSON) | {
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
        "outputs": new.outputs or _outputs_path(project, new, run_id),
        "warnings": to_json(list(new.warnings)),
    }
    pk = database.insert(db, "runs", row)
    if params := given.get("params"):
        run_values.set_params(db, pk, params)
    first, *others = [*filter(None, [new.message]), *new.notes] or [""]
    for message in (first or None, *others):
        life_cycle.add_entry(db, pk, Status.CREATED, now, message)
    return pk


def _outputs_path(project: Project, new: NewRun, run_id: int) -> str | None:
    """The outputs folder of a new run. It has the uuid of the project, since names of projects are reused.

    The folder of an experiment is in that of its group. Groups and package builds have none.
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


def build_key(project_id: int, config: Mapping[str, Any], commit: str | None) -> str:
    """A key that is equal for equal builds of the same code in the same project. The order of keys does not matter."""
    text = json.dumps([project_id, config, commit], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
